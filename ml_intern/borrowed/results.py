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


class ResultReader:
    """Takes a result apart.

    Args:
        write (`Callable[[str, bytes], str]`, *optional*): Puts a file with this name into the workspace and returns its path
            there. Without it images are images, other binary data is base64, and text that is too long is cut.
    """

    def __init__(self, write: Callable[[str, bytes], str] | None = None) -> None:
        self._write, self._count, self._bytes = write, 0, 0
        self.texts: list[str] = []
        self.files: list[Any] = []
        self.links: list[dict[str, Any]] = []

    def read(self, result: CallToolResult) -> Any:
        """A text where there is nothing else, the structured data where there is any; else a dict of what came.

        Raises:
            RuntimeError: the server says that the call failed; with its words.
        """
        for block in result.content:
            self._take(block)
        text = "\n".join(self.texts)
        if result.is_error:
            raise RuntimeError(text[:LONGEST_ERROR] or "it failed, and did not say why")
        structured = result.structured_content
        more: dict[str, Any] = {"files": self.files} if self.files else {}
        if self.links:
            more["resources"] = self.links
        if structured is not None:
            said = json.dumps(structured, ensure_ascii=False, default=str)
            data = structured if len(said) <= LARGEST_TEXT else self._long(said, "json")
            return {"data": data, **more} if more else data
        shown = text if len(text) <= LARGEST_TEXT else self._long(text, "txt")
        if not more:
            return shown
        return {"text": shown, **more}

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
        elif block.type == "resource_link" and len(self.links) < MOST_FILES:
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
            self.files.append(_image(content) if kind.startswith("image/") else {"type": kind, "base64": data})

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


def _image(content: bytes) -> Any:
    from PIL import Image

    try:
        image = Image.open(io.BytesIO(content))
        image.load()
    except OSError:
        return {"type": "image that does not read", "bytes": len(content)}
    return image
