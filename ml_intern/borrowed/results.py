"""What an MCP tool gave, as plain data: text, structured data, files.

What must never happen here: a result of any size fills the prompt, the record or the memory of the jail; something that a
server sent is lost without a word; a file lands outside its folder.
"""

from __future__ import annotations

import base64
import binascii
import io
import json
import mimetypes
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mcp.types import CallToolResult

LARGEST_TEXT = 2_000_000
"""Characters of text or of structured data that are handed on; more goes into a file of the workspace."""
HEAD = 20_000
MOST_FILES, MOST_BYTES = 50, 512 << 20
LONGEST_ERROR = 4_000
MOST_PIXELS = 50_000_000
"""Of an image that is decoded here."""
_IMAGES = ("PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF")
"""Formats that are: others start programs, or are seldom seen."""


class ResultReader:
    """Takes a result apart.

    Args:
        write (`Callable[[str, bytes], str]`, *optional*): Puts a file with this name into the workspace and returns its path
            there. Without it images are images, other binary data is base64, and text that is too long is cut.
    """

    def __init__(self, write: Callable[[str, bytes], str] | None = None) -> None:
        self._write, self._count, self._bytes, self._unnamed = write, 0, 0, 0
        self.texts: list[str] = []
        self.files: list[Any] = []
        self.links: list[dict[str, Any]] = []

    def read(self, result: CallToolResult) -> Any:
        """A text where there is nothing else, the structured data where there is any; else a dict of what came.

        What came beside structured data that is an object is put into it, where it has no such key itself: `text` that is not
        the same data once more, `files`, `resources`. The data is under `data` otherwise.

        Raises:
            RuntimeError: the server says that the call failed; with its words.
        """
        for block in result.content:
            self._take(block)
        if self._unnamed:
            self.texts.append(
                f"({self._unnamed} more links to resources were left out: {MOST_FILES} are the most that are handed on)"
            )
        structured = result.structured_content
        if result.is_error:
            raise RuntimeError(self._reason(structured) or "it failed, and did not say why")
        more: dict[str, Any] = {"files": self.files} if self.files else {}
        if self.links:
            more["resources"] = self.links
        text = "\n".join(self.texts if structured is None else _beside(self.texts, structured))
        shown = text if len(text) <= LARGEST_TEXT else self._long(text, "txt")
        if structured is None:
            return {"text": shown, **more} if more else shown
        if text:
            more = {"text": shown, **more}
        said = json.dumps(structured, ensure_ascii=False, default=str)
        if len(said) > LARGEST_TEXT:
            data = self._long(said, "json")
            return {"data": data, **more} if more else data
        if isinstance(structured, dict) and not structured.keys() & more.keys():
            return {**structured, **more}
        return {"data": structured, **more}

    def _reason(self, structured: Any) -> str:
        """Why a call failed: its texts, and the structured data unless one of them is the same."""
        texts = [text for text in self.texts if text.strip()]
        if not structured or _canonical(structured) in map(_as_json, texts):
            return "\n".join(texts)[:LONGEST_ERROR]
        said = json.dumps(structured, ensure_ascii=False, default=str)[: LONGEST_ERROR // 2]
        return "\n".join(filter(None, ["\n".join(texts)[: LONGEST_ERROR - len(said) - 1], said]))

    def contents(self, contents: list[Any]) -> Any:
        """What a resource holds, likewise."""
        for part in contents:
            self._resource(part)
        text = "\n".join(self.texts)
        shown = text if len(text) <= LARGEST_TEXT else self._long(text, "txt")
        return {"text": shown, "files": self.files} if self.files else shown

    def _take(self, block: Any) -> None:
        if block.type == "text":
            self.texts.append(block.text)
        elif block.type in ("image", "audio"):
            self._binary(block.data, block.mime_type)
        elif block.type == "resource":
            self._resource(block.resource)
        elif block.type == "resource_link" and len(self.links) >= MOST_FILES:
            self._unnamed += 1
        elif block.type == "resource_link":
            about = {
                "uri": str(block.uri),
                "name": block.name,
                "description": block.description,
                "type": block.mime_type,
            }
            self.links.append({key: value for key, value in about.items() if value})

    def _resource(self, part: Any) -> None:
        if isinstance(
            text := getattr(part, "text", None), str
        ):  # the protocol has two kinds, told apart by what they hold
            self.texts.append(text)
        else:
            self._binary(part.blob, part.mime_type or "application/octet-stream", str(part.uri))

    def _binary(self, data: str, kind: str, uri: str = "") -> None:
        try:
            content = base64.b64decode(data, validate=False)
        except (binascii.Error, ValueError):
            self.texts.append(f"({kind} that does not read as base64 was left out)")
            return
        self._count, self._bytes = self._count + 1, self._bytes + len(content)
        if self._count > MOST_FILES or self._bytes > MOST_BYTES:
            self.texts.append(f"({kind}, {len(content)} bytes, was left out: there is too much of it)")
        elif self._write is not None:
            self.files.append(self._write(f"{self._count}{_suffix(kind, uri)}", content))
        else:
            image = self._image(content) if kind.startswith("image/") else None
            self.files.append({"type": kind, "base64": data} if image is None else image)

    def _image(self, content: bytes) -> Any:
        """An image, decoded; `None`, and a word about it, where it is none or would fill the memory."""
        from PIL import Image

        try:
            image = Image.open(io.BytesIO(content), formats=_IMAGES)
            if (pixels := image.width * image.height) > MOST_PIXELS:
                raise Image.DecompressionBombError(f"Image size ({pixels} pixels)")
            image.load()
        except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
            found = re.search(r"\d+ pixels", str(error))
            self.texts.append(f"(an image of {found[0] if found else 'too many pixels'} is not decoded here)")
        except Exception as error:  # noqa: BLE001 - bytes of anybody's: whatever a decoder raises, they are no image
            self.texts.append(f"(an image that does not read: {type(error).__name__})")
        else:
            return image
        return None

    def _long(self, text: str, suffix: str) -> dict[str, Any] | str:
        if self._write is None:
            return f"{text[:LARGEST_TEXT]}\n(cut: {len(text)} characters in all)"
        self._count += 1
        path = self._write(f"{self._count}.{suffix}", text.encode(errors="replace"))
        return {"beginning": text[:HEAD], "whole": path, "characters": len(text)}


def _suffix(kind: str, uri: str) -> str:
    guessed = mimetypes.guess_extension(kind.partition(";")[0].strip()) or ""
    named = re.search(r"\.[A-Za-z0-9]{1,8}$", uri)
    return guessed or (named[0] if named else ".bin")


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=str)


def _as_json(text: str) -> str:
    """What a text says as JSON, written in one way; the text itself where it is none."""
    try:
        return _canonical(json.loads(text))
    except (ValueError, RecursionError):
        return _canonical(text.strip())


def _beside(texts: list[str], structured: Any) -> list[str]:
    """Those that are not the structured data, or a part of it, once more; nor nothing at all."""
    if not texts:
        return []
    parts: list[Any] = [structured]
    for _ in range(2):  # servers wrap what is no object as {"result": [...]}, and send a text for each item
        parts += [
            inner
            for part in parts
            if isinstance(part, dict | list)
            for inner in (part.values() if isinstance(part, dict) else part)
        ]
    known = {_canonical(part.strip() if isinstance(part, str) else part) for part in (*parts, {}, [], None, "")}
    known |= {part.strip() for part in parts if isinstance(part, str)}
    return [text for text in texts if _as_json(text) not in known and text.strip() not in known]
