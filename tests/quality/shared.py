"""Whether what tools share is the same in all of them, and as `shared_blocks.py` has it; `--write` makes it so."""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SOURCE = Path(__file__).with_name("shared_blocks.py")
BLOCK = re.compile(r"(?<=\n)    # Shared: (\w+)\n(.*?)    # End of shared: \1\n", re.DOTALL)


def blocks() -> dict[str, str]:
    """The methods of each class of `shared_blocks.py`, as text, by its name in small letters."""
    text = SOURCE.read_text(encoding="utf-8")
    lines = text.splitlines(keepends=True)
    found = {}
    for node in ast.parse(text).body:
        if isinstance(node, ast.ClassDef):
            first = next(one for one in node.body if isinstance(one, ast.FunctionDef))
            found[node.name.lower()] = "".join(lines[first.lineno - 1 : node.end_lineno])
    return found


def rewritten(text: str, known: dict[str, str]) -> str:
    """A tool's source with its blocks as they should be.

    Raises:
        ValueError: A block is not known or not closed, or the first method of one, its name, stands outside.
    """

    def fresh(match: re.Match) -> str:
        name = match[1]
        if name not in known:
            raise ValueError(f"there is no shared block {name!r}")
        return f"    # Shared: {name}\n{known[name]}\n    # End of shared: {name}\n"

    done = BLOCK.sub(fresh, text)
    bare = BLOCK.sub("", text)
    if left := re.search(r"# (End of s|S)hared: \w+", bare):
        raise ValueError(f"{left[0]!r} has no other end")
    for name, body in known.items():
        first = body.partition("\n")[0]
        if f"\n{first}\n" in bare:
            raise ValueError(f"`{first.strip()}` belongs to the shared block {name!r}: put it between its lines")
    return done


def main(write: bool) -> int:
    known, wrong = blocks(), 0
    for path in sorted((ROOT / "tools").glob("*.py")):
        text = path.read_text(encoding="utf-8")
        try:
            new = rewritten(text, known)
        except ValueError as error:
            print(f"shared: {path.relative_to(ROOT)}: {error}")
            wrong += 1
            continue
        if new != text and write:
            path.write_text(new, encoding="utf-8")
        elif new != text:
            print(
                f"shared: {path.relative_to(ROOT)} differs from tests/quality/shared_blocks.py: `make style` writes it"
            )
            wrong += 1
    print(f"shared: {'FAILED' if wrong else 'ok'}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main("--write" in sys.argv[1:]))
