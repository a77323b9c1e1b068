"""One smolagents tool a file; each works by itself, in any agent.

Nothing is loaded before it is asked for: smolagents takes seconds to import.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .arxiv_search import ArxivSearchTool
    from .hub_download import HubDownloadTool
    from .hub_inspect_dataset import HubInspectDatasetTool
    from .hub_push import HubPushTool
    from .hub_search_datasets import HubSearchDatasetsTool
    from .notify import NotifyTool
    from .paper_graph import PaperGraphTool
    from .paper_read import PaperReadTool
    from .paper_resources import PaperResourcesTool
    from .python_sandbox import PythonSandboxTool
    from .semantic_scholar_search import SemanticScholarSearchTool

__all__ = [
    "ArxivSearchTool",
    "HubDownloadTool",
    "HubInspectDatasetTool",
    "HubPushTool",
    "HubSearchDatasetsTool",
    "NotifyTool",
    "PaperGraphTool",
    "PaperReadTool",
    "PaperResourcesTool",
    "PythonSandboxTool",
    "SemanticScholarSearchTool",
]

_FILES = {
    "ArxivSearchTool": "arxiv_search",
    "HubDownloadTool": "hub_download",
    "HubInspectDatasetTool": "hub_inspect_dataset",
    "HubPushTool": "hub_push",
    "HubSearchDatasetsTool": "hub_search_datasets",
    "NotifyTool": "notify",
    "PaperGraphTool": "paper_graph",
    "PaperReadTool": "paper_read",
    "PaperResourcesTool": "paper_resources",
    "PythonSandboxTool": "python_sandbox",
    "SemanticScholarSearchTool": "semantic_scholar_search",
}


def __getattr__(name: str) -> Any:
    if name not in _FILES:
        raise AttributeError(f"{__name__} has no {name!r}. It has: {', '.join(__all__)}.")
    import importlib

    return getattr(importlib.import_module(f"{__name__}.{_FILES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
