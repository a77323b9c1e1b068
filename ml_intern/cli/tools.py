"""`tools`: the tools of this project with what they do, as folders and Spaces for others; and what tools of others say."""

from __future__ import annotations

import json as as_json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import InternError
from .options import Home, Mcp, Verbose

if TYPE_CHECKING:
    from smolagents import Tool

    from ..foreign import ForeignTool

app = typer.Typer(
    rich_markup_mode=None, add_completion=False, pretty_exceptions_enable=False, invoke_without_command=True,
    help="The tools: list them, save or push them for other agents, read what tools of others say of themselves.",
)  # fmt: skip

Names = Annotated[list[str], typer.Argument(metavar="TOOL...", help="Which; all, if none.")]
Yes = Annotated[bool, typer.Option("--yes", help="Do it without asking.")]
DENIED = 4


@app.callback()
def listing(
    context: typer.Context, json: Annotated[bool, typer.Option("--json", help="For programs: a JSON list.")] = False
) -> int:
    """Each tool with what it does to the world, what it is for, and the packages it needs by itself."""
    if context.invoked_subcommand is not None:
        return 0
    from ..gateways.tool_spaces import requirements_of

    tools = [(tool, requirements_of(tool)) for tool in made(())]
    if json:
        print(as_json.dumps([_about(tool, needs) for tool, needs in tools]))
        return 0
    wide = max(len(tool.name) for tool, _ in tools)
    for tool, needs in tools:
        effects = _effects(getattr(type(tool), "effects", "unknown"))
        print(f"{tool.name:<{wide}}  {effects:<10}  {_first_sentence(tool.description)}")
        print(f"{'':<{wide}}  needs {', '.join(needs)}")
    return 0


def _about(tool: Tool, needs: list[str]) -> dict[str, Any]:
    effects = getattr(type(tool), "effects", "unknown")
    return {
        "name": tool.name,
        "effects": effects,
        "description": tool.description,
        "requirements": needs,
        "inputs": tool.inputs,
    }


@app.command()
def save(
    folder: Annotated[Path, typer.Argument(metavar="DIR", file_okay=False, help="Each tool gets a folder in it.")],
    names: Names = [],  # noqa: B006 - typer copies it
    verbose: Verbose = False,
) -> int:
    """Writes tools as smolagents saves them: each loads by itself, with its own requirements, in any agent."""
    from ..gateways.tool_spaces import save as write

    for path in write(made(tuple(names)), folder.expanduser()):
        print(path)
    return 0


@app.command()
def push(
    namespace: Annotated[str, typer.Argument(metavar="NAMESPACE", help="Your name on the Hub, or an organization's.")],
    names: Names = [],  # noqa: B006 - typer copies it
    public: Annotated[
        bool, typer.Option("--public", help="New Spaces for everybody to see; otherwise private.")
    ] = False,
    yes: Yes = False,
    verbose: Verbose = False,
) -> int:
    """Puts each tool into a Space of its own, private unless you say otherwise. Shows what will change and asks."""
    from huggingface_hub import HfApi

    from ..gateways import tool_spaces

    api = HfApi()
    plans = tool_spaces.plan(made(tuple(names)), namespace.strip("/"), api, public=public)
    for one in plans:
        print(one.said)
    todo = [one for one in plans if one.state != "same"]
    if not todo:
        return 0
    if not yes and not _agreed(f"Push {len(todo)} to {namespace}?"):
        return DENIED
    for one in todo:
        print(tool_spaces.push(one, api))
    return 0


@app.command()
def trust(
    name: Annotated[
        str, typer.Argument(metavar="SERVER|SPACE@COMMIT", help="An MCP server of yours, or a tool of the Hub.")
    ],
    mcp: Mcp = [],  # noqa: B006 - typer copies it
    yes: Yes = False,
    home: Home = None,
    verbose: Verbose = False,
) -> int:
    """Shows what a server's tools, or a tool from the Hub, say of themselves, so that rules can allow them from then on."""
    from ..borrowed import Borrowed, Borrowing, Pinned, read_servers
    from ..settings import Settings

    kept = Settings.load(home).home.expanduser().absolute()
    if "@" in name and "/" in name and not mcp:
        what = Borrowing(pinned=(Pinned.of(name),))
    else:
        servers = read_servers(mcp, kept)
        what = Borrowing(tuple(server for server in servers if server.name == name))
        if not what.servers:
            known = ", ".join(server.name for server in servers) or "none"
            raise InternError(
                f"There is no MCP server {name!r}", f"known: {known}", f'Name it: --mcp "{name}=COMMAND".'
            )
    problems: list[str] = []
    borrowed = Borrowed(what, kept, {}, problems.append)
    try:
        tools = borrowed.tools((), lambda: False)
        if not tools:
            raise InternError(f"{name} offers no tools", "; ".join(problems))
        return _trust(tools, yes)
    finally:
        borrowed.close()


def _trust(tools: list[ForeignTool], yes: bool) -> int:
    from .text import printable

    seen = [(tool, tool.introduce()) for tool in tools]
    for tool, shown in seen:
        print(f"\n=== {tool.name}" + (f" ({shown.news})" if shown.news else ""))
        print(printable(shown.text))
    fresh = [(tool, shown) for tool, shown in seen if shown.news]
    if not fresh:
        print("\nAll of this was read before.")
        return 0
    if not yes and not _agreed("\nIs this what you expect? From then on rules can allow calls."):
        return DENIED
    for tool, shown in fresh:
        tool.met(shown)
    print("Allow calls with --allow, such as: " + ", ".join(f"--allow {tool.name}" for tool, _ in fresh[:3]))
    return 0


def made(names: tuple[str, ...]) -> list[Tool]:
    """The tools by these names; all, if none.

    Raises:
        InternError: there is none of that name.
    """
    from .. import tools as ours

    classes = {getattr(ours, name).name: getattr(ours, name) for name in ours.__all__}
    if unknown := [name for name in names if name not in classes]:
        raise InternError(f"There is no tool {unknown[0]!r}", "", f"There are: {', '.join(sorted(classes))}.")
    return [classes[name]() for name in (names or sorted(classes))]


def _agreed(question: str) -> bool:
    if not sys.stdin.isatty():
        print(f"{question} Nobody can be asked here: --yes says so.", file=sys.stderr)
        return False
    return input(f"{question} [y/N] ").strip().lower() in ("y", "yes")


def _effects(effects: Any) -> str:
    if isinstance(effects, dict):
        return "/".join(dict.fromkeys(effects.values()))
    return str(effects)


def _first_sentence(text: str) -> str:
    sentence = " ".join(text.split()).split(". ")[0].rstrip(".")
    return sentence if len(sentence) <= 110 else sentence[:110].rsplit(" ", 1)[0] + "..."
