"""Tools as folders and Spaces of the Hub, in the format of smolagents: `tool.py`, `app.py`, `requirements.txt`, `README.md`.

What must never happen here: a Space that is something else is overwritten; a Space is made public that nobody asked to be; the
same push makes a second commit.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from smolagents import Tool

from ..errors import InternError

if TYPE_CHECKING:
    from huggingface_hub import HfApi

TAGS = ["smolagents", "tool"]
"""By these the Hub and smolagents know a Space of a tool."""
LONGEST_SUMMARY = 60

_APP = """import json

import gradio as gr

from tool import {name}

tool = {name}()


def component(name, about):
    label = name + (" (optional)" if about.get("nullable") else "")
    if about["type"] == "boolean":
        return gr.Checkbox(label=label, info=about["description"])
    if about["type"] in ("integer", "number"):
        return gr.Number(label=label, info=about["description"], value=None)
    return gr.Textbox(label=label, info=about["description"] + ("" if about["type"] == "string" else " As JSON."))


def run(*values):
    given = {{}}
    for (name, about), value in zip(tool.inputs.items(), values):
        if value is None or value == "":
            continue
        if about["type"] == "integer":
            value = int(value)
        elif about["type"] not in ("string", "number", "boolean"):
            value = json.loads(value)
        given[name] = value
    try:
        return tool(**given)
    except Exception as error:
        raise gr.Error(str(error))


gr.Interface(
    fn=run,
    inputs=[component(name, about) for name, about in tool.inputs.items()],
    outputs=gr.JSON(label="Result") if tool.output_type in ("object", "array", "any") else gr.Textbox(label="Result"),
    title=tool.name,
    description=tool.description,
    api_name=tool.name,
).launch()
"""


def files_of(tool: Tool) -> dict[str, bytes]:
    """A tool as the files of its Space, by name. Raises `ValueError`: smolagents cannot save it."""
    saved = tool.to_dict()
    code, needs = saved["code"], saved["requirements"]
    kind = type(tool).__name__
    return {
        "README.md": _readme(tool, needs).encode(),
        "app.py": _APP.format(name=kind).encode(),
        "requirements.txt": ("\n".join(needs) + "\n").encode(),
        "tool.py": code.encode(),
    }


def requirements_of(tool: Tool) -> list[str]:
    """The packages that a tool of this project needs where it runs by itself; as smolagents finds them, and faster."""
    from smolagents._function_type_hints_utils import get_imports

    named = get_imports(inspect.getsource(inspect.getmodule(type(tool)) or type(tool)))
    return sorted({name for name in named if name not in sys.stdlib_module_names} | {"smolagents"})


def save(tools: Iterable[Tool], folder: Path) -> list[Path]:
    """Writes each tool into a folder of its own name.

    Raises:
        InternError: the folder holds something else under that name, or cannot be written.
    """
    made = []
    for tool in tools:
        target = folder / tool.name
        strangers = [item.name for item in target.iterdir() if item.name not in _NAMES] if target.is_dir() else []
        if strangers:
            raise InternError(f"{target} is no tool's folder", f"it holds {strangers[0]}", "Name another folder.")
        try:
            target.mkdir(parents=True, exist_ok=True)
            for name, content in files_of(tool).items():
                (target / name).write_bytes(content)
        except OSError as error:
            raise InternError(f"Cannot write {target}", error.strerror or str(error), "Name another folder.") from None
        made.append(target)
    return made


_MADE_WITH_IT = {".gitattributes", "README.md"}
"""What the Hub itself puts into a new Space."""
_NAMES = {"README.md", "app.py", "requirements.txt", "tool.py", "__pycache__"}


@dataclass(frozen=True)
class Plan:
    """What pushing a tool will do: `state` is `new`, `changed` or `same`; `files` are those that change."""

    repo: str
    state: str
    private: bool
    files: dict[str, bytes]
    parent: str | None = None

    @property
    def said(self) -> str:
        seen = "private" if self.private else "PUBLIC"
        how = {"new": "a new Space", "changed": f"changes {', '.join(self.files)}", "same": "nothing to do"}[
            self.state
        ]
        return f"{self.repo}  {seen}  {how}"


def plan(tools: Iterable[Tool], namespace: str, api: HfApi, *, public: bool = False) -> list[Plan]:
    """Looks at what is there; changes nothing.

    Args:
        namespace (`str`): A user or an organization.
        public (`bool`, defaults to `False`): What new Spaces are to be; those that are there stay as they are.

    Raises:
        InternError: a Space of that name is something else; the Hub cannot be asked.
    """
    return [_plan(tool, f"{namespace}/{tool.name}", api, public) for tool in tools]


def _plan(tool: Tool, repo: str, api: HfApi, public: bool) -> Plan:
    from huggingface_hub.errors import RepositoryNotFoundError

    files = files_of(tool)
    try:
        info = api.space_info(repo, files_metadata=True)
    except RepositoryNotFoundError:
        return Plan(repo, "new", not public, files)
    except Exception as error:  # the HTTP library differs between releases; whatever it is, nothing was changed
        raise InternError(f"The Hub does not say what {repo} is", _line(error)) from error
    begun = {
        file.rfilename for file in info.siblings or ()
    } <= _MADE_WITH_IT  # a push that broke off: nothing is in it yet
    if not begun and not set(TAGS) <= set(info.tags or ()):
        raise InternError(
            f"{repo} is no tool's Space",
            f"it lacks the tags {' and '.join(TAGS)}",
            "Rename it, or push to another namespace.",
        )
    there = {file.rfilename: file.blob_id for file in info.siblings or ()}
    changed = {name: content for name, content in files.items() if there.get(name) != _blob(content)}
    return Plan(repo, "changed" if changed else "same", bool(info.private), changed, info.sha)


def push(one: Plan, api: HfApi) -> str:
    """Does it: one commit. Returns the commit's address, `""` where there was nothing to do.

    Raises:
        InternError: the Hub refuses; or the Space has changed since it was looked at.
    """
    from huggingface_hub import CommitOperationAdd

    if one.state == "same":
        return ""
    try:
        if one.state == "new":
            api.create_repo(one.repo, repo_type="space", space_sdk="gradio", private=one.private)
        operations = [CommitOperationAdd(name, content) for name, content in one.files.items()]
        made = api.create_commit(
            one.repo,
            operations,
            commit_message=f"Tool {one.repo.partition('/')[2]}",
            repo_type="space",
            parent_commit=one.parent,
        )
    except (
        Exception
    ) as error:  # the HTTP library differs between releases; what the Hub says is what one needs to know
        raise InternError(f"{one.repo} was not pushed", _line(error), "May the token write there?") from error
    return str(made.commit_url)


def _line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), "") or type(error).__name__


def _blob(content: bytes) -> str:
    """What git calls a file of this content."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def _readme(tool: Tool, needs: list[str]) -> str:
    summary = tool.description.split(". ")[0].rstrip(".")
    if len(summary) > LONGEST_SUMMARY:
        summary = summary[:LONGEST_SUMMARY].rsplit(" ", 1)[0]
    about: dict[str, Any] = {
        "title": tool.name,
        "emoji": "🔧",
        "colorFrom": "indigo",
        "colorTo": "gray",
        "sdk": "gradio",
        "app_file": "app.py",
        "pinned": False,
        "license": "apache-2.0",
        "short_description": summary,
        "tags": TAGS,
    }
    effects = getattr(type(tool), "effects", "unknown")
    rows = [
        f"| `{name}` | {_kind(spec['type'])} | {'no' if spec.get('nullable') else 'yes'} | {_cell(spec['description'])} |"
        for name, spec in tool.inputs.items()
    ]
    schema = getattr(tool, "output_schema", None)
    result = f"\n## Result\n\n```json\n{json.dumps(schema, indent=2, ensure_ascii=False)}\n```\n" if schema else ""
    return f"""---
{yaml.safe_dump(about, sort_keys=False, allow_unicode=True).strip()}
---

# {tool.name}

{tool.description}

A tool of [smolagents](https://github.com/huggingface/smolagents), from ML Intern. What it does to the world: {_effects(effects)}.
It needs: {", ".join(needs)}.

```python
from smolagents import load_tool

tool = load_tool("NAMESPACE/{tool.name}", trust_remote_code=True)
```

## Arguments

| name | type | required | |
| --- | --- | --- | --- |
{chr(10).join(rows)}
{result}"""


def _effects(effects: Any) -> str:
    if isinstance(effects, dict):
        return ", ".join(f"{kind} (`{operation}`)" for operation, kind in effects.items())
    return str(effects)


def _kind(kind: Any) -> str:
    return kind if isinstance(kind, str) else " or ".join(map(str, kind))


def _cell(text: str) -> str:
    return " ".join(str(text).split()).replace("|", "\\|")
