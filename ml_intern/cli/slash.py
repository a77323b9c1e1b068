"""What begins with a slash in a chat: small commands in one table, with their help and their completion."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from rich.text import Text

from ..errors import InternError
from ..events import AgentEnded, Event, Usage
from . import text as words
from .banner import budget, jail, model
from .render import MODES
from .status import spent

if TYPE_CHECKING:
    from .chat import Chat

BAR = 24
"""Columns of the picture of a full window."""


@dataclass(frozen=True)
class Slash:
    """A command: what it takes, what it does, and what may be typed after it."""

    name: str
    takes: str
    does: str
    run: Callable[[Chat, str], Awaitable[None]]
    choices: Callable[[Chat], Iterable[tuple[str, str]]] = lambda chat: ()


async def obey(chat: Chat, text: str) -> bool:
    """Carries out what begins with a slash. `False` where it is no command: it may be a path, or said to the agent."""
    name, _, rest = text.partition(" ")
    if not name.startswith("/") or "/" in name[1:]:
        return False
    found = [command for command in TABLE if command.name == name[1:]]
    found = found or [command for command in TABLE if len(name) > 1 and command.name.startswith(name[1:])]
    if len(found) != 1:
        which = f" It may be {' or '.join(f'/{command.name}' for command in found)}." if found else ""
        chat.tell(f"There is no command {words.one_line(name)}.{which} /help lists them.")
        return True
    await found[0].run(chat, rest.strip())
    chat.paper.gap()
    return True


def complete(chat: Chat, text: str) -> Iterable[tuple[str, int, str]]:
    """What may stand at the end of `text`: commands, then what they take. See `line.Complete`."""
    if not text.startswith("/") or "\n" in text:
        return
    name, space, rest = text[1:].partition(" ")
    if not space:
        for command in TABLE:
            if command.name.startswith(name):
                yield f"/{command.name}", len(text), command.does
        return
    for command in TABLE:
        if command.name == name:
            for choice, meaning in command.choices(chat):
                if choice.startswith(rest) and choice != rest:
                    yield choice, len(rest), meaning


async def _help(chat: Chat, rest: str) -> None:
    for command in TABLE:
        usage = f"/{command.name}{f' {command.takes}' if command.takes else ''}"
        chat.paper.put(Text(command.does), 24, label=f"{usage:<22}")
    chat.paper.gap()
    chat.tell(
        "Anything else is said to the agent: a task, or, while it works, a word that it reads with its next step."
    )
    chat.tell("Alt-Enter or a backslash at the end of a line begins a new one; Ctrl-X Ctrl-E opens your editor.")
    chat.tell("Ctrl-C stops the turn, twice leaves at once.")


async def _doctor(chat: Chat, rest: str) -> None:
    from .doctor import run

    await asyncio.to_thread(run, chat.partner.order.home)


async def _status(chat: Chat, rest: str) -> None:
    chat.row("model", model(chat.partner.order))
    kind, style = jail(chat.partner.order)
    chat.paper.row("jail", kind, style)
    session = chat.partner.session
    mode = chat.partner.mode
    chat.row("mode", f"{mode}: {MODES[mode]}")
    chat.row("budget", budget(chat.partner.order))
    if session is None:
        chat.row("session", "none yet: it begins with your first message")
        return
    chat.row("session", f"{session.id[:8]}, {session.state}")
    if session.title:
        chat.row("title", session.title)
    chat.row("used", spent(session.usage))
    for name, tasks, usage in by_colleague(session.events.history):
        chat.row("of that", f"{name}, {tasks} task{'s' * (tasks != 1)}: {spent(usage)}")
    chat.paper.path("workspace", str(session.workspace))
    chat.paper.path("trace", str(session.trace))


def by_colleague(history: Iterable[Event]) -> list[tuple[str, int, Usage]]:
    """What the colleagues of a session took, those of one name together: name, tasks, usage; what stands below them included."""
    found: dict[str, tuple[int, Usage]] = {}
    for event in history:
        if isinstance(event, AgentEnded) and "/" not in event.agent:
            name = event.agent.partition("#")[0]
            tasks, so_far = found.get(name, (0, Usage()))
            found[name] = (tasks + 1, so_far + event.usage)
    return [(name, tasks, usage) for name, (tasks, usage) in found.items()]


async def _context(chat: Chat, rest: str) -> None:
    session = _session(chat)
    fill = await asyncio.to_thread(session.context)
    parts = (
        ("prompt", fill.system),
        ("summary", fill.before),
        ("you", fill.user),
        ("agent", fill.said),
        ("observed", fill.seen),
    )
    share = fill.used / fill.limit if fill.limit else 0.0
    filled = min(round(share * BAR), BAR)
    chat.row("window", f"{'█' * filled}{'░' * (BAR - filled)} {share:.0%} of {words.amount(fill.limit)} tokens")
    for label, tokens in parts:
        chat.row(label, f"{words.amount(tokens):>6}")


async def _compact(chat: Chat, rest: str) -> None:
    chat.partner.intern.compact(_session(chat).id, rest)
    chat.tell("It is compacted before its next step." if chat.partner.busy else "compacting")


async def _model(chat: Chat, rest: str) -> None:
    if not rest:
        chat.row("model", model(chat.partner.order))
        chat.tell("/model ENDPOINT changes it; what LLM_ENDPOINT takes, it takes.")
        return
    partner, order = chat.partner, replace(chat.partner.order, model=rest)
    if partner.session is None:
        await asyncio.to_thread(partner.open, order)
    else:
        await asyncio.to_thread(partner.intern.set_model, rest, partner.session.id, "terminal", and_later=True)
        partner.order = order
    chat.row("model", model(partner.order))
    if partner.busy:
        chat.tell("It writes from the next step on.")


async def _approve(chat: Chat, rest: str) -> None:
    from ..approval import RuleBook

    session = chat.partner.session
    if rest and session is not None:
        await asyncio.to_thread(session.allow, rest)
    elif rest:
        await asyncio.to_thread(
            chat.partner.open, replace(chat.partner.order, allow=(*chat.partner.order.allow, rest))
        )
    waiting = session.pending() if session else []
    for request in waiting:
        chat.paper.put(Text.assemble(("? ", "bold yellow"), words.call(request.tool, request.arguments, 200)), 2, 4)
    if not waiting:
        chat.tell("Nothing waits for an answer.")
    for_good = [str(rule) for rule in RuleBook(chat.partner.home / "rules").load()]
    here = [*map(str, session.standing)] if session else [*chat.partner.order.allow, *chat.partner.order.deny]
    for rule in dict.fromkeys(here):
        if rule not in for_good:
            chat.row("rule", rule)
    for rule in for_good:
        chat.row("for good", rule)
    if not rest:
        chat.tell("/approve RULE allows a kind of call in this session, e.g. /approve hub_push:me/*:private")


async def _grant(chat: Chat, rest: str) -> None:
    from ..grant import OVERNIGHT

    await chat.partner.say(f"{OVERNIGHT}\n{rest}" if rest else OVERNIGHT)


async def _mode(chat: Chat, rest: str) -> None:
    if not rest:
        now = chat.partner.mode
        for mode, meaning in MODES.items():
            style = "bold" if mode == now else ""
            chat.paper.put(Text.assemble("› " if mode == now else "  ", (f"{mode:<6}", style), meaning), 2, 10)
        return
    if rest not in MODES:
        raise InternError(f"There is no mode {words.one_line(rest)}", "", f"It is {', '.join(MODES)}.")
    if chat.partner.session is None:
        await asyncio.to_thread(chat.partner.open, replace(chat.partner.order, mode=rest))
        chat.tell(f"{rest}: {MODES[rest]}")
    else:
        chat.partner.intern.set_mode(rest, chat.partner.session.id)
        chat.partner.order = replace(chat.partner.order, mode=rest)


async def _budget(chat: Chat, rest: str) -> None:
    if not rest:
        chat.row("a turn", budget(chat.partner.order))
        if chat.partner.session:
            chat.row("used", spent(chat.partner.session.usage))
        chat.tell("/budget usd 2, /budget steps 50 or /budget hours 1 gives that much more.")
        return
    what, _, amount = rest.partition(" ")
    try:
        number = float(amount)
        if not 0 < number < 1e9:
            raise ValueError
    except ValueError:
        raise InternError("That is no budget", words.one_line(rest), "E.g. /budget usd 2, /budget steps 50.") from None
    if what not in ("usd", "steps", "hours"):
        raise InternError(f"There is no budget of {words.one_line(what)}", "", "It is usd, steps or hours.")
    order = chat.partner.order
    match what:
        case "usd":
            order = replace(order, budget_usd=(order.budget_usd or 0.0) + number)
        case "hours":
            order = replace(order, max_hours=(order.max_hours or 0.0) + number)
        case "steps":
            order = replace(order, max_iterations=order.max_iterations + int(number))
    if chat.partner.session is None:
        await asyncio.to_thread(chat.partner.open, order)
    else:
        usd, hours = number if what == "usd" else 0.0, number if what == "hours" else 0.0
        chat.partner.intern.extend(
            chat.partner.session.id, steps=int(number) if what == "steps" else 0, usd=usd, hours=hours
        )
        chat.partner.order = order
    chat.renderer.status.limit_usd = order.budget_usd
    chat.row("a turn", budget(order))


async def _plan(chat: Chat, rest: str) -> None:
    if not chat.partner.plan:
        chat.tell("There is no plan yet.")
    marks = {"done": "✓", "in_progress": "›"}
    for item in chat.partner.plan:
        chat.tell(f"{marks.get(item['status'], '·')} {item['text']}")


async def _undo(chat: Chat, rest: str) -> None:
    _idle(chat, "A turn can be taken back")
    await asyncio.to_thread(_session(chat).undo)


async def _sessions(chat: Chat, rest: str) -> None:
    from .sessions import show, summaries

    show(chat.paper, await asyncio.to_thread(summaries, chat.partner.home, rest.split()), limit=12)


async def _resume(chat: Chat, rest: str) -> None:
    _idle(chat, "Another session can be taken up")
    if not rest:
        await _sessions(chat, "")
        chat.tell("/resume ID goes on with one.")
        return
    chat.introduce(await chat.partner.adopt(lambda: chat.partner.intern.resume(rest)))


async def _fork(chat: Chat, rest: str) -> None:
    _idle(chat, "A session can be forked")
    before = _session(chat).id
    if rest and not rest.isdecimal():
        raise InternError(
            f"{words.one_line(rest)} is no step", "", "/fork 12 takes over what was known after step 12."
        )
    at = int(rest) if rest else None
    session = await chat.partner.adopt(lambda: chat.partner.intern.fork(before, at=at))
    chat.tell(f"a fork of {before[:8]}{f' at step {at}' if at is not None else ''}")
    chat.introduce(session)


async def _share(chat: Chat, rest: str) -> None:
    from ..trace.sharing import share_now
    from .share import run

    home = chat.partner.home
    if rest:
        action, _, name = rest.partition(" ")
        lines: list[str] = []
        code = await asyncio.to_thread(lambda: run(action, home=home, confirm=name.strip(), say=lines.append))
        for line in lines:
            chat.tell(words.printable(line))
        if code:
            chat.tell("`/share public NAME`, with the data set's name, makes it public.")
        return
    session = _session(chat)
    chat.tell("uploading the trace to your data set ml-intern-traces…")
    shared = await asyncio.to_thread(share_now, home, session.trace)
    chat.row("shared", shared.url)


async def _tools(chat: Chat, rest: str) -> None:
    from ..effects import effects_of
    from ..subagents import original

    session = _session(chat)
    agent = await asyncio.to_thread(lambda: session.agent)
    for name, tool in sorted(agent.tools.items()):
        if rest and rest not in name:
            continue
        by_operation = isinstance(getattr(tool, "effects", None), dict)
        does = "depends" if by_operation else effects_of(original(tool), {})
        first = words.one_line(" ".join(tool.description.split()).split(". ")[0], 200)
        chat.paper.put(Text(first), 33, label=f"{name:<22}{does:<9}")


async def _jobs(chat: Chat, rest: str) -> None:
    session = _session(chat)
    if rest == "stop":
        for problem in await asyncio.to_thread(session.stop_jobs):
            chat.renderer.warn(problem)
    running = await asyncio.to_thread(session.running_jobs)
    if rest not in ("", "stop"):
        chat.paper.put(Text(words.printable(await asyncio.to_thread(session.curves, rest))))
        return
    for job_id in running:
        chat.row("running", job_id)
        if curves := await asyncio.to_thread(session.curves, job_id):
            chat.paper.put(Text(words.printable(curves)))
    if not running:
        chat.tell("no job runs")


async def _experiments(chat: Chat, rest: str) -> None:
    from ..session_tools import ExperimentsTool
    from ..subagents import original

    session = _session(chat)
    agent = await asyncio.to_thread(lambda: session.agent)
    tool = original(agent.tools["experiments"]) if "experiments" in agent.tools else None
    if not isinstance(tool, ExperimentsTool):
        chat.tell("This session keeps no record of experiments.")
        return
    try:
        known = tool.forward(id=rest or None)
    except ValueError as error:  # there is none of that name
        chat.tell(str(error))
        return
    if rest:
        chat.paper.put(Text(words.printable(json.dumps(known["found"], indent=2, ensure_ascii=False, default=str))))
        return
    if not known["runs"] and not known["evaluations"]:
        chat.tell("Nothing was trained or evaluated yet.")
        return
    table, tree = words.printable(known["table"]), words.printable(known["tree"])
    if known["runs"] and max(map(len, table.splitlines())) <= chat.paper.console.width:
        chat.paper.put(Text(table))
        chat.paper.gap()
    if known["runs"]:
        chat.paper.put(Text(tree))
        chat.row("tried", f"{known['tried']}, ${known['cost_usd']:.2f} in all")
    for line in known["evaluations"]:
        chat.paper.put(Text(words.printable(line)), 2)
    chat.tell("/experiments ID shows all that is on record of one.")


async def _new(chat: Chat, rest: str) -> None:
    _idle(chat, "A new conversation can begin")
    chat.partner.session, chat.partner.plan = None, ()
    chat.tell("A new conversation: it begins with your next message.")


async def _quit(chat: Chat, rest: str) -> None:
    chat.leaving = True


def _session(chat: Chat):
    if chat.partner.session is None:
        raise InternError("There is no conversation yet", "", "It begins with your first message.")
    return chat.partner.session


def _idle(chat: Chat, what: str) -> None:
    if chat.partner.busy:
        raise InternError(f"{what} when the turn is over", "", "Ctrl-C stops it.")


def _known_sessions(chat: Chat) -> Iterable[tuple[str, str]]:
    from .sessions import summaries

    for row in summaries(chat.partner.home)[:20]:
        yield row.id[:8], row.title


def _known_experiments(chat: Chat) -> Iterable[tuple[str, str]]:
    from ..records import line, mirrored

    session = chat.partner.session
    for row in list(mirrored(session.trace.with_suffix("")).values())[-20:] if session is not None else ():
        yield row["id"], words.one_line(line(row)) if row.get("kind") == "experiment" else "evaluation"


TABLE = (
    Slash("help", "", "what can be typed here", _help),
    Slash("status", "", "model, mode, budget, session", _status),
    Slash("context", "", "what fills the model's window", _context),
    Slash("compact", "[FOCUS]", "make the conversation shorter, keeping FOCUS", _compact),
    Slash("model", "[ENDPOINT]", "which model answers; change it", _model),
    Slash("approve", "[RULE]", "what waits and what is allowed; allow a kind of call", _approve),
    Slash("grant", "[WORDS]", "have the agent propose what it may do without asking", _grant),
    Slash("mode", "[MODE]", "who decides: ask, plan, auto, deny", _mode, lambda chat: MODES.items()),
    Slash(
        "budget", "[WHAT N]", "what a turn may cost; give it more", _budget,
        lambda chat: (("usd ", "dollars more"), ("steps ", "steps more"), ("hours ", "hours more")),
    ),
    Slash("plan", "", "the agent's plan", _plan),
    Slash("jobs", "[stop|JOB]", "the curves of its training; end it", _jobs, lambda chat: (("stop", "end it"),)),
    Slash("experiments", "[ID]", "what it trained and evaluated so far", _experiments, _known_experiments),
    Slash("undo", "", "take the last turn out of the conversation", _undo),
    Slash("new", "", "begin a new conversation", _new),
    Slash("sessions", "[WORDS]", "earlier sessions, newest first", _sessions),
    Slash("resume", "ID", "go on with another session", _resume, _known_sessions),
    Slash("fork", "[STEP]", "go on from here, or from a step, in a session of its own", _fork),
    Slash("share", "[status|on|off|public|private]", "upload the trace now; or who reads your sessions", _share),
    Slash("tools", "[NAME]", "the agent's tools and what they do to the world", _tools),
    Slash("doctor", "", "what works on this machine", _doctor),
    Slash("quit", "", "leave; the conversation is kept", _quit),
)  # fmt: skip
