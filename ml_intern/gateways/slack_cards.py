"""Messages as Slack's blocks, within its limits. Pure functions of what they are about; all text in them is escaped."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..events import ApprovalAnswer, ApprovalRequest, Outcome, State
from ..steps import QUESTION
from .slack_text import SECTION, cut, escape, fenced, mrkdwn, one_line, span

APPROVE, FOR_SESSION, REJECT, EDIT, ANSWER, CHOICE = (
    "approve",
    "approve_session",
    "reject",
    "edit",
    "answer",
    "choice_",
)
"""What the buttons are called (`action_id`)."""
BLOCKS = 46
"""Slack takes 50."""
CHOICES = 20
LONG = 9_000
"""Characters of a text that is shown; of a longer one the beginning, and all of it as a file."""
FILES = 8
Block = dict[str, Any]

_DOES = {
    "write": "wants to publish or change something",
    "spend": "wants to spend money",
    "execute": "wants to run code outside the jail",
    "read": "asks",
}
_MARKS = {"done": "☑", "in_progress": "▶", "pending": "☐"}


@dataclass(frozen=True)
class Card:
    """A message: what a notification says, its blocks, and texts that were too long, as files (name and content)."""

    text: str
    blocks: tuple[Block, ...] = ()
    files: tuple[tuple[str, str], ...] = ()


def line(text: str, quiet: bool = True) -> Card:
    """A short message of one's own making: `text` is escaped already."""
    parts = cut(text.strip() or "…", SECTION)[:3]
    return Card(_bell(parts[0]), tuple(_small(part) if quiet else section(part) for part in parts))


def section(text: str) -> Block:
    return {"type": "section", "text": {"type": "mrkdwn", "text": text, "verbatim": True}}


def prose(markdown: str, name: str) -> tuple[list[Block], list[tuple[str, str]]]:
    """Markdown as blocks; what is long as a file of that name, after its beginning."""
    pieces = mrkdwn(markdown if len(markdown) <= LONG else markdown[: LONG // 3])
    if len(markdown) <= LONG and len(pieces) <= 12:
        return [section(piece) for piece in pieces], []
    shown = [section(piece) for piece in pieces[:3]]
    return [*shown, _small(f"… all of it ({len(markdown):,} characters) is in {span(name)}")], [(name, markdown)]


def question(request: ApprovalRequest, key: str) -> Card:
    """What a person has to know before they answer, and the buttons for it."""
    if request.tool == QUESTION:
        return _asked(request, key)
    head = f"*{span(request.tool)}* {_DOES.get(request.effects, 'asks for your approval')}"
    facts = [f"*Why it is asked:* {one_line(request.reason, 600)}"] if request.reason else []
    if request.agent:
        facts.append(f"*Asked by:* {span(request.agent)}")
    if request.destination is not None:
        facts.append(f"*To:* {span(request.destination.name)}{_seen_by(request.destination.visibility)}")
    facts.append(f"*Cost:* {_cost(request)}")
    blocks = [section(head), section("\n".join(facts))]
    if request.sources:
        sources = "\n".join(f"• {span(source)}" for source in request.sources[:10])
        blocks.append(
            section(f":warning: *The arguments repeat text from outside; it may be meant to mislead:*\n{sources}")
        )
    body, files = _arguments(request)
    blocks += body
    if request.files:
        blocks.append(section(_files(request)))
    if request.preview.strip():
        parts = fenced(request.preview)
        blocks += [section(part) for part in parts[:3]]
        if len(parts) > 3:
            files.append(("preview.txt", request.preview))
            blocks.append(_small("… all of it is in `preview.txt`"))
    if request.rule:
        blocks.append(_small(f"This kind of call: {span(request.rule)}"))
    return Card(
        f"Waits for an answer: {one_line(request.tool)} ({one_line(request.reason)})",
        (*blocks, _buttons(request, key)),
        tuple(files),
    )


def closed(request: ApprovalRequest, answer: ApprovalAnswer, at: float) -> Card:
    """The same once it is answered: who decided what, and when."""
    said = {"approve": "Approved", "edit": "Edited", "reject": "Refused", "stop": "Stopped"}[answer.decision]
    if request.tool == QUESTION:
        asked = one_line(str(request.arguments.get("question", "")), 300)
        how = "Answered" if answer.text or answer.decision == "approve" else "Not answered"
        head = f"{asked}\n*{how}:* {one_line(answer.text or answer.reason, 600)}"
    else:
        scope = {"session": ", and this kind from now on in this session", "always": ", and this kind from now on"}
        head = f"*{span(request.tool)}* {said}{scope.get(answer.scope, '')}"
        if answer.arguments:
            head += f": {span(json.dumps(answer.arguments, ensure_ascii=False, default=str), 600)}"
        elif answer.reason:
            head += f": {one_line(answer.reason, 600)}"
    return Card(_bell(head), (section(head), _small(f"{_who(answer.by)} · {_when(at)}")))


def expired(request: ApprovalRequest, why: str) -> Card:
    """A question that nobody can answer any more."""
    head = f"*{span(request.tool)}* is not waited for any more: {one_line(why, 300)}"
    return Card(_bell(head), (section(head),))


def plan(items: Sequence[dict[str, str]]) -> Card:
    lines = [f"{_MARKS.get(item.get('status', ''), '☐')} {one_line(item.get('text', ''), 300)}" for item in items]
    done = sum(item.get("status") == "done" for item in items)
    pieces = cut("\n".join(lines), SECTION)[:10]
    head = f"*Plan* ({done} of {len(items)} done)"
    return Card(
        f"Plan: {done} of {len(items)} done", tuple(section(piece) for piece in (head, *pieces) if piece.strip())
    )


def begun(task: str, session_id: str, model: str, may_act: bool) -> Card:
    """The first message of a thread that nobody in Slack began."""
    text = f"*Started:* {one_line(task, 1_500)}"
    how = " · answer and steer it in this thread" if may_act else ""
    return Card(
        f"Started: {one_line(task, 300)}",
        (section(text), _small(f"session {span(session_id[:8])} · {span(model)}{how}")),
    )


def report(outcome: Outcome, session_id: str, url: str = "") -> Card:
    """The end of a turn."""
    good = outcome.state is State.SUCCESS
    head = "*Done*" if good else f"*Ended: {one_line(str(outcome.state))}*"
    if outcome.reason:
        head += f": {one_line(outcome.reason, 600)}"
    answer = outcome.answer
    if not isinstance(answer, str):
        answer = json.dumps(answer, indent=1, ensure_ascii=False, default=str)
    body, files = prose(answer, "report.md") if outcome.answer is not None else ([], [])
    cost = "cost unknown" if outcome.usage.cost_usd is None else f"${outcome.usage.cost_usd:.2f}"
    steps = f"{outcome.steps} step{'s' * (outcome.steps != 1)}"
    foot = f"{steps} · {_duration(outcome.seconds)} · {cost} · session {span(session_id[:8])}"
    if url:
        foot += f" · <{escape(url)}>"
    bell = f"Ended: {one_line(str(outcome.state))}" + (f" ({one_line(outcome.reason)})" if outcome.reason else "")
    return Card(bell, (section(head), *body[: BLOCKS - 2], _small(foot)), tuple(files))


def _asked(request: ApprovalRequest, key: str) -> Card:
    asked = str(request.arguments.get("question") or request.reason)
    choices = choices_of(request)
    lines = "\n".join(f"{number}. {one_line(choice, 300)}" for number, choice in enumerate(choices, 1))
    body, files = prose(asked, "question.md")
    blocks = [section("*A question for you*"), *body, *map(section, cut(lines, SECTION)[:3] if lines else [])]
    if request.sources:
        blocks.append(section(f":warning: It repeats text from outside: {', '.join(map(span, request.sources[:5]))}"))
    buttons = [_button(one_line(choice, 70)[:75], f"{CHOICE}{place}", key) for place, choice in enumerate(choices)]
    actions = [*buttons, _button("Other answer" if choices else "Answer", ANSWER, key, "" if choices else "primary")]
    actions.append(_button("Decide yourself", REJECT, key))
    return Card(
        f"A question: {one_line(asked, 300)}", (*blocks, {"type": "actions", "elements": actions}), tuple(files)
    )


def choices_of(request: ApprovalRequest) -> list[str]:
    """The answers that the agent proposes."""
    choices = request.arguments.get("choices")
    return [str(choice) for choice in choices][:CHOICES] if isinstance(choices, list | tuple) else []


def _buttons(request: ApprovalRequest, key: str) -> Block:
    elements = [_button("Approve", APPROVE, key, "primary")]
    if request.rule:
        elements.append(_button("Approve this kind for the session", FOR_SESSION, key))
    elements.append(_button("Reject…", REJECT, key, "danger"))
    if request.arguments:
        elements.append(_button("Edit…", EDIT, key))
    return {"type": "actions", "elements": elements}


def _button(text: str, action: str, key: str, style: str = "") -> Block:
    label = {"type": "plain_text", "text": text or "…", "emoji": False}
    return {"type": "button", "text": label, "action_id": action, "value": key, **({"style": style} if style else {})}


def _arguments(request: ApprovalRequest) -> tuple[list[Block], list[tuple[str, str]]]:
    lines = []
    for name, value in request.arguments.items():
        shown = (
            value if isinstance(value, str) and "\n" in value else json.dumps(value, ensure_ascii=False, default=str)
        )
        lines.append(f"{name} = {shown}")
    if not lines:
        return [], []
    text = "\n".join(lines)
    parts = fenced(text)
    if len(parts) <= 3:
        return [section(part) for part in parts], []
    return [section(parts[0]), _small("… all arguments are in `arguments.txt`")], [("arguments.txt", text)]


def _files(request: ApprovalRequest) -> str:
    total = sum(file.size for file in request.files)
    lines = [f"*Sends {len(request.files)} file{'s' * (len(request.files) != 1)}, {total:,} bytes:*"]
    lines += [f"• {span(file.path, 120)} {file.size:,} bytes" for file in request.files[:FILES]]
    if len(request.files) > FILES:
        lines.append(f"… and {len(request.files) - FILES} more")
    return "\n".join(lines)


def _cost(request: ApprovalRequest) -> str:
    text = "no estimate" if request.cost_usd is None else f"about ${request.cost_usd:.2f}"
    if request.left_usd is not None:
        over = request.cost_usd is not None and request.cost_usd > request.left_usd
        text += f"; {'*only* ' if over else ''}${max(request.left_usd, 0):.2f} of the budget are left"
    return text


def _seen_by(visibility: str) -> str:
    if visibility == "public":
        return " — :warning: *public: anybody can see it*"
    return f" — {one_line(visibility)}" if visibility else ""


def _who(by: str) -> str:
    return f"by {span(by)}" if by else "by nobody named"


def _when(at: float) -> str:
    return f"<!date^{int(at)}^{{date_short_pretty}} {{time}}|{int(at)}>"


def _small(text: str) -> Block:
    return {"type": "context", "elements": [{"type": "mrkdwn", "text": text, "verbatim": True}]}


def _bell(text: str) -> str:
    """What a notification says: one line, without marks."""
    return cut(" ".join(text.replace("*", "").replace("`", "").split()), 300)[0] or "…"


def _duration(seconds: float) -> str:
    whole = round(seconds)
    return f"{whole} s" if whole < 60 else f"{whole // 60} min" if whole < 5400 else f"{whole / 3600:.1f} h"
