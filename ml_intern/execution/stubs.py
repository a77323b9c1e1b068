"""How a host tool looks to code in the jail: a signature and a docstring."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable
from typing import Any

from smolagents import Tool

from ml_intern.syntax import parse

PYTHON_TYPES = {"string": "str", "integer": "int", "number": "float", "boolean": "bool", "array": "list",
                "object": "dict", "any": "Any", "null": "None", "image": "Image", "audio": "str"}  # fmt: skip


def describe(name: str, function: Callable[..., Any]) -> dict[str, str]:
    """`{"name", "signature", "doc"}` of a `Tool`, a managed agent or any function."""
    inputs = getattr(function, "inputs", None)  # smolagents' own mark of what it offers a model: tools, managed agents
    if not isinstance(inputs, dict):
        return {"name": name, "signature": _signature(function), "doc": _text(inspect.getdoc(function))}
    own = _parameters(function.forward) if isinstance(function, Tool) else {}
    parts, lines = [], [_text(getattr(function, "description", "")), "", "Args:"]
    optional = False
    for key, spec in inputs.items():
        kind = _kind(spec.get("type", "any"))
        default = ""
        if spec.get("nullable") or (key in own and own[key].default is not inspect.Parameter.empty) or optional:
            parameter = own.get(key)
            default = f" = {_literal(parameter.default) if parameter else None}"
            optional = True
        parts.append(f"{key}: {kind}{default}")
        lines.append(f"    {key} ({kind}): {_text(spec.get('description'))}")
    output = _kind(getattr(function, "output_type", "any")).replace("None", "Any")  # "null" where nothing was declared
    lines = lines if inputs else lines[:1]
    lines += ["", f"Returns: {output}"]
    if schema := getattr(function, "output_schema", None):
        lines.append(f"    {schema}")
    extra = ", **kwargs" if not isinstance(function, Tool) else ""
    return {"name": name, "signature": f"({', '.join(parts)}{extra}) -> {output}", "doc": "\n".join(lines).strip()}


def _kind(kind: Any) -> str:
    names = kind if isinstance(kind, (list, tuple)) else [kind]
    return " | ".join(PYTHON_TYPES.get(str(name), "Any") for name in names)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _parameters(function: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    try:
        return dict(inspect.signature(function).parameters)
    except (TypeError, ValueError):
        return {}


def _literal(default: Any) -> str:
    """A default as source. What does not read back shows as `...`; the call leaves it out, so the host's counts."""
    if default is inspect.Parameter.empty:
        return "..."
    text = repr(default)
    try:
        return text if ast.literal_eval(text) == default else "..."
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return "..."


def _signature(function: Callable[..., Any]) -> str:
    parameters = _parameters(function)
    if not parameters and not callable(function):
        return "(*args, **kwargs)"
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return "(*args, **kwargs)"
    plain = []
    for parameter in signature.parameters.values():
        if parameter.default is not inspect.Parameter.empty:
            parameter = parameter.replace(default=_Source(_literal(parameter.default)))
        plain.append(parameter.replace(annotation=_source_of(parameter.annotation)))
    return str(signature.replace(parameters=plain, return_annotation=_source_of(signature.return_annotation)))


class _Source:
    def __init__(self, text: str) -> None:
        self.text = text

    def __repr__(self) -> str:
        return self.text


def _source_of(annotation: Any) -> Any:
    """Annotations go as text and are never evaluated; what is no Python expression is left out."""
    if annotation is inspect.Parameter.empty:
        return annotation
    text = annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)
    try:
        parse(text, mode="eval")
    except SyntaxError:
        return inspect.Parameter.empty
    return _Source(text)
