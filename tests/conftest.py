"""What all tests share: no home, key or token of the person who runs them is seen or touched."""

from __future__ import annotations

import gc
import hashlib
import itertools
import math
import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from context.prefix import prefix_holds, pytest_configure  # noqa: F401 - what was sent stays sent, in every test
from hypothesis import settings

settings.register_profile("a busy machine", deadline=None)
settings.load_profile("a busy machine")

# The official client reads this once, when it is imported: no test may reach the real Hub, or wait for it.
os.environ["HF_ENDPOINT"] = "http://127.0.0.1:9"
# Tools keep answers below `XDG_CACHE_HOME`, each test its own; what else lies there by default stays where it is.
_CACHES = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
os.environ.setdefault("HF_HOME", str(_CACHES / "huggingface"))
os.environ.setdefault("MPLCONFIGDIR", str(_CACHES / "matplotlib"))

_KEYS = re.compile(r"(_API_KEY|_TOKEN|_SECRET|LLM_ENDPOINT|_BASE_URL|SLACK_.*)$")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--share", type=float, default=1.0, help="run this share of what was selected, 0 to 1 (default: all)"
    )
    parser.addoption("--draw", default="", help="any text: which ones --share takes (the same text, the same ones)")


@pytest.hookimpl(trylast=True)  # of what -m and -k have left
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    share, draw = config.getoption("--share"), config.getoption("--draw")
    if share < 1:
        order = sorted(items, key=lambda item: hashlib.sha256(f"{draw} {item.nodeid}".encode()).digest())
        left_out = {*order[math.ceil(share * len(order)) :]}
        config.hook.pytest_deselected(items=[item for item in items if item in left_out])
        items[:] = [item for item in items if item not in left_out]


def pytest_collection_finish() -> None:
    # What all tests share stays to the end: no collection of garbage looks at it again.
    gc.collect()
    gc.freeze()


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    cache = getattr(session.config, "cache", None)
    if cache is not None and not hasattr(session.config, "workerinput"):
        cache.set("exitstatus", int(exitstatus))  # `.ci/run` tells tests that failed from a run that broke off


@pytest.fixture(scope="session")
def homes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder for each test: pytest's own way to number them looks at all that there are, each time."""
    base = tmp_path_factory.mktemp("homes")
    return (base / str(number) for number in itertools.count())


@pytest.fixture(autouse=True)
def hermetic(monkeypatch: pytest.MonkeyPatch, homes: Iterator[Path]) -> Iterator[None]:
    for name in list(os.environ):
        if _KEYS.search(name):
            monkeypatch.delenv(name)
    (own := next(homes)).mkdir()
    monkeypatch.setenv("ML_INTERN_HOME", str(own))
    monkeypatch.setenv("XDG_CACHE_HOME", str(own.with_suffix(".cache")))
    monkeypatch.setenv("ML_INTERN_SHARE_TRACES", "0")
    monkeypatch.setenv("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    yield


@pytest.fixture
def short_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests in which something has to be killed that does not obey: 0.6 s until then. tests/execution/test_ending.py holds
    what it is by itself."""
    monkeypatch.setattr("ml_intern.execution.executor.GRACE_SECONDS", 0.6)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "a home"
