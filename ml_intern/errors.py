"""Errors meant for people: what happened, why, and what to do next."""

from __future__ import annotations


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
    """A call stays open while its session gives up thread and jail: it is carried out when it has been approved.

    No error of anybody's, so that nobody who handles errors stops it on its way out.
    """
