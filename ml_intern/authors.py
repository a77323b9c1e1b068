"""An answer that says which model wrote it: with a chain of models each step may have another author."""

from __future__ import annotations

from dataclasses import dataclass

from smolagents.models import ChatMessage


@dataclass
class Answer(ChatMessage):
    """A model's answer.

    Args:
        model (`str`): The id of the model that wrote it.
    """

    model: str = ""


def author_of(message: ChatMessage | None) -> str:
    """The model that wrote a message; `""` where it does not say."""
    return message.model if isinstance(message, Answer) else ""
