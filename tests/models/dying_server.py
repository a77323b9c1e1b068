"""A chat server that is killed where it is told to: `python dying_server.py PORT ANSWER BYTE DELAY`.

It answers step `k` of a conversation (as many answers of the model are in it) with code that only depends on `k`. While it
writes answer number ANSWER (0: never) it kills itself, uncleanly, after BYTE bytes of the response, headers included.
DELAY is what each answer takes, in seconds.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

STEPS = 50


def code(step: int) -> str:
    if step == STEPS:
        return "Done.\n<code>\nfinal_answer(total)\n</code>"
    start = "total = 0\n" if step == 1 else ""
    return f"Step {step}.\n<code>\n{start}total += {step}\nprint('step', {step}, total)\n</code>"


def stream(text: str) -> bytes:
    def event(choices, **more):
        chunk = {"id": "1", "created": 1, "model": "m", "object": "chat.completion.chunk", "choices": choices, **more}
        return b"data: " + json.dumps(chunk).encode() + b"\n\n"

    def delta(finish=None, **delta):
        return event([{"index": 0, "delta": delta, "finish_reason": finish}])

    pieces = [delta(role="assistant", content="")]
    pieces += [delta(content=text[at : at + 5]) for at in range(0, len(text), 5)]
    pieces += [delta("stop"), event([], usage={"prompt_tokens": 50, "completion_tokens": 20, "total_tokens": 70})]
    return b"".join([*pieces, b"data: [DONE]\n\n"])


def response(step: int) -> bytes:
    body = stream(code(step))
    head = f"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    return head.encode() + body


class Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["content-length"])))
        step = 1 + sum(message["role"] == "assistant" for message in request["messages"])
        said = response(step)
        time.sleep(DELAY)
        if step == DIES_AT:
            self.wfile.write(said[:BYTE])
            self.wfile.flush()
            os.kill(os.getpid(), signal.SIGKILL)
        self.wfile.write(said)
        self.close_connection = True

    def do_GET(self) -> None:
        body = b'{"data": [{"id": "m"}]}'
        self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % len(body) + body)
        self.close_connection = True

    def log_message(self, *args) -> None:
        pass


if __name__ == "__main__":
    DIES_AT, BYTE, DELAY = int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])
    server = ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler)
    print(server.server_address[1], flush=True)
    server.serve_forever()
