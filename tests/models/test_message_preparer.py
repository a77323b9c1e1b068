"""Incremental preparation says what smolagents' own function says, in the time that the new messages take."""

from __future__ import annotations

import copy
import time

import PIL.Image
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from smolagents.models import ChatMessage, MessageRole, get_clean_message_list, tool_role_conversions

from ml_intern.models import MessagePreparer

IMAGES = [PIL.Image.new("RGB", (2, 2), color) for color in ("red", "blue")]


def reference(messages, flatten):
    return get_clean_message_list(messages, tool_role_conversions, True, flatten)


def outcome(function, *arguments):
    """What a function returns, or the class of what it raises."""
    try:
        return function(*arguments)
    except Exception as error:  # noqa: BLE001 - whatever smolagents raises, we are to raise as well
        return type(error)


texts = st.builds(lambda text: {"type": "text", "text": text}, st.text("ab \n", max_size=4))
images = st.sampled_from(IMAGES).map(lambda image: {"type": "image", "image": image})
contents = st.lists(st.one_of(texts, texts, texts, images), max_size=3) | st.sampled_from(["plain", None])
roles = st.sampled_from([*MessageRole, MessageRole.USER, MessageRole.ASSISTANT, "user", "tool-response", "nobody"])
usual = st.builds(ChatMessage, st.sampled_from(list(MessageRole)), st.lists(texts, min_size=1, max_size=3))
some = st.lists(st.one_of(usual, usual, usual, st.builds(ChatMessage, roles, contents)), min_size=1, max_size=4)
places = st.integers(0, 12)
edits = st.one_of(
    st.tuples(st.just("append"), places, some),
    st.tuples(st.just("append"), places, some),
    st.tuples(st.just("truncate"), places, some),
    st.tuples(st.just("replace"), places, some),
    st.tuples(st.just("insert"), places, some),
    st.tuples(st.just("again"), places, some),
)


@pytest.mark.long
@settings(max_examples=200, deadline=None)
@given(st.lists(edits, max_size=12), st.booleans())
def test_equals_smolagents_for_any_history(history, flatten):
    preparer, messages, earlier = MessagePreparer(flatten), [], []
    for kind, place, new in history:
        place = min(place, len(messages))
        if kind == "append":
            messages = messages + new
        elif kind == "truncate":
            messages = messages[:place]
        elif kind == "replace":
            messages = messages[:place] + new + messages[place + 1 :]
        elif kind == "insert":
            messages = messages[:place] + new + messages[place:]
        before = copy.deepcopy(messages)
        got = outcome(preparer.prepare, messages)
        assert got == outcome(reference, messages, flatten)
        assert messages == before
        if isinstance(got, list):
            earlier.append((got, copy.deepcopy(got)))
    for got, then in earlier:  # another thread may still be sending them
        assert got == then


def conversation(length):
    roles = [MessageRole.ASSISTANT, MessageRole.TOOL_RESPONSE]
    return [ChatMessage(roles[i % 2], [{"type": "text", "text": f"{i} " + "x" * 2000}]) for i in range(length)]


def test_a_step_takes_the_time_of_what_is_new():
    messages, preparer = conversation(4000), MessagePreparer()
    preparer.prepare(messages[:3000])
    times = []
    for length in range(3002, 4001, 2):
        start = time.perf_counter()
        got = preparer.prepare(messages[:length])
        times.append(time.perf_counter() - start)
    start = time.perf_counter()
    assert got == reference(messages, False)
    whole = time.perf_counter() - start
    median = sorted(times)[len(times) // 2]
    print(f"\nprepare at 3,000 to 4,000 messages: {median * 1e3:.3f} ms; smolagents' at 4,000: {whole * 1e3:.0f} ms")
    assert median < 0.001


class Counted(PIL.Image.Image):
    saved = 0

    def save(self, *arguments, **options):
        Counted.saved += 1
        super().save(*arguments, **options)


def test_an_image_is_encoded_once():
    image = PIL.Image.new("RGB", (2, 2), "red")
    image.__class__ = Counted
    task = ChatMessage(MessageRole.USER, [{"type": "text", "text": "see"}, {"type": "image", "image": image}])
    preparer, messages = MessagePreparer(), [task]
    for message in conversation(4):
        preparer.prepare(messages)
        messages.append(message)
    assert Counted.saved == 1


def test_a_message_that_cannot_be_prepared_leaves_the_rest_usable():
    good, bad = conversation(2), ChatMessage("nobody", [{"type": "text", "text": "?"}])
    preparer = MessagePreparer()
    for messages in ([good[0], bad], [good[0], bad]):
        with pytest.raises(ValueError, match="Incorrect role nobody"):
            preparer.prepare(messages)
    assert preparer.prepare(good) == reference(good, False)
