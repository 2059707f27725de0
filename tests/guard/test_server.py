"""A server in a thread."""

import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from urllib.request import urlopen

import httpx2
import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from spiritsafe.errors import RunError
from spiritsafe.guard.server import check_address, serve_forever, serving
from spiritsafe.record import Exchange, read_jsonl

APP = Starlette(routes=[Route("/", lambda request: PlainTextResponse("here"))])


@pytest.fixture
def taken_port() -> Iterator[int]:
    """A loopback port that someone listens on."""
    with socket.create_server(("127.0.0.1", 0)) as holder:
        yield holder.getsockname()[1]


def test_it_answers_while_the_block_runs_and_ends_with_it() -> None:
    with serving(APP) as url, urlopen(url) as response:
        assert response.read() == b"here"
    with pytest.raises(OSError, match="refused"):
        urlopen(url)
    assert "spiritsafe-gateway" not in [thread.name for thread in threading.enumerate()]


def test_an_error_in_the_block_stops_it_too() -> None:
    with pytest.raises(KeyboardInterrupt), serving(APP):
        raise KeyboardInterrupt
    assert "spiritsafe-gateway" not in [thread.name for thread in threading.enumerate()]


def test_a_port_in_use_is_named(taken_port: int) -> None:
    with pytest.raises(RunError, match=f"127.0.0.1:{taken_port}: cannot listen here: Address already in use"):
        serving(APP, taken_port).__enter__()
    with pytest.raises(RunError, match="choose another"):
        serve_forever(APP, "127.0.0.1", taken_port)


def test_a_port_that_cannot_be_is_named() -> None:
    with pytest.raises(RunError, match="70000: is no port"):
        serve_forever(APP, "127.0.0.1", 70000)
    with pytest.raises(RunError, match="is no port"):
        check_address("127.0.0.1", 70000)


FOREVER = """
import signal
from spiritsafe.guard.server import serve_forever
signal.signal(signal.SIGINT, signal.default_int_handler)
async def app(scope, receive, send):
    await receive()
    await send({"type": "lifespan.startup.complete"})
    print("up", flush=True)
    await receive()
    await send({"type": "lifespan.shutdown.complete"})
try:
    serve_forever(app, "127.0.0.1", 0)
except KeyboardInterrupt:
    print("interrupted")
"""


def test_ctrl_c_ends_a_server_in_the_foreground_as_a_keyboard_interrupt() -> None:
    with subprocess.Popen([sys.executable, "-c", FOREVER], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=20)[0] == "interrupted\n"


TERMINATED = """
import sys
from pathlib import Path
from spiritsafe.guard import server
from spiritsafe.guard.app import create_app
from spiritsafe.guard.keys import Keys
from spiritsafe.models import open_model
server.DRAIN_S = float(sys.argv[3])
keys = Keys(Path(sys.argv[1]) / "keys")
print(keys.create("alice"), flush=True)
class Telling:
    address, digest = "telling", "0" * 64
    def generate(self, requests, *, on_exchange=None, on_text=None):
        print("asked", flush=True)
        return open_model("fake:slow=2").generate(requests)
app = create_app(Telling(), keys=keys, log=Path(sys.argv[1]) / "log.jsonl", name="m")
server.serve_forever(app, "127.0.0.1", int(sys.argv[2]))
"""


@pytest.mark.parametrize(("drain_s", "ends"), [(60.0, "data: [DONE]"), (0.1, "shutting down")])
def test_sigterm_answers_what_is_open_for_a_while_and_ends_with_no_word(
    tmp_path: Path, drain_s: float, ends: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = holder.getsockname()[1]
    words = [sys.executable, "-c", TERMINATED, str(tmp_path), str(port), str(drain_s)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        key = process.stdout.readline().strip()
        up(port)
        body = {"model": "m", "messages": [{"role": "user", "content": "x"}], "stream": True}
        with ThreadPoolExecutor(1) as pool:
            asked = pool.submit(
                httpx2.post, f"http://127.0.0.1:{port}/v1/chat/completions", json=body, timeout=600, trust_env=False,
                headers={"authorization": f"Bearer {key}"},
            )  # fmt: skip
            assert process.stdout.readline() == "asked\n"
            process.send_signal(signal.SIGTERM)
            said = process.communicate(timeout=600)[1]
            assert (asked.result().status_code == 200) == (ends == "data: [DONE]")
    assert process.returncode == 0
    assert "Traceback" not in said
    [logged] = read_jsonl(tmp_path / "log.jsonl", Exchange)
    assert (logged.account, logged.error_kind) == ("alice", "" if ends == "data: [DONE]" else "passing")


def up(port: int) -> None:
    """Wait until somebody listens."""
    for _ in range(1200):
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.05)
    raise AssertionError("nobody listens")
