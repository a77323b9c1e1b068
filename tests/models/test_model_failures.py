"""What happens to a request that fails, hangs, breaks off or is no longer wanted."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import threading
import time

import pytest
from smolagents import CodeAgent
from starlette.applications import Starlette
from starlette.responses import HTMLResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from ml_intern.errors import ModelFailed
from ml_intern.models import EndpointModel
from ml_intern.models.failures import explain, pause
from ml_intern.testing.llm import Cut, Fail, LocalLLM, Reply, scripted
from ml_intern.testing.serve import Service

PREFIXES = pytest.mark.parametrize("model_id", ["hosted_vllm/m", "openai/m"])
LONG = "This answer is cut the first time. " * 40


def at(answer):
    """A server that answers chat completions with what `answer(request)` returns."""
    return Service(Starlette(routes=[Route("/v1/chat/completions", answer, methods=["POST"])]))


def event(text, finish_reason=None):
    choice = {"index": 0, "delta": {"role": "assistant", "content": text}, "finish_reason": finish_reason}
    chunk = {"id": "1", "created": 1, "model": "m", "object": "chat.completion.chunk", "choices": [choice]}
    return f"data: {json.dumps(chunk)}\n\n"


def without_usage(request):
    body = event("The cat ") + event("sat.") + event("", "stop") + "data: [DONE]\n\n"
    return Response(body, media_type="text/event-stream")


class Drip:
    """Streams a word every 20 ms: for ever, or `count` and then nothing. `gone` is set once the client hung up."""

    def __init__(self, count: int | None = None) -> None:
        self.count, self.gone = count, threading.Event()

    async def answer(self, request):
        return StreamingResponse(self.words(), media_type="text/event-stream")

    async def words(self):
        sent = 0
        try:
            while True:
                if self.count is None or sent < self.count:
                    yield event(f"{sent} ")
                    sent += 1
                await asyncio.sleep(0.02)
        finally:
            self.gone.set()


def failed(call, *arguments):
    """What a call fails with, and the seconds that took."""
    start = time.monotonic()
    with pytest.raises(ModelFailed) as caught:
        call(*arguments)
    return caught.value, time.monotonic() - start


def retries(model):
    return [text for kind, text in model.told if kind == "retry"]


@pytest.mark.parametrize(
    "model_id", ["hosted_vllm/m", "openai/m", "lm_studio/m", "llamafile/m", "ollama_chat/m", "gemini/m"]
)
def test_nobody_there(model_at, say, model_id):
    llm = LocalLLM(lambda request: "gone").start()
    model = model_at(llm, model_id, retry_seconds=(0.1, 30))
    llm.close()
    error, seconds = failed(model.generate, [say("hello")])
    assert error.what == f"Nothing answers for {model_id} at {model.api_base}"
    assert "Start the server, or correct its address." in error.remedy
    assert len(retries(model)) == 1
    assert seconds < 5


def test_an_unknown_host_is_nobody_there(model_at, say):
    llm = LocalLLM(lambda request: "gone").start()
    model = model_at(llm)
    llm.close()
    model.api_base = "http://no-such-host.invalid/v1"
    error, _ = failed(model.generate, [say("hello")])
    assert error.what == "Nothing answers for hosted_vllm/m at http://no-such-host.invalid/v1"


@PREFIXES
@pytest.mark.parametrize(
    ("fail", "what", "remedy"),
    [
        (Fail(401, "Incorrect API key."), "{} refused the key (Incorrect API key.)", "LLM_ENDPOINT"),
        (Fail(403, "Not from here."), "{} refused the key (Not from here.)", "LLM_ENDPOINT"),
        (Fail(404, "No model `m`."), "{} was not found (No model `m`.)", "Check name and address"),
        (Fail(400, 'Bad "thing".'), '{} refused the request (Bad "thing".)', "Change what it says"),
        (
            Fail(400, "This model's maximum context length is 10 tokens.", code="context_length_exceeded"),
            "The conversation is longer than {} can read (This model's maximum context length is 10 tokens.)",
            "Compact it",
        ),
    ],
)
def test_what_would_fail_again_is_not_sent_again(model_at, say, model_id, fail, what, remedy):
    with LocalLLM(scripted([fail])) as llm:
        model = model_at(llm, model_id)
        error, _ = failed(model.generate, [say("hello")])
        assert len(llm.requests) == 1
    assert str(error).splitlines()[0] == what.format(f"{model_id} at {model.api_base}")
    assert remedy in error.remedy
    assert model.told == []


@PREFIXES
def test_a_wrong_key(model_at, say, model_id):
    with LocalLLM(lambda request: "never", api_key="right") as llm:
        error, _ = failed(model_at(llm, model_id).generate, [say("hello")])
        assert len(llm.service.requests) == 1
    assert "refused the key (Incorrect API key provided.)" in str(error)


@pytest.mark.parametrize(
    ("model_id", "why"),
    [
        ("openai/m", "OPENAI_API_KEY"),
        ("gemini/m", "GEMINI_API_KEY"),
        ("anthropic/m", "ANTHROPIC_API_KEY"),
        ("no-such-provider/m", "LLM Provider NOT provided"),
    ],
)
def test_what_cannot_be_sent_is_not_tried_again(litellm, monkeypatch, say, model_id, why):
    for name in [name for name in os.environ if name.endswith(("_API_KEY", "_TOKEN"))]:
        monkeypatch.delenv(name)
    with LocalLLM(lambda request: "never") as llm:
        told = []
        model = EndpointModel(model_id, f"{llm.url}/v1", on_retry=told.append)
        error, _ = failed(model.generate, [say("hello")])
        assert llm.service.requests == []
    assert error.what == f"{model_id} at {model.api_base} cannot be asked"
    assert why in error.why
    assert told == []


@PREFIXES
def test_too_many_requests_waits_as_long_as_it_is_told(model_at, say, model_id):
    with LocalLLM(scripted([Fail(429, "slow down", {"retry-after": "1"}), "welcome"])) as llm:
        model = model_at(llm, model_id)
        start = time.monotonic()
        assert model.generate([say("hello")]).content == "welcome"
        assert 1 <= time.monotonic() - start < 3
    assert len(retries(model)) == 1
    assert "says too many requests (slow down); trying again in 1 s" in retries(model)[0]


@PREFIXES
@pytest.mark.parametrize("status", [408, 429, 500, 529])
def test_what_may_pass_is_sent_again(model_at, say, model_id, status):
    with LocalLLM(scripted([Fail(status, "busy"), "welcome"])) as llm:
        model = model_at(llm, model_id)
        assert model.generate([say("hello")]).content == "welcome"
    assert len(retries(model)) == 1
    assert llm.requests[0] == llm.requests[1]


@PREFIXES
def test_what_does_not_pass_is_given_up(model_at, say, model_id):
    with LocalLLM(scripted([Fail(500, "oops")] * 9)) as llm:
        model = model_at(llm, model_id)
        error, seconds = failed(model.generate, [say("hello")])
        assert len(llm.requests) == 4
    assert len(retries(model)) == 3
    assert str(error).splitlines()[0] == f"{model_id} at {model.api_base} failed (oops)"
    assert seconds < 5


@PREFIXES
@pytest.mark.parametrize("after_bytes", [0, 900, 3000])
def test_a_stream_that_breaks_off_is_asked_for_again(model_at, say, model_id, after_bytes):
    with LocalLLM(scripted([Cut(after_bytes, LONG), Cut(after_bytes, LONG), LONG])) as llm:
        model = model_at(llm, model_id)
        assert model.generate([say("hello")]).content == LONG
    kinds = [kind for kind, _ in model.told]
    assert kinds.count("retry") == 2
    assert ("delta" in kinds[: kinds.index("retry")]) == (after_bytes > 0)
    last = len(kinds) - kinds[::-1].index("retry")
    assert "".join(text for _, text in model.told[last:]) == LONG  # a listener that starts anew there has the answer
    for text in retries(model):
        assert "failed (" in text and "trying again" in text
        assert "litellm" not in text and "Original exception" not in text


@PREFIXES
def test_a_web_page_is_no_answer(model_at, say, model_id):
    def page(request):
        return HTMLResponse("<html><body>Welcome to your new server</body></html>")

    def gateway(request):
        return HTMLResponse("<html><body>Bad gateway</body></html>", 502)

    with at(page) as service:
        error, _ = failed(model_at(service, model_id).generate, [say("hello")])
        assert f"{model_id} at {service.url}/v1 answered nothing" in error.what
        assert len(service.requests) == 1
    with at(gateway) as service:
        error, _ = failed(model_at(service, model_id).generate, [say("hello")])
        assert "failed" in error.what
        assert len(service.requests) == 4


@PREFIXES
def test_other_json_or_no_bytes_are_no_answer(model_at, say, model_id):
    for answer in (JSONResponse({"detail": "odd"}), Response(b"", media_type="text/event-stream")):
        with at(lambda request, answer=answer: answer) as service:
            failed(model_at(service, model_id).generate, [say("hello")])


@PREFIXES
def test_silence_is_asked_once_more_and_then_given_up(model_at, say, model_id):
    with LocalLLM(lambda request: Reply("late", delay=3)) as llm:
        model = model_at(llm, model_id, timeout=0.3)
        error, seconds = failed(model.generate, [say("hello")])
        assert len(llm.requests) == 2
    assert "did not answer in time" in error.what
    assert 0.6 <= seconds < 2.5


@PREFIXES
def test_silence_in_the_middle_of_an_answer(model_at, say, model_id):
    with at(Drip(count=3).answer) as service:
        model = model_at(service, model_id, timeout=0.3)
        error, seconds = failed(model.generate, [say("hello")])
    assert len(retries(model)) == 1
    assert seconds < 2.5
    assert "did not answer in time" in error.what


class Canceller:
    """Cancels a model's request a moment after `soon` is called, and checks that it ends within a second of that."""

    def __init__(self, model) -> None:
        self.model = model

    def soon(self, *_):
        self.timer = threading.Timer(0.1, self.cancel)
        self.timer.start()

    def cancel(self):
        self.cancelled_at = time.monotonic()
        self.model.cancelled.set()

    def check(self, messages):
        error, _ = failed(self.model.generate, messages)
        assert error.what == "The request was cancelled"
        assert time.monotonic() - self.cancelled_at < 1


@PREFIXES
def test_cancelled_while_it_streams(model_at, say, model_id):
    drip = Drip()
    with at(drip.answer) as service:
        model = model_at(service, model_id)
        canceller = Canceller(model)
        model.on_delta = lambda text: text == "9 " and canceller.soon()
        canceller.check([say("hello")])
        assert drip.gone.wait(2)  # hung up, so that the server need not go on


@PREFIXES
def test_cancelled_before_the_answer_begins(model_at, say, model_id):
    def answer(request):
        canceller.soon()
        return Reply("late", delay=3)

    with LocalLLM(answer) as llm:
        canceller = Canceller(model_at(llm, model_id))
        canceller.check([say("hello")])
        assert len(llm.requests) == 1


@PREFIXES
def test_cancelled_while_nothing_more_comes(model_at, say, model_id):
    with at(Drip(count=3).answer) as service:
        model = model_at(service, model_id)
        canceller = Canceller(model)
        model.on_delta = lambda text: text == "2 " and canceller.soon()
        canceller.check([say("hello")])


def test_cancelled_between_two_attempts(model_at, say):
    with LocalLLM(scripted([Fail(500), "never"])) as llm:
        model = model_at(llm, retry_seconds=(5,))
        canceller = Canceller(model)
        model.on_retry = canceller.soon
        canceller.check([say("hello")])
        assert len(llm.requests) == 1


def test_cancelled_before_it_starts_and_usable_once_cleared(model_at, say):
    with LocalLLM(lambda request: "here") as llm:
        model = model_at(llm)
        model.cancelled.set()
        failed(model.generate, [say("hello")])
        assert llm.requests == []
        model.cancelled.clear()
        assert model.generate([say("hello")]).content == "here"


def test_a_listener_that_fails_ends_the_request(model_at, say):
    drip = Drip()
    with at(drip.answer) as service:
        model = model_at(service)
        model.on_delta = lambda text: 1 / 0
        with pytest.raises(ZeroDivisionError):
            model.generate([say("hello")])
        assert drip.gone.wait(2)


def test_an_agent_survives_what_passes(model_at):
    with LocalLLM(scripted([Fail(503), Cut(800, LONG), "Done.\n<code>\nfinal_answer(42)\n</code>"])) as llm:
        assert CodeAgent(tools=[], model=model_at(llm), verbosity_level=0).run("What is 6 * 7?") == 42


def test_pause_by_table(litellm):
    def rated(**headers):
        error = litellm.RateLimitError("slow", "openai", "m")
        error.litellm_response_headers = headers
        return error

    waits = (1.0, 2.0)
    assert 0.8 <= pause(rated(), 0, waits) <= 1.2
    assert 1.6 <= pause(rated(), 1, waits) <= 2.4
    assert pause(rated(), 2, waits) is None
    assert pause(rated(), 0, ()) is None
    assert pause(rated(**{"Retry-After": "7.5"}), 0, waits) == 7.5
    assert pause(rated(**{"retry-after": "3600"}), 0, waits) == 60
    assert 0.8 <= pause(rated(**{"retry-after": "Fri, 31 Dec 1999 23:59:59 GMT"}), 0, waits) <= 1.2
    assert pause(litellm.AuthenticationError("no", "openai", "m"), 0, waits) is None
    assert pause(litellm.Timeout("late", "m", "openai"), 0, waits) is not None
    assert pause(litellm.Timeout("late", "m", "openai"), 1, waits) is None


def test_explain_leaves_out_litellms_own_names(litellm):
    error = litellm.RateLimitError("RateLimitError: OpenAIException - slow down", "openai", "m")
    assert explain(error, "m at h").why == "slow down"
    body = '{"error": {"message": "say \\"please\\"", "code": null}}'
    error = litellm.ServiceUnavailableError(f"InternalServerError: Hosted_vllmException - {body}", "m", "hosted_vllm")
    assert explain(error, "m at h").why == 'say "please"'
    assert len(explain(litellm.BadRequestError("x" * 5000, "m", "openai"), "m").why) == 300


CHILD = """
import os, sys
reached = []
def hook(name, arguments):
    if name in ("socket.getaddrinfo", "socket.gethostbyname", "socket.connect"):
        reached.append(str(arguments))
sys.addaudithook(hook)
import ml_intern.models
assert "litellm" not in sys.modules and "smolagents" not in sys.modules
from ml_intern.models import EndpointModel, LazyLitellm, call_usage
import copy
from smolagents.models import ChatMessage
model = EndpointModel("hosted_vllm/m", sys.argv[1] + "/v1", "k", retry_seconds=(0.01,))
model.to_dict(), copy.deepcopy(model.client), repr(model.client)
assert "litellm" not in sys.modules and "openai" not in sys.modules and not LazyLitellm.loaded()
say_hi = [ChatMessage("user", [{"type": "text", "text": "hi"}])]
for provider in ("hosted_vllm", "openai", "gemini", "ollama_chat", "anthropic", "mistral", "no-such-provider"):
    model_id = f"{provider}/m"
    for base in (sys.argv[1] + "/v1", "http://127.0.0.1:9/v1"):
        try:
            EndpointModel(model_id, base, "k", retry_seconds=(0.01,)).generate(say_hi)
        except ml_intern.errors.ModelFailed as error:
            assert len(str(error).splitlines()) == 2, str(error)
        else:
            raise SystemExit(f"{model_id} at {base} did not fail")
    EndpointModel(model_id).price(1, 1)
assert LazyLitellm.loaded()
answer = EndpointModel("hosted_vllm/meta-llama-3-8b", sys.argv[2] + "/v1", "k").generate(say_hi)
assert answer.content == "The cat sat." and answer.token_usage.output_tokens > 1, answer
assert LazyLitellm().token_counter(model="hosted_vllm/meta-llama-3-8b", text="The cat sat.") > 2
try:  # litellm logs this one with two tracebacks
    EndpointModel("vertex_ai/gemini-2.5-pro", sys.argv[1], "k", retry_seconds=()).generate(say_hi)
except ml_intern.errors.ModelFailed as error:
    assert "Google Cloud SDK not found." in str(error) and "Traceback" not in str(error), str(error)
outside = [each for each in reached if "127.0.0.1" not in each and "localhost" not in each and "'::1'" not in each]
os.write(3, f"{outside} of {len(reached)}".encode())
"""


@pytest.mark.long
def test_loaded_late_without_a_look_at_the_network_and_without_a_word():
    def fail(request):
        raise Fail(500, "oops")

    read, write = os.pipe()
    environment = {name: value for name, value in os.environ.items() if not name.startswith("LITELLM_")}
    with LocalLLM(fail) as llm, at(without_usage) as silent:
        command = [sys.executable, "-c", f"import os; os.dup2({write}, 3)\n" + CHILD, llm.url, silent.url]
        done = subprocess.run(command, env=environment, pass_fds=(write,), capture_output=True, text=True, timeout=60)
    os.close(write)
    with os.fdopen(read) as pipe:
        reached = pipe.read()
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert reached.startswith("[] of ")
    assert int(reached.removeprefix("[] of ")) > 10  # the hook does see what goes out
