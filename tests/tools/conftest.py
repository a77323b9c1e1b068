"""A local Hub and an environment that points the official client at it, for the tests of the tools."""

import os
from pathlib import Path

import pytest

from ml_intern.execution.workspace import Workspace
from ml_intern.testing.hub import LocalHub, User


@pytest.fixture
def hub(tmp_path, monkeypatch):
    users = {
        "hf_local_token": User("tester", ("team",)),
        "hf_other_token": "other",
        "hf_reader": User("tester", role="read"),
    }
    with LocalHub(tmp_path / "hub", users) as service:
        for key, value in service.environment().items():
            monkeypatch.setenv(key, value)
        monkeypatch.delenv("HF_HUB_DISABLE_XET")  # the tools must see to that by themselves
        yield service
        os.environ.pop("HF_HUB_DISABLE_XET", None)  # where they did


@pytest.fixture
def workspace(tmp_path):
    root = tmp_path / "workspace"
    root.mkdir()
    return Workspace(root)


def lay(root: Path, files: dict[str, bytes]) -> None:
    """Writes files under `root`, parents included."""
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
