"""`python -m ml_intern` in a process that has litellm already; says on standard error what there was besides until the first token.

python first_token_child.py WORDS...
"""

from __future__ import annotations

import io
import json
import os
import sys
import time

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
import litellm

# Its own import is not counted, nor what it imports when it is first asked.
for _ in litellm.completion("openai/gpt-4o", [{"role": "user", "content": "x"}], mock_response="x", stream=True):
    pass
SINCE = time.process_time(), time.monotonic()


class Out(io.TextIOBase):
    """Where the command line writes to: notes when the first piece of an answer comes."""

    said = ""

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        if not self.said and '"model_delta"' in text:
            type(self).said = json.dumps({"cpu": time.process_time() - SINCE[0], "wall": time.monotonic() - SINCE[1]})
        return len(text)


def main() -> int:
    out = sys.stdout = Out()
    from ml_intern.cli import main as run

    try:
        return run()
    finally:
        print(out.said, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
