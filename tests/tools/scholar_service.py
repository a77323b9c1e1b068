"""The local Semantic Scholar, for the tests of the tools that ask it."""

import pytest

from ml_intern.testing.scholar import LocalScholar


@pytest.fixture(scope="session")
def running_scholar():
    with LocalScholar(keys=("s2-secret",)) as service:
        yield service


@pytest.fixture
def scholar(running_scholar, monkeypatch, tmp_path):
    """Nothing asked yet, nothing failing, nothing kept from other tests."""
    monkeypatch.setenv("SEMANTIC_SCHOLAR_API_URL", running_scholar.url)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    running_scholar.requests.clear()
    running_scholar._failures.clear()
    running_scholar.hidden.clear()
    return running_scholar
