"""github_code against a local GitHub: examples by their paths or text, files, limits, ETags, renames, failures."""

import json
import socket
import time

import pytest
from jsonschema import validate
from ml_intern.tools import GithubCodeTool
from saving import assert_survives_saving
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route

from ml_intern.testing import LocalGithub, Service

NOTEBOOK = {"cells": [{"cell_type": "code", "source": "print(1)", "outputs": []}]}
FILES = {
    "README.md": b"# Trainers\n",
    "setup.py": b"setup()\n",
    "docs/source/grpo.md": b"# GRPO\n",
    "examples/__init__.py": b"",
    "examples/scripts/sft.py": b"import trainers\n# packing=True\n",
    "examples/scripts/grpo_vllm.py": b"import vllm\n",
    "examples/notebooks/sft_finetuning.ipynb": json.dumps(NOTEBOOK).encode(),
    "recipes/dpo/config.yaml": b"beta: 0.1\n",
    "tests/test_grpo.py": b"def test(): ...\n",
    "trainers/grpo_trainer.py": b"class GRPOTrainer: ...\n",
    "trainers/utils.py": b"\n".join(b"line %d" % number for number in range(5000)),
    "data/large.txt": b"a line of text\n" * 100_000,
    "logo.png": b"\x89PNG\r\n\x1a\n" + bytes(90),
    "weights.pt": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n",
}
HTML = {"status": 200, "headers": {"content-type": "text/html"}, "body": "<html>Please log in</html>"}


@pytest.fixture(scope="module")
def running():
    with LocalGithub() as service:
        yield service


@pytest.fixture
def github(running, monkeypatch, tmp_path):
    for name in ("GITHUB_TOKEN", "GH_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("GITHUB_API_URL", running.url)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    running.repos.clear()
    running._moved.clear()
    running.used.clear()
    running.limit = 60
    about = {"description": "Train language models", "stars": 9000, "topics": ["rlhf"]}
    running.add("acme/trainers", FILES, **about)
    running.add("acme/trainers", {"examples/scripts/sft.py": b"old = True\n"}, ref="v0.1/first")
    running.add("acme/adapters", {"examples/lora.py": b"lora = 1\n"}, stars=500, description="LoRA and others")
    running.add("acme/site", {"index.html": b"<html>"}, stars=3)
    running.add("acme/hidden", {"examples/secret.py": b"1"}, private=True, stars=1)
    running.add("acme/empty", {})
    running.requests.clear()
    running._failures.clear()
    return running


@pytest.fixture
def tool(github):
    return GithubCodeTool()


def paths(answer):
    return [row["path"] for row in answer["results"]]


class TestFinding:
    def test_examples_come_first_and_source_is_left_out(self, github, tool):
        answer = tool(operation="find", repo="acme/trainers")
        validate(answer, GithubCodeTool.output_schema)
        assert paths(answer)[0] == "examples/notebooks/sft_finetuning.ipynb"
        assert set(paths(answer)) >= {"examples/scripts/sft.py", "recipes/dpo/config.yaml"}
        assert not {"tests/test_grpo.py", "trainers/utils.py", "setup.py", "examples/__init__.py"} & set(paths(answer))
        assert answer["results"][1]["url"].startswith("https://github.com/acme/trainers/blob/main/examples/")
        assert answer["complete"] is True
        assert answer["requests_left"] == 58
        assert len(github.requests) == 2

    @pytest.mark.parametrize(
        ("query", "first"),
        [
            ("grpo", "examples/scripts/grpo_vllm.py"),
            ("GRPO with vLLM", "examples/scripts/grpo_vllm.py"),
            ("fine-tuning", "examples/notebooks/sft_finetuning.ipynb"),
            ("dpo config", "recipes/dpo/config.yaml"),
            ("grpo trainer", "trainers/grpo_trainer.py"),
        ],
    )
    def test_words_in_paths(self, tool, query, first):
        answer = tool(operation="find", repo="acme/trainers", query=query)
        assert paths(answer)[0] == first
        assert answer["results"][0]["matched"]

    def test_a_whole_word_counts_more_than_a_part_of_one(self, github, tool):
        names = ("adalora_with_dora/run_glue.py", "bdlora/chat.py", "lora_dpo/train.py", "alora/alora_finetuning.py")
        github.add("acme/peft", {f"examples/{name}": b"1" for name in names} | {"src/lora.py": b"1"})
        assert paths(tool(operation="find", repo="acme/peft", query="lora"))[0] == "examples/lora_dpo/train.py"

    def test_words_that_no_path_has(self, tool):
        answer = tool(operation="find", repo="acme/trainers", query="quantization")
        assert "None of 14 paths has a word of 'quantization'" in answer["hint"]
        assert "GITHUB_TOKEN" in answer["hint"]
        assert paths(answer)[0] == "examples/notebooks/sft_finetuning.ipynb"

    def test_with_a_token_the_text_is_searched(self, github, tool, monkeypatch):
        monkeypatch.setenv("GITHUB_TOKEN", "local-github-token")
        (found,) = tool(operation="find", repo="acme/trainers", query="packing")["results"]
        assert (found["path"], found["excerpt"]) == ("examples/scripts/sft.py", "import trainers # packing=True")
        github.fail(
            "/search/code", status=403, headers={"retry-after": "60"}, body={"message": "secondary rate limit"}
        )
        answer = GithubCodeTool()(operation="find", repo="acme/trainers", query="dpo")
        assert paths(answer) == ["recipes/dpo/config.yaml"]
        assert "The text of files was not searched" in answer["warnings"][0]

    def test_in_an_organization(self, github, tool):
        answer = tool(operation="find", owner="acme", query="lora")
        assert [(row["repo"], row["path"]) for row in answer["results"]] == [("acme/adapters", "examples/lora.py")]
        assert "Looked in acme/adapters only" in answer["warnings"][0]
        github.repos["acme/empty"].stars = 8000
        answer = tool(operation="find", owner="acme", query="grpo vllm")
        assert answer["results"][0]["repo"] == "acme/trainers"
        assert "acme/empty" in answer["warnings"][1]

    def test_a_listing_that_was_cut_says_so(self, github, tool):
        github.repos["acme/trainers"].truncated = 5
        answer = tool(operation="find", repo="acme/trainers", query="sft")
        assert answer["complete"] is False
        assert "only a part" in answer["hint"]

    def test_below_a_folder_and_at_a_ref(self, tool):
        assert paths(tool(operation="find", repo="acme/trainers", path="recipes")) == ["recipes/dpo/config.yaml"]
        answer = tool(operation="find", repo="acme/trainers", ref="v0.1/first")
        assert paths(answer) == ["examples/scripts/sft.py"]

    def test_repositories_of_an_owner(self, tool):
        answer = tool(operation="repositories", owner="acme", limit=2)
        assert [(row["repo"], row["stars"]) for row in answer["repositories"]] == [
            ("acme/trainers", 9000),
            ("acme/adapters", 500),
        ]
        assert answer["total"] == 4
        assert tool(operation="repositories", owner="acme", query="rlhf")["repositories"][0]["repo"] == "acme/trainers"
        with pytest.raises(FileNotFoundError, match="knows no owner 'nobody'"):
            tool(operation="repositories", owner="nobody")


def cut(*items):
    return {"status": 200, "body": {"total_count": 700, "incomplete_results": True, "items": list(items)}}


class TestSearchesThatGithubGaveUp:
    """It answers 200 with what it has by then, which may be nothing."""

    def test_repositories(self, github, tool):
        github.fail("/search/repositories", **cut())
        with pytest.raises(ConnectionError) as caught:
            tool(operation="repositories", owner="acme", query="rlhf")
        assert f"GitHub ({github.url}) gave up its search" in str(caught.value)
        assert "found nothing by then, which does not mean that there is none. Try again" in str(caught.value)
        found = tool(operation="repositories", owner="acme", query="rlhf")  # nothing of it was kept
        assert [row["repo"] for row in found["repositories"]] == ["acme/trainers"]
        assert "complete" not in found and "warnings" not in found
        github.fail(
            "/search/repositories", **cut({"full_name": "acme/site", "html_url": "https://github.com/acme/site"})
        )
        part = tool(operation="repositories", owner="acme", query="lora")
        assert (part["repositories"][0]["repo"], part["complete"]) == ("acme/site", False)
        assert "gave up its search" in part["warnings"][0]
        whole = tool(operation="repositories", owner="acme", query="lora")
        assert whole["repositories"][0]["repo"] == "acme/adapters" and "warnings" not in whole

    def test_text_of_files(self, github, tool, monkeypatch):
        monkeypatch.setenv("GITHUB_TOKEN", "local-github-token")
        github.fail("/search/code", **cut())
        part = tool(operation="find", repo="acme/trainers", query="packing")
        assert part["complete"] is False and "gave up its search" in part["warnings"][0] and part["results"]
        assert "GitHub lists only a part" not in part["hint"]
        whole = tool(operation="find", repo="acme/trainers", query="packing")
        assert (paths(whole), whole["complete"]) == (["examples/scripts/sft.py"], True)
        item = {"path": "trainers/utils.py", "repository": {"full_name": "acme/trainers"}}
        github.fail("/search/code", **cut(item))
        part = tool(operation="find", repo="acme/trainers", query="line")
        assert (paths(part)[0], part["complete"]) == ("trainers/utils.py", False)
        github.fail("/search/code", **cut())
        with pytest.raises(ConnectionError, match="gave up its search"):
            tool(operation="find", repo="acme/site", query="packing")

    def test_an_older_answer_is_better(self, github, tool, monkeypatch):
        first, now = tool(operation="repositories", owner="acme"), time.time()
        monkeypatch.setattr(time, "time", lambda: now + 1000)
        github.fail("/search/repositories", **cut())
        again = tool(operation="repositories", owner="acme")
        assert again["repositories"] == first["repositories"]
        assert "As of 2" in again["warnings"][0] and "gave up its search" in again["warnings"][0]


class TestReading:
    def test_a_file(self, github, tool):
        answer = tool(operation="read", repo="acme/trainers", path="examples/scripts/sft.py")
        validate(answer, GithubCodeTool.output_schema)
        assert (answer["text"], answer["lines"], answer["next_line"]) == ("import trainers\n# packing=True", 2, None)
        assert (answer["kind"], answer["size"]) == ("text", 31)
        assert tool(operation="read", repo="acme/trainers", path="examples/scripts/sft.py", ref="v0.1/first")[
            "text"
        ] == ("old = True")

    def test_by_the_address_of_its_page(self, tool):
        page = "https://github.com/acme/trainers/blob/main/examples/notebooks/sft_finetuning.ipynb?plain=1#L3"
        answer = tool(operation="read", repo=page)
        assert (answer["kind"], answer["text"]) == ("notebook", "# %% [code] 1\nprint(1)\n")

    @pytest.mark.parametrize(
        "page",
        [
            "https://github.com/acme/trainers/blob/v0.1/first/examples/scripts/sft.py#L1-L2",
            "https://github.com/acme/trainers/raw/refs/heads/v0.1/first/examples/scripts/sft.py",
            "https://raw.githubusercontent.com/acme/trainers/v0.1/first/examples/scripts/sft.py?x=1",
            "https://raw.githubusercontent.com/acme/trainers/refs/tags/v0.1/first/examples/scripts/sft.py",
        ],
    )
    def test_by_an_address_whose_branch_has_a_slash(self, github, tool, page):
        answer = tool(operation="read", repo=page)
        assert (answer["text"], answer["ref"], answer["path"]) == (
            "old = True",
            "v0.1/first",
            "examples/scripts/sft.py",
        )
        github.requests.clear()
        named = tool(operation="read", repo=page, ref="v0.1/first")
        assert (named["text"], len(github.requests)) == ("old = True", 0)  # as it was found

    def test_by_other_addresses_with_slashes(self, github, tool):
        folder = "https://github.com/acme/trainers/tree/v0.1/first"
        assert paths(tool(operation="find", repo=folder)) == ["examples/scripts/sft.py"]
        assert paths(tool(operation="find", repo=f"{folder}/examples")) == ["examples/scripts/sft.py"]
        assert tool(operation="read", repo=folder)["entries"] == [{"path": "examples", "folder": True}]
        assert tool(operation="read", repo=folder, path="examples/scripts/sft.py")["text"] == "old = True"
        raw = "https://raw.githubusercontent.com/acme/trainers/main/README.md"
        assert tool(operation="read", repo=raw)["text"] == "# Trainers"
        github.requests.clear()
        with pytest.raises(FileNotFoundError, match=r"contents/a/b/c/none.py"):
            tool(operation="read", repo="https://github.com/acme/trainers/blob/main/a/b/c/none.py")
        assert len(github.requests) == 1  # below `main` there can be no other branch
        with pytest.raises(FileNotFoundError, match=r"contents/a/b/c/d/e/f/none.py"):
            tool(operation="read", repo="https://github.com/acme/trainers/blob/v9/a/b/c/d/e/f/none.py")
        assert len(github.requests) <= 6

    def test_ranges_lose_nothing(self, tool):
        seen, line = [], 1
        while line is not None:
            answer = tool(operation="read", repo="acme/trainers", path="trainers/utils.py", from_line=line)
            seen += answer["text"].split("\n")
            line = answer["next_line"]
        assert seen == FILES["trainers/utils.py"].decode().split("\n")
        part = tool(operation="read", repo="acme/trainers", path="trainers/utils.py", from_line=10, to_line=12)
        assert part["text"] == "line 9\nline 10\nline 11"
        end = tool(operation="read", repo="acme/trainers", path="trainers/utils.py", from_line=-2)
        assert end["text"] == "line 4998\nline 4999"
        with pytest.raises(ValueError, match="it has 5,000 lines"):
            tool(operation="read", repo="acme/trainers", path="trainers/utils.py", from_line=5001)

    def test_more_than_a_megabyte_comes_as_a_blob(self, github, tool):
        answer = tool(operation="read", repo="acme/trainers", path="data/large.txt", from_line=99_999)
        assert (answer["lines"], answer["text"]) == (100_000, "a line of text\na line of text")
        assert [request.path.split("/")[4] for request in github.requests] == ["contents", "git"]

    def test_folders_binaries_and_pointers(self, tool):
        answer = tool(operation="read", repo="acme/trainers", path="examples")
        assert answer["kind"] == "folder"
        assert {"path": "examples/scripts", "folder": True} in answer["entries"]
        assert {"path": "examples/__init__.py", "size": 0} in answer["entries"]
        assert len(tool(operation="read", repo="acme/trainers")["entries"]) == 10
        assert tool(operation="read", repo="acme/trainers", path="logo.png")["format"] == "PNG image"
        assert "Git LFS" in tool(operation="read", repo="acme/trainers", path="weights.pt")["hint"]

    def test_a_renamed_repository_is_followed(self, github, tool):
        github.rename("acme/adapters", "acme/peft")
        answer = tool(operation="read", repo="acme/adapters", path="examples/lora.py")
        assert (answer["text"], answer["repo"]) == ("lora = 1", "acme/peft")
        assert tool(operation="find", repo="acme/adapters")["results"][0]["repo"] == "acme/peft"

    @pytest.mark.parametrize(
        ("arguments", "kind", "said"),
        [
            ({"repo": "acme/none"}, FileNotFoundError, "GITHUB_TOKEN that may read it"),
            ({"repo": "acme/hidden"}, FileNotFoundError, "nothing at /repos/acme/hidden"),
            ({"repo": "acme/trainers", "path": "none.py"}, FileNotFoundError, "none.py"),
            ({"repo": "acme/trainers", "ref": "v9"}, FileNotFoundError, "Check repo, path and ref"),
            ({"repo": "acme/empty"}, FileNotFoundError, "empty"),
            ({"repo": "just-a-name"}, ValueError, "owner/name"),
            ({"repo": "https://example.org/a/b"}, ValueError, "github.com"),
            ({"repo": "acme/trainers", "path": "../x"}, ValueError, "path"),
            ({"repo": "acme/trainers", "from_line": 0}, ValueError, "from_line"),
            ({"repo": "acme/trainers", "limit": 101}, ValueError, "limit"),
            ({}, ValueError, "`read` needs `repo`"),
            ({"operation": "delete"}, ValueError, "find, read or repositories"),
        ],
    )
    def test_what_is_not_there_or_makes_no_sense(self, tool, arguments, kind, said):
        with pytest.raises(kind, match=said):
            tool(**{"operation": "read", **arguments})

    def test_a_token_opens_what_is_private(self, github, tool, monkeypatch):
        monkeypatch.setenv("GH_TOKEN", "local-github-token")
        answer = tool(operation="read", repo="acme/hidden", path="examples/secret.py")
        assert (answer["text"], answer["requests_left"]) == ("1", 4999)
        monkeypatch.delenv("GH_TOKEN")
        with pytest.raises(FileNotFoundError):
            tool(operation="read", repo="acme/hidden", path="examples/secret.py")


CALLS = {
    "find": {"operation": "find", "repo": "acme/trainers", "query": "grpo"},
    "read": {"operation": "read", "repo": "acme/trainers", "path": "README.md"},
    "repositories": {"operation": "repositories", "owner": "acme"},
}


def complaint(call, kind) -> str:
    started = time.monotonic()
    with pytest.raises(kind) as caught:
        call()
    assert time.monotonic() - started < 5
    text = str(caught.value)
    assert len(text.splitlines()) <= 2
    assert len(text) < 500
    return text


@pytest.fixture(params=CALLS)
def call(request, tool):
    return lambda: tool(**CALLS[request.param])


class TestLimits:
    def test_it_works_until_the_limit_and_then_says_when_it_goes_on(self, github, tool):
        github.limit = 2
        assert tool(**CALLS["find"])["requests_left"] == 0
        text = complaint(lambda: tool(**CALLS["read"]), ConnectionError)
        at = time.strftime("%H:%M:%S UTC", time.gmtime(int(github.reset)))
        assert f"the 2 of this window (without a token) are used up (HTTP 403). It answers again at {at}, in" in text
        assert "A GITHUB_TOKEN allows 5,000" in text
        assert tool(**CALLS["find"])["results"]  # what is kept is still there

    def test_with_a_token_there_is_more(self, github, tool, monkeypatch):
        github.limit = 0
        monkeypatch.setenv("GITHUB_TOKEN", "local-github-token")
        assert tool(**CALLS["read"])["requests_left"] == 4999

    @pytest.mark.parametrize(
        ("failure", "said"),
        [
            (
                {"status": 429, "headers": {"Retry-After": "1234"}},
                "slow down (HTTP 429: HTTP 429). Try again after 1234 s",
            ),
            (
                {"status": 403, "headers": {"Retry-After": "60"}, "body": {"message": "secondary rate limit"}},
                "after 60 s",
            ),
            ({"status": 403, "body": {"message": "You have exceeded a secondary rate limit."}}, "in some minutes"),
        ],
    )
    def test_a_secondary_limit(self, github, call, failure, said):
        github.fail(".", times=None, **failure)
        assert said in complaint(call, ConnectionError)
        assert len(github.requests) == 1

    def test_a_short_wait_is_waited(self, github, tool):
        github.fail(".", status=429, headers={"Retry-After": "1"})
        started = time.monotonic()
        assert tool(**CALLS["read"])["text"]
        assert 1 <= time.monotonic() - started < 4

    def test_what_has_not_changed_does_not_count(self, github, tool, monkeypatch):
        tool(**CALLS["find"])
        now, before = time.time(), dict(github.used)
        monkeypatch.setattr(time, "time", lambda: now + 1000)
        github.requests.clear()
        assert tool(**CALLS["find"])["results"]
        assert [request.status for request in github.requests] == [304, 304]
        assert github.used == before
        github.add("acme/trainers", FILES | {"examples/scripts/grpo_new.py": b"1"})
        monkeypatch.setattr(time, "time", lambda: now + 2000)
        assert "examples/scripts/grpo_new.py" in paths(tool(**CALLS["find"]))

    def test_old_answers_are_used_with_their_age_when_it_fails(self, github, call, monkeypatch):
        first, now = call(), time.time()
        monkeypatch.setattr(time, "time", lambda: now + 1000)
        github.fail(".", status=500, times=None)
        again = call()
        assert "As of 2" in again.pop("warnings")[0]
        assert {key: value for key, value in first.items() if key != "requests_left"} == {
            key: value for key, value in again.items() if key != "requests_left"
        }


class TestFailures:
    @pytest.mark.parametrize(
        ("failure", "kind", "said"),
        [
            ({"status": 401, "body": {"message": "Bad credentials"}}, PermissionError, "asks for a token (401"),
            ({"status": 403, "body": {"message": "Blocked"}}, PermissionError, "refused /"),
            ({"status": 500, "body": {"message": "out of cheese"}}, ConnectionError, "failed (HTTP 500)"),
            ({"status": 502, "body": "<html>"}, ConnectionError, "(tried 3 times)"),
            ({"status": 422, "body": {"message": "no"}}, OSError | ValueError, "422: no"),
            (HTML, ConnectionError, "something else than its API's JSON"),
            ({"status": 200, "body": '["hello'}, ConnectionError, "something else than its API's JSON"),
            ({"status": 200, "body": "{}"}, ConnectionError, "something else than its API's JSON"),
            ({"drop": True}, ConnectionError, "cannot be reached|broke off"),
            ({"drop": 20}, ConnectionError, "broke off"),
        ],
    )
    def test_is_never_an_empty_result(self, github, call, failure, kind, said):
        github.fail(".", times=None, **failure)
        text = complaint(call, kind if isinstance(kind, type) else (OSError, ValueError))
        assert f"GitHub ({github.url})" in text
        assert any(one in text for one in said.split("|"))

    def test_it_is_down(self, call, monkeypatch):
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
        monkeypatch.setenv("GITHUB_API_URL", f"http://127.0.0.1:{port}")
        text = complaint(call, ConnectionError)
        assert f"127.0.0.1:{port}) cannot be reached" in text
        assert "GITHUB_API_URL" in text

    @pytest.mark.parametrize("failure", [{"status": 503}, {"drop": True}, {"drop": 20}])
    def test_a_passing_failure_is_got_over(self, github, call, failure):
        github.fail(".", times=2, **failure)
        assert call()

    def test_the_time_is_bounded(self, github, tool):
        tool.patience, tool.max_seconds = 0.2, 1
        github.fail(".", delay=3, times=3)
        assert "did not answer in time" in complaint(lambda: tool(**CALLS["read"]), ConnectionError)

    def test_a_wrong_token_is_named_and_not_shown(self, github, call, monkeypatch):
        monkeypatch.setenv("GITHUB_TOKEN", "nonsense")
        text = complaint(call, PermissionError)
        assert "refused the token (401: Bad credentials)" in text
        assert "nonsense" not in text


def test_the_token_goes_to_the_api_and_to_no_other_host(github, call, monkeypatch):
    monkeypatch.setenv("GITHUB_TOKEN", "local-github-token")
    monkeypatch.setenv("HF_TOKEN", "hf_other")
    github.rename("acme/trainers", "acme/moved")
    assert call()
    assert {request.headers.get("authorization") for request in github.requests} == {"Bearer local-github-token"}
    with Service(Starlette(routes=[Route("/{x:path}", lambda request: JSONResponse({"items": []}))])) as other:
        for address in (f"{other.url}/stolen", f"http://localhost:{github.port}/repos/acme/moved"):
            github.fail(".", status=302, headers={"Location": address}, times=None)
            monkeypatch.setenv("XDG_CACHE_HOME", "/nonexistent")
            assert "which is not asked" in complaint(call, ConnectionError)
            github._failures.clear()
        assert other.requests == []


def test_repeated_calls_come_from_the_cache(github, call):
    first = call()
    asked, started = len(github.requests), time.monotonic()
    for _ in range(10):
        assert call() == first
    assert (time.monotonic() - started) / 10 < 0.03
    assert len(github.requests) == asked


@pytest.mark.long
def test_it_survives_saving(github):
    found = assert_survives_saving(GithubCodeTool, "requests", call=CALLS["find"], environment=github.environment())
    assert found["results"][0]["path"] == "examples/scripts/grpo_vllm.py"
