"""What Slack refuses of messages and modals, in its own words. Pure functions."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

BLOCKS, MODAL_BLOCKS = 50, 100
_KINDS = {"section", "actions", "context", "divider", "header", "input", "image", "rich_text", "markdown"}


def problems(blocks: Any, most: int = BLOCKS) -> list[str]:
    """What is wrong with blocks, as Slack's `response_metadata.messages` say it; empty where nothing is."""
    if not isinstance(blocks, list):
        return ["[ERROR] must be an array"]
    found = [f"[ERROR] no more than {most} items allowed [json-pointer:/blocks]"] if len(blocks) > most else []
    seen: set[str] = set()
    for place, block in enumerate(blocks):
        found += [f"[ERROR] {said} [json-pointer:/blocks/{place}]" for said in _block(block, seen)]
    return found


def modal_problems(view: Any) -> list[str]:
    """The same for a modal."""
    if not isinstance(view, dict) or view.get("type") != "modal":
        return ["[ERROR] must be a modal [json-pointer:/view/type]"]
    found = list(problems(view.get("blocks"), MODAL_BLOCKS))
    for name in ("title", "submit", "close"):
        if name in view:
            found += [f"[ERROR] {said} [json-pointer:/view/{name}]" for said in _text(view[name], 24, "plain_text")]
    if len(view.get("private_metadata", "")) > 3000:
        found.append("[ERROR] must be less than 3001 characters [json-pointer:/view/private_metadata]")
    if "title" not in view:
        found.append("[ERROR] missing required field: title [json-pointer:/view]")
    return found


def _block(block: Any, seen: set[str]) -> Iterator[str]:
    if not isinstance(block, dict) or block.get("type") not in _KINDS:
        yield "unsupported type"
        return
    if len(str(block.get("block_id", ""))) > 255:
        yield "must be less than 256 characters"
    match block["type"]:
        case "section":
            if "text" not in block and not block.get("fields"):
                yield "missing required field: text"
            if "text" in block:
                yield from _text(block["text"], 3000)
            if len(block.get("fields", [])) > 10:
                yield "no more than 10 items allowed"
            for one in block.get("fields", []):
                yield from _text(one, 2000)
            if "accessory" in block:
                yield from _element(block["accessory"], seen)
        case "header":
            yield from _text(block.get("text"), 150, "plain_text")
        case "context":
            if not 1 <= len(block.get("elements", [])) <= 10:
                yield "no more than 10 items allowed"
            for one in block.get("elements", []):
                yield from _text(one, 3000)
        case "actions":
            if not 1 <= len(block.get("elements", [])) <= 25:
                yield "no more than 25 items allowed"
            for one in block.get("elements", []):
                yield from _element(one, seen)
        case "input":
            yield from _text(block.get("label"), 2000, "plain_text")
            yield from _element(block.get("element"), seen)


def _element(element: Any, seen: set[str]) -> Iterator[str]:
    if not isinstance(element, dict):
        yield "must be an object"
        return
    name = str(element.get("action_id", ""))
    if len(name) > 255:
        yield "must be less than 256 characters"
    if name in seen:
        yield f"`action_id` must be unique: {name}"
    seen.add(name)
    if element.get("type") == "button":
        yield from _text(element.get("text"), 75, "plain_text")
        if len(element.get("value", "")) > 2000:
            yield "must be less than 2001 characters"
        if element.get("style", "primary") not in ("primary", "danger"):
            yield "must be a valid enum value"
    elif element.get("type") == "plain_text_input":
        if len(element.get("initial_value", "")) > min(3000, element.get("max_length", 3000)):
            yield "initial_value must be less than 3001 characters"
    else:
        yield "unsupported type"


def _text(text: Any, most: int, kind: str = "") -> Iterator[str]:
    if not isinstance(text, dict) or text.get("type") not in ("plain_text", "mrkdwn"):
        yield "must be a text object"
    elif kind and text["type"] != kind:
        yield f"must be {kind}"
    elif not isinstance(text.get("text"), str) or not text["text"]:
        yield "must be more than 0 characters"
    elif len(text["text"]) > most:
        yield f"must be less than {most + 1} characters"
    elif text["type"] == "plain_text" and "verbatim" in text:
        yield "unsupported field: verbatim"
