"""What a refusal means: for one request or for all, for good or for a while; in the words of real servers."""

from typing import Any

import httpx2
import pytest

from spiritsafe.errors import EndpointError
from spiritsafe.models.http import Answer
from spiritsafe.models.refused import Busy, NoRoute, Refused, check, reason_of


def meaning(status: int, body: Any) -> str:
    """`busy`, a kind, `all` or `route`; "" for an answer that is none."""
    answer = Answer(status, httpx2.Headers(), body, str(body))
    try:
        check("where", answer, reason_of(answer), key="refused the key", hint="set it")
    except Busy:
        return "busy"
    except Refused as refused:
        return refused.kind
    except NoRoute:
        return "route"
    except EndpointError:
        return "all"
    return ""


def error(message: str, **more: Any) -> dict[str, Any]:
    """An error in OpenAI's form."""
    return {"error": {"message": message, **more}}


@pytest.mark.parametrize(
    ("status", "body", "what"),
    [
        (200, {"choices": []}, ""),
        (200, None, "busy"),
        (200, error("Provider returned error: overloaded", code=502), "busy"),
        (200, error("Overloaded", type="overloaded_error"), "busy"),
        (200, error("too many", code="429"), "busy"),
        (200, {"choices": [{"error": {"code": 502, "message": "gone"}}]}, "busy"),
        (200, error("who knows"), "model"),
        (200, {"object": "error", "message": "bad", "code": 400}, "request"),
        (429, error("slow down"), "busy"),
        (429, error("You exceeded your current quota, see billing.", status="RESOURCE_EXHAUSTED"), "busy"),
        (429, error("You exceeded your current quota", code="insufficient_quota"), "all"),
        (402, error("Insufficient Balance"), "all"),
        (400, error("Your credit balance is too low"), "all"),
        (500, None, "busy"),
        (520, None, "busy"),
        (529, None, "busy"),
        (401, error("Incorrect API key"), "all"),
        (403, error("country not supported"), "all"),
        (403, error("Your input was flagged"), "filter"),
        (400, error("The response was filtered", code="content_filter"), "filter"),
        (400, error("no", innererror={"code": "ResponsibleAIPolicyViolation"}), "filter"),
        (400, error("Input data may contain it.", code="data_inspection_failed"), "filter"),
        (403, error("Your account is blocked"), "all"),
        (400, error("This model's maximum context length is 8192 tokens."), "request"),
        (500, error("litellm.ContextWindowExceededError: context_length_exceeded"), "request"),
        (413, None, "request"),
        (400, error("bad"), "request"),
        (422, {"detail": "bad"}, "request"),
        (404, {"detail": "no model"}, "route"),
        (302, None, "all"),
        (307, {"choices": [{"message": {"content": "x"}}]}, "all"),
    ],
)  # fmt: skip
def test_a_refusal_has_the_kind_of_who_can_mend_it(status: int, body: Any, what: str) -> None:
    assert meaning(status, body) == what
