"""What models answer, as they really write it, and what each answer is read as.

What must never happen: code is run that was not in the answer, was a draft in its thoughts, or was cut off; a well-formed answer
is read otherwise than smolagents reads it; an answer raises.
"""

from __future__ import annotations

import ast
import html
import json
import time

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from smolagents import CodeAgent, LogLevel, Tool
from smolagents.agents import AgentParsingError
from smolagents.memory import ActionStep
from smolagents.models import ChatMessage, ChatMessageToolCall, ChatMessageToolCallFunction, MessageRole
from smolagents.utils import parse_code_blobs

from ml_intern import MLIntern
from ml_intern.agent import InternAgent
from ml_intern.models.answer_calls import NativeCall, written
from ml_intern.models.answers import CODE_TAGS, HINTS, Given, Reading, parameters_in, read, shape_of, wants_structure
from ml_intern.testing import ScriptedModel
from ml_intern.trace import read_rows
from ml_intern.trace.restore import restore
from ml_intern.trace.validate import validate

TOOLS = {
    "hub_search": {"query": "string", "kind": "string", "limit": "integer"},
    "add": {"a": "integer", "b": "integer"},
    "plan": {"items": "array"},
    "final_answer": {"answer": "any"},
}
MARKDOWN = ("```python", "```")


def reading(text: str, finish: str = "stop", calls=(), **options) -> Reading:
    return read(Given(text, tuple(NativeCall(*call) for call in calls), finish), TOOLS, **options)


UNDERSTOOD = {
    # smolagents' own form
    "tags, stopped at the end": ("I look first.\n<code>\nprint(1)\n", "tags", "print(1)"),
    "tags, closed": ("I look first.\n<code>\nprint(1)\n</code>", "tags", "print(1)"),
    "Claude, two blocks": ("One.\n<code>\na = 1\n</code>\nTwo.\n<code>\nprint(a)\n</code>", "tags", "a = 1\n\nprint(a)"),
    "tags, nothing before": ("<code>\nfinal_answer(42)\n</code>", "tags", "final_answer(42)"),
    "tags in one line": ("<code>print(1)</code>", "tags", "print(1)"),
    "tags, words after": ("<code>\nprint(1)\n</code>\nThis prints 1.", "tags", "print(1)"),
    "tags in the words of the code": ("<code>\nprint('</think> and <b>')\n", "tags", "print('</think> and <b>')"),
    "Qwen-coder, a fence inside tags": ("Now:\n<code>\n```python\nprint(1)\n```\n</code>", "tags", "print(1)"),
    "a fence inside tags, not closed": ("Now:\n<code>\n```py\nprint(1)\n", "tags", "print(1)"),
    "tags closed by a fence": ("Now:\n<code>\nprint(1)\n```\nThis prints 1.", "tags", "print(1)"),
    "tags twice": ("<code>\n<code>\nprint(1)\n</code>", "tags", "print(1)"),
    "tags, indented": ("1. Look:\n   <code>\n   for i in range(2):\n       print(i)\n   </code>", "tags", "for i in range(2):\n       print(i)"),
    "tags, indented lines": ("1. Look:\n   <code>\n   a = 1\n   print(a)\n   </code>", "tags", "a = 1\nprint(a)"),
    "tags, no Python: the worker says where": ("<code>\nprint(1\n</code>", "tags", "print(1"),
    "Gemma, end token": ("<code>\nprint(1)<end_of_turn>", "tags", "print(1)"),
    "HTML entities": ("<code>\nif 1 &lt; 2 &amp;&amp; True:\n  pass\n</code>", "tags", "if 1 &lt; 2 &amp;&amp; True:\n  pass"),
    "HTML entities that were Python": ("<code>\nif 1 &lt; 2:\n    print(&quot;a&quot;)\n</code>", "tags", 'if 1 < 2:\n    print("a")'),
    "entities that are meant": ("<code>\nprint('a &lt; b')\n</code>", "tags", "print('a &lt; b')"),
    "typographic quotes": ("<code>\nprint(“a”, ‘b’)\n</code>", "tags", "print(\"a\", 'b')"),
    "typographic quotes that are meant": ("<code>\nprint('“a”')\n</code>", "tags", "print('“a”')"),
    "no-break spaces": ("<code>\nif True:\n\u00a0\u00a0\u00a0\u00a0print(1)\n</code>", "tags", "if True:\n    print(1)"),
    "a prompt's session": ("<code>\n>>> a = 1\n>>> print(a)\n1\n</code>", "tags", "a = 1\nprint(a)"),
    "other tags": ("Run:\n<python>\nprint(1)\n</python>", "tags", "print(1)"),
    "tags with a language": ('Run:\n<code lang="python">\nprint(1)\n</code>', "tags", "print(1)"),
    # Markdown
    "GPT, fence": ("Let's look.\n\n```python\nprint(1)\n```", "fence", "print(1)"),
    "fence, py": ("```py\nprint(1)\n```", "fence", "print(1)"),
    "fence, Python3": ("```Python3\nprint(1)\n```\n", "fence", "print(1)"),
    "fence, no language": ("Here:\n```\nprint(1)\n```", "fence", "print(1)"),
    "Gemini, tool_code": ("```tool_code\nprint(add(a=1, b=2))\n```", "fence", "print(add(a=1, b=2))"),
    "two fences": ("First\n```python\na = 1\n```\nthen\n```python\nprint(a)\n```", "fence", "a = 1\n\nprint(a)"),
    "fence and its expected output": ("```python\nprint(1)\n```\nOutput:\n```\n1\n```", "fence", "print(1)"),
    "an installation in tags": (  # the worker makes a call of it
        "<code>\n!pip install torch\nimport torch\n</code>", "tags", "!pip install torch\nimport torch"
    ),
    "fence beside shell": ("```bash\npip install torch\n```\n```python\nprint(1)\n```", "fence", "print(1)"),
    "fence beside JSON": ('```json\n{"a": 1}\n```\n```python\nprint(1)\n```', "fence", "print(1)"),
    "fence, not closed": ("Now:\n```python\nprint(1)\n", "fence", "print(1)"),
    "fence closed by a tag": ("```python\nprint(1)\n</code>", "fence", "print(1)"),
    "old smolagents' end": ("```py\nprint(1)\n```<end_code>", "fence", "print(1)"),
    "tildes": ("~~~python\nprint(1)\n~~~", "fence", "print(1)"),
    "fence in a list": ("1. Do\n   ```python\n   print(1)\n   ```", "fence", "print(1)"),
    "a README written in a fence": (
        "```python\nopen('README.md', 'w').write('''# Card\n```bash\nls\n```\n''')\n```\nDone.",
        "fence",
        "open('README.md', 'w').write('''# Card\n```bash\nls\n```\n''')",
    ),
    "the markdown tags": ("Do:\n```python\nprint(1)\n```", "tags", "print(1)"),
    # Thinking
    "DeepSeek, thinking": ("<think>\nI could <code>rm()</code>\n</think>\nLook.\n<code>\nprint(1)\n", "tags", "print(1)"),
    "Qwen3, empty thinking": ("<think>\n\n</think>\n\n<code>\nprint(1)\n</code>", "tags", "print(1)"),
    "thinking whose beginning is in the template": ("Maybe <code>rm()</code>.\n</think>\n\n<code>\nprint(1)\n", "tags", "print(1)"),
    "thinking that never ends": ("<think>\nMaybe <code>rm()</code>. No:\n<code>\nprint(1)\n</code>", "tags", "print(1)"),
    "thinking and a fence": ("<think>```python\nrm()\n```</think>```python\nprint(1)\n```", "fence", "print(1)"),
    "two thoughts": ("<think>a</think>\n<think>b</think>\n<code>print(1)</code>", "tags", "print(1)"),
    # Calls of tools, in the forms of the models
    "Hermes, Qwen": ('<tool_call>\n{"name": "add", "arguments": {"a": 1, "b": 2}}\n</tool_call>', "call", "add(a=1, b=2)"),
    "Qwen3-coder": (
        "<tool_call>\n<function=hub_search>\n<parameter=query>\n42\n</parameter>\n<parameter=limit>\n3\n</parameter>\n</function>\n</tool_call>",
        "call",
        "hub_search(query='42', limit=3)",
    ),
    "Llama 3.1": ('<function=add>{"a": 1, "b": 2}</function>', "call", "add(a=1, b=2)"),
    "Llama 3.2": ('{"name": "add", "parameters": {"a": 1, "b": 2}}', "call", "add(a=1, b=2)"),
    "Llama, python tag": ('<|python_tag|>{"name": "add", "parameters": {"a": 1, "b": 2}}<|eom_id|>', "call", "add(a=1, b=2)"),
    "Llama, python tag with code": ("<|python_tag|>print(add(1, 2))<|eom_id|>", "tags", "print(add(1, 2))"),
    "Mistral": ('[TOOL_CALLS][{"name": "add", "arguments": {"a": 1, "b": 2}}]', "call", "add(a=1, b=2)"),
    "Mistral, newer": ('[TOOL_CALLS]add[ARGS]{"a": 1, "b": 2}', "call", "add(a=1, b=2)"),
    "DeepSeek V3": (
        "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>add\n```json\n"
        '{"a": 1, "b": 2}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>',
        "call",
        "add(a=1, b=2)",
    ),
    "DeepSeek V3.1": ('<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>add<｜tool▁sep｜>{"a": 1, "b": 2}<｜tool▁call▁end｜>', "call", "add(a=1, b=2)"),
    "Kimi": ('<|tool_call_begin|>functions.add:0<|tool_call_argument_begin|>{"a": 1, "b": 2}<|tool_call_end|>', "call", "add(a=1, b=2)"),
    "gpt-oss": ('<|channel|>commentary to=functions.add <|constrain|>json<|message|>{"a": 1, "b": 2}<|call|>', "call", "add(a=1, b=2)"),
    "Claude, in words": (
        'I add.\n<function_calls>\n<invoke name="add">\n<parameter name="a">1</parameter>\n<parameter name="b">2</parameter>\n</invoke>\n</function_calls>',
        "call",
        "add(a=1, b=2)",
    ),
    "ReAct, JSON": ('Thought: I add.\nAction:\n{"name": "add", "arguments": {"a": 1, "b": 2}}<end_action>', "call", "add(a=1, b=2)"),
    "ReAct, LangChain": ('Thought: I add.\nAction: add\nAction Input: {"a": 1, "b": 2}', "call", "add(a=1, b=2)"),
    "OpenAI's own, in words": (
        '{"tool_calls": [{"type": "function", "function": {"name": "add", "arguments": "{\\"a\\": 1, \\"b\\": 2}"}}]}',
        "call",
        "add(a=1, b=2)",
    ),
    "a call in a JSON fence": ('I add.\n```json\n{"tool": "add", "args": {"a": 1, "b": 2}}\n```', "call", "add(a=1, b=2)"),
    "several calls": (
        '<tool_call>\n{"name": "add", "arguments": {"a": 1, "b": 2}}\n</tool_call>\n'
        '<tool_call>\n{"name": "add", "arguments": {"a": 3, "b": 4}}\n</tool_call>',
        "call",
        "print(add(a=1, b=2))\nprint(add(a=3, b=4))",
    ),
    "a call with true and null": ('<tool_call>{"name": "plan", "arguments": {"items": [true, null]}}</tool_call>', "call", "plan(items=[True, None])"),
    "an interpreter": ('<tool_call>{"name": "python_interpreter", "arguments": {"code": "print(1)"}}</tool_call>', "call", "print(1)"),
    # JSON
    "structured": ('{"thought": "I look.", "code": "print(1)"}', "json", "print(1)"),
    "structured, with tags inside": ('{"thought": "I look.", "code": "<code>\\nprint(1)\\n</code>"}', "json", "print(1)"),
    "structured, with a fence inside": ('{"thought": "I look.", "code": "```python\\nprint(1)\\n```"}', "json", "print(1)"),
    "structured, with line breaks in strings": ('{"thought": "I look.", "code": "a = 1\nprint(a)"}', "json", "a = 1\nprint(a)"),
    "structured, in a fence": ('```json\n{"thought": "I look.", "code": "print(1)"}\n```', "json", "print(1)"),
    "structured, after words": ('Sure!\n{"thought": "I look.", "code": "print(1)"}', "json", "print(1)"),
    # Nothing around it
    "SmolLM, bare": ("final_answer(42)", "bare", "final_answer(42)"),
    "bare lines": ("import math\nprint(math.pi)", "bare", "import math\nprint(math.pi)"),
    "a label": ("Thought: I am done.\nCode:\nfinal_answer(42)", "bare", "final_answer(42)"),
    "last line": ("The sum is 3, so I am done.\n\nfinal_answer(3)", "bare", "final_answer(3)"),
    # Answers
    "final answer": ("I am sure.\n\n**Final Answer:** 42", "answer", "final_answer('42')"),
    "final answer, a sentence": ("The final answer is 42.", "answer", "final_answer('42.')"),
    "answer tags": ("<answer>Paris</answer>", "answer", "final_answer('Paris')"),
    "answer as JSON": ('{"thought": "Sure.", "answer": 42}', "answer", "final_answer(42)"),
}  # fmt: skip


@pytest.mark.parametrize("name", UNDERSTOOD)
def test_understood(name) -> None:
    text, shape, code = UNDERSTOOD[name]
    got = reading(text, tags=MARKDOWN if name == "the markdown tags" else CODE_TAGS)
    assert (got.shape, got.code, got.hint) == (shape, code, "")


NOT_UNDERSTOOD = {
    "empty": ("", "stop", "empty"),
    "blank": (" \n", "stop", "empty"),
    "nothing before the limit": ("", "length", "empty-cut"),
    "thoughts only": ("<think>Hm.</think>", "stop", "thinking"),
    "thoughts up to the limit": ("<think>Hm, well, ", "length", "thinking-cut"),
    "cut in a block": ("I write it.\n<code>\nfor i in range(3):\n    print(i)\n", "length", "cut"),
    "cut in the second block": ("<code>\nprint(1)\n</code>\n<code>\npri", "length", "cut"),
    "cut in a fence": ("```python\nprint(1)\n", "length", "cut"),
    "cut before any code": ("First I will explain in detail", "length", "cut"),
    "cut in JSON": ('{"thought": "a", "code": "print(1)\\nprint(', "length", "cut"),
    "cut in a call": ('<tool_call>\n{"name": "add", "arguments": {"a": 1', "length", "cut"),
    "Anthropic's word for it": ("<code>\nprint(1)\n", "max_tokens", "cut"),
    "held back": ("", "content_filter", "filtered"),
    "a plan": ("I will first look at the data set.", "stop", "plan"),
    "a plan that stops short": ("The next step is as follows:", "stop", "plan"),
    "words": ("The capital of France is Paris.", "stop", "prose"),
    "a word": ("Paris", "stop", "prose"),
    "a number": ("42", "stop", "prose"),
    "a figure": ("Accuracy: 0.91", "stop", "prose"),
    "shell only": ("```bash\npip install torch\n```", "stop", "shell"),
    "shell in tags": ("<code>\n!apt install curl\nimport torch\n</code>", "stop", "shell"),
    "magic in a fence": ("```python\n%time fit()\n```", "stop", "shell"),
    "another language": ("```sql\nSELECT 1;\n```", "stop", "language"),
    "YAML": ("```yaml\nlr: 1e-4\n```", "stop", "language"),
    "JSON of its own": ('{"result": "good"}', "stop", "no-code"),
    "no such tool": ('<tool_call>{"name": "web_search", "arguments": {"q": "x"}}</tool_call>', "stop", "tool"),
    "arguments that are no JSON": ('<tool_call>{"name": "add", "arguments": {a: 1}}</tool_call>', "stop", "arguments"),
}


@pytest.mark.parametrize("name", NOT_UNDERSTOOD)
def test_not_understood(name) -> None:
    text, finish, shape = NOT_UNDERSTOOD[name]
    got = reading(text, finish)
    assert (got.shape, got.code) == (shape, None)
    again = reading(text, finish, failed=[shape])
    assert len(got.hint) < 500
    if again.code is None:
        assert again.hint != got.hint
        assert shape_of(got.hint) == shape_of(again.hint) == shape


CALLS = [
    ([("add", {"a": 1, "b": 2})], "call", "add(a=1, b=2)"),
    ([("add", '{"a": 1, "b": 2}')], "call", "add(a=1, b=2)"),
    ([("functions.add", '{"a": 1, "b": 2}')], "call", "add(a=1, b=2)"),
    ([("add", '"{\\"a\\": 1, \\"b\\": 2}"')], "call", "add(a=1, b=2)"),
    ([("final_answer", {"answer": 1}), ("add", {"a": 1, "b": 2})], "call", "print(add(a=1, b=2))\nfinal_answer(answer=1)"),
    ([("plan", None)], "call", "plan()"),
    ([("plan", {"items": [], "for": 1})], "call", "plan(items=[], **{'for': 1})"),
    ([("python", '{"code": "print(1)"}')], "call", "print(1)"),
    ([("python", "{}")], "tool", None),
    ([("ad", {"a": 1})], "tool", None),
    ([("add", '{"a": 1')], "arguments", None),
    ([("add", '{"a": NaN}')], "arguments", None),
    ([("add", '{"a": 1e999}')], "arguments", None),
]  # fmt: skip


@pytest.mark.parametrize(("calls", "shape", "code"), CALLS)
def test_structured_calls(calls, shape, code) -> None:
    got = reading("", "tool_calls", calls)
    assert (got.shape, got.code) == (shape, code)
    again = reading(written([NativeCall(*call) for call in calls]))  # as it stands in the conversation and on record
    assert (again.shape, again.code) == (shape, code)


def test_a_call_beside_code_and_a_call_that_was_cut() -> None:
    assert reading("<code>\nprint(1)\n</code>", calls=[("add", {"a": 1, "b": 2})]).code == "print(1)"
    assert reading("I add.", calls=[("add", {"a": 1, "b": 2})]) == Reading("call", "add(a=1, b=2)", "I add.")
    assert reading("", "length", [("add", '{"a": 1')]).shape == "cut"
    assert "there is `add`" in reading("", calls=[("ad", {})]).hint


def test_words_that_stay_words_are_an_answer() -> None:
    assert reading("It is Paris.", failed=["plan"]).shape == "prose"
    assert reading("It is Paris.", failed=["prose"]).code == "final_answer('It is Paris.')"
    assert reading("I will look it up.", failed=["prose"]).shape == "plan"
    assert reading("It is Paris", "length", failed=["prose"]).code is None


def test_thoughts_are_kept_apart() -> None:
    got = reading("<think>Hm.</think>\nLook.\n<code>\nprint(1)\n")
    assert (got.thinking, got.thought) == ("Hm.", "Look.")
    assert reading("Look.\n```python\nprint(1)\n```").thought == "Look."


@pytest.mark.parametrize("name", [name for name, (_, shape, _) in UNDERSTOOD.items() if shape in ("tags", "fence")])
def test_what_smolagents_understands_is_read_as_it_reads_it(name) -> None:
    text, _, code = UNDERSTOOD[name]
    tags = MARKDOWN if name == "the markdown tags" else CODE_TAGS
    try:
        theirs = parse_code_blobs(text if text.strip().endswith(tags[1]) else text + tags[1], tags)
        ast.parse(theirs)
    except (ValueError, SyntaxError):
        return  # it does not, or would run what is no Python
    if "think" not in text.replace("print('</think>", ""):
        assert code == theirs


PIECES = st.sampled_from(
    ["<code>", "</code>", "<code>\n", "\n</code>", "```", "\n```\n", "```python\n", "```json\n", "<think>", "</think>", "\n", " ",
     "print(1)", "x = 2", "final_answer(3)", "I will look. ", "Final answer: ", '{"code": "print(4)"}', '{"name": "add", "arguments": {"a": 5}}',
     "<tool_call>", "</tool_call>", "<function=add>", "<parameter=a>", "</parameter>", "</function>", "[TOOL_CALLS]", "Action:", "Code:\n",
     "!pip", "“", "&lt;", "<|python_tag|>", '{"a": ', "}", ">>> ", "'''", "\\", "\x00", "\ud800", "(" * 300]
)  # fmt: skip


def squeezed(text: str) -> str:
    text = html.unescape(html.unescape(text)).translate(str.maketrans("“”‘’", "\"\"''"))
    for gone in ("<code>", "</code>", "<python>", ">>>", "...", "```python", "```json", "```"):
        text = text.replace(gone, "")
    return "".join(text.split())


@pytest.mark.long
@settings(max_examples=400, deadline=None)
@given(
    st.lists(PIECES | st.text(max_size=6), max_size=14).map("".join),
    st.sampled_from(["", "stop", "length"]),
    st.booleans(),
)
@example("<code>" * 5 + "```python\n" * 5, "stop", False)
def test_it_never_raises_and_never_makes_code_up(text, finish, structured) -> None:
    got = reading(text, finish, structured=structured)
    assert (got.code is None) == bool(got.hint)
    if got.code is None:
        return
    if got.shape in ("tags", "fence", "bare"):
        for line in got.code.splitlines():
            assert squeezed(line) in squeezed(text)
    else:
        for node in ast.walk(ast.parse(got.code)) if got.shape in ("call", "answer") else ():
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                written_as = json.dumps(node.value, ensure_ascii=False)[1:-1]
                assert node.value in text or written_as in text
            if isinstance(node, ast.Name) and got.shape == "answer":
                assert node.id == "final_answer"


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(st.text(max_size=5), st.recursive(st.none() | st.booleans() | st.integers() | st.text(max_size=8),
       lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3), max_leaves=5), max_size=4))  # fmt: skip
def test_a_call_says_what_its_json_said(arguments) -> None:
    code = reading("", calls=[("plan", json.dumps(arguments))]).code
    call = ast.parse(code).body[0].value
    got = {}
    for word in call.keywords:
        got |= {word.arg: ast.literal_eval(word.value)} if word.arg else ast.literal_eval(word.value)
    assert (call.func.id, got) == ("plan", arguments)


@pytest.mark.parametrize("piece", ["<code>", "```", "```python\n", "\n", " ", "{", "<think>", "<tool_call>{", "Final answer", "\n\n*", "print(", "a(b)\n", '<invoke name="a">'])  # fmt: skip
def test_a_long_answer_takes_no_time(piece) -> None:
    text = piece * (100_000 // len(piece))
    start = time.process_time()
    reading(text)
    assert time.process_time() - start < 8  # what grows with the square takes minutes


def test_every_hint_is_told_from_every_other() -> None:
    for shape, wordings in HINTS.items():
        for wording in wordings:
            assert shape_of(wording.replace("{form}", "x").replace("{what}", "x").replace("{final}", "x")) == shape
    assert shape_of("NameError: name 'x' is not defined") == ""


@pytest.mark.parametrize(
    ("model_id", "size", "small"),
    [
        ("ollama_chat/qwen2.5-coder:7b", 7e9, True),
        ("ollama_chat/qwen2.5-coder:32b", 32e9, False),
        ("ollama_chat/mixtral:8x7b", 56e9, False),
        ("embedded/HuggingFaceTB/SmolLM2-135M-Instruct", 135e6, True),
        ("hosted_vllm/meta-llama/Llama-3.2-1B-Instruct", 1e9, True),
        ("hosted_vllm/Qwen/Qwen3-30B-A3B", 30e9, False),
        ("llamafile/gemma-2-9b-it-Q4_K_M.gguf", 9e9, True),
        ("ollama_chat/smollm2", None, True),
        ("ollama_chat/phi3", None, True),
        ("anthropic/claude-sonnet-4-5", None, False),
        ("openai/gpt-4o-mini", None, False),
    ],
)
def test_which_models_are_small(model_id, size, small) -> None:
    assert parameters_in(model_id) == size
    assert wants_structure(model_id) == small
    assert not wants_structure("openrouter/" + model_id)  # nobody there makes sure of the form


@pytest.mark.parametrize(
    ("model_id", "structured"),
    [
        ("together_ai/Qwen/Qwen2.5-7B-Instruct-Turbo", True), ("mistral/ministral-8b-latest", True), ("fireworks_ai/any/llama-8b", True),
        ("mistral/mistral-large-latest", False), ("gpt-5.1", False), ("claude-sonnet-4-5", False), ("openai/org/Q-7B", False),
        ("other/ministral-8b-latest", False), ("hf/org/no-7b", False),
    ],
)  # fmt: skip
def test_which_hosted_ones_are_held_to_a_form(model_id: str, structured: bool) -> None:
    assert wants_structure(model_id) == structured


# In an agent.


class Add(Tool):
    name, description, output_type = "add", "Adds.", "integer"
    inputs = {"a": {"type": "integer", "description": "One."}, "b": {"type": "integer", "description": "Other."}}

    def forward(self, a: int, b: int) -> int:
        return a + b


@pytest.fixture
def run():
    agents = []

    def build(*script, **options):
        agent = InternAgent([Add()], ScriptedModel(list(script)), verbosity_level=LogLevel.OFF, **options)
        agents.append(agent)
        return agent, agent.run("Go.")

    yield build
    for agent in agents:
        agent.cleanup()


def steps_of(agent) -> list[ActionStep]:
    return [step for step in agent.memory.steps if isinstance(step, ActionStep)]


def native(name, arguments, text=None) -> ChatMessage:
    call = ChatMessageToolCall(ChatMessageToolCallFunction(arguments, name), "call_1", "function")
    return ChatMessage(MessageRole.ASSISTANT, text, tool_calls=[call])


def test_an_agent_takes_one_answer_after_the_other_as_it_comes(run) -> None:
    agent, answer = run(
        native("add", {"a": 1, "b": 2}),
        "```python\nx = add(3, 4)\nprint(x)\n```",
        '{"thought": "Once more.", "code": "y = x + 1\\ny"}',
        "<think>Done.</think>\nFinal answer: 8",
    )
    assert answer == "8"
    assert [step.observations.split()[-1] for step in steps_of(agent)[:3]] == ["3", "None", "8"]
    assert agent.shapes == {"call": 1, "fence": 1, "json": 1, "answer": 1}
    assert steps_of(agent)[0].model_output == written([NativeCall("add", {"a": 1, "b": 2})])
    assert steps_of(agent)[1].model_output == "```python\nx = add(3, 4)\nprint(x)\n```"


def test_what_it_cannot_read_is_answered_with_one_hint_and_then_a_stricter_one(run) -> None:
    agent, answer = run("", "", "I will add.", "<code>\nfinal_answer(add(1, 2))")
    assert answer == 3
    first, second, third, _ = steps_of(agent)
    assert all(isinstance(step.error, AgentParsingError) for step in (first, second, third))
    assert [shape_of(step.error.message) for step in (first, second, third)] == ["empty", "empty", "plan"]
    assert first.error.message != second.error.message
    assert first.model_output is None  # nobody takes an empty message
    assert agent.shapes == {"empty": 2, "plan": 1, "tags": 1}
    for request in agent.model.requests:
        assert all(part.get("text") != "" for message in request for part in message.content)


def test_an_answer_in_words_takes_one_hint(run) -> None:
    agent, answer = run("The sum is 3.", "As I said, the sum is 3.")
    assert answer == "As I said, the sum is 3."
    assert len(steps_of(agent)) == 2


def test_a_well_formed_answer_leaves_what_a_code_agent_leaves(run) -> None:
    script = [
        "Look.\n<code>\nprint(add(1, 2))\n",
        "```py\nprint(5)\n```\n",
        "Done.\n<code>\nfinal_answer(add(2, 3))\n</code>",
    ]
    ours, answer = run(*script)
    theirs = CodeAgent([Add()], ScriptedModel([script[0], script[2]]), verbosity_level=LogLevel.OFF)
    assert theirs.run("Go.") == answer
    for mine, their in zip([steps_of(ours)[0], steps_of(ours)[2]], steps_of(theirs), strict=True):
        assert (mine.model_output, mine.code_action) == (their.model_output, their.code_action)
        assert [call.name for call in mine.tool_calls] == [call.name for call in their.tool_calls]


def test_structured_output_that_is_none() -> None:
    assert reading("Look.\n<code>\nprint(1)\n</code>", structured=True).code == "print(1)"
    assert reading("I will look.", structured=True).hint.endswith('{"thought": "...", "code": "# your Python code"}')
    assert reading('{"thought": "<code>", "code": "pri', "stop", structured=True).code is None


def test_structured_output(run) -> None:
    answers = ['{"thought": "I add.", "code": "x = add(1, 2)"}', '{"thought": "Done.", "code": "final_answer(x)"}']
    agent, answer = run(*answers, use_structured_outputs_internally=True)
    assert answer == 3
    assert [step.model_output for step in steps_of(agent)] == answers


# In a session.


def test_what_was_answered_is_on_record_as_it_was_and_comes_back(tmp_path) -> None:
    script = [
        "",
        native("add", {"a": 1, "b": 2}, "I add."),
        "<think>Nearly.</think>\n```python\nprint(add(3, 4))\n```",
        "The sums are 3 and 7.",
        "The sums are 3 and 7, as said.",
    ]
    with MLIntern(ScriptedModel(script), home=tmp_path, tools=[Add()], allow=["allow add"]) as intern:
        assert intern.run("Go.") == "The sums are 3 and 7, as said."
        path = intern.session().trace
    assert validate(path) == []
    rows = [row for row in read_rows(path) if "modelOutput" in row]
    called = 'I add.\n<tool_call>\n{"name": "add", "arguments": {"a": 1, "b": 2}}\n</tool_call>'
    assert [row["modelOutput"] for row in rows] == [None, called, *script[2:]]
    blocks = [block for row in rows for block in row["message"]["content"]]
    assert [block["thinking"] for block in blocks if block["type"] == "thinking"] == ["Nearly."]
    back = [step for step in restore(path).steps if isinstance(step, ActionStep)]
    assert [step.model_output for step in back] == [None, called, *script[2:]]
    assert shape_of(back[0].error.message) == "empty"
    assert shape_of(back[3].error.message) == "prose"
