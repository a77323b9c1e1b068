"""What the header of a GGUF file says of its model. Read without loading anything: some milliseconds."""

from __future__ import annotations

import mmap
import re
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...errors import ModelFailed

_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9
_PART = re.compile(r"-(\d{5})-of-(\d{5})\.gguf$")
_MOST = 100_000_000
"""Of anything that a header counts: more is garbage, and not to be looped over."""


@dataclass(frozen=True)
class Facts:
    """A model in GGUF files.

    Attributes:
        files (`tuple[Path, ...]`): All of its parts, the first of which is what llama.cpp opens.
        size (`int`): Their bytes.
        trained (`int`): Tokens of the window that it was trained with; 0 where the file does not say.
        kv (`int`): Bytes of cache that each token of a window takes.
        width (`int`): Numbers that llama.cpp holds for each token of a batch while it computes.
        name (`str`): The file's.
        chats (`bool`): Whether it brings a template for conversations.
    """

    files: tuple[Path, ...]
    size: int
    trained: int
    kv: int
    width: int
    name: str
    chats: bool


def parts(first: Path) -> tuple[Path, ...]:
    """All files of a model: those of a split one are numbered in their names."""
    match = _PART.search(first.name)
    if not match:
        return (first,)
    stem, count = first.name[: match.start()], int(match[2])
    return tuple(first.with_name(f"{stem}-{number:05d}-of-{match[2]}.gguf") for number in range(1, count + 1))


def facts(first: Path) -> Facts:
    """Reads the header.

    Raises:
        ModelFailed: it is not there, or no GGUF file.
    """
    files = parts(first)
    try:
        size = sum(file.stat().st_size for file in files)
        with files[0].open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            said = _Reader(data).header()
    except FileNotFoundError as error:
        raise ModelFailed(f"There is no file {error.filename}", remedy="Correct the path after `embedded/`.").of_kind(
            "missing"
        ) from None
    except OSError as error:
        raise ModelFailed(f"{files[0]} cannot be read", error.strerror or str(error)).of_kind("missing") from None
    except (ValueError, struct.error, IndexError, OverflowError, RecursionError) as error:
        raise ModelFailed(
            f"{files[0]} holds no model", f"its header is not GGUF's: {error}", "Download it again."
        ).of_kind("missing") from None
    kind = str(said.get("general.architecture", ""))

    def number(key: str, default: int = 0) -> int:
        value = said.get(f"{kind}.{key}", default)
        value = max(value, default=default) if isinstance(value, list) else value  # some say it for each layer
        return int(value) if isinstance(value, int | float) else default

    heads, embedding = number("attention.head_count", 1) or 1, number("embedding_length")
    each = embedding // heads
    key, value = number("attention.key_length", each), number("attention.value_length", each)
    kv = 2 * number("block_count") * number("attention.head_count_kv", heads) * (key + value)
    width = int(said.get("tokenizer.ggml.tokens", 0)) + 8 * embedding + 2 * number("feed_forward_length")
    name = _PART.sub("", files[0].name).removesuffix(".gguf")
    return Facts(files, size, number("context_length"), kv, width, name, "tokenizer.chat_template" in said)


class _Reader:
    """GGUF's key-value pairs. Of arrays of strings only the length is kept."""

    def __init__(self, data: mmap.mmap) -> None:
        self.data, self.at = data, 4

    def header(self) -> dict[str, Any]:
        if self.data[:4] != b"GGUF":
            raise ValueError("it does not begin with GGUF")
        if self._scalar("I") not in (2, 3):
            raise ValueError("of a version that is not known")
        self._scalar("Q")
        return {self._string(): self._value(self._scalar("I")) for _ in range(self._count())}

    def _scalar(self, code: str) -> Any:
        (value,) = struct.unpack_from(f"<{code}", self.data, self.at)
        self.at += struct.calcsize(code)
        return value

    def _count(self) -> int:
        count = self._scalar("Q")
        if count > _MOST:
            raise ValueError("it is damaged")
        return count

    def _string(self) -> str:
        length = self._count()
        self.at += length
        return self.data[self.at - length : self.at].decode(errors="replace")

    def _value(self, kind: int) -> Any:
        if kind == _STRING:
            return self._string()
        if kind != _ARRAY:
            return self._scalar(_code(kind))
        kind, count = self._scalar("I"), self._count()
        if kind == _STRING:
            self._skip_strings(count)
            return count
        if kind == _ARRAY:
            return [self._value(_ARRAY) for _ in range(count)]
        code = _code(kind)
        size = struct.calcsize(code)
        if count * size > len(self.data) - self.at:
            raise ValueError("it is cut off")
        self.at += count * size
        return (
            list(struct.unpack_from(f"<{count}{code}", self.data, self.at - count * size)) if count < 4096 else count
        )

    def _skip_strings(self, count: int) -> None:
        data, at, length = self.data, self.at, struct.Struct("<Q").unpack_from
        for _ in range(count):
            at += 8 + length(data, at)[0]
        self.at = at


def _code(kind: int) -> str:
    if kind not in _SCALARS:
        raise ValueError(f"it holds a value of kind {kind}")
    return _SCALARS[kind]
