"""Whether a trace is as every reader of the format takes it: line by line, what is wrong and why it matters.

The format has no official specification: the rules are what its readers were seen to need (the Hub's detector and viewer,
usage counters, evaluation tools, the first-party reader). What must never happen here: a file, however broken, is read
with an error instead of a complaint.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .rows import Row
from .validate_blocks import Blocks

ENVELOPE = ("uuid", "parentUuid", "sessionId", "timestamp", "isSidechain", "userType", "cwd", "version")
CHAINED = ("user", "assistant", "system", "attachment", "progress")
"""Rows with an envelope; they form the chain."""
USER_KEYS = {"role", "content"}
ASSISTANT_KEYS = {"id", "type", "role", "model", "content", "stop_reason", "stop_sequence"}
OTHER_HARNESSES = ("session", "message", "session_start", "session_meta", "turn_context", "response_item", "event_msg")
LONGEST_INTEGER = 2**63

_UUID = re.compile(r"[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}", re.IGNORECASE)
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
_VERSION = re.compile(r"\d+\.\d+\.\d+")
_SUBAGENT = re.compile(r"agent-.+")


@dataclass(frozen=True)
class Complaint:
    """What is wrong with a trace.

    Args:
        line (`int`): From 1; 0 for the file as a whole.
        what (`str`): What is wrong.
        why (`str`): What it spoils, for whom.
        grave (`bool`, defaults to `True`): `False` where every reader takes it, and only something is missing from it.
    """

    line: int
    what: str
    why: str
    grave: bool = True

    def __str__(self) -> str:
        where = f"line {self.line}: " if self.line else ""
        return f"{where}{self.what} ({self.why})"


def validate(path: Path) -> list[Complaint]:
    """Complaints about a trace, in the order of its lines; none means that every reader takes it.

    Args:
        path (`Path`): `<session id>.jsonl`, or a sub-agent's `<session id>/subagents/agent-<id>.jsonl`.

    Raises:
        OSError: the file cannot be read.
    """
    check = _Check(path)
    ends = True
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            check.line(number, line)
            ends = line.endswith(b"\n")
    if not ends:
        check.say("the last line is torn", "a viewer that loads the file while it is written, or after a crash, fails")
    check.whole()
    return sorted(check.complaints, key=lambda complaint: complaint.line or LONGEST_INTEGER)


class _Check:
    def __init__(self, path: Path) -> None:
        self.complaints: list[Complaint] = []
        self.stem, self.subagent = path.stem, bool(_SUBAGENT.fullmatch(path.stem))
        self._number = 0
        self._kinds: set[str] = set()
        self._uuids: set[str] = set()
        self._messages: dict[str, tuple[Any, Any]] = {}
        self._blocks = Blocks(self.say, lambda: self._number)
        self._leaves: list[tuple[int, str]] = []
        self._boundary: str | None = None
        self._session = ""
        self._roots = 0

    def say(self, what: str, why: str, grave: bool = True, line: int | None = None) -> None:
        self.complaints.append(Complaint(self._number if line is None else line, what, why, grave))

    def line(self, number: int, line: bytes) -> None:
        self._number = number
        if not line.strip():
            self.say("a blank line", "the Hub's loader fails at it")
            return
        if not line.isascii():
            self.say("it is not ASCII", "U+2028 and U+0085 in a string break loaders that split at them: escape all")
        try:
            row = json.loads(line, parse_constant=self._constant)
        except (ValueError, RecursionError):
            self.say("it is no JSON", "a loader fails, or leaves the row out")
            return
        if not isinstance(row, dict) or not isinstance(row.get("type"), str):
            self.say("it is no object with a `type`", "no reader knows what it is")
            return
        self._values(row)
        self.row(row)

    def _constant(self, name: str) -> None:
        self.say(f"{name} is no JSON", "strict readers fail at it")

    def _values(self, value: Any) -> None:
        """Numbers and characters that readers cannot hold, anywhere in a row."""
        todo = [value]
        while todo:
            item = todo.pop()
            if isinstance(item, dict):
                todo += item.values()
                todo += item.keys()
            elif isinstance(item, list):
                todo += item
            elif isinstance(item, str):
                if not item.isascii() and any("\ud800" <= character <= "\udfff" for character in item):
                    self.say("a lone surrogate", "it is no text: the Hub's loader fails")
            elif isinstance(item, int) and not -LONGEST_INTEGER <= item < LONGEST_INTEGER:
                self.say("an integer beyond 64 bits", "the Hub's loader cannot hold it")

    def row(self, row: Row) -> None:
        kind = row["type"]
        if not self._kinds and kind in OTHER_HARNESSES:
            self.say(f"the first row is a `{kind}`", "the Hub takes the file for another program's, with no messages")
        self._kinds.add(kind)
        if self._boundary is not None and kind in ("user", "assistant", "system"):
            if row.get("isCompactSummary") is not True or row.get("parentUuid") != self._boundary:
                self.say("no summary follows the compaction", "who goes on from here has lost what was before")
            self._boundary = None
        if kind in CHAINED:
            self._envelope(row)
        match kind:
            case "user":
                self._user(row)
            case "assistant":
                self._assistant(row)
            case "system" if row.get("subtype") == "compact_boundary":
                self._compaction(row)
            case "summary":
                if "sessionId" in row:
                    self.say("a summary with a `sessionId`", "a strict reader rejects it")
                self._leaves.append((self._number, str(row.get("leafUuid"))))
            case "ai-title" | "custom-title":
                name = "aiTitle" if kind == "ai-title" else "customTitle"
                if not isinstance(row.get(name), str) or not isinstance(row.get("sessionId"), str) or "uuid" in row:
                    self.say(f"a title is `{name}` and `sessionId`, without a `uuid`", "the title is not shown")
            case "permission-mode" if len(row) != 3:
                self.say("a `permission-mode` row has three keys", "a strict reader rejects others")

    def _envelope(self, row: Row) -> None:
        missing = [name for name in ENVELOPE if name not in row]
        if missing:
            self.say(f"without {', '.join(missing)}", "a strict reader rejects the row")
        identifier, parent = row.get("uuid"), row.get("parentUuid")
        if not isinstance(identifier, str) or identifier in self._uuids:
            self.say("its `uuid` is none, or another row has it", "readers mix up the two")
        if parent is not None and not (isinstance(parent, str) and parent in self._uuids):
            self.say("its parent is no earlier row", "all before it is lost to who goes on from here")
        boundary = row.get("subtype") == "compact_boundary"
        undone = isinstance(row.get("data"), dict) and row["data"].get("kind") == "undone"
        if "parentUuid" in row and parent is None and not boundary and not undone:
            self._roots += 1
            if self._roots == 2:
                self.say("a second beginning", "all before it is lost to who goes on from here")
        self._uuids.add(str(identifier))
        time = row.get("timestamp")
        if "timestamp" in row and not (isinstance(time, str) and _TIME.fullmatch(time)):
            self.say(
                f"its time is {time!r}", "usage counters want UTC as 2026-01-31T10:00:00.000Z, and leave others out"
            )
        if "version" in row and not (isinstance(row["version"], str) and _VERSION.match(row["version"])):
            self.say(
                f"its version is {row['version']!r}", "a usage counter leaves the row out: three numbers are wanted"
            )
        wrong = [name for name in ("userType", "cwd") if name in row and not isinstance(row[name], str)]
        wrong += ["isSidechain"] if not isinstance(row.get("isSidechain", False), bool) else []
        if wrong:
            self.say(f"{', '.join(wrong)} of a wrong kind", "a strict reader rejects the row")
        self._belongs(row)

    def _belongs(self, row: Row) -> None:
        session = row.get("sessionId")
        if isinstance(session, str):
            if self._session and session != self._session:
                self.say("of another session than the row before", "readers list them as two", grave=False)
            self._session = session
        if self.subagent:
            if row.get("isSidechain") is not True or not row.get("agentId"):
                self.say("without `isSidechain` and `agentId`", "a reader takes the sub-agent for a session")
        elif row.get("isSidechain") is True:
            self.say("a sub-agent's row", "the Hub shows it as a turn of the user's; it belongs in a file of its own")

    def _user(self, row: Row) -> None:
        message = row.get("message")
        if not isinstance(message, dict) or set(message) != USER_KEYS or message["role"] != "user":
            self.say(
                "its message is not `role` and `content`",
                "the Hub knows a trace by the keys of users' and assistants' rows",
            )
            return
        content = message["content"]
        if isinstance(content, list):
            for block in content:
                self._blocks.add(block)
        elif not isinstance(content, str):
            self.say("its content is neither text nor blocks", "a strict reader rejects the row")

    def _assistant(self, row: Row) -> None:
        message = row.get("message")
        if not isinstance(message, dict) or set(message) - {"usage"} != ASSISTANT_KEYS:
            self.say(
                "its message lacks keys, or has others",
                "a strict reader rejects the row; the Hub may not detect the file",
            )
            return
        if message["type"] != "message" or message["role"] != "assistant" or not isinstance(message["id"], str):
            self.say("its message's id, type or role is wrong", "a strict reader rejects the row")
        if not isinstance(message["model"], str) or not message["model"]:
            self.say("its message names no model", "readers count its tokens for nobody")
        if "requestId" in row and row["requestId"] is None:
            self.say("a `requestId` that is null", "a strict reader rejects the row: leave it out")
        if "usage" in message:
            self._usage(message["usage"])
        self._once(row, message)
        if not isinstance(message["content"], list):
            self.say("its content is no list of blocks", "readers fail at it")
            return
        for block in message["content"]:
            self._blocks.add(block)

    def _usage(self, usage: Any) -> None:
        counts = usage if isinstance(usage, dict) else {}
        for name in ("input_tokens", "output_tokens", "cache_creation_input_tokens", "cache_read_input_tokens"):
            if name not in counts and name.startswith("cache"):
                continue
            if type(counts.get(name)) is not int or counts[name] < 0:
                self.say(
                    f"its usage has no `{name}`", "a strict reader fails at it; a usage counter leaves the row out"
                )
                return

    def _once(self, row: Row, message: Row) -> None:
        """One answer may take several rows, each at a time of its own and with the same usage."""
        stamp = (row.get("timestamp"), message.get("usage"))
        known = self._messages.setdefault(str(message["id"]), stamp)
        if known is stamp:
            return
        if known[0] == stamp[0]:
            self.say(
                "the same message id and time as an earlier row",
                "a reader takes it for a repetition and leaves it out",
            )
        if known[1] != stamp[1]:
            self.say("the same message id with another usage", "usage counters count only one of them")
        self._messages[str(message["id"])] = stamp

    def _compaction(self, row: Row) -> None:
        metadata = row.get("compactMetadata")
        if row.get("parentUuid") is not None or str(row.get("logicalParentUuid")) not in self._uuids:
            self.say(
                "a compaction begins anew and names the row before it",
                "readers show what was before it twice, or not at all",
            )
        if (
            not isinstance(metadata, dict)
            or metadata.get("trigger") not in ("auto", "manual")
            or "preTokens" not in metadata
        ):
            self.say("a compaction says its `trigger` (auto or manual) and `preTokens`", "a strict reader rejects it")
        self._boundary = str(row.get("uuid"))

    def whole(self) -> None:
        """What only the whole file shows."""
        if not {"user", "assistant"} <= self._kinds:
            self.say(
                "no row of a user's, or none of an assistant's",
                "as a data set's first file it spoils all of it",
                line=0,
            )
        if not self.subagent and not _UUID.fullmatch(self.stem):
            self.say("its name is no UUID", "the first-party reader does not open it", line=0)
        if not self.subagent and self._session and self._session != self.stem:
            self.say("its rows' session is not the file's name", "readers do not find it by its id", line=0)
        for number, leaf in self._leaves:
            if leaf not in self._uuids:
                self.say("a summary of a row that is not there", "no reader shows it", line=number)
        for call, number in self._blocks.unanswered.items():
            self.say(
                f"no result of the call {call}", "who goes on from here must answer it first", grave=False, line=number
            )
