"""The words of a compaction: what the model is asked for, what stands in its place, what stays word for word."""

from __future__ import annotations

from collections.abc import Sequence

from smolagents.memory import ActionStep, MemoryStep, TaskStep

from ..steps import USER, SteerStep
from .shorten import first_line, room_in, shorten
from .tokens import weigh

ASK = (
    "This conversation is about to be compacted: what stands above will no longer be shown to you. Write the notes that you "
    "will go on from. Do not go on with the work now and write no code.\n"
    "Under these headings, each as short as it can be and as exact as it has to be:\n"
    "- Goal: what the user wants, and what counts as done.\n"
    "- Decisions: what was decided, and why.\n"
    "- Tried and measured: what was run, with the figures; what failed, and of what.\n"
    "- Made: files, variables, repositories, with their paths and names.\n"
    "- Next: the very next step.\n"
    "Names, paths, numbers and handles word for word. The user's own messages, the plan, your notes and the last steps are "
    "kept without you."
)
LEAD = (
    "The conversation up to here was compacted. Every step of it is kept, and read_artifact gives it back: "
    'read_artifact("step:12") one step word for word, read_artifact("history", grep="learning rate") the lines of all steps '
    "and large outputs that match."
)


def request(focus: str) -> str:
    """What the model is asked for its summary."""
    return f"{ASK}\nThe user asks that above all this is kept: {focus}" if focus else ASK


def user_words(tasks: Sequence[tuple[int, str]], tokens: float) -> str:
    """What the user said, word for word as far as there is room, newest first in line; the first message is always there.

    Args:
        tasks (`Sequence[tuple[int, str]]`): Places in the memory and texts, oldest first.
        tokens (`float`): Room for all of them.
    """
    if not tasks:
        return ""
    left = tokens * 4
    reserve = min(left / 3, len(tasks[0][1])) if len(tasks) > 1 else 0.0
    shown: list[str] = []
    left -= reserve
    skipped = 0
    for place, text in reversed(tasks[1:]):
        if left < 200:
            skipped += 1
            continue
        kept = shorten(text, int(left), f"step:{place}")
        left -= weigh(kept) * 4 + 30
        shown.append(f"[step:{place}]\n{kept}")
    if skipped:
        shown.append(f"[{skipped} messages between are only in the history]")
    place, text = tasks[0]
    shown.append(f"[step:{place}]\n{shorten(text, max(int(left + reserve), 200), f'step:{place}')}")
    return "\n\n".join(reversed(shown))


def mechanical(steps: Sequence[tuple[int, str, str]], previous: str, tokens: float) -> str:
    """A summary without a model: a line a step, the newest ones as far as there is room, after what was known before.

    Args:
        steps (`Sequence[tuple[int, str, str]]`): Place, what was said, what was seen.
        previous (`str`): The summary before this one.
        tokens (`float`): Room.
    """
    room = tokens * 4
    before = fit(previous, tokens / 3) if previous else ""
    room -= weigh(before) * 4
    lines: list[str] = []
    for place, said, seen in reversed(steps):
        line = f"- step:{place} {first_line(said, 160)} -> {first_line(seen, 120) or 'nothing'}"
        room -= weigh(line) * 4 + 1
        if room < 0:
            lines.append(f"- {len(steps) - len(lines)} steps before these are only in the history")
            break
        lines.append(line)
    return "\n".join(filter(None, [before, *reversed(lines)]))


def lead(user: str, summary: str, handles: Sequence[str], gone: int, last: str = "") -> str:
    """What stands in place of the steps that are not shown any more."""
    parts = [LEAD]
    if user:
        parts.append(f"## What the user said, word for word\n{user}")
    if summary:
        parts.append(f"## What was done up to step:{gone}\n{summary}")
    if handles:
        parts.append("## Large outputs\n" + "\n".join(handles))
    if last:
        parts.append(f"## The last step\n{last}")
    return "\n\n".join(parts)


def reminder(pinned: str, tokens: float) -> str:
    return f"As it stands now:\n\n{fit(pinned, tokens)}" if pinned.strip() else ""


def newest_within(lines: Sequence[str], tokens: float) -> list[str]:
    """The newest lines that fit."""
    kept: list[str] = []
    for line in reversed(lines):
        tokens -= weigh(line) + 1
        if tokens < 0:
            break
        kept.append(line)
    return kept[::-1]


def fit(text: str, tokens: float) -> str:
    """`text`, its middle left out where it is longer than so many tokens."""
    if weigh(text) <= tokens:
        return text
    gap = "\n[...]\n"
    room = max(room_in(text, int(tokens * 4)) - len(gap), 2)
    return text[: room * 2 // 3] + gap + text[-(room // 3) :]


def tasks_of(steps: Sequence[MemoryStep], end: int) -> list[tuple[int, str]]:
    """The user's messages among the first `end` steps."""
    found = []
    for place, step in enumerate(steps[:end], 1):
        if isinstance(step, TaskStep):
            images = f"\n[with {len(step.task_images)} images, in step:{place}]" if step.task_images else ""
            found.append((place, step.task + images))
        elif isinstance(step, SteerStep) and step.source == USER:
            found.append((place, step.text))
    return found


def digest(step: MemoryStep, tokens: float) -> str:
    """A step in few words, for when it does not fit."""
    if not isinstance(step, ActionStep):
        return ""
    said = step.model_output if isinstance(step.model_output, str) else ""
    seen = "\n".join(filter(None, [step.observations or "", str(step.error or "")]))
    return f"You said:\n{fit(said, tokens / 2)}\nYou saw:\n{fit(seen, tokens / 2)}"
