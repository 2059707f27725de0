"""One bounded request over HTTP: no redirects, no proxies, at most 16 MiB of answer however it is packed.

What a server sends is hostile: a few kilobytes of gzip can hold gigabytes, and a server that drips would hold a
thread for ever.
"""

import json
import ssl
import time
import weakref
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import httpx2

from spiritsafe.errors import printable
from spiritsafe.models.keys import key_of, masked, server_of

# Answers with 20 candidates a token at 32,768 tokens are near 8 MiB of JSON.
MOST_BYTES = 16 * 2**20
PIECE = 2**16


class NoAnswer(Exception):
    """The server could not be reached, broke off, or sent more than is read; the words say which."""


@dataclass(frozen=True)
class Answer:
    """A whole answer; `data` is its JSON, or None if it is none."""

    status: int
    headers: httpx2.Headers
    data: Any
    text: str


class Client:
    """A server's address with its key, which goes to no other host and is masked in every answer's words."""

    def __init__(self, url: str) -> None:
        self.url = server_of(url)
        self.key = key_of(self.url)
        headers = {"accept-encoding": "gzip", **({"authorization": f"Bearer {self.key}"} if self.key else {})}
        # As many connections as threads ask: a wait for a free one would count against a request's time.
        limits = httpx2.Limits(max_connections=None)
        self._client = httpx2.Client(
            headers=headers, verify=_authorities(), trust_env=False, limits=limits, follow_redirects=False
        )
        weakref.finalize(self, self._client.close)

    def send(self, method: str, where: str, body: dict[str, Any] | None, timeout_s: float) -> Answer:
        """The answer to one request, whatever its status. Raises `NoAnswer`."""
        ends_s, content = time.monotonic() + timeout_s, bytearray()
        try:
            with self._client.stream(method, where, json=body, timeout=timeout_s) as answer:
                for piece in _unpacked(answer):
                    content += piece
                    if len(content) > MOST_BYTES:
                        raise NoAnswer(f"sent more than {MOST_BYTES >> 20} MiB")
                    # The client's own timeout is for each read.
                    if time.monotonic() > ends_s:
                        raise NoAnswer(f"is out of reach (no whole answer within {timeout_s:g} s)")
        except httpx2.HTTPError as error:
            said = masked(str(error), self.key) or type(error).__name__
            raise NoAnswer(f"is out of reach ({said})") from None
        except zlib.error:
            raise NoAnswer("sent gzip that cannot be unpacked") from None
        return Answer(answer.status_code, answer.headers, _json(bytes(content)), self.shown(bytes(content)))

    def shown(self, content: bytes | str) -> str:
        """The beginning of what a server said, on one line, printable, without the key."""
        text = content if isinstance(content, str) else content[: 16 * 2**10].decode(errors="replace")
        flat = " ".join(masked(text, self.key).split())[:300]
        return printable(flat)


@cache
def _authorities() -> ssl.SSLContext:
    """Whose certificates are trusted, read once: that takes longer than opening a client."""
    return httpx2.create_ssl_context(trust_env=False)


def _unpacked(answer: httpx2.Response) -> Iterator[bytes]:
    """The body, unpacked in pieces of at most 64 KiB: the client's own unpacking has no bound."""
    packed = answer.headers.get("content-encoding", "identity").strip().lower()
    if packed in ("", "identity"):
        yield from answer.iter_raw()
        return
    if packed not in ("gzip", "x-gzip", "deflate"):
        raise NoAnswer(f"sent an answer packed as '{packed[:20]}', which was not asked for")
    unpack = zlib.decompressobj(wbits=47)  # 32 + 15: gzip or zlib, as its header says
    for raw in answer.iter_raw():
        while raw:
            yield unpack.decompress(raw, PIECE)
            raw = unpack.unconsumed_tail
    yield unpack.flush(PIECE)


def _json(content: bytes) -> Any:
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        return None
