"""Serving an ASGI app: in a thread on loopback while a block runs, or in the foreground."""

import asyncio
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from types import FrameType

import uvicorn
from starlette.types import ASGIApp

from spiritsafe.errors import RunError
from spiritsafe.guard.limits import Patient

START_S = 10.0
# What is open when a server is told to stop has so long to be answered; then so long to be read.
DRAIN_S = 20.0
GRACE_S = 5
QUEUE = 2048
ACCEPTED = 32  # connections taken at once, before any is looked at: fewer than the files that are kept free
IDLE_S = 75  # load balancers use a connection again for a minute


@contextmanager
def serving(app: ASGIApp, port: int = 0) -> Iterator[str]:
    """Serve on 127.0.0.1 while the block runs; yields `http://127.0.0.1:PORT` (clients add `/v1`).

    Port 0 takes a free one. Signals stay with the main thread. Raises `RunError` where the port is in use.
    """
    with closing(_bound("127.0.0.1", port)) as listener:
        server = _server(app)
        thread = threading.Thread(target=server.run, args=([listener],), name="spiritsafe-gateway", daemon=True)
        thread.start()
        try:
            _wait(server, thread)
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()


def serve_forever(app: ASGIApp, host: str, port: int, *, idle_s: int = IDLE_S) -> None:
    """Serve until a signal. Ctrl-C is raised again as `KeyboardInterrupt`, SIGTERM as `SystemExit(0)`.

    An idle connection is closed after `idle_s` seconds. Raises `RunError` where the port is in use.
    """
    with closing(_bound(host, port)) as listener:
        before = signal.signal(signal.SIGTERM, _end)
        try:
            _server(app, idle_s).run([listener])
        finally:
            signal.signal(signal.SIGTERM, before)


def check_address(host: str, port: int) -> None:
    """Raise `RunError` if nothing can listen here now: to be known before a model is loaded."""
    _bound(host, port).close()


class _Server(uvicorn.Server):
    """A server that lets the app finish what is open before it closes connections."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        for listener in sockets or []:
            listener.listen(QUEUE)  # the system's own queue stays long

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for server in self.servers:
            server.close()
        drain = getattr(getattr(self.config.app, "state", None), "drain", None)
        if drain is not None:
            for connection in list(self.server_state.connections):
                connection.shutdown()
            await asyncio.get_running_loop().run_in_executor(None, drain, DRAIN_S)
        await super().shutdown(sockets)


def _end(number: int, frame: FrameType | None) -> None:
    sys.exit(0)


def _bound(host: str, port: int) -> socket.socket:
    where = f"{host}:{port}"
    if not 0 <= port < 1 << 16:
        raise RunError(where, "is no port", "take one from 0 to 65535")
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except OSError as error:
        raise RunError(where, f"is no address to listen on ({error})") from None
    listener = socket.socket(family, kind)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(QUEUE)
    except OSError as error:
        listener.close()
        raise RunError(
            where, f"cannot listen here: {error.strerror}", "stop what holds the port or choose another"
        ) from None
    return listener


def _server(app: ASGIApp, idle_s: int = IDLE_S) -> uvicorn.Server:
    return _Server(
        uvicorn.Config(
            app,
            loop="asyncio",
            http=Patient,
            ws="none",
            lifespan="on",
            log_level="warning",
            access_log=False,
            proxy_headers=False,
            server_header=False,
            timeout_keep_alive=idle_s,
            backlog=ACCEPTED,
            timeout_graceful_shutdown=GRACE_S,
        )
    )


def _wait(server: uvicorn.Server, thread: threading.Thread) -> None:
    ends_s = time.monotonic() + START_S
    while not server.started:
        if not thread.is_alive() or time.monotonic() > ends_s:
            raise RunError("gateway", "did not start", "see the messages above")
        time.sleep(0.005)
