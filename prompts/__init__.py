"""What the model is told. YAML with Jinja in it, no logic: see `intern.yaml`."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any


def load_templates(name: str = "intern") -> dict[str, Any]:
    """A set of prompt templates, with the keys of smolagents' `PromptTemplates`."""
    import yaml

    return yaml.safe_load(resources.files(__name__).joinpath(f"{name}.yaml").read_text(encoding="utf-8"))


def researcher_templates() -> dict[str, Any]:
    """The templates of the researcher: how a step looks and how tools are called is the intern's, its work is its own."""
    whole, own = load_templates(), load_templates("researcher")
    text = whole["system_prompt"]
    between = text[text.index("# How a step looks") : text.index("# The order of work")]
    system = f"{own['role']}\n\n{between}{own['work']}"
    return {**whole, "system_prompt": system, "managed_agent": own["managed_agent"]}


_NOTHING = "in a sandbox without network and without keys."
_NETWORK = {
    "hub": "in a sandbox without keys. Of the network it reaches what is public on the Hugging Face Hub, to read, no more:\n"
    "huggingface_hub and what is built on it find it by themselves.",
    "full": "in a sandbox without keys. It reaches public hosts, through a proxy that the environment names.",
}


def with_network(templates: Mapping[str, Any], network: str, hosts: Sequence[str] = ()) -> dict[str, Any]:
    """The templates with a true sentence on what code reaches.

    Args:
        templates (`Mapping[str, Any]`): As [`load_templates`] gives them; others are left as they are.
        network (`str`): `"none"`, `"hub"` or `"full"`.
        hosts (`Sequence[str]`, *optional*): Named hosts that it reaches besides.
    """
    text = templates["system_prompt"]
    if network in _NETWORK:
        more = f" A proxy that the environment names leads to {', '.join(hosts)}." if hosts else ""
        told = _NETWORK[network].replace(", no more:", ":") if hosts else _NETWORK[network]
        text = text.replace(_NOTHING, told + more)
        text = text.replace("What needs the network is a tool", "What needs more than that is a tool")
    return {**templates, "system_prompt": text}


_TOOL = re.compile(r'"""\{\{ tool\.description \}\}.*?"""', re.DOTALL)
_TOLD = "Results are plain Python data of the shape given."
_BRIEF = """Results are plain Python data.
Only the beginning of what there is to know is said here: `help(NAME)` prints the rest, arguments and result. Read it before you
first call one."""


def with_brief_tools(templates: Mapping[str, Any]) -> dict[str, Any]:
    """The templates for a model that reads little: of each tool its signature and a first sentence, `help` has the rest.

    Args:
        templates (`Mapping[str, Any]`): As [`load_templates`] gives them; others are left as they are.
    """
    text = _TOOL.sub('"""{{ tool.description.split(". ")[0].rstrip(".") }}."""', templates["system_prompt"], count=1)
    return {**templates, "system_prompt": text.replace(_TOLD, _BRIEF)}


_STEP = re.compile(
    r"First one or two sentences on what you do now and why\. Then .*?\n(?=You are then shown what)", re.DOTALL
)
_STRUCTURED_STEP = """Your answer is one JSON object with two texts, `thought` and `code`: one or two sentences on what you do now
and why, and Python:

{"thought": "I look at the data first.", "code": "report = hub_inspect_dataset(dataset=\\"owner/name\\")\\nprint(report)"}

"""


def with_structure(templates: Mapping[str, Any]) -> dict[str, Any]:
    """The templates for a model whose answers are JSON objects of thought and code.

    Args:
        templates (`Mapping[str, Any]`): As [`load_templates`] gives them; others are left as they are.
    """
    return {**templates, "system_prompt": _STEP.sub(lambda _: _STRUCTURED_STEP, templates["system_prompt"], count=1)}
