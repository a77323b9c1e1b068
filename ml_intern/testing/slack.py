"""A Slack on this machine: the Web API and Socket Mode, for the unmodified `slack_sdk` clients.

It behaves as Slack does where a client can tell the difference: errors in its words, limits of blocks, rate limits, scopes,
envelopes that are sent again until they are acknowledged, tickets and triggers that work once, uploads in three steps.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

from .slack_socket import Envelope
from .slack_web import BOT, TEAM, Message, Upload, Workspace

__all__ = ["BOT", "TEAM", "LocalSlack", "Message", "Upload"]


class LocalSlack(Workspace):
    """A workspace with channels, people and one app.

    Args:
        folder (`Path`, *optional*): Taken for the sake of `serve`; nothing is kept.
        port (`int`, defaults to 0): Of the Web API.
        patience (`float`, defaults to 3): Seconds that Socket Mode waits for an acknowledgement before it sends an event again.

    Attributes:
        messages (`list[Message]`): What was said, oldest first, by whomever.
        uploads (`list[Upload]`): Files that were shared.
        views (`list[dict]`): Modals that were opened.
        channels (`dict[str, dict]`): By id; `is_member` and `is_ext_shared` may be changed.
        scopes (`set[str]`): What the app was granted; taking one away gives `missing_scope`.
    """

    def __init__(self, folder: Path | None = None, *, port: int = 0, patience: float = 3.0) -> None:
        super().__init__(port, patience)

    def environment(self, channel: str = "C1") -> dict[str, str]:
        """What a client needs to find it."""
        return {
            "SLACK_API_URL": f"{self.service.url}/api/",
            "SLACK_BOT_TOKEN": self.bot_token,
            "SLACK_APP_TOKEN": self.app_token,
            "SLACK_CHANNEL_ID": channel,
        }

    def __enter__(self) -> Self:
        self.service.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.service.close()
        self.socket.close()

    # What people do.

    def say(
        self,
        user: str,
        text: str,
        channel: str = "C1",
        thread_ts: str = "",
        files: dict[str, bytes] | None = None,
        times: int = 1,
        **extra: Any,
    ) -> Message:
        """Somebody writes; the app is told, once for the message and once more for a mention, as Slack does it.

        Args:
            files (`dict[str, bytes]`, *optional*): Dropped with it, by name.
            times (`int`, defaults to 1): How often each event is delivered.
            extra: Further fields of the event (`subtype`, `bot_id`, `user_team`, ...).
        """
        message = Message(channel, self._ts(), user, text, thread_ts)
        with self._changed:
            self.messages.append(message)
            self._changed.notify_all()
        event: dict[str, Any] = {"type": "message", "user": user, "text": text, "ts": message.ts, "channel": channel,
            "team": TEAM, "channel_type": "im" if channel.startswith("D") else "channel"}  # fmt: skip
        if thread_ts:
            event["thread_ts"] = thread_ts
        if files:
            event |= {"subtype": "file_share", "files": [self._file(name, data) for name, data in files.items()]}
        event |= extra
        events = [event]
        if f"<@{BOT}>" in text and not channel.startswith("D") and "subtype" not in extra:
            events.append({**event, "type": "app_mention"})
        for one in events:
            for _ in range(times):
                self.tell(one)
        return message

    def tell(self, event: dict[str, Any], **outer: Any) -> Envelope:
        """An event of the Events API."""
        body = {"type": "event_callback", "team_id": TEAM, "event_id": f"Ev{next(self._numbers)}", "event": event}
        return self.socket.send("events_api", {**body, "is_ext_shared_channel": False, **outer})

    def click(self, message: Message, action_id: str, user: str = "UANN", times: int = 1, **forged: Any) -> Envelope:
        """Somebody presses a button of a message. `forged` replaces fields of the action; `team` that of the person."""
        team = forged.pop("team", TEAM)
        button = message.buttons().get(action_id, {"action_id": action_id, "value": ""})
        envelope = None
        for _ in range(times):
            action = {"type": "button", "block_id": "b", "action_id": action_id, "value": button["value"],
                "action_ts": self._ts(), **forged}  # fmt: skip
            payload = {
                "type": "block_actions", "team": {"id": TEAM}, "api_app_id": "A1", "trigger_id": self._trigger(),
                "user": {"id": user, "username": user.lower(), "name": user.lower(), "team_id": team},
                "channel": {"id": message.channel, "name": "x"},
                "container": {"type": "message", "message_ts": message.ts, "channel_id": message.channel},
                "message": {"ts": message.ts, "text": message.text, "blocks": message.blocks}, "actions": [action],
                "response_url": self._respond(user, message.channel),
            }  # fmt: skip
            envelope = self.socket.send("interactive", payload, accepts_response_payload=False)
        assert envelope is not None
        return envelope

    def submit(self, view: dict[str, Any], values: dict[str, str], user: str = "UANN", **changed: Any) -> Envelope:
        """Somebody submits a modal; `values` by `block_id`, what is not given stays as it was."""
        state: dict[str, Any] = {}
        for block in view["blocks"]:
            if block["type"] == "input":
                element = block["element"]
                value = values.get(block["block_id"], element.get("initial_value"))
                state[block["block_id"]] = {element["action_id"]: {"type": element["type"], "value": value}}
        shown = {**view, "state": {"values": state}, **changed}
        person = {"id": user, "username": user.lower(), "name": user.lower(), "team_id": TEAM}
        return self.socket.send(
            "interactive",
            {"type": "view_submission", "team": {"id": TEAM}, "user": person, "view": shown},
            accepts_response_payload=True,
        )

    def command(self, user: str, text: str, channel: str = "C1") -> Envelope:
        """Somebody uses the slash command."""
        payload = {"command": "/ml-intern", "text": text, "user_id": user, "user_name": user.lower(), "team_id": TEAM,
            "channel_id": channel, "trigger_id": self._trigger(), "response_url": self._respond(user, channel)}  # fmt: skip
        return self.socket.send("slash_commands", payload, accepts_response_payload=True)

    def limit(self, method: str, seconds: float) -> None:
        """Answers a method (`""`: all of them) with 429 for so long. Slack says whole seconds: 1 at least."""
        with self._lock:
            self._limited[method] = time.monotonic() + seconds

    def said(self, thread_ts: str | None = None) -> list[Message]:
        """What the app has said to all, in one thread or anywhere."""
        with self._lock:
            own = [message for message in self.messages if message.user == BOT and not message.to]
        return [message for message in own if thread_ts is None or thread_ts in (message.thread_ts, message.ts)]

    def wait(self, condition: Callable[[], Any], seconds: float = 10.0) -> Any:
        """Waits until `condition` gives something true, and returns that; looks whenever something was said or changed."""
        ends = time.monotonic() + seconds
        with self._changed:
            while not (value := condition()):
                if time.monotonic() > ends:
                    raise TimeoutError("it did not come to that: " + " | ".join(m.shown for m in self.said())[-3000:])
                self._changed.wait(0.05)
            return value

    def _file(self, name: str, data: bytes) -> dict[str, Any]:
        number = f"F{next(self._numbers)}"
        self._files[number] = data
        url = f"{self.service.url}/files/{number}"
        return {
            "id": number,
            "name": name,
            "size": len(data),
            "mode": "hosted",
            "url_private_download": url,
            "url_private": url,
        }
