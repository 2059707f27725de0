"""Answers are collected by request: none is lost or doubled by a kill, none is another model's."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from spiritsafe.errors import RecipeError, RunError
from spiritsafe.house import House, collect, in_order
from spiritsafe.ledger import Entry
from spiritsafe.models import ask, open_model, user
from spiritsafe.models.base import failed
from spiritsafe.progress import Show
from spiritsafe.recipe import parse_recipe
from spiritsafe.record import Sampling
from spiritsafe.run import opened
from spiritsafe.stage import Stages

REQUESTS = ask([user("a"), user("b")], Sampling(seed=0, max_tokens=5), n=3)


@pytest.fixture
def house(small_recipe: dict[str, Any], tmp_path: Path) -> Iterator[House]:
    """An open house without models."""
    small_recipe["teacher"]["model"] = "fake:random"
    with opened(parse_recipe(small_recipe), tmp_path) as (run, _):
        yield House(run, Stages(run, Show(quiet=True)))


def test_what_is_there_is_not_asked_again(house: House) -> None:
    model = open_model("fake:random")
    collect(house, model, REQUESTS[:2], "kind", Entry(stage="s"))
    first = house.exchanges("kind")
    collect(house, model, REQUESTS, "kind", Entry(stage="s"))
    assert house.exchanges("kind")[:2] == first
    assert len(house.exchanges("kind")) == len(REQUESTS)


def test_collected_answers_come_in_the_order_of_their_requests_with_all_tokens_counted(house: House) -> None:
    entry = Entry(stage="s")
    collect(house, open_model("fake:random"), [REQUESTS[i] for i in (4, 0, 2, 1, 5, 3)], "kind", entry)
    found = in_order(house, "kind", REQUESTS)
    assert [e.sampling.seed for e in found] == [r.sampling.seed for r in REQUESTS]
    assert entry.tokens_out == sum(e.usage.completion_tokens for e in found)


def test_answers_of_a_model_that_was_made_again_are_drawn_again(house: House) -> None:
    old, new = open_model("fake:random"), open_model("fake:random,bias=1")
    for model in (old, new):
        collect(house, model, REQUESTS, "kind", Entry(stage="s"))
    assert {e.model_digest for e in house.exchanges("kind")} == {new.digest}
    assert len(house.exchanges("kind")) == len(REQUESTS)


def test_a_request_without_an_answer_is_named_once_its_neighbours_are_stored(house: House) -> None:
    class Filtering:
        """A model one of whose answers fails."""

        def __init__(self) -> None:
            self.inner = open_model("fake:random")
            self.address, self.digest, self.score = self.inner.address, self.inner.digest, self.inner.score

        def generate(self, requests, *, on_exchange):  # type: ignore[no-untyped-def]
            """All but the second."""
            self.inner.generate([requests[0], *requests[2:]], on_exchange=on_exchange)
            on_exchange(failed(self.address, self.digest, requests[1], "beyond the context", "request"))

    with pytest.raises(RunError, match=rf"1 of {len(REQUESTS)} requests got no answer, the first: beyond the context"):
        collect(house, Filtering(), REQUESTS, "kind", Entry(stage="s"))  # type: ignore[arg-type]
    assert len(house.exchanges("kind")) == len(REQUESTS) - 1


def test_a_teacher_must_be_weights(house: House) -> None:
    with pytest.raises(RecipeError, match="fake:random is not a local model"):
        _ = house.teacher
