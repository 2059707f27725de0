"""Draw answers off a teacher behind an OpenAI-compatible address, with the official `openai` client.

Bounded concurrency; each request carries its own seed, so that a request already answered is known.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from spiritsafe.errors import EndpointError, MissingExtra
from spiritsafe.models.base import Request

if TYPE_CHECKING:
    from openai import OpenAI


def draw_off(
    url: str,
    model: str,
    requests: Sequence[tuple[str, Request]],
    *,
    concurrency: int = 64,
    tick: Callable[[], None] = lambda: None,
) -> list[str]:
    """Answers to all (key, request) pairs, in order. Raises `EndpointError` with what the server said."""
    clients = {key: _client(url, key) for key in {key for key, _ in requests}}

    def one(pair: tuple[str, Request]) -> str:
        answer = _ask(clients[pair[0]], url, model, pair[1])
        tick()
        return answer

    with ThreadPoolExecutor(concurrency) as pool:
        return list(pool.map(one, requests))


def _client(url: str, key: str) -> "OpenAI":
    try:
        from openai import OpenAI
    except ModuleNotFoundError:
        raise MissingExtra("openai", "torch") from None
    return OpenAI(base_url=url, api_key=key, max_retries=4, timeout=600)


def _ask(client: "OpenAI", url: str, model: str, request: Request) -> str:
    import openai

    sampling = request.sampling
    try:
        answer = client.chat.completions.create(
            model=model,
            messages=[m.model_dump() for m in request.messages],  # type: ignore[misc]
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            max_tokens=sampling.max_tokens,
            seed=sampling.seed,
            stop=list(sampling.stop) or None,
        )
    except openai.AuthenticationError:
        raise EndpointError(url, "refused the key (401)", "use a key of this server") from None
    except openai.APIStatusError as error:
        raise EndpointError(url, f"answered {error.status_code}: {error.message}") from None
    except openai.APIConnectionError as error:
        raise EndpointError(url, f"is out of reach ({error})", "is the server running?") from None
    return answer.choices[0].message.content or ""
