"""From rows back to memory steps, as they were: what is rendered of them is what was sent, byte for byte.

What must never happen here: a step is left out or put in, as later rows count steps; a step of which only the beginning
is on record passes for one that was finished; a row that makes no sense stops the rest from being read.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from smolagents.memory import MemoryStep, PlanningStep, TaskStep, ToolCall
from smolagents.models import ChatMessage, MessageRole

from ..plain import as_text
from ..steps import GUARD, NOTICED, USER, CompactionStep, SteerStep, TrackedActionStep
from ..thinking import of_block, signed
from .parts import checked, error_of, image_of, inner_blocks, joined, observed, timing_of, tokens_of
from .read import note_of
from .recorder import compaction_of
from .rows import Row, blocks_of
from .values import count, text

if TYPE_CHECKING:
    from PIL.Image import Image

ROOM = 170_000
"""Tokens that a prompt may take, where another program compacted and does not say."""


@dataclass(frozen=True)
class Turn:
    """A turn as the trace has it.

    Args:
        task (`str`): What was asked.
        start (`int`): Its first step's place in the memory.
        before (`str`, *optional*): `uuid` of the row to go on from when this turn is undone; `None`: from nothing.
    """

    task: str
    start: int
    before: str | None


@dataclass
class Begun:
    """A step whose answer is on record, and whose result is not (yet).

    Args:
        step (`TrackedActionStep`): As far as it came.
        action (`str`, *optional*): Id of the `tool_use` that its result belongs to; `None`: there was no code.
        row (`str`): `uuid` of the answer's row.
        message (`str`): Of another program's trace: the id that all rows of one answer share.
        uses (`set[str]`): Of another program's trace: the calls that the answer asks for.
    """

    step: TrackedActionStep
    action: str | None
    row: str
    message: str = ""
    uses: set[str] = field(default_factory=set)


class Memory:
    """The memory steps that rows stand for, put together row by row.

    Args:
        artifacts (`Path`): Folder of the texts that were too long for their row.
        problems (`list[str]`): Told what could not be read.
        images (`bool`, defaults to `True`): Whether images are wanted, which take their time.

    Attributes:
        steps (`list[MemoryStep]`): All that are whole.
        begun (`Begun`, *optional*): The step that was cut off, if it is the last thing there is.
        turns (`list[Turn]`), number (`int`): All turns, and the number of the newest step of the last one.
    """

    def __init__(self, artifacts: Path, problems: list[str], images: bool = True) -> None:
        self.artifacts, self.problems, self.images = artifacts, problems, images
        self.steps: list[MemoryStep] = []
        self.begun: Begun | None = None
        self.turns: list[Turn] = []
        self.number = 0
        self._summary = ""  # the model's words of a compaction, whose own row comes next
        self._boundary: CompactionStep | None = None  # another program's, whose text comes next
        self._last: str | None = None

    def add(self, row: Row) -> None:
        """Takes in the next row of the conversation."""
        kind = row["type"]
        if row.get("isMeta") is True and kind != "system":
            pass
        elif kind == "user":
            self._user(row)
        elif kind == "assistant":
            self._assistant(row)
        elif kind == "system" and row.get("subtype") == "compact_boundary":
            self._compacted(row)
        elif (note := note_of(row)) is not None:
            self._noted(row, note)
        self._last = text(row.get("uuid")) or self._last

    def end(self) -> None:
        """There are no more rows."""
        if self.begun is not None and not self._is_ours(self.begun):
            self._finish_foreign()

    # By kind of row.

    def _user(self, row: Row) -> None:
        blocks = blocks_of(row)
        if row.get("isCompactSummary") is True:
            if self._boundary is not None:
                self._boundary.lead = self._boundary.summary = joined(blocks)
                self._boundary = None
            return
        results = [block for block in blocks if block.get("type") == "tool_result"]
        if results:
            self._results(row, blocks, results)
        elif row.get("stepKind") == "task" or not ("step" in row or "stepKind" in row):
            self._drop()
            task = joined(blocks)
            self.turns.append(Turn(task, len(self.steps), self._last))
            self.steps.append(TaskStep(task, self._images(blocks) or None))
            self.number = 0
        elif row.get("stepKind") == "steered":
            self._steered(joined(blocks))
        elif "step" in row and self.begun is not None and self.begun.action is None:
            self._finish(row, joined(blocks), blocks)

    def _results(self, row: Row, blocks: list[Row], results: list[Row]) -> None:
        begun = self.begun
        if begun is None:
            return
        if self._is_ours(begun):
            block = next((b for b in results if b.get("tool_use_id") == begun.action), None)
            if block is not None:
                inner = inner_blocks(block)
                self._finish(row, self.whole(row, joined(inner)), inner)
        elif any(b.get("tool_use_id") in begun.uses for b in results if isinstance(b.get("tool_use_id"), str)):
            inner = [part for b in blocks for part in (inner_blocks(b) if b.get("type") == "tool_result" else [b])]
            seen = [begun.step.observations, self.whole(row, joined(inner))]
            begun.step.observations = "\n".join(part for part in seen if part is not None)
            begun.step.observations_images = [*(begun.step.observations_images or []), *self._images(inner)] or None

    def _assistant(self, row: Row) -> None:
        kind, said = row.get("stepKind"), joined(blocks_of(row))
        if kind == "planning":
            words = ChatMessage(MessageRole.ASSISTANT, as_text(row.get("modelOutput", said)))
            self.steps.append(PlanningStep([], words, said, timing_of(row), tokens_of(row)))
        elif kind == "compaction":
            self._summary = text(row.get("modelOutput")) or said
        elif kind == "wrap-up":
            self._drop()
            step = self._step(row)
            step.error = error_of(row.get("failure"))
            step.action_output = row.get("value")
            self.steps.append(step)
        elif "modelOutput" in row and "step" in row:
            self._answered(row)
        elif kind is None and "effects" not in row and "step" not in row:
            self._foreign(row, said)

    def _answered(self, row: Row) -> None:
        self._drop()
        step = self._step(row)
        output = row["modelOutput"]
        step.model_output = output if isinstance(output, str) or output is None else as_text(output)
        use = next((block for block in blocks_of(row) if block.get("type") == "tool_use"), None)
        given = use.get("input") if use is not None else None
        if use is not None and isinstance(given, dict):
            step.code_action = text(given.get("code"))
            step.tool_calls = [ToolCall("python_interpreter", step.code_action, f"call_{len(self.steps)}")]
        if "forkedFrom" not in row:  # what stands before it there is another session's
            step.thoughts = signed(tuple(one for one in map(of_block, blocks_of(row)) if one is not None))
            step.author = text((row.get("message") or {}).get("model"))
        self.begun = Begun(step, text(use.get("id")) if use is not None else None, text(row.get("uuid")))

    def _compacted(self, row: Row) -> None:
        step = checked(compaction_of(row), len(self.steps))
        if step is None:
            if isinstance(data := row.get("compactMetadata"), dict) and "rung" in data:
                self.problems.append("A compaction on record makes no sense: all before it is shown.")
                return
            self.end()
            size = len(self.steps)
            step = self._boundary = CompactionStep("fill", "summary", size, ROOM, start=size)
        step.said, self._summary = self._summary, ""
        self.steps.append(step)

    def _noted(self, row: Row, note: Row) -> None:
        kind = note.get("kind")
        if kind == "masked":
            step = checked(compaction_of(row), len(self.steps))
            if step is not None:
                self.steps.append(step)
        elif kind == "steered":
            self.steps.append(
                SteerStep(text(note.get("text")), text(note.get("by")), text(note.get("source")) or USER)
            )
        elif kind == "no-answer":
            step = self._step({**row, "step": note.get("step")})
            task = next((step for step in reversed(self.steps) if isinstance(step, TaskStep)), None)
            step.observations_images = (task.task_images if task and note.get("images") else None) or None
            self.steps.append(step)
        elif kind == "end":
            self._drop()

    def _steered(self, said: str) -> None:
        """The row that others read of a message that came meanwhile; its note, which comes before it, says more of it."""
        last = self.steps[-1] if self.steps else None
        if not (isinstance(last, SteerStep) and last.said == said):
            lead, _, words = said.partition("\n")
            self.steps.append(SteerStep(words, source=GUARD if lead == NOTICED else USER))

    # Another program's answers: text and calls, as far as they can be said in a code agent's words.

    def _foreign(self, row: Row, said: str) -> None:
        message = row.get("message")
        identifier = text(message.get("id")) if isinstance(message, dict) else ""
        if self.begun is None or self._is_ours(self.begun) or not identifier or self.begun.message != identifier:
            self._drop()
            self.begun = Begun(
                self._step({**row, "step": self.number + 1}), None, text(row.get("uuid")), identifier or "?"
            )
        begun, parts = self.begun, [said] if said else []
        for block in blocks_of(row):
            if block.get("type") == "tool_use":
                begun.uses.add(text(block.get("id")))
                parts.append(f"[I called {text(block.get('name'))} with {as_text(block.get('input'))}]")
        words = [begun.step.model_output, *parts] if isinstance(begun.step.model_output, str) else parts
        if words:
            begun.step.model_output = "\n\n".join(words)

    def _is_ours(self, begun: Begun) -> bool:
        return not begun.message

    def _finish_foreign(self) -> None:
        begun, self.begun = self.begun, None
        if begun is not None and begun.step.model_output is not None:
            self.steps.append(begun.step)
            self.number = begun.step.step_number

    # Parts.

    def _drop(self) -> None:
        """What was begun is not gone on with: a step that died left nothing in the memory either."""
        if self.begun is not None and not self._is_ours(self.begun):
            self._finish_foreign()
        self.begun = None

    def _step(self, row: Row) -> TrackedActionStep:
        step = TrackedActionStep(step_number=count(row.get("step"), self.number + 1), timing=timing_of(row))
        step.token_usage = tokens_of(row)
        self.number = max(self.number, step.step_number) if row["type"] != "user" else self.number
        return step

    def _finish(self, row: Row, seen: str, blocks: list[Row]) -> None:
        assert self.begun is not None
        step, self.begun = self.begun.step, None
        failure = row.get("failure")
        step.error = error_of(failure) if failure is not None else None
        step.observations = observed(seen, str(step.error) if step.error is not None else None)
        step.observations_images = self._images(blocks) or None
        step.action_output, step.is_final_answer = row.get("value"), row.get("final") is True
        step.timing = timing_of(row)
        self.steps.append(step)

    def whole(self, row: Row, shown: str) -> str:
        """All of a text of which the row has a part."""
        name = row.get("artifact")
        if not isinstance(name, str):
            return shown
        if Path(name).name == name:
            try:
                return (self.artifacts / name).read_text(encoding="utf-8")
            except (OSError, ValueError):
                pass
        self.problems.append(f"A long text is only known in part: {name[:80]} is missing.")
        return shown

    def _images(self, blocks: list[Row]) -> list[Image]:
        found = [image_of(block) for block in blocks if self.images and block.get("type") == "image"]
        if None in found:
            self.problems.append("An image could not be read.")
        return [image for image in found if image is not None]
