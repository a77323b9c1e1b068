"""The recorded calls of an action, given back one by one as its code makes them again.

What must never happen here: a call that changes something is made; code is given the result of another call without a
word; a call that is not on record goes unsaid.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..differences import short
from ..plain import as_text, plain
from .actions import RecordedAction, RecordedCall
from .results import RecordedResult, Unrecorded

FINAL = "final_answer"


class NotReplayed(RuntimeError):
    """A call that is not made again, and whose result the recording does not hold; the code gets this instead."""


@dataclass
class Served:
    """What became of an action's calls.

    Args:
        calls (`int`): Calls that the code made.
        differences (`list[str]`): Calls that were not made then.
        missing (`list[str]`): Calls that were made then and not now.
        remarks (`list[str]`): What else is worth knowing.
        obstacles (`list[str]`): Why the code could not go the way it went then.
    """

    calls: int = 0
    differences: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    obstacles: list[str] = field(default_factory=list)


class Tape:
    """Answers the calls of code that runs again. Safe to use from several threads.

    Args:
        mask (`Callable[[Any], Any]`): Arguments are compared as they were recorded: masked.
        near (`Callable[[Any, Any], bool]`): Whether arguments say the same as recorded ones.
        live (`Mapping[str, Callable]`): Tools that only read, which are called anew instead.
        served (`Callable[[RecordedCall], list[str]]`, *optional*): Told of a call that is about to be answered from the
            recording; says what is to be remarked on it.
    """

    def __init__(
        self,
        mask: Callable[[Any], Any],
        near: Callable[[Any, Any], bool],
        live: Mapping[str, Callable[..., Any]] | None = None,
        served: Callable[[RecordedCall], list[str]] | None = None,
    ) -> None:
        self._mask, self._near, self._live, self._served = mask, near, dict(live or {}), served
        self._lock = threading.Lock()
        self._left: list[RecordedCall] = []
        self._now = Served()

    def begin(self, action: RecordedAction) -> None:
        """The calls that follow are this action's."""
        with self._lock:
            self._left, self._now = list(action.calls), Served()

    def end(self) -> Served:
        """The action is over."""
        with self._lock:
            self._now.missing = [f"`{said(call.tool, call.arguments)}` was not called" for call in self._left]
            self._left = []
            return self._now

    def tool(self, name: str) -> Callable[..., Any]:
        """What code calls under a tool's name."""

        def call(*args: Any, **kwargs: Any) -> Any:
            return self.call(name, args, kwargs)

        return call

    def call(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Answers a call.

        Raises:
            NotReplayed: the recording holds no answer to it.
            Exception: the call failed then.
        """
        given, named = plain(self._mask(list(args))), plain(self._mask(kwargs))
        with self._lock:
            now = self._now
            now.calls += 1
            call = self._find(name, given, named)
            if call is not None:
                self._left.remove(call)
            shown = said(name, call.arguments if call else {**dict(enumerate(given)), **named})
        live = self._live.get(name)
        if call is None and name != FINAL:
            now.differences.append(f"`{shown}` was called, which is not in the recording")
            if live is None:
                raise NotReplayed(f"`{name}` was not called so in the recording, and it is not called anew.")
            return live(*args, **kwargs)
        if live is not None and call is not None and call.effects == "read":
            return self._anew(live, args, kwargs, call, now)
        if call is not None and self._served is not None:
            now.remarks += self._served(call)
        result = call.result if call is not None else None
        if result is not None and result.error:
            raise result.exception()
        if name == FINAL:  # what the code answers is what is looked at
            return next(iter((*args, *kwargs.values())), None)
        if result is None:
            now.obstacles.append(f"`{shown}` has no result on record")
            raise NotReplayed(f"`{name}` has no result on record, and it is not called anew.")
        try:
            return result.value()
        except Unrecorded as error:
            now.obstacles.append(f"the result of `{shown}` is not in the recording: {error}")
            raise NotReplayed(f"The result of `{name}` is not in the recording: {error}") from None

    def _anew(
        self, live: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], call: RecordedCall, now: Served
    ) -> Any:
        try:
            value = live(*args, **kwargs)
        except Exception as error:
            if call.result is None or not call.result.error:
                now.remarks.append(f"`{said(call.tool, call.arguments)}` fails now: {short(str(error))}")
            raise
        if call.result is not None and not self._same(call.result, value):
            now.remarks.append(f"`{said(call.tool, call.arguments)}` answers differently now")
        return value

    def _same(self, then: RecordedResult, value: Any) -> bool:
        return not then.error and self._near(then.text, as_text(self._mask(value)))

    def _find(self, name: str, given: list[Any], named: dict[str, Any]) -> RecordedCall | None:
        """The first recorded call with the same arguments; or else with arguments that say the same."""
        own = [call for call in self._left if call.tool == name]
        if name == FINAL:
            return own[0] if own else None
        for same in (_equal, self._near):
            for call in own:
                if _matches(call.arguments, given, named, same):
                    return call
        return None


def _equal(then: Any, now: Any) -> bool:
    return then == now


def _matches(
    recorded: dict[str, Any], given: list[Any], named: dict[str, Any], same: Callable[[Any, Any], bool]
) -> bool:
    """Whether a call with these arguments is the recorded one, which has them by name, those by place first."""
    if len(given) == 1 and not named and isinstance(given[0], dict) and same(recorded, given[0]):
        return True
    values = list(recorded.values())
    if len(given) + len(named) != len(values) or not named.keys() <= set(list(recorded)[len(given) :]):
        return False
    return same(values[: len(given)], given) and all(same(recorded[name], value) for name, value in named.items())


def said(tool: str, arguments: Mapping[Any, Any], limit: int = 160) -> str:
    """A call as one would write it, cut short."""
    words = ", ".join(
        as_text(value) if isinstance(name, int) else f"{name}={_literal(value)}" for name, value in arguments.items()
    )
    text = f"{tool}({words})"
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _literal(value: Any) -> str:
    return short(value, 80) if isinstance(value, str) else as_text(value)
