"""Borrowed: what a session takes in from elsewhere, from its start to its end."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..foreign import ForeignTool
from .hub import HubTools
from .known import FILE, KnownTools
from .mcp import McpServers
from .pinned import Pinned
from .servers import McpServer


@dataclass(frozen=True)
class Borrowing:
    """What is to be taken in: servers and tools of the Hub."""

    servers: tuple[McpServer, ...] = ()
    pinned: tuple[Pinned, ...] = ()

    @property
    def secrets(self) -> dict[str, str]:
        """What servers are given that may be a secret: value to name."""
        return {value: name for server in self.servers for value, name in server.secrets.items()}


@dataclass
class Borrowed:
    """The servers and tools of one session.

    Args:
        what (`Borrowing`): Which.
        home (`Path`): Where it is kept what a person has read.
        jail (`dict`): Options of the jails that tools from the Hub run in.
        note (`Callable[[str], None]`): Told what a person should know.
    """

    what: Borrowing
    home: Path
    jail: dict[str, Any]
    note: Callable[[str], None]
    _kept: list[ForeignTool] | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        known = KnownTools(self.home / FILE)
        self.servers = McpServers(self.what.servers, known, self.note)
        options = {name: value for name, value in self.jail.items() if name in _FOR_JAIL}
        self.hub = HubTools(self.what.pinned, known, options, self.note, self.home / "cache" / "hub-tools")

    def start(self) -> None:
        """Begins with all of it in the background."""
        self.servers.start()
        self.hub.start()

    @property
    def waits_for(self) -> str:
        """What there is to wait for, for people; `""` where there is nothing."""
        if self._kept is not None:
            return ""
        named: Sequence[str] = [server.name for server in self.what.servers] + [one.repo for one in self.what.pinned]
        return f"tools of {', '.join(named)}" if named else ""

    def tools(self, taken: Collection[str], stopped: Callable[[], bool]) -> list[ForeignTool]:
        """All of them, once; nothing the second time."""
        if self._kept is not None:
            return []
        found: list[ForeignTool] = [*self.servers.tools(taken, stopped)]
        found += self.hub.tools({*taken, *(tool.name for tool in found)}, stopped)
        self._kept = found
        return found

    def close(self) -> None:
        self.servers.close()
        self.hub.close()


_FOR_JAIL = ("network", "hosts", "memory_bytes", "disk_bytes", "processes")
