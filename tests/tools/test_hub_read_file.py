"""hub_read_file against a local Hub: lines by ranges, notebooks as code, binary files as what they are."""

import io
import json
import pickle
import struct
import time
import zipfile

import pytest
from huggingface_hub import HfApi
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import validate
from ml_intern.tools import HubReadFileTool
from saving import assert_survives_saving

ROWS = [json.dumps({"text": f"row {number} of many", "label": number % 2}) for number in range(60_000)]
BIG = ("\n".join(ROWS) + "\n").encode()
NOTEBOOK = {
    "cells": [
        {"cell_type": "markdown", "source": ["# Train\n", "Words."]},
        {
            "cell_type": "code",
            "source": "print('hi')\n",
            "outputs": [
                {"output_type": "stream", "name": "stdout", "text": ["hi\n"]},
                {"output_type": "display_data", "data": {"image/png": "A" * 5000, "text/plain": ["<Figure>"]}},
                {"output_type": "error", "ename": "ValueError", "evalue": "no", "traceback": ["long"]},
            ],
        },
    ]
}


class Trap:
    """Runs code when it is unpickled."""

    def __reduce__(self):
        return (open, ("/nonexistent/unpickled", "w"))


@pytest.fixture
def read(hub):
    header = {"__metadata__": {"format": "pt"}, "w": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}}
    header["b"] = {"dtype": "BF16", "shape": [4], "data_offsets": [24, 32]}
    head = json.dumps(header).encode()
    torch = io.BytesIO()
    with zipfile.ZipFile(torch, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(Trap()))
    files = {
        "train.py": b"import os\r\nx = 1\n\nprint(x)",
        "data/train.jsonl": BIG,
        "data/t.csv": "name,größe\nä,1\n".encode(),
        "latin.csv": "name,größe\nä,1\n".encode("latin-1"),
        "wide.txt": "hé\n".encode("utf-16"),
        "bom.txt": b"\xef\xbb\xbfhello\n",
        "n.ipynb": json.dumps(NOTEBOOK).encode(),
        "broken.ipynb": b'{"cells": [',
        "vocab.json": json.dumps({"vocab": [f"token{number}" for number in range(3000)]}).encode(),
        "long.txt": b"a" * 9000 + b"\nend\n",
        "empty.txt": b"",
        "w.safetensors": struct.pack("<Q", len(head)) + head + b"0" * 32,
        "bad.safetensors": struct.pack("<Q", 1 << 40) + b"{" + b"0" * 50,
        "old.pkl": pickle.dumps(Trap(), protocol=0),
        "model.bin": torch.getvalue(),
        "legacy.pt": pickle.dumps(Trap()),
        "t.parquet": b"PAR1" + b"0" * 90,
        "p.png": b"\x89PNG\r\n\x1a\n" + bytes(90),
        "other.dat": bytes(range(256)),
    }
    hub.seed("acme/m", "model", files)
    hub.requests.clear()
    tool = HubReadFileTool()
    return lambda path, **more: tool(**{"repo_id": "acme/m", "path": path, **more})


def test_a_file_as_it_is(read, hub):
    answer = read("train.py")
    validate(answer, HubReadFileTool.output_schema)
    sha = hub.store.find("model", "acme/m").refs["refs/heads/main"]
    assert answer == {
        "path": "train.py",
        "revision": sha,
        "size": 26,
        "kind": "text",
        "text": "import os\nx = 1\n\nprint(x)",
        "from_line": 1,
        "to_line": 4,
        "next_line": None,
        "lines": 4,
    }
    assert (read("train.py", from_line=2, to_line=3)["text"], len(hub.requests)) == ("x = 1\n", 1)


def test_consecutive_parts_lose_nothing(read):
    seen, line, calls = [], 1, 0
    while line is not None and calls < 40:
        answer = read("data/train.jsonl", from_line=line)
        assert len(answer["text"]) <= HubReadFileTool.most_characters
        assert answer["from_line"] == line
        assert answer["to_line"] == line + answer["text"].count("\n")
        seen += answer["text"].split("\n")
        line, calls = answer["next_line"], calls + 1
    assert seen == ROWS[: len(seen)]
    assert len(seen) > 15_000


def test_the_head_of_a_large_file_does_not_fetch_the_rest(read, hub):
    answer = read("data/train.jsonl", to_line=5)
    assert (answer["kind"], answer["columns"], answer["size"]) == ("table", ["text", "label"], len(BIG))
    assert (answer["text"].split("\n"), answer["next_line"], answer["lines"]) == (ROWS[:5], 6, None)
    assert [request.headers["range"] for request in hub.requests] == ["bytes=0-131071"]


def test_the_last_lines_of_a_large_file_do_not_fetch_what_is_before(read, hub):
    answer = read("data/train.jsonl", from_line=-3)
    assert answer["text"].split("\n") == ROWS[-3:]
    assert (answer["from_line"], answer["next_line"], answer["lines"]) == (None, None, None)
    assert len(hub.requests) == 2
    assert hub.requests[-1].headers["range"] == f"bytes={len(BIG) - 131072}-{len(BIG) - 1}"
    many = read("data/train.jsonl", from_line=-5000)
    assert many["text"].endswith(ROWS[-1])
    assert "the last" in many["hint"]
    assert read("train.py", from_line=-1)["text"] == "print(x)"


def test_a_line_far_in(read):
    answer = read("data/train.jsonl", from_line=50_000, to_line=50_001)
    assert answer["text"].split("\n") == ROWS[49_999:50_001]
    with pytest.raises(ValueError, match="it has 60,000 lines"):
        read("data/train.jsonl", from_line=60_001)


def test_a_file_that_goes_on_says_so(read, monkeypatch):
    monkeypatch.setattr(HubReadFileTool, "most_bytes", 400_000)
    answer = read("data/train.jsonl", from_line=9000)
    while answer["next_line"] and "hint" not in answer:
        answer = read("data/train.jsonl", from_line=answer["next_line"])
    assert "hub_download" in answer["hint"]
    assert f"Of its {len(BIG):,} bytes" in answer["hint"]
    with pytest.raises(ValueError, match="lines were fetched"):
        read("data/train.jsonl", from_line=40_000)


def test_a_hub_without_ranges_is_not_read_to_the_end(read, hub):
    """Content that begins at 0 whatever was asked for: taken as far as wanted, no further."""
    sha = hub.store.find("model", "acme/m").refs["refs/heads/main"]
    hub.fail("train.jsonl", status=200, headers={"X-Repo-Commit": sha}, body=BIG, times=None)
    answer = read("data/train.jsonl", from_line=3000, to_line=3000)
    assert (answer["text"], answer["size"]) == (ROWS[2999], len(BIG))
    with pytest.raises(ConnectionError, match="gives no ranges"):
        read("data/train.jsonl", from_line=-2)


@pytest.mark.parametrize(
    ("path", "text", "warning"),
    [
        ("data/t.csv", "name,größe\nä,1", None),
        ("latin.csv", "name,größe\nä,1", "Latin-1"),
        ("wide.txt", "hé", None),
        ("bom.txt", "hello", None),
        ("empty.txt", "", None),
    ],
)
def test_letters(read, path, text, warning):
    answer = read(path)
    assert answer["text"] == text
    assert (warning is None) is ("warnings" not in answer)
    if path.endswith("csv"):
        assert answer["columns"] == ["name", "größe"]


def test_a_notebook_is_shown_as_code(read):
    answer = read("n.ipynb")
    assert answer["kind"] == "notebook"
    said = "# %% [markdown] 1\n# Train\nWords.\n\n# %% [code] 2\nprint('hi')\n#> hi\n#> <Figure>\n#> [image/png]"
    assert answer["text"] == said + "\n#> ValueError: no\n"
    assert (read("broken.ipynb")["kind"], read("broken.ipynb")["text"]) == ("text", '{"cells": [')


def test_json_on_one_line_is_indented_and_long_lines_are_cut(read):
    answer = read("vocab.json", from_line=2, to_line=3)
    assert answer["text"] == ' "vocab": [\n  "token0",'
    assert "indented anew" in answer["warnings"][0]
    answer = read("long.txt")
    assert answer["text"] == "a" * 4000 + "… [5,000 more]\nend"
    assert "1 lines were cut" in answer["warnings"][0]


@pytest.mark.parametrize(
    ("path", "format", "said"),
    [
        ("old.pkl", "pickle", "runs code"),
        ("legacy.pt", "pickle", "runs code"),
        ("model.bin", "pickle in a zip archive (PyTorch)", "runs code"),
        ("t.parquet", "Parquet", "hub_inspect_dataset"),
        ("p.png", "PNG image", "hub_download"),
        ("other.dat", "binary (.dat)", "hub_download"),
        ("bad.safetensors", "safetensors", "damaged"),
    ],
)
def test_what_is_no_text_is_named_and_never_decoded(read, path, format, said):
    answer = read(path)
    validate(answer, HubReadFileTool.output_schema)
    assert (answer["kind"], answer["format"]) == ("binary", format)
    assert said in answer["hint"]
    assert "text" not in answer


def test_tensors_of_a_file_by_its_header(read, hub):
    answer = read("w.safetensors")
    assert answer["tensors"] == {
        "count": 2,
        "parameters": 10,
        "dtypes": {"F32": 6, "BF16": 4},
        "first": {"w": ["F32", [2, 3]], "b": ["BF16", [4]]},
    }
    assert not [request for request in hub.requests if "authorization" in request.headers and "/cdn/" in request.path]
    assert [request for request in hub.requests if "/cdn/" in request.path]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 9000), max_size=40), st.integers(1, 40))
def test_parts_cover_everything_once_whatever_the_lines(lengths, first):
    lines = [f"{number}:" + "x" * length for number, length in enumerate(lengths)]
    tool, seen, line = HubReadFileTool(), [], first
    while line is not None and line <= len(lines):
        part = tool._part(lines, line, None, True)
        text = part["text"].split("\n")
        assert (part["from_line"], part["to_line"]) == (line, line + len(text) - 1)
        assert len(part["text"]) <= max(tool.most_characters, tool.most_of_a_line + 40)
        seen += text
        line = part["next_line"]
    assert [one.split(":")[0] for one in seen] == [str(number) for number in range(len(lines))][first - 1 :]


def test_a_push_is_seen_and_a_commit_stays(read, hub, monkeypatch):
    old = read("train.py")["revision"]
    hub.seed("acme/m", "model", {"train.py": b"y = 2\n"})
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 11)
    assert read("train.py")["text"] == "y = 2"
    assert read("train.py", revision=old)["text"].startswith("import os")
    api = HfApi(endpoint=hub.url, token=hub.token)
    hub.seed("tester/d", "dataset", {"a b.csv": b"1\n"}, private=True)
    api.create_tag("tester/d", tag="v1/x", repo_type="dataset")
    about = {"repo_id": "tester/d", "repo_type": "dataset", "revision": "v1/x"}
    assert read("a b.csv", **about)["text"] == "1"


def test_repeated_calls_come_from_memory(read, hub):
    first, started = read("train.py"), time.monotonic()
    for _ in range(20):
        assert read("train.py") == first
    assert (time.monotonic() - started) / 20 < 0.005
    assert len(hub.requests) == 1


def test_another_token_does_not_read_what_the_first_read(read, hub, monkeypatch):
    hub.seed("tester/own", "model", {"a.txt": b"secret"}, private=True)
    assert read("a.txt", repo_id="tester/own")["text"] == "secret"
    monkeypatch.setenv("HF_TOKEN", "hf_other_token")
    with pytest.raises(FileNotFoundError, match="private"):
        read("a.txt", repo_id="tester/own")
    hub.seed("acme/gated", "model", {"a.txt": b"1"}, gated="manual")
    with pytest.raises(PermissionError, match="Accept its conditions"):
        read("a.txt", repo_id="acme/gated")


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"repo_type": "kernel"}, "repo_type"),
        ({"path": "../x"}, "path"),
        ({"path": ""}, "path"),
        ({"from_line": 0}, "from_line"),
        ({"from_line": True}, "from_line"),
        ({"from_line": 3, "to_line": 2}, "to_line"),
    ],
)
def test_wrong_arguments(read, arguments, error):
    with pytest.raises(ValueError, match=error):
        read(**{"path": "train.py", **arguments})


def test_what_is_not_there(read):
    with pytest.raises(FileNotFoundError, match=r"nope\.txt of model acme/m"):
        read("nope.txt")
    with pytest.raises(FileNotFoundError, match="`revision`"):
        read("train.py", revision="v9")
    with pytest.raises(FileNotFoundError, match="acme/none"):
        read("train.py", repo_id="acme/none")


@pytest.mark.long
def test_it_survives_saving(read, hub):
    call = {"repo_id": "acme/m", "path": "n.ipynb"}
    found = assert_survives_saving(HubReadFileTool, "huggingface_hub", call=call, environment=hub.environment())
    assert found["kind"] == "notebook"
