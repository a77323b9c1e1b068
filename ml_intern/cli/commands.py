"""The commands beside the task: what is shown, looked up, answered from elsewhere, taken up again."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from .app import app, go
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
    ModeAgain,
    Model,
    Network,
    Offline,
    Session,
    Steps,
    UnsafeLocal,
    Usd,
    Verbose,
    Yes,
)
from .tools import app as tool_commands
from .trace import app as traces

app.add_typer(traces, name="trace")
app.add_typer(tool_commands, name="tools")


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


@app.command()
def sessions(
    words: Annotated[
        list[str], typer.Argument(metavar="WORDS...", help="In the title or the id; all sessions if none.")
    ] = [],  # noqa: B006 - typer copies it
    home: Home = None,
    json: Json = False,
    verbose: Verbose = False,
) -> int:
    """The sessions of this home, newest first: state, cost, age, title, and what they wait for."""
    from .sessions import run

    return run(words, home=home, as_json=json)


@app.command()
def slack(
    manifest: Annotated[
        bool, typer.Option("--manifest", help="Print slack-app.yaml, to make the Slack app of.")
    ] = False,
    model: Model = None,
    budget_usd: Usd = None,
    max_hours: Hours = None,
    max_iterations: Steps = 300,
    mode: Mode = "ask",
    allow: Allow = [],  # noqa: B006 - typer copies it
    deny: Deny = [],  # noqa: B006 - typer copies it
    home: Home = None,
    unsafe_local: UnsafeLocal = False,
    executor: Executor = "local",
    network: Network = None,
    allow_host: AllowHost = [],  # noqa: B006 - typer copies it
    mcp: Mcp = [],  # noqa: B006 - typer copies it
    hub_tool: HubTool = [],  # noqa: B006 - typer copies it
    verbose: Verbose = False,
) -> int:
    """\b
    The intern as a member of your Slack workspace: tasks, questions and answers in threads.
    Set-up, in ten steps:
     1. python -m ml_intern slack --manifest > slack-app.yaml
     2. api.slack.com/apps: Create New App, From a manifest; paste the file.
     3. OAuth & Permissions: Install to Workspace.
     4. export SLACK_BOT_TOKEN=xoxb-...   the Bot User OAuth Token, on that page
     5. Basic Information, App-Level Tokens: one with the scope connections:write.
     6. export SLACK_APP_TOKEN=xapp-...
     7. In Slack, in a channel: /invite @ML Intern
     8. export SLACK_CHANNEL_ID=C...      its id, for sessions of a terminal
     9. export SLACK_OWNER=U...           you; SLACK_APPROVERS=U...,U... for more people
    10. python -m ml_intern slack, and in the channel: @ML Intern fine-tune ...
    """
    options = {name: value for name, value in locals().items() if name not in ("manifest", "allow_host", "hub_tool")}
    from .run import Order
    from .slack import run

    options |= {"allow": tuple(allow), "deny": tuple(deny), "hosts": tuple(allow_host) or None}
    options |= {"mcp": tuple(mcp), "hub_tools": tuple(hub_tool)}
    return run(Order(task="", **options), manifest=manifest)


@app.command()
def mcp(
    tools: Annotated[
        list[str], typer.Argument(metavar="TOOL...", help="Which tools; all that only read, if none.")
    ] = [],  # noqa: B006 - typer copies it
    http: Annotated[
        bool,
        typer.Option("--http", help="Over HTTP on this machine, with a token: ML_INTERN_MCP_TOKEN, or one it prints."),
    ] = False,
    port: Annotated[int, typer.Option(metavar="N", min=0, max=65535, help="With --http; 0 takes a free one.")] = 8756,
    folder: Annotated[
        Path | None, typer.Option(metavar="DIR", file_okay=False, help="For files; otherwise one in the home.")
    ] = None,
    allow: Allow = [],  # noqa: B006 - typer copies it
    deny: Deny = [],  # noqa: B006 - typer copies it
    home: Home = None,
    verbose: Verbose = False,
) -> int:
    """\b
    Serves tools to any MCP client: all that only read, or those you name. A call that
    writes, spends or runs code is asked about in the client, or needs --allow.

    \b
    In the client's configuration:
      {"mcpServers": {"ml-intern": {"command": "python", "args": ["-m", "ml_intern", "mcp"]}}}
    """
    from .mcp import run

    return run(tuple(tools), http=http, port=port, folder=folder, allow=tuple(allow), deny=tuple(deny), home=home)


@app.command()
def approve(
    session: Session,
    call: Annotated[
        str | None, typer.Argument(metavar="CALL", help="The call; the oldest open one by default.")
    ] = None,
    reject: Annotated[str | None, typer.Option(metavar="REASON", help="Refuse it; the agent reads why.")] = None,
    for_session: Annotated[bool, typer.Option("--session", help="This kind of call, for the whole session.")] = False,
    text: Annotated[
        str | None, typer.Option(metavar="ANSWER", help="The answer to a question of the agent's.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Approve without asking here.")] = False,
    home: Home = None,
    verbose: Verbose = False,
) -> int:
    """Shows what a session waits for, and answers it. The session runs in another process on this machine."""
    from .remote import approve

    return approve(session, call, reject=reject, for_session=for_session, text=text, yes=yes, home=home)


@app.command()
def steer(
    session: Session,
    text: Annotated[str, typer.Argument(metavar="TEXT", help="What to tell it, in quotes.")],
    home: Home = None,
    verbose: Verbose = False,
) -> int:
    """Tells a session something while it works. It runs in another process on this machine."""
    from .remote import steer

    return steer(session, text, home=home)


@app.command()
def stop(
    session: Session,
    jobs: Annotated[
        bool, typer.Option("--jobs", help="Its training jobs as well; also of one whose process is gone.")
    ] = False,
    home: Home = None,
    verbose: Verbose = False,
) -> int:
    """Stops the turn of a session that runs in another process on this machine."""
    from .remote import stop

    return stop(session, jobs=jobs, home=home)


@app.command()
def resume(
    which: Annotated[
        str, typer.Argument(metavar="WHICH", help="Its id or the beginning, words of its title, or its file.")
    ] = "",
    text: Annotated[str, typer.Argument(metavar="TEXT", help="What to do next; without it, a conversation.")] = "",
    model: Model = None,
    budget_usd: Usd = None,
    max_hours: Hours = None,
    max_iterations: Steps = 300,
    mode: ModeAgain = None,
    allow: Allow = [],  # noqa: B006 - typer copies it
    deny: Deny = [],  # noqa: B006 - typer copies it
    home: Home = None,
    yes: Yes = False,
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
) -> int:
    """Goes on with a session, from its trace. The newest one by default."""
    return _again(locals(), fork=False, at=None)


@app.command()
def fork(
    which: Annotated[
        str, typer.Argument(metavar="WHICH", help="A session's id, words of its title, a file, or hf://datasets/...")
    ],
    text: Annotated[str, typer.Argument(metavar="TEXT", help="What to do in it; without it, a conversation.")] = "",
    at: Annotated[str | None, typer.Option(metavar="STEP", help="The last step that is taken over.")] = None,
    model: Model = None,
    budget_usd: Usd = None,
    max_hours: Hours = None,
    max_iterations: Steps = 300,
    mode: ModeAgain = None,
    allow: Allow = [],  # noqa: B006 - typer copies it
    deny: Deny = [],  # noqa: B006 - typer copies it
    home: Home = None,
    yes: Yes = False,
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
) -> int:
    """Begins a session of its own with what another one knew at some step."""
    return _again(locals(), fork=True, at=int(at) if at is not None and at.isdecimal() else at)


@app.command()
def share(
    action: Annotated[
        str, typer.Argument(metavar="status|on|off|public|private", help="What to show or to set.")
    ] = "status",
    confirm: Annotated[
        str | None, typer.Option(metavar="NAME", help="The data set's name, in place of typing it, for public.")
    ] = None,
    home: Home = None,
    json: Json = False,
    verbose: Verbose = False,
) -> int:
    """Where your sessions are uploaded, who can read them, and whether they are."""
    from .share import run

    return run(action, home=home, confirm=confirm, as_json=json)


def _again(options: dict[str, Any], fork: bool, at: int | str | None) -> int:
    text, json = options.pop("text").strip(), options["json"]
    talk = not text and not json and sys.stdin.isatty() and sys.stdout.isatty()
    which, allow, deny = options.pop("which"), tuple(options.pop("allow")), tuple(options.pop("deny"))
    from .run import Again, Order

    mode, hosts = options.pop("mode"), tuple(options.pop("allow_host")) or None
    options |= {"mcp": tuple(options["mcp"]), "hub_tools": tuple(options.pop("hub_tool"))}
    options.pop("at", None)
    again = Again(which, fork, at, mode)
    return go(Order(task=text, again=again, mode=mode or "ask", allow=allow, deny=deny, hosts=hosts, **options), talk)
