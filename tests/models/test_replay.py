"""Stored exchanges as a model."""

from pathlib import Path

import pytest

from spiritsafe.errors import DataError, ModelError
from spiritsafe.models import open_model
from spiritsafe.models.base import Request, ask, user
from spiritsafe.record import Exchange, Sampling, append_jsonl


@pytest.fixture
def stored(tmp_path: Path) -> tuple[str, list[Exchange]]:
    """A replay address, and the exchanges behind it: two prompts, the second with two seeds."""
    requests = [*ask([user("a")], Sampling(seed=1)), *ask([user("b")], Sampling(seed=1), n=2)]
    exchanges = open_model("fake:random").generate(requests)
    append_jsonl(tmp_path / "log.jsonl", exchanges)
    return f"replay:{tmp_path / 'log.jsonl'}", exchanges


def again(exchange: Exchange, **settings: object) -> Request:
    """The request that an exchange answered, with other settings."""
    return Request(exchange.messages, exchange.sampling.model_copy(update=settings))


def test_a_stored_exchange_is_given_again_as_it_was(stored: tuple[str, list[Exchange]]) -> None:
    address, exchanges = stored
    model = open_model(address)
    assert model.generate([again(e) for e in exchanges]) == exchanges
    assert model.digest == exchanges[0].model_digest


def test_it_is_given_under_the_account_that_asks(stored: tuple[str, list[Exchange]]) -> None:
    address, exchanges = stored
    request = Request(exchanges[0].messages, exchanges[0].sampling, account="bob")
    [given] = open_model(address).generate([request])
    [drawn] = open_model("fake:random").generate([request])
    assert (given.account, given.id, given.answer) == ("bob", drawn.id, drawn.answer)


def test_another_seed_is_given_the_only_stored_answer(stored: tuple[str, list[Exchange]]) -> None:
    address, exchanges = stored
    assert open_model(address).generate([again(exchanges[0], seed=99)]) == [exchanges[0]]


def test_several_stored_answers_are_not_guessed_between(stored: tuple[str, list[Exchange]]) -> None:
    address, exchanges = stored
    [found] = open_model(address).generate([again(exchanges[1], seed=99)])
    assert found.error_kind == "request"
    assert found.error.startswith("holds 2 answers to 'b'")


def test_a_new_prompt_and_other_settings_fail_alone(stored: tuple[str, list[Exchange]]) -> None:
    address, exchanges = stored
    new = [Request(user("new"), Sampling()), again(exchanges[0], temperature=0.5)]
    first, known, last = open_model(address).generate([new[0], again(exchanges[0]), new[1]])
    assert known == exchanges[0]
    for found in (first, last):
        assert (found.error_kind, found.answer) == ("request", "")
        assert "holds no answer to" in found.error


def test_stored_log_probabilities_are_its_scores(stored: tuple[str, list[Exchange]]) -> None:
    address, exchanges = stored
    assert [s.logprobs for s in open_model(address).score(exchanges)] == [e.logprobs for e in exchanges]
    with pytest.raises(ModelError, match="holds no log-probabilities"):
        open_model(address).score([exchanges[0].model_copy(update={"answer": "other"})])
    with pytest.raises(ModelError, match="top-k"):
        open_model(address).score(exchanges, top_k=1)


def test_exchanges_of_two_models_are_no_model(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    for address in ("fake:echo", "fake:random"):
        append_jsonl(path, open_model(address).generate(ask([user("a")], Sampling())))
    with pytest.raises(DataError) as caught:
        open_model(f"replay:{path}")
    assert all(open_model(address).digest[:12] in str(caught.value) for address in ("fake:echo", "fake:random"))


def test_a_missing_or_empty_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "empty.jsonl").touch()
    for name, what in (("missing.jsonl", "no such file"), ("empty.jsonl", "holds no exchange")):
        with pytest.raises(DataError, match=f"{name}: {what}"):
            open_model(f"replay:{tmp_path / name}")
