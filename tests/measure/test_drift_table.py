"""The drift table: a perfect copy shows no drift, a degraded one is flagged, and Holm holds over all rows."""

from pathlib import Path
from typing import Any

import pytest

from spiritsafe.evidence import holm
from spiritsafe.make.prune import prune
from spiritsafe.measure.drift.quantities import of_cells, of_fidelity, of_texts
from spiritsafe.measure.drift.table import Design, Quantity, drift_verdicts
from spiritsafe.measure.fidelity import fidelity, reference
from spiritsafe.measure.harness import Cell
from spiritsafe.models import ask, open_model, user
from spiritsafe.models.local import LocalModel
from spiritsafe.recipe_photocopy import MarginsPart
from spiritsafe.record import Exchange, Sampling, Verdict
from tests.tiny import WORDS, write_tiny

SAMPLES, PLACES = 4, {"original": (1, "copies"), "copy": (2, "copies")}
DESIGN = Design(PLACES, (("copy", "original"),), alpha=0.05, seed=0, resamples=400)
PROMPTS = [user(" ".join(WORDS[i : i + 3]) + f" {WORDS[j]}") for i in range(16) for j in (0, 7)]


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> LocalModel:
    """A tiny model of some variety."""
    folder: Path = write_tiny(tmp_path_factory.mktemp("drift") / "teacher", scale=1.0)
    model = open_model(str(folder))
    assert isinstance(model, LocalModel)
    return model


def sampled(model: LocalModel, temperature: float, purpose: str) -> list[list[str]]:
    """Four answers of 12 tokens to each prompt."""
    settings = Sampling(temperature=temperature, max_tokens=12, seed=3)
    found = model.generate(ask(PROMPTS, settings, n=SAMPLES, purpose=purpose))
    return [[e.answer for e in found[i : i + SAMPLES]] for i in range(0, len(found), SAMPLES)]


@pytest.fixture(scope="module")
def heldout(teacher: LocalModel) -> list[Exchange]:
    """The teacher's own answers."""
    return teacher.generate(ask(PROMPTS, Sampling(max_tokens=12, seed=1)))


@pytest.fixture(scope="module")
def originals(teacher: LocalModel) -> list[list[str]]:
    """The teacher's samples."""
    return sampled(teacher, 1.0, "samples")


def changes(quantities: list[Quantity]) -> dict[str, Verdict]:
    """What changed from the original to the copy, by quantity."""
    found = drift_verdicts(quantities, DESIGN)
    return {v.name.removeprefix("change in "): v for v in found if v.name.startswith("change in ")}


def test_a_perfect_copy_shows_no_drift_and_is_called_alike_in_everything(
    teacher: LocalModel, heldout: list[Exchange], originals: list[list[str]]
) -> None:
    close = fidelity(reference(teacher, heldout), teacher, heldout)
    quantities = of_fidelity({"original": close, "copy": close}, MarginsPart())
    quantities += of_texts({"original": originals, "copy": originals}, originals, most=300, margins=MarginsPart())
    found = changes(quantities)
    assert set(found) == {
        "kl to teacher",
        "acceptance",
        "distinct-2",
        "tail coverage",
        "semantic entropy",
        "inconsistency",
    }
    for verdict in found.values():
        assert (verdict.value, verdict.interval, verdict.rejected) == (0.0, (0.0, 0.0), False)
        assert verdict.detail["alike"], verdict.claim
    levels = [v for v in drift_verdicts(quantities, DESIGN) if v.name == "kl to teacher"]
    assert [(v.value, v.interval) for v in levels] == [(0.0, (0.0, 0.0))] * 2


def test_a_copy_whose_sampling_has_collapsed_is_flagged_for_its_variety(
    teacher: LocalModel, originals: list[list[str]]
) -> None:
    """At temperature 0.1 a model says nearly always the same: known by construction."""
    collapsed = sampled(teacher, 0.1, "samples")
    found = changes(of_texts({"original": originals, "copy": collapsed}, originals, most=300, margins=MarginsPart()))
    for name in ("distinct-2", "tail coverage", "semantic entropy", "inconsistency"):
        assert found[name].rejected, found[name].claim
        assert found[name].value < 0
        assert not found[name].detail["alike"]
        assert " is lower than " in found[name].claim


def test_a_copy_without_a_layer_is_flagged_for_its_distance(teacher: LocalModel, heldout: list[Exchange]) -> None:
    theirs = reference(teacher, heldout)
    worse = LocalModel("pruned", "0", prune(teacher.model, (0, 2, 3)), teacher.tokenizer)
    both = {"original": fidelity(theirs, teacher, heldout), "copy": fidelity(theirs, worse, heldout)}
    found = changes(of_fidelity(both, MarginsPart()))
    assert found["kl to teacher"].rejected
    assert found["kl to teacher"].value > 0 > found["acceptance"].value
    assert not found["kl to teacher"].detail["alike"]


def yes_no(copy: list[float], original: list[float]) -> Quantity:
    """Outcomes of two models."""
    return Quantity(
        name="rejected",
        unit="share",
        method="counted",
        sums={"original": tuple(original), "copy": tuple(copy)},
        weights=(1.0,) * len(copy),
        margin=0.1,
        is_yes_no=True,
    )


def test_yes_and_no_are_compared_by_exact_mcnemar() -> None:
    level, _, moved = drift_verdicts([yes_no([0.0] * 100, [1.0] * 20 + [0.0] * 80)], DESIGN)
    assert (level.value, level.n, level.unit) == (0.2, 100, "share")
    assert moved.p_value == pytest.approx(2 * 0.5**20)
    assert (moved.rejected, moved.detail["alike"]) == (True, False)
    assert moved.value == pytest.approx(-0.2)


def test_both_questions_are_adjusted_over_the_whole_table() -> None:
    table = [yes_no([0.0] * 60, [1.0] * k + [0.0] * (60 - k)) for k in (0, 2, 6, 9)]
    rows = [v for v in drift_verdicts(table, DESIGN) if v.name.startswith("change")]
    assert [v.p_adjusted for v in rows] == holm([v.p_value or 0.0 for v in rows])
    assert [v.detail["alike_p_adjusted"] for v in rows] == holm([v.detail["alike_p"] for v in rows])


def test_a_small_sure_difference_is_both_a_change_and_within_the_margin() -> None:
    quantity = Quantity(
        name="acceptance",
        unit="share of tokens",
        method="counted",
        sums={"original": (0.5,) * 30, "copy": tuple(0.52 + 0.001 * (i % 5) for i in range(30))},
        weights=(1.0,) * 30,
        margin=0.05,
    )
    moved = changes([quantity])["acceptance"]
    assert (moved.rejected, moved.detail["alike"]) == (True, True)
    assert moved.claim == "acceptance of the copy is higher than that of the original, within ±0.05."


def test_what_has_no_margin_is_told_and_not_tested() -> None:
    quantity = yes_no([0.0, 1.0], [1.0, 1.0]).model_copy(update={"margin": None})
    assert [v.subject for v in drift_verdicts([quantity], DESIGN)] == ["original", "copy"]


def cell(model: str, outcomes: dict[str, bool], **more: Any) -> Cell:
    """A task's column: outcomes by key."""
    keys = tuple(outcomes)
    answered = tuple(float(o) for o in outcomes.values())
    return Cell(model, "sums", "accuracy", True, answered, (), ("",) * len(keys), 0, keys=keys, **more)


def test_models_are_compared_on_the_prompts_that_both_answered() -> None:
    right = {f"sum {i}": True for i in range(40)}
    wrong = {f"sum {i}": False for i in range(3, 40)}
    cells = [cell("a", right), cell("b", wrong, unanswered="of 40 answers 3 empty; 3 of 40 items left out")]
    quantities = of_cells(cells, {"a": "original", "b": "copy"}, guard="default@input", margins=MarginsPart())
    first, second, moved = drift_verdicts(quantities, DESIGN)
    assert (first.value, first.n) == (1.0, 40)
    assert (second.value, second.n) == (0.0, 37)
    assert "copy: sums: of 40 answers 3 empty; 3 of 40 items left out" in second.limits
    assert (moved.value, moved.n) == (-1.0, 37)


def test_nothing_is_claimed_of_a_model_that_answered_too_little_and_the_others_stay() -> None:
    right = {f"sum {i}": True for i in range(40)}
    none = cell("b", {}, unanswered="of 40 answers 40 empty", inconclusive=True)
    quantities = of_cells([cell("a", right), none], {"a": "original", "b": "copy"}, guard="", margins=MarginsPart())
    first, second, moved = drift_verdicts(quantities, DESIGN)
    assert first.claim == "tasks solved of the original: 1 share of tasks."
    assert second.claim == "tasks solved of the copy cannot be said: copy: sums: of 40 answers 40 empty."
    assert (second.detail["said"], second.interval) == (False, None)
    assert (moved.detail["said"], moved.p_value, moved.rejected) == (False, None, None)
    assert moved.name == "change in tasks solved"
