"""Rules that hold for good: never lost, never half written, and nobody else's."""

from __future__ import annotations

import stat
import threading
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ml_intern.approval import Rule, RuleBook
from ml_intern.errors import InternError


def test_what_is_added_is_there_for_the_next_one(tmp_path: Path) -> None:
    book = RuleBook(tmp_path / "home" / "rules")
    assert book.load() == ()
    first, second = Rule.parse("hub_push:me/*:private"), Rule.parse("deny hub_push:*:public")
    book.add(first)
    book.add(second)
    book.add(first)
    assert RuleBook(book.path).load() == (first, second)
    assert stat.S_IMODE(book.path.stat().st_mode) == 0o600
    assert {path.name for path in book.path.parent.iterdir()} == {".rules.lock", "rules"}


def test_lines_that_do_not_read_are_named_and_kept_and_take_no_other_with_them(tmp_path: Path) -> None:
    book = RuleBook(tmp_path / "rules")
    book.path.write_bytes(b"# mine\nallow a\n:::\n\xff\xfe(\n  deny b  \nallow a")
    assert book.load() == (Rule("allow", "a"), Rule("deny", "b"))
    assert len(book.problems) == 2 and "line 3" in book.problems[0] and "does not count" in book.problems[0]
    book.add(Rule("ask", "c"))
    assert book.path.read_bytes() == b"# mine\nallow a\n:::\n\xff\xfe(\n  deny b  \nallow a\nask c\n"


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(st.binary(max_size=300))
def test_any_file_loads(tmp_path: Path, content: bytes) -> None:
    book = RuleBook(tmp_path / "any")
    book.path.write_bytes(content)
    rules = book.load()
    book.add(Rule("allow", "x"))
    assert set(rules) | {Rule("allow", "x")} == set(book.load())


def test_no_rule_is_lost_when_many_are_added_at_once(tmp_path: Path) -> None:
    path = tmp_path / "rules"
    threads = [threading.Thread(target=RuleBook(path).add, args=(Rule("allow", f"t{i}"),)) for i in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {rule.tool for rule in RuleBook(path).load()} == {f"t{i}" for i in range(16)}


def test_a_file_that_cannot_be_used_says_so(tmp_path: Path) -> None:
    (tmp_path / "rules").mkdir()
    with pytest.raises(InternError, match="cannot be used"):
        RuleBook(tmp_path / "rules").load()
