from __future__ import annotations

from prefix import prefix_holds, pytest_configure  # noqa: F401
