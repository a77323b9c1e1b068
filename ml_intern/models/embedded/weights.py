"""From `embedded/...` to files on this disk: where they may lie, and which quantisation.

What must never happen here: somebody is asked on the network for weights that are on the disk.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from ...errors import ModelFailed
from .gguf import facts, parts
from .memory import free_memory, plan

PREFIX = "embedded/"
PREFERRED = (
    "Q4_K_M",
    "Q4_K_S",
    "Q4_0",
    "Q4_1",
    "Q5_K_M",
    "Q5_K_S",
    "Q6_K",
    "IQ4_XS",
    "IQ4_NL",
    "Q8_0",
    "MXFP4",
    "BF16",
    "F16",
)
"""Quantisations, the first of which a repository has is taken where none is named."""  # fmt: skip
_QUANTISATION = re.compile(r"(?:^|[-._/])((?:UD-)?I?Q\d\w*|BF16|F16|F32|MXFP4\w*)(?=[-._/])", re.IGNORECASE)
_REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+$")
_NOT_A_MODEL = re.compile(r"(^|[-._/])(mmproj|imatrix)|-(?!00001)\d{5}-of-\d{5}\.gguf$", re.IGNORECASE)


@dataclass(frozen=True)
class Weights:
    """What a name names: a file, or a quantisation in a repository of the Hub.

    Attributes:
        name (`str`): As it was written.
        file (`Path`, *optional*): Of the first part, where the name is a path.
        repository (`str`), quantisation (`str`): On the Hub; the latter is `""` where none was named.
        folder (`Path`): Where we put what we download.
    """

    name: str
    file: Path | None = None
    repository: str = ""
    quantisation: str = ""
    folder: Path = Path()

    @classmethod
    def of(cls, name: str, home: Path | None = None) -> Weights:
        """Reads a name: `embedded/PATH.gguf` (also below `<home>/models`), `embedded/ORG/REPO` or `embedded/ORG/REPO:QUANT`.

        Raises:
            ModelFailed: it is none of them.
        """
        said = name.removeprefix(PREFIX).strip()
        if said.lower().endswith(".gguf"):
            path = Path(said).expanduser()
            ours = models_folder(home) / path
            return cls(name, ours if not path.exists() and ours.exists() else path)
        repository, _, quantisation = said.partition(":")
        if not _REPOSITORY.match(repository):
            raise ModelFailed(
                f"{name} names no weights",
                remedy="Write embedded/PATH.gguf, or embedded/ORG/REPO:Q4_K_M for a repository of the Hub.",
            ).of_kind("missing")
        return cls(name, None, repository, quantisation, models_folder(home) / repository)

    def on_disk(self, cache: Path | None = None) -> Path | None:
        """The first file, where all of them are on this disk: in our folder, or in the cache of the Hub's client."""
        if self.file is not None:
            return self.file if _whole(self.file) else None
        snapshots = (cache or hub_cache()) / f"models--{self.repository.replace('/', '--')}" / "snapshots"
        for folder in (self.folder, *sorted(snapshots.glob("*"), key=_age)):
            found = [str(file.relative_to(folder)) for file in folder.rglob("*.gguf")]
            with contextlib.suppress(LookupError):
                first = folder / choose(found, self.quantisation)[0]
                if _whole(first):
                    return first
        return None


def choose(sizes: Iterable[str], quantisation: str = "") -> list[str]:
    """The files of one model among all names of a repository.

    Raises:
        LookupError: there is no such quantisation, or none at all; its text lists those that there are.
    """
    names = sorted(sizes, key=lambda name: (len(name), name))
    first = [name for name in names if name.endswith(".gguf") and not _NOT_A_MODEL.search(name)]
    by_kind: dict[str, list[str]] = {}
    for name in first:
        by_kind.setdefault(quantisation_of(name), []).append(name)
    wanted = [quantisation.upper()] if quantisation else [*PREFERRED, *by_kind]
    found = next((by_kind[kind] for kind in wanted if kind in by_kind), None)
    if not found:
        raise LookupError(", ".join(sorted(filter(None, by_kind))))
    return [str(part) for part in parts(Path(found[0]))]


def quantisation_of(name: str) -> str:
    """As it stands in a file's name, in capitals; `""` where it does not."""
    found = _QUANTISATION.findall(name)
    return found[-1].upper() if found else ""


def find_on_disk(free: int | None = None, cache: Path | None = None, home: Path | None = None) -> str | None:
    """The name of the largest weights on this disk that fit into its memory; `None` without any, or without xllamacpp."""
    if importlib.util.find_spec("xllamacpp") is None:
        return None
    free = free_memory() if free is None else free
    names = dict(listed(cache, home))
    for first in sorted(names, key=_size, reverse=True)[:8]:
        if _size(first) < free and _whole(first):
            with contextlib.suppress(ModelFailed):
                found = facts(first)
                if found.chats:
                    plan(found, free)
                    return names[first]
    return None


def listed(cache: Path | None = None, home: Path | None = None) -> Iterator[tuple[Path, str]]:
    """All weights on this disk, with the names to call them by: in the Hub's cache and in `<home>/models`."""
    own = models_folder(home)
    for file in own.rglob("*.gguf"):
        if not _NOT_A_MODEL.search(file.name):
            yield file, f"{PREFIX}{file.relative_to(own)}"
    for file in (cache or hub_cache()).glob("models--*--*/snapshots/*/**/*.gguf"):
        if not _NOT_A_MODEL.search(file.name):
            folder = next(parent.name for parent in file.parents if parent.name.startswith("models--"))
            kind = quantisation_of(file.name)
            repository = folder.removeprefix("models--").replace("--", "/", 1)
            yield file, f"{PREFIX}{repository}:{kind}" if kind else f"{PREFIX}{file}"


def models_folder(home: Path | None = None) -> Path:
    """Where a user may put weights of his own."""
    if home is None:
        from ...settings import Settings

        home = Settings.load().home
    return home.expanduser().absolute() / "models"


def hub_cache(environment: Mapping[str, str] | None = None) -> Path:
    """The cache of the Hub's client, without importing that."""
    environment = os.environ if environment is None else environment
    if cache := environment.get("HF_HUB_CACHE") or environment.get("HUGGINGFACE_HUB_CACHE"):
        return Path(cache).expanduser()
    base = environment.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(environment.get("HF_HOME") or f"{base}/huggingface").expanduser() / "hub"


def _whole(first: Path) -> bool:
    return all(part.is_file() for part in parts(first))


def _size(first: Path) -> int:
    return sum(part.stat().st_size for part in parts(first) if part.is_file())


def _age(path: Path) -> float:
    return -path.stat().st_mtime
