"""Where code runs: a real Python in a jail, the tools on the host, a pipe in between."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ml_intern.execution.e2b import E2BExecutor
    from ml_intern.execution.e2b_sandbox import E2BUnavailable
    from ml_intern.execution.executor import CodeInterrupted, JailExecutor, JailOutput, WorkerLost
    from ml_intern.execution.gpus import Gpus, GpusUnavailable, find_gpus
    from ml_intern.execution.jail import Jail, JailUnavailable, Limits, find_jail
    from ml_intern.execution.jobs import LocalJobs
    from ml_intern.execution.runner import JailRunner
    from ml_intern.execution.workspace import Workspace, WorkspaceError

_HOMES = {
    "CodeInterrupted": "executor", "JailExecutor": "executor", "JailOutput": "executor", "WorkerLost": "executor",
    "Gpus": "gpus", "GpusUnavailable": "gpus", "find_gpus": "gpus",
    "Jail": "jail", "JailUnavailable": "jail", "Limits": "jail", "find_jail": "jail",
    "Workspace": "workspace", "WorkspaceError": "workspace",
    "E2BExecutor": "e2b", "E2BUnavailable": "e2b_sandbox", "JailRunner": "runner",
    "LocalJobs": "jobs",
}  # fmt: skip
__all__ = [
    "CodeInterrupted",
    "E2BExecutor",
    "E2BUnavailable",
    "Gpus",
    "GpusUnavailable",
    "Jail",
    "JailExecutor",
    "JailOutput",
    "JailRunner",
    "JailUnavailable",
    "Limits",
    "LocalJobs",
    "WorkerLost",
    "Workspace",
    "WorkspaceError",
    "find_gpus",
    "find_jail",
]


def __getattr__(name: str) -> Any:
    """Loads on first use: the executor brings in smolagents, which takes two seconds."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
