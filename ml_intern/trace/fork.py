"""fork: a trace up to some step as a session of its own.

What must never happen here: the trace that is forked is changed; a fork of a trace that was not written under this home
brings an approval, a rule, a budget, a mode, a live call or a question with it; a call is left without its answer; what
could not be taken along is not said; half a fork turns up in a list.

It is made as the format's first-party reader makes one, so that both agree on it: a new `sessionId`, new `uuid`s and
parents throughout, `forkedFrom` on each row, sub-agents' rows dropped, the title with "(fork)". That reader drops all
`progress` rows; here those stay that a conversation cannot be put together without: which observations were masked,
messages that came while the agent worked, answers that never came, ends of turns, decisions; of a session of this home
also its mode, rules, limits, training runs and evaluations. All others are dropped. What copied rows cost is not the fork's.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import InternError, JournalFailed
from ..secrets import Masker
from . import rows as made
from .books import Books
from .carry import carry
from .copying import Copy, as_line, complete
from .cut import Cut, cut
from .foreign import fetch, on_hub, read_any
from .listing import find, first_words, is_of
from .read import note_of
from .restored import Lineage
from .rows import Row, blocks_of
from .standing import standing
from .values import text

if TYPE_CHECKING:
    from huggingface_hub import HfApi

CONVERSATION = ("masked", "steered", "no-answer", "end", "decision")
"""Notes that say what the conversation was."""
POWERS = ("mode", "rule", "budget", "model-chosen", "experiment", "evaluation")
"""Notes that say what a session may do: a push goes by an evaluation that was made."""
ARTIFACT = re.compile(r"[0-9a-f]{64}\.txt")
SECRET = re.compile(rb"\[secret:([^\]\\\"]{1,80})\]")


@dataclass(frozen=True)
class Forked:
    """A fork that was made.

    Args:
        path (`Path`), session_id (`str`): Its trace and its id.
        lineage (`Lineage`): Where it comes from.
        steps (`int`): How many steps it took over.
        could_not (`tuple[str, ...]`): What could not be taken along, in sentences.
    """

    path: Path
    session_id: str
    lineage: Lineage
    steps: int
    could_not: tuple[str, ...] = ()


def fork(
    source: str | Path,
    home: Path,
    at: int | str | None = None,
    *,
    instruction: str | None = None,
    title: str = "",
    masker: Masker | None = None,
    api: HfApi | None = None,
) -> Forked:
    """Makes a session out of a trace, up to a step.

    Args:
        source (`str` or `Path`): A session of this home (id, its beginning, title), a file, `hf://datasets/...` or the
            address of a file's page on the Hub. Also Claude Code's own traces and the reference system's.
        home (`Path`): Where the fork goes.
        at (`int` or `str`, *optional*): A step, counted through all turns (`7`) or as turn and step (`"2.3"`), or a row's
            `uuid`. Defaults to the end.
        instruction (`str`, *optional*): Takes the place of the first task.
        title (`str`, *optional*): Defaults to that of the source with "(fork)".
        masker (`Masker`, *optional*): Masks what comes from elsewhere. Defaults to one that knows this process's secrets.
        api (`HfApi`, *optional*): Defaults to the official client as the environment configures it.

    Raises:
        InternError: there is no such trace, step or row; nothing in it can be read.
        JournalFailed: the fork cannot be written.
    """
    home = home.expanduser().absolute()
    with tempfile.TemporaryDirectory(prefix="ml-intern-fork-") as folder:
        trace, name = _find(source, home, Path(folder), api)
        return _fork(trace, name, home, at, instruction, title, masker or Masker())


def _find(source: str | Path, home: Path, folder: Path, api: HfApi | None) -> tuple[Path, str]:
    """The trace on this machine, and what it is called in the fork's lineage."""
    if isinstance(source, str) and "://" in source:
        from huggingface_hub import HfApi

        api = api or HfApi()
        place = on_hub(source, api.endpoint)
        if place is None:
            raise InternError(
                f"{source} is no trace", "", "Give a session, a file, or hf://datasets/user/name/ID.jsonl."
            )
        return fetch(place, folder, api), str(place)
    path = Path(source).expanduser()
    if path.suffix in (".json", ".jsonl") and path.is_file():
        return path.absolute(), path.stem if is_of(path, home) else path.name
    path = find(home, source)
    return path, path.stem


def _fork(
    trace: Path, name: str, home: Path, at: int | str | None, instruction: str | None, title: str, masker: Masker
) -> Forked:
    problems: list[str] = []
    rows = read_any(trace, problems)
    books = Books()
    for row in rows:
        books.add(row)
    here = is_of(trace, home)
    own = here and (books.lineage is None or books.lineage.own)
    stands = standing(rows)
    place = cut(stands, at)
    kept = [row for row in stands[: place.end] if _is_kept(row, own)]
    if not any(row["type"] in ("user", "assistant") for row in kept):
        raise InternError(f"Nothing of {name} can be forked", "there is no finished step or task up to there")
    could_not = [*problems, *_left_out(place)]
    if instruction is not None:
        _instruct(kept, instruction)
        if any(row.get("subtype") == "compact_boundary" for row in kept):
            could_not.append("What was compacted still speaks of the first task as it was.")
    copy = Copy(made.new_id(), trace.stem)
    lines = [as_line(copy.row(row if own else masker.data(complete(row)))) for row in kept]
    last = text(stands[place.end - 1].get("uuid"))
    lineage = Lineage(name, last, own)
    folder = home / "sessions" / copy.session_id
    try:
        could_not += _take_along(trace, folder, place, masker if not own else None, here, own, stands[place.end - 1])
        could_not += _masked(lines)
        foreign = place.step - sum("modelOutput" in row and "stepKind" not in row for row in kept)
        named = masker.text(title or _title(books, kept))
        lines += copy.ending(masker.data({**asdict(lineage), "couldNot": could_not, "foreignSteps": foreign}), named)
        _write(folder.with_suffix(".jsonl"), lines)
    except OSError as error:
        shutil.rmtree(folder, ignore_errors=True)
        raise JournalFailed(
            f"The fork of {name} could not be written", error.strerror or str(error), "Free space, then fork again."
        ) from None
    return Forked(folder.with_suffix(".jsonl"), copy.session_id, lineage, place.step, tuple(could_not))


def _is_kept(row: Row, own: bool) -> bool:
    if row["type"] in ("user", "assistant", "system"):
        return row.get("isSidechain") is not True
    note = note_of(row)
    kind = note.get("kind") if note is not None else None
    return kind in CONVERSATION or (own and kind in POWERS)


def _left_out(place: Cut) -> list[str]:
    if place.left_out is None:
        return []
    return [f"Step {place.left_out} was running when the record ends: it is left out."]


def _instruct(rows: list[Row], instruction: str) -> None:
    """Puts another first task in place of the one there is; its images stay."""
    for i, row in enumerate(rows):
        if row["type"] == "user" and row.get("isMeta") is not True and row.get("isCompactSummary") is not True:
            images = [block for block in blocks_of(row) if block.get("type") == "image"]
            content = [made.text_block(instruction), *images] if images else instruction
            rows[i] = {**row, "message": made.user_message(content)}
            return


def _take_along(
    trace: Path, folder: Path, place: Cut, masker: Masker | None, here: bool, own: bool, last: Row
) -> list[str]:
    """Copies what belongs to the rows; says what does not come with them."""
    source, said = trace.with_suffix(""), []
    folder.mkdir(parents=True, mode=0o700)
    _copy_artifacts(source / "artifacts", folder / "artifacts", masker)
    if not here:
        said.append(
            "The files of its workspace and its variables are not part of a trace: the fork begins without them."
        )
    else:
        carried = carry(source / "workspace", folder / "workspace")
        if carried.left:
            said.append(
                f"{carried.left:,} files of its workspace were not copied: they are too large, or no plain files."
            )
        if not place.whole:
            said.append("The files in the workspace are as they are now, not as they were at that step.")
        carry(source / "packages", folder / "packages")
        if own:
            carry(source / "held_out", folder / "held_out")
        if not (own and place.whole and _copy_snapshot(source, folder, text(last.get("cwd")))):
            said.append("Variables are not taken over: the fork begins with a fresh Python.")
    if (source / "subagents").is_dir():
        said.append("What its sub-agents did, step by step, stays with it; what they reported is here.")
    if not own:
        said.append("It was not written here: no approvals, rules, limits or running calls come with it.")
    return said


def _copy_artifacts(source: Path, target: Path, masker: Masker | None) -> None:
    if source.is_symlink() or not source.is_dir():
        return
    target.mkdir(parents=True, exist_ok=True, mode=0o700)
    for path in source.iterdir():
        if ARTIFACT.fullmatch(path.name) and path.is_file() and not path.is_symlink():
            data = path.read_bytes()
            if masker is not None:
                data = masker.text(data.decode("utf-8", "replace")).encode()
            (target / path.name).write_bytes(data)


def _copy_snapshot(source: Path, folder: Path, cwd: str) -> bool:
    """Takes the variables along as they were last saved; `False` where there are none, or they are bound to that session."""
    manifest = source / "snapshots" / "manifest.json"
    if cwd.startswith(str(source)):  # a jail that cannot show the workspace elsewhere: its paths are in the variables
        return False
    for _ in range(3):  # they may just be saved anew
        try:
            before = manifest.read_bytes()
            carry(manifest.parent, folder / "snapshots")
            if manifest.read_bytes() == before == (folder / "snapshots" / manifest.name).read_bytes():
                return True
        except OSError:
            pass
        shutil.rmtree(folder / "snapshots", ignore_errors=True)
    return False


def _masked(lines: Sequence[bytes]) -> list[str]:
    names = sorted({name.decode(errors="replace") for line in lines for name in SECRET.findall(line)})
    if not names:
        return []
    return [f"Secrets stay masked: {', '.join(names[:10])}{' and more' if len(names) > 10 else ''}."]


def _title(books: Books, rows: Sequence[Row]) -> str:
    task = next((row for row in rows if row["type"] == "user" and row.get("isMeta") is not True), None)
    words = "\n".join(text(b.get("text")) for b in blocks_of(task)) if task is not None else ""
    return f"{text(books.fields()['title']) or first_words(words) or 'Session'} (fork)"


def _write(path: Path, lines: Sequence[bytes]) -> None:
    draft = path.with_suffix(".part")
    try:
        with draft.open("xb") as file:
            draft.chmod(0o600)
            file.writelines(lines)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
