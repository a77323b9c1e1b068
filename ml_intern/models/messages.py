"""Messages for a provider's API, prepared incrementally.

smolagents' `get_clean_message_list` deep-copies all messages at every call: 69 ms at 2,000. This gives the same result
and touches only what is new.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from smolagents.models import ChatMessage, MessageRole, get_clean_message_list, tool_role_conversions

from ..thinking import Said, block_of, without_tags

Prepared = list[dict[str, Any]]


class MessagePreparer:
    """Turns `ChatMessage`s into a provider's dictionaries, keeping what it prepared before.

    Args:
        flatten_messages_as_text (`bool`, defaults to `False`): Content as one string instead of a list of parts.
        author (`str`): The model whose thinking goes back to it; `""` where none does.
        keep_tags (`bool`, defaults to `True`): Leave thinking in tags in the answers.
    """

    def __init__(self, flatten_messages_as_text: bool = False, author: str = "", keep_tags: bool = True) -> None:
        self.flatten, self.author, self.keep_tags = flatten_messages_as_text, author, keep_tags
        self._thinks_from = 0
        self._seen: list[ChatMessage] = []
        self._prepared: Prepared = []
        self._place: list[int] = []  # of each message seen: its index in `_prepared`

    @property
    def first(self) -> ChatMessage | None:
        """The message that this conversation began with, when it was last prepared."""
        return self._seen[0] if self._seen else None

    def prepare(self, messages: list[ChatMessage]) -> Prepared:
        """The messages for the API; equal to what smolagents' own function returns for them.

        Args:
            messages (`list[ChatMessage]`): The conversation so far. A message seen before must not have changed;
                one that was replaced, dropped or put in is noticed.

        Returns:
            `list[dict]`: A new list. Its dictionaries belong to the preparer, which never changes them. Answers of the `author`
            have `thinking_blocks`.
        """
        keep = self._same(messages)
        cut = self._place[keep - 1] + 1 if keep else 0
        if keep and self._merges(keep, messages):
            # Neighbours of one role become one message: that of the last ones kept changes, so it is prepared again.
            cut -= 1
            while keep and self._place[keep - 1] == cut:
                keep -= 1
        fresh: Prepared = []
        place: list[int] = []
        for group in _groups(messages[keep:]):
            start = keep + len(place)
            place += [cut + len(fresh)] * len(group)
            prepared = get_clean_message_list(
                cast("list[ChatMessage | dict]", group if self.keep_tags else self._bare(group)),
                role_conversions=tool_role_conversions,
                convert_images_to_image_urls=True,
                flatten_messages_as_text=self.flatten,
            )
            if len(group) == 1 and start >= self._thinks_from and (blocks := self._blocks(group[0], messages[0])):
                prepared[0]["thinking_blocks"] = blocks
            fresh += prepared
        # Only now: a message that cannot be prepared leaves this as it was.
        self._prepared[cut:], self._seen[keep:], self._place[keep:] = fresh, messages[keep:], place
        return list(self._prepared)

    def forget_thoughts(self) -> None:
        """Leaves out, from here on, what was thought before the answers that there are."""
        self._thinks_from = len(self._seen)
        self._prepared = [without_blocks(message) for message in self._prepared]

    def _blocks(self, message: ChatMessage, first: ChatMessage) -> list[dict[str, str]]:
        if not isinstance(message, Said) or not self.author or message.author != self.author:
            return []
        begun = (
            first.content if isinstance(first.content, str) else first.content[0].get("text") if first.content else ""
        )
        return [block_of(one) for one in message.thoughts] if begun == message.system else []

    @staticmethod
    def _bare(group: Sequence[ChatMessage]) -> list[ChatMessage]:
        return [without_tags(message) if message.role == MessageRole.ASSISTANT else message for message in group]

    def _same(self, messages: list[ChatMessage]) -> int:
        """How many messages from the first on are those of the last time."""
        known = self._seen
        keep = len(known)
        # Lists compare pointer by pointer, without touching what they point to; a message that is equal is as good.
        known.extend(messages[keep:])
        same = known == messages
        del known[keep:]
        if same:
            return keep
        pairs = enumerate(zip(known, messages, strict=False))
        return next((i for i, (old, new) in pairs if old is not new), min(keep, len(messages)))

    def _merges(self, keep: int, messages: Sequence[ChatMessage]) -> bool:
        """Whether the message kept last was merged with one now gone, or will be with the one that now follows."""
        merged = keep < len(self._seen) and self._place[keep] == self._place[keep - 1]
        return merged or (keep < len(messages) and _role(messages[keep]) == _role(messages[keep - 1]))


def without_blocks(message: dict[str, Any]) -> dict[str, Any]:
    """A prepared message without what was thought before it."""
    return {name: value for name, value in message.items() if name != "thinking_blocks"}


def _role(message: ChatMessage) -> MessageRole:
    return tool_role_conversions.get(message.role, message.role)


def _groups(messages: Sequence[ChatMessage]) -> list[list[ChatMessage]]:
    groups: list[list[ChatMessage]] = []
    last = None
    for message in messages:
        role = _role(message)
        if role != last:
            groups.append([])
            last = role
        groups[-1].append(message)
    return groups
