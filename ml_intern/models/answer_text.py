"""Where the code is in a text: between tags, in Markdown fences, or bare; and what is there beside it.

Code is taken as it stands. Only where it is no Python as it stands is it mended: by what chats do to code (quotes made
typographic, characters made HTML entities, a fence or a tag too many, indentation), and only if it is Python then.
"""

from __future__ import annotations

import ast
import builtins
import html
import re
import textwrap
import warnings
from collections.abc import Collection, Iterator
from dataclasses import dataclass

from ..syntax import parse
from ..thinking import TAGS

Tags = tuple[str, str]

PYTHON = ("python", "py", "python3", "py3", "ipython", "ipython3", "tool_code", "pycon", "code")
SHELLS = ("bash", "sh", "shell", "zsh", "console", "cmd", "powershell")
FENCE = re.compile(r"^[ \t]*(`{3,}|~{3,})[ \t]*([\w+#.-]*)[^\n`]*$", re.MULTILINE)
THINK = rf"(?:{TAGS})"


@dataclass(frozen=True)
class Block:
    """Code in a text, and the words before it. `cut` where its end is missing and was to come."""

    code: str
    thought: str = ""
    cut: bool = False


def plain(tags: Tags) -> Tags:
    """Tags as a model is shown them: they are regular expressions."""
    return "```python" if "```" in tags[0] else tags[0].replace("\\", ""), tags[1].replace("\\n", "").replace("\\", "")


def without_thinking(text: str, tags: Tags) -> tuple[str, str]:
    """What stands in thinking tags at the beginning, and the rest. A tag within code is part of the code."""
    thoughts: list[str] = []
    rest = text
    while (opened := re.match(rf"\s*<({THINK})>", rest, re.IGNORECASE)) is not None:
        closed = re.compile(rf"</{opened[1]}>", re.IGNORECASE).search(rest, opened.end())
        if closed is None:  # it forgot to say that it had done thinking: then what comes last is what it came to
            start = _last_code(rest, tags)
            if start is None:
                return "\n".join([*thoughts, rest[opened.end() :].strip()]), ""
            return "\n".join([*thoughts, rest[opened.end() : start].strip()]), rest[start:]
        thoughts.append(rest[opened.end() : closed.start()].strip())
        rest = rest[closed.end() :]
    # Some templates open the tag themselves, and only its end is in the answer.
    closed = None if thoughts else re.search(rf"</{THINK}>[ \t]*(?:\n|$|(?=<|`))", text, re.IGNORECASE)
    if closed is not None and (_first_code(text, tags) is None or closed.start() < (_first_code(text, tags) or 0)):
        return text[: closed.start()].strip(), text[closed.end() :]
    if closed is not None and _first_code(text[closed.end() :], tags) is not None:
        return text[: closed.start()].strip(), text[closed.end() :]
    return "\n".join(thought for thought in thoughts if thought), rest


def _openings(text: str, tags: Tags) -> list[int]:
    tagged = [match.start() for match in _pattern(tags[0]).finditer(text)]
    marks = list(FENCE.finditer(text))
    fenced = [match.start() for match in marks if match[2].lower() in PYTHON]
    return sorted(tagged or fenced)


def _first_code(text: str, tags: Tags) -> int | None:
    return next(iter(_openings(text, tags)), None)


def _last_code(text: str, tags: Tags) -> int | None:
    return next(reversed(_openings(text, tags)), None)


def _pattern(expression: str) -> re.Pattern[str]:
    return re.compile(expression)


def in_tags(text: str, tags: Tags, cut: bool) -> Block | None:
    """All code between tags, as smolagents takes it; the last block may lack its end, which is where a model stops."""
    opening, closing = tags
    whole = text if cut or text.strip().endswith(closing) else text + closing
    matches = list(re.compile(f"{opening}(.*?){closing}", re.DOTALL).finditer(whole))
    first = _pattern(opening).search(text)
    if first is None:
        return _in_close_tags(text, tags, cut)
    thought = text[: first.start()].strip()
    rest = _pattern(opening).search(text, matches[-1].end()) if matches and matches[-1].end() <= len(text) else None
    if cut and (not matches or rest is not None):
        return Block("", thought, cut=True)
    if not matches:
        return None
    return Block("\n\n".join(mended(match[1]) for match in matches), thought)


_ALIKE = re.compile(
    r"<(?P<tag>code|python|py|execute|execute_python|tool_code)(?: [^<>\n]*)?>(?P<code>.*?)"
    r"(?:</(?P=tag) *>|</code>|(?P<open>\Z))|<\|python_tag\|>(?P<python>(?!\s*\{).*?)(?:<\|eo[mt]_id\|>|\Z)",
    re.DOTALL | re.IGNORECASE,
)


def _in_close_tags(text: str, tags: Tags, cut: bool) -> Block | None:
    """Code between other tags that models use for it, where there is none between those that were asked for."""
    found = [match for match in _ALIKE.finditer(text) if is_python(mended(match["code"] or match["python"] or ""))]
    if not found:
        return None
    thought = text[: found[0].start()].strip()
    if cut and found[-1].end() == len(text) and not text.rstrip().endswith(">"):
        return Block("", thought, cut=True)
    return Block("\n\n".join(mended(match["code"] or match["python"]) for match in found), thought)


def inside(code: str, tags: Tags, thought: str) -> Block:
    """Code that was given as such, which may have its tags or fences around it all the same."""
    tagged = list(re.compile(f"{tags[0]}(.*?){tags[1]}", re.DOTALL).finditer(code))
    if tagged:
        return Block("\n\n".join(mended(match[1]) for match in tagged), thought)
    return Block(mended(code), thought)


def fences(text: str) -> Iterator[tuple[str, str, int, bool]]:
    """The fenced blocks of a text: language, content, where it begins, whether it has an end.

    A fence may stand inside code, in a text that it writes: the first end that makes Python of it counts.
    """
    place = 0
    while (opened := FENCE.search(text, place)) is not None:
        language, start = opened[2].lower(), min(opened.end() + 1, len(text))
        close = re.compile(rf"^[ \t]*{opened[1][0]}{{{len(opened[1])},}}[ \t]*(?:<[\w|/]+>)?[ \t]*$", re.MULTILINE)
        ends = list(close.finditer(text, start))
        if language in PYTHON and ends and not is_python(mended(text[start : ends[0].start()])):
            ends = [end for end in ends[:20] if is_python(mended(text[start : end.start()]))][:1] or ends
        if not ends:
            yield language, text[start:], opened.start(), False
            return
        yield language, text[start : ends[0].start()], opened.start(), True
        place = ends[0].end()


def in_fences(text: str, cut: bool) -> Block | None:
    """Python in Markdown fences: all blocks that say that they are; else those without a language that are."""
    found = list(fences(text))
    chosen = [one for one in found if one[0] in PYTHON and one[1].strip()]
    if not chosen:
        chosen = [one for one in found if not one[0] and does_something(mended(one[1]))]
    if not chosen:
        return None
    thought = text[: chosen[0][2]].strip()
    code = "\n\n".join(mended(content) for _, content, _, _ in chosen)
    if cut and not chosen[-1][3]:
        return Block("", thought, cut=True)
    return Block(code, thought)


def other_language(text: str) -> str:
    """The language of a fenced block that is no Python; `""` where there is none."""
    return next((language for language, *_ in fences(text) if language and language not in PYTHON), "")


def shell_in(code: str) -> str | None:
    """The first line that a notebook would give to a shell, in code that is no Python.

    `!pip install` is none: the worker makes a call of `install_packages` of it.
    """
    lines = [line.strip() for line in code.splitlines() if line.strip()]
    found = next(
        (
            line
            for line in lines
            if re.match(r"[!%]{1,2}(?!(?:pip3?|uv\s+pip|python3?\s+-m\s+pip)\s+install\b)\w", line)
        ),
        None,
    )
    if found is None:
        return None
    return None if is_python(code) else found[:100]


_LABEL = re.compile(r"^[ \t*#]*(?:code|python|action)[ \t*]*:[ \t*]*\n?", re.IGNORECASE | re.MULTILINE)
_BEGINS = re.compile(r"^(?:(?P<name>\w+)\(|import \w|from [\w.]+ import \w|\w+ = )", re.MULTILINE)


def bare(text: str, tools: Collection[str]) -> Block | None:
    """Code without anything around it: the whole text, what follows a label, or its last lines."""
    for start in _starts(text, tools):
        code = mended(text[start:])
        if does_something(code) and (start == 0 or _calls_known(code, tools)):
            return Block(code, text[:start].strip())
    return None


def _starts(text: str, tools: Collection[str]) -> Iterator[int]:
    yield 0
    for label in _LABEL.finditer(text):
        yield label.end()
    for line in [match for match in _BEGINS.finditer(text) if match.start()][:40]:
        name = line["name"]
        if name is None or name in tools or name == "print":
            yield line.start()


def _calls_known(code: str, tools: Collection[str]) -> bool:
    called = [node.func for node in ast.walk(parse(code)) if isinstance(node, ast.Call)]
    return any(isinstance(one, ast.Name) and one.id in {*tools, "print", "final_answer"} for one in called)


_FILE = "<answer>"
# What Python thinks of an escape in the code is told where the code runs, not to whoever looks for it.
warnings.filterwarnings("ignore", category=SyntaxWarning, module=_FILE)


def parsed(code: str) -> ast.Module | None:
    try:
        tree = parse(code, _FILE)
        assert isinstance(tree, ast.Module)
        return tree
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def is_python(code: str) -> bool:
    return bool(code.strip()) and parsed(code) is not None


def does_something(code: str) -> bool:
    """Whether a text is Python that does something: a word, a number or `Accuracy: 0.9` is Python as well."""
    tree = parsed(code)
    if tree is None:
        return False
    called = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    lines = code.encode().splitlines() or [b""]
    glued = [
        node for node in called if lines[(node.func.end_lineno or 1) - 1][node.func.end_col_offset or 0 :][:1] == b"("
    ]
    known = (not isinstance(one.func, ast.Name) or _plausible(one.func.id, code, tree) for one in glued)
    return any(known) or any(isinstance(node, (ast.Import, ast.ImportFrom)) for node in tree.body)


_BUILTINS = frozenset(dir(builtins))


def _plausible(name: str, code: str, tree: ast.Module) -> bool:
    """Whether a name is one of a function: `Paris(France)` is Python, too."""
    return name in _BUILTINS or "_" in name or name[:1].islower() or f"class {name}" in code or len(tree.body) > 1


_QUOTES = str.maketrans("“”„‟‘’‚‛", "\"\"\"\"''''")
_SPACES = str.maketrans(
    dict.fromkeys("\u00a0\u2007\u202f\u3000", " ") | dict.fromkeys("\u200b\u200c\u200d\u2060\ufeff", "")
)
_ENDINGS = re.compile(
    r"(?:\s*(?:<\|?(?:im_end|eot_id|eom_id|end_of_turn|end_code|end_action|endoftext|end|return)\|?>|</(?:s|code|python)>))+\s*\Z"
)


def mended(code: str) -> str:
    """Code, stripped; where it is no Python, as what it was before a chat had it, if that is Python."""
    stripped = code.strip()
    if parsed(stripped) is not None:
        return stripped
    base = code.strip("\n")
    base = (base[:-200] + _ENDINGS.sub("", base[-200:])).rstrip()
    base = re.sub(r"\A\s*<(code|python)>\s*\n?", "", base)
    fenced = (
        [content for language, content, _, _ in fences(base) if language in ("", *PYTHON)] if "```" in base else []
    )
    bodies = [
        base,
        textwrap.dedent(base).strip("\n"),
        *(["\n\n".join(map(textwrap.dedent, fenced))] if fenced else []),
    ]
    bodies += [base.partition("\n```")[0]] if "\n```" in base else []
    bodies += ["\n".join(_typed_at_prompt(base))] if ">>> " in base else []
    for body in bodies:
        for made in (body, body.translate(_SPACES), html.unescape(body), body.translate(_QUOTES)):
            if made.strip() and parsed(made.strip("\n")) is not None:
                return made.strip()
    both = html.unescape(base.translate(_SPACES)).translate(_QUOTES).strip()
    return both if parsed(both) is not None else stripped


def _typed_at_prompt(text: str) -> Iterator[str]:
    """What was typed in an interactive session, without what came back."""
    for line in text.splitlines():
        if line.lstrip().startswith((">>> ", "... ")):
            yield line.lstrip()[4:]


_MARKED = (
    re.compile(r"^[ \t*#>_`]*final[ _]answer[*_`]*\s*[:：][\s*_`]*(?P<said>\S.*)", re.I | re.M | re.S),
    re.compile(r"<(?P<tag>answer|final_answer)>\s*(?P<said>\S.*?)\s*(?:</(?P=tag)>|\Z)", re.I | re.S),
    re.compile(r"\b(?:the|my) final answer is:?\s+(?P<said>\S[^\n]*)", re.I),
)


def marked_answer(text: str) -> tuple[str, str] | None:
    """The words before a final answer that is marked as one, and the answer."""
    for pattern in _MARKED:
        if (found := pattern.search(text)) is not None:
            return text[: found.start()].strip(), found["said"].strip().removesuffix("**").strip()
    return None
