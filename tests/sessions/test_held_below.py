"""A session whose colleague waits has no thread either, and the colleague goes on where it stood.

What must never happen: a colleague that waits begins anew, is cut off before its time or goes on in two places; what it asks is
lost, counts twice or is asked twice; one that works is cut off because another one waits.
"""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from typing import Any

import pytest
from ml_intern.tools import TrainingJobTool
from sessions.conftest import Publish, code, notes, result_rows, until
from sessions.test_below import ASKS, QUIET, Look, calls, seen, whole
from sessions.test_held import calls as call_threads
from sessions.test_held import without_thread
from sessions.test_training_jobs import SMOKE, START, WRITE
from smolagents import CodeAgent, Tool, ToolCallingAgent

from ml_intern import InternAgent, State
from ml_intern.budget import StepBudget
from ml_intern.events import AgentEnded, AgentStarted, ApprovalAnswer, Parked
from ml_intern.session_tools import AskUserTool
from ml_intern.testing import LocalE2B, ScriptedModel
from ml_intern.trace.subagents import traces_of_sub_agents

STANDS = code("import uuid\nkept = uuid.uuid4().hex\ndone = publish(what='a')\nfinal_answer([kept, done])")
BOTH = code(
    "from concurrent.futures import ThreadPoolExecutor\n"
    "with ThreadPoolExecutor(2) as pool:\n"
    "    print(*pool.map(lambda one: one('go'), [helper, other]), sep='\\n')"
)
TWICE = code(
    "from concurrent.futures import ThreadPoolExecutor\n"
    "with ThreadPoolExecutor(2) as pool:\n"
    "    print(*pool.map(helper, ['first', 'second']), sep='\\n')"
)
DONE = code("final_answer('done')")


def stands(published: list[str], name: str = "helper", script: tuple[str, ...] = (STANDS,), **more: Any) -> Any:
    """What makes a colleague whose code asks in its middle."""
    return lambda: InternAgent([Publish(published)], ScriptedModel(list(script)), **{**QUIET, "name": name, **more})


def held(build: Any, script: list[str], *agents: Any, **options: Any) -> tuple[Any, Any]:
    intern = build(ScriptedModel(script), managed_agents=list(agents), **options)
    session = intern.submit("Have it published.")
    without_thread(session)
    return intern, session


def ends(session: Any) -> list[tuple[str, str]]:
    return [(event.agent, event.state) for event in session.events.history if isinstance(event, AgentEnded)]


def test_a_session_whose_colleague_waits_has_no_thread_and_its_code_goes_on_where_it_stood(build) -> None:
    published: list[str] = []
    before = call_threads()
    intern, session = held(build, [ASKS, DONE], stands(published))
    (request,) = session.pending()
    assert (request.tool, request.agent, session.state) == ("publish", "helper", "waiting")
    until(lambda: call_threads() <= before, 10)
    intern.approve(session.id, request.call_id, by="me")
    assert session.wait(20).state is State.SUCCESS and published == ["a"]
    assert "published a" in seen(session) and "cut off" not in seen(session)
    assert ends(session) == [("helper", "success")] and not notes(session, "parked")
    assert len(notes(session, "approval-asked")) == len(notes(session, "approval-answered")) == 1
    assert len([event for event in session.events.history if isinstance(event, AgentStarted)]) == 1
    whole(session)


def test_its_report_is_worded_as_smolagents_does_it(build) -> None:
    """Never: what the agent above reads depends on whether there was something to wait for."""

    def report(agent: Any, answers: bool) -> str:
        intern = build(ScriptedModel([ASKS, DONE]), managed_agents=[agent])
        session = intern.submit("Have it published.")
        if answers:
            without_thread(session)
            intern.approve(session.id, session.pending()[0].call_id)
        assert session.wait(20).state is State.SUCCESS
        return seen(session)

    script = (code("print(publish(what='a'))"), code("final_answer('all done')"))
    waited = report(stands([], script=script, provide_run_summary=True), True)
    beside = report(stands([], script=script[1:], provide_run_summary=True), False)
    assert "all done" in waited and "<summary_of_work>" in waited and "published a" in waited
    assert waited.split("all done")[0] == beside.split("all done")[0] != ""


@pytest.mark.parametrize("first", [0, 1])
def test_two_that_wait_at_once_are_answered_in_any_order(build, first: int) -> None:
    published: list[str] = []
    intern, session = held(build, [BOTH, DONE], stands(published), stands(published, "other"))
    until(lambda: len(session.pending()) == 2)
    without_thread(session)
    requests = session.pending()
    intern.approve(session.id, requests[first].call_id)
    until(lambda: ends(session))
    without_thread(session)
    assert ends(session) == [(requests[first].agent, "success")]
    intern.reject(session.id, requests[1 - first].call_id, "not on a Friday")
    session.wait(20)
    assert published == ["a"] and "not on a Friday" in seen(session)
    whole(session)


def test_two_tasks_at_once_for_one_wait_in_turn_and_without_a_thread(build) -> None:
    published: list[str] = []
    script = (STANDS, STANDS)
    intern, session = held(build, [TWICE, DONE], stands(published, script=script))
    assert len(session.pending()) == 1
    intern.approve(session.id, session.pending()[0].call_id)
    until(lambda: len(ends(session)) == 1)
    until(session.pending)
    without_thread(session)
    intern.approve(session.id, session.pending()[0].call_id)
    assert session.wait(20).state is State.SUCCESS and published == ["a", "a"]
    assert ends(session) == [("helper", "success")] * 2
    whole(session)


@pytest.mark.parametrize("answer", ["approve", "reject"])
def test_three_levels_down(build, answer: str) -> None:
    published: list[str] = []

    def low() -> InternAgent:
        return stands(published, "low")()

    def middle() -> InternAgent:
        script = [code("kept = 7\nprint(low('publish a'))"), code("final_answer(f'kept {kept}')")]
        return InternAgent([Look()], ScriptedModel(script), managed_agents=[low()], **QUIET)

    intern, session = held(build, [ASKS, DONE], middle)
    (request,) = session.pending()
    assert request.agent == "helper/low"
    (intern.approve if answer == "approve" else intern.reject)(session.id, request.call_id)
    assert session.wait(20).state is (State.SUCCESS if answer == "approve" else State.DENIED)
    assert published == (["a"] if answer == "approve" else []) and "kept 7" in seen(session)
    assert ends(session) == [("helper/low", "success" if published else "error"), ("helper", "success")]
    assert sum(result_rows(trace, request.call_id) for trace in traces_of_sub_agents(session.trace)) == 1


def test_its_own_question_holds_no_thread(build) -> None:
    agent = lambda: InternAgent(  # noqa: E731 - made once a session
        [AskUserTool()], ScriptedModel([code("final_answer(ask_user(question='Which?'))")]), **QUIET
    )
    intern, session = held(build, [ASKS, DONE], agent)
    intern.approve(session.id, session.pending()[0].call_id, by="ann", text="The small one.")
    assert session.wait(20).state is State.SUCCESS and "The small one." in seen(session)
    whole(session)


def test_edited_arguments_are_asked_about_again_while_it_waits(build) -> None:
    published: list[str] = []
    intern, session = held(build, [ASKS, DONE], stands(published))
    intern.edit(session.id, session.pending()[0].call_id, {"what": "b"})
    until(lambda: [each.arguments for each in session.pending()] == [{"what": "b"}])
    without_thread(session)
    intern.approve(session.id, session.pending()[0].call_id)
    assert session.wait(20).state is State.SUCCESS and published == ["b"]


def test_a_rule_that_is_given_meanwhile_answers_it(build) -> None:
    published: list[str] = []
    _, session = held(build, [ASKS, DONE], stands(published))
    session.allow("publish")
    assert session.wait(20).state is State.SUCCESS and published == ["a"] and not session.pending()


def test_more_steps_for_it_are_waited_for_without_a_thread(build) -> None:
    script = (code("print(1)"), code("print(2)"), code("final_answer('late')"))
    budget = StepBudget(ask_beyond=True)
    _, session = held(build, [ASKS, DONE], stands([], script=script, max_steps=2, budget=budget))
    (request,) = session.pending()
    assert (request.tool, request.agent) == ("request_steps", "helper")
    session.answer(request.call_id, ApprovalAnswer("approve", by="me"))
    assert session.wait(20).state is State.SUCCESS and "late" in seen(session)
    assert len(notes(session, "approval-answered")) == 1
    whole(session)


def test_more_steps_for_it_are_not_worth_a_night(build) -> None:
    script = (code("print(1)"), code("print(2)"), code("final_answer('wrapped up')"))
    agent = stands([], script=script, max_steps=2, budget=StepBudget(ask_beyond=True))
    intern = build(ScriptedModel([ASKS, DONE]), managed_agents=[agent])
    intern._config = replace(intern._config, park_seconds=0.3)
    session = intern.submit("Go.")
    assert session.wait(20).state is State.SUCCESS
    assert ends(session) == [("helper", "max_steps")] and not notes(session, "parked")
    (answer,) = notes(session, "approval-answered")
    assert "nobody answered in time" in answer["reason"]
    whole(session)


def test_it_sleeps_after_a_time_and_is_woken_from_its_trace(build) -> None:
    published: list[str] = []
    intern = build(ScriptedModel([ASKS, DONE]), managed_agents=[stands(published)])
    intern._config = replace(intern._config, park_seconds=0.5)
    session = intern.submit("Publish.")
    until(session.pending)
    until(lambda: not session.busy, 10)
    assert any(isinstance(event, Parked) for event in session.events.history)
    assert not notes(session, "subagent") and not notes(session, "approval-answered")
    intern.approve(session.id, session.pending()[0].call_id)
    assert session.wait(20).state is State.SUCCESS and published == ["a"]
    assert "was cut off" in seen(session) and ends(session) == [("helper", "interrupted")]
    whole(session)


def test_interrupting_it_ends_its_turn_and_the_colleagues(build) -> None:
    published: list[str] = []
    intern, session = held(build, [ASKS, DONE], stands(published))
    began = time.monotonic()
    intern.interrupt(session.id)
    assert session.wait(20).state is State.INTERRUPTED and time.monotonic() - began < 5
    assert published == [] and not session.pending()
    assert ends(session) == [("helper", "interrupted")]
    whole(session)


def test_stop_said_to_it_ends_the_turn(build) -> None:
    published: list[str] = []
    _, session = held(build, [ASKS, DONE], stands(published))
    session.answer(session.pending()[0].call_id, ApprovalAnswer("stop", "enough", "ann"))
    assert session.wait(20).state is State.DENIED and published == []
    whole(session)


def test_code_that_ends_while_its_colleague_waits_ends_it(build) -> None:
    published: list[str] = []
    leaves = "import threading\nthreading.Thread(target=lambda: helper('go'), daemon=True).start()\nimport time\ntime.sleep(3.0)"
    _, session = held(build, [code(leaves), DONE], stands(published))
    assert session.wait(20).state in (State.SUCCESS, State.DENIED)
    assert published == [] and not session.pending() and [state for _, state in ends(session)] == ["interrupted"]
    (answer,) = notes(session, "approval-answered")
    assert answer["decision"] == "reject"
    whole(session)


def test_a_worker_of_a_colleague_that_dies_meanwhile_is_the_colleagues_matter(build) -> None:
    published: list[str] = []
    _, session = held(build, [ASKS, DONE], stands(published, script=(STANDS, code("final_answer('well')"))))
    (sub,) = session._shop.agent.subs()
    sub.agent.python_executor._shelter.worker.kill("memory")
    assert session.wait(20).answer == "done" and published == [] and not session.pending()
    assert "well" in seen(session) and ends(session) == [("helper", "success")]
    whole(session)


def test_its_superiors_worker_that_dies_meanwhile_ends_it(build) -> None:
    published: list[str] = []
    _, session = held(build, [ASKS, DONE], stands(published))
    session._shop.agent.python_executor._shelter.worker.kill("memory")
    assert session.wait(20).answer == "done" and published == [] and not session.pending()
    assert ends(session) == [("helper", "interrupted")]
    whole(session)


def test_closing_leaves_its_question_open(build) -> None:
    published: list[str] = []
    intern, session = held(build, [ASKS, DONE], stands(published))
    (request,) = session.pending()
    began = time.monotonic()
    intern.close()
    assert not session.busy and time.monotonic() - began < 10
    assert not notes(session, "end") + notes(session, "approval-answered") + notes(session, "subagent")
    again = build(ScriptedModel([DONE]), managed_agents=[stands(published)])
    resumed = again.resume(session.id)
    assert [each.call_id for each in resumed.pending()] == [request.call_id]
    again.approve(resumed.id, request.call_id)
    assert resumed.wait(20).state is State.SUCCESS and published == ["a"]
    whole(resumed)


def test_one_that_is_forgotten_leaves_its_question_open(build) -> None:
    published: list[str] = []
    _, session = held(build, [ASKS, DONE], stands(published))
    course, session._course = session._course, None
    course.close()  # what becomes of it where a process ends without a word
    session._shop.agent.cleanup()
    assert not notes(session, "approval-answered") + notes(session, "end") + notes(session, "subagent")
    session._idle.set()  # nobody else will: closing would wait for it


def test_one_that_works_is_not_cut_off_because_another_one_waits(build) -> None:
    published: list[str] = []

    class Slow(Tool):
        name, description, output_type, effects = "slow", "Takes a while.", "string", "read"
        inputs: dict = {}

        def forward(self) -> str:
            time.sleep(1.2)
            return "found"

    def other() -> InternAgent:
        script = [code("print(slow())"), code("print(slow())"), code("final_answer('worked it out')")]
        return InternAgent([Slow()], ScriptedModel(script), **{**QUIET, "name": "other"})

    intern = build(ScriptedModel([BOTH, DONE]), managed_agents=[stands(published), other])
    intern._config = replace(intern._config, park_seconds=0.0)
    session = intern.submit("Go.")
    until(lambda: any(isinstance(event, Parked) for event in session.events.history))
    assert ends(session) == [("other", "success")]
    intern.approve(session.id, session.pending()[0].call_id)
    assert session.wait(20).state is State.SUCCESS and "worked it out" in seen(session)
    whole(session)


@pytest.mark.long
def test_one_that_waits_for_its_job_holds_no_thread_and_is_not_cut_off_for_a_question(build) -> None:
    published: list[str] = []
    wait = f"{START}\nprint(training_job(operation='wait', job_id=job['job_id'])['state'])"

    def trains() -> InternAgent:
        script = [code(f"{WRITE}\n{SMOKE}"), code(wait), code("final_answer('trained')")]
        return InternAgent([TrainingJobTool()], ScriptedModel(script), **{**QUIET, "name": "other"})

    intern = build(ScriptedModel([BOTH, DONE]), managed_agents=[stands(published), trains], allow=["training_job"])
    intern._config = replace(intern._config, park_seconds=1.0)
    session = intern.submit("Train, and publish.")
    without_thread(session)
    (other,) = [sub for sub in session._shop.agent.subs() if sub.path == "other"]
    until(lambda: other.agent.watch.running())
    time.sleep(2.0)
    without_thread(session)  # long after it would have slept
    assert not notes(session, "parked") and not ends(session)
    (other.agent.python_executor.workspace.root / "enough").touch()
    until(lambda: not session.busy, 15)
    assert ends(session) == [("other", "success")] and len(notes(session, "parked")) == 1
    intern.approve(session.id, session.pending()[0].call_id)
    assert session.wait(20).state is State.SUCCESS and published == ["a"] and "trained" in seen(session)
    whole(session)


@pytest.mark.parametrize("kind", ["calling", "code", "own call"])
def test_one_whose_loop_cannot_be_left_waits_as_well(build, kind: str) -> None:
    """Agents of other kinds keep a thread while they wait: until their session sleeps."""
    published: list[str] = []

    class Own(InternAgent):
        def __call__(self, task: str, **kwargs: Any) -> str:
            return f"my own words: {self.run(task)}"

    def made() -> Any:
        if kind == "calling":
            script = [calls("publish", what="a"), calls("final_answer", answer="published")]
            return ToolCallingAgent([Publish(published)], ScriptedModel(script), **QUIET)
        cls = CodeAgent if kind == "code" else Own
        return cls([Publish(published)], ScriptedModel([code("final_answer(publish(what='a'))")]), **QUIET)

    intern = build(ScriptedModel([ASKS, DONE]), managed_agents=[made], allow=["helper"])
    session = intern.submit("Go.")
    until(session.pending)
    intern.approve(session.id, session.pending()[0].call_id)
    assert session.wait(20).state is State.SUCCESS and published == ["a"]
    assert kind != "own call" or "my own words: published a" in seen(session)
    assert ends(session) == [("helper", "success")]
    whole(session)


def test_it_waits_in_a_cloud_as_well(build, tmp_path, monkeypatch) -> None:
    published: list[str] = []
    with LocalE2B(tmp_path / "cloud") as cloud:
        for name, value in cloud.environment().items():
            monkeypatch.setenv(name, value)
        agent = stands(published, executor_type="e2b")
        intern = build(ScriptedModel([ASKS, DONE]), managed_agents=[agent])
        session = intern.submit("Go.")
        until(session.pending, 30)
        without_thread(session)
        intern.approve(session.id, session.pending()[0].call_id)
        assert session.wait(60).state is State.SUCCESS and published == ["a"]
        assert "published a" in seen(session)
        intern.close()
        assert not cloud.boxes


@pytest.mark.parametrize("delay", [0.0, 0.002, 0.01, 0.03, 0.1])
def test_an_answer_that_comes_as_it_falls_asleep_counts_once(build, delay: float) -> None:
    published: list[str] = []
    intern = build(ScriptedModel([ASKS, DONE]), managed_agents=[stands(published)])
    intern._config = replace(intern._config, park_seconds=0.0)
    session = intern.submit("Publish.")
    until(session.pending)
    time.sleep(delay)
    intern.approve(session.id, session.pending()[0].call_id)
    assert session.wait(30).state is State.SUCCESS and published == ["a"]
    assert len(notes(session, "approval-answered")) == 1
    whole(session)


def test_no_thread_is_left_when_all_is_over(build) -> None:
    before = {thread for thread in threading.enumerate() if thread.is_alive()}
    intern, session = held(build, [ASKS, DONE], stands([]))
    intern.approve(session.id, session.pending()[0].call_id)
    assert session.wait(20).state is State.SUCCESS
    intern.close()
    left = lambda: [t.name for t in threading.enumerate() if t not in before and "ml-intern-call" in t.name]  # noqa: E731
    until(lambda: not left(), 10)
