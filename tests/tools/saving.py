"""Proof that a tool can leave this project: saved by smolagents, loaded where only its own requirements exist."""

import ast
import functools
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from smolagents import Tool

# Runs in a fresh interpreter. Packages that the tool does not require are hidden, as if they were not installed.
LOADER = """
import json, sys
from pathlib import Path

order = json.load(sys.stdin)

class Only:
    def __init__(self, finder):
        self.finder = finder
    def find_spec(self, name, path=None, target=None):
        known = name.partition(".")[0] in order["allowed"]
        return self.finder.find_spec(name, path, target) if known else None
    def __getattr__(self, name):
        return getattr(self.finder, name)

sys.meta_path[:] = [Only(finder) for finder in sys.meta_path]
from smolagents import Tool

tool = Tool.from_code(Path(order["file"]).read_text(encoding="utf-8"))
attributes = {name: getattr(type(tool), name, "(missing)") for name in order["attributes"]}
result = tool(**order["call"]) if order["call"] is not None else None
print("\\n" + repr({"attributes": attributes, "result": json.dumps(result)}))
"""


def assert_survives_saving(
    tool_class: type[Tool],
    *requirements: str,
    call: Mapping[str, Any] | None = None,
    environment: Mapping[str, str] | None = None,
) -> Any:
    """Save a tool as smolagents does, load it in an environment that holds only what it requires, and compare.

    Args:
        tool_class (`type[Tool]`): The class; made without arguments.
        *requirements (`str`): The PyPI packages it must ask for, beside `smolagents`: all of them and no others.
        call (`Mapping`, *optional*): Arguments to call the loaded tool with, over there.
        environment (`Mapping[str, str]`, *optional*): Added to the environment of that process.

    Returns:
        What the call returned, through JSON; `None` without a call.
    """
    tool = tool_class()
    expected = {canonicalize_name(name) for name in ("smolagents", *requirements)}
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as elsewhere:
        tool.save(folder)
        saved = Path(folder, "tool.py")
        code = saved.read_text(encoding="utf-8")
        assert "ml_intern" not in code, f"{tool_class.__name__} mentions ml_intern, which its users do not have"
        asked = Path(folder, "requirements.txt").read_text(encoding="utf-8").split()
        assert asked == tool.to_dict()["requirements"]
        strangers = [name for name in asked if canonicalize_name(name) not in _installed()]
        assert not strangers, f"{strangers} are import names, not packages: pip could not install them"
        assert {canonicalize_name(name) for name in asked} == expected, f"it asks for {asked}, not for {expected}"
        attributes = _literals(tool_class)
        order = {
            "file": str(saved),
            "allowed": sorted(_importable(expected)),
            "attributes": sorted(attributes),
            "call": dict(call) if call is not None else None,
        }
        done = subprocess.run(
            [sys.executable, "-I", "-c", LOADER],
            input=json.dumps(order),
            capture_output=True,
            text=True,
            cwd=elsewhere,
            env={**os.environ, **(environment or {})},
            timeout=100,
            check=False,
        )
        assert done.returncode == 0, f"the saved {tool_class.__name__} does not load or run on its own:\n{done.stderr}"
    there = ast.literal_eval(done.stdout.strip().splitlines()[-1])
    for name, value in attributes.items():
        assert there["attributes"][name] == value, (
            f"`{name}` came back as {there['attributes'][name]!r}, not {value!r}"
        )
    return json.loads(there["result"])


def _literals(tool_class: type[Tool]) -> dict[str, Any]:
    """The class's own attributes that are data: name, inputs, output_schema, effects and the like."""
    own = {name: value for name, value in vars(tool_class).items() if not name.startswith("_")}
    data = {n: v for n, v in own.items() if isinstance(v, str | int | float | bool | dict | list | tuple | set)}
    assert {"name", "description", "inputs", "output_type", "effects"} <= data.keys()
    return data


@functools.cache
def _installed() -> frozenset[str]:
    return frozenset(canonicalize_name(one.metadata["Name"]) for one in metadata.distributions())


@functools.cache
def _owners() -> Mapping[str, list[str]]:
    """The packages that modules come from."""
    return metadata.packages_distributions()


def _importable(packages: set[str]) -> set[str]:
    """Names of modules that exist where only these packages and what they depend on are installed."""
    closure: set[str] = set()
    waiting = [Requirement(name) for name in packages]
    while waiting:
        one = waiting.pop()
        key = canonicalize_name(one.name) + ",".join(sorted(one.extras))
        if key in closure or canonicalize_name(one.name) not in _installed():
            continue
        closure |= {key, canonicalize_name(one.name)}
        for text in metadata.requires(one.name) or []:
            needed = Requirement(text)
            if needed.marker is None or any(needed.marker.evaluate({"extra": e}) for e in ("", *one.extras)):
                waiting.append(needed)
    modules = {
        module for module, owners in _owners().items() if any(canonicalize_name(owner) in closure for owner in owners)
    }
    assert "ml_intern" not in modules
    return modules | set(sys.stdlib_module_names) | {"__main__"}
