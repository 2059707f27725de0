"""What a server's refusal means: for one request alone or for all, for good or passing. Pure functions.

Refused    this request alone, and asked again it fails again: `request`, the provider's own `filter`, `model`
Busy       may go well later: overload, limits of rate, a broken answer
neither    an `EndpointError` that concerns every request: the key, the money, the route, a redirect
"""

import re
import time
from collections.abc import Iterator
from email.utils import parsedate_to_datetime
from typing import Any

from spiritsafe.errors import EndpointError
from spiritsafe.models.http import Answer
from spiritsafe.record import ErrorKind

PASSING = frozenset({408, 425, 429, 500, 502, 503, 504, 507, 529, *range(520, 528)})
# Words of Azure, OpenAI, OpenRouter, Alibaba, Google and litellm; an account that is "blocked" is none of them.
FILTER = re.compile(
    r"content[ _-]?(filter|management policy|policy)|contentfilter|responsible ?ai|data_?inspection_?failed|"
    r"safety[ _](system|filter|setting|polic)|moderation|prohibited[ _]content|inappropriate content|"
    r"(input|prompt|message|request|content|text) (was|has been|is|were) (flagged|filtered|blocked)",
    re.IGNORECASE,
)
TOO_LONG = re.compile(
    r"context[ _](length|window|size)|maximum context|(prompt|input|request)s? (is|are|was)? ?too (long|large)|"
    r"too many (input )?tokens|string_above_max_length|exceeds? .{0,30}(context|max_model_len|token limit)",
    re.IGNORECASE,
)
# Of codes only: Google says "exceeded your current quota" of its limits a minute, too.
SPENT = re.compile(r"insufficient_(quota|balance|credit)|billing|payment_required|access_terminated", re.IGNORECASE)
NO_MONEY = re.compile(r"credit balance|insufficient (balance|credit|fund)", re.IGNORECASE)
LATER = re.compile(
    r"overload|rate.?limit|too many requests|timed? ?out|timeout|unavailable|try again|busy|capacity|"
    r"internal(_server)?[ _]error|server_error|resource_exhausted",
    re.IGNORECASE,
)


class Busy(EndpointError):
    """A refusal that may pass; `after_s` is how long the server asks to wait, `status` None if it said nothing."""

    def __init__(self, where: str, what: str, hint: str = "", *, status: int | None, after_s: float = 0.0) -> None:
        super().__init__(where, what, hint)
        self.status, self.after_s = status, after_s


class Refused(EndpointError):
    """One request's refusal, for good; `kind` says who can mend it, `param` which parameter it is about."""

    def __init__(self, where: str, what: str, hint: str = "", *, kind: ErrorKind, param: str = "") -> None:
        super().__init__(where, what, hint)
        self.kind, self.param = kind, param


class NoRoute(EndpointError):
    """The server knows no such route, or no such model."""


def check(where: str, answer: Answer, said: str, *, key: str, hint: str, wants_json: bool = True) -> None:
    """Raise what a refusal means; JSON without an error returns, and with `wants_json=False` any text.

    `said` is the server's reason; `key` and `hint` are what is told of a refused key.
    """
    error = error_of(answer.data)
    status = _status(answer.status, error)
    if status < 300 and error is None and (isinstance(answer.data, dict | list) or not wants_json):
        return
    words = _words(error) + " " + said
    what = " ".join(f"answered {answer.status}: {said}".split())
    if 300 <= status < 400:
        raise EndpointError(where, f"redirects ({status}) and is not followed", "name the new address itself")
    if FILTER.search(words) and status not in (401, 402, 404):
        raise Refused(where, what, kind="filter")
    if TOO_LONG.search(words) and status != 429:
        raise Refused(where, what, kind="request")
    if status in (401, 403):
        raise EndpointError(where, f"{key} ({status}){f': {said}' if said else ''}", hint)
    if status == 402 or SPENT.search(_words(error)) or NO_MONEY.search(said):
        raise EndpointError(where, what, "the provider wants money; what was answered is kept")
    if status in PASSING or (status < 300 and (error is None or LATER.search(words))):
        raise Busy(where, what, status=answer.status, after_s=retry_after_s(answer.headers.get("retry-after")))
    if status in (404, 405, 410, 501):
        raise NoRoute(where, what, "is this the server's address, and the model's name?")
    param = str((error or {}).get("param") or "")
    raise Refused(where, what, kind="model" if status < 300 or status >= 500 else "request", param=param)


def error_of(data: Any) -> dict[str, Any] | None:
    """What a body reports as an error, also within a 200 or within its first choice; None if nothing."""
    if not isinstance(data, dict):
        return None
    choices = data.get("choices")
    inner = choices[0].get("error") if isinstance(choices, list) and choices and isinstance(choices[0], dict) else None
    for found in (data.get("error"), inner, data if data.get("object") == "error" else None):
        if isinstance(found, dict) and found:
            return found
        if isinstance(found, str) and found:
            return {"message": found}
    return None


def reason_of(answer: Answer) -> str:
    """The server's own words, as it wrote them."""
    error = error_of(answer.data)
    if error is not None:
        return str(error.get("message") or error)
    if isinstance(answer.data, dict):
        for name in ("detail", "message", "error_description"):
            if answer.data.get(name):
                return str(answer.data[name])
    return answer.text


def retry_after_s(header: str | None) -> float:
    """Seconds that a `Retry-After` header asks for, given in seconds or as a date; 0 if it is absent or broken."""
    try:
        return max(0.0, float(header or 0))
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(str(header)).timestamp() - time.time())
    except (ValueError, OverflowError):
        return 0.0


def _status(status: int, error: dict[str, Any] | None) -> int:
    """The status, or what an error within a good answer says of it."""
    if error is None or status >= 300:
        return status
    for name in ("code", "status", "status_code"):
        text = str(error.get(name) or "")
        if text.isdecimal() and 400 <= int(text) < 600:
            return int(text)
    return status


def _words(error: dict[str, Any] | None) -> str:
    """Codes, types and statuses of an error, two levels deep."""
    return " ".join(_texts(error, 2)) if error else ""


def _texts(value: dict[str, Any], depth: int) -> Iterator[str]:
    for name, held in value.items():
        if isinstance(held, str) and name != "message":
            yield held[:200]
        elif isinstance(held, dict) and depth > 1:
            yield from _texts(held, depth - 1)
