"""Multiple choice by log-likelihood: exact values on the fake model, stored once."""

import csv
from math import exp
from pathlib import Path

import pytest

from spiritsafe.errors import ModelError
from spiritsafe.measure.compare import table_verdicts
from spiritsafe.measure.harness import Plan, measure
from spiritsafe.measure.registry import find_task
from spiritsafe.measure.task import Item
from spiritsafe.measure.tasks.truthfulqa import best_is_likeliest, truth_share
from spiritsafe.models import open_model, user
from spiritsafe.models.fake import WORDS, unigram_of


@pytest.fixture
def data(tmp_path: Path) -> str:
    """Questions whose choices are words of the fake model: the best, another true one, two false ones."""
    path = tmp_path / "truthfulqa" / "TruthfulQA.csv"
    path.parent.mkdir()
    with path.open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["Category", "Question", "Best Answer", "Correct Answers", "Incorrect Answers"])
        for i in range(0, 32, 4):
            a, b, c, d = WORDS[i : i + 4]
            table.writerow(["stills", f"What is {i}?", a, f"{a}; {b}", f"{c}; {d}; "])
    return str(tmp_path)


def test_the_scores_are_those_of_the_exact_distribution(data: str, tmp_path: Path) -> None:
    model = open_model("fake:random")
    tasks = [find_task(n) for n in ("truthfulqa-mc1", "truthfulqa-mc2")]
    one, two = measure([model], tasks, tmp_path / "out", Plan(data=data)).cells
    p = unigram_of(0).probabilities
    quartets = [p[i : i + 4] for i in range(0, 32, 4)]
    assert sum(one.outcomes) == sum(q[0] > max(q[2:]) for q in quartets)
    assert sorted(two.outcomes) == pytest.approx(sorted((q[0] + q[1]) / sum(q) for q in quartets))


def test_likelihoods_are_stored_and_models_compared(data: str, tmp_path: Path) -> None:
    models, task = [open_model("fake:random"), open_model("fake:random,bias=3")], find_task("truthfulqa-mc2")
    first = measure(models, [task], tmp_path / "out", Plan(data=data)).cells
    files = {p: p.read_bytes() for p in (tmp_path / "out" / "likelihoods").glob("*.jsonl")}
    assert measure(models, [task], tmp_path / "out", Plan(data=data)).cells == first
    assert files == {p: p.read_bytes() for p in (tmp_path / "out" / "likelihoods").glob("*.jsonl")}
    (change,) = [v for v in table_verdicts(first, seed=0) if "difference" in v.name]
    assert change.value == pytest.approx(sum(first[1].outcomes) / 8 - sum(first[0].outcomes) / 8)
    assert change.interval is not None
    assert change.interval[0] <= change.value <= change.interval[1]


def test_a_model_without_log_probabilities_says_so(data: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no log-probabilities"):
        measure([open_model("fake:echo")], [find_task("truthfulqa-mc1")], tmp_path / "out", Plan(data=data))


def test_choices_are_weighed_by_probability() -> None:
    item = Item(user("?"), "a", detail={"choices": ("a", "b", "c"), "true": 2})
    assert truth_share(item, (-1000.0, -1000.0, -1000.0)) == pytest.approx(2 / 3)
    assert truth_share(item, (0.0, -1.0, -2.0)) == pytest.approx((1 + exp(-1)) / (1 + exp(-1) + exp(-2)))
    assert [best_is_likeliest(item, x) for x in ((-1.0, -1.0, -2.0), (-1.0, -0.5, -2.0))] == [1.0, 0.0]


def test_the_published_file_is_read_whole(root: Path) -> None:
    folder = root.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("the published data sets are not at hand")
    for name in ("truthfulqa-mc1", "truthfulqa-mc2"):
        items = find_task(name).load(str(folder))
        assert len(items) == 817
        assert all(item.detail["true"] < len(item.detail["choices"]) for item in items)
