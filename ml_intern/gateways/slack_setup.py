"""The Slack app: its manifest, how it is set up, and whether it can do what it has to."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from .slack_outbox import explain

if TYPE_CHECKING:
    from slack_sdk import WebClient

BOT_SCOPES = {
    "chat:write": "saying anything",
    "files:write": "plots and long texts",
    "files:read": "files that people drop",
    "app_mentions:read": "hearing its name",
    "channels:history": "hearing replies in its threads",
    "groups:history": "the same in private channels",
    "im:history": "direct messages",
    "mpim:history": "direct messages of several people",
    "channels:read": "looking whether it is in the channel",
    "groups:read": "the same for private channels",
    "im:read": "the same for direct messages",
    "mpim:read": "the same for those of several people",
    "commands": "the slash command",
}
NEEDED = ("chat:write",)
"""Without these nothing works; without others a part does not."""
_OPTIONAL = ("commands", "groups:history", "groups:read", "mpim:history", "im:read", "mpim:read")

MANIFEST = Path(__file__).with_name("slack-app.yaml").read_text(encoding="utf-8")
"""What the app is made of: pasted as it is."""

STEPS = """\
 1. python -m ml_intern slack --manifest > slack-app.yaml
 2. api.slack.com/apps: Create New App, From a manifest, your workspace; paste the file.
 3. Install to Workspace (OAuth & Permissions).
 4. export SLACK_BOT_TOKEN=xoxb-...     the Bot User OAuth Token on the same page
 5. Basic Information, App-Level Tokens: Generate, with the scope connections:write.
 6. export SLACK_APP_TOKEN=xapp-...
 7. In Slack: /invite @ML Intern in a channel. Its id stands at the end of its details.
 8. export SLACK_CHANNEL_ID=C...        where sessions of a terminal are told
 9. export SLACK_OWNER=U...             you (profile, Copy member ID); SLACK_APPROVERS=U...,U... for more
10. python -m ml_intern slack, then write to it: @ML Intern fine-tune ..."""


def check(client: WebClient, channel: str, both_ways: bool) -> tuple[dict[str, str], list[str]]:
    """Looks whether the app can do what it has to.

    Args:
        client (`WebClient`): With the bot's token.
        channel (`str`): Where sessions of a terminal are told; `""` for nowhere.
        both_ways (`bool`): Whether people act from Slack.

    Returns:
        `tuple[dict, list[str]]`: Who the app is (`user_id`, `team_id`), and what is amiss, each with what to do.

    Raises:
        SlackApiError: the token is refused.
        OSError: Slack cannot be reached.
    """
    from slack_sdk.errors import SlackApiError

    who = client.auth_test()
    amiss = []
    granted = _granted(who.headers)
    for scope, what in BOT_SCOPES.items():
        wanted = scope in NEEDED or (both_ways and scope not in _OPTIONAL) or scope == "files:write"
        if granted and wanted and scope not in granted:
            amiss.append(
                f"The Slack app lacks the scope {scope} ({what}). Add it under OAuth & Permissions and install it again."
            )
    if channel:
        try:
            info = client.conversations_info(channel=channel)["channel"]
        except SlackApiError as error:
            code = str(error.response.get("error", ""))
            if code != "missing_scope":
                amiss.append(explain(code, error.response))
        else:
            if not info.get("is_member", True) and not info.get("is_im"):
                amiss.append(explain("not_in_channel"))
            if info.get("is_ext_shared"):
                amiss.append("The channel is shared with another workspace: what is said there is not acted on.")
    return {name: str(who.get(name) or "") for name in ("user_id", "team_id")}, amiss


def _granted(headers: Any) -> set[str]:
    found = {str(name).lower(): value for name, value in dict(headers).items()}.get("x-oauth-scopes", "")
    said = ",".join(found) if isinstance(found, list) else str(found)
    return {scope.strip() for scope in said.split(",") if scope.strip()}
