"""Python's own parser, for several threads at once."""

from __future__ import annotations

import ast
import threading

TRIES = 20
_ALONE = threading.Lock()


def parse(code: str, filename: str = "<unknown>", mode: str = "exec") -> ast.AST:
    """As `ast.parse`, from any thread.

    Python 3.11 keeps one count of a tree's depth for all threads, and raises a `SystemError` ("AST constructor recursion
    depth mismatch") where two of them parse at once. Ours take turns; one that meets another library's tries again.
    """
    with _ALONE:
        for _ in range(TRIES):
            try:
                return compile(code, filename, mode, ast.PyCF_ONLY_AST)
            except SystemError:
                continue
        return compile(code, filename, mode, ast.PyCF_ONLY_AST)
