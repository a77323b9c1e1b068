"""What was decided in a session, by whom and why: the agent's choices and the people's answers, each with its step.

What must never happen here: a decision without where it belongs; words of a trace that act on the card they are put on.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from .read import note_of, read_rows
from .rows import Row
from .values import count, moment, text, texts

ANSWERS = {"approve": "approved", "edit": "approved with changes", "reject": "rejected", "stop": "stopped"}
OPEN = "not answered"


@dataclass(frozen=True)
class Decision:
    """One decision.

    Args:
        step (`int`): The step that it belongs to; 0 where it was made before the first.
        subject (`str`): What was to be decided; of an answer: the call.
        choice (`str`): What was chosen; of an answer: its words, or `approved`, `rejected` ..., or `not answered`.
        reason (`str`): Why.
        sources (`tuple[str, ...]`): What it rests on.
        by (`str`): Who: `agent`, or who answered.
        call_id (`str`): Of an answer: the call.
        at (`float`): Seconds since the epoch.
        copied (`bool`): It was made in the session that this one is a fork of, whoever's that was.
    """

    step: int
    subject: str
    choice: str
    reason: str = ""
    sources: tuple[str, ...] = ()
    by: str = "agent"
    call_id: str = ""
    at: float = 0.0
    copied: bool = False

    @property
    def is_answer(self) -> bool:
        """Whether it is a person's (or a rule's) word on a call."""
        return bool(self.call_id)


def decisions(trace: Path) -> list[Decision]:
    """All decisions on record, in order.

    Args:
        trace (`Path`): A session's trace, of this program; any other has none.

    Raises:
        OSError: it cannot be read.
    """
    found: list[Decision] = []
    asked: dict[str, int] = {}  # call to its place in `found`
    step = 0
    for row in read_rows(trace):
        step = count(row.get("step"), step)
        note = note_of(row)
        if note is None:
            continue
        at = moment(row.get("timestamp"))
        match text(note.get("kind")):
            case "decision":
                found.append(_made(note, count(note.get("step"), step), at, "forkedFrom" in row))
            case "approval-asked":
                call_id = text(note.get("callId"))
                asked[call_id] = len(found)
                found.append(_asked(note, call_id, step, at))
            case "approval-answered" if (place := asked.get(text(note.get("callId")))) is not None:
                found[place] = _answered(found[place], note, at)
            case _:
                pass
    return found


def markdown(made: Sequence[Decision], trace: str = "") -> str:
    """The decisions as a section of a card.

    Args:
        made (`Sequence[Decision]`): As [`decisions`] gives them.
        trace (`str`, *optional*): The address of the trace, linked.

    Returns:
        `str`: Markdown, `""` where nothing was decided.
    """
    if not made:
        return ""
    lines = ["## Decisions", ""]
    if trace:
        lines += [f"Each with the step of [the session's trace]({address(trace)}) that it belongs to.", ""]
    lines += map(item, made)
    return "\n".join(lines) + "\n"


def item(decision: Decision) -> str:
    """A decision as an item of a list in Markdown."""
    who = f", by {_words(decision.by)}" if decision.is_answer and decision.by else ""
    reason = f" {_words(decision.reason)}" if decision.reason else ""
    line = f"- **{_words(decision.subject)}**: {_words(decision.choice)}{who} (step {decision.step}).{reason}"
    if decision.sources:
        line += " Sources: " + ", ".join(map(_source, decision.sources)) + "."
    return line


def _made(note: Row, step: int, at: float, copied: bool) -> Decision:
    said = (text(note.get(name)) for name in ("subject", "choice", "reason"))
    return Decision(step, *said, sources=texts(note.get("sources")), at=at, copied=copied)


def _asked(note: Row, call_id: str, step: int, at: float) -> Decision:
    subject, arguments = text(note.get("tool")), note.get("arguments")
    if subject == "ask_user" and isinstance(arguments, dict):
        subject = text(arguments.get("question")) or subject
    destination = note.get("destination")
    if isinstance(destination, dict) and text(destination.get("name")):
        subject += f" to {text(destination.get('name'))}"
    sources = texts(note.get("sources"))
    return Decision(step, subject, OPEN, text(note.get("reason")), sources, "", call_id or "?", at)


def _answered(asked: Decision, note: Row, at: float) -> Decision:
    choice = ANSWERS.get(text(note.get("decision")), text(note.get("decision")) or OPEN)
    said, reason = text(note.get("text")), text(note.get("reason")) or asked.reason
    choice = said if said and choice == "approved" else choice
    return Decision(asked.step, asked.subject, choice, reason, asked.sources, text(note.get("by")), asked.call_id, at)


def _words(said: str) -> str:
    """Foreign words on one line of Markdown, where they mean nothing but themselves."""
    line = " ".join(said.split())
    return re.sub(r"([\\`*_\[\]<>|#!~])", r"\\\1", line[:1000])


def _source(source: str) -> str:
    return f"<{address(source)}>" if re.fullmatch(r"https?://\S+", source) else _words(source)


def address(said: str) -> str:
    """An address as it can stand in a link of Markdown."""
    return re.sub(r"[\s<>()\[\]]", lambda match: f"%{ord(match[0]):02X}", said)
