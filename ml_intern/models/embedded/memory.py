"""Whether weights fit into this machine, and with which window: a decision, and where its figures come from."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path

from ...errors import ModelFailed
from .gguf import Facts

USUAL = 32_768
"""Tokens of a window where nobody says: enough for an agent, and its cache still fits beside the weights."""
SMALLEST = 2_048
BATCH = 256
"""Tokens that are computed at once; between two batches a cancelled request ends."""
BASE = 160 << 20
"""Bytes of the process itself: Python, llama.cpp's own code and tables. Measured."""
SPARED = 0.1
"""Of the memory that is free: left to everything else."""
MOST_CACHE = 2 << 30


@dataclass(frozen=True)
class Plan:
    """How weights are loaded. Sizes are bytes; `cache` is what conversations that are set aside may take."""

    window: int
    weights: int
    kv: int
    rest: int
    cache: int = 0

    @property
    def needed(self) -> int:
        return self.weights + self.kv + self.rest


def plan(facts: Facts, free: int, window: int | None = None) -> Plan:
    """Chooses the window: the one asked for, or as much of the usual one as fits.

    Args:
        facts (`Facts`): Of the weights.
        free (`int`): Bytes of memory that can be had.
        window (`int`, *optional*): Tokens. Defaults to 32,768, or fewer where the model was trained with fewer or memory
            is short; not fewer than 2,048.

    Raises:
        ModelFailed: the machine is too small; says by how much.
    """
    trained = facts.trained or window or USUAL
    tokens = min(window or USUAL, trained)
    usable = int(free * (1 - SPARED))
    found = _at(facts, tokens)
    while found.needed > usable and window is None and tokens > SMALLEST:
        tokens = max(SMALLEST, tokens // 2)
        found = _at(facts, tokens)
    if found.needed > usable:
        raise ModelFailed(
            f"{facts.name} needs {_gb(found.needed)} of memory, and this machine has {_gb(usable)} to spare",
            f"weights {_gb(found.weights)}, a window of {found.window:,} tokens {_gb(found.kv)}, "
            f"computing {_gb(found.rest)}",
            "Choose smaller weights or a smaller quantisation"
            + (", or a smaller window." if found.window > SMALLEST else "."),
        ).of_kind("unsent")
    # Set-aside conversations: two windows of them, as far as half of what is left allows.
    cache = min(MOST_CACHE, 2 * found.kv, (usable - found.needed) // 2)
    return Plan(found.window, found.weights, found.kv, found.rest, cache)


def _at(facts: Facts, tokens: int) -> Plan:
    return Plan(tokens, facts.size, facts.kv * tokens, BASE + 4 * BATCH * (facts.width + tokens))


def _gb(size: int) -> str:
    return f"{size / 1e9:,.1f} GB"


def free_memory(proc: Path = Path("/proc"), cgroups: Path = Path("/sys/fs/cgroup")) -> int:
    """Bytes that can be had: what the kernel says is available, or less where a container allows less."""
    found = [_available(proc / "meminfo")]
    with contextlib.suppress(OSError, ValueError):
        own = next(
            line[3:].strip() for line in (proc / "self/cgroup").read_text().splitlines() if line.startswith("0::")
        )
        folder = cgroups / own.lstrip("/")
        while folder != cgroups.parent:
            found.append(_left(folder))
            folder = folder.parent
    with contextlib.suppress(OSError, ValueError, ImportError):
        import resource

        limit = resource.getrlimit(resource.RLIMIT_AS)[0]
        if limit != resource.RLIM_INFINITY:
            found.append(limit)
    return min((amount for amount in found if amount is not None), default=0)


def _available(meminfo: Path) -> int | None:
    try:
        lines = dict(line.split(":", 1) for line in meminfo.read_text().splitlines())
        return int(lines["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):  # not Linux: half of what is there
        import os

        with contextlib.suppress(ValueError, OSError, AttributeError):
            return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
        return None


def _left(folder: Path) -> int | None:
    """What a control group may still take: its limit less what it holds that the kernel cannot drop."""
    try:
        limit = int((folder / "memory.max").read_text())
        used = int((folder / "memory.current").read_text())
        stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
        return limit - used + int(stat.get("inactive_file", 0)) + int(stat.get("active_file", 0))
    except (OSError, ValueError):  # no limit, or no such file
        return None
