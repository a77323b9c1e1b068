"""Who in a workspace may do what, by Slack's user ids. Pure; asked at the moment of the act, each time.

What must never happen here: somebody is let do something because of a name, a text or a message, or because nobody is named.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

ACTS = ("start", "approve", "extend", "share", "steer", "look")


@dataclass(frozen=True)
class Person:
    """Somebody in Slack: the id is Slack's word and counts, the name is theirs and is only shown."""

    id: str
    team: str = ""
    name: str = ""

    @property
    def signed(self) -> str:
        """As decisions are on record: `slack:U0123 (ada)`."""
        name = "".join(c for c in self.name if c.isalnum() or c in "._-")[:40]
        return f"slack:{self.id}{f' ({name})' if name else ''}"


@dataclass(frozen=True)
class Members:
    """The people who may act on sessions, and where sessions may begin.

    Args:
        approvers (`frozenset[str]`): Start, approve, answer, give budget and steps, share (`SLACK_APPROVERS`).
        owner (`str`): One of them (`SLACK_OWNER`): whose sessions those of the terminal are.
        members (`frozenset[str]`): May steer, stop and look besides (`SLACK_MEMBERS`).
        channels (`frozenset[str]`): Where sessions may begin (`SLACK_CHANNELS`); anywhere where none is named.
    """

    approvers: frozenset[str] = frozenset()
    owner: str = ""
    members: frozenset[str] = frozenset()
    channels: frozenset[str] = frozenset()

    @classmethod
    def of(cls, environment: Mapping[str, str] | None = None) -> Members:
        """As the environment says: ids, separated by commas or spaces."""
        found = os.environ if environment is None else environment

        def ids(name: str) -> frozenset[str]:
            return frozenset(found.get(name, "").replace(",", " ").split())

        return cls(
            ids("SLACK_APPROVERS"), found.get("SLACK_OWNER", "").strip(), ids("SLACK_MEMBERS"), ids("SLACK_CHANNELS")
        )

    @property
    def anybody(self) -> bool:
        """Whether somebody may act; otherwise Slack is only told."""
        return bool(self.approvers or self.owner)

    def may(self, act: str, person: Person, channel: str = "") -> str:
        """Why somebody may not do that, `""` where they may.

        Args:
            act (`str`): One of `ACTS`.
            person (`Person`): Who.
            channel (`str`, *optional*): Where a session is to begin.
        """
        if not self.anybody:
            return "Nobody may act here from Slack: neither SLACK_APPROVERS nor SLACK_OWNER is set."
        deciders = self.approvers | ({self.owner} if self.owner else frozenset())
        allowed = deciders | self.members if act in ("steer", "look") else deciders
        if not person.id or person.id not in allowed:
            return (
                f"Only people on {'SLACK_MEMBERS or ' if act in ('steer', 'look') else ''}SLACK_APPROVERS may do that."
            )
        if act == "start" and self.channels and channel not in self.channels and not channel.startswith("D"):
            return "Sessions do not begin in this channel: it is not on SLACK_CHANNELS."
        return ""
