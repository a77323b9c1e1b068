"""The words and options of the command line. Heavy imports wait until a command runs: `--help` is there at once."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import InternError
from .options import (
    Allow,
    AllowHost,
    Deny,
    Effort,
    Executor,
    Home,
    Hours,
    HubTool,
    Json,
    Mcp,
    Mode,
    Model,
    Network,
    Offline,
    Steps,
    UnsafeLocal,
    Usd,
    Verbose,
    WrongUsage,
    Yes,
)

if TYPE_CHECKING:
    from .run import Order


app = typer.Typer(rich_markup_mode=None, add_completion=False, pretty_exceptions_enable=False)

PROGRAM = "python -m ml_intern" if Path(sys.argv[0]).name == "__main__.py" else "ml-intern"

_HELP = f"""\b
Commands:
  demo    A whole errand in a minute, offline: `{PROGRAM} demo`
  doctor  What works on this machine, and how to get the rest
  files   What lies in a session's workspace, and a copy of it
  sessions, resume, fork   Earlier ones; go on with one, or from one of its steps
  approve, steer, stop     Answer, tell or stop one that runs in another process
  tools   The tools: listed, saved or pushed for other agents; mcp serves them to any MCP client
  slack   The intern as a member of your Slack workspace; `slack --help` sets it up
  share   Where sessions are uploaded and who can read them: status, on, off, public, private
  trace   A session's record: show, html, run, compare, decisions, validate, path

\b
Without a task, in a terminal: a conversation. /help there says more.

\b
Examples:
  {PROGRAM} "fine-tune a small sentiment classifier on IMDB and publish it"
  {PROGRAM} "what is wrong with this run?" --file train.log --budget-usd 2
  cat task.md | {PROGRAM} - --json

\b
Exit codes: 0 success, 1 failure, 2 wrong usage, 3 budget or steps used up or
no progress, 4 denied, 130 interrupted.
"""


def dispatch(argv: Sequence[str]) -> int:
    """Runs the command that `argv` names; a first word that names none is a task.

    Returns:
        `int`: the exit code.
    """
    from . import commands as beside

    commands = typer.main.get_group(beside.app).commands
    named = argv[0] if argv and argv[0] in commands and argv[0] != "task" else None
    words, program = (argv[1:], f"{PROGRAM} {named}") if named else (argv, PROGRAM)
    verbose = "--verbose" in words
    try:
        return commands[named or "task"].main(list(words), prog_name=program, standalone_mode=False) or 0
    except typer.TyperException as error:  # wrong usage
        message = " ".join(error.format_message().split())
        return _complain(f"{message}{'' if message.endswith('.') else '.'} See: {program} --help", error.exit_code)
    except InternError as error:
        return _complain(str(error), 1, verbose)
    except BrokenPipeError:
        raise
    except Exception as error:  # noqa: BLE001 - the last boundary: a person gets a line, and a traceback if asked for
        hint = "" if verbose else "\nThis is a bug. --verbose shows where."
        return _complain(f"{type(error).__name__}: {error}{hint}", 1, verbose)


def _complain(message: str, code: int, traceback: bool = False) -> int:
    from .text import printable

    if traceback:
        from traceback import print_exc

        print_exc()
    print(printable(message), file=sys.stderr)
    return code


def _version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        print(f"ml-intern {version('smolagents-ml-intern')}")
        raise typer.Exit


@app.command(epilog=_HELP)
def task(
    words: Annotated[
        list[str], typer.Argument(metavar="TASK", help="What to do, in quotes; - reads it from standard input.")
    ] = [],  # noqa: B006 - typer copies it
    file: Annotated[
        list[Path], typer.Option(metavar="PATH", exists=True, help="A file for the workspace. Repeatable.")
    ] = [],  # noqa: B006 - typer copies it
    image: Annotated[
        list[Path], typer.Option(metavar="PATH", exists=True, dir_okay=False, help="An image to look at. Repeatable.")
    ] = [],  # noqa: B006 - typer copies it
    dataset: Annotated[
        list[str], typer.Option(metavar="REPO|PATH", help="A data set: on the Hub or here. Repeatable.")
    ] = [],  # noqa: B006 - typer copies it
    model: Model = None,
    max_iterations: Steps = 300,
    budget_usd: Usd = None,
    max_hours: Hours = None,
    system_prompt: Annotated[
        str | None, typer.Option(metavar="TEXT|FILE", help="Who the intern is to be, added to its own prompt.")
    ] = None,
    home: Home = None,
    slack: Annotated[bool, typer.Option("--slack", help="Tell Slack; with SLACK_APP_TOKEN it answers, too.")] = False,
    mode: Mode = "ask",
    allow: Allow = [],  # noqa: B006 - typer copies it
    deny: Deny = [],  # noqa: B006 - typer copies it
    overnight: Annotated[
        bool,
        typer.Option("--overnight", help="First one question: what may be done without asking while you are away."),
    ] = False,
    yes: Yes = False,
    gpus: Annotated[
        bool | None,
        typer.Option("--gpus/--no-gpus", help="Let code use this machine's GPUs; otherwise ML_INTERN_GPUS."),
    ] = None,
    share: Annotated[
        bool | None,
        typer.Option("--share/--no-share", help="Upload the session's trace to your private data set of traces."),
    ] = None,
    unsafe_local: UnsafeLocal = False,
    executor: Executor = "local",
    network: Network = None,
    allow_host: AllowHost = [],  # noqa: B006 - typer copies it
    mcp: Mcp = [],  # noqa: B006 - typer copies it
    hub_tool: HubTool = [],  # noqa: B006 - typer copies it
    offline: Offline = False,
    effort: Effort = None,
    json: Json = False,
    verbose: Verbose = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> int:
    """An ML engineer for a task: it reads papers, finds data, trains, judges, publishes. It asks first."""
    if len(words) > 1:
        raise WrongUsage(f"A task is one argument: put {words[0]!r} and what follows in quotes.")
    text = sys.stdin.read() if words == ["-"] else "".join(words)
    talk = not words and not json and sys.stdin.isatty() and sys.stdout.isatty()
    if not text.strip() and not talk:
        raise WrongUsage(
            "The task is empty." if words else f'What is the task? {PROGRAM} "fine-tune ..." or {PROGRAM} demo.'
        )
    if text in ("demo", "doctor"):
        raise WrongUsage(f"The command comes first: {PROGRAM} {text} ...")
    from .run import Order

    return go(
        Order(
            task=text.strip(),
            files=tuple(file),
            images=tuple(image),
            datasets=tuple(map(_dataset, dataset)),
            model=model,
            system_prompt=None if system_prompt is None else _prompt(system_prompt),
            max_iterations=max_iterations,
            budget_usd=budget_usd,
            max_hours=max_hours,
            home=home,
            slack=slack,
            overnight=overnight,
            yes=yes,
            unsafe_local=unsafe_local,
            gpus=gpus,
            share=share,
            executor=executor,
            network=network,
            hosts=tuple(allow_host) or None,
            mcp=tuple(mcp),
            hub_tools=tuple(hub_tool),
            offline=offline,
            effort=effort,
            json=json,
            verbose=verbose,
            mode=mode,
            allow=tuple(allow),
            deny=tuple(deny),
        ),
        talk,
    )


def go(order: Order, talk: bool) -> int:
    if talk:
        from .chat import run
    else:
        from .run import run
    return run(order)


def _dataset(name: str) -> str:
    if name.startswith((".", "/", "~")) and not Path(name).expanduser().exists():
        raise WrongUsage(f"There is no {name} to take as a --dataset.")
    return name


def _prompt(text: str) -> str:
    """The content of a file, or the text itself where it cannot be a path."""
    if not text.strip():
        raise WrongUsage("The --system-prompt is empty.")
    if len(text) < 1000 and len(text.split()) == 1:
        try:
            return Path(text).expanduser().read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            why = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
            raise WrongUsage(f"Cannot read {text}, the --system-prompt ({why}).") from None
    return text
