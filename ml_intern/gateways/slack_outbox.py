"""What is to be said in Slack, in order, by a thread of its own, however long Slack is away.

What must never happen here: a session waits for Slack; something is said twice because something else was refused; a
question is lost because Slack was down; a burst of steps fills a channel.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from .slack_cards import Card
from .slack_text import SECTION

if TYPE_CHECKING:
    from slack_sdk import WebClient

LONGEST_WAIT = 60.0
"""Seconds between two tries while Slack is away."""
LINES_EVERY = 1.5
"""Seconds between two messages of lines in one thread: what comes meanwhile is put together."""
BACKLOG = 5_000
"""Messages that wait; lines are dropped beyond."""

_AGAIN = {"ratelimited", "rate_limited", "internal_error", "fatal_error", "service_unavailable", "request_timeout",
    "team_added_to_org", "accesslimited"}  # fmt: skip
_GONE = {"message_not_found", "cant_update_message", "edit_window_closed", "thread_not_found"}
_TOO_MUCH = {"invalid_blocks", "msg_too_long", "msg_blocks_too_long", "invalid_blocks_format"}


@dataclass
class Place:
    """A thread in a channel; without `ts` the first message that is posted begins it."""

    channel: str
    ts: str = ""
    slots: dict[str, str] = field(default_factory=dict)
    """Messages that are edited in place, by what they are for."""
    last_lines: float = 0.0


@dataclass
class Post:
    """A message. With a `slot` it takes the place of the one before it there. `done` is told its `ts`."""

    place: Place
    card: Card
    slot: str = ""
    urgent: bool = False
    done: Callable[[str], None] = field(default=lambda ts: None)


@dataclass
class Lines:
    """Small things that happened; those that wait for one thread become one message."""

    place: Place
    lines: list[str]


@dataclass
class Upload:
    """A file."""

    place: Place
    name: str
    data: bytes
    title: str = ""


Item = Post | Lines | Upload


class Outbox:
    """Says things in Slack, one after the other; asks and answers first.

    Args:
        client (`WebClient`): Says them.
        warn (`Callable[[str], None]`): Told once of each kind of trouble.
        lines_every (`float`): Seconds between two messages of lines in a thread.
    """

    def __init__(self, client: WebClient, warn: Callable[[str], None], lines_every: float = LINES_EVERY) -> None:
        self._client, self._warn, self._lines_every = client, warn, lines_every
        self._items: deque[Item] = deque()
        self._changed = threading.Condition()
        self._closed, self._busy = False, False
        self._warned: set[str] = set()
        self._until: dict[str, float] = {}
        """Until when methods are not asked: Slack limits each by itself."""
        self._thread = threading.Thread(target=self._work, name="slack-outbox", daemon=True)
        self._thread.start()

    def put(self, item: Item) -> None:
        """From any thread; returns at once."""
        with self._changed:
            if not self._put_together(item):
                self._items.append(item)
            self._changed.notify_all()

    def flush(self, seconds: float) -> bool:
        """Waits until all is said. Returns whether it is."""
        with self._changed:
            self._lines_every = 0.0
            self._changed.notify_all()
            return self._changed.wait_for(lambda: not self._items and not self._busy, seconds)

    def close(self, seconds: float = 5.0) -> None:
        """Says what waits, for so long, and ends."""
        self.flush(seconds)
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join(timeout=0.5)

    def _put_together(self, item: Item) -> bool:
        """Whether it became part of one that waits."""
        if isinstance(item, Post) and item.slot:
            for other in self._items:
                if isinstance(other, Post) and other.place is item.place and other.slot == item.slot:
                    first, other.card = other.done, item.card
                    other.done = _both(first, item.done)
                    other.urgent = other.urgent or item.urgent
                    return True
        if isinstance(item, Lines):
            if len(self._items) > BACKLOG:
                return True
            for other in reversed(self._items):
                if isinstance(other, Lines | Post | Upload) and other.place is item.place:
                    if isinstance(other, Lines):
                        other.lines += item.lines
                        return True
                    return False
        return False

    def _next(self) -> Item | None:
        """What is to be said now: the oldest, or the oldest that is urgent, but for lines whose time has not come."""
        now = time.monotonic()
        best: Item | None = None
        held: list[Place] = []
        for item in self._items:
            method = _method(item)
            if self._until.get(method, 0.0) > now or (method == UPLOAD and not item.place.ts):
                continue
            first = isinstance(item, Post) and (item.urgent or not item.place.ts)
            early = isinstance(item, Lines) and now - item.place.last_lines < self._lines_every
            if early:
                held.append(item.place)
            elif first and item.place.ts:
                return item
            elif best is None and not any(item.place is place for place in held):
                best = item
        return best

    def _work(self) -> None:
        while True:
            with self._changed:
                while (item := self._next()) is None:
                    if self._closed:
                        return
                    self._changed.wait(0.2 if self._items else None)
                if self._closed:
                    return
                self._items.remove(item)
                self._busy = True
            try:
                self._say_until_said(item)
            finally:
                with self._changed:
                    self._busy = False
                    self._changed.notify_all()

    def _say_until_said(self, item: Item) -> None:
        wait = 0.5
        while not self._closed:
            method = _method(item)
            later = self._try(item, wait)
            if later is None:
                return
            if self._until.get(method, 0.0) > time.monotonic():
                self._put_back(item)
                return
            wait = min(LONGEST_WAIT, wait * 2)
            with self._changed:
                self._changed.wait_for(lambda: self._closed, later)

    def _put_back(self, item: Item) -> None:
        """Slack takes no more of its kind for a while: others are said meanwhile."""
        with self._changed:
            if isinstance(item, Post) and item.slot:
                for other in self._items:
                    if isinstance(other, Post) and other.place is item.place and other.slot == item.slot:
                        other.done, other.urgent = _both(item.done, other.done), other.urgent or item.urgent
                        return
            self._items.appendleft(item)

    def _try(self, item: Item, wait: float) -> float | None:
        """Says it. Returns in how many seconds to try again, `None` where it is said, or never will be."""
        from slack_sdk.errors import SlackApiError, SlackClientError, SlackRequestError

        try:
            self._say(item)
        except SlackApiError as error:
            code = str(error.response.get("error", "")) if error.response is not None else ""
            if error.response is not None and error.response.status_code == 429:
                later = _patience(error, max(wait, 1.0))
                self._until[_method(item)] = time.monotonic() + later
                return later
            if code in _AGAIN or (
                error.response is not None and error.response.status_code in (429, 500, 502, 503, 504)
            ):
                return _patience(error, wait)
            return self._refused(item, code, error)
        except SlackRequestError as error:
            self._trouble("upload", f"A file was not sent to Slack: {_short(error)}")
            return None
        except (SlackClientError, OSError, ValueError) as error:
            self._trouble("away", f"Slack cannot be reached ({_short(error)}). The work goes on; it is told later.")
            return wait
        self._warned.discard("away")
        return None

    def _refused(self, item: Item, code: str, error: Any) -> float | None:
        if code in _GONE and isinstance(item, Post) and item.place.slots.pop(item.slot, ""):
            return 0.0  # it was deleted: it is posted anew
        if code in _TOO_MUCH and isinstance(item, Post) and item.card.blocks:
            actions = tuple(block for block in item.card.blocks if block["type"] == "actions")
            said = {
                "type": "section",
                "text": {"type": "mrkdwn", "text": item.card.text[:SECTION] or "…", "verbatim": True},
            }
            if item.card.blocks != (said, *actions):
                item.card = Card(item.card.text, (said, *actions), item.card.files)
                return 0.0
        self._trouble(code, explain(code, error.response))
        return None

    def _say(self, item: Item) -> None:
        match item:
            case Lines(place, lines):
                text = "\n".join(lines[-60:])
                skipped = len(lines) - 60
                self._post(place, Card("…", tuple(_small(part) for part in _shortened(text, skipped))))
                place.last_lines = time.monotonic()
            case Upload(place, name, data, title):
                self._upload(place, name, data, title)
            case Post(place, card, slot, _, done):
                there = place.slots.get(slot, "") if slot else ""
                if there:
                    self._client.chat_update(
                        channel=place.channel, ts=there, text=card.text, blocks=list(card.blocks), parse="none"
                    )
                else:
                    there = self._post(place, card)
                    if slot:
                        place.slots[slot] = there
                done(there)
                for name, content in card.files:
                    self.put(Upload(place, name, content.encode()))

    def _post(self, place: Place, card: Card) -> str:
        said = self._client.chat_postMessage(
            channel=place.channel,
            text=card.text,
            blocks=list(card.blocks),
            thread_ts=place.ts or None,
            parse="none",
            link_names=False,
            unfurl_links=False,  # fetching an address is telling its owner something
            unfurl_media=False,
        )
        ts = str(said["ts"])
        place.channel = str(said.get("channel") or place.channel)
        place.ts = place.ts or ts
        return ts

    def _upload(self, place: Place, name: str, data: bytes, title: str) -> None:
        self._client.files_upload_v2(
            channel=place.channel, thread_ts=place.ts or None, filename=name, content=data, title=title or name
        )

    def _trouble(self, kind: str, text: str) -> None:
        if kind not in self._warned:
            self._warned.add(kind)
            with contextlib.suppress(Exception):  # whoever is told may be gone; the next message is said all the same
                self._warn(text)


POST, UPDATE, UPLOAD = "chat.postMessage", "chat.update", "files"


def _method(item: Item) -> str:
    if isinstance(item, Upload):
        return UPLOAD
    return UPDATE if isinstance(item, Post) and item.slot and item.slot in item.place.slots else POST


REMEDIES = {
    "channel_not_found": "There is no such channel, or the app does not see it: invite it there (/invite @ML Intern).",
    "not_in_channel": "The app is not in the channel: /invite @ML Intern.",
    "is_archived": "The channel is archived: name another one in SLACK_CHANNEL_ID.",
    "invalid_auth": "The token is not valid: copy SLACK_BOT_TOKEN from the app's page (OAuth & Permissions).",
    "not_authed": "The token is empty: copy SLACK_BOT_TOKEN from the app's page (OAuth & Permissions).",
    "account_inactive": "The app was removed from the workspace: install it again.",
    "token_revoked": "The token was revoked: install the app again.",
}


def explain(code: str, response: Any = None) -> str:
    """A refusal of Slack's in a sentence with what to do about it."""
    if code == "missing_scope":
        needed = str(response.get("needed", "")) if response is not None else ""
        return f"Slack refuses for want of the scope {needed}. Add it under OAuth & Permissions and install the app again."
    return f"Slack was not told ({code or 'no reason given'}). {REMEDIES.get(code, '')}".strip()


def _patience(error: Any, wait: float) -> float:
    headers = {name.lower(): value for name, value in dict(error.response.headers).items()}
    said = headers.get("retry-after", "")
    said = said[0] if isinstance(said, list) else said
    return float(said) if str(said).replace(".", "").isdigit() else wait


def _both(first: Callable[[str], None], second: Callable[[str], None]) -> Callable[[str], None]:
    def told(ts: str) -> None:
        first(ts)
        second(ts)

    return told


def _shortened(text: str, skipped: int) -> list[str]:
    head = f"… {skipped} earlier lines\n" if skipped > 0 else ""
    from .slack_text import cut

    return cut(head + text, SECTION)[:6]


def _small(text: str) -> dict[str, Any]:
    return {"type": "context", "elements": [{"type": "mrkdwn", "text": text, "verbatim": True}]}


def _short(error: BaseException) -> str:
    return " ".join(str(error).split())[:200]
