"""`doctor`: what works on this machine, and the command that brings the rest. It never shows a secret."""

from __future__ import annotations

import json
import os
import platform
import shutil
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import InternError, NoModel
from ..secrets import Masker
from ..settings import Settings

if TYPE_CHECKING:
    from ..models import Endpoint

HUB_SECONDS = 3.0
NEEDED_BYTES, COMFORTABLE_BYTES = 200_000_000, 5_000_000_000


@dataclass(frozen=True)
class Finding:
    """What one check found.

    `ok` is `None` where something is missing that a task can do without; `remedy` is what to do about it.
    """

    name: str
    ok: bool | None
    says: str
    remedy: str = ""


def run(home: Path | None = None, as_json: bool = False) -> int:
    """Checks everything and shows it.

    Returns:
        `int`: 0 when a task could run here, otherwise 1.
    """
    mask = Masker().text
    findings = [
        Finding(f.name, f.ok, mask(f.says), mask(f.remedy))
        for f in (python(), jail(), gpus(home), *models(), hub(), slack(), *servers(home), *place(home))
    ]
    missing = list(dict.fromkeys(finding.name for finding in findings if finding.ok is False))
    if as_json:
        print(json.dumps({"ready": not missing, "checks": [asdict(finding) for finding in findings]}))
    else:
        _show(findings, missing)
    return 1 if missing else 0


def _show(findings: list[Finding], missing: list[str]) -> None:
    from rich.text import Text

    from .paper import Paper
    from .text import printable

    paper = Paper()
    marks = {True: ("✓", "green"), None: ("·", "yellow"), False: ("✗", "red")}
    paper.put(Text.assemble(("ML Intern ", "bold"), (version("smolagents-ml-intern"), "dim")))
    paper.gap()
    for finding in findings:
        mark, style = marks[finding.ok]
        paper.put(Text.assemble((f"{mark} ", style), f"{finding.name:<8}", printable(finding.says)), 2, 12)
        if finding.remedy:
            paper.put(Text(printable(finding.remedy), "dim" if finding.ok else ""), 12)
    paper.gap()
    if missing:
        paper.put(Text(f"A task cannot run yet: {' and '.join(missing)}.", "bold"))
        if missing == ["model"]:
            paper.put("The demo can: it needs no model and no key.")
    else:
        paper.put(Text("A task can run.", "bold green"))


def python() -> Finding:
    good = sys.version_info >= (3, 11)
    where = f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    return Finding("Python", good, where, "" if good else "Python 3.11 or newer: uv venv --python 3.11")


def jail() -> Finding:
    """What would lock the model's code in here."""
    from ..execution.jail import JailUnavailable, find_jail, try_bubblewrap

    try:
        kind = find_jail().kind
    except JailUnavailable as error:
        if not sys.platform.startswith("linux"):
            first = "There is no local jail on this system."
            return Finding(
                "jail", False, first, "Work in a Linux container, or with E2B: E2B_API_KEY=... and --executor e2b"
            )
        first, _, rest = str(error).partition("\n")
        return Finding("jail", False, first, rest if shutil.which("bwrap") else f"{_install('bubblewrap')}\n{rest}")
    if kind == "landlock":
        weaker = f"bubblewrap, which hides more, does not work: {try_bubblewrap()}"
        says = f"landlock: the code is locked in, and has no network at all ({weaker})"
        return Finding("jail", True, says, "" if shutil.which("bwrap") else _install("bubblewrap"))
    return Finding(
        "jail", True, f"{kind}: the model's code is locked in, without your keys; it reads the public Hub (--network)"
    )


def gpus(home: Path | None) -> Finding:
    """The GPUs here, and whether code will see them."""
    from ..execution.gpus import GpusUnavailable, find_gpus

    try:
        wanted = Settings.load(home).gpus
    except InternError as error:
        return Finding("GPUs", False, f"{error.what}: {error.why}", error.remedy)
    try:
        names = ", ".join(find_gpus().names())
    except GpusUnavailable as error:
        says = f"{error.what} ({error.why})"
        return Finding(
            "GPUs", False if wanted else None, says, error.remedy if wanted or "no /dev" not in error.why else ""
        )
    if wanted:
        return Finding("GPUs", True, f"code may use {names} (ML_INTERN_GPUS)")
    return Finding("GPUs", None, f"{names}: code does not see them unasked", "--gpus or ML_INTERN_GPUS=1")


def _install(package: str) -> str:
    sudo = "" if os.geteuid() == 0 else "sudo "
    for manager, words in (
        ("apt-get", "install -y"),
        ("dnf", "install -y"),
        ("pacman", "-S"),
        ("apk", "add"),
        ("zypper", "install"),
    ):
        if shutil.which(manager):
            return f"{sudo}{manager} {words} {package}"
    return f"Install {package} with this system's package manager."


def models() -> list[Finding]:
    """The models that a task would ask, the best one first, and whether each could answer. One is enough."""
    from ..models import resolve_all
    from ..offline import go_offline, is_offline

    if is_offline():
        go_offline()
    try:
        found = resolve_all(offline=is_offline())
    except NoModel as error:
        return [Finding("model", False, f"{error.what}{f' ({error.why})' if error.why else ''}", error.remedy)]

    def look(endpoint: Endpoint) -> Finding:
        says = f"{endpoint.model_id}{f' ({endpoint.why})' if endpoint.why else ' (LLM_ENDPOINT)'}"
        return _looked_at(endpoint, says)

    with ThreadPoolExecutor(len(found.entries)) as pool:
        findings = list(pool.map(look, found.entries))
    if any(finding.ok for finding in findings):  # the chain works
        findings = [finding if finding.ok else replace(finding, ok=None) for finding in findings]
    return [*findings, *(Finding("model", None, note.replace("\n", " ")) for note in found.notes)]


def _looked_at(endpoint: Endpoint, says: str) -> Finding:
    from ..errors import ModelFailed
    from ..models.endpoint import missing_key
    from ..models.servers import look

    if needed := missing_key(endpoint, os.environ):
        return Finding("model", False, f"{says}: {needed} is not set", f"export {needed}=...\n{_another()}")
    try:
        if endpoint.embedded:
            from ..models.embedded import EmbeddedModel

            return Finding("model", True, says, EmbeddedModel.of(endpoint).look())
        if endpoint.server is None or not endpoint.api_base:
            return Finding("model", True, says)
        model = endpoint.model_id.partition("/")[2]
        seen = look(endpoint.server, model, endpoint.api_base, endpoint.api_key or "none")
    except ModelFailed as error:
        if error.kind == "unreachable":
            says = f"{says}: no server answers at {endpoint.api_base}"
            return Finding("model", False, says, f"{error.remedy}\n{_another()}")
        return Finding("model", False, f"{error.what}{f' ({error.why})' if error.why else ''}", error.remedy)
    reads = f", reads {seen.window:,} tokens" if seen.window else ""
    return Finding("model", True, f"{says}{reads}", seen.note)


def _another() -> str:
    """What would be taken if `LLM_ENDPOINT` were not set: a key, or a local server on its usual port."""
    from ..models import resolve

    try:
        found = resolve(environment={name: value for name, value in os.environ.items() if name != "LLM_ENDPOINT"})
    except NoModel:
        return ""
    return f"Or unset LLM_ENDPOINT: {found.model_id} would be taken, as {found.why}."


def hub() -> Finding:
    """Whose token there is. The Hub gets three seconds to answer; a task can do without a token."""
    import httpx
    from huggingface_hub import HfApi, constants, get_token
    from huggingface_hub.errors import HfHubHTTPError

    token = get_token()
    if not token:
        return Finding("Hub", None, "no token: public things can be read, nothing published", "hf auth login")
    if constants.HF_HUB_OFFLINE:
        return Finding("Hub", None, "a token, not tried: HF_HUB_OFFLINE is set")
    answer: list[Finding] = []

    def try_it() -> None:
        try:
            name = HfApi().whoami(token)["name"]
            answer.append(Finding("Hub", True, f"signed in as {name}"))
        except HfHubHTTPError as error:
            refused = error.response.status_code in (401, 403)
            says = "the token is refused" if refused else f"a token, but the Hub answers {error.response.status_code}"
            answer.append(Finding("Hub", None, says, "hf auth login" if refused else ""))
        except (httpx.HTTPError, OSError, ValueError, KeyError) as error:
            answer.append(Finding("Hub", None, f"a token, but the Hub cannot be reached ({type(error).__name__})"))

    asking = threading.Thread(target=try_it, daemon=True)
    asking.start()
    asking.join(HUB_SECONDS)
    return answer[0] if answer else Finding("Hub", None, "a token, but no answer from the Hub within 3 s")


def slack() -> Finding:
    """Whether Slack can be told, and whether people there can answer."""
    bot, channel, app = (os.environ.get(f"SLACK_{name}") for name in ("BOT_TOKEN", "CHANNEL_ID", "APP_TOKEN"))
    if not bot or not (channel or app):
        lacking = " and ".join(
            name for name, value in (("SLACK_BOT_TOKEN", bot), ("SLACK_CHANNEL_ID", channel)) if not value
        )
        return Finding("Slack", None, f"no notifications: {lacking} not set", "Set it up: slack --help")
    if not app:
        return Finding("Slack", True, "a token and a channel are set: it is told (answers need SLACK_APP_TOKEN)")
    if not (os.environ.get("SLACK_OWNER") or os.environ.get("SLACK_APPROVERS")):
        return Finding(
            "Slack", None, "it is told, and nobody may answer there", "export SLACK_OWNER=U... (your member ID)"
        )
    return Finding("Slack", True, "it is told and answers: tokens and people are set (`slack` listens)")


def servers(home: Path | None) -> list[Finding]:
    """The MCP servers of this home, as far as one can see without starting them; nothing where there are none."""
    from ..borrowed import read_servers

    try:
        found = read_servers((), Settings.load(home).home.expanduser().absolute())
    except InternError as error:
        return [Finding("MCP", False, f"{error.what}: {error.why}", error.remedy)]
    lacking = [server.name for server in found if server.command and server.program is None]
    if lacking:
        return [Finding("MCP", None, f"no program for {', '.join(lacking)}", "Install it, or correct mcp.json.")]
    named = ", ".join(server.name for server in found)
    return (
        [Finding("MCP", True, f"{named}: calls are asked about (`tools trust NAME` shows what they say)")]
        if found
        else []
    )


def place(home: Path | None) -> list[Finding]:
    """Where sessions go, and how much room there is."""
    try:
        sessions = Settings.load(home).sessions()
    except InternError as error:
        return [Finding("home", False, f"{error.what}: {error.why}", error.remedy)]
    free = shutil.disk_usage(sessions).free
    room = f"{free / 1e9:.1f} GB free"
    if free >= COMFORTABLE_BYTES:
        disk = Finding("disk", True, room)
    else:
        remedy = "Make room, or choose another place: --home DIR or ML_INTERN_HOME=DIR."
        disk = Finding("disk", None if free >= NEEDED_BYTES else False, room, remedy)
    return [Finding("home", True, str(sessions.parent)), disk]
