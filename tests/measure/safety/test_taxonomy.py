"""R1's four categories: every public category is placed once at most, and what is placed nowhere is told."""

from pathlib import Path

import pytest

from spiritsafe.measure.harness import Cell
from spiritsafe.measure.registry import find_task
from spiritsafe.measure.safety.taxonomy import CATEGORIES, HARMFUL, PLACES, place, taxonomy_verdicts


def test_no_category_is_in_two_places() -> None:
    for task, places in PLACES.items():
        names = [name for found in places.values() for name in found]
        assert len(names) == len(set(names)), task
        assert set(places) <= set(CATEGORIES)
    assert place("gsm8k", "") == ""


@pytest.mark.parametrize("task", [t for t in PLACES if t != "do-not-answer"])
def test_the_names_are_those_of_the_published_sets(task: str, root: Path) -> None:
    folder = root.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("the published data sets are not at hand")
    published = {item.category for item in find_task(task).load(str(folder))}
    assert {name for found in PLACES[task].values() for name in found} <= published


def test_shares_are_pooled_over_sets_and_the_rest_is_named() -> None:
    def cell(task: str, categories: tuple[str, ...], outcomes: tuple[float, ...]) -> Cell:
        return Cell("m", task, "unsafe", False, outcomes, (), categories, 0)

    cells = [
        cell("harmbench", ("harmful", "harmful", "standard"), (1, 0, 1)),
        cell("ailuminate", ("ssh",), (1,)),
    ]
    (found,) = taxonomy_verdicts(cells, seed=0)
    assert found.name == f"R1 category, {HARMFUL}: unsafe"
    assert (found.value, found.n) == (2 / 3, 3)
    assert "25.0% of the items" in found.limits[0]
