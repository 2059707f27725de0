"""The exchange log of a gateway: what is served is on disk, and what could not be written is not served.

A spare file beside the log keeps as much disk as the texts under way need. If the disk is full, it is given up,
so that they can still be logged; until there is room for it again, nothing more is taken on.
"""

import logging
import os
import threading
from collections.abc import Sequence
from contextlib import suppress
from math import isfinite
from pathlib import Path

from spiritsafe.errors import RunError, writing
from spiritsafe.locks import locked
from spiritsafe.models.base import Request, failed
from spiritsafe.record import Exchange, append_jsonl

LOGGER = logging.getLogger("spiritsafe.guard")
LINE_BYTES = 2048  # what a line has beside its texts, generously
STEP_BYTES = 16_384  # the spare file grows by so much, so that most requests write nothing to it


class Unwritable(RunError):
    """The log cannot be written: nothing is served until it can; `what` is the system's reason."""


class Log:
    """Appends exchanges to a JSONL file, from any thread."""

    def __init__(self, path: Path) -> None:
        self.path, self._spare = path, path.with_name(f".{path.name}.spare.tmp")
        self._lock = threading.Lock()
        self._reserved = self._room = 0
        self._owed: list[Exchange] = []
        self._why = ""

    def check(self) -> None:
        """Raises `Unwritable` while the log cannot be written; what is owed to it is written as soon as it can."""
        with self._lock:
            if self._why:
                self._recover()

    def reserve(self, num_bytes: int) -> None:
        """Keep room for so many bytes more. Raises `Unwritable` where there is none."""
        with self._lock:
            if self._why:
                self._recover()
            self._grow(self._reserved + num_bytes)
            self._reserved += num_bytes

    def release(self, num_bytes: int) -> None:
        """Room that was reserved is not needed any more."""
        with self._lock:
            self._reserved -= num_bytes

    def keep(self, exchanges: Sequence[Exchange]) -> None:
        """Write exchanges, if need be in the spare file's room. Raises `Unwritable` where even that is too little."""
        with self._lock:
            self._write(exchanges)

    def owe(self, exchange: Exchange) -> None:
        """Write an exchange whose text is out already: now, or as soon as the log can be written."""
        with self._lock:
            self._owed.append(exchange)
            try:
                self._write([])
            except Unwritable:
                return

    def close(self) -> None:
        """Give up the spare file, and write what is owed; says so if even now it cannot."""
        with self._lock:
            self._give_up()
            if not self._owed:
                return
            try:
                self._write([])
            except Unwritable as error:
                LOGGER.error("%d exchanges that were sent in part are not in the log: %s", len(self._owed), error)

    def _write(self, exchanges: Sequence[Exchange]) -> None:
        try:
            append_jsonl(self.path, [*self._owed, *exchanges])
        except RunError as error:
            self._why = error.what
            self._give_up()
            try:
                append_jsonl(self.path, [*self._owed, *exchanges])
            except RunError:
                raise self._unwritable() from None
        self._owed.clear()

    def _recover(self) -> None:
        """Serve again if a line can be written and there is room for the texts under way."""
        why = self._why
        self._write([])
        try:
            with self.path.open("ab", buffering=0) as file, locked(file):
                before = file.seek(0, os.SEEK_END)
                try:
                    file.write(b" " * LINE_BYTES)
                finally:
                    file.truncate(before)
        except OSError:
            raise self._unwritable() from None
        self._grow(self._reserved + STEP_BYTES)
        self._why = "" if self._why == why else self._why

    def _grow(self, num_bytes: int) -> None:
        if num_bytes <= self._room:
            return
        want = -(-num_bytes // STEP_BYTES) * STEP_BYTES
        try:
            with writing(self._spare):
                self._spare.parent.mkdir(parents=True, exist_ok=True)
                handle = os.open(self._spare, os.O_CREAT | os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC, 0o600)
                with os.fdopen(handle, "ab", buffering=0) as file:
                    while (have := file.seek(0, os.SEEK_END)) < want:
                        # Random, since file systems that compress keep no room for zeros.
                        file.write(os.urandom(min(want - have, 64 * STEP_BYTES)))
        except RunError as error:
            self._why = error.what
            raise self._unwritable() from None
        self._room = want

    def _give_up(self) -> None:
        self._room = 0
        with suppress(OSError):
            self._spare.unlink()

    def _unwritable(self) -> Unwritable:
        return Unwritable(str(self.path), self._why, "nothing is served until it can be written")


def size_of(text: str) -> int:
    """Bytes that a text takes in a line at most: quotes and controls are escaped."""
    return 2 * len(text.encode(errors="replace")) if text.isprintable() else 6 * len(text.encode(errors="replace"))


def line_size(request: Request) -> int:
    """Bytes of a line with this request and no answer, at most."""
    return LINE_BYTES + sum(size_of(message.content) for message in request.messages)


def recordable(exchange: Exchange, request: Request) -> Exchange:
    """The exchange, or a failed one where no reader could read its line: half characters, numbers that are none."""
    texts = (exchange.answer, exchange.reasoning, exchange.error, exchange.model)
    try:
        "".join(texts).encode()
    except UnicodeEncodeError:
        return failed(exchange.model, exchange.model_digest, request, "the answer holds half a character", "model")
    if not all(map(isfinite, exchange.logprobs or ())):
        return failed(exchange.model, exchange.model_digest, request, "log-probabilities are not finite", "model")
    return exchange
