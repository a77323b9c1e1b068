"""Calls of tools that are no Python: structured ones of an API, and the forms in which models write them into a text.

Each becomes the Python call that says the same: its arguments are literals of what was given, and of nothing else.
"""

from __future__ import annotations

import difflib
import itertools
import json
import keyword
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .answer_text import mended

Tools = Mapping[str, Mapping[str, str]]

MOST_CALLS = 64
"""That are looked for in one answer."""
INTERPRETERS = (
    "python_interpreter", "python", "ipython", "code_interpreter", "execute_python", "execute_code", "run_python", "run_code",
    "python_exec", "exec",
)  # fmt: skip
"""Names under which models call what runs their code."""


@dataclass(frozen=True)
class NativeCall:
    """A structured call: `arguments` are a mapping, or JSON text."""

    name: str
    arguments: Any = None


@dataclass(frozen=True)
class Made:
    """Calls as Python; or why not: `problem` is `tool` or `arguments`, `what` says which."""

    code: str | None = None
    problem: str = ""
    what: str = ""
    thought: str = ""


class _Unreadable(ValueError):
    pass


def answer(value: Any) -> str:
    """The code that gives a final answer."""
    return f"final_answer({value!r})"


def native(calls: Sequence[NativeCall], tools: Tools, thought: str = "") -> Made:
    """Several calls are made in order, each printed, as only the last value of a step is shown by itself."""
    lines = []
    for call in calls:
        name = _known(call.name, tools)
        try:
            arguments = _arguments(call.arguments)
        except _Unreadable as error:
            return Made(problem="arguments", what=f"those of `{_short(call.name)}` are {error}", thought=thought)
        code = _own_code(call.name, name, arguments, tools)
        if code is not None:
            lines.append((None, code))
        elif name is None:
            return Made(problem="tool", what=_missing(call.name, tools), thought=thought)
        else:
            lines.append((name, _python(name, arguments, tools.get(name, {}))))
    lines.sort(key=lambda line: line[0] == "final_answer")  # it ends the step
    several = len(lines) > 1
    code = [f"print({line})" if several and name not in (None, "final_answer") else line for name, line in lines]
    return Made("\n".join(code), thought=thought)


def _known(name: str, tools: Tools) -> str | None:
    if not isinstance(name, str):
        return None
    short = re.sub(r":\d+\Z", "", name.strip()).rpartition(".")[2]
    if name in tools or name == "final_answer":
        return name
    return short if short in tools or short == "final_answer" else None


def _own_code(called: str, known: str | None, arguments: Any, tools: Tools) -> str | None:
    """The code that a call of an interpreter carries."""
    if known is not None or str(called).rpartition(".")[2] not in INTERPRETERS:
        return None
    mapping = isinstance(arguments, Mapping)
    values = [arguments.get(key) for key in ("code", "source", "script", "input")] if mapping else [arguments]
    return next((mended(value) for value in values if isinstance(value, str) and value.strip()), None)


def _missing(name: Any, tools: Tools) -> str:
    close = difflib.get_close_matches(str(name), list(tools), n=2, cutoff=0.5)
    also = f" (there is {' and '.join(f'`{one}`' for one in close)})" if close else ""
    return f"`{_short(name)}`{also}."


def _short(name: Any) -> str:
    return " ".join(str(name).split())[:60]


def _arguments(given: Any) -> Any:
    if given is None or given == "":
        return {}
    if not isinstance(given, str):
        return given
    try:
        value = loads(given)
    except ValueError:
        raise _Unreadable(f"no JSON (`{given[:80]}`)") from None
    return _arguments(value) if isinstance(value, str) and value.lstrip()[:1] == "{" else value


def loads(text: str) -> Any:
    """JSON; a line break within a string, as models write it, is taken as it is; NaN is refused: it is no Python."""
    try:
        return json.loads(text, strict=False, parse_constant=_no_constant, parse_float=_finite)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


def _finite(digits: str) -> float:
    value = float(digits)
    return value if math.isfinite(value) else _no_constant(digits)


_DECODER = json.JSONDecoder(strict=False, parse_constant=_no_constant, parse_float=_finite)


def _python(name: str, arguments: Any, parameters: Mapping[str, str]) -> str:
    if not isinstance(arguments, Mapping):
        return f"{name}({arguments!r})"
    plain = {key: value for key, value in arguments.items() if _is_keyword(str(key))}
    parts = [f"{key}={value!r}" for key, value in plain.items()]
    other = {key: value for key, value in arguments.items() if key not in plain}
    return f"{name}({', '.join([*parts, *([f'**{other!r}'] if other else [])])})"


def _is_keyword(name: str) -> bool:
    return name.isascii() and name.isidentifier() and not keyword.iskeyword(name)


def written(calls: Sequence[NativeCall]) -> str:
    """Structured calls as a text that is read as the same calls: what stands for them in a conversation of texts."""
    said = []
    for call in calls:
        try:
            arguments = json.dumps(_arguments(call.arguments), ensure_ascii=False)
        except (_Unreadable, TypeError, ValueError):
            arguments = str(call.arguments)
        said.append(f'<tool_call>\n{{"name": {json.dumps(str(call.name))}, "arguments": {arguments}}}\n</tool_call>')
    return "\n".join(said)


# In a text.

_NAMES = ("name", "tool", "tool_name", "function", "action", "recipient_name")
_ARGUMENTS = ("arguments", "parameters", "args", "input", "action_input", "tool_input", "params", "tool_arguments")


def of_json(value: Any, tools: Tools) -> Made | None:
    """A call, or several, that a text wrote as JSON; `None` where it is something else."""
    several = value if isinstance(value, list) else [value]
    made = [_one(each) for each in several]
    if not made or any(one is None for one in made):
        return None
    calls = [one for one in made if one is not None]
    if isinstance(value, Mapping) and not (set(value) & set(_ARGUMENTS)) and _known(calls[0].name, tools) is None:
        return None  # {"name": "Ada"} is data
    return native(calls, tools)


def _one(value: Any) -> NativeCall | None:
    if not isinstance(value, Mapping):
        return None
    inner = value.get("function")
    if isinstance(inner, Mapping):
        return _one(inner)
    if isinstance(value.get("tool_calls"), list) and len(value["tool_calls"]) == 1:
        return _one(value["tool_calls"][0])
    name = next((value[key] for key in _NAMES if isinstance(value.get(key), str) and value[key]), None)
    if name is None:
        return None
    return NativeCall(name, next((value[key] for key in _ARGUMENTS if key in value), None))


_FORMS = (
    # Hermes, Qwen, Granite and others; Llama's built-in tools; ReAct prompts
    re.compile(
        r"(?:<\|?tool_call\|?>\s*|\[TOOL_CALLS\]\s*|^Action:\s*(?:```(?:json)?\s*)?)(?=[\[{])|<\|python_tag\|>\s*(?=\{)", re.M
    ),
    # Llama 3.1; Mistral; ReAct; DeepSeek; Kimi; gpt-oss
    re.compile(r"<function=(?P<name>[\w.-]+)>\s*(?=\{)"),
    re.compile(r"\[TOOL_CALLS\]\s*(?P<name>[\w.-]+)(?:\[CALL_ID\]\w+)?(?:\[ARGS\])?\s*(?=\{)"),
    re.compile(r"^Action:\s*(?P<name>[\w.-]+)\s*\n\s*Action Input:\s*(?=\{)", re.M),
    re.compile(r"<｜tool▁call▁begin｜>(?:function<｜tool▁sep｜>)?(?P<name>[\w.-]+)(?:<｜tool▁sep｜>)?\s*(?:```json\s*)?(?=\{)"),
    re.compile(r"<\|tool_call_begin\|>(?P<name>[\w.:-]+)\s*<\|tool_call_argument_begin\|>\s*(?=\{)"),
    re.compile(r"to=functions\.(?P<name>[\w.-]+)[^{}\n]*?<\|message\|>\s*(?=\{)"),
)  # fmt: skip
_XML = re.compile(
    r"<(?:antml:)?invoke name=\"(?P<claude>[\w.-]+)\">(?P<first>.*?)</(?:antml:)?invoke>|"
    r"<function=(?P<qwen>[\w.-]+)>(?P<second>\s*<parameter=.*?)(?:</function>|\Z)",
    re.S,
)
_PARAMETER = re.compile(
    r"<(?:antml:)?parameter(?: name=\"|=)(?P<name>[\w.-]+)\"?>\n?(?P<value>.*?)\n?</(?:antml:)?parameter>", re.S
)
_WRAPPING = re.compile(
    r"<\|?tool_calls?(?:_section)?(?:_begin)?\|?>|<｜tool▁calls▁begin｜>|<function_calls>|<\|start\|>assistant|<\|channel\|>\w+"
)


def in_text(text: str, tools: Tools) -> Made | None:
    """Calls that are written in a model's own form; `None` where there is none."""
    found: list[tuple[int, NativeCall]] = []
    for form in _FORMS:
        for match in itertools.islice(form.finditer(text), MOST_CALLS):
            for call in _at(match, text):
                found.append((match.start(), call))
    closings = ("invoke>", "</function>", "</parameter>")
    end = max((text.rfind(closing) + len(closing) for closing in closings if closing in text), default=0)
    for match in itertools.islice(_XML.finditer(text, 0, end), MOST_CALLS):
        name = match["claude"] or match["qwen"]
        types = tools.get(_known(name, tools) or "", {})
        given = {
            each["name"]: _typed(each["value"], types.get(each["name"], "any"))
            for each in _PARAMETER.finditer(match[0])
        }
        found.append((match.start(), NativeCall(name, given)))
    if not found:
        return None
    found.sort(key=lambda one: one[0])
    return native([call for _, call in found], tools, _WRAPPING.sub("", text[: found[0][0]]).strip())


def _at(match: re.Match[str], text: str) -> Iterator[NativeCall]:
    name = match.groupdict().get("name")
    try:
        value, _ = _DECODER.raw_decode(text, match.end())
    except (ValueError, RecursionError):
        rest = text[match.end() :]
        yield NativeCall(name or _name_in(rest), rest)
        return
    if name is not None:
        yield NativeCall(name, value)
        return
    for each in value if isinstance(value, list) else [value]:
        yield _one(each) or NativeCall(_name_in(text[match.end() :]), text[match.end() :])


def _name_in(text: str) -> str:
    named = re.search(r"\"name\"\s*:\s*\"([^\"]{1,60})\"", text)
    return named[1] if named else "tool"


def _typed(value: str, kind: str) -> Any:
    """A parameter written as text, as the tool takes it."""
    if kind == "string":
        return value
    try:
        return loads(value)
    except ValueError:
        return value


def whole_json(text: str) -> Any:
    """What a text is that is JSON from end to end, in a fence or not; `None` where it is not, or just a word."""
    stripped = text.strip()
    fenced = re.fullmatch(r"```(?:json)?\s*\n(.*?)\n?```", stripped, re.S)
    stripped = fenced[1].strip() if fenced else stripped
    if stripped[:1] not in ("{", "["):
        return None
    try:
        value = loads(stripped)
    except ValueError:
        return None
    return value if isinstance(value, (dict, list)) and value else None


def json_in(text: str) -> Iterator[Any]:
    """JSON objects that stand in a text among words, outermost first."""
    place, tries = 0, 0
    while (place := text.find("{", place)) >= 0 and tries < 20:
        tries += 1
        try:
            value, place = _DECODER.raw_decode(text, place)
        except (ValueError, RecursionError):
            place += 1
            continue
        if isinstance(value, dict) and value:
            yield value


__all__ = [
    "Made",
    "NativeCall",
    "Tools",
    "answer",
    "in_text",
    "json_in",
    "loads",
    "native",
    "of_json",
    "whole_json",
    "written",
]
