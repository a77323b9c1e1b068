"""The shapes of secrets: well-known keys, and values that a name gives away.

What must never happen here: ordinary text, code and metrics come out changed (`token = tokenizer(...)`, `max_tokens=4096`,
digests, ids, commit hashes); the time it takes grows faster than the text.

Each shape has a literal that must be there first: looking for literals is some fifty times as fast as the patterns. The
patterns are compiled when a literal is first seen, so that importing this costs nothing.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator
from functools import cache

MARK = re.compile(r"\[secret:([\w.-]+)\]")
"""What stands in place of a secret."""

Found = tuple[int, int, str]
"""A place in a text: start, end, and the name of what lies there."""

_BODY = r"[A-Za-z0-9+/=\s\\\"',:.-]"
_PEM = (
    r"-----BEGIN [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----"
    rf"(?:(?=[\s\S]{{0,400}}?[A-Za-z0-9+/]{{6}}){_BODY}{{1,16000}}?-----END [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----"
    r"|(?:(?:\s|\\+[nr])*[A-Za-z0-9+/=]{40,})+(?:(?:\s|\\+[nr])*[A-Za-z0-9+/=]+\Z)?)"  # cut off
)
_BEFORE = r"(?<![A-Za-z0-9])"
# Name, the literals one of which must be there, the shape from there on (of a group: what is masked), and what of it may
# follow the literal at the end of a piece while the shape is not whole.
_SHAPES: tuple[tuple[str, tuple[str, ...], str, str], ...] = (
    ("hub-token", ("hf_", "api_org_"), _BEFORE + r"(?:hf|api_org)_[A-Za-z0-9]{20,}", r"\w*"),
    ("anthropic-key", ("sk-ant-",), _BEFORE + r"sk-ant-[\w-]{20,}", r"[\w-]*"),
    (
        "openai-key",
        ("sk-",),
        _BEFORE + r"sk-(?:(?:proj|svcacct|admin|service|or-v1)-[\w-]{20,}|[A-Za-z0-9]{32,})",
        r"[\w-]*",
    ),
    (
        "github-token",
        ("ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_"),
        _BEFORE + r"(?:gh[pousr]_[A-Za-z0-9]{36,}|github_pat_\w{36,})",
        r"\w*",
    ),
    ("gitlab-token", ("glpat-",), _BEFORE + r"glpat-[\w-]{20,}", r"[\w-]*"),
    # An id, and the secret where it stands beside it: alone that is any forty characters.
    (
        "aws-key",
        ("AKIA", "ASIA"),
        _BEFORE + r"A[KS]IA[0-9A-Z]{16}(?:[\s,:;\"'|]{1,8}[A-Za-z0-9/+]{40}(?![A-Za-z0-9/+=])|(?![A-Za-z0-9]))",
        r"[A-Za-z0-9/+]*(?:[\s,:;\"'|]{1,8}[A-Za-z0-9/+]{0,40})?",
    ),
    ("slack-token", ("xox", "xapp-"), _BEFORE + r"(?:xox[abeoprs](?:\.xox[bp])?|xapp)-[A-Za-z0-9-]{10,}", r"[\w.-]*"),
    (
        "slack-webhook",
        ("hooks.slack.com/",),
        r"hooks\.slack\.com/(?:services|workflows|triggers)/([\w/]{20,})",
        r"[\w/]*",
    ),
    ("google-key", ("AIza",), _BEFORE + r"AIza[\w-]{35}", r"[\w-]*"),
    ("google-token", ("ya29.", "GOCSPX-"), _BEFORE + r"(?:ya29\.[\w.-]{20,}|GOCSPX-[\w-]{20,})", r"[\w.-]*"),
    ("e2b-key", ("e2b_",), _BEFORE + r"e2b_[0-9a-f]{40}", r"\w*"),
    ("jwt", ("eyJ",), _BEFORE + r"eyJ[\w-]{10,2000}\.eyJ[\w-]{10,}\.[\w-]{10,}", r"[\w.-]*"),
    (
        "pem",
        ("-----BEGIN ",),
        _PEM,
        rf"[A-Z0-9 ]*(?:PRIVATE KEY(?: BLOCK)?-{{0,5}}(?:(?!-----END [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----){_BODY}){{0,16000}})?",
    ),
    (
        "url-password",
        ("://",),
        r"://([^\s/:@\[{$<]{0,64}:(?![{$<%]|\[secret:)[^\s/@\"'<>]{3,300})@",
        r"[^\s/@\"'<>]{0,300}",
    ),
    (
        "login",
        ("machine ",),
        r"machine \S+\s+login\s+\S+\s+password\s+(?!\[secret:)((?=\S*\d)\S+)",
        r"\s*|\S*(?:\s+(?:login\s+\S*(?:\s+(?:password\s+\S*|p\w{0,7}))?|l\w{0,4})?)?",
    ),
    (
        "login",
        ("curl ",),
        r"curl [^\n]{0,200}?(?:-u|--user)[ =](?:\"|')?([^\s:\"'$\[]+:(?![{$<]|\[secret:)[^\s\"'\[]{4,})",
        r"[^\n]{0,300}",
    ),
)

_BEARER = re.compile(r"(?i)bearer\s{1,2}((?=[\w.~+/-]*\d)[\w.~+/-]{20,}=*)")
_BASIC = re.compile(r"(?i)basic {1,2}([A-Za-z0-9+/]{8,}={0,2})")
_AUTHORIZED = re.compile(
    r"(?i)authorization\\*[\"']?\s{0,4}[:=]\s{0,4}\\*[\"']?(?:bearer|basic|token|apikey)\s+([\w.~+/=-]{8,})"
)

_WORDS = (
    "passw", "passp", "pwd", "secret", "api", "token", "credential", "access", "private", "authorization", "bearer ", "basic ",
)  # fmt: skip
"""What gives a value away, in lower case."""
_AFTER_TOKEN = "_-kv\"'\\]:= \t`"
"""What may follow the word "token", which is everywhere."""

_NAME = re.compile(  # from the word on, to the value
    r"(?i)(?:(passw(?:or)?d|passphrase|pwd)|(secret|api[_-]?key|credential|access[_-]?key|private[_-]?key)|(token))"
    r"(?:[_-]?(?:access[_-]?)?(?:key|value))?"
    r"(?:(?P<pair>\\*[\"']?\]?\s{0,4}(?::\s{0,4}str\s{0,4}=|=>|:=|[:=](?![:=]))\s{0,4})|(?P<flag>\s{1,4}))"
    r"(?:(?P<quote>\\*[\"'`])(?P<quoted>(?:(?!(?P=quote))[^\n]){1,400})(?P=quote)|(?P<bare>[^\s\"'`,;&(){}\[\]<>|\\]+)(?![(\[\"'`\w]))"
)
_KEY = re.compile(
    r"(?i).*?(?:(passw(?:or)?d|passphrase|pwd)|(secret|api[_-]?key|credential|access[_-]?key|private[_-]?key)|(token))"
    r"(?:[_-]?(?:access[_-]?)?(?:key|value))?"
)
_OPEN = re.compile(  # the same at a chunk's end, where the value has not ended
    r"(?i)(?:passw|passp|pwd|secret|api|credential|access|private|token|authorization)[\w-]{0,20}"
    r"\\*[\"']?\]?\s{0,4}(?::\s{0,4}str\s{0,4}=|=>?|:=?)?\s{0,4}"
    r"(?:\\*[\"'`][^\n]{0,400}|(?:bearer|basic|token|apikey)?\s{0,4}[^\s\"'`,;&(){}\[\]<>|\\]{0,400})?\Z"
)
# Names of tokens that are words of a vocabulary, not keys.
_VOCABULARY = re.compile(
    r"(?i)(?:eos|bos|pad|unk|sep|cls|mask|special|image|audio|video|start|end|stop|next|begin|boundary|decoder|extra|added|word|sub|"
    r"continuation|page|last|first|prev|cancel|per|num|max|min|new|total|input|output|prompt|completion)[_-]?$"
)
_PLACEHOLDER = re.compile(
    r"(?i)[<${%*.]|.*(?:\[secret:|\.\.\.|\bexample\b|placeholder|change[-_ ]?me|redacted|[{}<>$*]{1,2}\w*[{}<>$*])"
    r"|(?:your|my|the|insert|enter|some|dummy|fake|test)[-_ ].*|os\.environ.*|(?:x{3,}|[*.\-_#]+)$|0x\w+$"
    r"|(?:none|null|nil|true|false|str|string|text|bytes|int|optional|required|hidden|masked|self|undefined|password|passwd|secret|token|"
    r"api_?key|credentials?|hf_token|basic|bearer|write|read)$"
)  # fmt: skip
_PROSE = re.compile(
    r"(?i)\s.*[,.:;]\s|\b(?:a|an|the|your|you|is|are|must|for|to|of|please|enter|with|and|or|not|no)\b.*\s|\s\b(?:password|here)\b"
)
_ENVIRONMENT_NAME = re.compile(r"[A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+")
_IDENTIFIER = re.compile(r"[A-Za-z_]+(?:\.[A-Za-z_]\w*)*(?:_?[vV]?\d{1,3})?|[a-z_]+\d{0,2}(?:_[a-z]+\d{0,2})+")
_NUMBER = re.compile(r"[-+]?[\d_,.]+(?:[eE][-+]?\d+)?[a-zA-Z%]{0,2}")
_WORDY = re.compile(r"(?:[A-Z][a-z]+){2,}|[a-z]{1,11}|[A-Za-z][a-z]+(?:[-_ ./:][A-Za-z]?[a-z]*)+")


KINDS = frozenset((*(name for name, *_ in _SHAPES), "bearer", "basic", "authorization", "password", "token", "key"))
"""The names that [`find`] gives."""
_FLAG = re.compile(r"(?<![\w-])-{1,2}[A-Za-z-]{0,30}\Z")
# The beginnings of all literals, and whether they count only where no word goes on.
_BEGINNINGS = {
    literal[:length]: shape.startswith(_BEFORE)
    for _, literals, shape, _ in sorted(_SHAPES, key=lambda one: not one[2].startswith(_BEFORE))
    for literal in literals
    for length in range(1, len(literal) + 1)
}
_FIRST_OF_WORDS = {word[:length] for word in _WORDS for length in range(1, len(word) + 1)}
_LONGEST = max(map(len, (*_BEGINNINGS, *_FIRST_OF_WORDS)))


@cache
def _pattern(shape: str) -> re.Pattern[str]:
    return re.compile(shape)


def find(text: str) -> list[Found]:
    """Everything in `text` that has the shape of a secret, in any order; places may overlap."""
    found: list[Found] = []
    for name, literals, shape, _ in _SHAPES:
        for literal in literals:
            place = text.find(literal)
            while place >= 0:
                match = _pattern(shape).match(text, place)
                if match:
                    found.append((*match.span(match.re.groups), name))
                place = text.find(literal, match.end() if match else place + len(literal))
    lowered = _lower(text)
    for word in _WORDS:
        if word in lowered:
            found += _named(text, lowered, word)
    return found


def _lower(text: str) -> str:
    lowered = text.lower()
    # A few letters grow when they become small: then places in one would not be places in the other.
    return lowered if len(lowered) == len(text) else "".join(c.lower() if c.isascii() else c for c in text)


def _is_login(encoded: str) -> bool:
    try:
        login = base64.b64decode(encoded + "=" * (-len(encoded) % 4), validate=True).decode()
    except (binascii.Error, ValueError):
        return False
    return ":" in login and login.isprintable()


def _named(text: str, lowered: str, word: str) -> Iterator[Found]:
    for place in _places(lowered, word):
        match word:
            case "authorization":
                if (match := _AUTHORIZED.match(text, place)) and not _PLACEHOLDER.match(match[1]):
                    yield (*match.span(1), "authorization")
            case "bearer ":
                if match := _BEARER.match(text, place):
                    yield (*match.span(1), "bearer")
            case "basic ":
                if (match := _BASIC.match(text, place)) and _is_login(match[1]):
                    yield (*match.span(1), "basic")
            case "token":
                if lowered[place + 5 : place + 6] in _AFTER_TOKEN:
                    yield from _value(text, place)
            case _:
                yield from _value(text, place)


def _value(text: str, place: int) -> Iterator[Found]:
    """The secret that a telling name at `place` is given, if it is one."""
    if text.startswith("[secret:", place - 1) or not (match := _NAME.match(text, place)):
        return
    value, quoted = (match["quoted"], True) if match["quoted"] is not None else (match["bare"], False)
    name = text[_start_of_name(text, place) : place]
    if match["pair"] is None and not name.startswith("--"):
        return
    if _gives_away(match, name, value, quoted, f"{name}{match[0]}"):
        yield (*match.span("quoted" if quoted else "bare"), _kind(match))


def _start_of_name(text: str, place: int) -> int:
    """Where the name begins that has a telling word at `place`; 40 characters before it at most."""
    first = max(0, place - 40)
    while place > first and (text[place - 1].isalnum() or text[place - 1] in "_-"):
        place -= 1
    return place


def _kind(match: re.Match[str]) -> str:
    return "password" if match[1] else "token" if match[3] else "key"


def named(key: str, value: str) -> str:
    """What a value of a mapping is by its key, `""` where the key does not give it away as a secret."""
    if len(key) > 60 or not (match := _KEY.fullmatch(key)):
        return ""
    before = key[: match.start(1 if match[1] else 2 if match[2] else 3)]
    return _kind(match) if _gives_away(match, before, value, True, "") else ""


def _gives_away(match: re.Match[str], before: str, value: str, quoted: bool, whole: str) -> bool:
    """Whether a value that stands under a telling name is a secret, or a word, a placeholder, code."""
    if _PLACEHOLDER.match(value) or _ENVIRONMENT_NAME.fullmatch(value) or len(value) > 400:
        return False
    if any(character.isspace() for character in value) and not (match[1] and quoted):
        return False
    digit = any(character.isdigit() for character in value)
    letter = any(character.isalpha() for character in value)
    exported = not quoted and bool(re.match(r"[A-Z][A-Z0-9_]*=\S", whole))
    if match[3]:  # "token" is a word of this trade
        return (
            len(value) >= 16
            and digit
            and letter
            and value.isascii()
            and not _VOCABULARY.search(before)
            and not _NUMBER.fullmatch(value)
            and not _IDENTIFIER.fullmatch(value)
            and "<|" not in value
        )
    if exported:
        return len(value) >= 8 and not value.startswith(("/", "~", "./")) and not _NUMBER.fullmatch(value)
    if match[1]:
        if quoted:
            return len(value) >= 5 and not _PROSE.search(value)
        symbol = any(character in "!@#$%^&*?~+" for character in value)
        return (
            len(value) >= 6 and ((digit and letter) or symbol) and not _NUMBER.fullmatch(value) and not _is_code(value)
        )
    if quoted:
        return (
            len(value) >= 8
            and letter
            and not (not digit and _WORDY.fullmatch(value))
            and not re.match(r"https?://|[~./]", value)
        )
    return len(value) >= 8 and digit and letter and not _NUMBER.fullmatch(value) and not _IDENTIFIER.fullmatch(value)


def _is_code(value: str) -> bool:
    """Whether a bare value is a name of code (`password=settings.password`); `hunter2` ends with a digit."""
    if not _IDENTIFIER.fullmatch(value):
        return False
    return "." in value or (value.islower() and not value[-1].isdigit())


def unfinished(text: str) -> int:
    """Where in `text` something begins that may become a secret once more text comes; its length if nothing does."""
    lowered = _lower(text)
    first = size = len(text)
    for length in range(1, min(_LONGEST, size) + 1):
        end, place = text[size - length :], size - length
        if end in _BEGINNINGS and not (_BEGINNINGS[end] and _joined(text, place)):
            first = place
        if lowered[place:] in _FIRST_OF_WORDS:  # `HF_TOKEN=` is judged as a whole
            first = min(first, _start_of_name(text, place))
    for _, literals, shape, rest in _SHAPES:
        for literal in literals:
            if literal in text:
                first = min(first, _open(text, literal, rest, shape.startswith(_BEFORE)))
    for word in _WORDS:
        if word in lowered:
            for place in _places(lowered, word):
                if _open_value(text, lowered, word, place):
                    first = min(first, _start_of_name(text, place))
                    break
    if "-" in text[-40:] and (flag := _FLAG.search(text, max(0, size - 40))):
        first = min(first, flag.start())
    return first


def _places(text: str, word: str) -> Iterator[int]:
    place = text.find(word)
    while place >= 0:
        yield place
        place = text.find(word, place + len(word))


def _open_value(text: str, lowered: str, word: str, place: int) -> bool:
    if word in ("bearer ", "basic "):
        return bool(_pattern(r" ?[a-z0-9._~+/=-]*\Z").match(lowered, place + len(word)))
    return bool(_OPEN.match(text, place))


def _open(text: str, literal: str, rest: str, alone: bool) -> int:
    for place in _places(text, literal):
        if not (alone and _joined(text, place)) and _pattern(rf"(?:{rest})\Z").match(text, place + len(literal)):
            return place
    return len(text)


def _joined(text: str, place: int) -> bool:
    """Whether a letter or a digit stands before `place`."""
    return place > 0 and text[place - 1].isascii() and text[place - 1].isalnum()
