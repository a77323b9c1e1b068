"""smolagents' own tests, with `InternAgent` in `CodeAgent`'s place.

Downloads smolagents' source distribution (of the installed version) with pip, runs its tests of agents, memory,
monitoring and final answers twice, as they are and with `InternAgent`, and compares test by test. Nothing of it is kept in
this project. Exits 0 when no test fails with `InternAgent` that passes with `CodeAgent`, but for those in `EXPECTED`.

    python tests/conformance/run.py [FOLDER FOR SCRATCH]
"""

from __future__ import annotations

import importlib.metadata
import os
import subprocess
import sys
import tarfile
import xml.etree.ElementTree as ET
from pathlib import Path

TESTS = ("test_agents.py", "test_memory.py", "test_monitoring.py", "test_final_answer.py")

EXPECTED = {
    "test_missing_import_triggers_advice_in_error_log": "advice on a forbidden import: in a jail nothing is forbidden, numpy simply imports",
}
"""Tests that may fail with `InternAgent`, each with its reason."""

PLUGIN = '''
"""Puts InternAgent, under the name CodeAgent, where the tests import CodeAgent from."""
import smolagents, smolagents.agents
from ml_intern.agent import InternAgent

class CodeAgent(InternAgent):
    pass

smolagents.CodeAgent = smolagents.agents.CodeAgent = CodeAgent
smolagents.agents.AGENT_REGISTRY["CodeAgent"] = CodeAgent
'''

# The source distribution leaves out its tests' helpers: two markers, four fixtures and an image. These are ours.
MARKERS = """
import importlib.util, os, pytest
require_run_all = pytest.mark.skipif(not os.getenv("RUN_ALL"), reason="needs RUN_ALL")
require_torch = pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="needs torch")
"""

FIXTURES = """
import PIL.Image, pytest
import smolagents.agents
from smolagents import EMPTY_PROMPT_TEMPLATES, LogLevel, Tool

@pytest.fixture(autouse=True)
def quiet(monkeypatch):
    plain = smolagents.agents.MultiStepAgent.__init__
    def silent(self, *args, **kwargs):
        kwargs.setdefault("verbosity_level", LogLevel.OFF)
        plain(self, *args, **kwargs)
    monkeypatch.setattr(smolagents.agents.MultiStepAgent, "__init__", silent)

@pytest.fixture
def shared_datadir(tmp_path):
    PIL.Image.new("RGB", (64, 48), "teal").save(tmp_path / "000000039769.png")
    return tmp_path

@pytest.fixture
def test_tool():
    class TestTool(Tool):
        name, output_type = "test_tool", "string"
        description = "Says what it was given."
        inputs = {"input": {"type": "string", "description": "Anything; `error` makes it fail."}}

        def forward(self, input: str) -> str:
            if input == "error":
                raise ValueError("asked to fail")
            return f"Processed: {input}"

    return TestTool()

@pytest.fixture
def get_agent_dict():
    def build(version):
        model = {"model_id": "Qwen/Qwen2.5-Coder-32B-Instruct"}
        templates = {**EMPTY_PROMPT_TEMPLATES, "system_prompt": "dummy system prompt"}
        return {
            "class": "CodeAgent", "tools": [], "managed_agents": {}, "prompt_templates": templates,
            "model": {"class": "HfApiModel" if version == "v1.9" else "InferenceClientModel", "data": model},
            "max_steps": 10, "verbosity_level": 2, "planning_interval": 2, "name": "test_agent",
            "description": "dummy description", "requirements": ["smolagents"], "authorized_imports": ["pandas"],
            "executor_type": "local", "executor_kwargs": {}, "max_print_outputs_length": None,
        }
    return build
"""


def fetch(folder: Path) -> Path:
    """The unpacked source distribution."""
    version = importlib.metadata.version("smolagents")
    root = folder / f"smolagents-{version}"
    if not (root / "tests").is_dir():
        folder.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", ":all:"]
        subprocess.run([*command, f"smolagents=={version}", "--dest", str(folder)], check=True)
        with tarfile.open(folder / f"smolagents-{version}.tar.gz") as archive:
            archive.extractall(folder, filter="data")
    (root / "tests" / "utils").mkdir(exist_ok=True)
    (root / "tests" / "__init__.py").touch()
    (root / "tests" / "utils" / "__init__.py").touch()
    (root / "tests" / "utils" / "markers.py").write_text(MARKERS)
    (root / "tests" / "conftest.py").write_text(FIXTURES)
    (root / "with_intern.py").write_text(PLUGIN)
    return root


def run(root: Path, *plugins: str) -> dict[str, str]:
    """Runs the tests. Returns each test's outcome: passed, failed or skipped."""
    report = root / "report.xml"
    report.unlink(missing_ok=True)
    loaded = [part for plugin in plugins for part in ("-p", plugin)]
    options = ["-q", "--no-header", "--tb=short", "-o", "addopts=", "-p", "no:cacheprovider", f"--junitxml={report}"]
    files = [f"tests/{name}" for name in TESTS]
    environment = {**os.environ, "PYTHONPATH": str(root), "HF_HUB_OFFLINE": "1"}
    log = root / f"{'-'.join(plugins) or 'plain'}.log"
    with log.open("w") as out:
        subprocess.run(
            [sys.executable, "-m", "pytest", *loaded, *options, *files],
            cwd=root,
            env=environment,
            stdout=out,
            stderr=out,
        )
    if not report.exists():
        sys.exit(f"The tests did not run; see {log}.")
    outcomes = {}
    for case in ET.parse(report).iter("testcase"):
        kinds = {child.tag for child in case}
        outcome = "failed" if kinds & {"failure", "error"} else "skipped" if "skipped" in kinds else "passed"
        outcomes[f"{case.get('classname')}::{case.get('name')}"] = outcome
    return outcomes


def main() -> int:
    root = fetch(Path(sys.argv[1] if len(sys.argv) > 1 else ".conformance").absolute())
    plain, ours = run(root), run(root, "with_intern")
    base = [name for name, outcome in plain.items() if outcome == "passed"]
    lost = [name for name in base if ours.get(name) != "passed"]
    for name in lost:
        print(f"not passed: {name}: {EXPECTED.get(name.split('::')[-1].split('[')[0], 'UNEXPECTED')}")
    unexpected = [name for name in lost if name.split("::")[-1].split("[")[0] not in EXPECTED]
    if unexpected:
        print((root / "with_intern.log").read_text()[-6000:])
    print(f"{len(base) - len(lost)} passed, {len(unexpected)} failed, {len(lost) - len(unexpected)} skipped")
    print(f"InternAgent passes {len(base) - len(lost)} of the {len(base)} tests that CodeAgent passes.")
    return 1 if unexpected or not base else 0


if __name__ == "__main__":
    sys.exit(main())
