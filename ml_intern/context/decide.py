"""What to forget, and when: pure functions from sizes to verdicts. All sizes are tokens unless they say characters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

MOST = 170_000
"""Tokens that a prompt may take, whatever the model could read."""
FIRST = 0.6
"""Of the limit: from here on old observations are masked."""
BATCH = 0.2
"""Of the limit: what a masking batch frees at least, as each moves the cached prefix. Of the prompt: what a compaction does."""
SHOWN = 8_000
"""Characters of an observation that are shown."""


@dataclass(frozen=True)
class Limits:
    """What follows from how many tokens a prompt may take.

    Args:
        tokens (`int`): Of a prompt.
        shown (`int`): Characters of an observation, an error.
        said (`int`): Characters of the model's own words; more than an answer has room for, unless something is odd.
    """

    tokens: int
    shown: int
    said: int

    @classmethod
    def of(cls, tokens: int, shown: int = SHOWN) -> Limits:
        return cls(tokens, max(400, min(shown, tokens // 2)), max(2_000, min(100_000, tokens)))


def limit_of(window: int | None, most: int = MOST) -> int:
    """Tokens a prompt may take: the window less room for the answer, a quarter of it or 30,000."""
    return most if window is None else max(256, min(most, window - min(30_000, window // 4)))


@dataclass(frozen=True)
class Weight:
    """A step as these decisions see it: what it takes as it is shown, and what masking it would free."""

    tokens: float
    maskable: float = 0.0


def mask_until(weights: Sequence[Weight], limit: int) -> int:
    """The step up to which observations are to be masked; 0 where that frees too little to be worth it.

    The steps that fill the newest fifth of the window, at least two, are left alone.
    """
    end = min(first_of_newest(weights, limit * BATCH), max(len(weights) - 2, 0))
    return end if sum(weight.maskable for weight in weights[:end]) >= limit * BATCH else 0


def first_of_newest(weights: Sequence[Weight], budget: float) -> int:
    """The first of the newest steps that fit a budget; the number of steps where not even the last one does."""
    left, first = budget, len(weights)
    while first and weights[first - 1].tokens <= left:
        first -= 1
        left -= weights[first].tokens
    return first


@dataclass(frozen=True)
class Rung:
    """How hard a compaction is: shares of the room that the system prompt leaves.

    Args:
        steps, user, summary, handles, reminder (`float`): Of the last steps, the user's words, the summary, the handles,
            plan and notes. `steps` at 0: the last step is only told of.
        name (`str`): As it is journalled; the first ones are named by where their summary came from.
    """

    steps: float
    user: float
    summary: float
    handles: float
    reminder: float
    name: str = ""


RUNGS = (
    Rung(0.18, 0.15, 0.12, 0.03, 0.08),
    Rung(0.08, 0.08, 0.08, 0.02, 0.05),
    Rung(0.0, 0.06, 0.06, 0.02, 0.03, "hard"),
)
USER_MOST, SUMMARY_MOST, HANDLES_MOST, REMINDER_MOST = 20_000, 8_000, 4_000, 6_000


def enough(before: float, after: float, limit: int) -> bool:
    """Whether a compaction made progress: at least a fifth of the prompt is free again, and a quarter of the window."""
    return after <= (1 - BATCH) * before and after <= 0.75 * limit
