"""Tools that are not ours: of MCP servers, and from the Hub. They go through the same router and gate as all others.

`mcp` and what comes with it take most of a second to import: nothing here does so before a server is started.
"""

from .hub import HubTool, HubTools
from .known import KnownTools
from .lending import Borrowed, Borrowing
from .mcp import McpServers, McpTool
from .pinned import Pinned
from .servers import McpServer, read_servers

__all__ = [
    "Borrowed",
    "Borrowing",
    "HubTool",
    "HubTools",
    "KnownTools",
    "McpServer",
    "McpServers",
    "McpTool",
    "Pinned",
    "read_servers",
]
