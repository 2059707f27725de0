"""A server in a thread."""

import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from urllib.request import urlopen

import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from spiritsafe.errors import RunError
from spiritsafe.guard.server import serve_forever, serving

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
