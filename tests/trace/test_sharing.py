"""Uploading in the background, against the local Hub and all that can go wrong with it.

What must never happen: a step that waits for the Hub; a session that is forgotten, or committed twice; trouble that is told
over and over; a trace where others can read it without the user's recorded word.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from huggingface_hub import HfApi

from ml_intern.secrets import Masker
from ml_intern.testing import LocalHub
from ml_intern.testing.hub import User
from ml_intern.trace.bundle import LARGEST_FILE
from ml_intern.trace.share import NotShared
from ml_intern.trace.sharing import Sharer, is_wanted, share_now
from ml_intern.trace.sharing_home import Choice, SharingHome

REPO = "alice/ml-intern-traces"
IDS = [f"{n:08d}-2222-4333-8444-555555555555" for n in range(40)]
SECRET = "known-only-later-1234"


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[LocalHub]:
    users = {"hf_alice": "alice", "hf_reader": User("alice", role="read")}
    with LocalHub(tmp_path / "hub", users) as hub:
        yield hub


@pytest.fixture
def sharing(tmp_path: Path, hub: LocalHub, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Sharer]]:
    monkeypatch.setenv("HF_TOKEN", "hf_alice")
    made: list[Sharer] = []

    def make(
        token: str = "hf_alice", waits: tuple[float, ...] = (0.1,), home: str = "home", wanted: bool = True
    ) -> Sharer:
        api = HfApi(endpoint=hub.url, token=token)
        sharer = Sharer(
            tmp_path / home, said.append, wanted, api=lambda: api, waits=waits, masker=Masker({SECRET: "LATE_KEY"})
        )
        made.append(sharer)
        return sharer

    said: list[str] = []
    make.said = said  # ty: ignore[unresolved-attribute]
    yield make
    for sharer in made:
        sharer.close(5)


def trace_of(home: Path, number: int = 0, rows: int = 2) -> Path:
    folder = home / "sessions"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{IDS[number]}.jsonl"
    path.write_text("".join(row(n) for n in range(rows)) + '{"type":"assistant","torn')
    return path


def row(number: int) -> str:
    kind = "assistant" if number % 2 else "user"
    return (
        json.dumps({"type": kind, "n": number, "timestamp": "2026-01-15T23:59:00.000Z"}, separators=(",", ":")) + "\n"
    )


def files(hub: LocalHub) -> dict[str, object]:
    repo = hub.store.repos.get(("dataset", REPO))
    return dict(repo.resolve("main").files) if repo else {}


def commits(hub: LocalHub) -> int:
    """Commits that were made by uploads: all but the one that the repository began with."""
    return len(hub.store.repos["dataset", REPO].commits) - 1


def put(hub: LocalHub, number: int = 0) -> bytes:
    return hub.read(REPO, "dataset", f"sessions/2026-01-15/{IDS[number]}.jsonl")


def test_a_session_grows_on_the_hub_announced_once_and_what_did_not_change_is_not_sent(
    tmp_path: Path, hub: LocalHub, sharing
) -> None:
    sharer = sharing()
    trace = trace_of(tmp_path / "home", rows=1)
    sharer.trace_changed(trace)
    assert sharer.flush(10) and ("dataset", REPO) not in hub.store.repos, "no answer of the model yet"
    trace_of(tmp_path / "home", rows=2)
    sharer.trace_changed(trace)
    assert sharer.flush(10) and put(hub) == (row(0) + row(1)).encode() and commits(hub) == 1
    assert hub.store.repos["dataset", REPO].visibility == "private"
    assert sharer.url_of(trace).endswith(f"/datasets/{REPO}/blob/main/sessions/2026-01-15/{trace.name}")
    asked = len(hub.requests)
    sharer.trace_changed(trace)
    assert sharer.flush(10) and len(hub.requests) == asked, "the same once more: nothing is asked of the Hub"
    trace_of(tmp_path / "home", rows=4)
    sharer.trace_changed(trace)
    assert sharer.flush(10) and put(hub).count(b"\n") == 4 and commits(hub) == 2
    [said] = sharing.said
    assert "private data set of yours" in said and "share off" in said and "ML_INTERN_SHARE_TRACES=0" in said
    looks = [
        request for request in hub.requests if request.method == "GET" and f"/api/datasets/{REPO}" in request.path
    ]
    assert len(looks) >= commits(hub), "its visibility is looked at before every upload"
    sharing().trace_changed(trace_of(tmp_path / "home", 1))
    assert len(sharing.said) == 1, "announced once, ever"


def test_large_outputs_and_sub_agents_lie_beside_it_masked_and_capped_outside_the_viewers_glob(
    tmp_path: Path, hub: LocalHub, sharing
) -> None:
    trace = trace_of(tmp_path / "home")
    beside = trace.with_suffix("")
    (beside / "artifacts").mkdir(parents=True)
    (beside / "subagents").mkdir()
    (beside / "workspace").mkdir()
    (beside / "workspace" / "model.bin").write_text("mine")
    (beside / "artifacts" / "aa11.txt").write_text(f"a secret {SECRET} in here")
    (beside / "artifacts" / "bb22.txt").write_text("x" * (LARGEST_FILE + 1))
    (beside / "subagents" / "agent-1.jsonl").write_text(row(0) + row(1) + "torn")
    (beside / "subagents" / "agent-1.meta.json").write_text('{"agentType":"reader"}')
    with trace.open("a") as file:
        file.write(f'\ngarbage\n{{"type":"user","message":{{"role":"user","content":"{SECRET}"}}}}\n')
    sharer = sharing()
    sharer.trace_changed(trace)
    assert sharer.flush(10)
    there = {path for path in files(hub) if path.startswith("sessions/")}
    at = f"sessions/2026-01-15/{IDS[0]}"
    assert there == {
        f"{at}.jsonl",
        f"{at}/artifacts/aa11.txt",
        f"{at}/artifacts/bb22.txt",
        f"{at}/subagents/agent-1.jsonl",
        f"{at}/subagents/agent-1.meta.json",
    }
    assert hub.read(REPO, "dataset", f"{at}/artifacts/aa11.txt") == b"a secret [secret:LATE_KEY] in here"
    assert len(hub.read(REPO, "dataset", f"{at}/artifacts/bb22.txt")) < LARGEST_FILE / 2
    assert all(json.loads(line) for line in put(hub).splitlines()), "whole rows only"
    assert SECRET.encode() not in put(hub) and b"[secret:LATE_KEY]" in put(hub)
    assert commits(hub) == 1


def test_the_card_leads_the_viewer_and_keeps_the_users_words(tmp_path: Path, hub: LocalHub, sharing) -> None:
    hub.seed(REPO, "dataset", {"README.md": b"---\nlicense: mit\n---\n# My own words\n"}, private=True)
    sharer = sharing()
    sharer.trace_changed(trace_of(tmp_path / "home"))
    assert sharer.flush(10)
    card = hub.read(REPO, "dataset", "README.md").decode()
    assert "path: sessions/*/*.jsonl" in card and "# My own words" in card


@pytest.mark.parametrize(
    "where, status",
    [
        *(("/commit/main", status) for status in (401, 403, 404, 409, 412, 429, 500)),
        *(("whoami", status) for status in (401, 429, 503)),
        *(("/preupload/", status) for status in (401, 403)),  # others the client itself tries again, for half a minute
    ],
)
def test_a_hub_that_refuses_for_a_while_gets_each_session_once(
    tmp_path: Path, hub: LocalHub, sharing, where: str, status: int
) -> None:
    failure = hub.fail(where, status=status, times=None)
    sharer = sharing(waits=(0.2,))
    began = time.monotonic()
    sharer.trace_changed(trace_of(tmp_path / "home"))
    assert time.monotonic() - began < 0.05, "nobody waits for the Hub"
    sharer.flush(0.7 if status in (404, 409, 412) else 8)
    [pending] = SharingHome(tmp_path / "home").pending()
    assert pending.id == IDS[0] and not files(hub).get("sessions")
    failure.times = 0
    sharer.trace_changed(trace_of(tmp_path / "home"))
    assert sharer.flush(15), sharing.said
    assert put(hub).count(b"\n") == 2 and commits(hub) == 1
    trouble = [text for text in sharing.said if "From now on" not in text]
    assert len(trouble) <= 1, trouble
    if status not in (404, 409, 412):
        assert "was not uploaded" in trouble[0] and str(tmp_path) in trouble[0]
        assert {401: "hf auth login", 403: "role `write`"}.get(status, "tried again") in trouble[0]


def test_a_hub_that_is_down_is_told_of_once_and_tried_again_by_itself(tmp_path: Path, hub: LocalHub, sharing) -> None:
    sharer = sharing(waits=(0.1,))
    hub.close()
    for number in range(3):
        sharer.trace_changed(trace_of(tmp_path / "home", number))
    assert not sharer.flush(10)
    time.sleep(0.5)
    hub.start()
    deadline = time.monotonic() + 20
    while SharingHome(tmp_path / "home").pending() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert [put(hub, number).count(b"\n") for number in range(3)] == [2, 2, 2] and commits(hub) == 3
    assert len([text for text in sharing.said if "cannot be reached" in text]) == 1


def test_the_client_says_nothing_of_its_own_on_the_terminal(
    tmp_path: Path, hub: LocalHub, sharing, capfd: pytest.CaptureFixture[str]
) -> None:
    hub.fail("/preupload/", status=500)
    sharer = sharing()
    sharer.trace_changed(trace_of(tmp_path / "home"))
    assert sharer.flush(10) and commits(hub) == 1
    assert capfd.readouterr() == ("", "")


def test_a_slow_hub_holds_nobody_up(tmp_path: Path, hub: LocalHub, sharing) -> None:
    hub.fail("/commit/main", delay=1.5)
    sharer = sharing()
    began = time.monotonic()
    sharer.trace_changed(trace_of(tmp_path / "home"))
    assert time.monotonic() - began < 0.05
    assert not sharer.flush(0.3)
    trace_of(tmp_path / "home", rows=6)  # it goes on while the upload is under way
    sharer.trace_changed(tmp_path / "home" / "sessions" / f"{IDS[0]}.jsonl")
    assert sharer.flush(10) and put(hub).count(b"\n") == 6


def test_a_commit_whose_answer_was_lost_is_not_made_twice(tmp_path: Path, hub: LocalHub, sharing) -> None:
    hub.fail("/commit/main", drop="answer")
    sharer = sharing()
    sharer.trace_changed(trace_of(tmp_path / "home"))
    deadline = time.monotonic() + 10
    while not sharer.flush(10) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert put(hub).count(b"\n") == 2 and commits(hub) == 1


def test_a_token_that_may_only_read(tmp_path: Path, hub: LocalHub, sharing) -> None:
    hub.seed(REPO, "dataset", private=True)
    sharer = sharing(token="hf_reader")
    sharer.trace_changed(trace_of(tmp_path / "home"))
    assert not sharer.flush(10)
    [_, said] = sharing.said
    assert "role `write`" in said


def test_a_data_set_that_goes_away_in_between_is_made_again(tmp_path: Path, hub: LocalHub, sharing) -> None:
    sharer = sharing()
    sharer.trace_changed(trace_of(tmp_path / "home"))
    assert sharer.flush(10)
    HfApi(endpoint=hub.url, token="hf_alice").delete_repo(REPO, repo_type="dataset")
    sharer.trace_changed(trace_of(tmp_path / "home", rows=4))
    assert sharer.flush(10) and put(hub).count(b"\n") == 4
    assert hub.store.repos["dataset", REPO].visibility == "private" and "README.md" in files(hub)


def test_a_public_data_set_gets_nothing_without_the_users_recorded_word(
    tmp_path: Path, hub: LocalHub, sharing
) -> None:
    sharer = sharing(waits=(0.05,))
    sharer.trace_changed(trace_of(tmp_path / "home"))
    assert sharer.flush(10)
    api = HfApi(endpoint=hub.url, token="hf_alice")
    api.update_repo_settings(REPO, repo_type="dataset", private=False)
    sharer.trace_changed(trace_of(tmp_path / "home", rows=4))
    assert not sharer.flush(10) and put(hub).count(b"\n") == 2
    SharingHome(tmp_path / "home").choose(Choice(public="alice/another"))
    sharer.trace_changed(trace_of(tmp_path / "home", rows=4))
    assert not sharer.flush(10) and put(hub).count(b"\n") == 2, "the word was for another one"
    assert len([text for text in sharing.said if "is public" in text]) == 1
    SharingHome(tmp_path / "home").choose(Choice(public=REPO))
    sharer.trace_changed(trace_of(tmp_path / "home", rows=4))
    assert sharer.flush(10) and put(hub).count(b"\n") == 4


def test_a_session_is_uploaded_by_the_next_process_when_this_one_dies(tmp_path: Path, hub: LocalHub, sharing) -> None:
    home = SharingHome(tmp_path / "home")
    home.want(trace_of(tmp_path / "home"))
    home.want(trace_of(tmp_path / "home", 1))
    with home.lock() as mine:
        assert mine
        home.begin(IDS[1])  # and the process dies in the middle of it
    home.want(tmp_path / "home" / "sessions" / "gone.jsonl")
    deadline = time.monotonic() + 10
    sharing()
    while home.pending() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert home.pending() == [] and put(hub) and put(hub, 1) and commits(hub) == 2


def test_what_was_turned_off_is_not_marked_and_not_sent(tmp_path: Path, hub: LocalHub, sharing) -> None:
    sharer = sharing(wanted=False)
    sharer.trace_changed(trace_of(tmp_path / "home"))
    assert sharer.flush(1) and SharingHome(tmp_path / "home").pending() == [] and hub.requests == []


def test_a_flag_goes_before_the_environment_and_that_before_what_was_chosen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ML_INTERN_SHARE_TRACES")
    assert is_wanted(tmp_path) == (True, "the default")
    SharingHome(tmp_path).choose(Choice(on=False))
    assert is_wanted(tmp_path) == (False, "share off")
    monkeypatch.setenv("ML_INTERN_SHARE_TRACES", "1")
    assert is_wanted(tmp_path) == (True, "ML_INTERN_SHARE_TRACES")
    assert is_wanted(tmp_path, False) == (False, "this run")
    (tmp_path / "sharing.json").write_text("{spoilt")
    assert SharingHome(tmp_path).choice() == Choice()


def test_a_home_that_cannot_be_written_is_told_of_once(tmp_path: Path, hub: LocalHub, sharing) -> None:
    trace = trace_of(tmp_path / "home")
    sharer = sharing()
    (tmp_path / "home" / "sharing").write_text("a file where the folder should be")
    sharer.trace_changed(trace)
    sharer.trace_changed(trace)
    assert len(sharing.said) == 1 and "cannot be marked" in sharing.said[0]


def test_a_session_tells_where_it_lies_when_one_waits_for_it(tmp_path: Path, hub: LocalHub) -> None:
    api = HfApi(endpoint=hub.url, token="hf_alice")
    trace = trace_of(tmp_path / "home")
    shared = share_now(tmp_path / "home", trace, api)
    assert shared.repo_id == REPO and SharingHome(tmp_path / "home").url(trace.stem) == shared.url
    with pytest.raises(NotShared, match="no answer of the model yet"):
        share_now(tmp_path / "home", trace_of(tmp_path / "home", 1, rows=1), api)
    api.update_repo_settings(REPO, repo_type="dataset", private=False)
    with pytest.raises(NotShared, match="is public"):
        share_now(tmp_path / "home", trace, api)


CHILD = """
import sys
from pathlib import Path
from ml_intern.trace.sharing import Sharer
home, ids = Path(sys.argv[1]), sys.argv[2:]
sharer = Sharer(home, lambda text: print(text), True, waits=(0.2,))
for name in ids:
    sharer.trace_changed(home / "sessions" / f"{name}.jsonl")
while not sharer.flush(40):
    pass
sharer.close()
"""


@pytest.mark.long
@pytest.mark.parametrize("where", ["/preupload/", "/commit/main"])
def test_a_process_that_is_killed_in_the_middle_of_an_upload_loses_and_doubles_nothing(
    tmp_path: Path, hub: LocalHub, sharing, where: str
) -> None:
    hub.fail(where, delay=1.0)  # then it is carried out, and nobody is there to hear of it
    trace = trace_of(tmp_path / "home")
    command = [sys.executable, "-c", CHILD, str(tmp_path / "home"), trace.stem]
    child = subprocess.Popen(command, env={**os.environ, **hub.environment("hf_alice")}, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 30
    before = "/preupload/" if where == "/commit/main" else "/paths-info/"
    while not any(before in request.path for request in hub.requests) and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.3)
    child.kill()
    child.wait()
    home = SharingHome(tmp_path / "home")
    assert [one.id for one in home.pending()] == [trace.stem], "it stays to be uploaded"
    sharing()
    while home.pending() and time.monotonic() < deadline:
        time.sleep(0.02)
    time.sleep(1.0)
    assert home.pending() == [] and put(hub).count(b"\n") == 2 and commits(hub) == 1


@pytest.mark.long
@pytest.mark.parametrize("count", [1, 3])
def test_several_processes_at_once_lose_and_double_nothing(tmp_path: Path, hub: LocalHub, count: int) -> None:
    names = [f"home{number % count}" for number in range(3)]
    running = []
    for number, name in enumerate(names):
        mine = range(number * 2, number * 2 + 2)
        for session in mine:
            trace_of(tmp_path / name, session)
        command = [sys.executable, "-c", CHILD, str(tmp_path / name), *(IDS[session] for session in mine)]
        environment = {**os.environ, **hub.environment("hf_alice")}
        running.append(subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True))
    said = "".join(process.communicate(timeout=60)[0] for process in running)
    assert [process.returncode for process in running] == [0] * 3, said
    assert [put(hub, session).count(b"\n") for session in range(6)] == [2] * 6
    assert commits(hub) == 6
    assert said.count("From now on") == count and "was not uploaded" not in said


def test_threads_of_one_process_may_all_tell_of_changes(tmp_path: Path, hub: LocalHub, sharing) -> None:
    sharer = sharing()
    traces = [trace_of(tmp_path / "home", number) for number in range(8)]
    threads = [threading.Thread(target=sharer.trace_changed, args=(trace,)) for trace in traces * 3]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sharer.flush(20) and commits(hub) == 8
