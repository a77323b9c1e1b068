"""Reading back what is not shown: one step, one large output, or the lines of everything that match."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence

from smolagents import Tool
from smolagents.memory import ActionStep, MemoryStep, PlanningStep, TaskStep

from ..steps import CompactionStep, SteerStep
from .artifacts import SCHEME, ArtifactStore
from .matching import Text, find


def step_text(step: MemoryStep) -> str:
    """A step word for word."""
    if isinstance(step, TaskStep):
        return f"The user:\n{step.task}"
    if isinstance(step, SteerStep):
        return step.said
    if isinstance(step, PlanningStep):
        return f"Plan:\n{step.plan}"
    if isinstance(step, CompactionStep):
        return "" if step.only_masks else f"Compacted:\n{step.summary}"
    if not isinstance(step, ActionStep):
        return ""
    said = step.model_output if isinstance(step.model_output, str) else str(step.model_output or "")
    calls = "" if step.code_action or not step.tool_calls else f"\nCalls: {[call.dict() for call in step.tool_calls]}"
    seen = f"\nObservation:\n{step.observations}" if step.observations is not None else ""
    failed = f"\nError:\n{step.error}" if step.error is not None else ""
    return f"{said}{calls}{seen}{failed}"


def read(
    steps: Sequence[MemoryStep], store: ArtifactStore, handle: str, lines: str | None = None, grep: str | None = None
) -> str:
    """A part of what is kept.

    Args:
        steps (`Sequence[MemoryStep]`): The memory.
        store (`ArtifactStore`): The large outputs.
        handle (`str`): `artifact:...`, `step:12`, `step:12-20` or `history`.
        lines (`str`, *optional*): Such as `"10-40"`, from 1.
        grep (`str`, *optional*): A regular expression; only lines that match, each with its number.

    Raises:
        ValueError: there is no such handle, range or expression; says what there is.
    """
    if handle.strip() == "history":
        if not grep:
            raise ValueError(
                'The history is long: say what to look for, e.g. read_artifact("history", grep="accuracy").'
            )
        return _found(_everything(steps, store), grep)
    text = _whole(steps, store, handle.strip())
    first = 1
    if lines:
        text, first = _lines(text, lines)
    return _found([("", first, text)], grep) if grep else text


def _found(texts: Iterable[Text], grep: str) -> str:
    return "\n".join(find(texts, grep)) or f"Nothing matches {grep!r}."


def _whole(steps: Sequence[MemoryStep], store: ArtifactStore, handle: str) -> str:
    if found := re.fullmatch(r"step:(\d+)(?:-(?:step:)?(\d+))?", handle):
        first, last = int(found[1]), int(found[2] or found[1])
        if not 1 <= first <= last <= len(steps):
            raise ValueError(f"There is no {handle}: the steps are 1 to {len(steps)}.")
        if first == last:
            return step_text(steps[first - 1])
        return "\n\n".join(f"[step:{i}]\n{step_text(steps[i - 1])}" for i in range(first, last + 1))
    try:
        return store.get(handle)
    except KeyError:
        raise ValueError(
            f"There is no {handle!r}: a handle is like {SCHEME}0123456789abcdef, step:12, or history (with grep)."
        ) from None


def _everything(steps: Sequence[MemoryStep], store: ArtifactStore) -> Iterator[Text]:
    for index, step in enumerate(steps):
        yield f"step:{index + 1}", 1, step_text(step)
    for handle, text in store.all():
        yield handle, 1, text


def _lines(text: str, lines: str) -> tuple[str, int]:
    found = re.fullmatch(r"\s*(\d+)?\s*(?:(-)\s*(\d+)?)?\s*", lines)
    if not found or not (found[1] or found[3]):
        raise ValueError(f'`lines` is like "10-40", "10" or "10-", not {lines!r}.')
    first = int(found[1] or 1)
    last = int(found[3]) if found[3] else (None if found[2] else first)
    return "\n".join(text.split("\n")[max(first - 1, 0) : last]), max(first, 1)


class ReadArtifactTool(Tool):
    """Brings back what the prompt no longer shows.

    Args:
        read (`Callable`): [`ContextManager.read`].
    """

    name = "read_artifact"
    effects = "read"
    description = (
        "Reads back what is no longer shown: a large output by the handle shown in its place (`artifact:...`), an earlier step "
        "(`step:12`, or `step:12-20`), or everything there ever was (`history`, with grep). Returns the text, whole unless "
        "you give lines or grep."
    )
    inputs = {
        "handle": {"type": "string", "description": "`artifact:...`, `step:12` or `history`."},
        "lines": {"type": "string", "description": 'Only these, e.g. "10-40".', "nullable": True},
        "grep": {
            "type": "string",
            "description": "Only lines that this regular expression matches, with their numbers.",
            "nullable": True,
        },
    }
    output_type = "string"

    def __init__(self, read: Callable[[str, str | None, str | None], str]) -> None:
        super().__init__()
        self.read = read

    def forward(self, handle: str, lines: str | None = None, grep: str | None = None) -> str:
        return self.read(handle, lines, grep)
