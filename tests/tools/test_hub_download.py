"""Downloading into the workspace, against a local Hub with the unmodified client."""

import hashlib

import pytest
from ml_intern.tools import HubDownloadTool
from saving import assert_survives_saving

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
        ({"repo_type": "bucket"}, ValueError, "`repo_type` is dataset, model or space"),
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
    with pytest.raises(OSError, match=r"the files of dataset acme/reviews"):
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


def test_it_survives_saving():
    assert_survives_saving(HubDownloadTool, "huggingface_hub")
