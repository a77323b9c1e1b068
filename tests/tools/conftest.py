"""A local Hub and an environment that points the official client at it, for the tests of the tools."""

import pytest
from huggingface_hub import constants

from ml_intern.execution.workspace import Workspace
from ml_intern.testing.hub import LocalHub, User

USERS = {
    "hf_local_token": User("tester", ("team",)),
    "hf_other_token": "other",
    "hf_reader": User("tester", role="read"),
}


@pytest.fixture(scope="session")
def running():
    """The Hub that is running, if any: two hundred tests share it, as starting and stopping one takes 0.2 s."""
    kept: list[LocalHub] = []
    yield kept
    for service in kept:
        service.close()


@pytest.fixture
def hub(running, tmp_path_factory, monkeypatch):
    """An empty Hub. `tester` is who the environment's token belongs to."""
    if not running:
        running.append(LocalHub(tmp_path_factory.mktemp("hub"), USERS).start())
    service = running[0]
    for key, value in service.environment().items():
        monkeypatch.setenv(key, value)
    # The tools must see to that by themselves, in every test anew.
    monkeypatch.delenv("HF_HUB_DISABLE_XET")
    constants.HF_HUB_DISABLE_XET = False
    yield service
    if service._server is None:  # the test closed it
        running.clear()
        return
    for repo in list(service.store.repos.values()):
        service.store.delete(repo)
    service.requests.clear()
    service._failures.clear()


@pytest.fixture
def workspace(tmp_path):
    root = tmp_path / "workspace"
    root.mkdir()
    return Workspace(root)
