"""`mcp`: this project's tools for any MCP client, over standard input and output or over HTTP on this machine."""

from __future__ import annotations

import inspect
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InternError

if TYPE_CHECKING:
    from smolagents import Tool

    from ..execution import JailRunner

PORT = 8756


def run(
    names: tuple[str, ...],
    *,
    http: bool = False,
    port: int = PORT,
    folder: Path | None = None,
    allow: tuple[str, ...] = (),
    deny: tuple[str, ...] = (),
    home: Path | None = None,
) -> int:
    """Serves until the client leaves, or until it is stopped.

    Args:
        names (`tuple[str, ...]`): The tools; all that only read, if none.
        http (`bool`), port (`int`): Over HTTP instead; port 0 takes a free one.
        folder (`Path`, *optional*): For files that tools read and leave; otherwise one in the home.
        allow (`tuple[str, ...]`), deny (`tuple[str, ...]`): Rules.
    """
    from ..approval import ApprovalPolicy
    from ..settings import Settings

    kept = Settings.load(home).home.expanduser().absolute()
    place = (folder or kept / "mcp" / "files").expanduser().absolute()
    services, runners = _services(place)
    tools = chosen(names, services)
    from ..gateways.mcp_calls import CallDesk
    from ..gateways.mcp_server import serve

    policy = ApprovalPolicy.of(allow, deny, trust_vouched=False)
    desk = CallDesk(place, kept, policy, services, _find_own)
    server = serve(tools, desk, str(place))
    try:
        if not http:
            server.run("stdio")
            return 0
        from ..gateways import mcp_http

        token, made = mcp_http.chosen_token()
        listening = mcp_http.listen(port)
        mcp_http.run(server, listening, token, lambda url: _say(url, token if made else "", len(tools)))
    finally:
        desk.close()
        for one in runners:
            one.close()
    return 0


def chosen(names: tuple[str, ...], services: dict[str, Any]) -> list[Tool]:
    """The tools by these names; all that only read and can work here, if none.

    Raises:
        InternError: there is none of that name.
    """
    from .. import tools as ours
    from ..off_tools import without_network
    from ..offline import is_offline

    classes = {getattr(ours, name).name: getattr(ours, name) for name in ours.__all__}
    unknown = [name for name in names if name not in classes]
    if unknown:
        raise InternError(f"There is no tool {unknown[0]!r}", "", f"There are: {', '.join(sorted(classes))}.")
    wanted = names or tuple(name for name, kind in classes.items() if _by_default(kind, services))
    made = [classes[name]() for name in dict.fromkeys(wanted)]
    return without_network(made) if is_offline() else made


def _by_default(kind: Any, services: dict[str, Any]) -> bool:
    effects = getattr(kind, "effects", None)
    reads = effects == "read" or (isinstance(effects, dict) and set(effects.values()) == {"read"})
    needed = set(inspect.signature(kind.__init__).parameters) & {"jobs", "records", "runner"}
    return reads and needed <= services.keys()


def _services(folder: Path) -> tuple[dict[str, Any], list[JailRunner]]:
    """What tools need of this host, made when the first of them is called; and what of it has to be closed."""
    made: list[JailRunner] = []

    def runner() -> JailRunner:
        from ..execution import JailRunner

        if not made:
            made.append(JailRunner())
        return made[0]

    def workspace() -> Any:
        from ..execution import Workspace

        return Workspace(folder)

    return {"workspace": workspace, "runner": runner}, made


def _find_own() -> frozenset[str]:
    from ..intern import _own_namespaces

    return _own_namespaces()


def _say(url: str, token: str, count: int) -> None:
    """On standard error: where it is, and the token if it was made here."""
    print(f"{count} tools at {url}", file=sys.stderr)
    if token:
        print(f"Authorization: Bearer {token}", file=sys.stderr)
    else:
        print("Authorization: Bearer and the value of ML_INTERN_MCP_TOKEN", file=sys.stderr)
    sys.stderr.flush()
