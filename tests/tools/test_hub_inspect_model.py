"""Looking into a model, against a local Hub with the unmodified client."""

import json
import os
import shutil
import struct
import time

import pytest
from huggingface_hub import HfApi
from ml_intern.tools import HubInspectModelTool
from saving import assert_survives_saving
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse
from starlette.routing import Route

from ml_intern.testing.serve import Service

LLAMA = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 2048,
    "num_hidden_layers": 24,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "intermediate_size": 8192,
    "vocab_size": 50_000,
    "hidden_act": "silu",
    "max_position_embeddings": 8192,
    "torch_dtype": "bfloat16",
    "tie_word_embeddings": True,
}
BERT = {
    "architectures": ["BertForSequenceClassification"],
    "model_type": "bert",
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "vocab_size": 30_522,
    "hidden_act": "gelu",
    "max_position_embeddings": 512,
    "id2label": {"10": "ten", "0": "zero", "2": "two"},
}
CARD = b"""---
license: apache-2.0
base_model: acme/base
language: [en, de]
datasets: [acme/reviews]
model-index:
- name: small
  results:
  - task:
      type: text-generation
    dataset:
      name: IFEval
      type: acme/ifeval
      config: main
      split: test
    metrics:
    - type: accuracy
      value: 61.5
      verified: true
    source:
      url: https://example.org/board
---
# Small

![logo](logo.png) A [small](https://example.org) model, see https://arxiv.org/abs/2106.09685.

| a | table |

## Usage

```python
print("not prose")
```
"""


def weights(**tensors):
    """A safetensors file whose tensors are as large as their shapes say, with none of their data."""
    head = {
        name: {"dtype": dtype, "shape": shape, "data_offsets": [0, 0]} for name, (dtype, *shape) in tensors.items()
    }
    text = json.dumps({"__metadata__": {"format": "pt"}, **head}).encode()
    return len(text).to_bytes(8, "little") + text


def model(hub, config=None, name="acme/small", **options):
    files = {"README.md": CARD, **options.pop("files", {})}
    if config is not None:
        files["config.json"] = json.dumps(config).encode()
    return hub.seed(name, "model", files, **options)


def inspect(name="acme/small", **arguments):
    """Anew: nothing is kept of what was asked before."""
    shutil.rmtree(os.environ["XDG_CACHE_HOME"], ignore_errors=True)
    return HubInspectModelTool()(name, **arguments)


def told(hub, **changes):
    """What the Hub says of acme/small, otherwise than it would."""
    about = HfApi(endpoint=hub.url)
    answer = {"id": "acme/small", "sha": about.model_info("acme/small").sha, "tags": [], "downloads": 1, "likes": 0}
    siblings = about.model_info("acme/small", files_metadata=True).siblings
    answer["siblings"] = [{"rfilename": one.rfilename, "size": one.size, "blobId": one.blob_id} for one in siblings]
    hub.fail("^/api/models/acme/small", status=200, body=json.dumps({**answer, "private": False, **changes}), times=1)


def test_what_a_good_model_looks_like(hub):
    files = {
        "model.safetensors": weights(w=("BF16", 1_500_000_000)),
        "tokenizer_config.json": b'{"chat_template": "x"}',
        "tokenizer.json": b'{"model": {"vocab": {"a": 0}}, "added_tokens": [{"id": 49152}]}',
    }
    model(hub, LLAMA, files=files, downloads=7, likes=3)
    found = inspect(sequence_length=2048, batch_size=4)
    assert set(found) == set(HubInspectModelTool.output_schema["properties"])
    memory, card = found.pop("memory"), found.pop("card")
    assert found.pop("config") == {
        key: value
        for key, value in LLAMA.items()
        if key not in ("architectures", "model_type", "vocab_size", "torch_dtype")
    }
    assert len(found.pop("revision")) == 40
    assert found.pop("last_modified").startswith("20")
    assert found == {
        "id": "acme/small",
        "license": "apache-2.0",
        "gated": False,
        "private": False,
        "pipeline_tag": "text-generation",
        "library": "transformers",
        "downloads": 7,
        "likes": 3,
        "architecture": "LlamaForCausalLM",
        "model_type": "llama",
        "parameters": 1_500_000_000,
        "parameters_from": "the Hub's count of the safetensors files",
        "dtype": "bfloat16",
        "quantization": None,
        "context_length": 8192,
        "chat_template": True,
        "vocab_size": 50_000,
        "tokenizer_size": 49_153,
        "hidden_size": 2048,
        "layers": 24,
        "heads": 32,
        "labels": None,
        "base_models": ["acme/base"],
        "evaluation_results": [
            {
                "task": "text-generation",
                "dataset": "acme/ifeval",
                "config": "main",
                "split": "test",
                "metric": "accuracy",
                "value": 61.5,
                "verified": True,
                "source": "https://example.org/board",
            }
        ],
        "files": {"safetensors": {"files": 1, "bytes": len(files["model.safetensors"])}},
        "unknown": [],
        "warnings": [],
    }
    assert card == {
        "summary": "A small model, see https://arxiv.org/abs/2106.09685.",
        "sections": ["Small", "Usage"],
        "languages": ["en", "de"],
        "datasets": ["acme/reviews"],
        "papers": ["2106.09685"],
    }
    tokens, k = 4 * 2048, 8 * 64
    assert (memory["sequence_length"], memory["batch_size"]) == (2048, 4)
    # 2 bytes a weight; keys and values of 24 layers at 2 bytes each.
    assert memory["parts"]["load"] == {
        "weights_gb": 3.0,
        "kv_cache_gb": round(2 * 2 * k * 24 * tokens / 1e9, 3),
        "overhead_gb": 1.0,
    }
    logits = 12 * tokens * 50_000
    full = 24 * tokens * (30 * 2048 + 4 * k + 8 * 8192) + logits
    assert memory["parts"]["full"] == {
        "weights_gb": 9.0,
        "gradients_gb": 6.0,
        "optimizer_gb": 12.0,
        "activations_gb": round(full / 1e9, 3),
        "overhead_gb": 1.0,
    }
    adapters = 24 * 16 * (2 * (2048 + 2048) + 2 * (2048 + k) + 3 * (2048 + 8192))
    assert memory["lora_parameters"] == adapters
    frozen = 24 * tokens * (22 * 2048 + 4 * k + 8 * 8192) + logits
    assert memory["parts"]["lora"] == {
        "weights_gb": round((3e9 + 4 * adapters) / 1e9, 3),
        "gradients_gb": round(4 * adapters / 1e9, 3),
        "optimizer_gb": round(8 * adapters / 1e9, 3),
        "activations_gb": round(frozen / 1e9, 3),
        "overhead_gb": 1.0,
    }
    linear = 24 * (2048 * (2 * 2048 + 2 * k) + 3 * 2048 * 8192)
    small = linear * 4.127 / 8 + 2 * (1.5e9 - linear) + 4 * adapters
    assert memory["parts"]["qlora"]["weights_gb"] == round(small / 1e9, 3)
    for name, parts in memory["parts"].items():
        assert memory[name + "_gb"] == pytest.approx(sum(parts.values()), abs=0.01)
    less = 24 * 4 * 2048 * tokens + tokens * (30 * 2048 + 4 * k + 8 * 8192) + logits
    assert memory["with_checkpointing"]["full_gb"] == pytest.approx(27 + less / 1e9 + 1, abs=0.01)
    assert memory["qlora_gb"] < memory["lora_gb"] < memory["full_gb"]


# Read off PyTorch 2.13 and transformers 5.24 with `saved_tensors_hooks`, autocast to bfloat16, fused attention, no
# dropout: bytes that one more layer keeps for each token and dimension, where weights have 32 and 16 bits.
KEPT = [
    ("llama", {"intermediate_size": 683, "num_key_value_heads": 4, "hidden_act": "silu"}, 55.44, 45.44),
    ("llama", {"intermediate_size": 1024, "num_key_value_heads": 1, "hidden_act": "silu"}, 63.09, 53.09),
    ("gpt2", {"activation_function": "gelu_new"}, 64.12, 60.09),
    ("bert", {"intermediate_size": 1024, "hidden_act": "gelu"}, 40.12, 32.09),
]


@pytest.mark.parametrize(("kind", "config", "whole", "half"), KEPT)
def test_activations_are_within_a_tenth_of_what_pytorch_keeps(kind, config, whole, half):
    tool = HubInspectModelTool()
    sizes = {"hidden_size": 256, "num_hidden_layers": 2, "num_attention_heads": 4}
    shape = tool._shape({"model_type": kind, **sizes, **config})
    assert tool._kept(shape, 32) == pytest.approx(whole * 256, rel=0.1)
    assert tool._kept(shape, 16) == pytest.approx(half * 256, rel=0.1)


# Counted in models made by transformers 5.24, and with peft 0.21 in their adapters of rank 16 on all linear layers.
COUNTED = [
    (
        {"model_type": "qwen3", "head_dim": 128, "num_key_value_heads": 2, "intermediate_size": 1408},
        13_899_264,
        663_552,
    ),
    ({"model_type": "llama", "num_key_value_heads": 2, "intermediate_size": 1408}, 11_276_800, 581_632),
    (
        {"model_type": "gemma2", "head_dim": 64, "num_key_value_heads": 4, "intermediate_size": 1408},
        11_805_184,
        598_016,
    ),
    ({"model_type": "opt", "hidden_act": "relu", "ffn_dim": 2048}, 12_610_560, 589_824),
    ({"model_type": "bert", "hidden_act": "gelu", "intermediate_size": 2048}, 12_872_192, 614_432),
    ({"model_type": "modernbert", "hidden_act": "gelu", "intermediate_size": 768}, 9_179_648, 434_208),
    (
        {"model_type": "t5", "is_encoder_decoder": True, "d_kv": 64, "d_ff": 2048, "hidden_act": "relu"},
        29_371_904,
        1_441_792,
    ),
]


@pytest.mark.parametrize(("config", "blocks", "adapters"), COUNTED)
def test_blocks_and_adapters_are_counted_as_the_libraries_count_them(config, blocks, adapters):
    tool = HubInspectModelTool()
    sizes = {"hidden_size": 512, "num_hidden_layers": 4, "num_attention_heads": 8, "hidden_act": "silu"}
    linear, learnt = tool._linear(tool._shape({**sizes, **config}))
    assert linear == pytest.approx(blocks, rel=0.03)
    assert learnt == pytest.approx(adapters, rel=0.2)


def test_memory_grows_with_length_and_batch_and_no_request_is_made_for_that(hub):
    model(hub, LLAMA, files={"model.safetensors": weights(w=("BF16", 1000, 1000))})
    tool = HubInspectModelTool()
    first = tool("acme/small", sequence_length=512)["memory"]
    hub.requests.clear()
    assert tool("acme/small", sequence_length=1024)["memory"]["full_gb"] > first["full_gb"]
    assert tool("acme/small", sequence_length=512, batch_size=2)["memory"]["load_gb"] > first["load_gb"]
    assert hub.requests == []


def test_a_new_commit_is_seen_after_a_minute_and_what_belongs_to_an_old_one_is_kept(hub, monkeypatch):
    model(hub, LLAMA)
    tool, now = HubInspectModelTool(), time.time()
    tool("acme/small")
    monkeypatch.setattr(time, "time", lambda: now + 61)
    hub.requests.clear()
    assert tool("acme/small")["layers"] == 24
    assert [one.path.partition("?")[0] for one in hub.requests] == ["/api/models/acme/small"]
    model(hub, {**LLAMA, "num_hidden_layers": 12})
    monkeypatch.setattr(time, "time", lambda: now + 122)
    assert tool("acme/small")["layers"] == 12


def test_what_is_given_out_is_not_what_is_kept(hub):
    model(hub, LLAMA)
    tool = HubInspectModelTool()
    found = tool("acme/small")
    found["warnings"].append("x")
    found["card"]["sections"].clear()
    again = tool("acme/small")
    assert again["warnings"] == []
    assert again["card"]["sections"]


def test_parameters_are_counted_in_the_headers_of_shards_where_the_hub_did_not(hub):
    shards = {
        "model-00001-of-00002.safetensors": weights(a=("F32", 1000, 10), positions=("I64", 512)) + bytes(200_000),
        "model-00002-of-00002.safetensors": weights(b=("F16", 7, 11)),
    }
    model(hub, BERT, files=shards)
    told(hub)
    hub.requests.clear()
    found = inspect()
    assert found["parameters"] == 10_077
    assert found["parameters_from"] == "the headers of 2 safetensors files"
    assert found["dtype"] == "float32"
    ranges = [one.headers.get("range") for one in hub.requests if ".safetensors" in one.path]
    assert ranges
    assert set(ranges) == {"bytes=0-100000"}


@pytest.mark.parametrize("name", ["pytorch_model-00001-of-00001.safetensors", "open_clip.safetensors"])
def test_weights_by_other_names_are_counted_too(hub, name):
    other = {"consolidated-00001-of-00001.safetensors": weights(a=("F32", 99))} if "pytorch" in name else {}
    model(hub, BERT, files={name: weights(a=("F32", 12)), **other})
    told(hub)
    assert inspect()["parameters"] == 12


@pytest.mark.parametrize("content", [b"", b"\x08\0\0\0\0\0\0\0not json", b"\xff" * 100])
def test_a_weight_file_that_is_none_leaves_parameters_unknown(hub, content):
    model(hub, {"model_type": "odd"}, files={"model.safetensors": content + b" "})
    told(hub)
    found = inspect()
    assert found["parameters"] is None
    assert found["memory"]["full_gb"] is None
    assert "Failed to parse safetensors header" in found["unknown"][0]


def test_the_weights_of_a_classifier_in_pickles(hub):
    model(hub, BERT, files={"pytorch_model.bin": bytes(4_000_000)})
    found = inspect()
    assert (found["parameters"], found["labels"]) == (1_000_000, ["zero", "two", "ten"])
    assert found["parameters_from"] == "the size of the PyTorch files at 4 bytes each (dtype not stated)"
    assert "can run code as they are loaded" in found["warnings"][0]
    memory = found["memory"]
    assert memory["sequence_length"] == 512
    assert memory["parts"]["load"]["kv_cache_gb"] == 0
    # No language model's loss: 34 h of the paper for the layers, and 8 h of 32-bit norms.
    assert memory["parts"]["full"]["activations_gb"] == round(12 * 512 * 42 * 768 / 1e9, 3)


def test_without_weights_the_configuration_says_how_many_there_would_be(hub):
    model(hub, BERT)
    found = inspect()
    assert found["parameters"] == 12 * 12 * 768 * 768 + 30_522 * 768
    assert "estimated" in found["parameters_from"]


@pytest.mark.parametrize(
    ("config", "cache"),
    [
        (LLAMA, 24 * 4096 * 4 * 512),
        ({**LLAMA, "num_key_value_heads": None}, 24 * 4096 * 4 * 2048),
        ({**LLAMA, "layer_types": ["full_attention"] * 4 + ["sliding_attention"] * 20, "sliding_window": 1024}, None),
        ({**LLAMA, "layer_types": ["full_attention"] * 6 + ["linear_attention"] * 18}, 6 * 4096 * 4 * 512),
        ({**LLAMA, "kv_lora_rank": 512, "qk_rope_head_dim": 64}, 24 * 4096 * 2 * 576),
        ({"architectures": LLAMA["architectures"], "text_config": LLAMA}, 24 * 4096 * 4 * 512),
        (
            {"architectures": ["GPT2LMHeadModel"], "n_embd": 768, "n_layer": 12, "n_head": 12, "vocab_size": 9},
            12 * 4096 * 4 * 768,
        ),
    ],
)
def test_the_cache_of_keys_and_values(hub, config, cache):
    model(hub, config, files={"model.safetensors": weights(w=("BF16", 10, 10))})
    found = inspect(sequence_length=4096)["memory"]["parts"]["load"]["kv_cache_gb"]
    cache = (4 * 4096 + 20 * 1024) * 4 * 512 if cache is None else cache
    assert found == round(cache / 1e9, 3)


def test_experts_cost_memory_for_all_and_activations_for_those_that_are_asked(hub):
    experts = {**LLAMA, "model_type": "mixtral", "num_local_experts": 8, "num_experts_per_tok": 2}
    model(hub, experts, files={"model.safetensors": weights(w=("BF16", 12_000_000_000))})
    parts = inspect(sequence_length=1024)["memory"]["parts"]
    assert parts["lora"]["activations_gb"] == round(
        (24 * 1024 * (22 * 2048 + 4 * 512 + 8 * 2 * 8192) + 12 * 1024 * 50_000) / 1e9, 3
    )
    linear = 24 * (2048 * (2 * 2048 + 2 * 512) + 8 * 3 * 2048 * 8192)
    adapters = 24 * 16 * (2 * (2048 + 2048) + 2 * (2048 + 512))  # on attention alone
    small = linear * 4.127 / 8 + 2 * (12e9 - linear) + 4 * adapters
    assert parts["qlora"]["weights_gb"] == round(small / 1e9, 3)


@pytest.mark.parametrize(
    ("quantization", "counts", "parameters", "said"),
    [
        ({"quant_method": "gptq", "bits": 4}, {"I32": 1000, "F16": 50}, 8050, "gptq, 4 bits"),
        ({"quant_method": "awq", "bits": 4}, {"I32": 1000, "F16": 50}, 8050, "awq, 4 bits"),
        (
            {"quant_method": "bitsandbytes", "load_in_4bit": True},
            {"U8": 1000, "BF16": 50},
            2050,
            "bitsandbytes, 4 bits",
        ),
        (
            {"quant_method": "bitsandbytes", "load_in_8bit": True},
            {"I8": 1000, "F16": 50},
            1050,
            "bitsandbytes, 8 bits",
        ),
        ({"quant_method": "fp8"}, {"F8_E4M3": 1000, "BF16": 50}, 1050, "fp8"),
    ],
)
def test_quantized_weights_are_unpacked_and_not_offered_for_full_fine_tuning(
    hub, quantization, counts, parameters, said
):
    size = sum(count * {"I32": 4, "F16": 2, "BF16": 2}.get(kind, 1) for kind, count in counts.items())
    packed = weights(**{kind.lower(): (kind, count) for kind, count in counts.items()}) + bytes(size)
    model(hub, {**LLAMA, "quantization_config": quantization}, files={"model.safetensors": packed})
    found = inspect()
    assert (found["parameters"], found["quantization"]) == (parameters, said)
    memory = found["memory"]
    assert memory["load_gb"] is not None
    assert (memory["full_gb"], memory["lora_gb"]) == (None, None)
    assert (memory["qlora_gb"] is None) == (said != "bitsandbytes, 4 bits")
    assert "its weights are quantized" in " ".join(found["unknown"])


def test_weights_that_the_hub_counted_one_by_one_are_not_unpacked_again(hub):
    """It does so for MXFP4, GPTQ, AWQ and others; the files are smaller than such a count says."""
    quantization = {"quant_method": "mxfp4", "modules_to_not_convert": ["lm_head"]}
    packed = weights(blocks=("U8", 10_000), head=("BF16", 50)) + bytes(10_100)
    model(hub, {**LLAMA, "quantization_config": quantization}, files={"model.safetensors": packed})
    assert inspect()["parameters"] == 20_050
    told(hub, safetensors={"parameters": {"U8": 20_000, "BF16": 50}, "total": 20_050})
    found = inspect()
    assert found["parameters"] == 20_050
    assert found["memory"]["parts"]["load"]["weights_gb"] == round(len(packed) / 1e9, 3)


def test_gguf_runs_but_is_not_fine_tuned(hub):
    model(hub, None, files={"m.Q4_K_M.gguf": bytes(700_000), "m.Q8_0.gguf": bytes(1_200_000)})
    about = {"total": 1_000_000, "architecture": "llama", "context_length": 4096, "chat_template": "{{x}}"}
    told(hub, gguf=about, config=None)
    found = inspect()
    assert (found["parameters"], found["architecture"], found["context_length"]) == (1_000_000, "llama", 4096)
    assert (found["quantization"], found["chat_template"]) == ("gguf", True)
    assert found["memory"]["parts"]["load"]["weights_gb"] == round(700_000 / 1e9, 3)
    assert found["memory"]["full_gb"] is None
    assert "Fine-tune the model that it was made from" in " ".join(found["unknown"])


def gguf(pairs, size=0):
    """The beginning of a GGUF file with these keys: numbers, texts and lists of either."""

    def value(one):
        kind = 7 if isinstance(one, bool) else 4 if isinstance(one, int) else 8 if isinstance(one, str) else 9
        if kind == 9:
            inner = [value(each) for each in one]
            return kind, struct.pack("<IQ", inner[0][0], len(one)) + b"".join(data for _, data in inner)
        data = (
            struct.pack("<Q", len(one)) + one.encode() if kind == 8 else struct.pack("<?" if kind == 7 else "<I", one)
        )
        return kind, data

    text = b"GGUF" + struct.pack("<IQQ", 3, 0, len(pairs))
    for key, one in pairs.items():
        kind, data = value(one)
        text += struct.pack("<Q", len(key)) + key.encode() + struct.pack("<I", kind) + data
    return text.ljust(size, b"\0")


LLAMA_GGUF = {
    "general.architecture": "llama",
    "general.tags": ["a", "text-generation"],
    "llama.block_count": 32,
    "llama.embedding_length": 4096,
    "llama.feed_forward_length": 14336,
    "llama.attention.head_count": 32,
    "llama.attention.head_count_kv": 8,
    "tokenizer.ggml.tokens": ["<s>", "b"],
}


def test_a_gguf_in_parts_is_loaded_whole_with_its_cache_and_without_what_is_no_model(hub):
    files = {f"Q4_K_M/m-Q4_K_M-0000{part}-of-00003.gguf": bytes(400_000) for part in (2, 3)}
    files["Q4_K_M/m-Q4_K_M-00001-of-00003.gguf"] = gguf(LLAMA_GGUF, 600_000)
    files |= {
        "m-Q8_0.gguf": bytes(2_000_000),
        "m-BF16-00001-of-00002.gguf": bytes(1000),
    }  # the second one is not there
    files |= {"mmproj-F16.gguf": bytes(90_000), "imatrix_m.gguf": bytes(5_000), "m.imatrix.gguf": bytes(5_000)}
    model(hub, None, files=files)
    told(hub, gguf={"total": 8_000_000_000, "architecture": "llama", "context_length": 8192}, config=None)
    found = inspect(sequence_length=2048, batch_size=2)
    load = found["memory"]["parts"]["load"]
    assert load["weights_gb"] == round(1_400_000 / 1e9, 3)
    assert load["kv_cache_gb"] == round(4 * 8 * 128 * 32 * 2048 * 2 / 1e9, 3)
    assert found["memory"]["load_gb"] == pytest.approx(1 + load["weights_gb"] + load["kv_cache_gb"], abs=0.01)
    assert "m-Q4_K_M-00001-of-00003.gguf and 2 more" in found["parameters_from"]
    assert (found["layers"], found["heads"], found["hidden_size"], found["vocab_size"]) == (32, 32, 4096, 2)
    assert "mmproj-F16.gguf" in " ".join(found["unknown"])


@pytest.mark.parametrize(
    ("content", "cache"),
    [
        (bytes(3_000), None),
        (gguf(LLAMA_GGUF)[:150], None),
        (gguf({"general.architecture": "llama"}), None),
        (b"GGUF" + b"\xff" * 200, None),
        (gguf({**LLAMA_GGUF, "llama.attention.causal": False}), 0.0),
        (gguf({**LLAMA_GGUF, "llama.attention.head_count_kv": [8, 0] * 16}), round(4 * 4 * 128 * 32 * 1024 / 1e9, 3)),
    ],
)
def test_the_cache_of_a_gguf_is_worked_out_or_not_known(hub, content, cache):
    model(hub, None, files={"m.Q4_K_M.gguf": content})
    told(hub, gguf={"total": 1_000_000, "architecture": "llama", "context_length": 4096}, config=None)
    found = inspect()
    memory = found["memory"]
    assert memory["parts"]["load"]["kv_cache_gb"] == cache
    assert (memory["load_gb"] is None) == (cache is None)
    assert ("does not state its dimensions" in " ".join(found["unknown"])) == (cache is None)


def test_a_gguf_whose_beginning_cannot_be_read_is_said_and_got_over(hub):
    model(hub, None, files={"m.Q4_K_M.gguf": bytes(3_000)})
    told(hub, gguf={"total": 1_000_000, "architecture": "llama", "context_length": 4096}, config=None)
    hub.fail(r"/resolve/.*\.gguf", status=500, times=None)
    found = inspect()
    assert found["parameters"] == 1_000_000 and "m.Q4_K_M.gguf" in " ".join(found["unknown"])


def test_an_adapter_sends_to_its_base(hub):
    adapter = b'{"peft_type": "LORA", "base_model_name_or_path": "acme/base"}'
    files = {"adapter_config.json": adapter, "adapter_model.safetensors": weights(a=("F32", 16, 100))}
    model(hub, None, files=files)
    found = inspect()
    assert found["parameters"] == 1600
    assert found["warnings"] == ["This is an adapter (LORA) on acme/base: inspect that as well."]
    assert found["memory"]["full_gb"] is None
    assert "inspect that one" in " ".join(found["unknown"])


def test_images_are_as_long_as_their_patches(hub):
    sizes = {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072}
    config = {**sizes, "architectures": ["ViTForImageClassification"], "image_size": 224, "patch_size": 16}
    model(hub, {**config, "hidden_act": "gelu"}, files={"model.safetensors": weights(w=("F32", 86_000_000))})
    parts = inspect(batch_size=2)["memory"]["parts"]
    assert parts["full"]["activations_gb"] == round(12 * 2 * 197 * 42 * 768 / 1e9, 3)


def test_what_cannot_be_known_is_said(hub):
    model(hub, None, files={"model_index.json": b'{"_class_name": "Pipeline"}', "unet/x.safetensors": weights()})
    found = inspect()
    assert (found["parameters"], found["architecture"], found["labels"]) == (None, None, None)
    assert set(found["memory"]["parts"]) == set()
    assert "Parameters" in " ".join(found["unknown"])
    assert "dimensions" in " ".join(found["unknown"])
    assert "pipeline of several models" in found["warnings"][0]


def test_without_dimensions_loading_is_known_and_training_in_part(hub):
    config = {"architectures": ["ResNetForImageClassification"], "model_type": "resnet", "hidden_sizes": [64, 128]}
    model(hub, config, files={"model.safetensors": weights(w=("F32", 25_000_000))})
    memory = inspect()["memory"]
    assert memory["load_gb"] == 1.1
    assert memory["full_gb"] is None
    assert memory["parts"]["full"]["optimizer_gb"] == 0.2
    assert memory["parts"]["full"]["activations_gb"] is None
    assert memory["with_checkpointing"] == {}


def test_a_gate_that_is_shut_leaves_what_the_hub_tells_of_it(hub):
    model(hub, LLAMA, files={"model.safetensors": weights(w=("BF16", 1000, 1000))}, gated="manual")
    found = inspect()
    assert (found["gated"], found["parameters"], found["license"]) == (True, 1_000_000, "apache-2.0")
    (why, *_) = found["unknown"]
    assert "gates" in why
    assert "Accept its conditions" in why
    assert "The model is gated: its conditions bind you." in found["warnings"]
    hub.admit("acme/small", "model", "tester")
    assert inspect()["unknown"] == []


def test_a_gate_that_opens_is_seen_at_once(hub):
    model(hub, None, files={"config.json": json.dumps(LLAMA).encode()}, gated="auto")
    tool = HubInspectModelTool()
    assert tool("acme/small")["unknown"]
    hub.admit("acme/small", "model", "tester")
    assert tool("acme/small")["unknown"] == []


@pytest.mark.parametrize(
    ("config", "tokenizer", "length"),
    [
        ({"model_type": "roberta", "max_position_embeddings": 514}, {}, 512),
        ({"n_positions": 1024}, {}, 1024),
        ({}, {"model_max_length": 384}, 384),
        ({}, {"model_max_length": 10**30}, None),
    ],
)
def test_how_much_it_can_read(hub, config, tokenizer, length):
    model(hub, config, files={"tokenizer_config.json": json.dumps(tokenizer).encode()})
    assert inspect()["context_length"] == length


def test_an_embedder_reads_what_it_was_made_to_read(hub):
    model(hub, BERT, files={"sentence_bert_config.json": b'{"max_seq_length": 256}'})
    assert inspect()["context_length"] == 256


def test_more_than_it_can_read_is_warned_of(hub):
    model(hub, BERT)
    assert "`sequence_length` is 4,096, but it reads 512 at most." in inspect(sequence_length=4096)["warnings"]


FAST = {"model": {"vocab": {"a": 0, "b": 41}}, "added_tokens": [{"id": 42, "content": "<x>"}]}
PIECES = {"model": {"type": "Unigram", "vocab": [["a", 0.0], ["b", -1.0]]}}
BEYOND = b'{"added_tokens_decoder": {"7": {"content": "<x>"}}}'


@pytest.mark.parametrize(
    ("files", "size"),
    [
        ({}, None),
        ({"tokenizer.json": json.dumps(FAST).encode()}, 43),
        ({"tokenizer.json": json.dumps(PIECES).encode()}, 2),
        ({"vocab.json": b'{"a": 0, "b": 4}'}, 5),
        ({"vocab.json": b'{"a": 0, "b": 4}', "tokenizer_config.json": BEYOND}, 8),
        ({"vocab.txt": b"a\nb\nc\n"}, 3),
        (
            {"tokenizer.json": json.dumps(FAST).encode(), "vocab.txt": b"a\n"},
            43,
        ),  # what is loaded where both are there
        ({"tokenizer.json": b'{"model": [], "added_tokens": {"id": "x"}}'}, None),
        ({"tokenizer.json": b'{"model": {"vocab": {"a": true, "b": -3, "c": "7"}}}'}, None),
        ({"tokenizer.json": b"[1"}, None),
        ({"tokenizer.json": b"0" * 20_000_001, "vocab.txt": b"a\nb\n"}, 2),
        ({"tokenizer.model": b"\x0a\x00"}, None),
    ],
)
def test_how_many_tokens_its_tokenizer_knows(hub, files, size):
    model(hub, LLAMA, files={"model.safetensors": weights(w=("BF16", 1_000)), **files})
    found = inspect()
    assert found["tokenizer_size"] == size
    said = any("tokenizer" in one for one in found["unknown"])
    assert said == ("tokenizer.model" in files or files.get("tokenizer.json") == b"[1")


@pytest.mark.parametrize("name", ["chat_template.jinja", "chat_template.json"])
def test_a_chat_template_in_a_file_of_its_own(hub, name):
    model(hub, LLAMA, files={name: b"{{x}}"})
    assert inspect()["chat_template"] is True


def test_newer_evaluation_results_and_their_bad_files(hub):
    good = b"- dataset: {id: cais/hle, task_id: default}\n  value: 20.9\n  source: {url: https://example.org/x}\n"
    files = {".eval_results/hle.yaml": good, ".eval_results/bad.yaml": b"- nothing\n"}
    model(hub, LLAMA, files=files)
    results = inspect()["evaluation_results"]
    assert len(results) == 2
    assert results[1]["dataset"] == "cais/hle"
    assert (results[1]["value"], results[1]["source"]) == (20.9, "https://example.org/x")
    hub.fail("expand=evalResults", status=500, times=None)
    assert "Evaluation results in .eval_results" in " ".join(inspect()["unknown"])


def test_a_licence_of_its_own_and_code_of_its_own_are_warned_of(hub):
    card = b"---\nlicense: other\nlicense_name: acme-license\n---\n"
    model(hub, {**LLAMA, "auto_map": {"AutoModel": "m.M"}}, files={"README.md": card})
    found = inspect()
    assert found["license"] == "other (acme-license)"
    assert "trust_remote_code" in " ".join(found["warnings"])
    hub.seed("acme/bare", "model", {"x.txt": b""})
    assert "No licence is stated" in " ".join(inspect("acme/bare")["warnings"])


@pytest.mark.parametrize(
    ("stated", "named", "said"),
    [
        ("other", "flux-1-dev-non-commercial-license", "by its name it forbids commercial use"),
        ("other", "mnpl", "by its name it forbids commercial use"),
        ("other", "acme-license", "read its terms"),
        ("other", None, "read its terms"),
        ("unknown", None, "read its terms"),
        ("cc-by-nc-4.0", None, "by its name it forbids commercial use"),
        ("cc-by-nc-sa-4.0", None, "by its name it forbids commercial use"),
        ("[mit, cc-by-nc-nd-3.0]", None, "by its name it forbids commercial use"),
        ("fair-noncommercial-research-license", None, "by its name it forbids commercial use"),
        ("apple-amlr", None, "by its name it forbids commercial use"),
        ("openrail", None, "read its terms"),
        ("llama3.1", None, "read its terms"),
        ("gemma", None, "read its terms"),
        ("apache-2.0", None, ""),
        ("cc-by-4.0", None, ""),
        ("ncsa", None, ""),
        ("bsd-3-clause-clear", None, ""),
    ],
)
def test_a_licence_that_restricts_use_is_warned_of(hub, stated, named, said):
    card = f"---\nlicense: {stated}\n" + (f"license_name: {named}\n" if named else "") + "---\n"
    model(hub, LLAMA, files={"README.md": card.encode()})
    warnings = [one for one in inspect()["warnings"] if "licence" in one]
    assert len(warnings) == bool(said) and said in " ".join(warnings)


def test_a_configuration_that_is_no_json_is_said_and_got_over(hub):
    model(hub, None, files={"config.json": b"{broken", "model.safetensors": weights(w=("F32", 10))})
    found = inspect()
    assert found["parameters"] == 10
    assert "config.json says: it is no JSON" in found["unknown"][0]


@pytest.mark.parametrize(
    "config",
    [
        {"architectures": "Odd", "text_config": "x", "id2label": ["a"], "quantization_config": [1], "dtype": {}},
        {"architectures": [], "hidden_size": "large", "num_hidden_layers": None, "num_attention_heads": -1},
        {"hidden_size": True, "n_layer": 0, "layer_types": "full", "vocab_size": 1.5},
        [1, 2],
    ],
)
def test_configurations_of_other_shapes_are_got_over(hub, config):
    model(hub, None, files={"config.json": json.dumps(config).encode(), "tokenizer_config.json": b"[]"})
    found = inspect()
    assert (found["parameters"], found["memory"]["full_gb"], found["labels"]) == (None, None, None)


def test_a_web_page_in_place_of_a_file_is_not_taken_for_it(hub):
    model(hub, LLAMA)
    hub.fail("/resolve/", status=200, headers={"content-type": "text/html"}, body="<html>log in</html>", times=None)
    with pytest.raises(ConnectionError, match=r"config.json of model acme/small.*a web page"):
        inspect()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"sequence_length": 0}, "`sequence_length` is a whole number from 1 up"),
        ({"batch_size": -1}, "`batch_size`"),
        ({"batch_size": True}, "`batch_size`"),
    ],
)
def test_arguments_that_make_no_sense_are_not_sent(hub, arguments, message):
    with pytest.raises(ValueError, match=message):
        inspect(**arguments)
    assert hub.requests == []


def test_the_token_goes_only_where_it_belongs(hub, monkeypatch):
    """Large files lie on another host: it is asked without the token."""
    got = []

    def keep(request: Request) -> PlainTextResponse:
        got.append(request.headers.get("authorization"))
        return PlainTextResponse("{}")

    with Service(Starlette(routes=[Route("/{path:path}", keep)])) as stranger:
        elsewhere = stranger.url.replace("127.0.0.1", "localhost")
        about = {"id": "acme/small", "sha": "0" * 40, "tags": [], "private": False}
        about["siblings"] = [{"rfilename": "config.json", "size": 3}, {"rfilename": "model.safetensors", "size": 9}]

        def answer(request: Request):
            if request.url.path.startswith("/api/"):
                return PlainTextResponse(json.dumps(about))
            return RedirectResponse(f"{elsewhere}/x", headers={"X-Repo-Commit": "0" * 40})

        with Service(Starlette(routes=[Route("/{path:path}", answer)])) as front:
            monkeypatch.setenv("HF_ENDPOINT", front.url)
            assert inspect()["parameters"] is None
            assert {one.headers.get("authorization") for one in front.requests} == {"Bearer " + hub.token}
    assert len(got) == 2
    assert set(got) == {None}


@pytest.mark.long
def test_it_survives_saving(hub):
    model(hub, LLAMA, files={"model.safetensors": weights(w=("BF16", 10))})
    found = assert_survives_saving(
        HubInspectModelTool, "huggingface_hub", call={"model": "acme/small"}, environment=hub.environment()
    )
    assert found["parameters"] == 10
