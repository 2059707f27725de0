"""The test double: deterministic, and exact about its own probabilities."""

import math
from collections import Counter

import pytest

from spiritsafe.errors import ModelError, UsageError
from spiritsafe.models import open_model
from spiritsafe.models.base import Model, Request, ask, user
from spiritsafe.models.fake import END, END_ID, WORDS, unigram_of
from spiritsafe.record import Message, Sampling


def answer(address: str, text: str, **settings: object) -> str:
    """One answer's text."""
    [exchange] = open_model(address).generate([Request(user(text), Sampling.model_validate(settings))])
    return exchange.answer


def test_fakes_are_models() -> None:
    assert isinstance(open_model("fake:echo"), Model)


def test_echo_answers_with_the_last_user_turn() -> None:
    turns = (*user("first"), Message(role="assistant", content="no"), *user(" second  turn "))
    [exchange] = open_model("fake:echo").generate([Request(turns, Sampling(), account="a")])
    assert (exchange.answer, exchange.account, exchange.finish_reason) == (" second  turn ", "a", "stop")


def test_fixed_answers_its_text_whatever_is_asked() -> None:
    assert answer("fake:fixed=a=b, c", "x") == "a=b, c"


def test_an_answer_is_cut_at_the_first_stop() -> None:
    assert answer("fake:echo", "one two three", stop=["three", " two"]) == "one"


def test_an_answer_at_max_tokens_says_that_it_is_cut() -> None:
    [exchange] = open_model("fake:echo").generate([Request(user("one two three"), Sampling(max_tokens=2))])
    assert (exchange.answer, exchange.finish_reason, exchange.usage.completion_tokens) == ("one two ", "length", 2)


def test_slow_takes_its_time_for_each_request() -> None:
    exchanges = open_model("fake:slow=0.01").generate([Request(user(t), Sampling()) for t in "ab"])
    assert [exchange.answer for exchange in exchanges] == ["a", "b"]
    assert all(exchange.elapsed_s >= 0.01 for exchange in exchanges)


def test_text_grows_word_by_word_to_the_answer() -> None:
    pieces: list[tuple[int, str]] = []
    seen: list[str] = []
    requests = ask([user("one  two"), user("three")], Sampling())
    open_model("fake:echo").generate(
        requests, on_text=lambda i, piece: pieces.append((i, piece)), on_exchange=lambda e: seen.append(e.answer)
    )
    assert pieces == [(0, "one  "), (0, "two"), (1, "three")]
    assert seen == ["one  two", "three"]


def test_random_answers_depend_on_seed_and_prompt_and_on_nothing_else() -> None:
    requests = ask([user("a"), user("b")], Sampling(seed=1), n=2)
    together = open_model("fake:random").generate(requests)
    alone = [open_model("fake:random").generate([request])[0] for request in requests]
    assert [e.answer for e in together] == [e.answer for e in alone]
    assert len({e.answer for e in together}) == 4


def test_random_scores_its_own_answers_as_it_drew_them() -> None:
    model = open_model("fake:random")
    exchanges = model.generate(ask([user("a")], Sampling(seed=1), n=20))
    assert [s.logprobs for s in model.score(exchanges)] == [e.logprobs for e in exchanges]
    stripped = [e.model_copy(update={"token_ids": None, "logprobs": None}) for e in exchanges]
    assert [s.token_ids for s in model.score(stripped)] == [e.token_ids for e in exchanges]


def test_the_distribution_sums_to_one_at_every_position() -> None:
    model = open_model("fake:random,bias=3")
    [exchange] = model.generate([Request(user("a"), Sampling(max_tokens=3, seed=0))])
    [scores] = model.score([exchange], top_k=len(WORDS) + 1)
    for position in scores.top_logprobs:
        assert math.isclose(sum(math.exp(p) for p in position), 1.0)
        assert list(position) == sorted(position, reverse=True)


def test_random_draws_words_and_lengths_as_often_as_it_says() -> None:
    exchanges = open_model("fake:random").generate(ask([user("a")], Sampling(seed=0, max_tokens=1000), n=2000))
    ids = [i for e in exchanges for i in e.token_ids or ()]
    counts, num_words = Counter(ids), len(ids) - len(exchanges)
    assert counts[END_ID] == len(exchanges)
    assert num_words / len(exchanges) == pytest.approx(1 / END, rel=0.08)
    for word, p in enumerate(unigram_of(0).probabilities):
        assert abs(counts[word] - num_words * p) < 4.5 * math.sqrt(num_words * p * (1 - p))


def test_another_bias_is_another_model() -> None:
    plain, biased = open_model("fake:random"), open_model("fake:random,bias=7")
    assert plain.digest != biased.digest
    exchanges = plain.generate(ask([user("a")], Sampling(seed=0), n=200))
    own, other = (sum(sum(s.logprobs) for s in model.score(exchanges)) for model in (plain, biased))
    assert own > other


def test_only_random_can_score_and_only_its_own_words() -> None:
    [exchange] = open_model("fake:echo").generate([Request(user("zebra"), Sampling())])
    with pytest.raises(ModelError, match="has no log-probabilities"):
        open_model("fake:echo").score([exchange])
    with pytest.raises(ModelError, match=r"'zebra' .* is not in its vocabulary"):
        open_model("fake:random").score([exchange])


@pytest.mark.parametrize("address", ["fake:ekho", "fake:slow=x", "fake:random,bias=", "fake:random,bias=-1"])
def test_an_unknown_form_is_named_with_those_that_exist(address: str) -> None:
    with pytest.raises(UsageError, match="fake:echo"):
        open_model(address)
