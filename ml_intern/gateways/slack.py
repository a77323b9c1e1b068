"""SlackGateway: an intern's sessions in the threads of a Slack workspace, and what people say there, to the sessions.

What must never happen here: a session is held up or ends because of Slack; a click that Slack was told has come is lost, or
counts twice; somebody acts who may not. See the parts: `slack_wire` (the connection), `slack_book` (what is on disk),
`slack_acts` and `slack_answers` (what people do), `slack_teller` (what is told), `slack_outbox` (how it is said),
`slack_text` (nothing pings).
"""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import Any, Self

from ..errors import InternError
from ..events import Event
from ..intern import MLIntern
from ..session import Session
from . import slack_inbox as inbox
from .slack_acts import Acts
from .slack_answers import OPENS_MODAL, Answers
from .slack_book import Book, Thread
from .slack_cards import line
from .slack_members import Members
from .slack_outbox import LINES_EVERY, Outbox, Place, Post, explain
from .slack_setup import STEPS
from .slack_teller import Talk, Teller
from .slack_wire import Acknowledge, Wire, quiet

PAGES = 10
"""Pages of 200 messages that are looked through in one thread."""
THREADS = 50
"""Threads that are looked through for what was said while nobody listened, the newest."""


def beside(intern: MLIntern) -> SlackGateway | None:
    """The gateway for an intern that is to notify Slack, to be started; `None` where Slack is not set up.

    Without an app token, or where nobody is named who may act, it only tells.
    """
    if not intern.notifies_slack or intern.offline or not os.environ.get("SLACK_BOT_TOKEN"):
        return None
    both_ways = os.environ.get("SLACK_APP_TOKEN") and Members.of().anybody
    return SlackGateway(intern) if both_ways or os.environ.get("SLACK_CHANNEL_ID") else None


class SlackGateway:
    """Tells a Slack workspace of an intern's sessions, and lets people there begin, steer and answer them.

    It is in place for all sessions that the intern has and will have. Sessions that nobody in Slack began are told in
    `channel`. Without `app_token`, or where nobody is named who may act, Slack is only told.

    Args:
        intern (`MLIntern`): Whose sessions.
        bot_token (`str`, *optional*), app_token (`str`, *optional*), channel (`str`, *optional*): Default to
            `SLACK_BOT_TOKEN`, `SLACK_APP_TOKEN` and `SLACK_CHANNEL_ID`.
        members (`Callable[[], Members]`, *optional*): Who may do what; asked for each act. Defaults to `SLACK_APPROVERS`,
            `SLACK_OWNER`, `SLACK_MEMBERS` and `SLACK_CHANNELS`.
        warn (`Callable[[str], None]`, *optional*): Told what is amiss with Slack. Defaults to the newest session's warnings.
        base_url (`str`, *optional*): Address of the Web API. Defaults to `SLACK_API_URL`, else Slack's.
        ping_seconds (`float`, defaults to 5): How often the connection is looked after.
        lines_every (`float`, defaults to 1.5): Seconds between two messages of small things in one thread.

    Raises:
        InternError: there is no token, or the home cannot be written.

    Example:
        ```py
        with MLIntern() as intern, SlackGateway(intern) as slack:
            intern.run("Find a text classification dataset and train a model.")
        ```
    """

    def __init__(
        self,
        intern: MLIntern,
        *,
        bot_token: str | None = None,
        app_token: str | None = None,
        channel: str | None = None,
        members: Callable[[], Members] = Members.of,
        warn: Callable[[str], None] | None = None,
        base_url: str | None = None,
        ping_seconds: float = 5.0,
        lines_every: float = LINES_EVERY,
    ) -> None:
        from slack_sdk import WebClient

        token = bot_token or os.environ.get("SLACK_BOT_TOKEN", "")
        if not token:
            raise InternError("Slack cannot be told", "SLACK_BOT_TOKEN is not set", f"Set it up:\n{STEPS}")
        app = os.environ.get("SLACK_APP_TOKEN", "") if app_token is None else app_token
        self.both_ways = bool(app) and members().anybody
        """Whether people can act from Slack."""
        self._channel = os.environ.get("SLACK_CHANNEL_ID", "") if channel is None else channel
        self._intern, self._told, self._before = intern, warn, intern.on_event
        self._talks: dict[str, Talk] = {}
        self._attached: dict[str, Callable[[Event], None]] = {}
        self._events: queue.SimpleQueue[tuple[str, Event] | None] = queue.SimpleQueue()
        self._said: queue.SimpleQueue[inbox.Inbound | None] = queue.SimpleQueue()
        self._acting = ThreadPoolExecutor(8, thread_name_prefix="slack-acts")
        self._placing = threading.RLock()
        self._closed = threading.Event()
        address = base_url or os.environ.get("SLACK_API_URL") or WebClient.BASE_URL
        self.client = WebClient(token, base_url=address, timeout=10, logger=quiet)
        self.book = Book(intern.settings.home.expanduser().absolute())
        self.outbox = Outbox(self.client, self._warn, lines_every)
        self._teller = Teller(self.outbox, self.book, self.both_ways)
        answers = Answers(intern, self.client, self.book, members)
        self.acts = Acts(answers, self._join, self._talks.get, self._say, self._placing)
        self.wire = Wire(
            self.client,
            app if self.both_ways else "",
            self._channel,
            self._take,
            self._reached,
            self._warn,
            ping_seconds,
        )
        self._threads = [
            threading.Thread(target=self._tell, name="slack-teller", daemon=True),
            threading.Thread(target=self._obey, name="slack-said", daemon=True),
        ]

    @property
    def connected(self) -> bool:
        """Whether Slack can tell of clicks and words at this moment."""
        return self.wire.connected

    def start(self) -> Self:
        """Begins to tell and to listen. Where Slack is away it goes on trying.

        Raises:
            InternError: Slack refuses the tokens.
        """
        self._intern.notifies_slack = False  # it would be told twice
        self._intern.on_event = self._hear
        for thread in self._threads:
            thread.start()
        for session in list(self._intern.sessions.values()):
            self._attach(session, 0)
        try:
            self.wire.start()
        except InternError:
            self.close(0.0)
            raise
        return self

    def take_up(self) -> list[str]:
        """Goes on with the sessions of the book whose turn is open, as after a restart. Returns what could not be."""
        could_not = []
        for thread in self.book.threads():
            if (
                not thread.open
                or thread.session in self._intern.sessions
                or self.acts.answers.elsewhere(thread.session)
            ):
                continue
            try:
                session = self._intern.resume(thread.session)
            except InternError as error:
                could_not.append(f"{thread.session[:8]}: {error}")
                continue
            talk = self._talk_of(session)
            self._teller.close_stale(talk)
            if session.outcome is not None and session.state not in ("running", "waiting"):
                self._teller.report(talk, session.outcome)  # it ended while Slack was not told
        return could_not

    def close(self, seconds: float = 5.0) -> None:
        """Says what is left to say, for so long, and leaves. Sessions go on."""
        if self._closed.is_set():
            return
        self._closed.set()
        self._intern.on_event = self._before
        for session_id, listener in list(self._attached.items()):
            if session := self._intern.sessions.get(session_id):
                session.events.forget(listener)
        self.wire.close()
        self._acting.shutdown(wait=False)
        self._events.put(None)
        self._said.put(None)
        for thread in self._threads:
            if thread.is_alive():
                thread.join(timeout=seconds)
        self.outbox.close(seconds)
        self.book.close()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *exc: object) -> None:
        self.close()

    # In.

    def _take(self, kind: str, payload: dict[str, Any], acknowledge: Acknowledge) -> None:
        """Journals, acknowledges, acts: in this order, one after the other; acts do not hold up what comes next."""
        inbound = inbox.read(kind, payload, self.wire.team, self.wire.me)
        if inbound is None or not self.acts.concerns(inbound):
            acknowledge(None)
        elif isinstance(inbound, inbox.Clicked) and inbound.action in OPENS_MODAL:
            acknowledge(None)  # nothing is decided by it
            self._acting.submit(self.acts.answers.open_modal, inbound)
        elif isinstance(inbound, inbox.Submitted):
            self._acting.submit(self._submitted, inbound, acknowledge)
        else:
            new = self._take_in(inbound)
            acknowledge(None)
            if isinstance(new, inbox.Clicked):
                self._acting.submit(self._act, new)
            elif new is not None:
                self._said.put(new)

    def _submitted(self, form: inbox.Submitted, acknowledge: Acknowledge) -> None:
        """A form is looked at before it is acknowledged: what is wrong with it is shown in it."""
        if wrong := self.acts.answers.wrong(form):
            acknowledge({"response_action": "errors", "errors": wrong})
            return
        new = self._write_down(form)
        acknowledge(None)
        if new:
            self._act(form)

    def _write_down(self, inbound: inbox.Inbound) -> bool:
        """Puts it on disk. Whether it is new.

        Raises:
            OSError: it could not be written. It is not acknowledged then: Slack says so to who clicked, or sends it again.
        """
        try:
            return self.book.take(inbound.id, inbox.to_row(inbound))
        except OSError as error:
            self._warn(f"What came from Slack could not be written down ({error}).")
            raise

    def _take_in(self, inbound: inbox.Inbound) -> inbox.Inbound | None:
        """Puts it on disk. Returns what of it is new: of a message that is known its files may be."""
        new = self._write_down(inbound)
        files = inbox.files_of(inbound) if isinstance(inbound, inbox.Said) else None
        if files is None:
            return inbound if new else None
        if new:  # they come with it
            if self.book.take(files.id, {}):
                self.book.done(files.id)
            return inbound
        return files if self._write_down(files) else None

    def _reached(self, first: bool) -> None:
        """There is a connection, after a time without one: what came then is acted on."""
        self.acts.me = self.wire.me
        for name, row in self.book.undone() if first else ():  # taken in by a process that was killed before it acted
            if (inbound := inbox.from_row(row)) is None:
                self.book.done(name, "unreadable")
            else:
                self._said.put(inbound)
        if self.both_ways:
            threading.Thread(target=self._look_back, name="slack-missed", daemon=True).start()

    def _look_back(self) -> None:
        """What was said in the threads while nobody listened, for longer than Slack sends things again."""
        from slack_sdk.errors import SlackApiError, SlackClientError

        refused: set[str] = set()
        for thread in () if self._closed.is_set() else self.book.threads()[-THREADS:]:
            try:
                if not self._closed.is_set():
                    self._look_through(thread)
            except SlackApiError as error:
                said = explain(str(error.response.get("error", "")), error.response)
                if said not in refused:
                    refused.add(said)
                    self._warn(f"What was said in a thread meanwhile is not known. {said}")
            except (SlackClientError, OSError):
                return  # it is away again; the next connection looks anew

    def _look_through(self, thread: Thread) -> None:
        direct = thread.channel.startswith("D")
        if not direct and self.client.conversations_info(channel=thread.channel)["channel"].get("is_ext_shared"):
            return
        pages = islice(self.client.conversations_replies(channel=thread.channel, ts=thread.ts, limit=200), PAGES)
        for row in (row for page in pages for row in page["messages"]):
            payload = {"team_id": self.wire.team, "event": {**row, "type": "message", "channel": thread.channel}}
            said = inbox.read("events_api", payload, self.wire.team, self.wire.me)
            later = isinstance(said, inbox.Said) and said.ts > thread.ts
            new = self._take_in(said) if said is not None and later and not self._closed.is_set() else None
            if new is not None:
                self._said.put(new)

    def _obey(self) -> None:
        """Words, one after the other."""
        while (inbound := self._said.get()) is not None:
            self._act(inbound)

    def _act(self, inbound: inbox.Inbound) -> None:
        try:
            self.acts.act(inbound)
        except Exception as error:  # noqa: BLE001 - one act that fails must not end the listening
            self._warn(f"Something from Slack failed: {type(error).__name__}: {error}")
        self.book.done(inbound.id)

    # Out.

    def _hear(self, event: Event) -> None:
        """The intern's `on_event`: its first event makes a session known here."""
        if event.session_id not in self._attached and not self._closed.is_set():
            self._attach(self._intern.sessions[event.session_id], event.seq - 1)
        if self._before is not None:
            self._before(event)

    def _attach(self, session: Session, since: int) -> None:
        def listener(event: Event) -> None:
            self._events.put((session.id, event))

        self._attached[session.id] = listener
        session.events.listen(listener, since)

    def _tell(self) -> None:
        while (item := self._events.get()) is not None:
            session = self._intern.sessions.get(item[0])
            if session is None:
                continue
            try:
                talk = self._talk_of(session)
                if talk.place.channel:
                    self._teller.tell(talk, item[1])
            except Exception as error:  # noqa: BLE001 - one event that cannot be told must not end the telling
                self._warn(f"Slack was not told of {item[1].kind}: {type(error).__name__}: {error}")

    def _talk_of(self, session: Session) -> Talk:
        with self._placing:
            known = self._talks.get(session.id)
            if known is not None:
                return known
            thread = self.book.thread(session.id)
            if thread is None:
                return self._join(session, Place(self._channel))
            place = Place(thread.channel, thread.ts, {"plan": thread.plan} if thread.plan else {})
            return self._join(session, place)

    def _join(self, session: Session, place: Place) -> Talk:
        talk = self._talks[session.id] = Talk(session, place)
        return talk

    def _say(self, place: Place, text: str) -> None:
        self.outbox.put(Post(place, line(text)))

    def _warn(self, text: str) -> None:
        if self._told is not None:
            self._told(text)
        elif self._intern.sessions:
            self._intern.session().warn(text)
