"""The words and options of the command line. Heavy imports wait until a command runs: `--help` is there at once."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from ..errors import InternError


class WrongUsage(typer.TyperException):
    """A command line that cannot be meant."""

    exit_code = 2


app = typer.Typer(rich_markup_mode=None, add_completion=False, pretty_exceptions_enable=False)

PROGRAM = "python -m ml_intern" if Path(sys.argv[0]).name == "__main__.py" else "ml-intern"

_HELP = f"""\b
Commands:
  demo    A whole errand in a minute, offline: `{PROGRAM} demo`
  doctor  What works on this machine, and how to get the rest
  files   What lies in a session's workspace, and a copy of it

\b
Examples:
  {PROGRAM} "fine-tune a small sentiment classifier on IMDB and publish it"
  {PROGRAM} "what is wrong with this run?" --file train.log --budget-usd 2
  cat task.md | {PROGRAM} - --json

\b
Exit codes: 0 success, 1 failure, 2 wrong usage, 3 budget or steps used up or
no progress, 4 denied, 130 interrupted.
"""

Yes = Annotated[bool, typer.Option("--yes", help="Approve everything that is asked, unread.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON line per event on standard output.")]

Verbose = Annotated[bool, typer.Option("--verbose", help="Fold nothing; tracebacks for errors.")]


def dispatch(argv: Sequence[str]) -> int:
    """Runs the command that `argv` names; a first word that names none is a task.

    Returns:
        `int`: the exit code.
    """
    commands = typer.main.get_group(app).commands
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


def _finite(number: float | None) -> float | None:
    if number is not None and not (math.isfinite(number) and number > 0):
        raise typer.BadParameter("it must be more than 0.")
    return number


def _place(name: str) -> str:
    if name not in ("local", "e2b"):
        raise typer.BadParameter("it is local or e2b.")
    return name


def _known(network: str | None) -> str | None:
    if network not in (None, "none", "hub", "full"):
        raise typer.BadParameter("it is none, hub or full.")
    return network


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
    model: Annotated[
        str | None, typer.Option(metavar="ENDPOINT", help="The model; otherwise LLM_ENDPOINT, or what is found.")
    ] = None,
    max_iterations: Annotated[int, typer.Option(metavar="N", min=1, help="Steps at most.")] = 300,
    budget_usd: Annotated[float | None, typer.Option(metavar="USD", callback=_finite, help="Money at most.")] = None,
    max_hours: Annotated[float | None, typer.Option(metavar="HOURS", callback=_finite, help="Time at most.")] = None,
    system_prompt: Annotated[
        str | None, typer.Option(metavar="TEXT|FILE", help="Who the intern is to be, added to its own prompt.")
    ] = None,
    home: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Where sessions are kept; otherwise ML_INTERN_HOME.")
    ] = None,
    slack: Annotated[bool, typer.Option("--slack", help="Send notifications to Slack.")] = False,
    yes: Yes = False,
    unsafe_local: Annotated[
        bool, typer.Option("--unsafe-local", help="Run the model's code without a jail, as you.")
    ] = False,
    executor: Annotated[
        str,
        typer.Option(metavar="local|e2b", callback=_place, help="Where code runs: a jail here, or E2B's sandbox."),
    ] = "local",
    network: Annotated[
        str | None,
        typer.Option(
            metavar="none|hub|full", callback=_known, help="What code reaches; hub: the public Hub, to read."
        ),
    ] = None,
    allow_host: Annotated[
        list[str], typer.Option(metavar="HOST", help="A further host that code reaches. Repeatable.")
    ] = [],  # noqa: B006 - typer copies it
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
    if not text.strip():
        raise WrongUsage(
            "The task is empty." if words else f'What is the task? {PROGRAM} "fine-tune ..." or {PROGRAM} demo.'
        )
    if text in ("demo", "doctor"):
        raise WrongUsage(f"The command comes first: {PROGRAM} {text} ...")
    from .run import Order, run

    return run(
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
            yes=yes,
            unsafe_local=unsafe_local,
            executor=executor,
            network=network,
            hosts=tuple(allow_host) or None,
            json=json,
            verbose=verbose,
        )
    )


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


@app.command()
def demo(
    live: Annotated[bool, typer.Option("--live", help="With your model instead of the recorded one.")] = False,
    yes: Yes = False,
    shuffle_labels: Annotated[
        bool, typer.Option("--shuffle-labels", help="Spoil the labels and see it noticed.")
    ] = False,
    data: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Where everything is kept; otherwise with your sessions.")
    ] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Keep everything where you are, in ./ml-intern-demo.")] = False,
    json: Json = False,
    verbose: Verbose = False,
) -> int:
    """A whole errand in a minute, offline: data, training, evaluation, approval, publishing to a local Hub."""
    from . import demo as errand

    folder = Path("ml-intern-demo") if keep and data is None else data
    return errand.run(live=live, yes=yes, shuffle_labels=shuffle_labels, folder=folder, as_json=json)


@app.command()
def doctor(
    home: Annotated[Path | None, typer.Option(metavar="DIR", help="Where sessions are to be kept.")] = None,
    json: Json = False,
    verbose: Verbose = False,
) -> int:
    """What works on this machine, and how to get the rest. Exit code 0 when a task could run."""
    from .doctor import run

    return run(home=home, as_json=json)


@app.command()
def files(
    session: Annotated[str, typer.Argument(metavar="ID", help="The session, or the beginning of its id.")],
    paths: Annotated[
        list[str], typer.Argument(metavar="PATH...", help="Files and folders in its workspace; all if none.")
    ] = [],  # noqa: B006 - typer copies it
    to: Annotated[Path | None, typer.Option("--to", metavar="DIR", help="Copy them into this new folder.")] = None,
    home: Annotated[Path | None, typer.Option(metavar="DIR", help="Where sessions are kept.")] = None,
    every: Annotated[bool, typer.Option("--all", help="Hidden ones too, such as .cache.")] = False,
    json: Json = False,
    verbose: Verbose = False,
) -> int:
    """What lies in a session's workspace; with --to, a copy of it. Links are not followed."""
    from .files import run

    return run(session, tuple(paths), to=to, home=home, every=every, as_json=json)
