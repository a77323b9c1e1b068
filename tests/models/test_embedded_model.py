"""Real weights in a real child process. It is a model of 135 million parameters: what it says is real, and mostly nonsense."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from gguf_files import write_header
from smolagents.models import MessageRole

from ml_intern.context.overflow import overflow_of
from ml_intern.errors import ModelFailed
from ml_intern.models import ChainModel, Endpoint, EndpointModel
from ml_intern.models.embedded import EmbeddedModel, Engine, EngineError, register
from ml_intern.models.embedded.gguf import facts
from ml_intern.models.embedded.memory import plan

pytest.importorskip("xllamacpp", reason="llama.cpp is not installed: the extra [embedded]")
pytestmark = pytest.mark.skipif(not Path("/proc/self").exists(), reason="looks at processes through /proc")
GB = 1 << 30
STORY = "Tell me a long story about a cat."


@pytest.fixture(scope="module")
def shared(weights):
    """One model that most tests ask, so that its weights are loaded once."""
    model = make(weights, window_tokens=1024)
    yield model
    model.close()


@pytest.fixture
def own(weights):
    """A model of a test's own; another window keeps it from sharing a process with others."""
    model = make(weights, window_tokens=512)
    yield model
    model.close()


def make(weights, **options):
    told = []
    model = EmbeddedModel.of(
        Endpoint(f"embedded/{weights}"),
        **{
            "free_bytes": 4 * GB,
            "retry_seconds": (0.01,) * 3,
            **options,
        },
    )
    model.told = told
    model.on_delta = lambda text: told.append(("delta", text))
    model.on_retry = lambda text: told.append(("retry", text))
    model.on_note = lambda text: told.append(("note", text))
    return model


def ask(model, *messages, **options):
    return model.generate([*messages], **{"temperature": 0.0, "max_tokens": 2, **options})


def pid(model):
    return model._store._engine.pid if model._store._engine else None


def alive(number):
    with contextlib.suppress(OSError):
        return "State:\tZ" not in Path(f"/proc/{number}/status").read_text()
    return False


def gone(number, seconds=3.0):
    end = time.monotonic() + seconds
    while alive(number) and time.monotonic() < end:
        time.sleep(0.02)
    return not alive(number)


@pytest.mark.long
def test_streams_stops_and_counts(shared, say):
    shared.told.clear()
    answer = ask(shared, say("Count from one to ten, in words."), stop_sequences=["\n3"], max_tokens=30)
    streamed = [text for kind, text in shared.told if kind == "delta"]
    assert len(streamed) > 3
    assert "".join(streamed) == answer.content
    assert answer.content.endswith("2. 2")
    raw = answer.raw
    assert raw.choices[0].finish_reason == "stop"
    assert 20 < answer.token_usage.input_tokens < 60
    assert 3 < answer.token_usage.output_tokens < 60
    assert shared.window() == 1024


def test_what_was_sent_before_is_not_computed_again(shared, say):
    first = [say("You are brief. " * 12, MessageRole.SYSTEM), say("Name a fruit.")]
    answer = ask(shared, *first, max_tokens=8)
    again = ask(shared, *first, say(answer.content, MessageRole.ASSISTANT), say("Name another."))
    cached = again.raw.usage.prompt_tokens_details.cached_tokens
    assert cached >= answer.token_usage.input_tokens - 1
    assert cached > 0.6 * again.token_usage.input_tokens


def test_a_conversation_in_between_does_not_cost_the_cache(shared, say):
    first, other = [say("You are brief. " * 12, MessageRole.SYSTEM), say("Hi.")], [say("Other talk. " * 20)]
    ask(shared, *first)
    ask(shared, *other)
    back = ask(shared, *first, say("Hm.", MessageRole.ASSISTANT), say("Go on."))
    assert back.raw.usage.prompt_tokens_details.cached_tokens > 60


def test_seed_temperature_and_length(shared, say):
    def once(**options):
        return ask(shared, say("Make up a name."), temperature=1.5, max_tokens=8, **options)

    first, same, other = once(seed=1), once(seed=1), once(seed=2)
    assert first.content == same.content != other.content
    assert first.raw.choices[0].finish_reason == "length"
    assert first.token_usage.output_tokens == 8


def test_an_answer_that_has_to_be_json(shared, say):
    schema = {
        "type": "object",
        "properties": {"thought": {"type": "string", "maxLength": 20}, "number": {"type": "integer", "maximum": 9}},
        "required": ["thought", "number"],
        "additionalProperties": False,
    }
    form = {"type": "json_schema", "json_schema": {"name": "answer", "strict": True, "schema": schema}}
    found = json.loads(ask(shared, say("Think of a number."), response_format=form, max_tokens=60).content)
    assert set(found) == {"thought", "number"}
    assert isinstance(found["number"], int)


def test_a_prompt_that_is_too_long(shared, say):
    with pytest.raises(ModelFailed, match="longer than") as failure:
        ask(shared, say("word " * 1100))
    assert failure.value.kind == "overflow"
    assert overflow_of(failure.value.__cause__).window == 1024


def test_a_request_that_cannot_be_answered_is_not_tried_again(shared, say):
    shared.told.clear()
    with pytest.raises(ModelFailed, match="refused the request"):
        ask(shared, say("Hi."), response_format={"type": "json_schema", "json_schema": {"schema": {"type": "odd"}}})
    assert [kind for kind, _ in shared.told] == []
    assert ask(shared, say("Hi.")).content


def test_litellm_itself_knows_it_now(shared, litellm, weights):
    register()
    messages = [{"role": "user", "content": "Say hi."}]
    answer = litellm.completion(f"embedded/{weights}", messages, max_tokens=3, client=asked(shared))
    assert answer.choices[0].message.content
    assert answer.usage.completion_tokens == 3


def asked(model):
    class Client:
        def answer(self, request):
            return model._store.engine().answer(request)

    return Client()


def test_cancelled_at_once_and_the_next_one_does_not_wait(shared, say):
    took, waited = [], []

    def cancel(at):
        while len(shared.told) < 5:
            time.sleep(0.005)
        at.append(time.monotonic())
        shared.cancelled.set()

    for _ in range(2):  # the better one of two: others use the cores too
        shared.told.clear()
        ask(shared, say("Hi."), max_tokens=1)  # loaded
        shared.told.clear()
        at = []
        threading.Thread(target=cancel, args=(at,)).start()
        with pytest.raises(ModelFailed, match="cancelled"):
            ask(shared, say(STORY), max_tokens=900)
        took.append(time.monotonic() - at[0])
        shared.cancelled.clear()
        started = time.monotonic()
        ask(shared, say("Hi."), max_tokens=1)
        waited.append(time.monotonic() - started)
    assert min(took) < 0.2
    assert min(waited) < 5  # 900 tokens would take far longer


def test_nobody_else_can_ask_it(shared, say, tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))  # where its process makes the socket's folder
    shared.close()
    ask(shared, say("Hi."), max_tokens=1)
    number = pid(shared)
    sockets = set()
    for descriptor in Path(f"/proc/{number}/fd").iterdir():
        with contextlib.suppress(OSError):
            kind, _, inode = str(descriptor.readlink()).partition(":")
            sockets |= {inode.strip("[]")} if kind == "socket" else set()
    assert sockets, "llama.cpp no longer listens at all: the note in child.py is out of date"
    for table in ("tcp", "tcp6", "udp", "udp6"):
        inodes = {line.split()[9] for line in Path(f"/proc/{number}/net/{table}").read_text().splitlines()[1:]}
        assert not sockets & inodes
    assert not [*tmp_path.iterdir()]


@pytest.mark.long
def test_killed_in_the_middle_of_an_answer(own, say):
    def kill(text):
        own.told.append(("delta", text))
        if len(own.told) == 8:
            os.kill(pid(own), signal.SIGKILL)

    own.on_delta = kill
    answer = ask(own, say(STORY), max_tokens=20)
    retries = [text for kind, text in own.told if kind == "retry"]
    assert len(retries) == 1
    assert "was killed" in retries[0] and "trying again" in retries[0]
    assert answer.token_usage.output_tokens == 20
    assert own._store._engine.loads == 2


@pytest.mark.soak
def test_killed_again_and_again(own, say):
    own.on_delta = lambda text: os.kill(pid(own), signal.SIGKILL)
    with pytest.raises(ModelFailed, match="twice in a row") as failure:
        ask(own, say(STORY), max_tokens=20)
    assert failure.value.kind == "unsent"
    own.on_delta = None
    assert ask(own, say("Hi.")).content


@pytest.mark.long
def test_closing_frees_the_memory_and_it_can_be_asked_again(weights, say):
    model, twin = make(weights, window_tokens=256), make(weights, window_tokens=256)
    model.warm()
    for user in (model, twin):
        assert ask(user, say("Hi.")).content
    number = pid(model)
    assert pid(twin) == number  # the same weights are loaded once
    model.close()
    assert alive(number)
    twin.close()
    assert not alive(number)
    assert ask(model, say("Hi.")).content
    number = pid(model)
    del model
    assert gone(number)  # nobody has it any more


@pytest.mark.long
def test_closed_while_it_answers(own, say):
    own.on_delta = lambda text: threading.Thread(target=own.close).start()
    own.retry_seconds = ()
    with pytest.raises(ModelFailed, match="was closed"):
        ask(own, say(STORY), max_tokens=400)


@pytest.mark.parametrize("kind", ["garbage", "cut off", "gone", "empty"])
def test_a_file_that_is_no_model(weights, tmp_path, say, kind):
    path = tmp_path / "m.gguf"
    if kind == "garbage":
        path.write_bytes(os.urandom(100_000))
    elif kind == "cut off":
        with weights.open("rb") as whole:
            path.write_bytes(whole.read(30_000_000))
    elif kind == "empty":
        path.touch()
    said = {
        "garbage": "holds no model",
        "cut off": "not within the file bounds",
        "gone": "There is no file",
        "empty": "m.gguf",
    }
    model = make(path)
    with pytest.raises(ModelFailed, match=said[kind]) as failure:
        ask(model, say("Hi."))
    assert failure.value.kind in ("unsent", "missing")
    assert len(str(failure.value).splitlines()) <= 2
    assert [kind for kind, _ in model.told] == []  # not tried again


def test_a_machine_that_is_too_small(weights, say):
    model = make(weights, free_bytes=300_000_000)
    for attempt in (model.look, lambda: ask(model, say("Hi."))):
        with pytest.raises(ModelFailed, match=r"needs 0\.\d GB of memory, and this machine has 0\.3 GB to spare"):
            attempt()


@pytest.mark.soak
def test_no_memory_while_it_loads(weights):
    """The plan was made for a machine that is larger than this one turns out to be."""
    script = (
        "import resource, sys; from pathlib import Path\n"
        f"resource.setrlimit(resource.RLIMIT_AS, ({GB // 2}, {GB // 2}))\n"
        "from ml_intern.models.embedded import Engine, EngineError\n"
        "from ml_intern.models.embedded.gguf import facts; from ml_intern.models.embedded.memory import Plan\n"
        "engine = Engine(facts(Path(sys.argv[1])), Plan(8192, 0, 0, 0), 1)\n"
        "try: print(list(engine.answer({'messages': [{'role': 'user', 'content': 'hi'}]})))\n"
        "except EngineError as error: print(error.status, error)\n"
    )
    done = subprocess.run([sys.executable, "-c", script, str(weights)], capture_output=True, text=True, timeout=60)
    assert done.stdout.startswith("424 SmolLM2-135M-Instruct.Q4_1 cannot be loaded: "), done.stdout + done.stderr


@pytest.mark.parametrize("moment", ["loaded", "loading", "forked"])
def test_it_dies_with_its_host(weights, moment):
    command = [sys.executable, str(Path(__file__).with_name("embedded_host.py")), str(weights), moment]
    host = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
    with host.stdout:
        number = int(host.stdout.readline())
        assert alive(number)
        host.kill()
        assert gone(number)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(host.pid, signal.SIGKILL)
    host.wait()


def test_importing_it_loads_nothing():
    script = (
        "import sys, ml_intern.models, ml_intern.models.embedded as e\n"
        "from ml_intern.models.embedded import find_on_disk, Weights, Engine\n"
        "print([name for name in ('xllamacpp', 'litellm', 'smolagents', 'huggingface_hub') if name in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, text=True).stdout == "[]\n"


@pytest.mark.long
def test_a_child_that_gives_no_sign(weights):
    found = facts(weights)
    engine = Engine(found, plan(found, 4 * GB, 256), threads=1)
    request = {"messages": [{"role": "user", "content": "Hi."}], "max_tokens": 5}
    list(engine.answer(request))
    os.kill(engine.pid, signal.SIGSTOP)
    with pytest.raises(EngineError, match="gave no sign") as failure:
        list(engine.answer(request, silence=0.3))
    assert failure.value.status == 408
    assert list(engine.answer(request))  # another one was started
    engine.close()


def test_weights_that_have_to_be_downloaded_first_are_said_so(tmp_path, monkeypatch):
    monkeypatch.setenv("ML_INTERN_HOME", str(tmp_path))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    model = make("me/m:Q4_0")
    assert model.look() == "embedded/me/m:Q4_0 is not on this disk: it is downloaded first."
    assert model.window() is None
    monkeypatch.setenv("ML_INTERN_OFFLINE", "1")
    with pytest.raises(ModelFailed, match="needs the network"):
        model.look()
    write_header(tmp_path / "models/me/m/m-Q4_0.gguf")
    assert model.look() == ""


@pytest.mark.long
def test_a_child_that_does_not_even_read(weights):
    found = facts(weights)
    engine = Engine(found, plan(found, 4 * GB, 256), threads=1)
    list(engine.answer({"messages": [{"role": "user", "content": "Hi."}], "max_tokens": 1}))
    os.kill(engine.pid, signal.SIGSTOP)
    number = engine.pid
    with pytest.raises(EngineError, match="hung and was killed"):
        list(engine.answer({"messages": [{"role": "user", "content": "word " * 300_000}]}, silence=0.3))
    assert gone(number)
    engine.close()


def test_the_last_of_a_chain(shared, say):
    nobody = Endpoint("hosted_vllm/m", "http://127.0.0.1:9/v1", "key")
    switches = []
    chain = ChainModel([EndpointModel.of(nobody, retry_seconds=()), shared], on_switch=switches.append)
    listeners = shared.on_delta, shared.on_retry, shared.on_note, shared.cancelled
    try:
        answer = chain.generate([say("Hi.")], max_tokens=3)
        assert answer.content
        assert answer.model == shared.model_id
        assert [(switch.model, switch.back) for switch in switches] == [(shared.name, False)]
    finally:
        shared.on_delta, shared.on_retry, shared.on_note, shared.cancelled = listeners
