"""Weights from the Hub: resumed where they were, compared with the Hub's digest, and only then called by their name.

huggingface_hub's `hf_hub_download` begins anew when it was interrupted (its part files are removed, from 1.31 on at least),
which does not do for twenty gigabytes; its `http_get`, which it does its own work with, resumes.

What must never happen here: a file has its name and is not whole, or not what the Hub says it is.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import time
from collections.abc import Callable, Generator
from pathlib import Path
from typing import IO, Any

from ...errors import ModelFailed
from .weights import Weights, choose

_READ = 1 << 20


def download(
    weights: Weights,
    tell: Callable[[str], None],
    unwanted: Callable[[], bool] = lambda: False,
    every: float = 5.0,
) -> Path:
    """Gets weights from the Hub into the user's own folder of models.

    Args:
        weights (`Weights`): Of a repository.
        tell (`Callable[[str], None]`): Told in a line how far it is, now and then.
        unwanted (`Callable[[], bool]`): Looked at while it downloads; once it is true, it stops.
        every (`float`, defaults to 5): Seconds between two such lines.

    Returns:
        `Path`: The first file.

    Raises:
        ModelFailed: the Hub has no such weights or cannot be reached, the disk is too small, a file is damaged, or it became
            unwanted. What was downloaded is kept, and gone on with the next time.
    """
    from huggingface_hub import HfApi, hf_hub_url
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, HTTPError
    from huggingface_hub.file_download import http_get
    from huggingface_hub.utils import build_hf_headers

    endpoint = os.environ.get("HF_ENDPOINT") or None
    folder = weights.folder
    try:
        about = HfApi(endpoint=endpoint).model_info(weights.repository, files_metadata=True, timeout=30)
        files = {file.rfilename: file for file in about.siblings or ()}
        names = _chosen(weights, list(files))
        sizes = [files[name].size or 0 for name in names]
        _enough_disk(weights, sum(sizes), folder)
        meter = _Meter(weights.name, sum(sizes), tell, unwanted, every)
        for name, size in zip(names, sizes, strict=True):
            lfs = files[name].lfs
            target = folder / name
            if not target.resolve().is_relative_to(folder.resolve()):
                raise ModelFailed(f"{weights.repository} names a file that leads out of its folder: {name!r}")
            with _part_of(target, lfs.sha256 if lfs else str(about.sha), unwanted) as part:
                if part is None:  # somebody else has just got it
                    meter.done += size
                    continue
                begun = part.seek(0, os.SEEK_END)
                if begun > size:
                    begun = part.seek(0)
                    part.truncate()
                http_get(
                    hf_hub_url(weights.repository, name, revision=about.sha, endpoint=endpoint),
                    part,  # ty: ignore[invalid-argument-type]
                    resume_size=begun,
                    expected_size=size,
                    headers=build_hf_headers(),
                    displayed_filename=name,
                    tqdm_class=meter.bar(),
                )
                meter.done += size
                _verify(part, target, lfs.sha256 if lfs else None, unwanted)
    except _Unwanted:
        raise ModelFailed(
            f"The download of {weights.name} was cancelled", remedy="It goes on where it was when it is asked again."
        ).of_kind("cancelled") from None
    except (HfHubHTTPError, HFValidationError, HTTPError, OSError, ValueError) as error:
        raise _explained(weights, error) from error
    return folder / names[0]


def _chosen(weights: Weights, names: list[str]) -> list[str]:
    try:
        return choose(names, weights.quantisation)
    except LookupError as error:
        there = str(error)
        raise ModelFailed(
            f"{weights.repository} has no {weights.quantisation or 'GGUF file'}",
            f"it has {there}" if there else "",
            "Name one of these." if there else "Choose a repository that has: their names often end in -GGUF.",
        ).of_kind("missing") from None


def _enough_disk(weights: Weights, size: int, folder: Path) -> None:
    place = next(parent for parent in (folder, *folder.parents) if parent.exists())
    there = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) if place == folder else 0
    free = shutil.disk_usage(place).free
    if size - there > free:
        raise ModelFailed(
            f"{weights.name} takes {size / 1e9:,.1f} GB of disk, and {free / 1e9:,.1f} GB are free",
            remedy="Make room, choose a smaller quantisation, or another place with ML_INTERN_HOME.",
        ).of_kind("unsent")


@contextlib.contextmanager
def _part_of(target: Path, digest: str, unwanted: Callable[[], bool]) -> Generator[IO[bytes] | None]:
    """The part that is there of a file, for nobody else while this goes on; `None` where the file is there."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.with_name(f"{target.name}.{digest[:16]}.part").open("a+b") as part:
        while True:
            try:
                fcntl.flock(part, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:  # another session downloads the same
                if unwanted():
                    raise _Unwanted from None
                time.sleep(0.2)
        if target.exists():
            Path(part.name).unlink(missing_ok=True)
            yield None
        else:
            yield part


def _verify(part: IO[bytes], target: Path, digest: str | None, unwanted: Callable[[], bool]) -> None:
    """Gives a part that is whole its name, or removes it."""
    part.flush()
    part.seek(0)
    found = hashlib.sha256()
    while chunk := part.read(_READ):
        found.update(chunk)
        if unwanted():
            raise _Unwanted
    if digest is not None and found.hexdigest() != digest:
        Path(part.name).unlink(missing_ok=True)
        raise ModelFailed(
            f"{target.name} arrived damaged", "its SHA-256 is not the Hub's", "It was removed: try again."
        ).of_kind("unreachable")
    os.fsync(part.fileno())
    Path(part.name).rename(target)


def _explained(weights: Weights, error: Exception) -> ModelFailed:
    said = str(error).strip().partition("\n")[0][:200] or type(error).__name__
    status = getattr(getattr(error, "response", None), "status_code", 0)
    if status in (401, 403, 404):
        return ModelFailed(
            f"The Hub does not give {weights.repository}",
            said,
            "Check its name; where it is private or gated, set an HF_TOKEN that may read it.",
        ).of_kind("missing")
    return ModelFailed(
        f"{weights.name} could not be downloaded", said, "Check the network and HF_ENDPOINT; what has arrived is kept."
    ).of_kind("unreachable")


class _Unwanted(Exception):
    pass


class _Meter:
    """How far a download is, over all of its files."""

    def __init__(
        self, name: str, total: int, tell: Callable[[str], None], unwanted: Callable[[], bool], every: float
    ) -> None:
        self.name, self.total, self.tell, self.unwanted, self.every, self.done = name, total, tell, unwanted, every, 0
        self.told = time.monotonic()

    def moved(self, current: int) -> None:
        if self.unwanted():
            raise _Unwanted
        if time.monotonic() - self.told >= self.every:
            self.told = time.monotonic()
            got, whole = self.done + current, max(self.total, 1)
            self.tell(f"Downloading {self.name}: {got / 1e9:,.2f} of {whole / 1e9:,.2f} GB ({100 * got // whole} %)")

    def bar(self) -> Any:
        """A stand-in for a progress bar, which is what the Hub's client tells."""
        from tqdm import tqdm

        meter = self

        class Bar(tqdm):
            def __init__(self, *arguments: Any, **options: Any) -> None:
                super().__init__(*arguments, **{**options, "disable": True})
                self.n = options.get("initial") or 0

            def update(self, n: float | None = 1) -> bool | None:
                self.n += n or 0
                meter.moved(int(self.n))
                return None

        return Bar
