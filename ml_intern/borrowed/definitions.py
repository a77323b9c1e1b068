"""What a server says of a tool, for those who read it: all of it for a person, names, types and short quotations for a model."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from ..foreign import ARGUMENT_WORDS, quoted

if TYPE_CHECKING:
    from mcp.types import Tool as Definition

MOST_ARGUMENTS = 40
LONGEST_SCHEMA = 1_200
"""Characters of a result's schema that a model reads; a longer one is not shown."""
READ_RESOURCE = "read_resource"
_TYPES = {"string", "boolean", "integer", "number", "array", "object"}


def resource_definition() -> Definition:
    from mcp.types import Tool as Definition

    return Definition(
        name=READ_RESOURCE,
        description="Reads a resource of this server by its URI.",
        input_schema={
            "type": "object",
            "properties": {"uri": {"type": "string", "description": "As its tools' results name it."}},
            "required": ["uri"],
        },
    )


def described(definition: Definition) -> str:
    """All that the server says of a tool, for a person, and for its digest."""
    annotations = definition.annotations
    lines = [f"{definition.title} ({definition.name})" if definition.title else definition.name, ""]
    lines += [definition.description or "(no description)", "", f"Arguments: {_json(definition.input_schema)}"]
    if definition.output_schema is not None:
        lines.append(f"Result: {_json(definition.output_schema)}")
    if annotations is not None:
        said = annotations.model_dump(exclude_none=True, by_alias=True)
        lines.append(f"It says of itself, which does not count: {_json(said)}")
    return "\n".join(lines)


def _json(value: Any) -> str:
    return json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False, default=str)


def properties_of(schema: Any) -> list[str]:
    """The arguments' own names, those first that have to be given."""
    properties = schema.get("properties") if isinstance(schema, dict) else None
    names = [str(name) for name in properties] if isinstance(properties, dict) else []
    required = _required(schema)
    ordered = [name for name in names if name in required] + [name for name in names if name not in required]
    return ordered[: max(MOST_ARGUMENTS, sum(name in required for name in names))]


def _required(schema: Any) -> set[str]:
    required = schema.get("required") if isinstance(schema, dict) else None
    return {str(name) for name in required} if isinstance(required, list) else set()


def inputs_of(schema: Any, names: dict[str, str], room: int) -> dict[str, dict[str, Any]]:
    required, inputs = _required(schema), {}
    most = min(ARGUMENT_WORDS, room // max(1, len(names)))
    for own, name in names.items():
        about = schema["properties"][own]
        about = about if isinstance(about, dict) else {}
        words = str(about.get("description") or about.get("title") or "")
        if isinstance(about.get("enum"), list):
            words += f" One of {json.dumps(about['enum'][:20], ensure_ascii=False, default=str)}."
        inputs[name] = {
            "type": _type(about),
            "description": quoted(words, most) if words and most > 10 else "(not described)",
        }
        if own not in required:
            inputs[name]["nullable"] = True
    return inputs


def _type(about: dict[str, Any]) -> str:
    kind = about.get("type")
    kinds = [one for one in kind if one != "null"] if isinstance(kind, list) else [kind]
    return kinds[0] if len(kinds) == 1 and kinds[0] in _TYPES else "any"


def result_shape(schema: Any) -> dict[str, Any] | None:
    """The shape of a result for a model: names and types, none of the server's words; `None` where that is too long."""
    if not isinstance(schema, dict) or schema.get("type") != "object":
        return None
    shape = _shape(schema)
    return shape if len(json.dumps(shape)) <= LONGEST_SCHEMA else None


def _shape(schema: Any, depth: int = 0) -> dict[str, Any]:
    if not isinstance(schema, dict) or depth > 6:
        return {}
    shape: dict[str, Any] = {}
    kind = schema.get("type")
    if kind in _TYPES or kind == "null":
        shape["type"] = kind
    if isinstance(properties := schema.get("properties"), dict):
        named = [(str(name), about) for name, about in properties.items() if re.fullmatch(r"[\w .-]{1,60}", str(name))]
        shape["properties"] = {name: _shape(about, depth + 1) for name, about in named}
    if "items" in schema:
        shape["items"] = _shape(schema["items"], depth + 1)
    return shape
