"""Team: agents of one kind under one name. Asked several things at once, they work side by side, a few at a time.

What must never happen here: more of them at work than was said; two tasks at once in one agent's memory; a task that fails or
is stopped takes the others with it.
"""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

from smolagents import MultiStepAgent

from .errors import InternError
from .steps import ToolCallStep
from .subagents import CALLING, CodeOutside, Review, SubAgent, Superior

WAIT_SECONDS = 0.2
"""How often a task that waits for its turn looks whether it is still wanted."""


class Team:
    """A managed agent in its place, as often as it is needed at once.

    Its code, if any, runs in a jail: calling it changes nothing by itself.

    Args:
        name (`str`), description (`str`): As the agent above it knows it.
        make (`Callable[[], tuple[MultiStepAgent, Review | None]]`): Makes one, when it is first needed, and what looks through
            its reports.
        at_once (`int`, defaults to 3): How many work side by side.
        most (`int`, defaults to 6): Tasks that one call may give.
        share (`float`, defaults to 0.15): How much of what is left of the budget each task may take.
        ended (`Callable[[MultiStepAgent], None]`, *optional*): Gives up what one of them holds.
    """

    effects = "read"
    many = True
    """It may be called again while a call is out."""

    def __init__(
        self,
        name: str,
        description: str,
        make: Callable[[], tuple[MultiStepAgent, Review | None]],
        at_once: int = 3,
        most: int = 6,
        share: float = 0.15,
        ended: Callable[[MultiStepAgent], None] = lambda agent: None,
    ) -> None:
        self.name, self.description, self.output_type = name, description, "string"
        self.at_once, self.most, self.share = at_once, most, share
        self._make, self._ended = make, ended
        self._seat: Callable[[MultiStepAgent, str], SubAgent] | None = None
        self._above: Superior | None = None
        self._all: list[SubAgent] = []
        self._free: list[SubAgent] = []
        self._changed = threading.Condition()

    @property
    def __class__(self) -> type:  # type: ignore[override]
        return MultiStepAgent

    @property
    def inputs(self) -> dict[str, Any]:
        task = "What to find out, with all that has to be known for it; or a list of such tasks, for several at once."
        return {"task": {"type": ["string", "array"], "description": task}}

    @inputs.setter
    def inputs(self, given: Any) -> None:
        """smolagents gives every managed agent the inputs of one that takes one task: this one says its own."""

    def take_place(self, above: Superior, seat: Callable[[MultiStepAgent, str], SubAgent]) -> None:
        """Stands below `above` from here on; `seat` puts an agent of it, under a name, behind the gate and the record there."""
        self._above, self._seat = above, seat
        self._all, self._free = [], []

    def members(self) -> list[SubAgent]:
        """Those that were made so far."""
        return list(self._all)

    def at(self, path: str) -> SubAgent | None:
        """The member of that path, made where it is not there yet, or one below it."""
        assert self._above is not None
        own = f"{self._above.path}/{self.name}" if self._above.path else self.name
        first, _, _ = path.removeprefix(own).partition("/")
        number = 1 if first == "" else int(first[1:]) if first[:1] == "#" and first[1:].isdecimal() else 0
        if not path.startswith(own) or not 1 <= number <= self.at_once:
            return None
        with self._changed:
            while len(self._all) < number:
                self._free.append(self._new())
        return self._all[number - 1].at(path)

    def interrupt(self) -> None:
        for member in self.members():
            member.interrupt()

    def cleanup(self) -> None:
        for member in self.members():
            member.cleanup()
            self._ended(member.agent)

    def __call__(self, task: str | Sequence[str], **kwargs: Any) -> str:
        """Works on a task, or on several. Returns the report, or all reports in the order of the tasks.

        Raises:
            InternError: these are no tasks, or too many.
        """
        tasks = [task] if isinstance(task, str) else list(task) if isinstance(task, list | tuple) else []
        if not tasks or not all(isinstance(one, str) and one.strip() for one in tasks):
            raise InternError(f"`{self.name}` takes a task, or a list of tasks", "each is a text that says what to do")
        if len(tasks) > self.most:
            raise InternError(
                f"`{self.name}` takes {self.most} tasks at once, not {len(tasks)}", "", "Ask in two goes."
            )
        if len(tasks) == 1:
            return self._one(tasks[0], kwargs)
        with ThreadPoolExecutor(min(len(tasks), self.at_once), thread_name_prefix=self.name) as pool:
            asked = [pool.submit(contextvars.copy_context().run, self._one, one, kwargs) for one in tasks]
        return "\n\n".join(
            f"# {number}. {one.strip().splitlines()[0][:120]}\n{done.result()}"
            for number, (one, done) in enumerate(zip(tasks, asked, strict=True), 1)
        )

    def _one(self, task: str, kwargs: dict[str, Any]) -> str:
        with self._turn(CALLING.get()) as member:
            return f"`{self.name}` was stopped before it began." if member is None else member.work(task, **kwargs)

    @contextmanager
    def _turn(self, call: ToolCallStep | None) -> Generator[SubAgent | None]:
        """One that has nothing to do; `None` where nobody waits for it any more."""
        member = None
        with self._changed:
            while member is None and not self._unwanted(call):
                if self._free:
                    member = self._free.pop()
                elif len(self._all) < self.at_once:
                    member = self._new()
                else:
                    self._changed.wait(WAIT_SECONDS)
        try:
            yield member
        finally:
            if member is not None:
                with self._changed:
                    self._free.append(member)
                    self._changed.notify()

    def _unwanted(self, call: ToolCallStep | None) -> bool:
        return self._above is None or self._above.stopped() or (call is not None and call.ended.is_set())

    def _new(self) -> SubAgent:
        assert self._seat is not None
        agent, review = self._make()
        number = len(self._all) + 1
        member = self._seat(agent, self.name if number == 1 else f"{self.name}#{number}")
        if isinstance(member, CodeOutside):
            raise InternError(f"`{self.name}` cannot be part of a team", "its code runs outside the jail")
        member.share, member.review = self.share, review
        self._all.append(member)
        return member
