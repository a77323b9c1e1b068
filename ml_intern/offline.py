"""Working without a network: what is off then, and how that is said.

What must never happen here: a name is looked up, or a packet sent, but to what the user named himself.
"""

from __future__ import annotations

import os
import sys
from typing import Any

from .errors import InternError

VARIABLE = "ML_INTERN_OFFLINE"
_QUIET = {
    VARIABLE: "1",
    "HF_HUB_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "DO_NOT_TRACK": "1",
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
}
_ON_THE_NETWORK = (
    "arxiv_",
    "hub_",
    "paper_",
    "semantic_scholar_",
    "github_",
    "web_",
    "visit_",
    "wikipedia_",
    "notify",
)
_INSTALLS = "install_packages"


class Offline(InternError):
    """Something needs the network, and the session was begun without one."""

    def __init__(self, what: str) -> None:
        super().__init__(
            f"{what} needs the network", f"--offline ({VARIABLE}) is set", "Do without it, or begin without --offline."
        )


def is_offline() -> bool:
    """Whether `ML_INTERN_OFFLINE` says so."""
    return os.environ.get(VARIABLE, "").strip().lower() not in ("", "0", "false", "no", "off")


def go_offline() -> None:
    """For this process and those it starts: the official clients are told as well, with their own variables."""
    os.environ.update(_QUIET)
    constants = sys.modules.get("huggingface_hub.constants")
    if constants is not None:  # imported before, it has read its variable already
        constants.__dict__["HF_HUB_OFFLINE"] = True


def needs_network(tool: Any) -> bool:
    """Whether a tool is of no use without a network: by its name, as it may come from anywhere."""
    return tool.name == _INSTALLS or tool.name.startswith(_ON_THE_NETWORK)
