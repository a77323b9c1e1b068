"""What comes from Slack, as data. Pure.

What must never happen here: words of a bot, of another workspace, of an edited message or of somebody who is not named count
as a person's; the same act has two names.
"""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass
from typing import Any

from .slack_members import Person


@dataclass(frozen=True)
class Dropped:
    """A file that was dropped into a thread."""

    name: str
    size: int
    url: str


@dataclass(frozen=True)
class Said:
    """A message. `mentions`: the app is named in it; `direct`: it was written to the app alone."""

    id: str
    person: Person
    channel: str
    ts: str
    thread_ts: str
    text: str
    mentions: bool = False
    direct: bool = False
    files: tuple[Dropped, ...] = ()


@dataclass(frozen=True)
class Clicked:
    """A button."""

    id: str
    person: Person
    channel: str
    ts: str
    action: str
    key: str
    trigger: str = ""


@dataclass(frozen=True)
class Submitted:
    """A modal. `values` by the `block_id` of each input."""

    id: str
    person: Person
    purpose: str
    key: str
    values: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Commanded:
    """The slash command."""

    id: str
    person: Person
    channel: str
    text: str


Inbound = Said | Clicked | Submitted | Commanded
_KINDS = {kind.__name__: kind for kind in (Said, Clicked, Submitted, Commanded)}
PERSONAL = (None, "file_share", "thread_broadcast")
"""Subtypes of messages that a person has written, just so."""


def read(kind: str, payload: dict[str, Any], team: str, me: str) -> Inbound | None:
    """What an envelope says, `None` where it is nobody's word that counts.

    Args:
        kind (`str`): The envelope's type.
        payload (`dict`): Its payload.
        team (`str`): The workspace that counts.
        me (`str`): The app's own user.
    """
    if kind == "events_api":
        return _said(payload, team, me)
    if kind == "slash_commands":
        person = Person(
            str(payload.get("user_id", "")), str(payload.get("team_id", "")), str(payload.get("user_name", ""))
        )
        name = f"c:{payload.get('trigger_id', '')}"
        if person.team != team or payload.get("is_ext_shared_channel"):
            return None
        return Commanded(name, person, str(payload.get("channel_id", "")), str(payload.get("text", "")))
    if kind != "interactive":
        return None
    person = _person(payload)
    if person.team != team or not person.id or person.id == me:
        return None
    if payload.get("type") == "block_actions":
        return _clicked(payload, person)
    if payload.get("type") == "view_submission":
        return _submitted(payload, person)
    return None


def to_row(inbound: Inbound) -> dict[str, Any]:
    return {"kind": type(inbound).__name__, **asdict(inbound)}


def from_row(row: dict[str, Any]) -> Inbound | None:
    """The other way; `None` for what cannot be read."""
    fields = dict(row)
    try:
        kind = _KINDS[fields.pop("kind")]
        fields["person"] = Person(**fields["person"])
        if "files" in fields:
            fields["files"] = tuple(Dropped(**file) for file in fields["files"])
        if "values" in fields:
            fields["values"] = tuple((str(name), str(value)) for name, value in fields["values"])
        return kind(**fields)
    except (KeyError, TypeError, ValueError):
        return None


def _said(payload: dict[str, Any], team: str, me: str) -> Said | None:
    event = payload.get("event") or {}
    user, channel, ts = (str(event.get(name) or "") for name in ("user", "channel", "ts"))
    teams = {str(event[name]) for name in ("user_team", "source_team", "team") if event.get(name)}
    if event.get("type") not in ("message", "app_mention") or event.get("subtype") not in PERSONAL:
        return None
    if not user or user == me or event.get("bot_id") or event.get("edited") or not channel or not ts:
        return None
    if payload.get("is_ext_shared_channel") or payload.get("team_id") != team or teams - {team}:
        return None
    text = str(event.get("text") or "")
    files = tuple(
        Dropped(
            str(file.get("name") or "file"), int(file.get("size") or 0), str(file.get("url_private_download") or "")
        )
        for file in event.get("files") or ()
        if isinstance(file, dict)
    )
    # A mention comes as two events: they are one message.
    return Said(
        f"m:{channel}:{ts}", Person(user, team), channel, ts, str(event.get("thread_ts") or ""), text,
        f"<@{me}>" in text, channel.startswith("D"), files,
    )  # fmt: skip


def _clicked(payload: dict[str, Any], person: Person) -> Clicked | None:
    actions, container = payload.get("actions") or [], payload.get("container") or {}
    if len(actions) != 1 or container.get("type") != "message":
        return None
    action = actions[0]
    channel, ts = str(container.get("channel_id") or ""), str(container.get("message_ts") or "")
    name, at, key = (str(action.get(field) or "") for field in ("action_id", "action_ts", "value"))
    if not key or len(key) > 100 or len(name) > 100:
        return None
    return Clicked(
        f"a:{ts}:{at}:{person.id}:{name}", person, channel, ts, name, key, str(payload.get("trigger_id") or "")
    )


def _submitted(payload: dict[str, Any], person: Person) -> Submitted:
    view = payload.get("view") or {}
    values = []
    for block, fields in ((view.get("state") or {}).get("values") or {}).items():
        for field in fields.values():
            values.append((str(block), str(field.get("value") or "")))
    said = hashlib.sha256(repr(sorted(values)).encode()).hexdigest()[:8]  # one that was sent back is sent again
    purpose, key = str(view.get("callback_id") or ""), str(view.get("private_metadata") or "")
    return Submitted(f"v:{view.get('id')}:{said}", person, purpose, key, tuple(values))


def _person(payload: dict[str, Any]) -> Person:
    user = payload.get("user") or {}
    team = user.get("team_id") or (payload.get("team") or {}).get("id")
    return Person(str(user.get("id") or ""), str(team or ""), str(user.get("username") or user.get("name") or ""))
