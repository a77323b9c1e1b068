"""What a replay reports: step by step what came out the same, what differs, what could not be compared."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any


class Verdict(StrEnum):
    """What became of a step."""

    SAME = "same"
    DIFFERS = "differs"
    NOT_COMPARED = "not_compared"


@dataclass(frozen=True)
class StepReport:
    """A step then and now.

    Args:
        turn, step (`int`): The step's number within its turn, both from 1.
        code (`str`): What ran.
        verdict (`Verdict`): How it compares.
        differences (`tuple[str, ...]`): What differs, a line each.
        remarks (`tuple[str, ...]`): Why it could not be compared; what was passed over; other things worth knowing.
        calls (`int`): Calls that were answered.
        deviation (`float`): The largest relative difference among numbers taken as the same.
        seconds, seconds_then (`float`): How long it took.
    """

    turn: int
    step: int
    code: str
    verdict: Verdict
    differences: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()
    calls: int = 0
    deviation: float = 0.0
    seconds: float = 0.0
    seconds_then: float = 0.0


@dataclass(frozen=True)
class ReplayReport:
    """A session run again.

    Args:
        trace (`Path`): What was run again.
        steps (`tuple[StepReport, ...]`): In the order in which they ran.
        setup (`tuple[str, ...]`): What it ran on: jail, network, workspace, tools, a sentence each.
        tolerance (`float`): For numbers.
    """

    trace: Path
    steps: tuple[StepReport, ...]
    setup: tuple[str, ...]
    tolerance: float

    @property
    def reproducible(self) -> bool:
        """Whether every step came out the same. What could not be compared is not known to be."""
        return all(step.verdict is Verdict.SAME for step in self.steps)

    @property
    def exit_code(self) -> int:
        return 0 if self.reproducible else 1

    @property
    def first_difference(self) -> StepReport | None:
        """What follows from it may be its consequence."""
        return next((step for step in self.steps if step.verdict is not Verdict.SAME), None)

    def count(self, verdict: Verdict) -> int:
        return sum(step.verdict is verdict for step in self.steps)

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "trace": str(self.trace), "reproducible": self.reproducible}
