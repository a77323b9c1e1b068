"""Tools that are part of a session rather than of the world: they change nothing outside it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from smolagents import Tool

from .events import ApprovalAnswer
from .execution.packages import Packages
from .records import EVALUATION, EXPERIMENT, Records, best, brief, evaluation_line, pinned, spent, table, tree
from .trace.desk import Desk as Desk
from .trace.desk import noted, plan_item


class PlanTool(Tool):
    """The plan of the session: shown to the user as it changes, kept in the trace.

    Args:
        on_change (`Callable[[tuple[dict[str, str], ...]], None]`): Gets the new plan.
    """

    name = "plan"
    effects = "read"
    description = (
        "Writes the plan of your work: a list of items, each with `text` and `status` (pending, in_progress or done). It "
        "replaces the plan before it, so give all items each time; at most one may be in_progress. Write it when you start "
        "and whenever an item is done. Returns the number of items that are still open."
    )
    inputs = {
        "items": {"type": "array", "description": 'e.g. [{"text": "audit the data", "status": "in_progress"}]'},
    }
    output_type = "object"
    output_schema = {"type": "object", "properties": {"open": {"type": "integer"}}, "required": ["open"]}

    def __init__(self, on_change: Callable[[tuple[dict[str, str], ...]], None]) -> None:
        super().__init__()
        self.on_change = on_change

    def forward(self, items: list) -> dict[str, Any]:
        plan = tuple(plan_item(item) for item in items)
        if sum(item["status"] == "in_progress" for item in plan) > 1:
            raise ValueError("More than one item is in_progress: work on one thing at a time.")
        self.on_change(plan)
        return {"open": sum(item["status"] != "done" for item in plan)}


class NotesTool(Tool):
    """Notes that outlast every compaction: kept in the trace, said again where the conversation is shortened.

    Args:
        on_change (`Callable[[tuple[str, ...]], None]`): Gets all notes.
        notes (`Callable[[], tuple[str, ...]]`): The notes so far.
    """

    name = "notes"
    effects = "read"
    description = (
        "Your notebook, which outlasts everything: long conversations are shortened, notes are not. Write down what you will "
        "need later and could not easily find again: decisions, measured figures, names, paths. `add` appends a note; `replace` "
        "puts one text in place of all notes, to tidy up. Returns all notes."
    )
    inputs = {
        "add": {"type": "string", "description": "A new note, one or two lines.", "nullable": True},
        "replace": {"type": "string", "description": "All notes anew, a line each.", "nullable": True},
    }
    output_type = "array"
    output_schema = {"type": "array", "items": {"type": "string"}}

    def __init__(
        self, on_change: Callable[[tuple[str, ...]], None], notes: Callable[[], tuple[str, ...]] = tuple
    ) -> None:
        super().__init__()
        self.on_change, self.notes = on_change, notes

    def forward(self, add: str | None = None, replace: str | None = None) -> list[str]:
        if add is not None and replace is not None:
            raise ValueError("Give `add` or `replace`, not both.")
        notes = noted(self.notes(), add, replace)
        if add is not None or replace is not None:
            self.on_change(notes)
        return list(notes)


def plan_text(items: tuple[dict[str, str], ...]) -> str:
    """A plan as a list in Markdown."""
    marks = {"done": "[x]", "in_progress": "[>]", "pending": "[ ]"}
    return "\n".join(f"- {marks[item['status']]} {item['text']}" for item in items)


def pinned_text(items: tuple[dict[str, str], ...], notes: tuple[str, ...], records: Records | None = None) -> str:
    """Plan, notes, training runs and evaluations, as they are said again after a compaction."""
    parts = [f"## Your plan\n{plan_text(items)}"] if items else []
    if notes:
        parts.append("## Your notes\n" + "\n".join(f"- {note}" for note in notes))
    if records is not None and (measured := pinned(records)):
        parts.append(measured)
    return "\n\n".join(parts)


class ExperimentsTool(Tool):
    """What was tried and measured in a session: its training runs and evaluations, as they are on record.

    Args:
        records (`Records`): Of the session.
    """

    name = "experiments"
    effects = "read"
    description = (
        "What you tried so far: `table` and `tree` to print (your training runs: the metric that their script reports, "
        "what evaluate_model judged, cost, parent; * is the best), "
        "`best` (its id), `evaluations` (a line each), `runs` (as data: id, name, parent, state, metric, cost_usd, "
        "seconds, config). With `id` all that is on record of that one, as `found`."
    )
    inputs = {
        "last": {"type": "integer", "description": "Only the last so many of each (default 50).", "nullable": True},
        "id": {"type": "string", "description": "'run_...' or 'eval_...' (default none).", "nullable": True},
    }
    output_type = "object"
    output_schema = {
        "type": "object",
        "properties": {
            "table": {"type": "string"},
            "tree": {"type": "string"},
            "best": {"type": ["string", "null"]},
            "evaluations": {"type": "array", "items": {"type": "string"}},
            "runs": {"type": "array"},
            "tried": {"type": "integer", "description": "How many runs there are in all."},
            "cost_usd": {"type": "number", "description": "Of all runs whose cost is known."},
            "found": {"type": ["object", "null"]},
        },
        "required": ["table", "tree", "best", "evaluations", "runs"],
    }

    def __init__(self, records: Records) -> None:
        super().__init__()
        self.records = records

    def forward(self, last: int | None = 50, id: str | None = None) -> dict[str, Any]:
        runs, judged = self.records.all(EXPERIMENT), self.records.all(EVALUATION)
        found = next((one for one in [*runs, *judged] if one["id"] == id), None)
        if id and found is None:
            raise ValueError(f"There is no {id!r} on record. `experiments()` shows what there is.")
        most = max(last or 50, 1)
        top = best(runs)
        return {
            "table": table(runs, judged, most),
            "tree": tree(runs, most),
            "best": top["id"] if top is not None else None,
            "evaluations": [evaluation_line(one) for one in judged[-most:]],
            "runs": [brief(run) for run in runs[-most:]],
            "tried": len(runs),
            "cost_usd": spent(runs),
            "found": found,
        }


class InstallPackagesTool(Tool):
    """Installs packages for the code of this session.

    It counts as reading: wheels come from the index that a person has configured, into a folder of the session that only
    its code sees; nothing of them runs outside the jail, and nothing else changes.

    Args:
        packages (`Packages`): Installs.
    """

    name = "install_packages"
    effects = "read"
    description = (
        "Installs Python packages for the code you write, from the package index of this machine. Names and versions only, "
        "wheels only. They can be imported at once, without a restart, and stay for this session. "
        "What is installed here already is not replaced. `!pip install x` in code does the same."
    )
    inputs = {
        "packages": {"type": "array", "description": 'e.g. ["polars", "x==1.2", "sentence-transformers[onnx]"]'},
    }
    output_type = "object"
    output_schema = {
        "type": "object",
        "properties": {
            "installed": {"type": "array", "items": {"type": "string"}},
            "already_there": {"type": "array", "items": {"type": "string"}},
        },
        "required": ["installed", "already_there"],
    }

    def __init__(self, packages: Packages) -> None:
        super().__init__()
        self.packages = packages

    def forward(self, packages: list) -> dict[str, Any]:
        if not all(isinstance(name, str) for name in packages):
            raise ValueError('`packages` is a list of names, such as ["polars", "x==1.2"].')
        done = self.packages.install(packages)
        return {"installed": list(done.new), "already_there": list(done.there)}


NOBODY = "Nobody is there to answer. Decide yourself, by what the task says, and record the decision and its reason."


class AskUserTool(Tool):
    """A question of the agent's to a person. Whoever answers questions about calls is asked; the answer comes with the call.

    Attributes:
        answer (`ApprovalAnswer`, *optional*): Set for each call, on a copy of the tool, once a person has answered.
    """

    name = "ask_user"
    effects = "read"
    answer: ApprovalAnswer | None = None
    description = (
        "Asks the user a question and waits for the answer. Ask before a decision that is theirs and hard to take back, that "
        "the task leaves open, and on which the rest depends; else decide yourself. One question at a time, with what they "
        "need to know to answer it. Returns `answered` and `answer`; where nobody is there, `answered` is False: then decide."
    )
    inputs = {
        "question": {"type": "string", "description": "The question, with what one has to know to answer it."},
        "choices": {"type": "array", "description": "Answers to choose from, the best first.", "nullable": True},
    }
    output_type = "object"
    output_schema = {
        "type": "object",
        "properties": {
            "answered": {"type": "boolean"},
            "answer": {"type": "string"},
            "choice": {"type": ["string", "null"]},
            "by": {"type": "string"},
        },
        "required": ["answered", "answer", "choice", "by"],
    }

    def check(self, question: str, choices: list | None = None) -> None:
        """Raises where nobody should be bothered with it."""
        if not isinstance(question, str) or not question.strip():
            raise ValueError("`question` is empty: say what you want to know.")
        if choices is not None and (
            len(choices) < 2 or not all(isinstance(one, str) and one.strip() for one in choices)
        ):
            raise ValueError("`choices` are at least two texts, or leave them out.")

    def forward(self, question: str, choices: list | None = None) -> dict[str, Any]:
        self.check(question, choices)
        given = self.answer
        if given is None:
            return {"answered": False, "answer": NOBODY, "choice": None, "by": ""}
        text = (
            given.text.strip() or given.reason.strip() or {"approve": "Yes.", "reject": "No."}.get(given.decision, "")
        )
        return {"answered": True, "answer": text, "choice": chosen(text, choices or []), "by": given.by}


def chosen(text: str, choices: list[str]) -> str | None:
    """The choice that an answer names, by its words or its number from 1; `None` for an answer in other words."""
    said = text.strip().casefold().rstrip(".")
    for number, choice in enumerate(choices, 1):
        if said in (choice.strip().casefold().rstrip("."), str(number)):
            return choice
    return None


class RequestStepsTool(Tool):
    """The agent's wish for more steps.

    Args:
        request (`Callable[[int, str], tuple[int, int]]`): Gets number and reason; returns how many steps were given, and how
            many the turn may take in all.
    """

    name = "request_steps"
    effects = "read"
    description = (
        "Asks for more steps for this task. Your steps are given out bit by bit, more while there is progress. Ask before you "
        "run out of them, with what is left to do and why it is worth it. Returns how many were given now and how many you may "
        "take in all; beyond a limit of the session a person decides when it is reached."
    )
    inputs = {
        "steps": {"type": "integer", "description": "How many more."},
        "reason": {"type": "string", "description": "What is left to do, and why it is worth it."},
    }
    output_type = "object"
    output_schema = {
        "type": "object",
        "properties": {"granted": {"type": "integer"}, "in_all": {"type": "integer"}, "note": {"type": "string"}},
        "required": ["granted", "in_all", "note"],
    }

    def __init__(self, request: Callable[[int, str], tuple[int, int]]) -> None:
        super().__init__()
        self.request = request

    def forward(self, steps: int, reason: str) -> dict[str, Any]:
        granted, in_all = self.request(steps, reason)
        note = "" if granted >= steps else "A person is asked for the rest when these are used up."
        return {"granted": granted, "in_all": in_all, "note": note}


@dataclass(frozen=True)
class Decision:
    """A choice that the agent made, why, and from which sources."""

    subject: str
    choice: str
    reason: str
    sources: tuple[str, ...] = ()


class RecordDecisionTool(Tool):
    """Puts a decision on record, for whoever reads the session later.

    Args:
        on_decision (`Callable[[Decision], None]`): Gets it.
    """

    name = "record_decision"
    effects = "read"
    description = (
        "Puts a decision of yours on record: which data set, which model, which metric, which split, what was tried and given "
        "up. Do it when you decide, with the reason as you see it now, and what it rests on (papers, pages, files, measured "
        "figures). Returns the decision."
    )
    inputs = {
        "subject": {"type": "string", "description": "What was to be decided, e.g. `base model`."},
        "choice": {"type": "string", "description": "What you chose."},
        "reason": {"type": "string", "description": "Why, and why not the others."},
        "sources": {
            "type": "array",
            "description": "What it rests on: links, names, paths, figures.",
            "nullable": True,
        },
    }
    output_type = "object"
    output_schema = {
        "type": "object",
        "properties": {
            "subject": {"type": "string"},
            "choice": {"type": "string"},
            "reason": {"type": "string"},
            "sources": {"type": "array", "items": {"type": "string"}},
        },
        "required": ["subject", "choice", "reason", "sources"],
    }

    def __init__(self, on_decision: Callable[[Decision], None]) -> None:
        super().__init__()
        self.on_decision = on_decision

    def forward(self, subject: str, choice: str, reason: str, sources: list | None = None) -> dict[str, Any]:
        for name, text in (("subject", subject), ("choice", choice), ("reason", reason)):
            if not text.strip():
                raise ValueError(f"`{name}` is empty.")
        decision = Decision(
            subject.strip(), choice.strip(), reason.strip(), tuple(str(source) for source in sources or ())
        )
        self.on_decision(decision)
        return {**asdict(decision), "sources": list(decision.sources)}
