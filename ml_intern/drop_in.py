"""What makes a `CodeAgent` of smolagents at home in a jail: its prompt, its outputs, its saved program."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

from smolagents.utils import truncate_content

USEFUL_PACKAGES = (
    "numpy", "scipy", "pandas", "pyarrow", "sklearn", "skops", "xgboost", "lightgbm", "torch", "torchvision", "transformers",
    "datasets", "accelerate", "peft", "trl", "sentence_transformers", "safetensors", "evaluate", "matplotlib", "seaborn", "PIL",
)  # fmt: skip
"""Those of them that are installed are named in the prompt: a model that has to find out loses a step."""

KEPT_OUTPUT = 8_000_000
"""Characters of a step's output that are kept, in memory or on disk; what is shown of them is the context's matter."""


def imports_said(prompt: str, listed: str, shares_packages: bool) -> str:
    """A system prompt that says what can be imported in real Python, in place of the list of what smolagents' interpreter allows.

    Args:
        prompt (`str`): smolagents' own.
        listed (`str`): The list as it stands in there.
        shares_packages (`bool`): Whether the jail has the packages of this process.
    """
    there = [name for name in USEFUL_PACKAGES if find_spec(name)] if shares_packages else []
    named = f" ({', '.join(there)})" if shares_packages else ""
    return prompt.replace(listed, f"whatever is installed{named} and all of Python's own modules, such as {listed}")


def whole_output(observation: str | None, output: Any) -> str | None:
    """An observation with all of the last line's value: smolagents keeps 20,000 characters of it, we show fewer and keep all."""
    if observation is None or "..._This content has been truncated" not in observation[-21_000:]:
        return observation
    text = str(output)
    kept = truncate_content(text)
    return observation[: -len(kept)] + text[:KEPT_OUTPUT] if observation.endswith(kept) else observation


OURS = {
    "InternAgent": "from ml_intern import InternAgent",
    "EndpointModel": "from ml_intern.models import EndpointModel",
}
"""Classes that smolagents' template of `app.py` would import from smolagents."""


def mend_imports(app: Path) -> None:
    """A saved agent's `app.py` imports this project's classes from this project."""
    lines = app.read_text(encoding="utf-8").splitlines()
    app.write_text("\n".join(map(_import_line, lines)) + "\n", encoding="utf-8")


def _import_line(line: str) -> str:
    if not line.startswith("from smolagents import "):
        return line
    names = line.removeprefix("from smolagents import ").split(", ")
    rest = ", ".join(name for name in names if name not in OURS)
    return "\n".join([f"from smolagents import {rest}", *(OURS[name] for name in names if name in OURS)])
