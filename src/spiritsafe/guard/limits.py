"""What a connection may take: time for its head, its body and its reader, and how many there may be.

uvicorn alone waits for ever for the second half of a request, and for a reader that does not read.
"""

import asyncio
import resource

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

HEAD_S = 10.0
BODY_S = 70.0  # a little more than the app takes to say so itself
READ_S = 60.0
# Descriptors that are kept for the log, the keys, the model's files and connections to upstreams.
KEPT_FILES = 96
LEAST_CONNECTIONS = 32


def most_connections() -> int:
    """How many connections fit into this process's open files."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = 65_536 if soft == resource.RLIM_INFINITY else soft
    return max(LEAST_CONNECTIONS, most - KEPT_FILES)


class Patient(H11Protocol):
    """An HTTP/1.1 connection whose patience ends.

    Of too many, the oldest that waits for a request is closed: first of all, or of its own address if that has
    three quarters of them. If none waits, the new one is closed.
    """

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Make room, then wait for a head."""
        super().connection_made(transport)
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._make_room()
        self._watch()

    def data_received(self, data: bytes) -> None:
        """Whatever comes, the time that is left for the whole does not grow."""
        super().data_received(data)
        self._watch()

    def on_response_complete(self) -> None:
        """Of a request whose body nobody waited for, the rest has its time too."""
        super().on_response_complete()
        self._watch()

    def pause_writing(self) -> None:
        """The client does not read."""
        super().pause_writing()
        self._start("read", READ_S)

    def resume_writing(self) -> None:
        """The client reads again."""
        super().resume_writing()
        self._stop("read")

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing is waited for any more."""
        for name in list(self._timers):
            self._stop(name)
        super().connection_lost(exc)

    def _unsupported_upgrade_warning(self) -> None:
        """Nothing: a client that asks for another protocol gets its answer in this one, as RFC 9110, 7.8 has it."""

    @property
    def waits(self) -> bool:
        """Whether no request of this connection is being answered."""
        return self.cycle is None or self.cycle.response_complete

    def _watch(self) -> None:
        if self.transport.is_closing():
            return
        state = self.conn.their_state
        idle = self.timeout_keep_alive_task is not None  # between two requests another, longer patience holds
        self._start("head", HEAD_S) if state is h11.IDLE and not idle else self._stop("head")
        self._start("body", BODY_S) if state is h11.SEND_BODY else self._stop("body")

    def _start(self, name: str, seconds: float) -> None:
        if name not in self._timers:
            self._timers[name] = self.loop.call_later(seconds, self.transport.abort)

    def _stop(self, name: str) -> None:
        if timer := self._timers.pop(name, None):
            timer.cancel()

    def _make_room(self) -> None:
        most, share = most_connections(), most_connections() * 3 // 4
        if len(self.connections) <= share:
            return
        here = [each for each in self.connections if isinstance(each, Patient) and not each.transport.is_closing()]
        mine = [each for each in here if each.client and self.client and each.client[0] == self.client[0]]
        if len(here) <= most and len(mine) <= share:
            return
        waiting = [each for each in (mine if len(mine) > share else here) if each is not self and each.waits]
        min(waiting, key=lambda each: each.ends_at_s, default=self).transport.abort()

    @property
    def ends_at_s(self) -> float:
        """When the patience with a connection that waits ends, on the loop's clock; 0 if it is closing anyway."""
        timer = self._timers.get("head") or self.timeout_keep_alive_task
        return timer.when() if timer else 0.0
