"""`trace`: a session's record looked at, run again, compared, checked."""

from __future__ import annotations

import json as as_json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import InternError
from .options import Home, Verbose

if TYPE_CHECKING:
    from .paper import Paper

app = typer.Typer(
    rich_markup_mode=None, add_completion=False, pretty_exceptions_enable=False, no_args_is_help=True,
    help="A session's record: look at it, run it again, compare it, check it.",
)  # fmt: skip

Which = Annotated[
    str, typer.Argument(metavar="WHICH", help="A session's id or its beginning, words of its title, or a file.")
]
Json = Annotated[bool, typer.Option("--json", help="For programs: JSON on standard output.")]


def resolve(which: str, home: Path | None) -> Path:
    """The trace that somebody means.

    Raises:
        InternError: there is none, or more than one.
    """
    from ..settings import Settings
    from ..trace.listing import find

    return find(Settings.load(home).home.expanduser().absolute(), which)


@app.command()
def show(
    which: Which = "",
    plain: Annotated[
        bool, typer.Option("--plain", help="All of it as text; so it is where there is no terminal.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="One JSON line a page.")] = False,
    home: Home = None,
    verbose: Verbose = False,
) -> int:
    """Steps through a session: its task, each step with code, calls and output, its end. The newest by default."""
    from .trace_show import run

    return run(resolve(which, home), plain=plain, as_json=json, verbose=verbose)


@app.command()
def html(
    which: Which = "",
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="Where to; otherwise beside the session's files.")
    ] = None,
    home: Home = None,
    verbose: Verbose = False,
) -> int:
    """The session as a web page; a long one as several. Needs the extra `html`."""
    from .trace_html import run

    trace = resolve(which, home)
    target = out.expanduser() if out is not None else _beside(trace)
    pages = run(trace, target)
    paper = _paper()
    size = sum(page.stat().st_size for page in pages)
    from .text import size as bytes_of

    paper.path("page", str(pages[0].absolute()))
    paper.row("", f"{bytes_of(size)}{f' in {len(pages)} pages that lead to each other' if len(pages) > 1 else ''}")
    return 0


def _beside(trace: Path) -> Path:
    """In the session's folder; of a trace without one, where one is."""
    folder = trace.with_suffix("")
    return folder / "trace.html" if folder.is_dir() else Path(f"{trace.stem}.html")


@app.command()
def run(
    which: Which = "",
    workspace: Annotated[
        Path | None, typer.Option("--workspace", metavar="DIR", help="A folder whose copy the code starts on.")
    ] = None,
    live_reads: Annotated[
        bool, typer.Option("--live-reads", help="Call tools that only read anew; let code read the public Hub.")
    ] = False,
    tolerance: Annotated[
        float, typer.Option(metavar="PART", help="How far numbers may be apart; 0.01 is one percent.")
    ] = 0.01,
    seconds: Annotated[float, typer.Option(metavar="N", min=1, help="Time that the code of a step may take.")] = 3600,
    unsafe_local: Annotated[bool, typer.Option("--unsafe-local", help="Without a jail, as you.")] = False,
    json: Annotated[bool, typer.Option("--json", help="The report as JSON.")] = False,
    home: Home = None,
    verbose: Verbose = False,
) -> int:
    """Runs the recorded code again, in a fresh jail, with the recorded results of tools. Nothing is published or spent.

    Exit code 0 when every step came out the same, 1 when not.
    """
    trace = resolve(which, home)
    paper = _paper()
    from ..replay import replay
    from ..settings import Settings
    from .trace_report import show_setup, show_step, show_verdict

    report = replay(
        trace,
        workspace_copy=workspace,
        live_reads=live_reads,
        tolerance=tolerance,
        seconds=seconds,
        memory_bytes=int(Settings.load(home).memory_gb * 2**30),
        unsafe_local=unsafe_local,
        on_setup=None if json else lambda said: show_setup(paper, trace, said),
        on_step=None if json else lambda step: show_step(paper, step, verbose),
    )
    if json:
        print(as_json.dumps(report.to_dict()))
    else:
        show_verdict(paper, report)
    return report.exit_code


@app.command()
def compare(
    a: Annotated[str, typer.Argument(metavar="A", help="A session or a file.")],
    b: Annotated[str, typer.Argument(metavar="B", help="Another one.")],
    tolerance: Annotated[
        float, typer.Option(metavar="PART", help="How far numbers may be apart; 0.01 is one percent.")
    ] = 0.01,
    json: Json = False,
    home: Home = None,
    verbose: Verbose = False,
) -> int:
    """Two sessions side by side: steps, tools, tokens, money, time, outcome, decisions, and where they part."""
    from ..trace.compare import compare

    first, second = resolve(a, home), resolve(b, home)
    try:
        comparison = compare(first, second, tolerance)
    except OSError as error:
        raise InternError(f"Cannot read {error.filename}", error.strerror or str(error)) from None
    if json:
        from dataclasses import asdict

        print(as_json.dumps({**asdict(comparison), "same": comparison.same}, default=str))
    else:
        from .trace_report import show_comparison

        show_comparison(_paper(), comparison)
    return 0


@app.command()
def decisions(which: Which = "", json: Json = False, home: Home = None, verbose: Verbose = False) -> int:
    """What was chosen in a session and why, what was approved and by whom, with the steps."""
    from dataclasses import asdict

    from ..trace.decisions import decisions

    trace = resolve(which, home)
    try:
        found = decisions(trace)
    except OSError as error:
        raise InternError(f"Cannot read {trace}", error.strerror or str(error)) from None
    from .trace_report import show_decision

    paper = _paper()
    for decision in found:
        if json:
            print(as_json.dumps(asdict(decision), default=str))
        else:
            show_decision(paper, decision)
    if not found and not json:
        paper.put("No decision is on record.")
    return 0


@app.command()
def validate(
    paths: Annotated[list[str], typer.Argument(metavar="WHICH...", help="Sessions, files, or folders of traces.")],
    json: Json = False,
    home: Home = None,
    verbose: Verbose = False,
) -> int:
    """Whether traces are as every reader of the format takes them. Exit code 0 when they are."""
    from ..trace.validate import validate
    from .text import printable

    traces = [trace for path in paths for trace in _traces(path, home)]
    spoiled = 0
    for trace in traces:
        try:
            complaints = validate(trace)
        except OSError as error:
            raise InternError(f"Cannot read {trace}", error.strerror or str(error)) from None
        spoiled += any(complaint.grave for complaint in complaints)
        if json:
            rows = [vars(complaint) for complaint in complaints]
            print(as_json.dumps({"path": str(trace), "complaints": rows}))
            continue
        for complaint in complaints:
            mark = "" if complaint.grave else "note: "
            print(printable(f"{trace}: {mark}{complaint}"))
    if not json:
        count = len(traces)
        print(f"{count} trace{'s' * (count != 1)}, {spoiled or 'none'} with something that a reader will not take")
    return 1 if spoiled else 0


@app.command()
def path(which: Which = "", home: Home = None, verbose: Verbose = False) -> int:
    """Where a session's trace lies."""
    print(resolve(which, home))
    return 0


def _traces(which: str, home: Path | None) -> list[Path]:
    folder = Path(which).expanduser()
    if not folder.is_dir():
        return [resolve(which, home)]
    found = sorted(folder.rglob("*.jsonl"))
    if not found:
        raise InternError(f"There is no trace in {which}", "no file there ends with .jsonl")
    return found


def _paper() -> Paper:
    from .paper import Paper

    return Paper()
