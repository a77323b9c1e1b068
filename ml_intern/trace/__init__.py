"""The trace is the state: rows, appending them, reading them back, sharing them."""

from .journal import Journal
from .read import last_end, note_of, read_rows
from .recorder import TraceRecorder, compaction_of
from .restore import restore
from .restored import Lineage, OpenAction, Restored, RestoredCall, RestoredRun, Seen
from .share import share

__all__ = [
    "Journal",
    "Lineage",
    "OpenAction",
    "Restored",
    "RestoredCall",
    "RestoredRun",
    "Seen",
    "TraceRecorder",
    "compaction_of",
    "last_end",
    "note_of",
    "read_rows",
    "restore",
    "share",
]
