"""hub_list_files against a local Hub: what there is at a commit, in pages, with totals that leave nothing out unsaid."""

import json
import time

import pytest
from huggingface_hub import HfApi
from jsonschema import validate
from ml_intern.tools import HubListFilesTool
from saving import assert_survives_saving

FILES = {
    "README.md": b"# M\n",
    "config.json": b"{}",
    "model.safetensors": b"0" * 1000,
    "data/a.csv": b"a,b\n1,2\n",
    "data/deep/b.csv": b"c\n",
    "data/deep/er/c.txt": b"x",
}


@pytest.fixture
def files(hub):
    hub.seed("acme/m", "model", FILES)
    hub.requests.clear()
    return hub


@pytest.fixture
def tool(files):
    return HubListFilesTool()


def paths(answer):
    return [row["path"] for row in answer["entries"]]


def test_all_files_at_one_commit(files, tool):
    answer = tool(repo_id="acme/m")
    validate(answer, HubListFilesTool.output_schema)
    assert answer["revision"] == files.store.find("model", "acme/m").refs["refs/heads/main"]
    assert paths(answer) == sorted([".gitattributes", *FILES])
    rows = {row["path"]: row for row in answer["entries"]}
    assert rows["model.safetensors"] == {"path": "model.safetensors", "size": 1000, "lfs": True}
    assert rows["config.json"] == {"path": "config.json", "size": 2, "lfs": False}
    assert answer["files"] == 7
    assert answer["bytes"] == sum(row["size"] for row in answer["entries"])
    assert next(iter(answer["by_suffix"].items())) == ("(none)", [1, rows[".gitattributes"]["size"]])
    assert answer["by_suffix"][".csv"] == [2, 10]
    assert (answer["complete"], answer["next_start"], answer["private"], answer["gated"]) == (True, None, False, False)
    assert len(files.requests) == 2


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"pattern": "*.csv"}, ["data/a.csv", "data/deep/b.csv"]),
        ({"pattern": "data/*.csv"}, ["data/a.csv"]),
        ({"pattern": "data/**/*.csv"}, ["data/a.csv", "data/deep/b.csv"]),
        ({"pattern": "**/c.txt"}, ["data/deep/er/c.txt"]),
        ({"pattern": "data/deep/**"}, ["data/deep/b.csv", "data/deep/er/c.txt"]),
        ({"pattern": "data/deep/"}, ["data/deep/b.csv", "data/deep/er/c.txt"]),
        ({"folder": "data/deep"}, ["data/deep/b.csv", "data/deep/er/c.txt"]),
        ({"folder": "/data/", "pattern": "deep/*"}, ["data/deep/b.csv"]),
        ({"folder": "data", "recursive": False}, ["data/a.csv", "data/deep"]),
        ({"pattern": "[rc]*.*", "recursive": False}, ["config.json"]),
        ({"pattern": "nothing"}, []),
    ],
)
def test_a_part_of_them(tool, arguments, expected):
    answer = tool(repo_id="acme/m", **arguments)
    assert paths(answer) == expected
    assert answer["files"] == len([path for path in expected if path != "data/deep"])
    assert ("hint" in answer) is not bool(expected)


def test_pages_add_up(tool):
    seen, start = [], 0
    while start is not None:
        answer = tool(repo_id="acme/m", limit=3, start=start)
        assert answer["files"] == 7
        seen += paths(answer)
        start = answer["next_start"]
    assert seen == paths(tool(repo_id="acme/m"))


def test_details_are_asked_for_what_is_shown_only(files, tool):
    sha = files.store.find("model", "acme/m").refs["refs/heads/main"]
    files.seed("acme/m", "model", {"config.json": b'{"a": 1}'}, message="Say a")
    answer = tool(repo_id="acme/m", pattern="*.safetensors", details=True)
    (row,) = answer["entries"]
    assert row["last_commit"]["id"] == sha
    assert (len(row["sha256"]), row["scan"]) == (64, "unscanned")
    assert tool(repo_id="acme/m", pattern="config.json", details=True)["entries"][0]["last_commit"]["title"] == "Say a"
    assert [request.method for request in files.requests] == ["GET", "GET", "POST", "POST"]


def test_thousands_of_files_come_in_pages_of_the_hub(files, tool, monkeypatch):
    files.seed("acme/many", "dataset", {f"shard/{number:05}.json": b"1" for number in range(2500)})
    answer = tool(repo_id="acme/many", repo_type="dataset", limit=2)
    assert (answer["files"], answer["complete"]) == (2501, True)
    bare = HfApi(endpoint=files.url, token=files.token).list_repo_tree(
        "acme/many", repo_type="dataset", recursive=True
    )
    assert sum(1 for one in bare if hasattr(one, "size")) == 2501
    monkeypatch.setattr(HubListFilesTool, "most_pages", 1)
    answer = HubListFilesTool()(repo_id="acme/many", repo_type="dataset", limit=2)
    assert (answer["complete"], answer["files"]) == (False, 999)
    assert "more than 1,000 entries" in answer["hint"]


def test_revisions_and_kinds(files, tool):
    api = HfApi(endpoint=files.url, token=files.token)
    files.seed("tester/d", "dataset", {"a.csv": b"1"}, private=True)
    api.create_tag("tester/d", tag="v1/first", repo_type="dataset")
    files.seed("tester/d", "dataset", {"b.csv": b"2"})
    assert "b.csv" not in paths(tool(repo_id="tester/d", repo_type="dataset", revision="v1/first"))
    answer = tool(repo_id="tester/d", repo_type="dataset")
    assert "b.csv" in paths(answer)
    assert answer["private"] is True
    files.seed("acme/app", "space", {"app.py": b"1"}, sdk="gradio")
    assert "app.py" in paths(tool(repo_id="acme/app", repo_type="space"))
    files.seed("acme/gated", "model", {"w.bin": b"1"}, gated="manual")
    assert tool(repo_id="acme/gated")["gated"] is True


def test_the_cursor_of_another_address_leads_to_no_other_address(files, tool):
    """Mirrors of the Hub give the Hub's own address for the next page; the token goes along with the request."""
    rows = json.dumps([{"type": "file", "path": "a", "size": 1, "oid": "0"}])
    link = {"Link": '<https://huggingface.example/api/x?cursor=2>; rel="next"', "content-type": "application/json"}
    files.fail("/tree/", status=200, headers=link, body=rows)
    assert paths(tool(repo_id="acme/m"))[0] == "a"
    assert "cursor=2" in files.requests[-1].path


def test_repeated_calls_come_from_the_cache_and_a_push_is_seen(files, tool, monkeypatch):
    first = tool(repo_id="acme/m")
    asked, started = len(files.requests), time.monotonic()
    for _ in range(20):
        assert tool(repo_id="acme/m") == first
    assert (time.monotonic() - started) / 20 < 0.005
    assert len(files.requests) == asked
    files.seed("acme/m", "model", {"new.txt": b"1"})
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 11)
    assert "new.txt" in paths(tool(repo_id="acme/m"))


def test_another_token_does_not_see_what_the_first_saw(files, tool, monkeypatch):
    files.seed("tester/own", "model", {"w.txt": b"1"}, private=True)
    assert tool(repo_id="tester/own")
    monkeypatch.setenv("HF_TOKEN", "hf_other_token")
    with pytest.raises(FileNotFoundError, match="private"):
        tool(repo_id="tester/own")


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"repo_type": "kernel"}, "repo_type"),
        ({"limit": 0}, "limit"),
        ({"limit": True}, "limit"),
        ({"start": -1}, "start"),
    ],
)
def test_wrong_arguments(tool, arguments, error):
    with pytest.raises(ValueError, match=error):
        tool(repo_id="acme/m", **arguments)


def test_what_is_not_there(tool):
    with pytest.raises(FileNotFoundError, match="acme/none"):
        tool(repo_id="acme/none")
    with pytest.raises(FileNotFoundError, match="`revision`"):
        tool(repo_id="acme/m", revision="v9")
    with pytest.raises(FileNotFoundError, match="in nowhere"):
        tool(repo_id="acme/m", folder="nowhere")


def test_it_survives_saving(files):
    call = {"repo_id": "acme/m", "pattern": "data/**/*.csv", "details": True}
    found = assert_survives_saving(HubListFilesTool, "huggingface_hub", call=call, environment=files.environment())
    assert [row["path"] for row in found["entries"]] == ["data/a.csv", "data/deep/b.csv"]
