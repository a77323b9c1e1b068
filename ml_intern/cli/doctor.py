"""`doctor`: what works on this machine, and the command that brings the rest. It never shows a secret."""

from __future__ import annotations

import json
import os
import platform
import shutil
import socket
import sys
import threading
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from urllib.parse import urlsplit

from ..errors import InternError, NoModel
from ..secrets import Masker
from ..settings import Settings

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
        for f in (python(), jail(), gpus(home), model(), hub(), slack(), *place(home))
    ]
    missing = [finding.name for finding in findings if finding.ok is False]
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


def model() -> Finding:
    """The model that a task would get, and whether there is a key or a server for it."""
    from ..models import resolve

    try:
        endpoint = resolve()
    except NoModel as error:
        return Finding("model", False, error.what, error.remedy)
    says = f"{endpoint.model_id}{f' ({endpoint.why})' if endpoint.why else ' (LLM_ENDPOINT)'}"
    host = urlsplit(endpoint.api_base or "")
    if host.hostname in ("127.0.0.1", "localhost", "::1"):
        if not _answers(host.hostname, host.port or 80):
            return Finding("model", False, f"{says}: no server answers at {endpoint.api_base}", _another())
    else:
        provider = next((name for name in _NEEDS if endpoint.model_id.removeprefix("openai/").startswith(name)), "")
        needed = _NEEDS.get(provider, "")
        if needed and not endpoint.api_key and not os.environ.get(needed):
            return Finding("model", False, f"{says}: {needed} is not set", f"export {needed}=...\n{_another()}")
    return Finding("model", True, says)


_NEEDS = {
    "anthropic/": "ANTHROPIC_API_KEY",
    "claude-": "ANTHROPIC_API_KEY",
    "gpt-": "OPENAI_API_KEY",
    "gemini/": "GEMINI_API_KEY",
    "mistral/": "MISTRAL_API_KEY",
    "deepseek/": "DEEPSEEK_API_KEY",
    "openrouter/": "OPENROUTER_API_KEY",
    "groq/": "GROQ_API_KEY",
}


def _another() -> str:
    """What would be taken if `LLM_ENDPOINT` were not set: a key, or a local server on its usual port."""
    from ..models import resolve

    try:
        found = resolve(environment={name: value for name, value in os.environ.items() if name != "LLM_ENDPOINT"})
    except NoModel:
        return ""
    return f"Or unset LLM_ENDPOINT: {found.model_id} would be taken, as {found.why}."


def _answers(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), timeout=0.3).close()
    except OSError:
        return False
    return True


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
    bot = os.environ.get("SLACK_BOT_TOKEN")
    channel = os.environ.get("SLACK_CHANNEL_ID")
    if bot and channel:
        return Finding("Slack", True, "a token and a channel are set")
    lacking = " and ".join(
        name for name, value in (("SLACK_BOT_TOKEN", bot), ("SLACK_CHANNEL_ID", channel)) if not value
    )
    return Finding("Slack", None, f"no notifications: {lacking} not set")


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
