"""litellm, when it is needed and not before, and as it has to be set up for us."""

from __future__ import annotations

import importlib
import logging
import os
import threading
from types import ModuleType
from typing import Any


class LazyLitellm:
    """litellm, imported when first needed: it takes seconds and some 180 MB."""

    _lock = threading.Lock()
    _module: ModuleType | None = None

    @classmethod
    def load(cls) -> ModuleType:
        with cls._lock:
            if cls._module is None:
                # Without this the import looks its price table up on the internet, and waits when there is none.
                os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
                cls._module = importlib.import_module("litellm")
                cls._module.suppress_debug_info = True
                # It starts an event loop for each chunk, some 2 ms; whole answers are still logged.
                cls._module.disable_streaming_logging = True
                # Tokens are counted without a download: without a network it tries for 20 s.
                cls._module.disable_hf_tokenizer_download = True
                if "LITELLM_LOG" not in os.environ:  # it writes to the terminal what it raises as well
                    logging.getLogger("LiteLLM").handlers = [logging.NullHandler()]
            return cls._module

    @classmethod
    def loaded(cls) -> bool:
        return cls._module is not None

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # asked for by `copy`, `pickle` and `inspect`: no reason to load it
            raise AttributeError(name)
        return getattr(self.load(), name)
