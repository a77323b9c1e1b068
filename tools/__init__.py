"""One smolagents tool a file; each works by itself, in any agent.

Nothing is loaded before it is asked for: smolagents takes seconds to import.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .arxiv_search import ArxivSearchTool
    from .evaluate_model import EvaluateModelTool
    from .github_code import GithubCodeTool
    from .hub_docs import HubDocsTool
    from .hub_download import HubDownloadTool
    from .hub_inspect_dataset import HubInspectDatasetTool
    from .hub_inspect_model import HubInspectModelTool
    from .hub_list_files import HubListFilesTool
    from .hub_push import HubPushTool
    from .hub_read_file import HubReadFileTool
    from .hub_repo import HubRepoTool
    from .hub_search_datasets import HubSearchDatasetsTool
    from .hub_search_models import HubSearchModelsTool
    from .notify import NotifyTool
    from .paper_graph import PaperGraphTool
    from .paper_read import PaperReadTool
    from .paper_resources import PaperResourcesTool
    from .python_sandbox import PythonSandboxTool
    from .semantic_scholar_search import SemanticScholarSearchTool
    from .training_config import TrainingConfigTool
    from .training_job import TrainingJobTool

__all__ = [
    "ArxivSearchTool",
    "EvaluateModelTool",
    "GithubCodeTool",
    "HubDocsTool",
    "HubDownloadTool",
    "HubInspectDatasetTool",
    "HubInspectModelTool",
    "HubListFilesTool",
    "HubPushTool",
    "HubReadFileTool",
    "HubRepoTool",
    "HubSearchDatasetsTool",
    "HubSearchModelsTool",
    "NotifyTool",
    "PaperGraphTool",
    "PaperReadTool",
    "PaperResourcesTool",
    "PythonSandboxTool",
    "SemanticScholarSearchTool",
    "TrainingConfigTool",
    "TrainingJobTool",
]

_FILES = {
    "ArxivSearchTool": "arxiv_search",
    "EvaluateModelTool": "evaluate_model",
    "GithubCodeTool": "github_code",
    "HubDocsTool": "hub_docs",
    "HubDownloadTool": "hub_download",
    "HubInspectDatasetTool": "hub_inspect_dataset",
    "HubInspectModelTool": "hub_inspect_model",
    "HubListFilesTool": "hub_list_files",
    "HubPushTool": "hub_push",
    "HubReadFileTool": "hub_read_file",
    "HubRepoTool": "hub_repo",
    "HubSearchDatasetsTool": "hub_search_datasets",
    "HubSearchModelsTool": "hub_search_models",
    "NotifyTool": "notify",
    "PaperGraphTool": "paper_graph",
    "PaperReadTool": "paper_read",
    "PaperResourcesTool": "paper_resources",
    "PythonSandboxTool": "python_sandbox",
    "SemanticScholarSearchTool": "semantic_scholar_search",
    "TrainingConfigTool": "training_config",
    "TrainingJobTool": "training_job",
}


def __getattr__(name: str) -> Any:
    if name not in _FILES:
        raise AttributeError(f"{__name__} has no {name!r}. It has: {', '.join(__all__)}.")
    import importlib

    return getattr(importlib.import_module(f"{__name__}.{_FILES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
