"""Tasks against the published files, where they are at hand beside the project."""

from pathlib import Path

import pytest

from spiritsafe.errors import DataError
from spiritsafe.measure.registry import HARMLESS, available, find_task, suite_tasks
from spiritsafe.measure.task import Item, items_of
from spiritsafe.measure.tasks.prompts import dialogue
from spiritsafe.models import user

SIZES = {"gsm8k": 1319}


PROMPTS = {
    "xstest-safe": 250,
    "xstest-unsafe": 200,
    "harmbench": 300,
    "simple-safety-tests": 100,
    "hh-harmless": 2312,
    "ailuminate": 1200,
    "xsafety-de": 2600,
    "frr": 750,
    "frr-de": 100,
}
CHOICES = {"bbq-ambiguous": 5978, "bbq-disambiguated": 5978, "hatecheck-de": 3645}


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


@pytest.fixture
def safety(root: Path) -> str:
    """The folder above the published safety sets."""
    folder = root.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("the published data sets are not at hand")
    return str(folder)


@pytest.mark.parametrize("name", PROMPTS)
def test_a_published_set_of_prompts_is_read_whole_with_its_categories(name: str, safety: str) -> None:
    task = find_task(name)
    items = task.load(safety)
    assert len(items) == PROMPTS[name]
    assert all(item.category and item.messages[-1].content.strip() for item in items)
    assert all(item.messages[-1].role == "user" for item in items)
    assert task.kind == ("harmless" if name in HARMLESS else "harmful")
    assert task.is_english == (not name.endswith("-de"))


@pytest.mark.parametrize("name", CHOICES)
def test_a_published_set_of_choices_is_read_whole_and_its_own_target_is_right(name: str, safety: str) -> None:
    task = find_task(name)
    items = task.load(safety)
    assert len(items) == CHOICES[name]
    assert all(task.score(item, f" {item.target.capitalize()}.") for item in items)
    assert not any(task.score(item, "I would rather not say") for item in items)


def test_a_stereotype_is_along_or_against_it_and_the_unknown_is_neither(safety: str) -> None:
    task = find_task("bbq-ambiguous")
    items = [item for item in task.load(safety) if item.detail]
    assert len(items) > 4000
    along, against = (dict(task.also)[name] for name in ("stereotyped", "counter_stereotyped"))
    for item in items:
        assert not along(item, item.target)
        assert not against(item, item.target)
        assert along(item, item.detail["along"])
        assert against(item, item.detail["against"])


def test_a_dialogue_ends_with_the_human_turn() -> None:
    text = "\n\nHuman: Peat?\n\nIn spring?\n\nAssistant: Yes.\n\nHuman: Why?\n\nAssistant: It is dry."
    assert [(m.role, m.content) for m in dialogue(text)] == [
        ("user", "Peat?\n\nIn spring?"),
        ("assistant", "Yes."),
        ("user", "Why?"),
    ]


def test_a_set_that_is_not_at_hand_is_left_out_of_a_suite_with_the_reason(tmp_path: Path) -> None:
    told: list[str] = []
    assert available([find_task("xstest-safe")], str(tmp_path), told.append) == []
    assert "left out: xstest-safe" in told[0]


def test_a_refusal_is_told_from_an_answer_and_from_silence() -> None:
    task = find_task("xstest-safe")
    item = Item(user("How is barley malted?"), "")
    assert task.score(item, "I'm sorry, but I can't help with that.")
    assert not task.score(item, " ")
    assert not task.score(item, "It is steeped, then dried.")


def test_a_missing_set_names_the_option(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="--data DIR"):
        find_task("gsm8k").load(str(tmp_path))


def test_a_broken_set_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "gsm8k").mkdir()
    (tmp_path / "gsm8k" / "test.jsonl").write_text("{")
    with pytest.raises(DataError, match="cannot be read"):
        find_task("gsm8k").load(str(tmp_path))


@pytest.mark.parametrize(
    ("file", "text", "told"),
    [
        ("gsm8k/test.jsonl", '{"prompt": "1 + 1?", "key": "#### 2"}\n', "gsm8k: its file has no column 'question'"),
        ("gsm8k/test.jsonl", '["1 + 1?", "#### 2"]\n', "gsm8k: its file is not of the published form"),
        ("mgsm/mgsm_de.tsv", "1 + 1?\t2\nEins\tund eins?\t2\n", "line 2 has 3 columns, two are wanted"),
    ],
)
def test_a_file_of_another_form_is_told_in_one_line(tmp_path: Path, file: str, text: str, told: str) -> None:
    path = tmp_path / file
    path.parent.mkdir()
    path.write_text(text)
    task = find_task("gsm8k" if "gsm8k" in file else "mgsm-de")
    with pytest.raises(DataError, match=told):
        items_of(task, str(tmp_path))
