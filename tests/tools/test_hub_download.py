"""Downloading into the workspace, against a local Hub with the unmodified client."""

import hashlib
import os
import random
import re
import signal
import stat
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest
from ml_intern.tools import HubDownloadTool
from saving import assert_survives_saving
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from ml_intern.execution import Workspace
from ml_intern.job_watch import JobWatch
from ml_intern.testing.serve import Service

BIG = bytes(range(256)) * 1000
FILES = {
    "README.md": b"# Reviews\n",
    "data/train.csv": b"a,b\n1,2\n",
    "data/test.csv": b"a,b\n",
    "data/odd [1].csv": b"a\n",
    "weights.bin": BIG,
    "empty.txt": b"",
}


@pytest.fixture
def download(hub, workspace):
    hub.seed("acme/reviews", "dataset", FILES)
    return HubDownloadTool(workspace)


def there(workspace):
    return {name: workspace.read_bytes(name) for name in workspace.walk()}


def test_all_files_of_a_dataset(download, hub, workspace):
    got = download(repo_id="acme/reviews")
    assert set(got) == set(HubDownloadTool.output_schema["properties"])
    assert got["revision"] == hub.store.find("dataset", "acme/reviews").refs["refs/heads/main"]
    assert (got["repo_id"], got["repo_type"], got["folder"]) == ("acme/reviews", "dataset", "data/reviews")
    files = there(workspace)
    assert files.pop("data/reviews/.gitattributes")
    assert files == {f"data/reviews/{name}": content for name, content in FILES.items()}
    listed = {file["path"]: file["size"] for file in got["files"]}
    assert listed.pop("data/reviews/.gitattributes")
    assert listed == {name: len(content) for name, content in files.items()}
    assert got["bytes"] == sum(file["size"] for file in got["files"])


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (["README.md"], ["README.md"]),
        ("weights.bin", ["weights.bin"]),
        (["data/t*.csv"], ["data/test.csv", "data/train.csv"]),
        (["*.csv"], ["data/odd [1].csv", "data/test.csv", "data/train.csv"]),
        (["data/"], ["data/odd [1].csv", "data/test.csv", "data/train.csv"]),
        (["data/odd [1].csv"], ["data/odd [1].csv"]),
        (["README.md", "data/test.csv"], ["README.md", "data/test.csv"]),
    ],
)
def test_some_files_into_a_folder_of_choice(download, workspace, files, expected):
    got = download(repo_id="acme/reviews", files=files, folder="/workspace/in/put/")
    assert got["folder"] == "in/put"
    assert [file["path"] for file in got["files"]] == [f"in/put/{name}" for name in expected]
    assert there(workspace) == {f"in/put/{name}": FILES[name] for name in expected}


def test_an_older_revision_and_other_types(download, hub, workspace):
    old = hub.seed("acme/m", "model", {"config.json": b"old"}).refs["refs/heads/main"]
    hub.seed("acme/m", "model", {"config.json": b"new"})
    hub.seed("acme/s", "space", {"app.py": b"print()"}, sdk="gradio")
    assert download(repo_id="acme/m", repo_type="model", revision=old, files=["config.json"])["revision"] == old
    download(repo_id="acme/s", repo_type="space", files=["app.py"])
    assert there(workspace) == {"data/m/config.json": b"old", "data/s/app.py": b"print()"}


def test_without_a_type_it_is_the_model_or_else_the_dataset_of_that_name(download, hub, workspace):
    assert download(repo_id="acme/reviews", files=["empty.txt"])["repo_type"] == "dataset"
    hub.seed("acme/reviews", "model", {"config.json": b"{}"})
    assert download(repo_id="acme/reviews", folder="m")["repo_type"] == "model"
    assert download(repo_id="acme/reviews", repo_type="dataset", files=["empty.txt"])["repo_type"] == "dataset"
    with pytest.raises(FileNotFoundError, match="revision"):  # of the model: it is not looked for among datasets
        download(repo_id="acme/reviews", revision="v9")
    with pytest.raises(FileNotFoundError, match="knows no dataset acme/none"):
        download(repo_id="acme/none")


def test_large_files_come_whole_though_xet_is_not_switched_off(download, workspace):
    download(repo_id="acme/reviews", files=["weights.bin"])
    assert hashlib.sha256(there(workspace)["data/reviews/weights.bin"]).digest() == hashlib.sha256(BIG).digest()


def test_more_than_max_bytes_is_not_fetched(download, hub, workspace):
    with pytest.raises(
        ValueError, match=r"258,\d+ bytes, more than max_bytes=1,000. Largest: weights.bin \(256,000\)"
    ):
        download(repo_id="acme/reviews", max_bytes=1000)
    assert there(workspace) == {}
    assert not [request for request in hub.requests if "/resolve/" in request.path]


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        ({"files": ["data/trian.csv"]}, FileNotFoundError, "'data/trian.csv'.*data/train.csv"),
        ({"files": ["*.parquet"]}, FileNotFoundError, r"matches '\*.parquet'"),
        ({"repo_type": "bucket"}, ValueError, "`repo_type` is model, dataset or space"),
        ({"folder": "../up"}, ValueError, "outside the workspace"),
        ({"repo_id": "a/b/c"}, ValueError, "a/b/c"),
    ],
)
def test_arguments_that_do_not_fit(download, workspace, arguments, kind, message):
    with pytest.raises(kind, match=message):
        download(**{"repo_id": "acme/reviews", **arguments})
    assert there(workspace) == {}


def test_a_file_that_breaks_off_is_not_taken_for_whole(download, hub, workspace):
    hub.fail(r"^/.*weights|^/.*lfs|^/cdn", drop=100, times=None, method="GET")
    with pytest.raises(OSError, match=r"weights.bin of dataset acme/reviews"):
        download(repo_id="acme/reviews", files=["weights.bin"])
    assert there(workspace) == {}


def test_a_file_of_another_size_than_the_commit_says_is_refused(download, hub, workspace):
    said = {"X-Repo-Commit": hub.store.find("dataset", "acme/reviews").refs["refs/heads/main"], "ETag": '"abc"'}
    hub.fail("/resolve/.*README", status=200, headers=said, body=b"# Rev", times=None)
    with pytest.raises(OSError, match=r"README.md of dataset acme/reviews did not arrive whole|Consistency check"):
        download(repo_id="acme/reviews", files=["README.md"])
    assert there(workspace) == {}


def test_names_that_lead_out_are_refused(hub, workspace):
    hub.seed("acme/evil", "dataset", {"../../evil.txt": b"x"})
    with pytest.raises(ValueError, match="lead out of a folder"):
        HubDownloadTool(workspace)(repo_id="acme/evil")


def test_a_link_in_the_workspace_is_not_followed(download, workspace, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (workspace.root / "data").symlink_to(outside)
    with pytest.raises(ValueError, match="link"):
        download(repo_id="acme/reviews")
    assert list(outside.iterdir()) == []


@pytest.mark.long
def test_it_survives_saving():
    assert_survives_saving(HubDownloadTool, "huggingface_hub")


# What has arrived is not fetched again

CHUNK = 10 << 20  # what the Hub's client writes at once
LARGE = random.Random(7).randbytes(2 * CHUNK + 5_000_000)
WEIGHTS = "^/cdn"


@pytest.fixture
def large(hub, workspace):
    hub.seed("acme/large", "model", {"weights.bin": LARGE, "config.json": b"{}"})
    return HubDownloadTool(workspace)


def parts():
    return [path for path in Path(os.environ["XDG_CACHE_HOME"], "hub_download", "parts").iterdir() if path.is_file()]


def ranges(hub):
    return [found for request in hub.requests if (found := request.headers.get("range"))]


def get(tool, **more):
    return tool(**{"repo_id": "acme/large", "repo_type": "model", "folder": "m", **more})


def assert_whole(workspace):
    assert workspace.read_bytes("m/weights.bin") == LARGE and workspace.read_bytes("m/config.json") == b"{}"
    assert not [name for name in workspace.walk() if "part" in name] and parts() == []


def test_one_that_breaks_off_goes_on_where_it_was(large, hub, workspace):
    fault = hub.fail(WEIGHTS, drop=CHUNK + 1_000, times=1, method="GET")
    again = hub.fail(WEIGHTS, status=500, times=None, method="GET")  # the client's own attempts to go on
    with pytest.raises(OSError, match=r"weights.bin of model acme/large"):
        get(large)
    assert fault.times == 0 and there(workspace) == {}  # all of a commit or nothing, though config.json has come
    (part,) = [path for path in parts() if path.stat().st_size == CHUNK]
    assert stat.S_IMODE(part.parent.parent.stat().st_mode) == 0o700
    fault.times = again.times = 0
    hub.requests.clear()
    got = get(large)
    assert got["bytes"] > len(LARGE) and got["fetched_bytes"] == len(LARGE) - CHUNK
    assert set(ranges(hub)) == {f"bytes={CHUNK}-"}
    assert_whole(workspace)


@pytest.mark.long
def test_one_whose_process_is_killed_goes_on_where_it_was(large, hub, workspace):
    program = """
        import sys
        from ml_intern.tools import HubDownloadTool
        from ml_intern.execution import Workspace
        HubDownloadTool(Workspace(sys.argv[1]))(repo_id="acme/large", repo_type="model", folder="m")
    """
    fault = hub.fail(WEIGHTS, drop=CHUNK + 1_000, times=1, method="GET")
    slow = hub.fail(WEIGHTS, delay=30.0, times=None, method="GET")
    child = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program), str(workspace.root)], stderr=subprocess.DEVNULL
    )
    ends = time.monotonic() + 30
    while not (
        Path(os.environ["XDG_CACHE_HOME"], "hub_download", "parts").is_dir()
        and CHUNK in [path.stat().st_size for path in parts()]
    ):
        assert time.monotonic() < ends and child.poll() is None
        time.sleep(0.01)
    child.send_signal(signal.SIGKILL)
    child.wait()
    fault.times = slow.times = 0
    assert there(workspace) == {}
    assert get(large)["fetched_bytes"] == len(LARGE) - CHUNK
    assert_whole(workspace)


@pytest.mark.long
def test_what_the_workspace_has_is_not_fetched_again_and_what_changed_is(large, hub, workspace):
    assert get(large)["fetched_bytes"] > len(LARGE)
    hub.requests.clear()
    got = get(large)
    assert got["fetched_bytes"] == 0 and not [one for one in hub.requests if "/resolve/" in one.path]
    changed = bytearray(LARGE)
    changed[123] ^= 1
    workspace.write_bytes("m/weights.bin", bytes(changed))  # of the same size
    hub.seed("acme/large", "model", {"config.json": b"[]"})
    assert get(large, files=["weights.bin", "config.json"])["fetched_bytes"] == len(LARGE) + 2
    assert workspace.read_bytes("m/weights.bin") == LARGE and workspace.read_bytes("m/config.json") == b"[]"


@pytest.mark.long
def test_a_part_of_something_else_is_no_beginning(large, hub, workspace):
    fault = hub.fail(WEIGHTS, drop=CHUNK + 1_000, times=1, method="GET")
    again = hub.fail(WEIGHTS, status=500, times=None, method="GET")
    with pytest.raises(OSError, match="weights"):
        get(large)
    fault.times = again.times = 0
    (part,) = [path for path in parts() if path.stat().st_size == CHUNK]
    part.write_bytes(bytes(CHUNK))  # a disk that lies
    assert get(large)["fetched_bytes"] > len(LARGE)
    assert_whole(workspace)
    with pytest.raises(OSError, match="weights"):
        hub.fail(WEIGHTS, status=500, times=None, method="GET")
        get(large, folder="other")
    part.write_bytes(bytes(len(LARGE) + 1))
    hub._failures.clear()
    get(large, folder="other")
    assert workspace.read_bytes("other/weights.bin") == LARGE


def test_a_server_that_does_not_go_on_in_the_middle_sends_it_whole(large, hub, workspace):
    fault = hub.fail(WEIGHTS, drop=CHUNK + 1_000, times=1, method="GET")
    again = hub.fail(WEIGHTS, status=500, times=None, method="GET")
    with pytest.raises(OSError, match="weights"):
        get(large)
    fault.times = again.times = 0
    hub.fail(WEIGHTS, status=200, body=LARGE, method="GET")
    get(large)
    assert_whole(workspace)


@pytest.mark.parametrize("wrong", [LARGE[:-1] + b"x", LARGE[:-1], LARGE + b"x"], ids=["changed", "short", "long"])
def test_what_is_not_what_the_commit_says_never_has_its_name(large, hub, workspace, wrong):
    fault = hub.fail(WEIGHTS, status=200, body=wrong, times=None, method="GET")
    with pytest.raises(ConnectionError, match=r"weights.bin of model acme/large did not arrive (whole|as it is)"):
        get(large)
    assert there(workspace) == {}
    fault.times = 0
    get(large)
    assert_whole(workspace)


def test_two_that_get_the_same_at_once_get_it(large, hub, workspace, tmp_path):
    other = Workspace(tmp_path / "other")
    hub.fail(WEIGHTS, delay=0.3, method="GET")
    thread = threading.Thread(target=get, args=(HubDownloadTool(other),))
    thread.start()
    get(large)
    thread.join()
    assert_whole(workspace)
    assert_whole(other)


def test_an_interrupt_ends_it_at_once_and_keeps_what_has_come(hub, workspace):
    hub.seed("acme/large", "model", {"weights.bin": LARGE, "config.json": b"{}"})
    hub.fail(WEIGHTS, delay=2.0, method="GET")
    began = time.monotonic()
    with pytest.raises(InterruptedError, match="goes on where it was"):
        get(HubDownloadTool(workspace, watch=JobWatch(lambda seconds: time.monotonic() - began > 0.5)))
    assert time.monotonic() - began < 3 and there(workspace) == {}
    get(HubDownloadTool(workspace))
    assert_whole(workspace)


def test_it_says_how_far_it_is(hub, workspace):
    hub.seed("acme/large", "model", {"weights.bin": LARGE, "config.json": b"{}"})
    hub.fail(WEIGHTS, delay=2.3, method="GET")
    said = []
    get(HubDownloadTool(workspace, progress=said.append))
    assert said and all(re.fullmatch(r"acme/large: \d+ of 26 MB \(\d+ %\), \d+\.\d MB/s", line) for line in said), said


def test_a_hundred_small_files_come_side_by_side(hub, workspace):
    hub.seed("acme/many", "dataset", {f"{n:03}.txt": b"same" if n % 2 else str(n).encode() for n in range(100)})
    hub.fail("/resolve/", delay=0.1, times=None)
    began = time.monotonic()
    got = HubDownloadTool(workspace)(repo_id="acme/many", files=["*.txt"])
    assert time.monotonic() - began < 8 and len(got["files"]) == 100
    assert workspace.read_bytes("data/many/099.txt") == b"same" and workspace.read_bytes("data/many/098.txt") == b"98"


def test_parts_that_nobody_comes_back_for_go_after_a_week(large, hub):
    get(large)
    folder = Path(os.environ["XDG_CACHE_HOME"], "hub_download", "parts")
    old, new = folder / "old.part", folder / "new.part"
    (folder / "whole-old").mkdir()
    for path in (old, new):
        path.write_bytes(b"x")
    for path in (old, folder / "whole-old"):
        os.utime(path, (time.time() - 8 * 86_400,) * 2)
    get(large)
    assert [path.name for path in folder.iterdir()] == ["new.part"]


def test_files_lie_elsewhere_and_the_token_does_not_go_there(large, hub, workspace):
    heard = []

    def send(request):
        heard.append(request.headers.get("authorization"))
        return PlainTextResponse(LARGE)

    with Service(Starlette(routes=[Route("/{path:path}", send)])) as stranger:
        elsewhere = stranger.url.replace("127.0.0.1", "localhost") + "/weights"
        hub.fail("/resolve/.*weights", status=302, headers={"location": elsewhere}, times=None)
        get(large)
    assert heard == [None]
    assert {one.headers.get("authorization") for one in hub.requests if "/resolve/" in one.path} == {
        f"Bearer {hub.token}"
    }
    assert_whole(workspace)
