"""pip, as it is configured on this machine, in a jail of its own; see `packages.py`."""

from __future__ import annotations

import ast
import contextlib
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from packaging.utils import canonicalize_name

from ml_intern.errors import InternError
from ml_intern.execution import landlock, seccomp
from ml_intern.execution.egress import Egress, with_door
from ml_intern.execution.jail import (
    ETC,
    INSIDE,
    PACKAGES,
    Bind,
    Jail,
    bubblewrap,
    hand_over,
    interpreter_paths,
    open_to_all,
    seccomp_file,
)
from ml_intern.execution.spawn import spawn
from ml_intern.execution.workspace import Workspace, WorkspaceError

SECONDS = 900.0
CACHE = "/cache"
LOG_BYTES = 8 << 20
MERGE = "import shutil, sys; shutil.copytree(sys.argv[1], sys.argv[2], symlinks=True, dirs_exist_ok=True)"
RELEASE = ("os-release", "debian_version", "lsb-release")  # pip says in its requests what it runs on
PLACES = ("index-url", "extra-index-url", "find-links")
KEPT = (*PLACES, "no-index", "constraint", "trusted-host", "cert", "default-timeout", "timeout", "pre")
NO_NETWORK = ("NewConnectionError", "ProxyError", "ConnectTimeoutError", "Name or service not known", "NameResolutionError",
              "Network is unreachable", "ReadTimeoutError", "SSLError", "Connection refused")  # fmt: skip


def known_indexes() -> tuple[str, dict[str, str]]:
    """Where pip looks when nothing is configured, and the hosts that keep the files of the indexes it knows: its own word."""
    from pip._internal.models.index import PyPI, TestPyPI

    return PyPI.simple_url, {index.netloc: index.file_storage_domain for index in (PyPI, TestPyPI)}


class PackageError(InternError):
    """A package was not installed; what, why, and what to do instead."""


@dataclass(frozen=True)
class PipConfig:
    """How pip is configured on this machine, as far as it says where packages come from.

    Args:
        options (`Mapping[str, str]`): By name, as in a `pip.conf`.
    """

    options: Mapping[str, str]

    @classmethod
    def of_host(cls) -> PipConfig:
        """Out of pip's own configuration files and the `PIP_*` variables."""
        command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "config", "list"]
        whole = dict.fromkeys(("PIP_USER", "PIP_GLOBAL", "PIP_SITE"), "0")  # `user = true` would list one file only
        try:
            listed = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60, cwd="/",
                                    env={**os.environ, **whole}).stdout  # fmt: skip
        except (OSError, subprocess.SubprocessError):
            raise PackageError(
                "No package can be installed", "pip is not there", f"A person can run: {sys.executable} -m ensurepip"
            ) from None
        found: dict[str, str] = {}
        for section in ("global", "install", ":env:"):  # the later one counts
            for line in listed.splitlines():
                key, _, value = line.partition("=")
                part, _, name = key.partition(".")
                if part == section and name in KEPT:
                    with contextlib.suppress(ValueError, SyntaxError):
                        found[name] = str(ast.literal_eval(value))
        return cls(found)

    def places(self) -> list[str]:
        named = [self.options.get("index-url", known_indexes()[0]), *self.options.get("extra-index-url", "").split()]
        if self.options.get("no-index", "").lower() in ("1", "true", "yes", "on", "y", "t"):
            named = []
        return [place for place in (*named, *self.options.get("find-links", "").split()) if place]

    def hosts(self) -> list[str]:
        """The hosts that packages come from, and go nowhere else."""
        found: list[str] = []
        storage = known_indexes()[1]
        for place in self.places():
            parts = urlsplit(place)
            if parts.scheme in ("http", "https") and parts.hostname:
                found.append(f"{parts.hostname}:{parts.port}" if parts.port else parts.hostname)
                if parts.hostname in storage:
                    found.append(storage[parts.hostname])
        return found

    def local(self) -> list[Path]:
        """Folders and files of this machine that it names."""
        found = []
        for place in (*self.places(), *self.options.get("constraint", "").split(), self.options.get("cert", "")):
            parts = urlsplit(place)
            if not place or parts.scheme in ("http", "https"):
                continue
            path = Path(unquote(parts.path) if parts.scheme == "file" else place).absolute()
            path = path.parent if path.name == "simple" else path  # an index's files lie beside its pages
            if (
                path.exists()
                and path != Path("/")
                and not any(path.is_relative_to(seen) for seen in ("/usr", "/etc/ssl/certs"))
            ):
                found.append(path)
        return list(dict.fromkeys(found))

    def text(self) -> str:
        """As a `pip.conf`, for one process: an index in the house may be reached with a password only."""
        lines = [f"{name} = {' '.join(value.split())}" for name, value in self.options.items()]
        return "\n".join(["[global]", *lines, ""])


class PipRun:
    """pip in a jail of its own, which sees the interpreter, the places that packages come from, and three folders."""

    def __init__(
        self, jail: Jail, work: Path, layer: Path, cache: Path, config: PipConfig, cancelled: Callable[[], bool]
    ) -> None:
        self.jail, self.work, self.layer, self.cache = jail, work, layer, cache
        self.config, self.cancelled = config, cancelled
        self.moved = jail.kind == "bubblewrap"
        self.layer_inside = PACKAGES if self.moved else str(layer)

    def inside(self, name: str) -> str:
        return f"{INSIDE}/{name}" if self.moved else str(self.work / name)

    def pip(self, options: Sequence[str], names: Sequence[str]) -> None:
        """Installs wheels. Raises `PackageError`, in words, for whatever pip ends with but success."""
        hosts = self.config.hosts()
        egress = Egress(hosts=hosts, private=True) if hosts and self.jail.network else None
        command = ["-m", "pip", "install", "--no-input", "--only-binary", ":all:",
                    "--disable-pip-version-check", "--progress-bar", "off", "--root-user-action", "ignore", "--retries", "1",
                    "--log", self.inside("log"), "--cache-dir", CACHE if self.moved else str(self.cache), *options,
                    *names]  # fmt: skip
        if self.run(command, egress):
            raise self.failure(names, egress)

    def merge(self, new: str) -> None:
        """Adds a folder to the layer; pip itself would replace what several packages share, such as `bin`."""
        if self.run(["-c", MERGE, self.inside(new), self.layer_inside], None):
            raise PackageError("Nothing was installed", "the packages could not be copied; is the disk full?")

    def run(self, arguments: list[str], egress: Egress | None) -> int:
        """Python, in the jail."""
        variables = {
            "PIP_CONFIG_FILE": self.inside("pip.conf"),
            "PYTHONPATH": self.layer_inside,
            "TMPDIR": self.inside("tmp"),
            "HOME": self.inside("tmp"),
            **(egress.variables() if egress else {}),
        }
        if self.jail.kind == "none":
            variables |= {name: value for name, value in os.environ.items() if name.lower().endswith("_proxy")}
        command = ["/bin/sh", "-c", 'umask 022; exec "$@"', "sh", "/usr/bin/env"]
        command += [f"{name}={value}" for name, value in variables.items()]
        command += [sys.executable, "-s", "-P", *arguments]
        ours, theirs = socket.socketpair() if egress else (None, None)
        uid = self.hand_over() if os.geteuid() == 0 else None
        process = None
        try:
            if self.moved:
                binds = [Bind(self.layer, PACKAGES, True), Bind(self.cache, CACHE, True)]
                binds += [Bind(path, str(path)) for path in self.config.local()]
                if theirs is not None:
                    command = with_door(theirs.fileno(), command)
                with seccomp_file() as bpf:
                    process = spawn(
                        bubblewrap(self.work, command, bpf, uid, binds), env={},
                        pass_fds=(bpf,) if theirs is None else (bpf, theirs.fileno()),
                        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                    )  # fmt: skip
            else:
                process = spawn(
                    self.rules(command, uid).launch(), env={"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"},
                    stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                )  # fmt: skip
            if theirs is not None:
                theirs.close()
            if egress is not None and ours is not None:
                with contextlib.suppress(OSError):  # pip then finds no network, and that is said
                    egress.take(ours)
            return self.wait(process)
        finally:
            for end in (ours, theirs):
                if end is not None:
                    end.close()
            if egress is not None:
                egress.close()
            if process is not None and process.poll() is None:
                process.terminate()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(3)
                process.kill()
                process.wait()

    def wait(self, process: subprocess.Popen[bytes]) -> int:
        ends = time.monotonic() + SECONDS
        while time.monotonic() < ends:
            with contextlib.suppress(subprocess.TimeoutExpired):
                return process.wait(0.1)
            if self.cancelled():
                raise PackageError("Nothing was installed", "the action that asked for it has ended")
        raise PackageError("Nothing was installed", f"pip took more than {SECONDS:.0f} seconds")

    def hand_over(self) -> int:
        """All three folders to one throw-away user, not the code's: what it can read it cannot write."""
        uid = hand_over(self.cache)
        needed = (*interpreter_paths(), *self.config.local(), Path(sys.executable), self.work, self.layer, self.cache)
        if not self.moved and not all(open_to_all(path) for path in needed):
            uid = 0
        for folder in (self.cache, self.layer, self.work):
            hand_over(folder, uid)
        return uid

    def rules(self, command: list[str], uid: int | None) -> landlock.Rules:
        if self.jail.kind == "none":
            return landlock.Rules(command, [], [], "", 256, None, os.getpid())
        readable = [*interpreter_paths(), *(Path("/etc", name) for name in (*ETC, *RELEASE)), *self.config.local()]
        writable = [str(path) for path in (self.work, self.layer, self.cache)]
        bpf = seccomp.program(namespaces=False).hex()
        return landlock.Rules(command, [str(path) for path in readable], writable, bpf, 256, uid, os.getpid())

    def failure(self, names: Sequence[str], egress: Egress | None) -> PackageError:
        """What pip's log says, in two lines."""
        what = f"{', '.join(names)} was not installed"
        try:
            with Workspace(self.work).open_read("log") as file:
                file.seek(max(0, file.seek(0, os.SEEK_END) - LOG_BYTES))
                log = file.read().decode("utf-8", "replace")
        except WorkspaceError as error:
            return PackageError(what, f"pip did not start: {error}")
        errors = [line.partition("ERROR: ")[2].strip() for line in log.splitlines() if "ERROR: " in line]
        python = f"Python {sys.version_info.major}.{sys.version_info.minor}"
        if egress is not None and (refused := egress.take_refusals()):
            return PackageError(
                what, f"pip was sent to {refused[0].host}, which is not the index",
                "Do without it, or ask the person to name that host in pip's configuration (extra-index-url).",
            )  # fmt: skip
        if self.config.hosts() and egress is None and self.jail.kind != "none":
            return PackageError(
                what, "this machine's jail (Landlock) has no network, so pip cannot reach its index",
                "Do without it, or ask the person to install bubblewrap.",
            )  # fmt: skip
        if any(sign in log for sign in NO_NETWORK):
            return PackageError(what, "the package index cannot be reached", "Do without it, or try again later.")
        missing = re.search(r"satisfies the requirement (\S+)[^\n]*\(from versions: ([^)]*)\)", log)
        if missing and missing[2] not in ("none", ""):
            versions = ", ".join(missing[2].split(", ")[-8:])
            return PackageError(what, f"there is no {missing[1]} for {python}; the latest are {versions}")
        if missing:
            name = missing[1]
            if any(
                of_package(link, name)
                for link in re.findall(r"Skipping link: [^\n]*?([^/\s]+)(?: \(from [^\n]*)?\n", log)
            ):
                return PackageError(
                    what, f"{name} has no wheel for {python} here, and only wheels are installed", "Try another version."
                )  # fmt: skip
            return PackageError(what, f"the index has no package {name}", "Check its name.")
        if "ResolutionImpossible" in log or "conflicting dependencies" in log:
            caused = re.findall(r"^\S*\s+(.+ depends on .+|The user requested .+)$", log, re.MULTILINE)
            why = "; ".join(part.strip() for part in caused[:3]).replace("(constraint) ", "what is in use here: ")
            return PackageError(what, f"it does not go with what is in use here: {why}"[:500], "Try another version.")
        return PackageError(
            what, re.sub(r"//[^/@\s]*@", "//", errors[-1])[:300] if errors else "pip failed without a word"
        )


def of_package(file: str, wanted: str) -> bool:
    """Whether a file's name is that of a release of a package, `wanted` as pip names it."""
    name = canonicalize_name(re.split(r"[^A-Za-z0-9._-]", wanted)[0])
    return canonicalize_name(file).startswith(f"{name}-")
