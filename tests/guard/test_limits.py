"""What a connection may take."""

import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from urllib.parse import urlsplit

import httpx2
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.routing import Route

from spiritsafe.guard import limits
from spiritsafe.guard.server import serving


async def here(request: Request) -> PlainTextResponse:
    """Answers at once."""
    return PlainTextResponse("here")


async def much(request: Request) -> StreamingResponse:
    """More than a client takes that does not read."""

    async def pieces() -> Iterator[bytes]:  # type: ignore[misc]
        for _ in range(1000):
            yield b"x" * 100_000

    return StreamingResponse(pieces())


APP = Starlette(routes=[Route("/", here, methods=["GET", "POST"]), Route("/much", much)])


@contextmanager
def connected(url: str, sent: bytes = b"") -> Iterator[socket.socket]:
    """A connection on which something was sent."""
    address = urlsplit(url)
    with socket.create_connection((address.hostname or "", address.port or 0), timeout=10) as connection:
        connection.sendall(sent)
        yield connection


def ended_after_s(connection: socket.socket, drip: bytes = b"") -> float:
    """Seconds until the server closed it, while `drip` is sent to it."""
    started_s = time.monotonic()
    connection.settimeout(0.05)
    while time.monotonic() - started_s < 10:
        try:
            if drip:
                connection.sendall(drip)
            if not connection.recv(65536):
                break
        except TimeoutError:
            continue
        except OSError:
            break
    return time.monotonic() - started_s


@pytest.mark.parametrize("begin", [b"", b"GET / HTTP/1.1\r\n", b"GET / HTTP/1.1\r\nhost: x\r\n\r\nGET / HTTP/1.1\r\n"])
def test_half_a_head_has_its_time_however_it_drips(monkeypatch: pytest.MonkeyPatch, begin: bytes) -> None:
    monkeypatch.setattr(limits, "HEAD_S", 0.5)
    with serving(APP) as url, connected(url, begin) as connection:
        assert 0.3 < ended_after_s(connection, b"x" if begin else b"") < 3


def test_half_a_body_that_nobody_waits_for_has_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "BODY_S", 0.5)
    with (
        serving(APP) as url,
        connected(url, b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 99999\r\n\r\n") as connection,
    ):
        assert 0.3 < ended_after_s(connection, b"x") < 3


def test_a_reader_that_does_not_read_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "READ_S", 0.5)
    with serving(APP) as url, connected(url, b"GET /much HTTP/1.1\r\nhost: x\r\n\r\n") as connection:
        time.sleep(2)
        received = 0
        try:
            while piece := connection.recv(1 << 20):
                received += len(piece)
        except OSError:
            pass
        assert received < 50_000_000


def test_half_sent_requests_make_nobody_deaf_and_do_not_cut_what_is_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "most_connections", lambda: 40)
    with serving(APP) as url, ExitStack() as stack, httpx2.Client(trust_env=False) as client:
        for _ in range(100):
            stack.enter_context(connected(url, b"GET / HTTP/1.1\r\n"))
        started_s = time.monotonic()
        assert [client.get(url).text for _ in range(3)] == ["here"] * 3
        assert time.monotonic() - started_s < 2


def test_connections_leave_files_for_the_log(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("resource.getrlimit", lambda _: (256, 4096))
    assert limits.most_connections() == 160
