"""What a chat says first: with what it works, what it may do unasked, what it may cost, and how to get help."""

from __future__ import annotations

from importlib.metadata import version

from rich.text import Text

from . import text as words
from .paper import Paper
from .render import MODES
from .run import Order

KEYS = "/help   Alt-Enter: new line   Ctrl-C: stop   /quit: leave"


def banner(paper: Paper, order: Order) -> None:
    """Shows it."""
    paper.put(Text.assemble(("ML Intern ", "bold"), (version("smolagents-ml-intern"), "dim")))
    paper.row("model", words.one_line(model(order)))
    kind, style = jail(order)
    paper.row("jail", kind, style)
    paper.row("mode", f"{order.mode}: {MODES[order.mode]}")
    for word, rules in (("allow", order.allow), ("deny", order.deny)):
        for rule in rules:
            paper.row("rule", words.one_line(rule if rule.startswith(f"{word} ") else f"{word} {rule}"))
    paper.row("budget", budget(order))
    paper.put(Text(KEYS, "dim"), 2)
    paper.gap()


def model(order: Order) -> str:
    """Which model answers, and how it came to be that one where nobody named it."""
    from ..models import resolve_all

    if order.model is not None and not isinstance(order.model, str):
        return order.model.model_id or type(order.model).__name__
    first, *others = resolve_all(order.model, offline=order.offline).entries
    then = "".join(f", then {other.name}" for other in others)
    return f"{first.model_id} ({first.why})" if first.why else f"{first.model_id}{then}"


def jail(order: Order) -> tuple[str, str]:
    """What locks the model's code in, and how loudly to say it."""
    from ..execution.jail import JailUnavailable, find_jail

    if order.executor == "e2b":
        return "E2B, a sandbox that is not on this machine", ""
    try:
        kind = find_jail(unsafe_local=order.unsafe_local).kind
    except JailUnavailable as error:
        return f"none works here, so nothing can run: {str(error).splitlines()[0]} /doctor says more", "bold red"
    if kind == "none":
        return "none: code runs as you, on this machine", "bold red"
    return kind, ""


def budget(order: Order) -> str:
    """What a turn may cost."""
    usd = words.money(order.budget_usd) if order.budget_usd is not None else "no limit in money (--budget-usd)"
    hours = f", {order.max_hours:g} h" if order.max_hours is not None else ""
    return f"{usd}{hours}, {order.max_iterations} steps a turn"
