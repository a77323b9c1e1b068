"""Searching for models, against a local Hub with the unmodified client."""

import inspect
import json

import pytest
from huggingface_hub import HfApi
from ml_intern.tools import HubSearchDatasetsTool, HubSearchModelsTool
from saving import assert_survives_saving
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route

from ml_intern.testing.serve import Service


def weights(count):
    text = json.dumps({"w": {"dtype": "BF16", "shape": [count], "data_offsets": [0, 0]}}).encode()
    return len(text).to_bytes(8, "little") + text


@pytest.fixture
def library(hub):
    llama = b'{"model_type": "llama", "architectures": ["LlamaForCausalLM"]}'
    base = b"---\nlicense: apache-2.0\nlanguage: [en, de]\ndatasets: [acme/reviews]\n---\n"
    files = {"README.md": base, "config.json": llama, "model.safetensors": weights(3_000_000_000)}
    hub.seed("acme/llama-3b", "model", files, downloads=30, likes=1, providers=["novita"])
    tuned = b"---\nco2_eq_emissions: {emissions: 1250.5, source: code carbon}\nlicense: mit\nbase_model: acme/llama-3b\ntags: [film]\n---\n"
    files = {"README.md": tuned, "config.json": llama, "model.safetensors": weights(500_000_000)}
    hub.seed("other/llama-tuned", "model", files, downloads=10, likes=9)
    adapter = b"---\nco2_eq_emissions: 12 g\nbase_model: acme/llama-3b\n---\n"
    hub.seed("other/adapter", "model", {"README.md": adapter, "adapter_config.json": b"{}"}, downloads=5, gated="auto")
    hub.seed("acme/bert", "model", {"config.json": b'{"architectures": ["BertForMaskedLM"]}'}, downloads=20)
    hub.seed("acme/gguf", "model", {"m.gguf": b"GGUF"}, downloads=1)
    hub.seed("other/secret", "model", {}, private=True)
    return hub


def ids(**arguments):
    return [one["id"] for one in HubSearchModelsTool()(**arguments)["models"]]


def test_what_a_result_says(library):
    found = HubSearchModelsTool()(query="llama-3b")
    assert found["query"] == {"search": "llama-3b", "sort": "downloads", "limit": 10}
    assert (found["more"], found["next"]) == (False, None)
    (one,) = found["models"]
    assert one.pop("last_modified").startswith("20")
    assert one == {
        "id": "acme/llama-3b",
        "author": "acme",
        "task": "text-generation",
        "library": "transformers",
        "license": "apache-2.0",
        "languages": ["en", "de"],
        "parameters": 3_000_000_000,
        "bytes": 6_000_000_000,
        "downloads": 30,
        "likes": 1,
        "gated": False,
        "private": False,
        "base_models": [],
        "datasets": ["acme/reviews"],
        "co2_grams": None,
        "tags": ["safetensors", "llama"],
    }
    assert set(HubSearchModelsTool.output_schema["properties"]) == {*found, "hint"}
    told = HubSearchModelsTool.output_schema["properties"]["models"]["description"]
    assert not [key for key in one if key not in told]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"query": "llama"}, ["acme/llama-3b", "other/llama-tuned"]),
        ({"author": "other"}, ["other/llama-tuned", "other/adapter"]),
        ({"task": "Text Generation"}, ["acme/llama-3b", "other/llama-tuned"]),
        ({"task": "fill_mask"}, ["acme/bert"]),
        ({"library": "PEFT"}, ["other/adapter"]),
        ({"language": "DE"}, ["acme/llama-3b"]),
        ({"license": "MIT"}, ["other/llama-tuned"]),
        ({"parameters": "min:1B,max:8B"}, ["acme/llama-3b"]),
        ({"parameters": "max:1B"}, ["other/llama-tuned"]),
        ({"base_model": "acme/llama-3b"}, ["other/llama-tuned", "other/adapter"]),
        ({"base_model": "adapter:acme/llama-3b"}, ["other/adapter"]),
        ({"base_model": "base_model:finetune:acme/llama-3b"}, ["other/llama-tuned"]),
        ({"dataset": "acme/reviews"}, ["acme/llama-3b"]),
        ({"gated": True}, ["other/adapter"]),
        ({"gated": False, "author": "other"}, ["other/llama-tuned"]),
        ({"provider": "all"}, ["acme/llama-3b"]),
        ({"provider": "groq"}, []),
        ({"provider": "groq, novita"}, ["acme/llama-3b"]),
        ({"warm": True}, ["acme/llama-3b"]),
        ({"app": "ollama,vllm"}, ["acme/llama-3b", "other/llama-tuned", "acme/gguf"]),
        ({"emissions": "max:100"}, ["other/adapter"]),
        ({"emissions": "min:100,max:2000"}, ["other/llama-tuned"]),
        ({"emissions": "min:1"}, ["other/llama-tuned", "other/adapter"]),
        ({"app": "ollama"}, ["acme/gguf"]),
        ({"tags": ["film"]}, ["other/llama-tuned"]),
        ({"tags": "gguf"}, ["acme/gguf"]),
        ({"query": "llama", "sort": "likes"}, ["other/llama-tuned", "acme/llama-3b"]),
    ],
)
def test_filters_and_order(library, arguments, expected):
    assert ids(**arguments) == expected


def test_pages_follow_one_another_and_nothing_is_shown_twice(library):
    tool, seen, cursor = HubSearchModelsTool(), [], None
    for _ in range(3):
        page = tool(limit=2, cursor=cursor)
        seen += [one["id"] for one in page["models"]]
        cursor = page["next"]
        assert page["more"] is bool(cursor)
    assert cursor is None
    assert seen == ids(limit=100) == ["acme/llama-3b", "acme/bert", "other/llama-tuned", "other/adapter", "acme/gguf"]


def test_the_next_page_is_asked_of_the_same_hub_whatever_its_link_says(hub, monkeypatch):
    """A link to another host would take the token along."""
    with Service(Starlette(routes=[Route("/{path:path}", lambda request: JSONResponse([]))])) as stranger:
        link = {"Link": f'<{stranger.url}/api/models?limit=1&cursor=abc>; rel="next"'}
        row = {"id": "acme/a", "tags": []}
        front = Starlette(routes=[Route("/api/models", lambda request: JSONResponse([row], headers=link))])
        with Service(front) as service:
            monkeypatch.setenv("HF_ENDPOINT", service.url)
            tool = HubSearchModelsTool()
            assert tool(cursor=tool(limit=1)["next"])["models"][0]["id"] == "acme/a"
            assert [("cursor=abc" in one.path) for one in service.requests] == [False, True]
        assert stranger.requests == []


def test_what_was_asked_before_is_not_asked_again_but_by_another(library, monkeypatch):
    tool = HubSearchModelsTool()
    found = tool(query="secret")
    library.requests.clear()
    found["models"].append("x")
    assert tool(query="secret")["models"] == []
    assert library.requests == []
    monkeypatch.setenv("HF_TOKEN", "hf_other_token")
    assert [one["id"] for one in tool(query="secret")["models"]] == ["other/secret"]


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        ({"query": "unheard of"}, "fewer or other words"),
        (
            {"query": "llama", "license": "gpl", "parameters": "min:1B", "gated": False},
            "; or drop one of the filters (license:gpl, parameters min:1B, gated False)",
        ),
    ],
)
def test_nothing_found_comes_with_a_hint(library, arguments, hint):
    found = HubSearchModelsTool()(**arguments)
    assert found["models"] == []
    assert hint in found["hint"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"sort": "best"}, "`sort` is one of downloads, likes"),
        ({"limit": 0}, "`limit` is 1 to 100"),
        ({"limit": 101}, "`limit` is 1 to 100"),
        ({"parameters": "small"}, "`parameters` is such as 'min:1B'"),
        ({"parameters": "7B"}, "`parameters` is such as 'min:1B'"),
    ],
)
def test_arguments_that_make_no_sense_are_not_sent(library, arguments, message):
    before = len(library.requests)
    with pytest.raises(ValueError, match=message):
        HubSearchModelsTool()(**arguments)
    assert len(library.requests) == before


def test_it_survives_saving(library):
    found = assert_survives_saving(
        HubSearchModelsTool, "huggingface_hub", call={"query": "bert"}, environment=library.environment()
    )
    assert found["models"][0]["id"] == "acme/bert"


# What of the client's own search is there under another name, or no filter
SAME = {"search": "query", "pipeline_tag": "task", "num_parameters": "parameters", "trained_dataset": "dataset", "apps": "app",
        "inference": "warm", "inference_provider": "provider", "emissions_thresholds": "emissions", "filter": "tags",
        "task_categories": "task", "size_categories": "size", "dataset_name": "query"}  # fmt: skip
IN_TAGS = {"language_creators", "multilinguality", "task_ids"}
NO_FILTER = {"self", "limit", "expand", "full", "cardData", "fetch_config", "token"}


@pytest.mark.parametrize(
    ("search", "tool"), [(HfApi.list_models, HubSearchModelsTool), (HfApi.list_datasets, HubSearchDatasetsTool)]
)
def test_every_filter_that_the_client_has_is_there(search, tool):
    """A newer client with another filter fails here."""
    for name in set(inspect.signature(search).parameters) - NO_FILTER:
        assert SAME.get(name, name) in tool.inputs or f"{name}:" in tool.inputs["tags"]["description"], name


@pytest.mark.parametrize("emissions", ["100", "max:", "most:3", ","])
def test_emissions_that_make_no_sense(library, emissions):
    with pytest.raises(ValueError, match="grams"):
        ids(emissions=emissions)
