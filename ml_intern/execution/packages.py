"""Packages for one session: wheels, from where pip on this machine gets them, into a folder that code can only read.

What must never happen here: code of a package runs outside the code's own jail; the host's environment changes; the code
chooses where a package comes from. So only names and versions are taken, only wheels (a source distribution, or a folder,
runs its `setup.py`), and pip itself runs in a jail with a door to its index and to nothing else.

What the host has stays as it is: its packages, and those installed for the session before, are pinned while pip resolves.
Another version of one of them is refused rather than put in front: half of what is imported already would be the old one.
"""

from __future__ import annotations

import json
import re
import shutil
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from ml_intern.execution.jail import Jail
from ml_intern.execution.pip_jail import PackageError, PipConfig, PipRun
from ml_intern.execution.workspace import Workspace, WorkspaceError

MOST = 50
PLAIN = re.compile(
    r"[A-Za-z0-9][A-Za-z0-9._-]*(\s*\[[A-Za-z0-9._,\s-]*\])?(\s*[(]?[<>=!~][A-Za-z0-9.,<>=!~*+_\s-]*[)]?)?"
).fullmatch
ARCHIVES = (".whl", ".zip", ".gz", ".tgz", ".bz2", ".tbz", ".xz", ".tar")


@dataclass(frozen=True)
class Installed:
    """What `install` did: `"name version"` of what is new, and of what was there already."""

    new: tuple[str, ...]
    there: tuple[str, ...]


def requirement(text: str) -> Requirement:
    """A name, with extras and versions if any.

    Raises:
        PackageError: for all else that pip takes: options, paths, addresses, files, markers.
    """
    what = f"{text!r} cannot be installed" if len(text) < 200 else "This cannot be installed"
    todo = 'Give names and versions only, such as "polars" or "x==1.2".'
    if text.strip().startswith("-"):
        raise PackageError(what, "it is an option of pip", todo)
    if not PLAIN(text.strip()) or text.strip().lower().endswith(ARCHIVES):
        raise PackageError(what, "it is not the name of a package (paths and addresses are not taken)", todo)
    try:
        found = Requirement(text)
    except InvalidRequirement as error:
        raise PackageError(what, str(error).splitlines()[0], todo) from None
    return found


class Packages:
    """Installs for one session.

    Args:
        layer (`Path`): Where to; the executor's `packages`.
        cache (`Path`): pip's cache, for all sessions.
        find_jail (`Callable[[], Jail]`): The kind of jail that pip runs in.
        cancelled (`Callable[[], bool]`, *optional*): Asked meanwhile whether to give up.
    """

    def __init__(
        self, layer: Path, cache: Path, find_jail: Callable[[], Jail], cancelled: Callable[[], bool] = lambda: False
    ) -> None:
        self.layer, self.cache, self.find_jail, self.cancelled = layer, cache, find_jail, cancelled
        self._lock = threading.Lock()

    def install(self, wanted: Sequence[str]) -> Installed:
        """Installs packages and what they need.

        Args:
            wanted (`Sequence[str]`): Names, with extras and versions: `"polars"`, `"x[y]==1.2"`.

        Raises:
            PackageError: nothing was installed.
        """
        if not wanted or len(wanted) > MOST:
            raise PackageError("Nothing was installed", f"name between one and {MOST} packages at a time")
        asked = [requirement(text) for text in wanted]
        with self._lock:
            have = self.have()
            there, todo = [], []
            for one in asked:
                version = have.get(canonicalize_name(one.name))
                if version is not None and not one.specifier.contains(version, prereleases=True):
                    raise PackageError(
                        f"{one} was not installed",
                        f"version {version} of it is in use here, and another one cannot be put in its place",
                        "Work with that version, or ask the person to change the environment.",
                    )
                if version is None or one.extras:
                    todo.append(one)
                else:
                    there.append(f"{one.name} {version}")
            new = self._install(todo, have) if todo else []
            return Installed(tuple(new), tuple(there))

    def have(self) -> dict[str, str]:
        """Versions of what the host has, and of what was installed for this session, by name."""
        found = {}
        for path in ([str(self.layer)], sys.path):  # what comes first on the code's path counts
            for one in metadata.distributions(path=path):
                if name := one.metadata["Name"]:
                    found[canonicalize_name(name)] = one.version
        return found

    def _install(self, todo: list[Requirement], have: Mapping[str, str]) -> list[str]:
        config = PipConfig.of_host()
        for folder in (self.layer, self.cache):
            folder.mkdir(parents=True, exist_ok=True)
        self.layer.chmod(0o755)  # the code may be another user
        work = Path(tempfile.mkdtemp(prefix="ml-intern-pip-")).resolve()
        try:
            run = PipRun(self.find_jail(), work, self.layer, self.cache, config, self.cancelled)
            pins = "".join(f"{name}=={version}\n" for name, version in have.items())
            (work / "pip.conf").write_text(config.text())
            (work / "pins.txt").write_text(pins)
            (work / "tmp").mkdir()
            names = [str(one) for one in todo]
            run.pip(["--dry-run", "--report", run.inside("report.json"), "-c", run.inside("pins.txt")], names)
            plan = json.loads(Workspace(work).read_bytes("report.json"))["install"]
            chosen = {canonicalize_name(item["metadata"]["name"]): item["metadata"]["version"] for item in plan}
            if clash := sorted(chosen.keys() & have.keys()):
                raise PackageError(
                    f"{', '.join(names)} was not installed", f"another version of {clash[0]} is in use here"
                )
            if chosen:
                exact = [str(requirement(f"{name}=={version}")) for name, version in chosen.items()]
                run.pip(["--no-deps", "--target", run.inside("new")], exact)
                run.merge("new")
            return [f"{name} {version}" for name, version in chosen.items()]
        except (WorkspaceError, ValueError, KeyError, TypeError) as error:
            raise PackageError(
                f"{', '.join(map(str, todo))} was not installed", f"pip's report does not read: {error}"
            ) from None
        finally:
            shutil.rmtree(work, ignore_errors=True)
