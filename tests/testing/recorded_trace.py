"""A small trace as the project writes it: a turn with its exact words, nested tool calls, a turn without, a plan."""

import json
from pathlib import Path
from typing import Any

USAGE = {
    "input_tokens": 10,
    "output_tokens": 5,
    "cache_creation_input_tokens": 0,
    "cache_read_input_tokens": 30,
}


def assistant(text: str, *uses: tuple[str, str, dict[str, Any]], usage: bool = True, **extra: Any) -> dict[str, Any]:
    content: list[dict[str, Any]] = [{"type": "text", "text": text}] if text else []
    content += [{"type": "tool_use", "id": id, "name": name, "input": arguments} for id, name, arguments in uses]
    message = {"role": "assistant", "model": "m", "content": content, **({"usage": USAGE} if usage else {})}
    return {"type": "assistant", "message": message, **extra}


def result(id: str, text: Any) -> dict[str, Any]:
    block = {"type": "tool_result", "tool_use_id": id, "content": text}
    return {"type": "user", "message": {"role": "user", "content": [block]}}


def write_trace(path: Path, *rows: dict[str, Any]) -> Path:
    """Write these rows, or, without any, three turns: `train()`, `show()` and a plan."""
    rows = rows or (
        {"type": "system", "subtype": "init", "content": "x"},
        {"type": "user", "message": {"role": "user", "content": "say the accuracy"}},
        assistant(
            "exact words",
            ("c1", "python_interpreter", {"code": "train()"}),
            modelOutput="exact words\n<code>\ntrain()\n</code> ",
        ),
        assistant("", ("n1", "run_tool", {"x": 1}), usage=False),
        result("n1", "nested: must not be compared"),
        result("c1", [{"type": "text", "text": "accuracy: 0.9134"}, {"type": "text", "text": "took 3.2 s"}]),
        assistant("Look.", ("c2", "python_interpreter", {"code": "show()"})),
        result("c2", "accuracy: 0.91"),
        assistant("a plan", stepKind="planning"),
    )
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path
