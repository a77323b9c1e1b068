"""The options that several commands have, what they are checked for, and the error of one that cannot be meant."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from ..errors import InternError


def allowing(rules: list[str]) -> list[str]:
    return _rules(rules, ())


def denying(rules: list[str]) -> list[str]:
    return _rules((), rules)


def _rules(allow: Sequence[str], deny: Sequence[str]) -> list[str]:
    if allow or deny:
        from ..approval import ApprovalPolicy

        try:
            ApprovalPolicy.of(allow, deny)
        except InternError as error:
            raise typer.BadParameter(f"{error.what} ({error.why}). {error.remedy}") from None
    return [*allow, *deny]


class WrongUsage(typer.TyperException):
    """A command line that cannot be meant."""

    exit_code = 2


def finite(number: float | None) -> float | None:
    if number is not None and not (math.isfinite(number) and number > 0):
        raise typer.BadParameter("it must be more than 0.")
    return number


def place(name: str) -> str:
    if name not in ("local", "e2b"):
        raise typer.BadParameter("it is local or e2b.")
    return name


def known(network: str | None) -> str | None:
    if network not in (None, "none", "hub", "full"):
        raise typer.BadParameter("it is none, hub or full.")
    return network


def mode(mode: str | None) -> str | None:
    if mode not in (None, "ask", "plan", "auto", "deny"):
        raise typer.BadParameter("it is ask, plan, auto or deny.")
    return mode


def effort(effort: str | None) -> str | None:
    if effort not in (None, "none", "minimal", "low", "medium", "high"):
        raise typer.BadParameter("it is none, minimal, low, medium or high.")
    return effort


Yes = Annotated[bool, typer.Option("--yes", help="Approve everything that is asked, unread.")]
Home = Annotated[Path | None, typer.Option(metavar="DIR", help="Where sessions are kept; otherwise ML_INTERN_HOME.")]
Model = Annotated[
    str | None, typer.Option(metavar="ENDPOINT", help="The model; otherwise LLM_ENDPOINT, or what is found.")
]
Offline = Annotated[
    bool, typer.Option("--offline", help="Reach nothing but the model's own server or weights; or ML_INTERN_OFFLINE.")
]
Effort = Annotated[
    str | None,
    typer.Option(metavar="none|minimal|low|medium|high", callback=effort, help="How long the model thinks."),
]
Json = Annotated[bool, typer.Option("--json", help="One JSON line per event on standard output.")]

Mode = Annotated[
    str,
    typer.Option(
        metavar="ask|plan|auto|deny",
        callback=mode,
        help="Who decides: you; nothing but reading; rules, then you; nobody.",
    ),
]
ModeAgain = Annotated[
    str | None, typer.Option(metavar="ask|plan|auto|deny", callback=mode, help="Who decides; as it was, if left out.")
]
Allow = Annotated[
    list[str],
    typer.Option(metavar="RULE", callback=allowing, help="Needs no question, e.g. hub_push:me/*:private. Repeatable."),
]
Deny = Annotated[
    list[str], typer.Option(metavar="RULE", callback=denying, help="Never, e.g. hub_push:*:public. Repeatable.")
]

Session = Annotated[str, typer.Argument(metavar="ID", help="The session, or the beginning of its id.")]

Verbose = Annotated[bool, typer.Option("--verbose", help="Fold nothing; tracebacks for errors.")]
Usd = Annotated[float | None, typer.Option(metavar="USD", callback=finite, help="Money at most.")]
Hours = Annotated[float | None, typer.Option(metavar="HOURS", callback=finite, help="Time at most.")]
Steps = Annotated[int, typer.Option(metavar="N", min=1, help="Steps at most.")]
UnsafeLocal = Annotated[bool, typer.Option("--unsafe-local", help="Run the model's code without a jail, as you.")]
Executor = Annotated[
    str,
    typer.Option(metavar="local|e2b", callback=place, help="Where code runs: a jail here, or E2B's sandbox."),
]
Network = Annotated[
    str | None,
    typer.Option(metavar="none|hub|full", callback=known, help="What code reaches; hub: the public Hub, to read."),
]
AllowHost = Annotated[list[str], typer.Option(metavar="HOST", help="A further host that code reaches. Repeatable.")]
Mcp = Annotated[
    list[str],
    typer.Option(metavar="SERVER", help='An MCP server: NAME="COMMAND", an address or a file. Repeatable.'),
]
HubTool = Annotated[
    list[str], typer.Option(metavar="SPACE@COMMIT", help="A tool from the Hub, in a jail of its own. Repeatable.")
]
