"""A real HTTP server that misbehaves as told: busy, broken, cut, reset, silent; it remembers who asked when."""

import json
import socket
import struct
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

MODELS = {"data": [{"id": "m"}]}


@dataclass
class Rough:
    """`behave(seed, attempt)` names what happens to a request; "" is an answer. `asks[seed]` are its times."""

    behave: Callable[[int, int], str]
    pause_s: float = 0.0
    url: str = ""
    asks: dict[int, list[float]] = field(default_factory=lambda: defaultdict(list))
    at_once: int = 0
    most_at_once: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def address(self) -> str:
        """The model's address."""
        return f"openai:m@{self.url}/v1"

    @property
    def num_asks(self) -> int:
        """All requests so far."""
        with self.lock:
            return sum(map(len, self.asks.values()))


def completion(body: dict[str, Any]) -> bytes:
    """A chat completion of four tokens that repeats the seed; the prompt counts as six."""
    answer = {"message": {"role": "assistant", "content": f"seed {body['seed']}"}, "finish_reason": "stop"}
    return json.dumps({"choices": [answer], "usage": {"prompt_tokens": 6, "completion_tokens": 4}}).encode()


@contextmanager
def rough(behave: Callable[[int, int], str] = lambda seed, attempt: "", *, pause_s: float = 0.0) -> Iterator[Rough]:
    """Serve while the block runs."""
    state = Rough(behave, pause_s)

    class Handler(BaseHTTPRequestHandler):
        """One connection."""

        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            """Say nothing."""

        def do_GET(self) -> None:
            """The list of models."""
            self.reply(200, json.dumps(MODELS).encode())

        def do_POST(self) -> None:
            """A chat completion, or what `behave` says."""
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            with state.lock:
                state.asks[body["seed"]].append(time.monotonic())
                attempt = len(state.asks[body["seed"]])
                state.at_once += 1
                state.most_at_once = max(state.most_at_once, state.at_once)
            try:
                time.sleep(state.pause_s)
                self.act(state.behave(body["seed"], attempt), completion(body))
            finally:
                with state.lock:
                    state.at_once -= 1

        def act(self, what: str, good: bytes) -> None:
            """Answer, or fail as told."""
            if what == "busy":
                self.reply(429, b'{"error": {"message": "slow down"}}', ("retry-after", "0.4"))
            elif what == "error":
                self.reply(500, b"oops")
            elif what == "refused":
                self.reply(400, b'{"error": {"message": "too long"}}')
            elif what == "broken":
                self.reply(200, good[: len(good) // 2])
            elif what == "cut":
                self.send_response(200)
                self.send_header("content-length", str(len(good)))
                self.end_headers()
                self.wfile.write(good[:5])
                self.close_connection = True
            elif what == "reset":
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                self.connection.close()
                self.close_connection = True
            elif what == "silent":
                time.sleep(1.5)
                self.close_connection = True
            else:
                self.reply(200, good)

        def reply(self, status: int, content: bytes, *headers: tuple[str, str]) -> None:
            """A whole answer."""
            self.send_response(status)
            for name, value in (("content-length", str(len(content))), *headers):
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

    server = Server(("127.0.0.1", 0), Handler)
    state.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class Server(ThreadingHTTPServer):
    """Clients that vanish are part of the test: nothing is printed about them."""

    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, *_: object) -> None:
        """Say nothing."""
