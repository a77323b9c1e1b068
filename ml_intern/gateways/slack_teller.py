"""What of a session is told in its thread: little unless somebody asks for more, nothing twice.

What must never happen here: two messages for one question; a message of a plan for each of its changes; a question that
looks open when nobody waits for it.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from .. import events as told
from ..errors import InternError
from ..events import ApprovalAnswer, ApprovalRequest, Event, Outcome
from ..execution import Workspace
from ..plain import plain as as_plain
from ..session import Session
from ..trace import read_rows
from . import slack_cards as cards
from .slack_book import Asked, Book
from .slack_outbox import Lines, Outbox, Place, Post, Upload
from .slack_text import mrkdwn, one_line, span

PLOTS = 4
"""Images of one step that are shown."""
PLOT_BYTES = 20_000_000
_IMAGE_NAME = re.compile(r"[\w][\w./ -]{0,150}?\.(?:png|jpe?g|gif)\b", re.IGNORECASE)
_IMAGE = (b"\x89PNG", b"\xff\xd8\xff", b"GIF8")

_BEGINS = (told.ApprovalAsked, told.PlanChanged, told.StepStarted, told.SessionEnded)
"""What is told at once, though it was not told that the session has begun: it was taken up."""


@dataclass
class Talk:
    """One session and its thread.

    Args:
        session (`Session`): The session.
        place (`Place`): Where it is told.
        asked (`dict`): Questions that are open there: by call, their key and what is asked.
        approved (`set[str]`): Calls that somebody said yes to: their results are told.
        seen (`set[str]`): Digests of images that were shown.
        early (`list[Event]`): Small things that were told before the thread had begun.
    """

    session: Session
    place: Place
    asked: dict[str, tuple[str, ApprovalRequest]] = field(default_factory=dict)
    approved: set[str] = field(default_factory=set)
    seen: set[str] = field(default_factory=set)
    early: list[Event] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.begun = bool(self.place.ts)


class Teller:
    """Tells sessions in their threads. On one thread.

    Args:
        outbox (`Outbox`): Says it.
        book (`Book`): Remembers questions and threads.
        may_act (`bool`): Whether people can answer from Slack.
    """

    def __init__(self, outbox: Outbox, book: Book, may_act: bool) -> None:
        self._outbox, self._book, self._may_act = outbox, book, may_act

    def tell(self, talk: Talk, event: Event) -> None:
        """Tells what is worth it."""
        if not talk.begun and not isinstance(event, told.SessionStarted):
            if not isinstance(event, _BEGINS):
                talk.early.append(event)
                return
            self.begin(talk, talk.session.title or "a session goes on")
        match event:
            case told.SessionStarted():
                self._started(talk, event)
            case told.PlanChanged(items=items):
                self._post(talk, cards.plan(items), "plan", lambda ts: self._book.note(talk.session.id, plan=ts))
            case told.ApprovalAsked(request=request):
                self._asked(talk, request)
            case told.ApprovalAnswered(call_id=call, answer=answer):
                self._answered(talk, call, answer, event.at)
            case told.StepFinished(step=step, images=images, error=error):
                if images:
                    self._plots(talk, step)
                if error and self._loud(talk):
                    self._line(talk, f":warning: step {step}: {one_line(error, 300)}")
            case told.ToolReturned() if event.call_id in talk.approved:
                talk.approved.discard(event.call_id)
                self._post(talk, cards.line(_returned(event), quiet=False))
            case told.SessionEnded(outcome=outcome):
                self.report(talk, outcome)
            case _:
                if text := _worth(event) or (_loud(event) if self._loud(talk) else ""):
                    self._line(talk, text)

    def _loud(self, talk: Talk) -> bool:
        """Whether each step is told: it may have been said to another process."""
        thread = self._book.thread(talk.session.id)
        return thread is not None and thread.loud

    def report(self, talk: Talk, outcome: Outcome) -> None:
        """The end of a turn; what was asked in it is not waited for any more."""
        for call in list(talk.asked):
            self._close(talk, call, "the turn is over")
        self._named_plots(talk, str(outcome.answer or ""))
        masked = talk.session.masker.data(outcome.answer)
        outcome = Outcome(outcome.state, masked, outcome.reason, outcome.steps, outcome.seconds, outcome.usage)
        url = talk.session.config.trace_url(talk.session.trace)
        card = cards.report(outcome, talk.session.id, url)
        self._post(talk, card, done=lambda ts: self._book.note(talk.session.id, open=False))
        talk.place.slots.pop("plan", None)  # the next turn has its own
        self._book.note(talk.session.id, plan="")

    def close_stale(self, talk: Talk) -> None:
        """Closes what looks open in the thread and is not waited for: it was answered while nobody told Slack."""
        open_calls = {request.call_id for request in talk.session.pending()}
        for asked in self._book.open_questions(talk.session.id):
            if asked.call not in open_calls and asked.call not in talk.asked and asked.ts:
                talk.place.slots[f"asked:{asked.key}"] = asked.ts
                head = ":information_source: This is not waited for any more."
                self._post(talk, cards.line(head), f"asked:{asked.key}")
                self._book.note_closed(asked.key)

    def _started(self, talk: Talk, event: told.SessionStarted) -> None:
        if not talk.begun:
            self.begin(talk, event.task, event.model)
            return
        self._book.note(talk.session.id, open=True, model=event.model)
        self._post(talk, cards.line(f"On it · session {span(talk.session.id[:8])} · {span(event.model)}"))

    def begin(self, talk: Talk, task: str, model: str = "") -> None:
        """The first message of a thread that nobody in Slack began."""
        session_id = talk.session.id

        def posted(ts: str) -> None:
            self._book.note_thread(session_id, talk.place.channel, ts)
            self._book.note(session_id, open=True, model=model)

        talk.begun = True
        self._post(talk, cards.begun(task, session_id, model, self._may_act), done=posted)
        early, talk.early = talk.early, []
        for event in early:
            self.tell(talk, event)

    def _asked(self, talk: Talk, request: ApprovalRequest) -> None:
        request_shown = _masked(request, talk)
        about = (request.call_id, digest(request))
        open_now = self._book.open_questions(talk.session.id)
        known = next((one for one in open_now if (one.call, one.digest) == about), None)
        if request.call_id in talk.asked:
            if talk.asked[request.call_id][0] == (known.key if known else ""):
                talk.asked[request.call_id] = (talk.asked[request.call_id][0], request)
                return
            self._close(talk, request.call_id, "it is asked anew")
        key = known.key if known else secrets.token_urlsafe(15)
        asked = Asked(
            key, talk.session.id, request.call_id, digest(request), talk.place.channel, known.ts if known else ""
        )
        talk.asked[request.call_id] = (key, request)
        if known and known.ts:  # it stands there already: this process was started anew
            talk.place.slots[f"asked:{key}"] = known.ts
        self._book.note_asked(asked)

        def posted(ts: str) -> None:
            asked.ts, asked.channel = ts, talk.place.channel
            self._book.note_asked(asked)

        card = cards.question(request_shown, key)
        if not (self._may_act and talk.session.answerable):
            card = cards.Card(card.text, tuple(b for b in card.blocks if b["type"] != "actions"), card.files)
        self._post(talk, card, f"asked:{key}", posted, urgent=True)

    def _answered(self, talk: Talk, call: str, answer: ApprovalAnswer, at: float) -> None:
        if call not in talk.asked:
            return
        key, request = talk.asked.pop(call)
        if answer.decision == "approve" and request.tool != cards.QUESTION and call.startswith("call_"):
            talk.approved.add(call)
        self._book.note_closed(key)
        card = cards.closed(_masked(request, talk), answer, at or time.time())
        self._post(talk, card, f"asked:{key}", urgent=True)

    def _close(self, talk: Talk, call: str, why: str) -> None:
        key, request = talk.asked.pop(call)
        self._book.note_closed(key)
        self._post(talk, cards.expired(_masked(request, talk), why), f"asked:{key}", urgent=True)

    def _plots(self, talk: Talk, step: int) -> None:
        found: list[str] = []
        for row in read_rows(talk.session.trace):  # the last step of that number
            if row.get("step") == step and row.get("type") == "user":
                found = _images(row) or found
        for place, data in enumerate(found[:PLOTS], 1):
            self._image(talk, f"step-{step}-{place}.png", base64.b64decode(data))

    def _named_plots(self, talk: Talk, answer: str) -> None:
        """Images in the workspace that the answer names."""
        workspace = Workspace(talk.session.workspace)
        for name in list(dict.fromkeys(found.group().strip() for found in _IMAGE_NAME.finditer(answer)))[:PLOTS]:
            try:
                data = workspace.read_bytes(name, PLOT_BYTES)
            except (InternError, OSError, ValueError):
                continue  # it names no file there, or none that may be read
            if data.startswith(_IMAGE):
                self._image(talk, name.rsplit("/", 1)[-1], data)

    def _image(self, talk: Talk, name: str, data: bytes) -> None:
        found = hashlib.sha256(data).hexdigest()
        if found not in talk.seen and data:
            talk.seen.add(found)
            self._outbox.put(Upload(talk.place, name, data))

    def _line(self, talk: Talk, text: str) -> None:
        self._outbox.put(Lines(talk.place, [text]))

    def say(self, talk: Talk, text: str) -> None:
        """A short message; `text` is escaped."""
        self._post(talk, cards.line(text))

    def _post(
        self,
        talk: Talk,
        card: cards.Card,
        slot: str = "",
        done: Callable[[str], None] = lambda ts: None,
        urgent: bool = False,
    ) -> None:
        self._outbox.put(Post(talk.place, card, slot, urgent, done))


def digest(request: ApprovalRequest) -> str:
    """Of what an answer is about: the call, its arguments and the files that it sends."""
    files = [(file.path, file.sha256) for file in request.files]
    about = [request.call_id, request.tool, as_plain(request.arguments), files]
    return hashlib.sha256(json.dumps(about, sort_keys=True, default=str).encode()).hexdigest()[:32]


def _masked(request: ApprovalRequest, talk: Talk) -> ApprovalRequest:
    mask = talk.session.masker
    return ApprovalRequest(
        request.call_id, request.tool, mask.data(request.arguments), request.effects, mask.text(request.reason),
        mask.text(request.preview), request.files, request.cost_usd, request.left_usd, request.destination,
        tuple(map(mask.text, request.sources)), request.rule, request.agent,
    )  # fmt: skip


def _images(row: dict[str, Any]) -> list[str]:
    """The images of a result's row, in base64."""
    found = []
    for block in (row.get("message") or {}).get("content") or []:
        inner = block.get("content") if isinstance(block, dict) else None
        for part in inner if isinstance(inner, list) else []:
            if part.get("type") == "image":
                found.append(part["source"]["data"])
    return found


def _returned(event: told.ToolReturned) -> str:
    summary = " ".join(event.summary.split())[:500]
    mark = ":white_check_mark:" if event.ok else ":x:"
    return f"{mark} {span(event.tool)} {(mrkdwn(summary) or [''])[0]}"


def _worth(event: Event) -> str:
    """What is told to everyone: a line in Slack's marks, `""` for what is not worth one."""
    match event:
        case told.Warned(text=text):
            return f":warning: {one_line(text, 1_000)}"
        case told.JobReported():
            bad = event.serious or event.state in ("failed", "timeout", "lost")
            mark = ":warning:" if bad else ":stopwatch:"
            return f"{mark} Job {span(event.name or event.job_id)}: {one_line(event.text, 500)}"
        case told.DecisionRecorded():
            return f"Decided: {one_line(event.subject, 200)}: *{one_line(event.choice, 200)}* ({one_line(event.reason, 300)})"
        case told.Steered(text=text, by=by):
            return f"Heard: {one_line(text, 200)}" + (f" ({span(by)})" if by else "")
        case told.Extended(steps=steps, why=why):
            return f"It may take {steps} steps now ({one_line(why, 200)})"
        case told.ModeChanged(mode=mode):
            return f"Calls are decided in the mode {span(mode)} from here on"
        case told.AgentEnded():
            return f"{span(event.agent)} has ended: {one_line(event.state)} after {event.steps} steps"
        case told.Undone():
            return "The last turn was taken back"
        case told.Resumed(lost=lost):
            return "It goes on" + (f"; lost: {one_line(', '.join(lost), 300)}" if lost else "")
    return ""


def _loud(event: Event) -> str:
    """What is told besides where somebody said `verbose`."""
    match event:
        case told.ModelAnswered():
            return f"*{event.step}* {one_line(event.thought, 300)}" if event.thought.strip() else ""
        case told.ToolCalled():
            shown = ", ".join(f"{name}={json.dumps(value, default=str)}" for name, value in event.arguments.items())
            return f"→ {span(f'{event.tool}({shown})', 200)}"
        case told.ToolReturned():
            return f"{'✓' if event.ok else '✗'} {span(event.tool)} {one_line(event.summary, 150)}"
        case told.AgentStarted():
            return f"{span(event.agent)} begins: {one_line(event.task, 200)}"
        case told.Compacted():
            return f"The conversation was made shorter: {event.before:,} to {event.after:,} tokens"
    return ""
