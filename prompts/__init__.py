"""What the model is told. YAML with Jinja in it, no logic: see `intern.yaml`."""

from __future__ import annotations

from importlib import resources
from typing import Any


def load_templates(name: str = "intern") -> dict[str, Any]:
    """A set of prompt templates, with the keys of smolagents' `PromptTemplates`."""
    import yaml

    return yaml.safe_load(resources.files(__name__).joinpath(f"{name}.yaml").read_text(encoding="utf-8"))
