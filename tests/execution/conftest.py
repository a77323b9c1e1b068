"""Executors in real jails. What needs a kind of jail that this machine lacks is skipped, and says why."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from ml_intern.execution import JailExecutor
from ml_intern.execution.jail import Jail, try_bubblewrap, try_landlock

KINDS = {"bubblewrap": try_bubblewrap, "landlock": try_landlock}


@pytest.fixture(scope="session", params=sorted(KINDS))
def jail(request: pytest.FixtureRequest) -> Jail:
    """Each kind of jail in turn."""
    if why := KINDS[request.param]():
        pytest.skip(f"{request.param}: {why}")
    return Jail(request.param)


@pytest.fixture
def make() -> Iterator[Callable[..., JailExecutor]]:
    """Makes executors with the machine's own jail, or the one named, and cleans them up."""
    made = []

    def build(**arguments: Any) -> JailExecutor:
        made.append(JailExecutor(**arguments))
        return made[-1]

    yield build
    for executor in made:
        executor.cleanup()


@pytest.fixture(scope="module")
def shared() -> Iterator[JailExecutor]:
    """One executor for the tests of a file that leave nothing behind."""
    executor = JailExecutor()
    yield executor
    executor.cleanup()
