"""`files`: a session's workspace, listed and copied, whatever the code left there."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from ml_intern.cli import main

ONE, TWO = "11111111-aaaa-4aaa-8aaa-111111111111", "11112222-bbbb-4bbb-8bbb-222222222222"


@pytest.fixture
def sessions(home: Path, tmp_path: Path) -> Path:
    secret = tmp_path / "secret.txt"
    secret.write_text("top secret")
    for name in (ONE, TWO):
        (home / "sessions" / name / "workspace").mkdir(parents=True)
    root = home / "sessions" / ONE / "workspace"
    (root / "model").mkdir()
    (root / "model" / "weights.bin").write_bytes(b"w" * 2000)
    (root / "report.md").write_text("# Report")
    (root / ".cache").mkdir()
    (root / ".cache" / "blob").write_text("cached")
    (root / "link").symlink_to(secret)
    (root / "folder").symlink_to(tmp_path)
    (root / "bad\x1b[31m\nname").write_text("x")
    os.mkfifo(root / "pipe")
    return home


def files(home: Path, *words: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    code = main(["files", *words, "--home", str(home)])
    said = capsys.readouterr()
    return code, said.out, said.err


def test_a_listing_names_regular_files_and_no_others(sessions: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = files(sessions, ONE, capsys=capsys)
    assert code == 0
    lines = out.splitlines()
    assert [line.split("  ")[-1] for line in lines[:-1]] == [r"bad\x1b[31m\nname", "model/weights.bin", "report.md"]
    assert "2,000  model/weights.bin" in out and lines[-1].split()[0] == "2,009"
    assert "\x1b" not in out
    code, out, _ = files(sessions, ONE[:6], "--json", "--all", capsys=capsys)
    assert {"path": ".cache/blob", "bytes": 6} in [json.loads(line) for line in out.splitlines()]


def test_a_copy_holds_what_was_listed(sessions: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "out" / "here"
    code, out, _ = files(sessions, ONE, "--to", str(target), capsys=capsys)
    assert code == 0 and out.startswith("3 files, 2,009 bytes, copied to ")
    copied = sorted(path.relative_to(target).as_posix() for path in target.rglob("*") if not path.is_dir())
    assert copied == ["bad\x1b[31m\nname", "model/weights.bin", "report.md"]
    assert not any(path.is_symlink() for path in target.rglob("*"))
    code, _, err = files(sessions, ONE, "--to", str(target), capsys=capsys)
    assert code == 1 and "there already" in err
    assert (target / "report.md").read_text() == "# Report"


def test_a_copy_of_named_paths(sessions: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = files(
        sessions, ONE, "model", "model/weights.bin", "--json", "--to", str(tmp_path / "m"), capsys=capsys
    )
    [row] = [json.loads(line) for line in out.splitlines()]
    assert code == 0 and row["path"] == "model/weights.bin" and row["bytes"] == 2000 and len(row["sha256"]) == 64
    assert (tmp_path / "m" / "model" / "weights.bin").read_bytes() == b"w" * 2000


@pytest.mark.parametrize(
    "path", ["link", "folder", "folder/secret.txt", "../workspace", "/etc/passwd", "pipe", "gone"]
)
def test_links_and_paths_that_lead_out_are_refused(
    sessions: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], path: str
) -> None:
    for more in ((), ("--to", str(tmp_path / "copy"))):
        code, out, err = files(sessions, ONE, path, *more, capsys=capsys)
        assert code == 1 and path.split("/")[-1] in err and "secret" not in out
    assert not (tmp_path / "copy").exists()


def test_which_session_is_meant_has_to_be_clear(
    sessions: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, why in (
        ("1111", "2 begin so"),
        ("9", "there are 2"),
        ("", "there are 2"),
        ("../sessions", "there are 2"),
    ):
        code, _, err = files(sessions, name, capsys=capsys)
        assert code == 1 and why in err and "Newest: " in err
    assert files(sessions, TWO, capsys=capsys)[:2] == (0, f"{0:>15}  in {sessions / 'sessions' / TWO / 'workspace'}\n")
    inside = sessions / "sessions" / TWO / "workspace" / "copy"
    assert files(sessions, TWO, "--to", str(inside), capsys=capsys)[0] == 1
    (sessions / "sessions" / TWO / "workspace").rmdir()
    (sessions / "sessions" / TWO / "workspace").symlink_to(tmp_path)
    assert files(sessions, TWO, capsys=capsys)[0] == 1


def test_git_repositories_are_not_copied(sessions: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`git status` in the copy must not run what the code wrote: configuration names programs, hooks are programs."""
    root = sessions / "sessions" / ONE / "workspace"
    for name in (".git", "model/.GIT", "bare"):
        for part in ("HEAD", "config", "hooks/post-checkout", "objects/aa", "refs/heads/main"):
            (root / name / part).parent.mkdir(parents=True, exist_ok=True)
            (root / name / part).write_text("[core]\n\tfsmonitor = touch /tmp/out\n")
    (root / "linked").mkdir()
    (root / "linked" / ".git").write_text("gitdir: /tmp/x")
    (root / "model" / ".gitignore").write_text("*.pyc")
    target = tmp_path / "copy"
    code, out, err = files(sessions, ONE, "--all", "--to", str(target), capsys=capsys)
    assert code == 0 and out.startswith("5 files") and err.startswith("16 files of git repositories are left out")
    copied = {path.relative_to(target).as_posix() for path in target.rglob("*") if path.is_file()}
    assert copied == {".cache/blob", "bad\x1b[31m\nname", "model/weights.bin", "model/.gitignore", "report.md"}
