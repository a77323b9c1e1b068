"""The GPUs of this machine, for code in a jail: only where somebody asked for them.

A GPU's driver is a large part of the kernel that code then talks to, and memory of a GPU is not wiped between programs
by every driver: that is why nobody gets them unasked. What is passed through are the nodes for computing (NVIDIA's, AMD's
`kfd`, render nodes), not those that drive a display, and of `/sys` only what describes these devices. Driver libraries lie
under `/usr`, where container runtimes put them too, and in `/opt/rocm`.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from ml_intern.errors import InternError

NODES = re.compile(r"nvidia\d+|nvidiactl|nvidia-uvm(-tools)?|nvidia-modeset|nvidia-caps/.+|kfd|dri/renderD\d+")
NEEDED = re.compile(r"nvidia\d+|nvidiactl|nvidia-uvm|kfd|dri/renderD\d+")
DISPLAYS, ACCELERATORS = "0x03", "0x12"
"""Classes of PCI devices."""
ABOUT = ("sys/class/drm", "sys/class/kfd", "sys/bus/pci/devices", "sys/devices/virtual/kfd", "sys/devices/system/cpu",
         "sys/devices/system/node", "sys/module/nvidia", "sys/module/nvidia_uvm", "sys/module/amdgpu", "opt/rocm")  # fmt: skip
ABOUT_PROCESSES = ("/proc/driver/nvidia", "/proc/devices")
"""Where there is no `/proc` of its own."""
CHOICES = ("CUDA_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES")
LIBRARIES = (Path("/usr"), Path("/opt/rocm"))


class GpusUnavailable(InternError, RuntimeError):
    """GPUs were asked for and code could not use any: what is missing, and the command that brings it."""


@dataclass(frozen=True)
class Gpus:
    """The GPUs that code in a jail gets.

    Args:
        devices (`tuple[tuple[Path, str], ...]`): Nodes on the host, and where programs look for them.
        about (`tuple[tuple[Path, str], ...]`): What describes them, to read; likewise.
        groups (`tuple[int, ...]`): Groups that a throw-away user has to be in to open them.
        closed (`tuple[str, ...]`): GPUs that are there and cannot be opened, with whose they are.
    """

    devices: tuple[tuple[Path, str], ...] = ()
    about: tuple[tuple[Path, str], ...] = ()
    groups: tuple[int, ...] = ()
    closed: tuple[str, ...] = ()

    def names(self) -> list[str]:
        """The GPUs among the nodes. A card that has a node of its driver and a render node counts once."""
        inside = [Path(place).name for _, place in self.devices]
        nvidia = [name for name in inside if re.fullmatch(r"nvidia\d+", name)]
        return nvidia or [name for name in inside if name.startswith("renderD")]

    def variables(self, environment: Mapping[str, str]) -> dict[str, str]:
        """What of the host's environment says which GPU to use and where its libraries are."""
        found = {name: environment[name] for name in CHOICES if name in environment}
        folders = [os.path.normpath(folder) for folder in environment.get("LD_LIBRARY_PATH", "").split(":") if folder]
        seen = [folder for folder in folders if any(Path(folder).is_relative_to(base) for base in LIBRARIES)]
        return {**found, "LD_LIBRARY_PATH": ":".join(seen)} if seen else found


def find_gpus(root: Path = Path("/"), uid: int | None = None) -> Gpus:
    """Looks for GPUs that code could use.

    Args:
        root (`Path`, defaults to `/`): Where `dev` and `sys` lie.
        uid (`int`, *optional*): Whose rights count. If not given, this user's; for root those of a throw-away user, who
            is put into the groups that he needs.

    Raises:
        GpusUnavailable: none is there, or none can be opened, or a part of the driver is missing.
    """
    root = root.resolve()
    dev, uid = root / "dev", os.geteuid() if uid is None else uid
    devices, groups, closed = [], [], []
    for node in sorted(_nodes(dev)):
        name = node.relative_to(dev).as_posix()
        about = node.stat()
        group = _group_for(about, uid)
        if group is None:
            if NEEDED.fullmatch(name):
                closed.append(f"/dev/{name} ({_owner(about)})")
            continue
        groups += [group] if group > 0 else []
        devices.append((node, f"/dev/{name}"))
    about = [(root / path, f"/{path}") for path in ABOUT if (root / path).exists()]
    about += [(path, "/" + path.relative_to(root).as_posix()) for path in _cards(root)]
    gpus = Gpus(tuple(devices), tuple(about), tuple(sorted(set(groups))), tuple(closed))
    _refuse_unusable(gpus, uid)
    return gpus


def _nodes(dev: Path) -> Iterator[Path]:
    for pattern in ("nvidia*", "nvidia-caps/*", "kfd", "dri/renderD*"):
        for path in dev.glob(pattern):
            if NODES.fullmatch(path.relative_to(dev).as_posix()) and stat.S_ISCHR(path.lstat().st_mode):
                yield path


def _group_for(about: os.stat_result, uid: int) -> int | None:
    """Which group it takes to open a node: 0 none, `None`: no group helps."""
    if about.st_mode & 0o006 == 0o006:
        return 0
    if uid != 0:  # this user, with the groups that he has
        if about.st_uid == uid and about.st_mode & 0o600 == 0o600:
            return 0
        return 0 if about.st_mode & 0o060 == 0o060 and about.st_gid in {os.getegid(), *os.getgroups()} else None
    return about.st_gid if about.st_mode & 0o060 == 0o060 and about.st_gid != 0 else None


def _owner(about: os.stat_result) -> str:
    import grp

    try:
        group = grp.getgrgid(about.st_gid).gr_name
    except KeyError:
        group = str(about.st_gid)
    return f"group {group}, {stat.S_IMODE(about.st_mode):04o}"


def _cards(root: Path) -> Iterator[Path]:
    """The folders below `/sys/devices` that describe a graphics card or an accelerator, and not the rest of the machine."""
    for link in sorted((root / "sys/bus/pci/devices").glob("*")):
        try:
            if (link / "class").read_text().startswith((DISPLAYS, ACCELERATORS)):
                path = link.resolve()
                if path.is_relative_to(root):
                    yield path
        except OSError:
            continue


def _refuse_unusable(gpus: Gpus, uid: int) -> None:
    inside = {place for _, place in gpus.devices}
    if not gpus.devices and not gpus.closed:
        raise GpusUnavailable(
            "There is no GPU here that code could use",
            "no /dev/nvidia0, /dev/kfd or /dev/dri/renderD128",
            "Work without `--gpus` (ML_INTERN_GPUS=0); in a container, start it with its GPUs: docker run --gpus all ...",
        )
    if not gpus.names():
        whose = next((part for part in gpus.closed), "")
        by_root = "Open it to all users (sudo chmod 0666 ...), or give it a group that has it (sudo chgrp render ...)."
        by_group = 'sudo usermod -aG render,video "$USER", then log in again.'
        raise GpusUnavailable(
            "No GPU here can be opened by the code" if whose else "There is no GPU here that code could use",
            whose or "only parts of a driver are there",
            (by_root if uid == 0 or "group root" in whose else by_group) if whose else "nvidia-smi says more.",
        )
    if gpus.names()[0].startswith("nvidia") and "/dev/nvidia-uvm" not in inside:
        why = next((part for part in gpus.closed if "nvidia-uvm" in part), "there is no /dev/nvidia-uvm")
        raise GpusUnavailable("CUDA would not start in the jail", why, "sudo nvidia-modprobe -u -c=0")
