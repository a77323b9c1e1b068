"""What the model sees."""

from .artifacts import ArtifactStore
from .compaction import Summary
from .manager import ContextManager, Fill
from .overflow import Overflow, overflow_of
from .reading import ReadArtifactTool
from .render import Renderer
from .tokens import weigh

__all__ = [
    "ArtifactStore", "ContextManager", "Fill", "Overflow", "ReadArtifactTool", "Renderer", "Summary", "overflow_of",
    "weigh",
]  # fmt: skip
