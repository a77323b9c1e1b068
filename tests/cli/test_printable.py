from __future__ import annotations

import unicodedata
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ml_intern.cli import text

ORDINARY = [
    "Grüße, naïve café — “quotes” … €",
    "Привет, мир",
    "日本語のテキスト、全角　空白",
    "한국어 텍스트",
    "مرحبا بالعالم ١٢٣",
    "می‌خواهم کتاب‌ها را ببینم",  # Persian with zero-width non-joiners
    "שלום עולם",
    "क्‍ष हिन्दी පරිගණක ශ්‍රී",  # Devanagari and Sinhala with zero-width joiners
    "ไทย tiếng Việt",
    "👩‍👩‍👧‍👦 👩🏽‍💻 ❤️‍🔥 🏳️‍🌈 🇩🇪 1️⃣ #️⃣ ☀️ 🏴󠁧󠁢󠁥󠁮󠁧󠁿",
    "葛󠄀城",  # an ideograph with its variation selector
    "\u0600\u06dd",  # Arabic format characters that are seen
    "tabs\tand\nlines",
    "⠋⠙⠹ │ └ ✓ █▉",
]
SEEN_FORMAT = {*range(0x600, 0x606), 0x6DD, 0x70F, 0x890, 0x891, 0x8E2, 0x110BD, 0x110CD}
HIDDEN_LETTERS = {0x34F, 0x115F, 0x1160, 0x17B4, 0x17B5, 0x3164, 0xFFA0}
FLAG = "\U0001f3f4\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f"


def offence(shown: str) -> str | None:
    """The first character of `shown` that could act or hide, judged by Unicode's own categories."""
    shown = shown.replace(FLAG, "")
    for place, character in enumerate(shown):
        code, category = ord(character), unicodedata.category(character)
        around = shown[max(place - 1, 0) : place] + shown[place + 1 : place + 2]
        if character in "\n\t" or code in SEEN_FORMAT:
            continue
        if character in "\u200c\u200d" and len(around) == 2 and not around.isascii():
            continue
        if category in ("Cc", "Cf", "Cs", "Zl", "Zp") or code in HIDDEN_LETTERS or 0xE0000 <= code < 0xE0100:
            return f"U+{code:04X} ({category})"
    return None


@given(st.text(alphabet=st.characters(), max_size=80))
@example("\x1b]52;c;ZWNobyBvd25lZA==\x07")
@example("a\u200db")
@example("\u202egnp.exe")
@example("\x9b2J")
@example("\ud800")
def test_nothing_that_acts_or_hides_comes_through(said: str) -> None:
    assert offence(text.printable(said)) is None


@given(
    st.text(
        alphabet=st.sampled_from("aé漢👩\u200c\u200d\ufe0f\U000e0100\u202e\x1b\U000e0061\U0001f3f4\r\n1"), max_size=30
    )
)
def test_nor_in_the_company_of_joiners_and_selectors(said: str) -> None:
    shown = text.printable(said)
    assert offence(shown) is None
    for before, after in pairwise(shown):
        assert not (before in "a" and after in "\ufe0f\U000e0100"), "a selector hides behind a letter"
        assert not (before in "\ufe0f\U000e0100" and after in "\ufe0f\U000e0100"), (
            "selectors in a row carry hidden data"
        )


@pytest.mark.long
def test_every_single_character() -> None:
    """Between letters of ASCII nothing that is not seen has any business."""
    through = [code for code in range(0x110000) if text.printable(f"a{chr(code)}a") == f"a{chr(code)}a"]
    contextual = "\u200c\u200d\ufe00\ufe0f\U000e0100"
    assert [f"{code:x}" for code in through if chr(code) in contextual or offence(chr(code))] == []
    escaped = {unicodedata.category(chr(code)) for code in {*range(0x110000)} - {*through}}
    assert escaped <= {"Cc", "Cf", "Cs", "Cn", "Zl", "Zp", "Mn", "Lo"}


@given(st.text(max_size=40))
def test_twice_is_once(said: str) -> None:
    assert text.printable(text.printable(said)) == text.printable(said)


@pytest.mark.parametrize("said", ORDINARY)
def test_ordinary_text_stays(said: str) -> None:
    assert text.printable(said) == said


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("\x1b[31mred", "\\x1b[31mred"),
        ("a\u202eb", "a\\u202eb"),
        ("a\U000e0041b", "a\\U000e0041b"),
        ("one\r\ntwo\rthree", "one\ntwo\\x0dthree"),
        ("soft\xadhyphen\u200b", "soft\\xadhyphen\\u200b"),
        ("A\ufe01\ufe02", "A\\ufe01\\ufe02"),
        ("\ufeffbom", "\\ufeffbom"),
    ],
)
def test_escapes_are_written_as_python_writes_them(said: str, shown: str) -> None:
    assert text.printable(said) == shown


def test_one_line_stays_on_it() -> None:
    assert text.one_line("README.md\nsafe.txt\t") == "README.md\\nsafe.txt\\t"
    assert text.one_line("x" * 100, 10) == "x" * 9 + "…"


def test_a_call_reads_like_code() -> None:
    assert (
        text.call("search", {"query": 'a "b"', "limit": 3, "deep": None})
        == 'search(query="a \\"b\\"", limit=3, deep=null)'
    )


def test_progress_bars_leave_their_last_state() -> None:
    assert text.last_lines("start\n 10%\r 50%\r100%\nend\n\n", 2) == (["100%", "end"], 1)
    assert text.last_lines("  \n", 3) == ([], 0)
    assert text.last_lines("a\r\nb\r\n", 5) == (["a", "b"], 0)


@given(st.lists(st.text(max_size=3), max_size=40), st.integers(0, 10), st.integers(0, 10))
def test_folding_loses_count_of_nothing(lines: list[str], head: int, tail: int) -> None:
    first, left_out, last = text.fold(lines, head, tail)
    assert len(first) + left_out + len(last) == len(lines)
    assert first == lines[: len(first)]
    assert last == (lines[-len(last) :] if last else [])
    assert left_out == 0 or left_out > 2


def test_figures() -> None:
    assert [text.duration(s) for s in (0.04, 9.94, 59.4, 61, 3599.6, 7500)] == [
        "0.0 s", "9.9 s", "59 s", "1 min 1 s", "1 h 0 min", "2 h 5 min",
    ]  # fmt: skip
    assert [text.amount(n) for n in (0, 999, 1000, 99_949, 100_000, 999_499, 999_500, 12_000_000)] == [
        "0", "999", "1.0k", "99.9k", "100k", "999k", "1.0M", "12.0M",
    ]  # fmt: skip
    assert [text.money(m) for m in (None, 0.0, 0.0042, 0.01, 12.5)] == [
        "cost unknown",
        "$0.00",
        "$0.0042",
        "$0.01",
        "$12.50",
    ]
    assert [text.size(n) for n in (1, 999, 1000, 999_960, 12_345_678, 10**13)] == [
        "1 byte", "999 bytes", "1.0 kB", "1.0 MB", "12.3 MB", "10.0 TB",
    ]  # fmt: skip
