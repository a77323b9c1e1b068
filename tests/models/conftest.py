"""What the tests of the models share. litellm takes seconds to import: the first test that needs it loads it."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import threading

import pytest
from gguf_files import smollm2
from smolagents.models import ChatMessage, MessageRole

from ml_intern.models import EndpointModel, LazyLitellm

FAST = (0.01, 0.02, 0.03)


@pytest.fixture(scope="session")
def litellm():
    return LazyLitellm.load()


@pytest.fixture
def model_at(litellm):
    """Makes a model for a local endpoint that remembers what it told its listeners, in order."""

    def make(llm, model_id="hosted_vllm/m", **options) -> EndpointModel:
        told: list[tuple[str, str]] = []
        return Remembering(told, model_id, f"{llm.url}/v1", "key", **{"retry_seconds": FAST, "timeout": 20, **options})

    return make


class Remembering(EndpointModel):
    """An `EndpointModel` whose `told` holds its deltas and retries."""

    def __init__(self, told, *arguments, **options) -> None:
        super().__init__(*arguments, **options)
        self.told = told
        self.on_delta = lambda text: told.append(("delta", text))
        self.on_retry = lambda why: told.append(("retry", why))


@pytest.fixture
def say():
    def message(text, role=MessageRole.USER):
        return ChatMessage(role, [{"type": "text", "text": text}])

    return message


@pytest.fixture
def silent_port():
    """A port whose server greets like a mail server and hangs up."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        closing = threading.Event()

        def serve():
            while not closing.is_set():
                connection, _ = server.accept()
                with connection:
                    connection.sendall(b"220 mail ready\r\n")

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        port = server.getsockname()[1]
        yield port
        closing.set()
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        thread.join(timeout=5)


@pytest.fixture(scope="session")
def weights():
    """A file with SmolLM2-135M-Instruct."""
    pytest.importorskip("xllamacpp", reason="llama.cpp is not installed: the extra [embedded]")
    try:
        return smollm2()
    except (OSError, subprocess.TimeoutExpired) as error:
        pytest.skip(f"no real weights: {error}")
