from typing import Any

from smolagents import Tool


class NotifyTool(Tool):
    """Writes to a channel of the team's Slack that allows it; pings nobody, and makes no links but the addresses themselves.

    What must never happen here: a message to a channel that is not on the list; one that is sent twice for one call; text
    that pings a channel or hides where a link leads.

    Args:
        token (`str`, *optional*): A bot's token. Defaults to `SLACK_BOT_TOKEN`.
        channels (`list[str]`, *optional*): The channels that allow it, the usual one first. Default to
            `SLACK_NOTIFY_CHANNELS`, ids separated by commas.
    """

    name = "notify"
    description = (
        "Tells the team something in Slack now, as they do not watch: a result that changes what they would do, a cost that "
        "grows, an end that needs them. Not for progress, which they are shown anyway. A person may be asked first."
    )
    inputs = {
        "text": {"type": "string", "description": "What to say, a few lines of plain text; addresses become links."},
        "severity": {"type": "string", "description": "info (default), warning or urgent.", "nullable": True},
        "channel": {"type": "string", "description": "Its id (default: the first that allows it).", "nullable": True},
    }
    output_type = "object"
    output_schema = {
        "type": "object",
        "properties": {
            "channel": {"type": "string"},
            "ts": {"type": "string", "description": "The message's id in the channel."},
            "severity": {"type": "string"},
        },
    }
    effects = "write"
    untrusted = False  # its result says what this host did

    def __init__(self, token=None, channels=None, model_repo_id=None):
        super().__init__()
        self.token = token
        self.channels = channels
        self.call_id = None

    def forward(self, text: str, severity: str | None = "info", channel: str | None = None) -> dict:
        from slack_sdk.errors import SlackApiError, SlackClientError

        self.check(text, severity, channel)
        where, how = self._where(channel), severity or "info"
        done = self.reconcile(self.call_id, text=text, channel=channel) if self.call_id else None
        if done:
            return done
        note = {"event_type": "agent_notified", "event_payload": {"call_id": self.call_id or "", "severity": how}}
        try:
            said = self._client().chat_postMessage(
                channel=where,
                text=self._shown(text, how),
                metadata=note,
                parse="none",
                link_names=False,
                unfurl_links=False,
                unfurl_media=False,
            )
        except SlackApiError as error:
            code = error.response.get("error", "no reason given")
            needed = f" ({error.response['needed']})" if error.response.get("needed") else ""
            raise RuntimeError(
                f"Slack refused the message: {code}{needed}. Go on without it, or ask the user."
            ) from None
        except (SlackClientError, OSError) as error:
            raise RuntimeError(f"Slack cannot be reached: {error}. Go on without it.") from None
        return {"channel": where, "ts": said["ts"], "severity": how}

    def check(self, text: str, severity: str | None = "info", channel: str | None = None) -> None:
        """Raises where nothing could be said, so that no person is asked in vain."""
        if not isinstance(text, str) or not text.strip():
            raise ValueError("`text` is empty: say what happened.")
        if len(text) > 3000:
            raise ValueError(f"`text` has {len(text)} characters; a message takes 3000. Say the essence.")
        if (severity or "info") not in ("info", "warning", "urgent"):
            raise ValueError(f"`severity` is info, warning or urgent, not {severity!r}.")
        self._where(channel)

    def destination(self, **arguments: Any) -> dict:
        """Where a call writes to: everybody in that channel can read it."""
        return {"name": f"slack:{self._where(arguments.get('channel'))}", "visibility": "team"}

    def preview(self, **arguments: Any) -> str:
        """What a person should read before saying yes."""
        return self._shown(arguments["text"], arguments.get("severity") or "info")

    def reconcile(self, call_id: str, **arguments: Any) -> dict | None:
        """Whether the message of this call was sent: its result, or `None` when none of the last 100 is it."""
        from slack_sdk.errors import SlackApiError

        where = self._where(arguments.get("channel"))
        try:
            found = self._client().conversations_history(channel=where, limit=100, include_all_metadata=True)
        except SlackApiError as error:
            if error.response.get("error") == "missing_scope" and self.call_id == call_id:
                return None  # the first try of a call: nothing was sent yet
            raise
        for message in found["messages"]:
            noted = (message.get("metadata") or {}).get("event_payload") or {}
            if noted.get("call_id") == call_id:
                return {"channel": where, "ts": message["ts"], "severity": noted.get("severity", "info")}
        return None

    def _where(self, channel: str | None) -> str:
        import os

        listed = os.environ.get("SLACK_NOTIFY_CHANNELS", "").replace(",", " ").split()
        allowed = list(self.channels) if self.channels else listed
        if not allowed:
            raise ValueError(
                "No channel allows it. The user can name some in SLACK_NOTIFY_CHANNELS (ids, with commas)."
            )
        if channel and channel not in allowed:
            raise ValueError(f"The channel {channel} does not allow it; these do: {', '.join(allowed)}.")
        return channel or allowed[0]

    def _client(self) -> Any:
        import os

        from slack_sdk import WebClient

        token = self.token or os.environ.get("SLACK_BOT_TOKEN")
        if not token:
            raise ValueError("There is no token for Slack. The user can set SLACK_BOT_TOKEN.")
        address = os.environ.get("SLACK_API_URL") or WebClient.BASE_URL
        return WebClient(token, base_url=address, timeout=20)

    def _shown(self, text: str, severity: str) -> str:
        import re

        marks = {"info": ":information_source:", "warning": ":warning:", "urgent": ":rotating_light:"}
        text = re.sub(
            "[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff]", "\ufffd", text
        )
        text = text.strip().replace("```", "'''").replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
        return f"{marks[severity]} {text}"
