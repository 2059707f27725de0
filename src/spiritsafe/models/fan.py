"""The same requests fanned out over a Ray cluster: actors hold a model each, opened from its address.

Requests go out in leases. An actor's answers come back with its whole lease or not at all: where an actor
or its node dies, its lease is handed out again, so that nothing is lost or doubled. Only the driver, the
process that runs this, sees answers. Needs the `[ray]` extra on every node.
"""

import logging
import os
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from spiritsafe import threads
from spiritsafe.errors import MissingExtra, ModelError, SpiritsafeError
from spiritsafe.models import open_model
from spiritsafe.models.base import Request
from spiritsafe.models.many import Keep, Take, answer_all, take_from
from spiritsafe.record import Exchange

START_S = 300.0
DEATHS = 3


def fan_out(
    address: str, requests: Iterable[Request], *, actors: int, lease: int = 16, batch: int = 64, cluster: str = ""
) -> Iterator[Exchange]:
    """Answers as they come, in no order; a request that a server leaves unanswered has a failed exchange.

    Raises `ModelError` where the model cannot be opened, or a lease kills every actor that takes it.
    """
    with Fan(address, actors=actors, lease=lease, batch=batch, cluster=cluster) as fan:
        yield from fan.results(take_from(requests))


@dataclass
class _Actor:
    """An actor's handle; `lease` is what it has, None while it is opening the model."""

    handle: Any
    lease: "_Lease | None" = None


@dataclass
class _Lease:
    """Requests that go out together, and how often an actor died over them."""

    requests: Sequence[Request]
    deaths: int = 0


@dataclass(frozen=True)
class _Broken:
    """An error of ours as plain strings: exceptions with arguments of their own do not travel."""

    where: str
    what: str
    hint: str


class Fan:
    """The actors, while the block runs. `digest` is the model's, the same on every node.

    `cluster` is Ray's address; empty means the one that RAY_ADDRESS names or that runs here, else a new one.
    """

    def __init__(self, address: str, *, actors: int, lease: int = 16, batch: int = 64, cluster: str = "") -> None:
        self.address, self.num_actors, self.lease, self.batch, self.cluster = address, actors, lease, batch, cluster
        self.digest = ""
        self._busy: dict[Any, _Actor] = {}
        self._idle: list[_Actor] = []
        self._returned: deque[_Lease] = deque()
        self._deaths = 0
        self._own = False

    def __enter__(self) -> "Fan":
        ray = _ray()
        self._own = not ray.is_initialized()
        if self._own:
            _init(self.cluster)
        try:
            for _ in range(self.num_actors):
                self._start()
            while not self.digest:
                for _ in self._ended():
                    raise AssertionError("no lease was handed out")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        ray = _ray()
        for actor in (*self._busy.values(), *self._idle):
            with suppress(Exception):  # the cluster may be gone: nothing is left to end
                ray.kill(actor.handle)
        self._busy, self._idle = {}, []
        if self._own:
            ray.shutdown()

    def results(self, take: Take, *, ends_s: float | None = None) -> Iterator[Exchange]:
        """Results as they come, of all that `take` gives; nothing is handed out after the monotonic time `ends_s`."""
        while True:
            while self._idle and (lease := self._next(take, ends_s)):
                actor = self._idle.pop()
                actor.lease = lease
                self._busy[actor.handle.answer.remote(lease.requests)] = actor
            if not any(actor.lease for actor in self._busy.values()) and self._idle:
                return
            yield from self._ended()

    def answer_all(self, take: Take, keep: Keep, *, ends_s: float | None = None) -> None:
        """As `many.answer_all`."""
        for result in self.results(take, ends_s=ends_s):
            keep(result)

    def _next(self, take: Take, ends_s: float | None) -> _Lease | None:
        if self._returned:
            return self._returned.popleft()
        if ends_s is not None and time.monotonic() > ends_s:
            return None
        requests = tuple(take(self.lease))
        return _Lease(requests) if requests else None

    def _ended(self) -> Iterator[Exchange]:
        """Wait until an actor has ended what it did; yields the results of its lease."""
        ray = _ray()
        working = any(actor.lease for actor in self._busy.values())
        done, _ = ray.wait(list(self._busy), num_returns=1, timeout=None if working else START_S)
        if not done:
            what = f"no actor could open it within {START_S:g} s"
            raise ModelError(self.address, what, "has the cluster free processors for it?")
        for ref in done:
            actor = self._busy.pop(ref)
            lease, actor.lease = actor.lease, None
            try:
                found = ray.get(ref)
            except (
                ray.exceptions.RayActorError,
                ray.exceptions.ObjectLostError,
                ray.exceptions.NodeDiedError,
            ) as error:
                self._bury(lease, error)
                continue
            self._deaths = 0
            if isinstance(found, _Broken):
                raise ModelError(found.where, found.what, found.hint)
            self._idle.append(actor)
            if isinstance(found, str):
                self._know(found)
            else:
                yield from found

    def _start(self) -> None:
        handle = _actor_class().remote(self.address, self.batch)
        self._busy[handle.open.remote()] = _Actor(handle)

    def _know(self, digest: str) -> None:
        if self.digest and digest != self.digest:
            what = f"is another model on another node: {digest[:12]} and {self.digest[:12]}"
            raise ModelError(self.address, what, "give every node the same weights")
        self.digest = digest

    def _bury(self, lease: _Lease | None, error: Exception) -> None:
        self._deaths += 1
        if lease:
            lease.deaths += 1
            self._returned.append(lease)
        if self._deaths > DEATHS * self.num_actors or (lease and lease.deaths >= DEATHS):
            first = str(error).strip().splitlines()[0]
            raise ModelError(self.address, f"its actors die again and again ({first})", "see Ray's logs")
        self._start()


class _Teller:
    """What runs in an actor: one model."""

    def __init__(self, address: str, batch: int) -> None:
        self.address, self.batch = address, batch

    def open(self) -> "str | _Broken":
        """Open the model; its digest."""
        try:
            self.model = open_model(self.address, batch=self.batch)
        except SpiritsafeError as error:
            return _Broken(error.where, error.what, error.hint)
        return self.model.digest

    def answer(self, requests: Sequence[Request]) -> "list[Exchange] | _Broken":
        """The results of one lease."""
        found: list[Exchange] = []
        try:
            answer_all(self.model, take_from(requests), found.append)
        except SpiritsafeError as error:
            return _Broken(error.where, error.what, error.hint)
        return found


def _actor_class() -> Any:
    # Spread: a node that dies then takes as few actors with it as it can.
    return _ray().remote(num_cpus=1, max_restarts=0, scheduling_strategy="SPREAD")(_Teller)


def _init(cluster: str) -> None:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    quiet = {"include_dashboard": False, "logging_level": logging.ERROR, "log_to_driver": False}
    ray = _ray()
    try:
        with threads.unset_for_children():  # an actor has one processor
            ray.init(address=cluster or None, configure_logging=True, **quiet)
    except (ConnectionError, ValueError, RuntimeError) as error:
        first = str(error).strip().splitlines()[0]
        raise ModelError(cluster or "ray", f"cannot be joined ({first})", "ray start --head starts one") from None


def _ray() -> Any:
    try:
        import ray
        import ray.exceptions
    except ModuleNotFoundError:
        raise MissingExtra("ray", "ray") from None
    return ray
