"""Builds the wheel, installs it beside this environment's packages and looks at it from outside the checkout.

import-linter and the type checker do not see `ml_intern.tools` through an editable install: they look at the wheel.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sysconfig.get_path("scripts"))


def main() -> int:
    with tempfile.TemporaryDirectory(prefix="wheel ") as name:
        folder = Path(name)
        source = folder / "source"
        ignore = shutil.ignore_patterns(".git", ".venv", ".demo", ".conformance", "build", "*.egg-info", "__pycache__")
        shutil.copytree(ROOT, source, ignore=ignore)
        build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(source)]
        subprocess.run(build, check=True, stdout=subprocess.DEVNULL)
        wheel = next(folder.glob("*.whl"))
        installed = folder / "installed"
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(installed)
        shutil.copy(ROOT / "tests" / "quality" / "floors.toml", folder / "pyproject.toml")
        environment = {**os.environ, "PYTHONPATH": str(installed)}
        where = "import ml_intern.tools as t, ml_intern.prompts as p; print(t.__file__); p.load_templates()"
        seen = subprocess.run(
            [sys.executable, "-c", where], cwd=folder, env=environment, check=True, capture_output=True, text=True
        )
        if str(installed) not in seen.stdout:
            sys.exit(f"`ml_intern.tools` came from {seen.stdout.strip()}, not from the wheel")
        commands = {
            "floors": [str(BIN / "lint-imports"), "--config", "pyproject.toml", "--no-cache"],
            "types": [
                str(BIN / "ty"), "check", "--python", sys.prefix, "--project", str(installed), "--output-format", "concise",
                str(installed / "ml_intern"),
            ],
        }  # fmt: skip
        failed = []
        for what, command in commands.items():
            done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
            print(f"{what}: {'ok' if done.returncode == 0 else 'FAILED'}")
            if done.returncode:
                failed.append(what)
                print((done.stdout + done.stderr)[-8000:])
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
