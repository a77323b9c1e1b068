"""What comes from Slack, as data. Pure.

What must never happen here: words of a bot, of another workspace, of an edited message or of somebody who is not named count
as a person's; the same act has two names.

An envelope comes over a connection that the app's own token has opened: a field that it lacks is no sign of another workspace,
one that names another is.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import asdict, dataclass, replace
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
    reply_to: str = ""
    """Where an answer that only they see goes, for half an hour."""


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
        name = f"c:{payload.get('trigger_id') or payload.get('response_url') or ''}"
        if _foreign({person.team}, team) or not person.id or payload.get("is_ext_shared_channel"):
            return None
        fields = (str(payload.get(name) or "") for name in ("channel_id", "text", "response_url"))
        return Commanded(name, person, *fields)
    if kind != "interactive":
        return None
    person = _person(payload)
    if _foreign({person.team}, team) or not person.id or person.id == me:
        return None
    if payload.get("type") == "block_actions":
        return _clicked(payload, person)
    if payload.get("type") == "view_submission":
        return _submitted(payload, person)
    return None


def _foreign(teams: set[str], team: str) -> bool:
    """Whether one of these workspaces is another one."""
    return bool(team) and bool(teams - {team, ""})


def files_of(said: Said) -> Said | None:
    """What a message brings besides its words, as an act of its own: of a mention's two events only one may have the files."""
    if not said.files:
        return None
    return replace(said, id=f"f{said.id[1:]}", text="", mentions=False, thread_ts=said.thread_ts or said.ts)


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
    teams |= {str(payload["team_id"])} if payload.get("team_id") else set()
    if event.get("type") not in ("message", "app_mention") or event.get("subtype") not in PERSONAL:
        return None
    if not user or user == me or event.get("bot_id") or event.get("edited") or not channel or not ts:
        return None
    if payload.get("is_ext_shared_channel") or _foreign(teams, team):
        return None
    text = str(event.get("text") or "")
    files = tuple(
        Dropped(
            str(file.get("name") or "file"),
            int(file.get("size") or 0),
            str(file.get("url_private_download") or file.get("url_private") or ""),
        )
        for file in event.get("files") or ()
        if isinstance(file, dict)
    )
    # A mention comes as two events: they are one message.
    return Said(
        f"m:{channel}:{ts}", Person(user, team), channel, ts, str(event.get("thread_ts") or ""), text,
        event["type"] == "app_mention" or re.search(rf"<@{re.escape(me)}(?:\|[^<>]*)?>", text) is not None,
        channel.startswith("D") or event.get("channel_type") == "im", files,
    )  # fmt: skip


def _clicked(payload: dict[str, Any], person: Person) -> Clicked | None:
    actions, container = payload.get("actions") or [], payload.get("container") or {}
    if len(actions) != 1 or container.get("type", "message") != "message":
        return None
    action, message, place = actions[0], payload.get("message") or {}, payload.get("channel") or {}
    channel = str(container.get("channel_id") or place.get("id") or "")
    ts = str(container.get("message_ts") or message.get("ts") or "")
    name, key = (str(action.get(field) or "") for field in ("action_id", "value"))
    at = str(action.get("action_ts") or payload.get("trigger_id") or "")
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
