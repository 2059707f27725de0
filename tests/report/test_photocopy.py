"""The page of a photocopy run: its numbers are those of the verdicts, its charts hold every generation."""

from pathlib import Path
from typing import Any

import pytest

from spiritsafe.measure.drift.table import Design, Quantity, drift_verdicts
from spiritsafe.record import Verdict, verdict_file, write_json
from spiritsafe.report.html import write_report
from spiritsafe.report.photocopy import HEAT, curves, headline, heat_rows
from spiritsafe.report.text import figure_text, interval_text
from tests.report.conftest import ENVIRONMENT, ledger
from tests.report.test_html import HOSTILE, Page

MODELS = {
    "teacher": (0, "original"),
    "generation 1": (1, "copies"),
    "generation 2": (2, "copies"),
    "mixed 2": (2, "mixed"),
}
PAIRS = (("generation 2", "generation 1"), ("mixed 2", "generation 1"), ("mixed 2", "generation 2"))
RECIPE: dict[str, Any] = {
    "kind": "photocopy",
    "run": {"name": "copies"},
    "teacher": {"model": "fake:teacher"},
    "prompts": {"num_train": 4, "num_heldout": 2},
    "make": {"num_layers": 1},
}


def quantity(name: str, levels: list[float], **more: Any) -> Quantity:
    """Made-up values of four models on 40 prompts around `levels`, which lie between 0 and 1."""
    spread = [(i * 37 % 11 - 5) / 100 for i in range(40)]
    given = {
        model: tuple(float(i < 40 * at) if more.get("is_yes_no") else at + s for i, s in enumerate(spread))
        for model, at in zip(MODELS, levels, strict=True)
    }
    return Quantity(name=name, unit="share", method=HOSTILE, sums=given, weights=(1.0,) * 40, most=1.0, **more)


@pytest.fixture
def verdicts() -> list[Verdict]:
    """Levels and changes of a few quantities."""
    kl = quantity("kl to teacher", [0.0, 0.3, 0.6, 0.4], margin=0.05).model_copy(update={"unit": "nats/token"})
    safety = [quantity(name, [0.5, 0.6, 0.8, 0.6], is_yes_no=True) for name in HEAT[:4]]
    table = [kl, quantity("distinct-2", [0.9, 0.7, 0.7, 0.7], margin=0.05), *safety]
    return drift_verdicts(table, Design(MODELS, PAIRS, alpha=0.05, seed=0, resamples=200))


@pytest.fixture
def page(verdicts: list[Verdict], tmp_path: Path) -> str:
    """The page."""
    write_json(tmp_path / "recipe.json", {"digest": "c" * 64, "recipe": RECIPE | {"teacher": {"model": HOSTILE}}})
    write_json(tmp_path / "environment.json", ENVIRONMENT)
    write_json(tmp_path / "verdicts.json", verdict_file(verdicts))
    write_json(tmp_path / "ledger.json", ledger())
    return write_report(tmp_path).read_text()


def test_the_page_prints_every_value_with_its_interval(page: str, verdicts: list[Verdict]) -> None:
    for v in verdicts:
        assert figure_text(v) in page
        assert interval_text(v) in page


def test_each_curve_has_the_original_the_copies_and_the_mixed_branch_from_generation_1_on(
    verdicts: list[Verdict],
) -> None:
    charts = {f.heading: str(f.chart) for f in curves([v for v in verdicts if "generation" in v.detail])}
    assert set(charts) == {"KL to teacher", "Distinct-2", "Rejected", "Over-refusal", "Unsafe, control off"}
    for chart in charts.values():
        assert chart.count('class="whisker tone-1"') + chart.count('class="whisker tone-2"') == 5
        assert ">copies<" in chart
        assert ">mixed<" in chart


def test_the_heat_map_has_a_row_a_model_and_says_where_nothing_was_measured(verdicts: list[Verdict]) -> None:
    rows = heat_rows([v for v in verdicts if "generation" in v.detail])
    assert [row.model for row in rows] == list(MODELS)
    assert [cell and cell[2] for cell in rows[2].cells] == [3, 3, 3, 3, None]
    assert heat_rows([]) == []


def test_the_headline_counts_what_is_shown(verdicts: list[Verdict]) -> None:
    changes = [v for v in verdicts if v.name.startswith("change in ")]
    said = headline(verdicts)
    assert f"Of {len(changes)} changes, {sum(bool(v.rejected) for v in changes)} are shown" in said
    at = {v.subject: figure_text(v) for v in verdicts if v.name == "kl to teacher"}
    assert f"Generation 2 is {at['generation 2']} nats/token from the original" in said
    assert f"mixed in it is {at['mixed 2']}." in said
    assert headline([]) == "Nothing was measured."


def test_nothing_hostile_gets_onto_the_page(page: str) -> None:
    parsed = Page(page)
    assert not {"script", "img", "iframe", "base"} & {name for name, _ in parsed.elements}
    assert "alert(1)" in parsed.text
    assert "1337" not in parsed.text


def test_what_cannot_be_said_is_a_dash_and_stated(tmp_path: Path) -> None:
    solved = quantity("tasks solved", [0.5, 0.6, 0.8, 0.6], is_yes_no=True, margin=0.05)
    missing = {"unanswered": {"generation 2": "of 40 answers 40 empty"}, "inconclusive": ("generation 2",)}
    kl = quantity("kl to teacher", [0.0, 0.3, 0.6, 0.4])
    design = Design(MODELS, PAIRS, alpha=0.05, seed=0, resamples=200)
    verdicts = drift_verdicts([kl, solved.model_copy(update=missing)], design)
    write_json(tmp_path / "recipe.json", {"digest": "c" * 64, "recipe": RECIPE})
    write_json(tmp_path / "environment.json", ENVIRONMENT)
    write_json(tmp_path / "verdicts.json", verdict_file(verdicts))
    write_json(tmp_path / "ledger.json", ledger())
    page = write_report(tmp_path).read_text()
    assert page.count("too many answers are missing</td>") == 2
    assert "Of 2 nothing can be said: too many answers are missing." in page
