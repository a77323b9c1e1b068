"""What a row says of a call's result beyond its text, so that the code can be given it again."""

from __future__ import annotations

import builtins
import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .rows import Row

SHORTEST_CUT = 100_000
"""Characters that a row keeps at least of a text that lies in an artifact."""

TEXT, DATA, OBJECT = "text", "data", "object"
_OFFLOADED = re.compile(r"\n\[\.\.\. \d+ characters in all, whole in artifacts/([0-9a-f]{64})\.txt \.\.\.\]\n")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_NAMED_ERROR = re.compile(r"([A-Za-z_]\w*): ?([\s\S]*)")


class Unrecorded(ValueError):
    """A result that the recording does not hold: it was an object, or its file is gone."""


def result_fields(result: Any, error: BaseException | None) -> Row:
    """Fields of a call's result row.

    Args:
        result (`Any`): What the tool returned.
        error (`BaseException`, *optional*): What it raised.

    Returns:
        `dict`: `result` is `text`, `data` (the row's text is its JSON) or `object` (it is only described); `failure` is
        the error's class and its bases, and its message.
    """
    if error is not None:
        ancestry = [cls.__name__ for cls in type(error).__mro__ if cls is not object]
        given = {"args": list(error.args)} if is_data(error.args) else {}
        return {"failure": {"classes": ancestry, "message": str(error), **given}}
    return {"result": TEXT if isinstance(result, str) else DATA if is_data(result) else OBJECT}


def is_data(value: Any) -> bool:
    """Whether JSON says all of it (a tuple comes back as a list)."""
    todo = [value]
    while todo:
        item = todo.pop()
        if isinstance(item, list | tuple):
            todo += item
        elif isinstance(item, dict):
            if not all(isinstance(key, str) for key in item):
                return False
            todo += item.values()
        elif item is not None and not isinstance(item, str | int | float | bool):
            return False
    return True


@dataclass(frozen=True)
class RecordedResult:
    """A call's result as its trace has it.

    Args:
        text (`str`): All of it, out of its artifact where it lies in one.
        error (`bool`): Whether the call failed.
        kind (`str`): `text`, `data`, `object`; `""` in traces that do not say.
        classes (`tuple[str, ...]`): The error's class and its bases.
        whole (`bool`): `False` where the artifact is gone and `text` holds only its ends.
    """

    text: str
    error: bool = False
    kind: str = ""
    classes: tuple[str, ...] = ()
    message: str = ""
    args: tuple[Any, ...] | None = None
    denied: bool = False
    whole: bool = True

    def value(self) -> Any:
        """What the code got.

        Raises:
            Unrecorded: the recording does not hold it.
        """
        if not self.whole:
            raise Unrecorded("its text lies in a file that is not here")
        if self.kind == TEXT:
            return self.text
        if self.kind == OBJECT:
            raise Unrecorded(f"it was an object, of which the recording has only a description: {self.text[:80]}")
        try:
            return json.loads(self.text)
        except ValueError:
            if self.kind == DATA:
                raise Unrecorded("its JSON does not read") from None
            return self.text

    def exception(self) -> Exception:
        """What the code caught: the nearest exception of Python's own, with the same words."""
        for place, name in enumerate(self.classes):
            known = getattr(builtins, name, None)
            if isinstance(known, type) and issubclass(known, Exception):
                given = self.args if place == 0 and self.args is not None else (self.message,)
                try:
                    return known(*given)
                except TypeError:  # its constructor wants more than a message
                    continue
        return RuntimeError(self.message)


def read_result(row: Row, block: Row, artifacts: Path) -> RecordedResult:
    """A result out of its row; `artifacts` is where long texts lie."""
    text, whole = whole_text(row, block, artifacts)
    failure = row.get("failure")
    error = block.get("is_error") is True
    classes: tuple[str, ...] = ()
    message, args = text, None
    if error and isinstance(failure, dict) and isinstance(failure.get("classes"), list):
        classes, message = tuple(map(str, failure["classes"])), str(failure.get("message", ""))
        args = tuple(failure["args"]) if isinstance(failure.get("args"), list) else None
    elif error and (named := _NAMED_ERROR.fullmatch(text)):
        classes, message = (named[1],), named[2]
    kind, denied = str(row.get("result", "")), row.get("denied") is True
    return RecordedResult(text, error, kind, classes, message, args, denied, whole)


def text_of(block: Row) -> str:
    """The text of a result block."""
    content = block.get("content")
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else []
    return "\n".join(
        str(part.get("text", "")) for part in parts if isinstance(part, dict) and part.get("type") == "text"
    )


def images_of(block: Row) -> tuple[str, ...]:
    """The images of a result block, in base64."""
    content = block.get("content")
    parts = content if isinstance(content, list) else []
    sources = [part.get("source") for part in parts if isinstance(part, dict) and part.get("type") == "image"]
    return tuple(str(source.get("data", "")) for source in sources if isinstance(source, dict))


def whole_text(row: Row, block: Row, artifacts: Path) -> tuple[str, bool]:
    """The text of a result, out of its artifact where the row holds only the ends of it; and whether it is whole."""
    text = text_of(block)
    named = row.get("artifact")
    found = _OFFLOADED.search(text) if len(text) > SHORTEST_CUT else None  # what it looks like, a text may say, too
    digest = Path(named).stem if isinstance(named, str) else found[1] if found else ""
    if not digest:
        return text, True
    if not _DIGEST.fullmatch(digest):
        return text, False
    try:
        data = (artifacts / f"{digest}.txt").read_bytes()
    except OSError:
        return text, False
    whole = hashlib.sha256(data).hexdigest() == digest
    return (data.decode("utf-8", "replace"), True) if whole else (text, False)
