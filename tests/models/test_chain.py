"""A chain of models: the next one when one fails, the better one again when it is back, and nothing lost in between."""

from __future__ import annotations

import json
import random
import socket
import statistics
import subprocess
import sys
import threading
import time

import pytest
from models import dying_server
from smolagents import CodeAgent
from smolagents.memory import ActionStep
from smolagents.models import ChatMessage, MessageRole

from ml_intern import MLIntern
from ml_intern.agent import InternAgent
from ml_intern.authors import Answer, author_of
from ml_intern.context import ContextManager
from ml_intern.context.overflow import overflow_of
from ml_intern.errors import InternError, ModelFailed
from ml_intern.events import Warned
from ml_intern.models import ChainModel, EndpointModel, Price, call_usage
from ml_intern.testing.llm import Cut, Fail, LocalLLM, Reply, scripted

FAST = (0.01, 0.02)


@pytest.fixture
def chain(litellm):
    """Makes a chain over local endpoints that remembers what it told, in order."""

    def make(*servers, ids=("hosted_vllm/a", "llamafile/b", "lm_studio/c"), cool_scale=0.01, **options) -> ChainModel:
        links = [
            EndpointModel(model_id, f"{llm.url}/v1", "key", **{"retry_seconds": FAST, "timeout": 20, **options})
            for model_id, llm in zip(ids, servers, strict=False)
        ]
        model = ChainModel(links, cool_scale=cool_scale)
        model.told = []
        model.on_delta = lambda text: model.told.append(("delta", text))
        model.on_retry = lambda why: model.told.append(("retry", why))
        model.on_switch = lambda switch: model.told.append(("switch", switch))
        return model

    return make


def said(model, kind):
    return [what for told, what in model.told if told == kind]


def failing(fail):
    def answer(request):
        raise fail

    return answer


@pytest.mark.long
@pytest.mark.parametrize(
    ("fail", "asked"),
    [
        (Fail(500, "oops"), 3),
        (Fail(503, "loading"), 3),
        (Fail(429, "slow down"), 3),
        (Fail(429, "come back tomorrow", {"retry-after": "3600"}), 1),
        (Fail(401, "Incorrect API key."), 1),
        (Fail(402, "Pay first."), 1),
        (Fail(404, "No model `a`."), 1),
        (Fail(400, "Your credit balance is too low to access this API."), 1),
    ],
)
def test_the_next_one_after_the_retries_of_the_first(chain, say, fail, asked):
    with LocalLLM(failing(fail)) as first, LocalLLM(lambda request: "from b") as second:
        model = chain(first, second)
        answer = model.generate([say("hello")])
        assert (answer.content, author_of(answer)) == ("from b", "llamafile/b")
        assert (len(first.requests), len(second.requests)) == (asked, 1)
        again = model.generate([say("hello")])  # the first one cools down: nobody troubles it
        assert again.content == "from b"
        assert len(first.requests) == asked or fail.status in (500, 503)
    (switch,) = said(model, "switch")
    assert (switch.model, switch.before, switch.back) == ("llamafile/b", "hosted_vllm/a", False)
    assert fail.message in switch.why
    assert "llamafile/b is asked instead" in said(model, "retry")[asked - 1]


@pytest.mark.parametrize("fail", [Fail(400, 'Bad "thing".'), Fail(422, "No.")])
def test_a_bad_request_goes_to_nobody_else(chain, say, fail):
    with LocalLLM(failing(fail)) as first, LocalLLM(lambda request: "never") as second:
        model = chain(first, second)
        with pytest.raises(ModelFailed, match="refused the request"):
            model.generate([say("hello")])
        assert (len(first.requests), len(second.requests)) == (1, 0)
        assert model.told == []


def test_a_cancelled_request_goes_to_nobody_else(chain, say):
    def answer(request):
        threading.Timer(0.1, model.cancelled.set).start()
        return Reply("late", delay=2)

    with LocalLLM(answer) as first, LocalLLM(lambda request: "never") as second:
        model = chain(first, second)
        with pytest.raises(ModelFailed, match="cancelled"):
            model.generate([say("hello")])
        assert second.requests == []


def test_what_breaks_off_is_void_and_said_anew_by_the_next(chain, say):
    long = "This answer is cut. " * 40
    with LocalLLM(failing(Cut(2000, long))) as first, LocalLLM(lambda request: "whole") as second:
        model = chain(first, second)
        assert model.generate([say("hello")]).content == "whole"
    kinds = [kind for kind, _ in model.told]
    last = len(kinds) - kinds[::-1].index("retry")
    assert kinds.count("retry") == 3
    assert "".join(text for kind, text in model.told[last:] if kind == "delta") == "whole"


def test_back_to_the_better_one_and_a_dead_one_is_only_knocked_at(chain, say):
    with LocalLLM(lambda request: "from b") as second:
        first = LocalLLM(lambda request: "from a").start()
        port = int(first.url.rpartition(":")[2])
        model = chain(first, second)
        assert model.generate([say("1")]).content == "from a"
        first.close()
        assert model.generate([say("2")]).content == "from b"
        time.sleep(0.2)  # its time is over, and nobody is there: no attempt, no wait
        before = len(said(model, "retry"))
        started = time.monotonic()
        assert model.generate([say("3")]).content == "from b"
        assert time.monotonic() - started < 0.5
        assert len(said(model, "retry")) == before
        with LocalLLM(lambda request: "from a", port=port):
            until = time.monotonic() + 5
            while model.generate([say("4")]).content == "from b" and time.monotonic() < until:
                time.sleep(0.05)
            assert model.generate([say("5")]).content == "from a"
    assert [(switch.model, switch.back) for switch in said(model, "switch")] == [
        ("llamafile/b", False),
        ("hosted_vllm/a", True),
    ]


def test_one_that_is_back_too_early_gets_one_try(chain, say):
    with LocalLLM(failing(Fail(503, "loading"))) as first, LocalLLM(lambda request: "from b") as second:
        model = chain(first, second)
        model.generate([say("1")])
        assert len(first.requests) == 3
        time.sleep(0.4)
        assert model.generate([say("2")]).content == "from b"
        assert len(first.requests) == 4


def test_where_none_answers_all_are_named_and_asked_again_the_next_time(chain, say):
    with LocalLLM(scripted([Fail(404, "gone"), "welcome"])) as first, LocalLLM(failing(Fail(401, "no"))) as second:
        model = chain(first, second, cool_scale=1)
        with pytest.raises(ModelFailed) as caught:
            model.generate([say("1")])
        assert "None of the models answers" in str(caught.value)
        assert "hosted_vllm/a" in str(caught.value) and "llamafile/b" in str(caught.value)
        assert model.generate([say("2")]).content == "welcome"


def test_each_answer_has_the_price_of_its_author(chain, say):
    prices = {"hosted_vllm/a": Price(1, 2), "llamafile/b": Price(10, 20)}
    reply = Reply("x", prompt_tokens=1000, completion_tokens=100)
    with LocalLLM(scripted([reply, Fail(401, "no")])) as first, LocalLLM(lambda request: reply) as second:
        model = chain(first, second, prices=prices)
        costs = []
        for _ in range(2):
            answer = model.generate([say("hello")])
            used = call_usage(model, answer.token_usage, answer)
            costs.append((used.model, round(used.cost_usd, 6)))
        assert costs == [("hosted_vllm/a", 0.0012), ("llamafile/b", 0.012)]
        assert model.price(1000, 100) == pytest.approx(0.012)


def test_nothing_of_one_provider_reaches_the_next(chain, say):
    """Cache marks and thinking are the first one's own."""
    thought = Reply("from a", reasoning="I think.", signature="signed")
    with LocalLLM(scripted([thought, Fail(401, "no")])) as first, LocalLLM(lambda request: "from b") as second:
        model = chain(first, second, ids=("openai/anthropic/claude-x", "hosted_vllm/b"))
        messages = [say("system", MessageRole.SYSTEM), say("task")]
        answer = model.generate(messages)
        messages += [ChatMessage(answer.role, [{"type": "text", "text": answer.content}]), say("go on")]
        assert model.generate(messages).content == "from b"
        assert "cache_control" in json.dumps(first.requests[-1])
        sent = json.dumps(second.requests[-1])
        assert "cache_control" not in sent and "signed" not in sent and "I think" not in sent


def test_a_prompt_is_not_sent_to_a_model_that_cannot_read_it(chain, say):
    with LocalLLM(failing(Fail(401, "no"))) as first, LocalLLM(lambda request: "never") as second:
        model = chain(first, second)
        model.models[1]._reads, model.models[1]._looked = 1000, True
        with pytest.raises(ModelFailed) as caught:
            model.generate([say("word " * 4000)])
        assert overflow_of(caught.value).window == 1000
        assert second.requests == []
        assert model.window() == 1000  # so that whoever asks fits the next one
        assert model.generate([say("short")]).content == "never"


def test_the_conversation_is_fitted_before_a_smaller_model_is_asked(chain, tmp_path):
    """The agent's own way: the step is sent again, shorter, and no step is lost."""

    def first(request):
        step = sum(message["role"] == "assistant" for message in request["messages"])
        if step >= 6:
            raise Fail(401, "no longer")
        return f"Look.\n<code>\nprint('line {step} ' * 700)\n</code>"

    sizes = []

    def second(request):
        text = json.dumps(request["messages"])
        sizes.append(len(text))
        return "Done.\n<code>\nfinal_answer('small')\n</code>"

    with LocalLLM(first) as big, LocalLLM(second) as small:
        model = chain(big, small)
        model.models[1]._reads, model.models[1]._looked = 9_000, True
        agent = InternAgent(
            [], model, context=ContextManager(), executor_kwargs={"unsafe_local": True}, verbosity_level=0
        )
        try:
            assert agent.run("Look at many lines.") == "small"
        finally:
            agent.cleanup()
        steps = [step for step in agent.memory.steps if isinstance(step, ActionStep)]
        assert [step.step_number for step in steps] == list(range(1, 8))
        assert len(json.dumps(big.requests[-1]["messages"])) / 4 > 9_000 > max(sizes) / 4


class Server:
    """The dying server, in a process of its own."""

    def __init__(self, port: int = 0, dies_at: int = 0, byte: int = 0, delay: float = 0.0) -> None:
        arguments = [sys.executable, dying_server.__file__, *map(str, (port, dies_at, byte, delay))]
        self.process = subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)
        self.port = int(self.process.stdout.readline())

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()


@pytest.mark.long
@pytest.mark.parametrize("seed", [7, *(pytest.param(seed, marks=pytest.mark.soak) for seed in range(20))])
def test_fifty_steps_though_the_first_server_is_killed_in_the_middle_of_an_answer(chain, tmp_path, seed):
    chance = random.Random(seed)
    dies_at = chance.randrange(2, 25)
    byte = chance.randrange(len(dying_server.response(dies_at)))
    servers = [Server(0, dies_at, byte), Server(delay=0.03)]
    first = servers[0]
    model = chain(*servers, retry_seconds=(0.05, 0.1))
    switched = threading.Event()

    def restart():
        first.process.wait()
        switched.wait(20)
        servers.append(Server(first.port))

    restarting = threading.Thread(target=restart, daemon=True)
    try:
        with MLIntern(model, home=tmp_path, on_event=lambda event: None) as intern:
            restarting.start()
            session = intern.submit("Add fifty numbers.")
            while session.outcome is None and not session.trace.exists():
                time.sleep(0.01)
            session.events.listen(lambda event: "writes from here on" in str(event) and switched.set())
            outcome = session.wait(60)
        rows = [json.loads(line) for line in session.trace.read_text().splitlines()]
    finally:
        switched.set()
        restarting.join(10)
        for server in servers:
            server.close()
    assert (str(outcome.state), outcome.steps, outcome.answer) == ("success", 50, sum(range(1, 50)))
    written = {
        row["step"]: row["message"]["model"] for row in rows if row["type"] == "assistant" and "modelOutput" in row
    }
    assert list(written) == list(range(1, 51))
    assert written[dies_at] == "llamafile/b" and written[dies_at - 1] == written[50] == "hosted_vllm/a"
    notes = [row["data"] for row in rows if row["type"] == "progress" and row["data"].get("kind") == "model"]
    assert [(note["model"], note["back"]) for note in notes] == [("llamafile/b", False), ("hosted_vllm/a", True)]
    seen = [json.dumps(row) for row in rows if "final" in row]
    assert len(seen) == 50
    for step, text in enumerate(seen[:-1], 1):
        assert f"step {step} {sum(range(1, step + 1))}" in text


def test_another_model_for_what_follows_is_on_record(litellm, tmp_path):
    def of(name):
        return lambda request: f"I am {name}.\n<code>\nfinal_answer('{name}')\n</code>"

    with LocalLLM(of("a")) as first, LocalLLM(of("b")) as second:
        with MLIntern(EndpointModel("hosted_vllm/a", f"{first.url}/v1"), home=tmp_path) as intern:
            assert intern.run("Who are you?") == "a"
            session = intern.session()
        with MLIntern(EndpointModel("llamafile/b", f"{second.url}/v1"), home=tmp_path) as intern:
            again = intern.resume(session.id, "And now?")
            assert again.wait(30).answer == "b"
        with MLIntern(EndpointModel("llamafile/b", f"{second.url}/v1"), home=tmp_path) as intern:
            assert intern.resume(session.id, "Still?").wait(30).answer == "b"
    rows = [json.loads(line) for line in session.trace.read_text().splitlines()]
    notes = [row["data"] for row in rows if row["type"] == "progress" and row["data"].get("kind") == "model"]
    assert [(note["before"], note["model"]) for note in notes] == [("hosted_vllm/a", "llamafile/b")]


def test_saved_with_an_agent_and_loaded_without_keys(chain, tmp_path):
    with LocalLLM(lambda request: "from a") as first, LocalLLM(lambda request: "from b") as second:
        model = chain(first, second, temperature=0.5)
        CodeAgent(tools=[], model=model, verbosity_level=0).save(tmp_path)
        assert '"key"' not in "".join(path.read_text() for path in tmp_path.rglob("*") if path.is_file())
        loaded = CodeAgent.from_folder(tmp_path).model
        assert isinstance(loaded, ChainModel)
        assert loaded.to_dict() == model.to_dict()
        assert [link.kwargs for link in loaded.models] == [{"temperature": 0.5}] * 2


def test_its_own_time_beside_the_models(litellm):
    """What a chain adds to a call while its first model is well: a part of the 2 ms that all of it may take."""

    class AtOnce(EndpointModel):
        def answer(self, *arguments, **options):
            return Answer(MessageRole.ASSISTANT, "here", model=str(self.model_id))

    links = [AtOnce(model_id, "http://127.0.0.1:9/v1", "key") for model_id in ("hosted_vllm/a", "llamafile/b")]
    for link in links:
        link._looked, link._reads = True, 170_000
    roles = (MessageRole.USER, MessageRole.ASSISTANT)
    messages = [ChatMessage(roles[i % 2], [{"type": "text", "text": f"{i} " + "x" * 2800}]) for i in range(200)]
    model, took = ChainModel(links), []
    for _ in range(60):
        started = time.process_time()
        model.generate(messages)
        took.append((time.process_time() - started) * 1e3)
    assert statistics.median(took) < 0.5


def refused_port():
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return listening.getsockname()[1]


def test_a_server_that_is_not_there_is_passed_over_at_the_start(litellm, tmp_path, monkeypatch):
    heard = []
    monkeypatch.setenv("VLLM_BASE_URL", f"http://127.0.0.1:{refused_port()}")
    with LocalLLM(lambda request: "Done.\n<code>\nfinal_answer('b')\n</code>") as second:
        monkeypatch.setenv("LLAMACPP_BASE_URL", second.url)
        with MLIntern("vllm/a, llamacpp/b", home=tmp_path, on_event=heard.append) as intern:
            started = time.monotonic()
            assert intern.run("Who are you?") == "b"
            assert time.monotonic() - started < 5
    told = [event.text for event in heard if isinstance(event, Warned)]
    assert any(text.startswith("vllm/a is passed over for now: Nothing answers for hosted_vllm/a") for text in told)
    assert any(text.startswith("llamafile/b writes from here on, hosted_vllm/a did before") for text in told)
    assert not any("trying again" in text for text in told)


def test_one_model_whose_server_is_not_there_is_said_at_once_and_how_to_start_it(tmp_path, monkeypatch):
    monkeypatch.setenv("OLLAMA_BASE_URL", f"http://127.0.0.1:{refused_port()}")
    with MLIntern("ollama/qwen2.5-coder:7b", home=tmp_path) as intern:
        started = time.monotonic()
        with pytest.raises(InternError) as caught:
            intern.run("Who are you?")
        assert time.monotonic() - started < 5
    assert "Nothing answers for ollama_chat/qwen2.5-coder:7b" in str(caught.value)
    assert "ollama serve" in str(caught.value) and "OLLAMA_BASE_URL" in str(caught.value)


def test_options_prices_and_windows_from_the_settings_reach_every_model(tmp_path, monkeypatch):
    monkeypatch.setenv("ML_INTERN_MODEL_OPTIONS", "temperature=0.2, seed=7")
    monkeypatch.setenv("ML_INTERN_EFFORT", "low")
    monkeypatch.setenv("ML_INTERN_PRICES", "ollama/m=1/2")
    monkeypatch.setenv("ML_INTERN_CONTEXT_WINDOW", "16000")
    with MLIntern("vllm/a, ollama/m", home=tmp_path, model_options={"seed": 8, "max_tokens": 500}) as intern:
        model = intern._make_model()
    common = {"temperature": 0.2, "seed": 8, "reasoning_effort": "low", "max_tokens": 500}
    assert [link.kwargs for link in model.models] == [
        common,
        common | {"num_ctx": 16_000},
    ]
    assert model.models[1].price(1_000_000, 0) == 1


def test_one_that_cools_down_is_asked_before_its_time_where_nobody_else_answers(chain, say):
    first = scripted([Fail(500, "oops")] * 3 + ["back already"])
    with LocalLLM(first) as better, LocalLLM(scripted(["from b", Fail(404, "gone")])) as other:
        model = chain(better, other, cool_scale=1)
        assert model.generate([say("1")]).content == "from b"
        assert model.generate([say("2")]).content == "back already"
    with LocalLLM(failing(Fail(401, "no"))) as better, LocalLLM(scripted(["from b", Fail(404, "gone")])) as other:
        model = chain(better, other, cool_scale=1)
        assert model.generate([say("1")]).content == "from b"
        with pytest.raises(ModelFailed, match="was not found"):
            model.generate([say("2")])
        assert len(better.requests) == 1  # a wrong key stays wrong
