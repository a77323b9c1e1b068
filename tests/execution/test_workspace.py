"""The host's way into a folder that belongs to code nobody trusts."""

from __future__ import annotations

import hashlib
import os
import socket
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ml_intern.execution import Workspace, WorkspaceError
from ml_intern.execution.workspace import open_beneath, walk_beneath


@pytest.fixture
def space(tmp_path: Path) -> Workspace:
    (tmp_path / "outside.txt").write_text("secret")
    return Workspace(tmp_path / "work")


def test_reads_and_writes_by_relative_and_by_inside_path(space: Workspace) -> None:
    space.write_bytes("a/b/c.bin", b"\0data")
    assert space.read_bytes("/workspace/a/b/c.bin") == b"\0data"
    assert space.read_bytes(space.root / "a/b/c.bin") == b"\0data"
    assert space.read_bytes("./a//b/../b/c.bin") == b"\0data"
    space.write_bytes("a/b/c.bin", b"x")
    assert space.read_bytes("a/b/c.bin") == b"x"
    assert space.exists("a/b")
    assert space.exists("a/b/c.bin")
    assert not space.exists("a/nothing")
    assert space.listdir("a") == ["b"]
    assert space.walk() == ["a/b/c.bin"]
    assert space.walk("a/b") == ["a/b/c.bin"]


@pytest.mark.parametrize(
    "path",
    [
        "../outside.txt",
        "/etc/passwd",
        "a/../../outside.txt",
        "..",
        "/workspace/../etc/passwd",
        "/workspacex/y",
        "/",
        "a\0b",
    ],
)
def test_paths_that_lead_out_are_refused(space: Workspace, path: str) -> None:
    for action in (space.relative, space.read_bytes, space.listdir, space.walk, lambda p: space.write_bytes(p, b"")):
        with pytest.raises(WorkspaceError):
            action(path)
    assert not space.exists(path)


def test_links_are_never_followed(space: Workspace) -> None:
    (space.root / "sub").mkdir()
    (space.root / "file").symlink_to("/etc/passwd")
    (space.root / "up").symlink_to("..")
    (space.root / "folder").symlink_to("/etc")
    (space.root / "sub" / "inner").symlink_to("../real")
    (space.root / "real").write_text("x")
    for path in ("file", "up/outside.txt", "folder/passwd", "sub/inner", "/workspace/folder/passwd"):
        with pytest.raises(WorkspaceError, match="link"):
            space.read_bytes(path)
        with pytest.raises(WorkspaceError, match="link"):
            space.write_bytes(path, b"overwritten")
        assert not space.exists(path)
    with pytest.raises(WorkspaceError):
        space.write_bytes("folder/new/file", b"x")
    assert space.walk() == ["real"]
    assert Path("/etc/passwd").read_text().startswith("root:")


def test_only_regular_files(space: Workspace) -> None:
    os.mkfifo(space.root / "fifo")
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(space.root / "s"))
    (space.root / "folder").mkdir()
    for path in ("fifo", "s", "folder", "."):
        with pytest.raises(WorkspaceError):
            space.read_bytes(path)
        with pytest.raises(WorkspaceError):
            space.write_bytes(path, b"")
    assert space.walk() == []
    listener.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="making devices takes root")
def test_devices_are_refused(space: Workspace) -> None:
    os.mknod(space.root / "null", 0o20666, os.makedev(1, 3))
    with pytest.raises(WorkspaceError, match="no regular file"):
        space.read_bytes("null")
    with pytest.raises(WorkspaceError):
        space.write_bytes("null", b"x")


@pytest.mark.parametrize("name", ["a b", "é", "-rf", "~", "$HOME", "a\nb", "*", "C:\\x", "x" * 255, ".hidden", "'\""])
def test_hard_names(space: Workspace, name: str) -> None:
    space.write_bytes(f"d/{name}", name.encode())
    assert space.walk("d") == [f"d/{name}"]
    assert space.read_bytes(f"d/{name}") == name.encode()


def test_a_name_that_is_too_long_or_not_text(space: Workspace) -> None:
    with pytest.raises(WorkspaceError):
        space.write_bytes("x" * 256, b"")
    (space.root / os.fsdecode(b"\xff\xfe")).write_bytes(b"x")
    assert space.read_bytes(space.walk()[0]) == b"x"


def test_copy_out_digests_what_it_copied(space: Workspace, tmp_path: Path) -> None:
    space.write_bytes("model/w.bin", b"weights")
    space.write_bytes("model/sub/c.json", b"{}")
    (space.root / "model" / "link").symlink_to("/etc/passwd")
    digests = space.copy_out("model", tmp_path / "frozen")
    assert [(d.path, d.size, d.sha256) for d in digests] == [
        ("model/sub/c.json", 2, hashlib.sha256(b"{}").hexdigest()),
        ("model/w.bin", 7, hashlib.sha256(b"weights").hexdigest()),
    ]
    assert sorted(p.name for p in (tmp_path / "frozen").rglob("*")) == ["c.json", "sub", "w.bin"]
    (single,) = space.copy_out("model/w.bin", tmp_path / "new" / "w")
    assert (tmp_path / "new" / "w").read_bytes() == b"weights"
    assert single.path == "model/w.bin"
    with pytest.raises(FileExistsError):
        space.copy_out("model", tmp_path / "frozen")
    with pytest.raises(WorkspaceError, match="no such file"):
        space.copy_out("nothing", tmp_path / "n")


def test_copy_in(space: Workspace, tmp_path: Path) -> None:
    (tmp_path / "data" / "empty").mkdir(parents=True)
    (tmp_path / "data" / "x.csv").write_text("1")
    space.copy_in(tmp_path / "data", "in")
    space.copy_in(tmp_path / "outside.txt", "in/y")
    assert space.walk() == ["in/x.csv", "in/y"]
    assert space.exists("in/empty")
    (space.root / "trap").symlink_to(tmp_path)
    with pytest.raises(WorkspaceError):
        space.copy_in(tmp_path / "data", "trap/in")


def test_a_huge_file_is_read_only_as_far_as_allowed(space: Workspace, tmp_path: Path) -> None:
    with (space.root / "sparse").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(WorkspaceError, match="more than 1000"):
        space.read_bytes("sparse", limit=1000)
    with space.open_read("sparse") as file:
        assert file.read(3) == b"\0\0\0"


def test_without_openat2_the_same_is_refused(space: Workspace, tmp_path: Path) -> None:
    space.write_bytes("a/b", b"x")
    (space.root / "l").symlink_to("a")
    root = os.open(space.root, os.O_RDONLY)
    for way in (open_beneath, walk_beneath):
        os.close(way(root, "a/b", os.O_RDONLY))
        for path in ("l/b", "l", "../outside.txt", "a/../../outside.txt"):
            with pytest.raises(OSError):
                os.close(way(root, path, os.O_RDONLY))
    os.close(root)


@given(st.text(st.sampled_from("ab/.\\ ~é\n"), max_size=20))
def test_no_text_leads_out(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    space = Workspace(tmp_path_factory.getbasetemp() / "fixed")
    try:
        plain = space.relative(text)
    except WorkspaceError:
        return
    assert (space.root / plain).resolve().is_relative_to(space.root)


def test_errors_say_what_why_and_what_next(space: Workspace) -> None:
    with pytest.raises(WorkspaceError) as caught:
        space.read_bytes("gone.txt")
    assert str(caught.value) == "gone.txt (there is no such file)\nList the folder to see what there is."
    assert caught.value.remedy
