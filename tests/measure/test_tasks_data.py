"""Tasks against the published files, where they are at hand beside the project."""

from pathlib import Path

import pytest

from spiritsafe.errors import DataError
from spiritsafe.measure.registry import find_task, suite_tasks
from spiritsafe.measure.task import Item
from spiritsafe.models import user

SIZES = {"gsm8k": 1319}


REFUSALS = {"xstest-safe": 250, "xstest-unsafe": 200, "harmbench": 300, "simple-safety-tests": 100}


@pytest.fixture
def data(root: Path) -> str:
    """The folder of published capability sets."""
    folder = root.parent / "shared" / "data" / "capability"
    if not folder.is_dir():
        pytest.skip("the published data sets are not at hand")
    return str(folder)


@pytest.mark.parametrize("name", suite_tasks("quality"))
def test_a_published_set_is_read_whole_and_its_own_target_is_right(name: str, data: str) -> None:
    task = find_task(name)
    items = task.load(data)
    assert len(items) == SIZES.get(name, 250)
    for item in items:
        assert task.score(item, f"I think the answer is {item.target}.")
        assert not task.score(item, "")


@pytest.mark.parametrize("name", REFUSALS)
def test_a_published_set_of_prompts_is_read_whole_with_its_categories(name: str, root: Path) -> None:
    folder = root.parent / "shared" / "data" / "safety"
    if not folder.is_dir():
        pytest.skip("the published data sets are not at hand")
    task = find_task(name)
    items = task.load(str(folder))
    assert len(items) == REFUSALS[name]
    assert all(item.category and item.messages[0].content.strip() for item in items)
    assert task.higher_is_better == (name != "xstest-safe")


def test_a_refusal_and_silence_are_told_from_an_answer() -> None:
    task = find_task("xstest-safe")
    item = Item(user("How is barley malted?"), "")
    assert task.score(item, "I'm sorry, but I can't help with that.")
    assert task.score(item, " ")
    assert not task.score(item, "It is steeped, then dried.")


def test_a_missing_set_names_the_option(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="--data DIR"):
        find_task("gsm8k").load(str(tmp_path))


def test_a_broken_set_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "gsm8k").mkdir()
    (tmp_path / "gsm8k" / "test.jsonl").write_text("{")
    with pytest.raises(DataError, match="cannot be read"):
        find_task("gsm8k").load(str(tmp_path))
