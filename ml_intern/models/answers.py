"""What a model's answer means: code to run, a final answer, or one short hint about what is wrong with it.

What must never happen here: code is run that the model did not write to be run (a draft in its thoughts, half of a block that
was cut off, another language); a well-formed answer is read otherwise than smolagents reads it; an answer raises.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from . import answer_calls as calls
from . import answer_text as text
from .answer_calls import NativeCall, Tools
from .answer_text import Tags
from .table import holds_to_schema

__all__ = ["CODE_TAGS", "Given", "NativeCall", "Reading", "read", "shape_of", "wants_structure"]

CODE_TAGS: Tags = ("<code>", "</code>")
CUT_OFF = ("length", "max_tokens")
"""Why an answer ended, where its end is missing."""


@dataclass(frozen=True)
class Given:
    """What a model gave.

    Args:
        text (`str`): Its words, exactly.
        calls (`tuple[NativeCall, ...]`): Structured calls of tools beside them.
        finish (`str`): Why it ended, as the provider says: `stop`, `length`, `tool_calls`, `content_filter`; `""`: not known.
    """

    text: str = ""
    calls: tuple[NativeCall, ...] = ()
    finish: str = ""


@dataclass(frozen=True)
class Reading:
    """What that means.

    Args:
        shape (`str`): How it was put: `tags`, `fence`, `json`, `call`, `bare`, `answer`; of a hint: what is wrong.
        code (`str`, *optional*): What to run; a final answer is a call of `final_answer`.
        thought (`str`): What was said before it.
        thinking (`str`): What stood in thinking tags.
        hint (`str`): Where there is nothing to run: what to do about it, for the model.
    """

    shape: str
    code: str | None = None
    thought: str = ""
    thinking: str = ""
    hint: str = ""


def read(
    given: Given,
    tools: Tools | None = None,
    tags: Tags = CODE_TAGS,
    failed: Sequence[str] = (),
    structured: bool = False,
) -> Reading:
    """Reads an answer. Pure, and never raises.

    Args:
        given (`Given`): The answer.
        tools (`Mapping[str, Mapping[str, str]]`): Names of tools, each with its parameters and their types.
        tags (`tuple[str, str]`): Between which code was asked for: regular expressions, as smolagents takes them.
        failed (`Sequence[str]`): Shapes of the answers directly before this one that could not be read, oldest first: the
            second hint of a kind is stricter than the first.
        structured (`bool`): Whether a JSON object was asked for instead of tags.
    """
    tools = {} if tools is None else tools
    cut = given.finish in CUT_OFF
    thinking, words = text.without_thinking(given.text, tags)
    tagged = None if structured and words.lstrip().startswith("{") else text.in_tags(words, tags, cut)
    found = (
        _call(calls.native(given.calls, tools), given.text, cut)
        if given.calls and tagged is None
        else _found(words, tagged, tools, tags, cut)
    )
    reading = found or _nothing(given, words, thinking, tags, cut)
    if reading.shape == "prose" and failed[-1:] == ["prose"] and not cut:
        # It was told how to go on and how to end, and says the same in other words: this is its answer.
        reading = Reading("answer", calls.answer(words.strip()))
    if reading.code is None:
        reading = replace(reading, hint=_hint(reading, tags, failed, structured))
    return replace(reading, thinking=thinking)


def _found(words: str, tagged: text.Block | None, tools: Tools, tags: Tags, cut: bool) -> Reading | None:
    if (whole := calls.whole_json(words)) is not None and (reading := _of_json(whole, tools, tags)):
        return reading
    if tagged is not None:
        return _block("tags", tagged)
    if (written := calls.in_text(words, tools)) is not None:
        return _call(written, written.thought, cut)
    if (block := text.in_fences(words, cut)) is not None:
        return _block("fence", block)
    for found in () if cut else calls.json_in(words):
        if reading := _of_json(found, tools, tags):
            return replace(reading, thought=reading.thought or words.partition("{")[0].rstrip("`json \n").strip())
    if not cut and (block := text.bare(words, tools)) is not None:
        return Reading("bare", block.code, block.thought)
    if not cut and (said := text.marked_answer(words)) is not None:
        return Reading("answer", calls.answer(said[1]), said[0])
    return None


def _block(shape: str, block: text.Block) -> Reading:
    if block.cut:
        return Reading("cut", thought=block.thought)
    if (shell := text.shell_in(block.code)) is not None:
        return Reading("shell", thought=block.thought, hint=shell)
    return Reading(shape, block.code, block.thought)


def _call(made: calls.Made, thought: str, cut: bool) -> Reading:
    if made.code is not None:
        return Reading("call", made.code, thought.strip())
    return Reading(
        "cut" if cut and made.problem == "arguments" else made.problem, thought=thought.strip(), hint=made.what
    )


def _of_json(value: object, tools: Tools, tags: Tags) -> Reading | None:
    """A JSON object of `thought` and `code`, a call of a tool, or an answer."""
    if isinstance(value, Mapping):
        code = value.get("code")
        thought = next(
            (value[key] for key in ("thought", "thoughts", "reasoning") if isinstance(value.get(key), str)), ""
        )
        if isinstance(code, str) and code.strip():
            return _block("json", text.inside(code, tags, thought))
        said = {key: value[key] for key in ("final_answer", "answer") if key in value}
        if said and set(value) <= {*said, "thought", "thoughts", "reasoning"}:
            return Reading("answer", calls.answer(next(iter(said.values()))), thought)
    if (made := calls.of_json(value, tools)) is not None:
        return _call(made, "", cut=False)
    return None


PLANS = re.compile(
    r"\b(?:I will|I['’]ll|let me|let['’]s|I(?: am|['’]m) going to|(?:next|first|then|now),? (?:I|we)\b|we will|we['’]ll|"
    r"(?:I|we) (?:need|have|want) to|I should|I can now|step 1\b|here is (?:my|the) plan|plan:|next steps?\b)",
    re.IGNORECASE,
)
"""Words of one who is about to do something."""


def _nothing(given: Given, words: str, thinking: str, tags: Tags, cut: bool) -> Reading:
    thought = words.strip()
    if given.finish == "content_filter":
        return Reading("filtered", thought=thought)
    if not thought:
        shape = "thinking" if thinking else "empty"
        return Reading(f"{shape}-cut" if cut else shape)
    if (language := text.other_language(words)) and not cut:
        shape = "shell" if language in text.SHELLS else "language"
        return Reading(shape, thought=thought, hint="" if shape == "shell" else language)
    if cut:
        return Reading("cut", thought=thought)
    if calls.whole_json(words) is not None:
        return Reading("no-code", thought=thought)
    return Reading("plan" if PLANS.search(words) or thought.endswith(":") else "prose", thought=thought)


HINTS = {
    "empty": (
        "Your answer was empty. Say in a sentence what you do now, then write its code:{form}",
        "Your answer was empty once more. Answer with code only:{form}",
    ),
    "empty-cut": (
        "Your answer came to the length limit before its first word. Think less, and write only a few lines of code:{form}",
        "Your answer came to the length limit before its first word, again. Do not think: write one line of code now.{form}",
    ),
    "thinking": (
        "Your answer was only thoughts. After them, write the code that they lead to:{form}",
        "Your answer was only thoughts once more. Leave them out and write the code:{form}",
    ),
    "thinking-cut": (
        "Your thoughts took up the whole answer. Think less, and write only a few lines of code:{form}",
        "Your thoughts took up the whole answer again. Do not think: write one line of code now.{form}",
    ),
    "cut": (
        "Your answer was cut off at the length limit, so nothing of it was run. Do a smaller part of it in this step: less "
        "code, and long texts written to a file piece by piece, in several steps.",
        "Your answer was cut off at the length limit again, and nothing of it was run. Write at most 30 lines of code now, "
        "without comments and without a long text, and leave the rest to later steps.",
    ),
    "filtered": (
        "Your answer was held back by the provider's content filter. Go on in other words, with code:{form}",
        "Your answer was held back by the provider's content filter again. Leave out what you were about to write and take "
        "another way.",
    ),
    "plan": (
        "Nothing was run: you said what you are about to do and wrote no code for it. Write it now:{form}",
        "Nothing was run again, as there was no code again. Write no plan; answer with the code of the next small step only:"
        "{form}",
    ),
    "prose": (
        "Nothing was run: there is no code in your answer. To go on, write code:{form}\nIf that was your final answer, call "
        "final_answer(...) with it there.",
        "Nothing was run once more, as your answer is no code. Answer with this and nothing else, your text in the "
        "brackets:{final}",
    ),
    "shell": (
        "Shell commands are not run, only Python is: take subprocess.run([...], capture_output=True, text=True), and a tool "
        "for what needs the network or installs packages.{what}",
        "Shell commands are still not run. Write Python: `import subprocess`, then subprocess.run([...]).{what}",
    ),
    "language": (
        "Only Python is run, and your answer has none ({what}). Do it in Python:{form}",
        "Only Python is run, and your answer again has none ({what}). Write Python between these tags:{form}",
    ),
    "no-code": (
        "Your JSON has neither `code` nor the name of a tool that there is, so nothing was run. Write code:{form}",
        "Your JSON again has nothing to run. Answer without JSON of your own:{form}",
    ),
    "tool": (
        "There is no tool {what} Tools are Python functions: call one in code:{form}",
        "There is again no tool {what} Use only the functions that you were shown, in code:{form}",
    ),
    "arguments": (
        "The arguments of the call cannot be read: {what}. Call the tool in code instead:{form}",
        "The arguments of the call can again not be read: {what}. Make no structured calls; write Python:{form}",
    ),
}
"""What a model is told, by what was wrong: the first time, and when the same happens again directly after."""


def _hint(reading: Reading, tags: Tags, failed: Sequence[str], structured: bool) -> str:
    opening, closing = text.plain(tags)
    code = (
        '{"thought": "...", "code": "# your Python code"}'
        if structured
        else f"{opening}\n# your Python code\n{closing}"
    )
    final = code.replace("# your Python code", 'final_answer(\\"...\\")' if structured else 'final_answer("...")')
    wording = HINTS[reading.shape][failed[-1:] == [reading.shape]]
    what = f" ({reading.hint})" if reading.shape == "shell" and reading.hint else reading.hint
    return wording.replace("{form}", f"\n{code}").replace("{final}", f"\n{final}").replace("{what}", what)


_LEADS = {wording.partition("{")[0]: shape for shape, wordings in HINTS.items() for wording in wordings}


def shape_of(hint: str) -> str:
    """What was wrong with an answer, from the hint about it; `""` for any other text."""
    return next((shape for lead, shape in _LEADS.items() if hint.startswith(lead)), "")


SMALL = 9.5e9
"""Parameters: smaller models are held to a form by grammar, where that can be had."""
_SIZE = re.compile(r"(?<![a-z0-9.])(?:(\d+)x)?(\d+(?:\.\d+)?)([bm])(?![a-z0-9])", re.IGNORECASE)
_SMALL_NAMES = re.compile(r"smollm|tinyllama|phi-?[1-4](?!\d)(?!.*(?:medium|moe))|gemma-?\d?n?[:-]?e\d", re.IGNORECASE)


def parameters_in(model_id: str) -> float | None:
    """How many parameters a model has by its name (`qwen2.5-coder:7b`, `SmolLM2-135M`); `None` where that does not say."""
    name = model_id.rpartition("/")[2]
    sizes = [
        int(times or 1) * float(size) * (1e9 if unit in "bB" else 1e6) for times, size, unit in _SIZE.findall(name)
    ]
    return max(sizes, default=None)


HELD_TO_SCHEMA = ("ollama_chat", "hosted_vllm", "llamafile", "lm_studio", "embedded")
"""Servers, by litellm's prefix, that hold an answer to a JSON schema by grammar, whatever the model."""


def wants_structure(model_id: str, held: Callable[[str], bool] = holds_to_schema) -> bool:
    """Whether a model is asked for a JSON object of thought and code, rather than for code between tags.

    It is where it is small and its server or provider makes sure of the form: a small model forgets tags, and a large one does
    not need it.

    Args:
        model_id (`str`): litellm's id, or `embedded/...`.
        held (`Callable[[str], bool]`, *optional*): Whether a hosted model is held to a JSON schema; asked for small ones only.
    """
    size = parameters_in(model_id)
    small = size <= SMALL if size is not None else bool(_SMALL_NAMES.search(model_id))
    return small and (model_id.partition("/")[0] in HELD_TO_SCHEMA or held(model_id))
