"""Parsing in several threads at once: sessions run side by side."""

from __future__ import annotations

import ast
from concurrent.futures import ThreadPoolExecutor

import pytest

from ml_intern.syntax import parse

CODE = "\n".join(f"x{n} = [f(a, b=({n} + 1) * 2) for a in range({n}) if a % 2]" for n in range(400))


@pytest.mark.long
def test_threads_that_parse_at_once_all_get_their_tree() -> None:
    wanted = ast.dump(ast.parse(CODE))
    with ThreadPoolExecutor(8) as pool:
        assert {ast.dump(tree) for tree in pool.map(parse, [CODE] * 40)} == {wanted}


def test_what_is_no_python_is_said() -> None:
    with pytest.raises(SyntaxError):
        parse("1 +")
