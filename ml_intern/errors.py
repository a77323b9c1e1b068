"""Errors meant for people: what happened, why, and what to do next."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class InternError(Exception):
    """An error that its reader can act on.

    Args:
        what (`str`): What happened, in one sentence.
        why (`str`, defaults to `""`): The cause.
        remedy (`str`, defaults to `""`): What to do next, best a command.
    """

    def __init__(self, what: str, why: str = "", remedy: str = "") -> None:
        self.what, self.why, self.remedy = what, why, remedy
        first = f"{what} ({why})" if why else what
        super().__init__(f"{first}\n{remedy}" if remedy else first)


class SettingsError(InternError):
    """A setting that cannot work: a home that cannot be written, a number that is none."""


class NoModel(InternError):
    """No language model is configured, and none was found."""


class ModelFailed(InternError):
    """The model's service refused, failed or could not be reached.

    Attributes:
        kind (`str`): How it failed, which decides what helps: `unreachable`, `late`, `failed`, `empty`, `rate`, `unpaid`, `key`,
            `missing`, `unsent`, `overflow`, `refused` or `cancelled`.
        wait_seconds (`float`): How long the service wants to be left alone.
    """

    kind: str = "failed"
    wait_seconds: float = 0.0

    def of_kind(self, kind: str, wait_seconds: float = 0.0) -> ModelFailed:
        self.kind, self.wait_seconds = kind, wait_seconds
        return self


class Denied(InternError, PermissionError):
    """A call was refused by a person or a rule; the model reads the reason."""


class JournalFailed(InternError):
    """The journal could not be written: nothing may take effect that is not on record."""


class Parking(BaseException):
    """A call stays open, and gives up its thread: it waits for a person, or for a job.

    No error of anybody's, so that nobody who handles errors stops it on its way out.

    Args:
        due (`Callable[[], bool]`, *optional*): Whether what it waits for is there.
        at (`float`, *optional*): When it is worth a look in any case, on the monotonic clock.
        over (`Callable[[], None]`, *optional*): Told when it waits no more, whatever became of it.
        handles (`tuple[int, ...]`, *optional*): File descriptors; when one of them can be read it is worth a look as well.
        withdraw (`Callable[[], bool]`, *optional*): Waits for no answer any more. Returns `False` where somebody has given
            one by then: that one counts.

    Attributes:
        go_on (`Callable[[], Any]`, *optional*): Makes the call from there on, once, and gives its result; set by who makes
            calls. Without it the call can be made by nobody but a session that wakes.
    """

    def __init__(
        self,
        due: Callable[[], bool] = lambda: False,
        at: float | None = None,
        over: Callable[[], None] = lambda: None,
        handles: tuple[int, ...] = (),
        withdraw: Callable[[], bool] = lambda: True,
    ) -> None:
        super().__init__()
        self.due, self.at, self.over, self.handles, self.withdraw = due, at, over, handles, withdraw
        self.go_on: Callable[[], Any] | None = None
