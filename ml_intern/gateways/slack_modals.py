"""Modals: a reason for saying no, an answer in one's own words, arguments to change. Pure functions."""

from __future__ import annotations

import json
from typing import Any

from ..events import ApprovalRequest
from .slack_text import escape, visible

REASON, EDITED, ANSWERED = "reason", "edited", "answered"
"""What a modal is for (`callback_id`)."""
LONGEST = 3_000
"""Characters that an input takes."""
FIELDS = 40
View = dict[str, Any]


def reason(request: ApprovalRequest, key: str) -> View:
    """Why not? The agent reads it."""
    field = _input("reason", "Why not? The agent reads it.", "", multiline=True, optional=True)
    return _modal(REASON, "Reject", "Reject", key, [field])


def answer(request: ApprovalRequest, key: str) -> View:
    """An answer to a question of the agent's, in one's own words."""
    asked = visible(str(request.arguments.get("question") or "Your answer"))
    label = asked if len(asked) <= 1_900 else asked[:1_900] + "…"
    return _modal(ANSWERED, "Answer", "Answer", key, [_input("answer", label, "", multiline=True)])


def edit(request: ApprovalRequest, key: str) -> View:
    """The arguments of a call, each in an input; those that are too long for one are named and stay as they are."""
    blocks, left = [], []
    for name, value in request.arguments.items():
        text = shown(value)
        if len(text) > LONGEST or len(blocks) >= FIELDS or len(name) > 200:
            left.append(name)
            continue
        kind = "" if isinstance(value, str) else " (JSON)"
        blocks.append(
            _input(
                f"arg:{name}",
                f"{visible(name)}{kind}",
                text,
                multiline=len(text) > 60 or "\n" in text,
                optional=isinstance(value, str),
            )
        )
    if left:
        note = f"Too long to be edited here, and left as they are: {escape(', '.join(left)[:1_000])}"
        blocks.append({"type": "section", "text": {"type": "mrkdwn", "text": note, "verbatim": True}})
    return _modal(EDITED, "Edit the arguments", "Use these", key, blocks)


def changes(request: ApprovalRequest, values: dict[str, str]) -> tuple[dict[str, Any], dict[str, str]]:
    """What a person has changed, and what is wrong with it.

    Args:
        request (`ApprovalRequest`): What they were shown.
        values (`dict[str, str]`): By `block_id`.

    Returns:
        `tuple[dict, dict]`: The arguments that differ; errors by `block_id`, as Slack shows them under an input.
    """
    changed: dict[str, Any] = {}
    wrong: dict[str, str] = {}
    for name, old in request.arguments.items():
        block = f"arg:{name}"
        if block not in values or values[block] == shown(old):
            continue
        if isinstance(old, str):
            changed[name] = values[block]
            continue
        try:
            new = json.loads(values[block])
        except ValueError:
            wrong[block] = "This is not JSON. Texts stand in double quotes."
            continue
        if new != old:
            changed[name] = new
    if not changed and not wrong:
        first = next((block for block in values if block.startswith("arg:")), None)
        if first is not None:  # Slack shows an error only under an input
            wrong[first] = "Nothing is changed. Approve it instead."
    return changed, wrong


def shown(value: Any) -> str:
    """A value as it stands in an input."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return text.replace("\r\n", "\n")


def _modal(purpose: str, title: str, submit: str, key: str, blocks: list[dict[str, Any]]) -> View:
    return {
        "type": "modal",
        "callback_id": purpose,
        "private_metadata": key,
        "title": _plain(title),
        "submit": _plain(submit),
        "close": _plain("Cancel"),
        "blocks": blocks,
    }


def _input(block: str, label: str, value: str, multiline: bool = False, optional: bool = False) -> dict[str, Any]:
    element: dict[str, Any] = {"type": "plain_text_input", "action_id": block, "multiline": multiline}
    if value:
        element["initial_value"] = value
    return {"type": "input", "block_id": block, "label": _plain(label), "element": element, "optional": optional}


def _plain(text: str) -> dict[str, Any]:
    return {"type": "plain_text", "text": text if text.strip() else "…", "emoji": False}
