"""What a step is made of, out of a row that anyone may have written."""

from __future__ import annotations

import base64
import io
from typing import TYPE_CHECKING, Any

from smolagents import utils
from smolagents.agents import AgentError, AgentMaxStepsError, AgentParsingError
from smolagents.models import TokenUsage
from smolagents.monitoring import AgentLogger, LogLevel, Timing

from ..steps import CompactionStep
from .rows import Row
from .values import count, moment, number, text

if TYPE_CHECKING:
    from PIL.Image import Image

_QUIET = AgentLogger(level=LogLevel.OFF)


def observed(seen: str, error: str | None) -> str | None:
    """The observation in what a row shows, which has the step's error after it."""
    if error is None:
        return seen or None
    said = f"Error:\n{error}"
    if seen.endswith(f"\n{said}"):
        return seen[: -len(said) - 1]
    place = seen.rfind("\nError:\n")
    return None if seen == said or place < 0 else seen[:place]


def inner_blocks(result: Row) -> list[Row]:
    """What a `tool_result` holds."""
    content = result.get("content")
    if isinstance(content, str):
        return [{"type": "text", "text": content}]
    return [part for part in content if isinstance(part, dict)] if isinstance(content, list) else []


def joined(blocks: list[Row]) -> str:
    return "\n".join(text(block.get("text")) for block in blocks if block.get("type") == "text")


def image_of(block: Row) -> Image | None:
    import PIL.Image

    source = block.get("source")
    try:
        image = PIL.Image.open(io.BytesIO(base64.b64decode(source["data"])))  # ty: ignore[not-subscriptable]
        image.load()
    except Exception:  # noqa: BLE001 - decoders raise what they like; what is no image is said to be none
        return None
    return image


def timing_of(row: Row) -> Timing:
    end = moment(row.get("timestamp"))
    return Timing(start_time=end - number(row.get("seconds")), end_time=end)


def tokens_of(row: Row) -> TokenUsage | None:
    message = row.get("message")
    used = message.get("usage") if isinstance(message, dict) else None
    if not isinstance(used, dict):
        return None
    names = ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens")
    return TokenUsage(sum(count(used.get(name)) for name in names), count(used.get("output_tokens")))


def error_of(failure: Any) -> AgentError:
    data = failure if isinstance(failure, dict) else {}
    kinds = (AgentError, AgentMaxStepsError, AgentParsingError, utils.AgentExecutionError, utils.AgentGenerationError)
    kind = next((kind for kind in kinds if kind.__name__ == data.get("type")), AgentError)
    return kind(text(data.get("message")), _QUIET)


def checked(step: CompactionStep | None, size: int) -> CompactionStep | None:
    """A compaction whose figures can be relied on; `None` where they cannot. Places count from where it stands."""
    if step is None:
        return None
    counts = (step.at, step.limit, step.start, step.masked, step.cut, step.before, step.after)
    if any(type(value) is not int or value < 0 for value in counts):
        return None
    texts = (step.trigger, step.rung, step.lead, step.reminder, step.summary)
    if not isinstance(step.handles, list) or not all(isinstance(value, str) for value in (*texts, *step.handles)):
        return None
    shift = size - step.at  # another program may have taken rows out
    step.at, step.start = size, min(max(step.start + shift, 0), size)
    step.masked = min(max(step.masked + shift, 0), size) if step.masked else 0
    step.limit = max(step.limit, 256)
    return step
