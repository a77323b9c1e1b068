"""Models of a few thousand random weights and data that they can learn, made on the spot: nothing is downloaded."""

from __future__ import annotations

import json
import random
from pathlib import Path

GOOD = ["good", "great", "fine", "lovely", "happy", "bright", "calm", "warm"]
BAD = ["bad", "awful", "poor", "nasty", "sad", "dark", "rough", "cold"]
FILLER = [
    "the",
    "a",
    "this",
    "that",
    "film",
    "day",
    "room",
    "meal",
    "trip",
    "book",
    "was",
    "is",
    "seems",
    "felt",
    "very",
    "rather",
    "quite",
    "so",
    "and",
]
NAMES = ["Anna", "Bela", "Carl", "Dora", "Emil"]
TOWNS = ["Oslo", "Rome", "Lima", "Bern", "Graz"]
DIGITS = [str(number) for number in range(20)]
CHAT = (
    "{% for message in messages %}[{{ message['role'] }}] {{ message['content'] }} [end] {% endfor %}"
    "{% if add_generation_prompt %}[assistant] {% endif %}"
)


def tokenizer(folder: Path, chat: bool = True):
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    special = ["[pad]", "[unk]", "[cls]", "[end]"]
    words = [
        *special,
        "[user]",
        "[assistant]",
        *GOOD,
        *BAD,
        *FILLER,
        *NAMES,
        *TOWNS,
        *DIGITS,
        "plus",
        "equals",
        "lives",
        "in",
    ]
    vocab = {word: number for number, word in enumerate(dict.fromkeys(words))}
    made = Tokenizer(models.WordLevel(vocab, unk_token="[unk]"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    made.post_processor = processors.TemplateProcessing(
        single="[cls] $A", pair="[cls] $A [end] $B", special_tokens=[("[cls]", 2), ("[end]", 3)]
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=made,
        pad_token="[pad]",
        unk_token="[unk]",
        cls_token="[cls]",
        bos_token="[cls]",
        eos_token="[end]",
    )
    fast.model_input_names = ["input_ids", "attention_mask"]
    if chat:
        fast.chat_template = CHAT
    fast.save_pretrained(folder)
    return len(vocab)


def encoder(folder: Path, seed: int = 0) -> Path:
    import torch
    from transformers import BertConfig, BertModel

    torch.manual_seed(seed)
    size = tokenizer(folder)
    config = BertConfig(
        vocab_size=size, hidden_size=64, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64,
        max_position_embeddings=64, type_vocab_size=2, pad_token_id=0,
    )  # fmt: skip
    BertModel(config).save_pretrained(folder)
    return folder


def decoder(folder: Path, seed: int = 0, chat: bool = True) -> Path:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    size = tokenizer(folder, chat)
    config = LlamaConfig(
        vocab_size=size, hidden_size=64, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=2,
        intermediate_size=64, max_position_embeddings=128, pad_token_id=0, bos_token_id=2, eos_token_id=3,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def vision(folder: Path, seed: int = 0) -> Path:
    import torch
    from transformers import ViTConfig, ViTModel

    torch.manual_seed(seed)
    config = ViTConfig(
        hidden_size=64, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64, image_size=16, patch_size=8
    )
    ViTModel(config).save_pretrained(folder)
    about = {"image_processor_type": "ViTImageProcessor", "do_normalize": True, "do_rescale": True, "do_resize": True}
    about |= {"image_mean": [0.5] * 3, "image_std": [0.5] * 3, "size": {"height": 16, "width": 16}}
    (folder / "preprocessor_config.json").write_text(json.dumps(about))
    return folder


def write(path: Path, rows: list[dict]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def sentence(draw: random.Random, words: list[str]) -> str:
    picked = [draw.choice(FILLER) for _ in range(8)]
    picked[draw.randrange(8)] = draw.choice(words)
    picked[draw.randrange(8)] = draw.choice(words)
    return " ".join(picked)


def reviews(draw: random.Random, count: int) -> list[dict]:
    rows = []
    for number in range(count):
        label = ("bad", "good")[number % 2]
        rows.append({"text": sentence(draw, GOOD if label == "good" else BAD), "label": label})
    return rows


def tagged(draw: random.Random, count: int) -> list[dict]:
    rows = []
    for _ in range(count):
        tokens = [draw.choice(NAMES), draw.choice(NAMES), "lives", "in", draw.choice(TOWNS), draw.choice(FILLER)]
        rows.append({"tokens": tokens, "ner_tags": ["B-PER", "I-PER", "O", "O", "B-LOC", "O"]})
    return rows


def sums(draw: random.Random, count: int) -> list[tuple[str, str]]:
    pairs = [(draw.randrange(10), draw.randrange(10)) for _ in range(count)]
    return [(f"{a} plus {b} equals {draw.choice(FILLER)}", str(a + b)) for a, b in pairs]


def chats(draw: random.Random, count: int) -> list[dict]:
    said = [[{"role": "user", "content": q}, {"role": "assistant", "content": a}] for q, a in sums(draw, count)]
    return [{"messages": one} for one in said]


def preferences(draw: random.Random, count: int) -> list[dict]:
    rows = []
    for _ in range(count):
        better, worse = sentence(draw, GOOD), sentence(draw, BAD)
        rows.append({"prompt": sentence(draw, NAMES), "chosen": " " + better, "rejected": " " + worse})
    return rows


def questions(draw: random.Random, count: int) -> list[dict]:
    return [{"prompt": question, "answer": answer} for question, answer in sums(draw, count)]


def pairs(draw: random.Random, count: int) -> list[dict]:
    return [{"anchor": sentence(draw, GOOD), "positive": sentence(draw, GOOD)} for _ in range(count)]


def scored(draw: random.Random, count: int) -> list[dict]:
    rows = []
    for number in range(count):
        other = sentence(draw, GOOD if number % 2 else BAD)
        rows.append({"sentence1": sentence(draw, GOOD), "sentence2": other, "score": float(number % 2) + 0.0})
    return rows


def table(draw: random.Random, count: int) -> list[dict]:
    rows = []
    for _ in range(count):
        height, colour = draw.uniform(0, 10), draw.choice(["red", "blue", "green"])
        high = "high" if height + (3 if colour == "red" else 0) > 5 else "low"
        rows.append({"height": height if draw.random() > 0.05 else None, "colour": colour, "label": high})
    return rows


def pictures(folder: Path, draw: random.Random, count: int) -> None:
    from PIL import Image

    for number in range(count):
        label = ("dark", "light")[number % 2]
        shade = draw.randrange(0, 90) + (150 if label == "light" else 0)
        path = folder / "train" / label / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        picture = Image.new("RGB", (20, 18), (shade, shade, draw.randrange(255)))
        picture.putpixel((number % 20, number % 18), (number, 0, 0))
        picture.save(path)


DATA = {
    "reviews": reviews, "tagged": tagged, "chats": chats, "preferences": preferences, "sums": questions, "pairs": pairs,
    "scored": scored, "table": table,
}  # fmt: skip


def everything(root: Path, count: int = 160) -> None:
    """All models and data, as folders of a workspace."""
    draw = random.Random(1)
    for name, make in DATA.items():
        write(root / "data" / name / "train.jsonl", make(draw, count))
    pictures(root / "data" / "pictures", draw, 80)
    encoder(root / "encoder")
    decoder(root / "decoder")
    vision(root / "vision")


if __name__ == "__main__":  # run by the interpreter that has torch
    import sys

    everything(Path(sys.argv[1]))
