"""Who asks what: derived from the recipe and its seed alone."""

from typing import Any

import pytest

from spiritsafe.accounts import names, plan
from spiritsafe.models import user
from spiritsafe.prompts import Prompt, split_of
from spiritsafe.recipe import Recipe, parse_recipe
from spiritsafe.record import prompt_digest


def prompts(num: int) -> list[Prompt]:
    """Prompts in both splits."""
    asked = [user(f"prompt {i}") for i in range(num)]
    return [
        Prompt(digest=prompt_digest(m), messages=m, split=split_of(m, heldout_share=0.5), source="test") for m in asked
    ]


@pytest.fixture
def recipe(small_recipe: dict[str, Any]) -> Recipe:
    """The small recipe, with a drawer that asks for more than there is."""
    small_recipe["guard"]["accounts"][0]["exchanges"] = 1000
    return parse_recipe(small_recipe)


def test_the_drawer_asks_every_training_prompt_once_and_the_others_only_held_out_ones(recipe: Recipe) -> None:
    asked = prompts(40)
    train = {p.messages for p in asked if p.split == "train"}
    wanted = plan(recipe, asked)
    drawn = [w.messages for w in wanted if w.role == "draws"]
    assert len(drawn) == len(train)
    assert set(drawn) == train
    assert train.isdisjoint(w.messages for w in wanted if w.role != "draws")


def test_no_account_repeats_itself_and_every_request_has_a_seed_of_its_own(recipe: Recipe) -> None:
    wanted = plan(recipe, prompts(40))
    assert len({(w.account, w.messages) for w in wanted}) == len(wanted)
    assert len({w.sampling.seed for w in wanted}) == len(wanted)


def test_the_plan_is_the_same_at_every_call_and_another_with_another_seed(recipe: Recipe) -> None:
    other = recipe.model_copy(update={"run": recipe.run.model_copy(update={"seed": 1})})
    assert plan(recipe, prompts(40)) == plan(recipe, prompts(40))
    assert plan(recipe, prompts(40)) != plan(other, prompts(40))


def test_accounts_keep_to_their_numbers(recipe: Recipe) -> None:
    wanted = plan(recipe, prompts(40))
    assert names(wanted, "draws", "ordinary") == ["drawer", "ordinary-01", "ordinary-02"]
    assert len(names(wanted, "calibration")) == 19
    for name in names(wanted, "ordinary"):
        assert 1 <= sum(w.account == name for w in wanted) <= 2


def test_without_prompts_nobody_asks(recipe: Recipe) -> None:
    assert plan(recipe, []) == []
