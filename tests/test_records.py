"""Training runs and evaluations of a session: on record, back after a restart, never somebody else's."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from sessions.conftest import code

from ml_intern import MLIntern
from ml_intern.facts import FactBook, measured_in
from ml_intern.records import EVALUATION, EXPERIMENT, Records, best, pinned, tree
from ml_intern.session_tools import ExperimentsTool, pinned_text
from ml_intern.steps import ToolCallStep, ToolResultStep
from ml_intern.testing import ScriptedModel
from ml_intern.trace import restore
from ml_intern.trace.fork import fork


def run(number: int, value: float | None = None, **changes: Any) -> dict[str, Any]:
    metric = None if value is None else {"name": "eval_accuracy", "value": value, "higher_is_better": True}
    fields = {"parent": None, "name": f"try {number}", "config": {}, "cost_usd": None, "seconds": 3.0, "state": "done"}
    return {"id": f"run_{number:012x}", "metric": metric, **fields, **changes}


def evaluation(number: int, value: float, **changes: Any) -> dict[str, Any]:
    data = {"id": "acme/reviews", "config": None, "split": "test", "revision": "abc"}
    sides = {"baseline": {"name": "majority", "value": 0.5}, "candidate": {"name": "mine", "value": value}}
    fields = {"metric": "accuracy", "higher_is_better": True, "n": 100, "dataset": data, "better": True}
    return {
        "id": f"eval_{number:012x}",
        **fields,
        **sides,
        "difference": {"value": value - 0.5, "p_value": 0.01},
        **changes,
    }


@pytest.fixture
def noted() -> list[tuple[str, dict[str, Any]]]:
    return []


@pytest.fixture
def records(tmp_path: Path, noted) -> Records:
    return Records(tmp_path / "session", lambda kind, data: noted.append((kind, data)))


def test_the_last_row_of_an_id_counts_and_all_are_on_record(records: Records, noted, tmp_path: Path) -> None:
    records.add(EXPERIMENT, run(1, state="running"))
    records.add(EXPERIMENT, run(2, 0.8))
    records.add(EXPERIMENT, run(1, 0.9))
    assert [row["state"] for row in records.all(EXPERIMENT)] == ["done", "done"] and len(noted) == 3
    assert records.find(EXPERIMENT, run(1)["id"])["metric"]["value"] == 0.9
    assert records.all(EVALUATION) == [] and records.find(EVALUATION, "eval_000000000001") is None
    lines = [json.loads(line) for line in (tmp_path / "session/experiments.jsonl").read_text().splitlines()]
    assert [line["state"] for line in lines] == ["running", "done", "done"] and lines[0]["kind"] == "experiment"
    again = Records(tmp_path / "again", lambda kind, data: None, noted)
    assert again.all(EXPERIMENT) == records.all(EXPERIMENT)
    assert len((tmp_path / "again/experiments.jsonl").read_text().splitlines()) == 2


def test_what_is_given_out_is_a_copy(records: Records) -> None:
    given = run(1, 0.8)
    records.add(EXPERIMENT, given)
    given["metric"]["value"] = 1.0
    records.all(EXPERIMENT)[0]["metric"]["value"] = 1.0
    assert records.all(EXPERIMENT)[0]["metric"]["value"] == 0.8


@pytest.mark.parametrize(
    ("kind", "data"),
    [("result", run(1)), (EXPERIMENT, evaluation(1, 0.9)), (EVALUATION, {"id": "eval_"}), (EXPERIMENT, {})],
)
def test_what_is_no_record_is_refused(records: Records, noted, kind: str, data: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"Records are of the kinds|The `id` of an"):
        records.add(kind, data)
    assert noted == []


def test_what_cannot_be_put_on_record_does_not_count(tmp_path: Path) -> None:
    def full(kind: str, data: dict[str, Any]) -> None:
        raise OSError(28, "No space left on device")

    records = Records(tmp_path, full)
    with pytest.raises(OSError):
        records.add(EXPERIMENT, run(1, 0.9))
    assert records.all(EXPERIMENT) == []


@pytest.mark.parametrize(
    ("runs", "wins"),
    [
        ([], None),
        ([run(1)], None),
        ([run(1, 0.8), run(2, 0.9), run(3, 0.85)], 2),
        ([run(1, 0.8), run(2, 0.99, state="failed")], 1),
        ([run(1, 0.8), run(2, 0.99, config={"smoke": True})], 1),
        ([run(1, 0.8), run(2, float("nan")), run(3, True)], 1),
        ([run(1, 0.8), run(2, 0.8)], 1),
        (
            [
                run(n, None, metric={"name": "eval_loss", "value": value, "higher_is_better": False})
                for n, value in ((1, 0.9), (2, 0.2), (3, 0.4))
            ],
            2,
        ),
    ],
)
def test_the_best_is_one_that_is_done(runs: list[dict[str, Any]], wins: int | None) -> None:
    found = best(runs)
    assert (found and found["id"]) == (wins and run(wins)["id"])


def test_the_tree_shows_each_run_once_below_its_parent() -> None:
    ids = {number: run(number)["id"] for number in range(1, 8)}
    runs = [
        run(1, 0.7),
        run(2, 0.8, parent=ids[1]),
        run(3, parent=ids[2], state="failed"),
        run(4, 0.75, parent="run_of_no_one"),
    ]
    runs += [run(5, parent=ids[6]), run(6, parent=ids[5]), run(7, 0.5, parent=ids[7])]
    lines = tree(runs).splitlines()
    assert sorted(line.split()[0] for line in lines) == sorted(ids.values())
    depth = {line.split()[0]: (len(line) - len(line.lstrip())) // 2 for line in lines}
    assert [depth[ids[number]] for number in (1, 2, 3, 4)] == [0, 1, 2, 0]
    assert [line for line in lines if "*best*" in line] == [line for line in lines if ids[2] in line]


def test_after_a_compaction_the_best_and_the_newest_are_said_again(records: Records) -> None:
    assert pinned(records) == "" and pinned_text((), (), records) == ""
    for number in range(30):
        records.add(EXPERIMENT, run(number, 0.95 if number == 3 else 0.5))
        records.add(EVALUATION, evaluation(number, 0.9))
    said = pinned_text((), ("seed 7",), records)
    assert (
        "- seed 7" in said and f"- best: {run(3)['id']}" in said and run(29)["id"] in said and run(5)["id"] not in said
    )
    assert "17 older ones" in said and evaluation(29, 0.9)["id"] in said and evaluation(3, 0.9)["id"] not in said
    assert len(said) < 3_000
    shown = ExperimentsTool(records).forward(last=2)
    assert [len(shown["runs"]), len(shown["evaluations"]), shown["best"]] == [2, 2, run(3)["id"]]


def test_a_thousand_experiments_are_a_short_table_at_once(records: Records) -> None:
    """In a chain, each run goes on from the one before: nothing here may go as deep as they do."""
    for number in range(1_000):
        parent = run(number - 1)["id"] if number else None
        given = run(
            number, 0.9 if number == 7 else number / 2_000, parent=parent, cost_usd=0.5, name=f"try {number} " * 9
        )
        records.add(EXPERIMENT, given)
        records.add(EVALUATION, evaluation(number, 0.6, errors=[{"input": "long " * 200}] * 5, per_class={"a": 1}))
    began = time.monotonic()
    shown = ExperimentsTool(records).forward()
    assert time.monotonic() - began < 3  # seconds; a fifth of one on an idle core
    assert len(json.dumps(shown)) < 60_000 and shown["tried"] == 1_000 and shown["cost_usd"] == 500.0
    lines = shown["table"].splitlines()
    assert lines[0].split() == ["id", "name", "state", "metric", "judged", "cost", "time", "parent"]
    assert len(lines) == 53
    assert lines[1].startswith(f"{run(7)['id']}* ") and "eval_accuracy 0.9" in lines[1] and "$0.50" in lines[1]
    assert lines[-1] == "(949 older ones are left out)" and max(map(len, lines)) < 130
    assert "(950 older ones are left out)" in shown["tree"] and len(shown["evaluations"]) == 50
    assert all(len(said) < 250 for said in shown["evaluations"])
    assert len(pinned(records)) < 3_500


def test_what_this_host_measured_stands_beside_what_a_script_says(records: Records) -> None:
    records.add(EXPERIMENT, run(1, 0.99))
    records.add(EXPERIMENT, run(2, 0.8))
    records.add(EVALUATION, evaluation(1, 0.6, experiment=run(1)["id"]))
    records.add(EVALUATION, evaluation(2, 0.7, experiment=run(1)["id"]))
    records.add(EVALUATION, evaluation(3, 0.9, experiment=None))
    _, first, second = ExperimentsTool(records).forward()["table"].splitlines()
    assert "eval_accuracy 0.99  accuracy 0.7" in first and "accuracy 0.8 " in second and second.count("accuracy") == 1


def test_all_of_one_is_there_by_its_id(records: Records) -> None:
    records.add(EXPERIMENT, run(1, 0.8, config={"script_sha256": "ab", "smoke": False}))
    records.add(EVALUATION, evaluation(2, 0.9, errors=[{"input": "x"}]))
    tool = ExperimentsTool(records)
    assert "script_sha256" not in tool.forward()["runs"][0]["config"] and tool.forward()["found"] is None
    assert tool.forward(id=run(1)["id"])["found"]["config"]["script_sha256"] == "ab"
    assert tool.forward(id=evaluation(2, 0)["id"])["found"]["errors"] == [{"input": "x"}]
    with pytest.raises(ValueError, match="no 'run_x' on record"):
        tool.forward(id="run_x")


class TestProgress:
    @staticmethod
    def after(*results: Any, tool: str = "evaluate_model", says: str = "") -> list[tuple[str, ...]]:
        from smolagents.memory import ActionStep
        from smolagents.monitoring import Timing

        book, moved = FactBook(), []
        for number, result in enumerate(results):
            book.note_call(ToolCallStep(f"call_{number}", tool, {}, "read", number))
            book.note_result(ToolResultStep(f"call_{number}", tool, number, result))
            step = ActionStep(number, Timing(0.0, 1.0), observations=says.format(0.5 + number / 10), code_action="x")
            moved.append(book.finished(step).progress)
        return moved

    def test_a_better_evaluation_is_progress(self) -> None:
        moved = self.after(evaluation(1, 0.8), evaluation(2, 0.8), evaluation(3, 0.79), evaluation(4, 0.81))
        assert moved[1:3] == [(), ()]
        assert moved[0] == ("measured accuracy on acme/reviews test: 0.8",)
        assert moved[3] == ("new best accuracy on acme/reviews test: 0.81",)

    def test_lower_is_better_where_it_is(self) -> None:
        lower = {"metric": "perplexity", "higher_is_better": False}
        moved = self.after(evaluation(1, 9.0, **lower), evaluation(2, 10.0, **lower), evaluation(3, 8.0, **lower))
        assert [len(one) for one in moved] == [1, 0, 1]

    def test_what_code_prints_counts_only_until_something_was_measured(self) -> None:
        assert [len(one) for one in self.after(None, None, tool="notes", says="accuracy: {}")] == [0, 1]
        assert [len(one) for one in self.after(evaluation(1, 0.8), evaluation(2, 0.7), says="accuracy: {}")] == [1, 0]

    def test_no_other_tool_measures(self) -> None:
        assert self.after(evaluation(1, 0.8), tool="arxiv_search") == [()]

    @pytest.mark.parametrize("value", [None, "0.9", True, float("nan"), float("inf")])
    def test_what_is_no_number_is_no_measure(self, value: Any) -> None:
        assert measured_in(evaluation(1, 0.8, candidate={"value": value})) is None


MEASURES = code("print(experiments()['best'])")


def measured(home: Path) -> MLIntern:
    """An intern whose session has a run and an evaluation on record."""
    intern = MLIntern(ScriptedModel([MEASURES, code("final_answer('done')")]), home=home, tools=[])
    session = intern.submit("Measure.")
    assert session.wait(60) is not None
    shop = session._open()
    shop.records.add(EXPERIMENT, run(1, 0.8))
    shop.records.add(EVALUATION, evaluation(1, 0.9))
    shop.records.held_out.mkdir()
    (shop.records.held_out / "labels.json").write_text("{}")
    return intern


def test_they_are_back_in_a_session_that_is_taken_up_or_forked(home: Path) -> None:
    first = measured(home)
    trace = first.session().trace
    first.close()
    assert [kind for kind, _ in restore(trace).records] == [EXPERIMENT, EVALUATION]
    with MLIntern(ScriptedModel([MEASURES, code("final_answer('again')")]), home=home, tools=[]) as again:
        session = again.resume(trace.stem, "Go on.")
        assert session.wait(60).answer == "again"
        assert session._open().records.find(EVALUATION, evaluation(1, 0.9)["id"]) is not None
    own = fork(trace.stem, home)
    assert [data["id"] for _, data in restore(own.path).records] == [run(1)["id"], evaluation(1, 0.9)["id"]]
    assert (own.path.with_suffix("") / "held_out/labels.json").exists()


def test_a_trace_of_somebody_elses_brings_no_evaluation(home: Path, tmp_path: Path) -> None:
    first = measured(home)
    trace = first.session().trace
    first.close()
    foreign = tmp_path / trace.name
    foreign.write_bytes(trace.read_bytes())
    other = fork(foreign, tmp_path / "other")
    assert restore(other.path).records == () and not (other.path.with_suffix("") / "held_out").exists()
