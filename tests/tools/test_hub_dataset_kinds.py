"""Datasets of every kind: what they can be trained on, what a sample cannot tell, media, empty splits, scripts."""

import gzip
import io
import json
import os
import random
import shutil
import subprocess
import sys
import time

import pytest
from huggingface_hub import HfApi
from ml_intern.tools import HubInspectDatasetTool
from PIL import Image
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from ml_intern.testing.serve import Service
from ml_intern.testing.viewer import NOT_READY

CARD = b"---\nlicense: mit\n---\n"


def lines(rows):
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def put(hub, rows, name="acme/data", card=CARD, **more):
    files = {key.replace("__", "."): lines(value) for key, value in more.items()}
    hub.seed(name, "dataset", {"README.md": card, "train.jsonl": lines(rows), **files})


def inspect(name="acme/data", **arguments):
    """Anew: nothing is kept of what was asked before."""
    shutil.rmtree(os.environ["XDG_CACHE_HOME"], ignore_errors=True)
    return HubInspectDatasetTool()(name, **arguments)


def talk(number, *, keys=("role", "content"), roles=("user", "assistant")):
    said = (f"Question {number}?", f"Answer {number}.")
    return [dict(zip(keys, pair, strict=True)) for pair in zip(roles, said, strict=True)]


def many(make, count=60):
    return [make(number) for number in range(count)]


KINDS = {
    "reviews": (
        many(lambda i: {"text": f"This film, number {i}, was worth the evening.", "label": i % 2}),
        {"text-classification": "go", "sft": "fixable", "embeddings": "fixable"},
    ),
    "hidden": (
        many(lambda i: {"text": f"This film, number {i}, was worth it.", "label": (i % 3) - 1}),
        {"text-classification": "fixable", "sft": "fixable", "embeddings": "fixable"},
    ),
    "pairs": (
        many(lambda i: {"premise": f"A man walks {i}", "hypothesis": f"Someone moves {i}", "label": i % 3}),
        {"text-classification": "go", "embeddings": "go"},
    ),
    "chat": (many(lambda i: {"messages": talk(i)}), {"sft": "go", "grpo": "fixable"}),
    "sharegpt": (
        many(lambda i: {"conversations": talk(i, keys=("from", "value"), roles=("human", "gpt"))}),
        {"sft": "fixable", "grpo": "fixable"},
    ),
    "unanswered": (many(lambda i: {"messages": talk(i)[: 1 + (i > 0)]}), {"sft": "fixable", "grpo": "fixable"}),
    "prompts": (many(lambda i: {"prompt": f"Say {i}", "completion": f"It is {i}"}), {"sft": "go", "grpo": "fixable"}),
    "alpaca": (
        many(lambda i: {"instruction": f"Write {i}", "input": f"on {i}", "output": f"Here: {i}"}),
        {"sft": "fixable", "grpo": "fixable"},
    ),
    "preference": (
        many(lambda i: {"prompt": f"Say {i}", "chosen": f"Gladly {i}", "rejected": f"No {i}"}),
        {"dpo": "go", "reward": "go", "sft": "fixable", "grpo": "fixable"},
    ),
    "ties": (
        many(lambda i: {"prompt": f"Say {i}", "chosen": f"Yes {i}", "rejected": f"{'No' if i else 'Yes'} {i}"}),
        {"dpo": "fixable", "reward": "fixable", "sft": "fixable", "grpo": "fixable"},
    ),
    "arena": (
        many(lambda i: {"prompt": f"Say {i}", "response_a": f"a {i}", "response_b": f"b {i}", "winner": "ab"[i % 2]}),
        {"dpo": "fixable", "reward": "fixable", "grpo": "fixable"},
    ),
    "maths": (
        many(lambda i: {"prompt": f"What is {i} + 1?", "answer": f"{i + 1}"}),
        {"grpo": "go", "sft": "fixable"},
    ),
    "entities": (
        many(lambda i: {"tokens": ["Anna", f"is{i}"], "ner_tags": ["B-PER", "O"]}),
        {"token-classification": "go"},
    ),
    "uneven": (
        many(lambda i: {"tokens": ["Anna", f"is{i}"], "ner_tags": ["B-PER", "O"][: 1 + (i > 0)]}),
        {"token-classification": "fixable"},
    ),
    "spans": (
        many(lambda i: {"text": f"Anna is {i}", "entities": [{"start": 0, "end": 4, "label": "PER"}]}),
        {"token-classification": "fixable"},
    ),
    "table": (
        many(lambda i: {"height": i / 7, "weight": i / 3, "species": "abc"[i % 3]}),
        {"tabular-classification": "go"},
    ),
    "triplets": (
        many(lambda i: {"anchor": f"query {i}", "positive": f"hit {i}", "negative": f"miss {i}"}),
        {"embeddings": "go"},
    ),
    "topics": (
        many(lambda i: {"text": f"Some text on many things, number {i}", "labels": [i % 3, 5]}),
        {"text-classification": "fixable", "sft": "go"},
    ),
    "people": (
        many(lambda i: {"country": ("de", "fr")[i % 2], "age": i, "bought": i % 2, "label": i % 2}),
        {"tabular-classification": "go"},
    ),
    "book": (many(lambda i: {"text": f"Chapter {i}. It was a dark and stormy night."}), {"sft": "go"}),
}


@pytest.mark.parametrize("name", KINDS)
def test_what_it_can_be_trained_on(hub, name):
    rows, expected = KINDS[name]
    put(hub, rows)
    methods = inspect()["methods"]
    assert set(methods) == {
        *("sft", "dpo", "reward", "grpo", "embeddings"),
        *("text-classification", "token-classification", "image-classification", "tabular-classification"),
    }
    for method, one in methods.items():
        assert set(one) == {"verdict", "why", "fix", "columns"}
        assert one["why"]
        assert (one["fix"] is not None) == (one["verdict"] == "fixable"), method
        assert set(one["columns"].values()) <= set(rows[0])
    found = {method: one["verdict"] for method, one in methods.items() if one["verdict"] != "no"}
    if name in ("alpaca", "arena", "maths", "prompts", "preference", "ties", "spans"):
        found.pop("embeddings", None)
        found.pop("sft" if name in ("arena", "spans") else "", None)
        found.pop("text-classification" if name == "arena" else "", None)
    assert found == expected


def words(number, count=12):
    return " ".join([f"word{number * 7919 % (k + 90)}" for k in range(count)]) + f" {number}"


def asks(**columns):
    """Rows of the same columns, from functions of a number."""
    return many(lambda i: {name: make(i) for name, make in columns.items()})


MULTIPLE = {
    "mmlu": asks(question=words, subject=lambda i: "ab"[i % 2], choices=lambda i: [words(i, 2), "b", "c"], answer=lambda i: i % 3),
    "hellaswag": asks(
        activity_label=lambda i: "ab"[i % 2], ctx=words, endings=lambda i: ["a", words(i)], label=lambda i: str(i % 2)
    ),
    "arc": asks(question=words, choices=lambda i: {"text": ["a", "b"], "label": ["A", "B"]}, answerKey=lambda i: "AB"[i % 2]),
    "race": asks(article=words, question=lambda i: f"Why {i}?", options=lambda i: ["a", "b"], answer=lambda i: "AB"[i % 2]),
    "medqa": asks(question=words, options=lambda i: {"A": "x", "B": "y"}, answer=lambda i: "xy"[i % 2]),
    "piqa": asks(goal=words, sol1=words, sol2=words, label=lambda i: i % 2),
    "winogrande": asks(sentence=words, option1=lambda i: "ab"[i % 2], option2=lambda i: "cd"[i % 2], answer=lambda i: "12"[i % 2]),
    "swag": asks(startphrase=words, ending0=words, ending1=words, label=lambda i: i % 2),
    "social": asks(context=words, question=words, answerA=words, answerB=words, answerC=words, label=lambda i: i % 3),
    "exam": asks(question=words, A=words, B=words, C=words, D=words, answer=lambda i: "ABCD"[i % 4]),
    "medmcqa": asks(question=words, opa=words, opb=words, cop=lambda i: i % 2),
    "truthful": asks(question=words, mc1_targets=lambda i: {"choices": ["a", "b"], "labels": [1, 0]}),
}  # fmt: skip


@pytest.mark.parametrize("name", MULTIPLE)
def test_multiple_choice_is_no_classification_of_the_question(hub, name):
    put(hub, MULTIPLE[name])
    methods = inspect()["methods"]
    assert {one["verdict"] for one in methods.values()} == {"fixable", "no"}
    assert "it is multiple choice" in methods["text-classification"]["why"]
    assert methods["text-classification"]["fix"].startswith("make a row of each choice")
    assert "as `completion` in words the choice that" in methods["sft"]["fix"]
    assert methods["embeddings"]["fix"].startswith("pair `")
    assert methods["tabular-classification"]["verdict"] == methods["dpo"]["verdict"] == "no"


def one_of(*values):
    return lambda i: values[i % len(values)]


SHAPES = {  # name: rows, then of methods what the verdict is and which columns it names, or what its fix or reason says
    "qnli": (
        asks(question=words, sentence=words, label=one_of(0, 1)),
        {
            "text-classification": ("go", {"label": "label", "text": "question", "text_pair": "sentence"}),
            "sft": ("fixable", "with `question` and `sentence` in the prompt ask for `label` in words"),
        },
    ),
    "boolq": (
        asks(question=words, answer=one_of(True, False), passage=words),
        {
            "text-classification": ("go", {"label": "answer", "text": "question", "text_pair": "passage"}),
            "sft": ("fixable", "put `passage` behind `question`"),
            "embeddings": ("fixable", {"anchor": "question", "positive": "passage"}),
        },
    ),
    "wikiqa": (
        asks(question=words, answer=words, label=one_of(0, 1)),
        {
            "text-classification": ("go", {"label": "label", "text": "question", "text_pair": "answer"}),
            "sft": ("fixable", "keep the rows where `label` is 1"),
            "embeddings": ("go", {"anchor": "question", "positive": "answer", "label": "label"}),
        },
    ),
    "multirc": (
        asks(paragraph=words, question=words, answer=words, label=one_of(0, 1)),
        {"text-classification": ("fixable", "see whether `paragraph` belongs to the input too")},
    ),
    "anli": (
        asks(premise=words, hypothesis=words, label=one_of(0, 1, 2), reason=words),
        {"text-classification": ("fixable", "`reason`"), "embeddings": ("fixable", "drop `reason`")},
    ),
    "wic": (
        asks(word=one_of("bank", "bat"), sentence1=words, sentence2=words, label=one_of(0, 1)),
        {"text-classification": ("fixable", "see whether `word` belongs to the input too")},
    ),
    "amazon": (
        asks(label=one_of(0, 1), title=words, content=words),
        {"text-classification": ("go", {"label": "label", "text": "title", "text_pair": "content"})},
    ),
    "unclear": (
        asks(label=one_of(0, 1), front=words, back=words),
        {"text-classification": ("fixable", "see whether `back` belongs to the input too")},
    ),
    "left out": (
        asks(label=one_of(0, 1), text=words, location=words),
        {"text-classification": ("go", "`location` is left out")},
    ),
    "two labels": (
        asks(text=words, coarse_label=one_of(0, 1), fine_label=one_of(0, 1, 2)),
        {"text-classification": ("go", "`fine_label` may be meant as well")},
    ),
    "kto": (
        asks(prompt=words, completion=words, label=one_of(True, False)),
        {
            "sft": ("fixable", "keep the rows where `label` is true"),
            "text-classification": ("fixable", {"label": "label", "text": "prompt", "text_pair": "completion"}),
            "embeddings": ("fixable", {"anchor": "prompt", "positive": "completion"}),
            "reward": ("no", "KTO"),
            "dpo": ("no", "KTO"),
        },
    ),
    "kto talks": (
        asks(prompt=lambda i: talk(i)[:1], completion=lambda i: talk(i)[1:], label=one_of(True, False)),
        {"sft": ("fixable", {"prompt": "prompt", "completion": "completion"}), "reward": ("no", "KTO")},
    ),
    "rated": (
        asks(prompt=words, response=words, helpfulness=one_of(0, 1, 2), verbosity=one_of(0, 1, 2)),
        {"sft": ("fixable", "keep the rows where `helpfulness` is high"), "text-classification": ("no", "label")},
    ),
    "translation": (
        asks(translation=lambda i: {"de": words(i), "en": words(i + 1)}),
        {"sft": ("fixable", "ask in words for `translation.de`"), "embeddings": ("fixable", "`translation.en`")},
    ),
    "languages": (asks(en=words, fr=words), {"sft": ("fixable", {"prompt": "en", "completion": "fr"})}),
    "jigsaw": (
        asks(comment_text=words, toxic=one_of(0, 1), obscene=one_of(0, 0, 1), threat=one_of(0)),
        {
            "text-classification": ("fixable", "multi-label"),
            "sft": ("fixable", "nothing in it answers"),
        },
    ),
    "stsb": (
        asks(sentence1=words, sentence2=words, label=lambda i: i / 12),
        {
            "text-classification": ("no", "regression"),
            "embeddings": ("fixable", "bring `label`, up to 4.92, to 0 to 1"),
            "sft": ("fixable", "nothing in it answers"),
        },
    ),
    "hh": (
        asks(chosen=words, rejected=lambda i: words(i, 30)),
        {"dpo": ("go", ""), "sft": ("fixable", {"text": "chosen"}), "embeddings": ("no", "worse")},
    ),
    "hh talks": (asks(chosen=talk, rejected=lambda i: talk(-1 - i)), {"sft": ("fixable", {"messages": "chosen"})}),
    "preferred talks": (
        asks(prompt=lambda i: talk(i)[:1], chosen=lambda i: talk(i)[1:], rejected=lambda i: talk(-1 - i)[1:]),
        {"dpo": ("go", ""), "sft": ("fixable", {"prompt": "prompt", "completion": "chosen"})},
    ),
    "shp": (
        asks(history=words, human_ref_A=words, human_ref_B=words, labels=one_of(0, 1)),
        {"dpo": ("fixable", "`labels`"), "sft": ("fixable", "`labels` names"), "text-classification": ("fixable", "")},
    ),
    "tree": (
        asks(
            message_id=lambda i: f"m{i}",
            parent_id=lambda i: f"m{i - 1}",
            text=words,
            role=one_of("prompter", "assistant"),
            lang=one_of("en", "de"),
        ),
        {"sft": ("fixable", "join the rows that belong together by `parent_id`"), "text-classification": ("no", "")},
    ),
    "squad": (
        asks(
            title=one_of("a", "b"), context=words, question=words, answers=lambda i: {"text": ["x"], "answer_start": [1]}
        ),
        {"text-classification": ("no", "no column is a label"), "sft": ("fixable", "take the text out of `answers`")},
    ),
    "code": (asks(text=words, code=words), {"sft": ("fixable", {"prompt": "text", "completion": "code"})}),
    "dialogues": (asks(dialogue=words, summary=words), {"sft": ("fixable", {"prompt": "dialogue", "completion": "summary"})}),
    "numbers": (asks(question=words, answer=lambda i: i), {"sft": ("fixable", "put `answer` into words"), "grpo": ("fixable", "")}),
    "system": (
        asks(system_prompt=words, prompt=words, completion=words),
        {"sft": ("fixable", "put `system_prompt` before `prompt`")},
    ),
    "prompts": (asks(prompt=words), {"sft": ("no", "nothing answers"), "grpo": ("fixable", "")}),
    "retrieval": (asks(anchor=words, positive=words), {"sft": ("no", "pairs"), "embeddings": ("go", "")}),
    "hidden": (
        asks(text=words, label=one_of(-1)),
        {"sft": ("go", {"text": "text"}), "embeddings": ("no", ""), "text-classification": ("no", "same")},
    ),
    "hidden choices": (
        asks(goal=words, sol1=words, sol2=words, label=one_of(-1)),
        {
            "sft": ("no", "every row hides `label` (-1)"),
            "grpo": ("no", "hides"),
            "text-classification": ("no", "hides"),
        },
    ),
    "some hidden choices": (
        asks(goal=words, sol1=words, sol2=words, label=one_of(-1, 0, 1)),
        {"sft": ("fixable", "drop 20 rows whose label is hidden (-1)")},
    ),
    "heart": (
        asks(source=one_of("web", "phone"), age=lambda i: i / 3, pressure=lambda i: i / 7, target=one_of(0, 1)),
        {"sft": ("no", ""), "tabular-classification": ("go", {"label": "target"})},
    ),
    "titanic": (
        asks(PassengerId=lambda i: i, Survived=one_of(0, 1), Pclass=one_of(1, 2, 3), Name=lambda i: words(i, 3), Age=lambda i: i / 3),
        {"tabular-classification": ("fixable", "`Survived`, `Pclass`"), "sft": ("no", "")},
    ),
    "short texts": (
        asks(tweet=lambda i: f"Nice {i}!", likes=lambda i: i, shares=lambda i: i * 7, label=one_of(0, 1)),
        {"tabular-classification": ("no", "texts"), "text-classification": ("go", {"label": "label", "text": "tweet"})},
    ),
    "table with names": (
        asks(survived=one_of(0, 1), name=lambda i: words(i, 3), age=lambda i: i / 3, fare=lambda i: i / 7, label=one_of(0, 1)),
        {"tabular-classification": ("fixable", "leave out `name`")},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", SHAPES)
def test_well_known_shapes_are_not_taken_for_others(hub, name):
    rows, expected = SHAPES[name]
    put(hub, rows)
    methods = inspect()["methods"]
    for method, (verdict, said) in expected.items():
        one = methods[method]
        assert one["verdict"] == verdict, (method, one)
        if isinstance(said, dict):
            assert one["columns"] == said
        else:
            assert said in f"{one['why']} {one['fix']}"
        assert set(one["columns"].values()) <= set(rows[0])


def test_several_flags_are_several_labels(hub):
    put(hub, SHAPES["jigsaw"][0])
    used = {"label_1": "toxic", "label_2": "obscene", "label_3": "threat", "text": "comment_text"}
    assert inspect()["methods"]["text-classification"]["columns"] == used


def typed(name, kind):
    return f"---\nlicense: mit\ndataset_info:\n  features:\n  - {{name: {name}, dtype: {kind}}}\n---\n".encode()


@pytest.mark.parametrize(
    ("kind", "more", "expected"),
    [
        ("audio", {"text": words}, {"sft": "no", "embeddings": "no", "text-classification": "no"}),
        ("audio", {"sentence": words, "gender": one_of("m", "f")}, {"sft": "no", "text-classification": "fixable"}),
        ("image", {"text": words}, {"sft": "fixable", "embeddings": "no"}),
        ("image", {"question": words, "answer": words}, {"sft": "fixable", "grpo": "fixable", "embeddings": "no"}),
        ("image", {"text": words, "label": one_of(0, 1)}, {"text-classification": "fixable", "image-classification": "fixable"}),
        ("image", {"label": one_of(0, 1)}, {"image-classification": "go", "sft": "no"}),
        ("image", {"young": one_of(True, False), "male": one_of(0, 0, 1)},
         {"image-classification": "fixable", "tabular-classification": "no"}),
    ],
)  # fmt: skip
def test_texts_that_belong_to_sounds_or_images(hub, kind, more, expected):
    put(hub, asks(**{kind: lambda i: {"src": f"https://example.org/{i}"}}, **more), card=typed(kind, kind))
    methods = inspect()["methods"]
    assert {method: methods[method]["verdict"] for method in expected} == expected


def test_translations_are_known_by_their_type(hub, monkeypatch):
    import pyarrow as arrow

    monkeypatch.delenv("HF_DATASETS_SERVER")
    table = arrow.table({"pair": [{"de": words(i), "en": words(i + 1)} for i in range(60)]})
    data = parquet_of(table, {"pair": {"languages": ["de", "en"], "_type": "Translation"}})
    hub.seed("acme/data", "dataset", {"README.md": CARD, "train.parquet": data})
    one = inspect()["methods"]["sft"]
    assert (one["verdict"], one["columns"]) == ("fixable", {"translation": "pair"})
    assert one["why"] == "`pair.en` translates `pair.de`"


def test_rows_of_a_table_are_not_alike_for_a_name(hub):
    put(hub, many(lambda i: {"name": f"Anna {i % 9}", "age": i, "fare": i / 7, "label": i % 2}))
    assert inspect()["duplicates"]["within"] == {"train": 0}


def test_fixes_name_columns_and_numbers(hub):
    def fix(name, method):
        put(hub, KINDS[name][0])
        return inspect()["methods"][method]["fix"]

    assert fix("sharegpt", "sft") == (
        "turn each {from, value} into {role, content}, human into user and gpt into assistant; "
        "rename `conversations` to `messages`"
    )
    assert fix("alpaca", "sft") == (
        "put `input` behind `instruction` where it is not empty; "
        "rename `instruction` to `prompt`; rename `output` to `completion`"
    )
    assert fix("ties", "dpo") == "drop 1 rows where both answers are the same"
    assert fix("unanswered", "sft") == "drop 1 conversations that end without an answer"
    assert fix("uneven", "token-classification") == "drop 1 rows with more or fewer tags than tokens"
    assert fix("hidden", "text-classification") == "drop 20 rows whose label is hidden (-1)"
    assert "response_a" in fix("arena", "dpo")


def test_gaps_and_leaks_have_to_be_mended_first(hub):
    rows = many(lambda i: {"text": f"This film, number {i}, was worth it.", "label": i % 2})
    shared = [{"text": "Of both others, not of this one.", "label": 0}]
    put(hub, [*rows, {"text": None, "label": 1}], test__jsonl=rows[:3] + shared, dev__jsonl=shared)
    assert inspect()["duplicates"]["across"]["validation & test"] == 1
    one = inspect()["methods"]["text-classification"]
    assert one["verdict"] == "fixable"
    assert "drop the rows that lack `text`" in one["fix"]
    assert "take out of the other splits what is in train too (rows: 3 of test)" in one["fix"]


ASKED = [f"Question {i % 20}?" for i in range(60)]
ANSWERED = {
    "texts": [{"prompt": p, "chosen": f"Yes {i}", "rejected": f"No {i}"} for i, p in enumerate(ASKED)],
    "talks": [{"prompt": p, "chosen": talk(i), "rejected": talk(-i - 1)} for i, p in enumerate(ASKED)],
    "answers": [{"instruction": p, "output": f"Answer {i}"} for i, p in enumerate(ASKED)],
    "numbers": [{"question": p, "answer": i} for i, p in enumerate(ASKED)],
    "rated": [{"prompt": p, "completion": f"Answer {i}", "label": bool(i % 2)} for i, p in enumerate(ASKED)],
    "choices": [{"question": p, "choices": ["a", f"b{i}"], "answer": i % 2} for i, p in enumerate(ASKED)],
}


@pytest.mark.parametrize("name", ANSWERED)
def test_one_prompt_with_several_answers_is_no_duplicate_but_a_leak(hub, name):
    rows = ANSWERED[name]
    changed = {key: value for key, value in rows[0].items() if key in ("prompt", "instruction", "question", "choices")}
    put(hub, [*rows, rows[5]], test__jsonl=[{**rows[1], **changed}])
    found = inspect()
    assert found["duplicates"]["within"] == {"train": 1, "test": 0}
    assert found["duplicates"]["across"] == {"train & test": 1}
    assert found["duplicates"]["conflicting_labels"] == 0
    assert "1 of 61 rows of train repeat an earlier one." in found["warnings"]
    if name == "texts":
        assert found["duplicates"]["compared_on"] == "`prompt`, within a split also `chosen`, `rejected`"
        assert "40 rows of train have an earlier one's `prompt`, but another answer." in found["notes"]


def test_rows_that_lack_what_is_compared_are_not_alike(hub):
    rows = many(lambda i: {"text": f"Film {i}, worth it" if i % 3 else (None, "", " ")[i // 3 % 3], "label": i % 2})
    put(hub, rows, test__jsonl=rows[:1])
    found = inspect()
    assert found["columns"]["text"]["missing"] == 20
    duplicates = found["duplicates"]
    assert (duplicates["within"]["train"], duplicates["across"]["train & test"]) == (0, 0)
    assert duplicates["conflicting_labels"] == 0


def test_questions_on_images_are_not_alike_for_their_words(hub, monkeypatch):
    """By the viewer nothing can be said; in files the images stand there themselves."""
    import pyarrow as arrow

    card = CARD.replace(b"mit\n", b"mit\ndataset_info:\n  features:\n  - {name: image, dtype: image}\n"
                        b"  - {name: question, dtype: string}\n  - {name: answer, dtype: string}\n")  # fmt: skip
    put(hub, many(lambda i: {"image": {"src": f"x{i}"}, "question": "What is it?", "answer": f"a{i}"}), card=card)
    assert inspect()["duplicates"]["compared_on"] is None
    monkeypatch.delenv("HF_DATASETS_SERVER")
    images = [{"bytes": b"\x89PNG" + bytes([n % 30]) * 50, "path": None} for n in range(60)]
    table = {"image": images, "question": [f"What is it, {n % 40}?" for n in range(60)]}
    features = {"image": {"_type": "Image"}}
    data = parquet_of(arrow.table(table), features), parquet_of(arrow.table(table).slice(0, 1), features)
    hub.seed("acme/vqa", "dataset", {"train.parquet": data[0], "test.parquet": data[1]})
    found = inspect("acme/vqa")["duplicates"]
    assert found["compared_on"] == "`image`, within a split also `question`"
    assert (found["within"], found["across"]) == ({"train": 0, "test": 0}, {"train & test": 1})


def test_of_a_label_that_never_changes_nothing_is_learnt(hub):
    put(hub, many(lambda i: {"text": f"This film, number {i}", "label": 1}))
    assert inspect()["methods"]["text-classification"]["verdict"] == "no"


@pytest.mark.long
def test_what_a_sample_cannot_tell_is_asked_of_the_viewer(hub):
    """Gaps, labels and leaks of rows that no sample holds: 21,000 rows, of which 1,000 are looked at."""
    pad = " so" * 330
    train = [{"text": f"Film review no {i}", "note": pad, "label": "good"} for i in range(21_000)]
    for number in range(1, 21_000, 420):
        train[number] |= {"label": "bad", "text": f"Only train knows this one, number {number}"}
    for number in range(3, 21_000, 525):
        train[number]["note"] = None
    test = [{"text": row["text"], "note": "", "label": row["label"]} for row in train[1::420]]
    put(hub, train, test__jsonl=test)
    found = inspect()
    assert found["rows_examined"]["train"] == 1000
    assert found["all_rows_examined"] is False
    assert found["columns"]["label"]["all_rows"]["labels"] == {"good": 20_950, "bad": 50}
    assert "`label` is out of balance: 99 % are good." in found["warnings"]
    assert found["columns"]["note"]["all_rows"]["missing"] == 40
    assert "40 of 21000 rows lack `note`." in found["warnings"]
    hits, asked = found["duplicates"]["looked_up"]["train & test"]
    assert hits == asked == 10
    assert "10 of 10 rows of test that were looked up in all of train are there: a leak." in found["warnings"]
    assert "take out of the other splits" in found["methods"]["text-classification"]["fix"]
    assert "statistics of all rows of train" in found["notes"][0]


VALUE = {"text": {"dtype": "string", "_type": "Value"}, "label": {"names": ["neg", "pos"], "_type": "ClassLabel"}}


@pytest.fixture
def large(hub, monkeypatch):
    """A viewer of 30,000 rows that are made when they are asked for, of a dataset whose files nobody can read."""
    made = {}

    def answer(request: Request) -> JSONResponse:
        path, query = request.url.path, request.query_params
        if path == "/splits":
            return JSONResponse({"splits": [{"config": "default", "split": "train"}]})
        if path == "/info":
            return JSONResponse({"dataset_info": {"splits": {"train": {"num_bytes": 10**8}}}})
        if path == "/rows":
            start = int(query["offset"])
            features = [{"name": name, "type": VALUE[name]} for name in made["row"](0)]
            rows = [{"row_idx": i, "row": made["row"](i)} for i in range(start, start + int(query["length"]))]
            return JSONResponse({"features": features, "rows": rows, "num_rows_total": 30_000})
        if path == "/statistics" and "statistics" in made:
            kinds = {"text": "string_text", "label": "class_label"}
            found = [{"column_name": name, "column_type": kinds[name], "column_statistics": one}
                     for name, one in made["statistics"].items()]  # fmt: skip
            return JSONResponse({"num_examples": 30_000, "statistics": found, "partial": False})
        return JSONResponse({"error": "x"}, 404)

    hub.seed("acme/data", "dataset", {"README.md": CARD})
    with Service(Starlette(routes=[Route("/{path:path}", answer)])) as viewer:
        monkeypatch.setenv("HF_DATASETS_SERVER", viewer.url)
        yield made


def test_gaps_that_only_statistics_of_all_rows_know_reach_the_verdict(large):
    large["row"] = lambda i: {"text": None if 4000 <= i < 6500 else f"Film {i}, worth the evening.", "label": i % 2}
    counts = {"nan_count": 0, "no_label_count": 0, "frequencies": {"neg": 15_000, "pos": 15_000}}
    large["statistics"] = {"text": {"nan_count": 2500, "min": 1, "median": 3, "max": 9}, "label": counts}
    found = inspect()
    assert found["columns"]["text"]["missing"] == 0
    assert "2500 of 30000 rows lack `text`." in found["warnings"]
    one = found["methods"]["text-classification"]
    assert (one["verdict"], one["fix"]) == ("fixable", "drop the rows that lack `text` (2,500 of 30,000)")


def test_empty_texts_which_statistics_do_not_count_reach_the_verdict_from_the_sample(large):
    large["row"] = lambda i: {"text": "" if i % 2 else f"Film {i}, worth the evening.", "label": i % 3 % 2}
    large["statistics"] = {"text": {"nan_count": 3, "min": 0, "median": 3, "max": 9}}
    found = inspect()
    assert "500 of 1000 rows lack `text`." in found["warnings"]
    assert "lack `text` (500 of 1,000)" in found["methods"]["text-classification"]["fix"]


@pytest.mark.parametrize("statistics", [True, False])
def test_hidden_labels_are_no_class_and_counted_in_all_rows(large, statistics):
    large["row"] = lambda i: {"text": f"Film {i}, worth it.", "label": -1 if i % 2 else i // 15_000}
    if statistics:
        counts = {"nan_count": 0, "no_label_count": 15_000, "frequencies": {"neg": 7500, "pos": 7500}}
        large["statistics"] = {"label": counts}
    found = inspect()
    assert found["columns"]["label"]["hidden"] == 500
    one, of = found["methods"]["text-classification"], "15,000 rows" if statistics else "500 rows"
    assert one["why"].startswith("`label` has 2 classes")
    assert one["fix"] == f"drop {of} whose label is hidden (-1)" + ("" if statistics else " (of 1,000 looked at)")
    said = "15000 of 30000 rows" if statistics else "500 of 1000 rows"
    assert f"{said} hide their `label` (-1)." in found["warnings"]


@pytest.mark.parametrize(
    ("labels", "verdict", "count"),
    [((-1, 1), "go", 2), ((-1, 0, 1), "fixable", 2), ((-1, 0), "go", 2), (("-1", "0", "1", "2"), "fixable", 3)],
)
def test_minus_one_is_a_class_where_it_is_one_of_two(hub, labels, verdict, count):
    put(hub, many(lambda i: {"text": f"This film, number {i}, was worth it.", "label": labels[i % len(labels)]}))
    one = inspect()["methods"]["text-classification"]
    assert one["verdict"] == verdict and one["why"].startswith(f"`label` has {count} classes")


def gone(rows, *names):
    return [{**row, **dict.fromkeys(names)} for row in rows]


LACKING = {
    "chosen": (gone(KINDS["preference"][0], "chosen"), "dpo", "no row has `chosen`"),
    "rejected": (gone(KINDS["preference"][0], "rejected"), "reward", "no row has `rejected`"),
    "answers": (gone(KINDS["prompts"][0], "completion"), "sft", "no row has `completion`"),
    "text": (gone(KINDS["reviews"][0], "text"), "text-classification", "there are no texts"),
    "either": (
        [{**row, ("prompt", "completion")[i % 2]: ""} for i, row in enumerate(KINDS["prompts"][0])],
        "sft",
        "no row has `prompt` and `completion`",
    ),
    "asked only": (many(lambda i: {"messages": talk(i)[:1]}), "sft", "no conversation in `messages` holds an answer"),
    "silent": (
        many(lambda i: {"messages": [talk(i)[0], {"role": "assistant", "content": (None, "", " ", [])[i % 4]}]}),
        "sft",
        "no conversation in `messages` ends with an answer that says anything",
    ),
    "same": (
        many(lambda i: {"prompt": f"Say {i}", "chosen": "Yes", "rejected": "Yes"}),
        "dpo",
        "in every row both answers are the same",
    ),
    "silent pairs": (
        many(lambda i: {"chosen": talk(i), "rejected": [talk(i)[0], {"role": "assistant", "content": ""}]}),
        "dpo",
        "in every row an answer is empty",
    ),
}


@pytest.mark.parametrize("name", LACKING)
def test_where_dropping_what_lacks_leaves_nothing_it_will_not_do(hub, name):
    rows, method, why = LACKING[name]
    put(hub, rows)
    one = inspect()["methods"][method]
    assert (one["verdict"], one["why"], one["fix"]) == ("no", why, None)


def test_conversations_with_empty_or_early_last_answers_are_counted(hub):
    call = {"role": "assistant", "content": None, "tool_calls": [{"name": "search"}]}
    parts = {"role": "assistant", "content": [{"type": "text", "text": "Yes."}]}
    talks = [talk(i) for i in range(60)]
    talks[0][1], talks[1][1] = call, parts  # both are answers
    talks[2][1]["content"], talks[3][1]["content"] = "", " \n"
    talks[4] += talk(4)[:1]
    put(hub, [{"messages": one} for one in talks])
    assert inspect()["methods"]["sft"]["fix"] == (
        "drop 2 conversations whose last answer is empty; cut 1 conversations off after their last answer"
    )
    rows = [{"chosen": talk(i), "rejected": talk(-1 - i)} for i in range(60)]
    rows[7]["rejected"][1]["content"] = ""
    put(hub, rows)
    fix = inspect()["methods"]["dpo"]["fix"]
    assert fix == "drop 1 rows where the last answer of a conversation is empty, or not there"


def test_gaps_in_the_features_of_a_table_are_named(hub):
    rows = many(lambda i: {"height": None if i % 4 == 0 else i / 7, "weight": i / 3, "species": "abc"[i % 3]})
    put(hub, rows)
    one = inspect()["methods"]["tabular-classification"]
    assert one["verdict"] == "fixable"
    assert one["fix"] == (
        "fill the gaps in `height` (15 of 60), or take a learner that copes with them, such as one that boosts trees"
    )


def test_a_prompt_that_is_always_empty_is_not_asked_for(hub):
    put(hub, [{"prompt": "", "chosen": talk(i), "rejected": talk(-1 - i)} for i in range(60)])
    one = inspect()["methods"]["dpo"]
    assert (one["verdict"], one["columns"]) == ("go", {"chosen": "chosen", "rejected": "rejected"})


@pytest.mark.long
def test_without_statistics_a_sample_stays_a_sample(hub):
    rows = [{"text": f"Film review no {i}" + " so" * 300, "label": i % 2} for i in range(25_000)]
    put(hub, rows)
    hub.fail("/statistics", **NOT_READY, times=None)
    hub.fail("/filter", **NOT_READY, times=None)
    found = inspect()
    assert "all_rows" not in found["columns"]["label"]
    assert "There are no statistics of all rows: The dataset viewer" in found["notes"][0]
    assert "still computing" in found["notes"][0]


MEDIA = b"""---
license: mit
dataset_info:
  features:
  - {name: %s, dtype: %s}
  - name: label
    dtype: {class_label: {names: {'0': cat, '1': dog}}}
---
"""


@pytest.mark.parametrize("kind", ["image", "audio"])
def test_images_and_sounds_as_the_viewer_shows_them(hub, kind):
    cell = {"src": "https://example.org/x", "height": 8, "width": 8}
    put(hub, many(lambda i: {kind: {**cell, "n": i}, "label": i % 2}), card=MEDIA % (kind.encode(), kind.encode()))
    found = inspect(rows=1)
    assert found["features"][kind] == kind.capitalize()
    assert found["columns"][kind]["role"] == kind
    assert found["columns"]["label"]["labels"] == {"cat": 30, "dog": 30}
    # Links differ from row to row: nothing is claimed about duplicates.
    assert found["duplicates"]["compared_on"] is None
    assert "Duplicates were not looked for" in " ".join(found["notes"])
    verdict = found["methods"]["image-classification"]["verdict"]
    assert verdict == ("go" if kind == "image" else "no")
    assert found["methods"]["text-classification"]["verdict"] == "no"


def test_folders_of_images_are_judged_by_their_list_alone(hub, monkeypatch):
    monkeypatch.delenv("HF_DATASETS_SERVER")
    files = {f"{part}/{name}/{i}.png": f"{part if i else ''}{name}{i}".encode() for part in ("train", "test")
             for name in ("cat", "dog") for i in range(30)}  # fmt: skip
    hub.seed("acme/pets", "dataset", {"README.md": CARD, **files, "train/cat/again.png": files["train/cat/3.png"]})
    hub.requests.clear()
    found = inspect("acme/pets")
    assert not [one for one in hub.requests if ".png" in one.path]
    assert {part["split"]: part["rows"] for part in found["splits"]} == {"train": 61, "test": 60}
    assert found["columns"]["label"]["labels"] == {"cat": 31, "dog": 30}
    assert found["duplicates"]["within"] == {"train": 1, "test": 0}
    assert found["duplicates"]["across"] == {"train & test": 2}
    assert found["methods"]["image-classification"]["columns"] == {"label": "label", "image": "image"}
    assert "take out of the other splits" in found["methods"]["image-classification"]["fix"]
    assert "the list was read, not they" in " ".join(found["notes"])


def test_sounds_without_labels(hub, monkeypatch):
    monkeypatch.delenv("HF_DATASETS_SERVER")
    hub.seed("acme/sounds", "dataset", {f"data/{i}.wav": bytes([i]) for i in range(3)})
    found = inspect("acme/sounds")
    assert set(found["features"]) == {"audio", "file_name"}
    assert found["methods"]["image-classification"]["verdict"] == "no"


def test_nested_features(hub):
    rows = many(lambda i: {"meta": {"source": {"url": f"u{i}", "ids": [i]}}, "text": f"Some longer text, number {i}"})
    put(hub, rows)
    found = inspect(rows=1)
    assert found["features"]["meta"] == "{source: {url: string, ids: list[int64]}}"
    assert found["columns"]["meta"] == {"role": "other", "missing": 0, "distinct": 60}
    assert found["sample"] == rows[:1]


@pytest.mark.parametrize("viewer", [True, False])
def test_an_empty_split(hub, monkeypatch, viewer):
    if not viewer:
        monkeypatch.delenv("HF_DATASETS_SERVER")
    card = CARD.replace(b"---\n", b"", 1).replace(b"license", b"---\nconfigs:\n- config_name: default\n  data_files:\n"
        b"  - {split: train, path: train.jsonl}\n  - {split: test, path: test.csv}\nlicense")  # fmt: skip
    files = {"README.md": card, "train.jsonl": lines(KINDS["reviews"][0]), "test.csv": b"text,label\n"}
    hub.seed("acme/half", "dataset", files)
    found = inspect("acme/half", split="test")
    assert found["rows_examined"]["test"] == 0
    assert "Split 'test' is empty." in found["warnings"]
    assert {one["verdict"] for one in found["methods"].values()} == {"no"}
    assert inspect("acme/half")["methods"]["text-classification"]["verdict"] == "go"


def test_a_split_that_the_viewer_fails_at_is_left_out_and_that_is_said(hub):
    put(hub, KINDS["reviews"][0], test__jsonl=KINDS["reviews"][0][:5])
    hub.fail("split=test", status=500, body={"error": "x"}, headers={"X-Error-Code": "UnexpectedError"}, times=None)
    found = inspect()
    assert found["source"] == "viewer"
    assert found["rows_examined"] == {"train": 60}
    assert "Split test was not looked at" in found["notes"][0]


def test_a_viewer_that_hangs_is_left_alone(hub):
    put(hub, KINDS["reviews"][0])
    hub.fail("/splits", delay=2)
    started = time.monotonic()
    with pytest.raises(ConnectionError, match=r"The dataset viewer \(.*\) hangs: no end after 0 s"):
        HubInspectDatasetTool()._view("splits", {"dataset": "acme/data"}, seconds=0.2)
    assert time.monotonic() - started < 2


def test_a_viewer_that_has_had_enough_is_left_alone(hub):
    put(hub, KINDS["reviews"][0], test__jsonl=KINDS["reviews"][0][:5], dev__jsonl=KINDS["reviews"][0][:5])
    hub.fail("split=validation", status=429, headers={"Retry-After": "60"}, times=None)
    hub.requests.clear()
    found = inspect()
    seen = [one.path for one in hub.requests if "/rows" in one.path]
    assert [("split=train" in path, "split=validation" in path) for path in seen] == [(True, False), (False, True)]
    assert "retry after 60 s" in found["notes"][0]
    assert "Split test was not looked at" in found["notes"][1]


def test_a_loading_script_is_named_with_the_way_round_it(hub):
    hub.seed("acme/old", "dataset", {"old.py": b"import datasets", "data.zip": b"PK"})
    refused = {"status": 501, "headers": {"X-Error-Code": "DatasetWithScriptNotSupportedError"}}
    hub.fail("/datasets-server/", **refused, body={"error": "script"}, times=None)
    with pytest.raises(ValueError, match=r"old.py is run by no current `datasets`.*revision='refs/convert/parquet'"):
        inspect("acme/old")
    hub.seed("acme/old", "dataset", {"train.jsonl": lines(KINDS["reviews"][0])})
    assert "It has a loading script (old.py)" in " ".join(inspect("acme/old")["warnings"])


def test_what_the_hub_converted_is_laid_out_by_config_and_split():
    paths = ["plain/train/0000.parquet", "plain/train/0001.parquet", "plain/partial-test/0000.parquet"]
    layout = HubInspectDatasetTool()._layout(dict.fromkeys(paths, 1), None)
    assert layout == {("plain", "train"): sorted(paths[:2]), ("plain", "test"): paths[2:]}


def test_compressed_files_and_plain_text(hub, monkeypatch):
    monkeypatch.delenv("HF_DATASETS_SERVER")
    packed = gzip.compress(lines(KINDS["reviews"][0]))
    hub.seed("acme/packed", "dataset", {"train.jsonl.gz": packed, "test.csv.gz": gzip.compress(b"text,label\na,1\n")})
    found = inspect("acme/packed")
    assert found["rows_examined"] == {"train": 60, "test": 1}
    hub.seed("acme/broken", "dataset", {"train.csv.gz": b"not gzip"})
    with pytest.raises(ValueError, match=r"train.csv.gz cannot be read"):
        inspect("acme/broken")
    hub.seed("acme/lines", "dataset", {"train.txt": b"one\n\ntwo\n", "requirements.txt": b"x\n"})
    assert inspect("acme/lines")["sample"] == [{"text": "one"}, {"text": "two"}]


@pytest.mark.long
def test_a_bomb_of_zeros_is_not_unpacked_whole(hub, monkeypatch):
    monkeypatch.delenv("HF_DATASETS_SERVER")
    bomb = gzip.compress(lines([{"text": "x" * 1_000_000}]) * 80, compresslevel=1)
    hub.seed("acme/bomb", "dataset", {"train.jsonl.gz": bomb})
    found = inspect("acme/bomb", rows=0)
    assert found["rows_examined"]["train"] == 59
    assert found["all_rows_examined"] is False


def parquet_of(table, features=None, **options):
    from pyarrow import parquet

    target = io.BytesIO()
    if features is not None:
        said = json.dumps({"info": {"features": features}}).encode()
        table = table.replace_schema_metadata({b"huggingface": said})
    parquet.write_table(table, target, **options)
    return target.getvalue()


@pytest.mark.long
def test_a_beginning_is_not_called_a_sample_of_all(hub, monkeypatch):
    import pyarrow as arrow

    monkeypatch.delenv("HF_DATASETS_SERVER")
    rows = 42_000
    texts = [random.Random(n).randbytes(260).hex() for n in range(rows)]
    table = arrow.table({"text": texts, "label": [int(n >= rows // 2) for n in range(rows)]})
    data = parquet_of(table, row_group_size=rows, compression="none", use_dictionary=False)
    hub.seed("acme/data", "dataset", {"README.md": CARD, "train.parquet": data})
    found = inspect()
    assert len(data) > 20_000_000 and "but the first of each" in " ".join(found["notes"])
    assert found["methods"]["text-classification"]["why"].startswith(
        "every row that was looked at has the same `label`"
    )


def test_parquet_says_itself_what_its_columns_are(hub, monkeypatch):
    import pyarrow as arrow

    monkeypatch.delenv("HF_DATASETS_SERVER")
    image = [{"bytes": b"\x89PNG" + bytes([n % 7]) * 50, "path": f"{n}.png"} for n in range(60)]
    table = arrow.table(
        {
            "picture": image,
            "label": [n % 2 for n in range(60)],
            "at": arrow.array([n * 1_001 for n in range(60)], arrow.timestamp("ns")),
            "price": arrow.array(list(range(60)), arrow.decimal128(9, 2)),
            "empty": arrow.nulls(60),
            "deep": [[{"a": [n]}] for n in range(60)],
            "kind": arrow.array([f"k{n % 3}" for n in range(60)]).dictionary_encode(),
        }
    )
    features = {"picture": {"_type": "Image"}, "label": {"names": ["cat", "dog"], "_type": "ClassLabel"}}
    hub.seed("acme/data", "dataset", {"README.md": CARD, "train.parquet": parquet_of(table, features)})
    found = inspect()
    assert set(found["columns"]["label"]["labels"]) == {"cat", "dog"}
    assert found["columns"]["picture"]["role"] == "image" and found["columns"]["empty"]["missing"] == 60
    assert found["all_rows_examined"] and "\\x" not in json.dumps(found)
    assert found["sample"][1]["at"].startswith("1970-01-01T00:00:00.000001")


def test_maps_sounds_and_sequences_of_parquet_without_a_viewer(hub, monkeypatch):
    import pyarrow as arrow

    monkeypatch.delenv("HF_DATASETS_SERVER")
    columns = {
        "tags": arrow.array([[("a", n), ("b", None)] for n in range(60)], arrow.map_(arrow.string(), arrow.int64())),
        "sound": [{"bytes": b"RIFF\x24\0\0\0WAVEfmt " + bytes([n]), "path": f"{n}.wav"} for n in range(60)],
        "turns": [{"role": ["user"], "count": [n]} for n in range(60)],
        "text": [f"Some text on many things, number {n}" for n in range(60)],
    }
    inner = {"role": {"dtype": "string", "_type": "Value"}, "count": {"dtype": "int64", "_type": "Value"}}
    features = {"sound": {"sampling_rate": 16000, "_type": "Audio"}, "turns": {"feature": inner, "_type": "Sequence"}}
    data = parquet_of(arrow.table(columns), features)
    hub.seed("acme/data", "dataset", {"README.md": CARD, "train.parquet": data})
    found = inspect(rows=2)
    assert found["columns"]["sound"]["role"] == "audio" and found["features"]["sound"] == "Audio"
    assert found["features"]["turns"] == "list[{role: string, count: int64}]"
    shown = found["sample"][1]
    assert shown.pop("sound").startswith("WAV, 17 bytes, SHA-256 ")
    tags, turns = [["a", 1], ["b", None]], {"role": ["user"], "count": [1]}
    assert shown == {"tags": tags, "turns": turns, "text": columns["text"][1]}
    assert found["all_rows_examined"] and found["columns"]["tags"]["missing"] == 0


def drawn(kind, size=(37, 21), **options):
    target = io.BytesIO()
    Image.new("RGB", size).save(target, kind, **options)
    return target.getvalue()


def test_pictures_are_shown_by_kind_and_dimensions(hub, monkeypatch):
    import pyarrow as arrow

    monkeypatch.delenv("HF_DATASETS_SERVER")
    cells = [{"bytes": drawn("png", (n + 1, 9)), "path": None} for n in range(4)]
    hub.seed("acme/data", "dataset", {"README.md": CARD, "train.parquet": parquet_of(arrow.table({"picture": cells}))})
    shown = [row["picture"] for row in inspect()["sample"]]
    assert [one.partition(",")[0] for one in shown[:3]] == ["PNG 1 x 9", "PNG 2 x 9", "PNG 3 x 9"]
    assert "bytes, SHA-256 " in shown[0]


KINDS_OF_BYTES = [
    ("PNG 37 x 21", drawn("png")),
    ("GIF 37 x 21", drawn("gif")),
    ("BMP 37 x 21", drawn("bmp")),
    ("JPEG 37 x 21", drawn("jpeg")),
    ("JPEG 37 x 21", drawn("jpeg", progressive=True, exif=b"Exif\0\0" + bytes(300))),
    ("WebP 37 x 21", drawn("webp")),
    ("WebP 37 x 21", drawn("webp", lossless=True)),
    ("WebP 37 x 21", drawn("webp", exif=b"Exif\0\0" + bytes(30))),
    ("TIFF", drawn("tiff")),
    ("WAV", b"RIFF\x24\0\0\0WAVEfmt "),
    ("FLAC", b"fLaC" + bytes(30)),
    ("MP3", b"ID3\x04" + bytes(30)),
    ("", b"plain bytes"),
    ("", b""),
]


@pytest.mark.parametrize(("said", "data"), KINDS_OF_BYTES, ids=range(len(KINDS_OF_BYTES)))
def test_what_bytes_are_is_seen_by_their_beginning_wherever_that_breaks_off(said, data):
    tool, kind = HubInspectDatasetTool(), said.partition(" ")[0]
    assert tool._pictured(data) == said
    assert {tool._pictured(data[:cut]) for cut in range(120)} <= {"", kind, said}  # never a wrong number


def test_a_picture_that_never_comes_to_its_frame_takes_no_time():
    started = time.monotonic()
    assert HubInspectDatasetTool()._pictured(b"\xff\xd8" + b"\xff" * 20_000_000) == "JPEG"
    assert HubInspectDatasetTool()._pictured(b"\xff\xd8" + b"\xff\xe0\0\0" * 5_000_000) == "JPEG"
    assert time.monotonic() - started < 1


TEXT = "x" * 2_000_000


@pytest.mark.long
@pytest.mark.parametrize("kind", ["rows", "one row", "zeros"])
def test_a_small_parquet_that_unpacks_to_gigabytes_takes_no_memory(kind):
    """In a process of its own that may have two gigabytes, libraries included."""
    import pyarrow as arrow

    if kind == "zeros":
        data = parquet_of(
            arrow.table({"t": [bytes(60_000_000)]}), use_dictionary=False, compression="zstd", write_statistics=False
        )
    else:
        texts = arrow.DictionaryArray.from_arrays(arrow.array([0] * 20_000, arrow.int32()), arrow.array([TEXT]))
        column = texts if kind == "rows" else arrow.ListArray.from_arrays([0, 20_000], texts)
        data = parquet_of(arrow.table({"t": column}))
    assert len(data) < 200_000
    program = (
        "import io, resource, sys\nfrom ml_intern.tools import HubInspectDatasetTool\n"
        "import pyarrow, pyarrow.compute, pyarrow.parquet\n"
        "resource.setrlimit(resource.RLIMIT_AS, (2 << 30, 2 << 30))\n"
        "try:\n"
        f"    tool = HubInspectDatasetTool()\n    tool.most_unpacked //= {10 if kind == 'zeros' else 1}\n"
        "    found = tool._of_parquet(io.BytesIO(sys.stdin.buffer.read()), 'data/x.parquet', 20_000)\n"
        "    print(len(found['rows']), sum(len(row['t']) for row in found['rows']))\n"
        "except ValueError as error:\n    print(error)"
    )
    done = subprocess.run([sys.executable, "-c", program], input=data, capture_output=True, timeout=60, check=True)
    said = done.stdout.decode().strip()
    if kind == "rows":
        rows, size = map(int, said.split())
        assert rows > 1 and size <= 40_000_000
    else:
        assert said.startswith("data/x.parquet ") and len(said) < 300
        assert ("Use hub_download" in said) if kind == "one row" else ("unpacks to 60,000," in said)


LIAR = """
import io, resource, sys
import pyarrow, pyarrow.compute, pyarrow.parquet
from ml_intern.tools import HubInspectDatasetTool
resource.setrlimit(resource.RLIMIT_AS, (2 << 30, 2 << 30))
data, tool, huge = sys.stdin.buffer.read(), HubInspectDatasetTool(), bytes.fromhex("feffffff0f")
chunk = pyarrow.parquet.read_metadata(io.BytesIO(data)).row_group(0).column(0)
start = chunk.dictionary_page_offset or chunk.data_page_offset
for field in (2, 3, 0):  # what the page unpacks to, what it takes, and then each byte of its header
    for at in range(start, start + 40) if not field else [start + 2 if field == 2 else start + 3]:
        lie = data[:at] + (huge if field else bytes([data[at] ^ 0x55])) + data[at + (len(huge) if field else 1):]
        try:
            print("read", len(tool._of_parquet(io.BytesIO(lie), "data/x.parquet", 5000)["rows"]))
        except ValueError as error:
            print(error)
"""


@pytest.mark.long
@pytest.mark.parametrize("kind", [("none", "1.0"), ("zstd", "2.0")], ids="-".join)
def test_a_page_that_lies_about_itself_is_named_or_read_and_nothing_else(kind):
    """pyarrow itself bounds what a header may say: no page that claims two gigabytes gets them, in a process that has two."""
    import pyarrow as arrow

    table = arrow.table({"text": [f"Row {n} of many, {n * 7919}" for n in range(3000)]})
    data = parquet_of(table, compression=kind[0], data_page_version=kind[1], use_dictionary=False)
    done = subprocess.run([sys.executable, "-c", LIAR], input=data, capture_output=True, timeout=60, check=True)
    said = done.stdout.decode().splitlines()
    assert len(said) == 42
    assert all(one.startswith("data/x.parquet ") and len(one) < 350 for one in said if one != "read 3000"), said
    assert all(one.startswith("data/x.parquet cannot be read as Parquet: ") for one in said[:2])
    assert done.stderr == b""


MEASURED = """
import io, resource, sys
import pyarrow, pyarrow.compute, pyarrow.parquet
from ml_intern.tools import HubInspectDatasetTool
data, tool = sys.stdin.buffer.read(), HubInspectDatasetTool()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    print("read", len(tool._of_parquet(io.BytesIO(data), "data/x.parquet", 5000)["rows"]))
except ValueError as error:
    print(error)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


def varint(number, width=0):
    """A number of Thrift's compact protocol, in so many bytes."""
    found, number = b"", 2 * number
    while number >= 128 or len(found) + 1 < width:
        found, number = found + bytes([number & 127 | 128]), number >> 7
    return found + bytes([number])


@pytest.mark.long
@pytest.mark.parametrize("rows", [1, 40])
def test_a_footer_that_says_less_than_its_pages_is_refused_before_they_are_unpacked(rows):
    import pyarrow as arrow
    from pyarrow import parquet

    table = arrow.table({"t": [bytes(300_000_000 // rows)] * rows})
    data = parquet_of(table, use_dictionary=False, compression="zstd", write_statistics=False, data_page_size=1)
    chunk = parquet.read_metadata(io.BytesIO(data)).row_group(0).column(0)
    footer = len(data) - 8 - int.from_bytes(data[-8:-4], "little")
    size = varint(chunk.total_uncompressed_size)
    lie = data[:footer] + data[footer:].replace(size, varint(9000, len(size)))
    assert len(lie) == len(data) < 20_000
    assert parquet.read_metadata(io.BytesIO(lie)).row_group(0).total_byte_size == 9000
    done = subprocess.run([sys.executable, "-c", MEASURED], input=lie, capture_output=True, timeout=60, check=True)
    said, grown = done.stdout.decode().splitlines()
    assert "its footer says 9,000 bytes where its pages say " in said and len(said) < 300
    assert int(grown) < 50


@pytest.mark.parametrize("version", ["1.0", "2.0"])
@pytest.mark.parametrize("codec", ["none", "zstd", "snappy"])
def test_headers_of_pages_are_read_as_they_are_written(codec, version):
    """With and without dictionaries, statistics and checksums: together they take what the footer says."""
    import pyarrow as arrow
    from pyarrow import parquet

    texts = [f"Row {n} of many" if n % 7 else None for n in range(3000)]
    table = arrow.table({"text": texts, "n": range(3000), "parts": [[n, n] for n in range(3000)]})
    for told in (True, False):
        options = {
            "write_statistics": told,
            "use_dictionary": told,
            "write_page_checksum": told,
            "data_page_size": 3000,
        }
        data = parquet_of(table, compression=codec, data_page_version=version, row_group_size=900, **options)
        about, tool = parquet.read_metadata(io.BytesIO(data)), HubInspectDatasetTool()
        for number in range(about.num_row_groups * about.num_columns):
            chunk = about.row_group(number // about.num_columns).column(number % about.num_columns)
            at = chunk.dictionary_page_offset if chunk.has_dictionary_page else chunk.data_page_offset
            end, total = at + chunk.total_compressed_size, 0
            while at < end:
                size, packed, unpacked = tool._page(data[at:end])
                assert tool._page(data[at : at + size - 1]) == (0, 0, 0)  # it breaks off
                at, total = at + size + packed, total + size + unpacked
            assert (at, total) == (end, chunk.total_uncompressed_size)


class Counted(io.BytesIO):
    """A file that says how much of it was read."""

    fetched = 0

    def read(self, size=-1):
        data = super().read(size)
        self.fetched += len(data)
        return data


@pytest.mark.long
@pytest.mark.parametrize(("groups", "labels", "spread"), [(1, {0}, False), (2, {0, 1}, False), (40, {0, 1}, True)])
def test_rows_of_large_parquet_come_from_all_of_its_row_groups(groups, labels, spread):
    """Never: a table that is sorted by its label passes for one of a single label, or a beginning for a sample of all."""
    import pyarrow as arrow

    rows = 45_000
    texts = [random.Random(n).randbytes(500).hex() for n in range(rows)]
    table = arrow.table({"text": texts, "label": [int(n >= rows // 2) for n in range(rows)]})
    file = Counted(parquet_of(table, row_group_size=-(-rows // groups), compression="none", use_dictionary=False))
    size = file.getbuffer().nbytes
    found = HubInspectDatasetTool()._of_parquet(file, "x.parquet", 5_000)
    assert {row["label"] for row in found["rows"]} == labels and found["spread"] is spread
    assert size > 40_000_000 and file.fetched < size and found["total"] == rows
    assert len(found["rows"]) == 5_000
    if groups == 1:  # of a column the pages that are needed, not all of them
        assert file.fetched < size / 4


def test_a_damaged_file_is_named_and_left_out(hub, monkeypatch):
    import pyarrow as arrow

    monkeypatch.delenv("HF_DATASETS_SERVER")
    good = parquet_of(arrow.table({"text": [f"Row {n} of many" for n in range(90)], "label": [0, 1, 1] * 30}))
    files = {"README.md": CARD, "data/train-0.parquet": good, "data/train-1.parquet": good[:-40]}
    hub.seed("acme/data", "dataset", files)
    found = inspect()
    assert found["rows_examined"] == {"train": 90} and not found["all_rows_examined"]
    assert "data/train-1.parquet cannot be read as Parquet" in " ".join(found["notes"])
    hub.seed("acme/bad", "dataset", {"README.md": CARD, "train.parquet": b"PAR1" + bytes(50)})
    with pytest.raises(ValueError, match=r"train.parquet cannot be read as Parquet: .*damaged"):
        inspect("acme/bad")


@pytest.mark.long
def test_large_parquet_is_read_by_ranges(hub, monkeypatch):
    import pyarrow as arrow
    from pyarrow import parquet

    monkeypatch.delenv("HF_DATASETS_SERVER")
    rows, target = 40_000, io.BytesIO()
    text = [f"{i} " + "".join(chr(97 + (i * k) % 26) for k in range(1, 900)) for i in range(rows)]
    table = arrow.table({"text": text, "label": [int(i >= rows // 2) for i in range(rows)]})
    parquet.write_table(table, target, row_group_size=1000, compression="none", use_dictionary=False)
    hub.seed("acme/data", "dataset", {"README.md": CARD, "train.parquet": target.getvalue()})
    hub.requests.clear()
    found = inspect()
    assert set(found["columns"]["label"]["labels"]) == {"0", "1"}  # not the beginning alone
    assert found["all_rows_examined"] is False
    assert {part["split"]: part["rows"] for part in found["splits"]} == {"train": rows}  # its footer says so
    assert "spread over each" in " ".join(found["notes"])
    assert [one for one in hub.requests if one.headers.get("range")]


@pytest.mark.parametrize("seed", range(6))
def test_pieces_hold_whole_rows_each_once_and_in_order(hub, seed):
    """Cut at random places of files of random lengths: no half row, none twice, none of another file's columns."""
    chance = random.Random(seed)
    kind = chance.choice(("jsonl", "csv"))
    files, rows = {}, []
    for part in range(chance.randint(1, 4)):
        some = [{"n": len(rows) + k, "text": "äx, " * chance.randint(0, 40)} for k in range(chance.randint(20, 200))]
        rows += some
        body = lines(some) if kind == "jsonl" else ("n,text\n" + "".join(f'{r["n"]},"{r["text"]}"\n' for r in some))
        files[f"train/{part}.{kind}"] = body if isinstance(body, bytes) else body.encode()
    hub.seed("acme/data", "dataset", files)
    info = HfApi(endpoint=hub.url).dataset_info("acme/data", files_metadata=True)
    sizes = {path: len(content) for path, content in files.items()}
    length = sum(sizes.values()) // 12
    found = HubInspectDatasetTool()._pieces(info, list(files), sizes, length, 10**6)
    numbers = [row["n"] for row in found]
    assert numbers == sorted(set(numbers))
    assert len(numbers) > len(rows) / 4
    assert all((row["text"] or "") == rows[row["n"]]["text"] for row in found)


def test_tokens_are_estimated_or_counted_by_a_tokenizer(hub):
    import tokenizers

    put(hub, many(lambda i: {"text": f"word word {i} 你好", "messages": talk(i)}))
    columns = inspect()["columns"]
    assert columns["text"]["tokens"] == {"median": 5.0, "p95": 5, "max": 5}
    assert columns["messages"]["tokens"]["median"] == 8
    assert columns["messages"]["turns"] == {"median": 2.0, "max": 2}
    made = tokenizers.Tokenizer(tokenizers.models.WordLevel({"[UNK]": 0}, unk_token="[UNK]"))
    made.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    hub.seed("acme/model", "model", {"tokenizer.json": made.to_str().encode()})
    found = inspect(tokenizer="acme/model")
    assert found["columns"]["text"]["tokens"] == {"median": 4.0, "p95": 4, "max": 4}
    assert "Tokens are counted by the tokenizer of acme/model" in " ".join(found["notes"])
    found = inspect(tokenizer="acme/none")
    assert found["columns"]["text"]["tokens"]["median"] == 5
    assert "Tokens are estimated: The Hub" in " ".join(found["notes"])


def test_what_a_viewer_could_not_say_for_the_moment_is_asked_again(hub):
    put(hub, KINDS["reviews"][0])
    failure = hub.fail("/datasets-server/", **NOT_READY, times=None)
    tool = HubInspectDatasetTool()
    assert tool("acme/data")["source"] == "files"
    failure.times = 0
    assert tool("acme/data")["source"] == "viewer"


def test_what_was_looked_at_before_is_not_fetched_again_until_a_commit(hub, monkeypatch):
    put(hub, KINDS["reviews"][0])
    tool, now = HubInspectDatasetTool(), time.time()
    first = tool("acme/data")
    first["warnings"].append("x")
    hub.requests.clear()
    assert tool("acme/data")["warnings"] == []
    assert HubInspectDatasetTool()("acme/data")["warnings"] == []  # another process finds it on disk as well
    assert hub.requests == []
    monkeypatch.setattr(time, "time", lambda: now + 61)
    tool("acme/data")
    assert [one.path.partition("?")[0] for one in hub.requests] == ["/api/datasets/acme/data"]
    put(hub, KINDS["reviews"][0][:50])
    monkeypatch.setattr(time, "time", lambda: now + 122)
    assert tool("acme/data")["rows_examined"] == {"train": 50}
