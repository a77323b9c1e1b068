"""Parameters and prices: what a person set, what a model takes of it, and what is said of the rest."""

from __future__ import annotations

import pytest
from smolagents.models import CODEAGENT_RESPONSE_FORMAT

from ml_intern.errors import SettingsError
from ml_intern.models import EndpointModel, ModelOptions, Price, call_usage
from ml_intern.models.parameters import fit, prices
from ml_intern.testing.llm import Fail, LocalLLM, Reply, scripted


def test_options_from_names_and_from_a_setting():
    made = ModelOptions.parse("temperature=0.2, seed=7, effort=low, top_p=0.9")
    assert made == ModelOptions("low", 0.2, None, 7, {"top_p": 0.9})
    assert ModelOptions.parse('{"max_tokens": 100, "extra_body": {"a": [1, 2]}}').more == {"extra_body": {"a": [1, 2]}}
    assert ModelOptions.parse("") == ModelOptions()
    assert made.request() == {"reasoning_effort": "low", "temperature": 0.2, "seed": 7, "top_p": 0.9}


def test_what_was_said_last_goes_first():
    mine = ModelOptions.of({"temperature": 0.0, "top_p": 0.5})
    assert mine.over(ModelOptions.parse("temperature=1, seed=3, top_p=1, top_k=4")) == ModelOptions(
        None, 0.0, None, 3, {"top_p": 0.5, "top_k": 4}
    )


@pytest.mark.parametrize(
    "options",
    [{"effort": "huge"}, {"temperature": 3}, {"temperature": "hot"}, {"max_tokens": 0}, {"seed": 1.5}, {"seed": True}],
)
def test_what_no_model_can_take(options):
    with pytest.raises(SettingsError, match=f"The model option {next(iter(options))} cannot be"):
        ModelOptions.of(options)


@pytest.mark.parametrize("text", ["temperature", "=1", "a=", "{", "[1]"])
def test_a_setting_that_cannot_be_read(text):
    with pytest.raises(SettingsError):
        ModelOptions.parse(text)


def test_fit_by_table():
    options = {"temperature": 0, "seed": 1, "num_ctx": 5}
    assert fit(options, {"temperature"}) == ({"temperature": 0, "num_ctx": 5}, ("seed",))
    assert fit(options, None) == (options, ())


def test_they_reach_the_model_and_what_it_lacks_is_left_out_and_said_once(model_at, say):
    notes = []
    options = ModelOptions.of({"effort": "high", "temperature": 0.1, "max_tokens": 50, "seed": 9})
    with LocalLLM(lambda request: "ok") as llm:
        model = model_at(llm, "llamafile/m", options=options, on_note=notes.append, name="llamacpp/m")
        for _ in range(3):
            model.generate([say("hello")])
        request = llm.requests[-1]
        assert (request["temperature"], request["max_tokens"], request["seed"]) == (0.1, 50, 9)
        assert "reasoning_effort" not in request
        model_at(llm, "openai/gpt-5.1", options=ModelOptions.of({"effort": "high"})).generate([say("hello")])
        assert llm.requests[-1]["reasoning_effort"] == "high"
    assert notes == ["llamacpp/m takes no effort: left out."]


def test_what_a_server_refuses_by_name_is_left_out_from_then_on(model_at, say):
    notes = []
    refused = Fail(400, "Unsupported parameter: 'seed' is not supported with this model.")
    options = ModelOptions.of({"seed": 9, "temperature": 0.1})
    with LocalLLM(scripted([refused, "ok", "ok"])) as llm:
        model = model_at(llm, options=options, on_note=notes.append)
        assert model.generate([say("hello")]).content == "ok"
        assert model.generate([say("hello")]).content == "ok"
        assert ["seed" in request for request in llm.requests] == [True, False, False]
        assert all(request["temperature"] == 0.1 for request in llm.requests)
    assert notes == ["hosted_vllm/m takes no seed: left out."]
    assert model.told[0][0] == "delta"  # no retry was told of: nothing went wrong


def test_another_bad_request_is_not_taken_for_one(model_at, say):
    from ml_intern.errors import ModelFailed

    with LocalLLM(scripted([Fail(400, "temperature is too hot: seed the clouds")])) as llm, pytest.raises(ModelFailed):
        model_at(llm, options=ModelOptions.of({"seed": 9})).generate([say("hello")])


def test_prices_of_ones_own(litellm):
    table = prices("ollama/qwen:32b=0.2/0.6, vllm/org/m=1/2/0.1, *=0/0")
    assert table == {"ollama/qwen:32b": Price(0.2, 0.6), "vllm/org/m": Price(1, 2, 0.1), "*": Price(0, 0)}

    def cost(model_id, name="", **options):
        return EndpointModel(model_id, name=name, prices=table, **options).price(1_000_000, 1_000_000, 500_000)

    assert cost("ollama_chat/qwen:32b", "ollama/qwen:32b") == pytest.approx(0.8)
    assert cost("hosted_vllm/org/m", "vllm/org/m") == pytest.approx(0.5 + 0.05 + 2)
    assert cost("gpt-5.1") == 0
    assert EndpointModel("hosted_vllm/m").price(1, 1) is None


@pytest.mark.parametrize("text", ["m=1", "m=a/b", "m=1/2/3/4", "m=-1/2", "m"])
def test_what_is_no_price(text):
    with pytest.raises(SettingsError):
        prices(text)


def test_cached_and_reasoning_tokens_of_a_call(model_at, say):
    reply = Reply("x", reasoning="hmm", prompt_tokens=100, completion_tokens=20, cached_tokens=64)
    with LocalLLM(lambda request: reply) as llm:
        model = model_at(llm, prices={"*": Price(1, 1, 0)})
        answer = model.generate([say("hello")])
    used = call_usage(model, answer.token_usage, answer)
    assert (used.input_tokens, used.output_tokens, used.cached_tokens, used.model) == (100, 20, 64, "hosted_vllm/m")
    assert used.cost_usd == pytest.approx(56e-6)
    answer.raw.usage.completion_tokens_details = type("Details", (), {"reasoning_tokens": 7})()
    assert call_usage(model, answer.token_usage, answer).reasoning_tokens == 7


def test_a_form_that_a_service_does_not_know_is_left_out_as_well(model_at, say):
    notes: list[str] = []

    def answer(request):
        if "response_format" in request:
            raise Fail(400, "response_format of type 'json_schema' is not supported by this model")
        return '{"thought": "t", "code": "c"}'

    with LocalLLM(answer) as llm:
        model = model_at(llm, "hosted_vllm/m-7b", on_note=notes.append, name="vllm/m-7b")
        for _ in range(2):
            assert "code" in model.generate([say("hello")], response_format=CODEAGENT_RESPONSE_FORMAT).content
        assert ["response_format" in request for request in llm.requests] == [True, False, False]
    assert notes == ["vllm/m-7b takes no response_format: left out."]
