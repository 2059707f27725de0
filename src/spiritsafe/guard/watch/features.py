"""What an account draws off, as one number: features of the gateway's log, by account."""

import difflib
from collections.abc import Callable, Mapping, Sequence

from spiritsafe.errors import UsageError
from spiritsafe.record import Exchange, prompt_digest, sent_text

BYTES_A_TOKEN = 4  # what English has on most tokenizers
Feature = Callable[[Sequence[Exchange]], float]


def answer_tokens(exchanges: Sequence[Exchange]) -> float:
    """Tokens of all that the account was sent.

    If the server did not count, or an answer broke off on its way, a token is taken for four bytes, rounded up.
    """
    return float(sum(_tokens(exchange) for exchange in exchanges))


def distinct_prompts(exchanges: Sequence[Exchange]) -> float:
    """Prompts that differ."""
    return float(len({prompt_digest(exchange.messages) for exchange in exchanges}))


def _tokens(exchange: Exchange) -> int:
    counted = exchange.usage.known and (exchange.usage.completion_tokens > 0 or not exchange.answer)
    if counted and exchange.sent is None:
        return exchange.usage.completion_tokens
    return -(-len(sent_text(exchange).encode(errors="replace")) // BYTES_A_TOKEN)


FEATURES: Mapping[str, Feature] = {"answer_tokens": answer_tokens, "distinct_prompts": distinct_prompts}
UNITS: Mapping[str, str] = {"answer_tokens": "tokens", "distinct_prompts": "prompts"}


def by_account(exchanges: Sequence[Exchange], accounts: Sequence[str], feature: str) -> dict[str, float]:
    """A feature of each account. Raises `UsageError` for an unknown feature, or an account that is not in the log.

    An account without an exchange is more likely misspelt than idle, and as a zero it would make others suspicious.
    """
    if feature not in FEATURES:
        near = difflib.get_close_matches(feature, FEATURES, n=1, cutoff=0.5)
        raise UsageError("watch.feature", f"no feature '{feature}'" + (f", did you mean '{near[0]}'?" if near else ""))
    own: dict[str, list[Exchange]] = {account: [] for account in accounts}
    for exchange in exchanges:
        if exchange.account in own:
            own[exchange.account].append(exchange)
    for account, asked in own.items():
        if not asked:
            known = dict.fromkeys(exchange.account for exchange in exchanges)
            near = difflib.get_close_matches(account, known, n=1, cutoff=0.6)
            hint = f"did you mean '{near[0]}'?" if near else f"it has {len(known)} accounts"
            raise UsageError("watch", f"account '{account}' has no exchange in the log", hint)
    return {account: FEATURES[feature](asked) for account, asked in own.items()}
