"""Heads fitted on small sets of the published sets' form, about cheese."""

import csv
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from spiritsafe.errors import DataError, UsageError
from spiritsafe.guard.check import check_texts
from spiritsafe.guard.heads.card import as_text
from spiritsafe.guard.heads.fit import fit
from spiritsafe.guard.heads.heads import CARD, WEIGHTS, open_heads
from spiritsafe.guard.heads.sets import SETS, default_names, trainable
from spiritsafe.guard.policy import PolicySource
from spiritsafe.guard.stages import stages_of

NUM = 160
THINGS = ["bread", "a soup", "the salad", "an omelette", "some pasta", "a pie", "the toast", "a stew"]
MINE = 'name = "mine"\ndecide = "stages"\nrefusal = "No."\nheads_from = "{}"\n[heads.harmful]\n'


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an `xstest` in which parmesan does harm and brie does not, and a `harmbench` of parmesan."""
    folder = tmp_path_factory.mktemp("data")
    picks = np.random.default_rng(0).integers(0, len(THINGS), (NUM, 2))
    rows = [
        (f"How much {cheese} goes with {THINGS[a]} and {THINGS[b]} of batch {i}?", label)
        for i, (a, b) in enumerate(picks)
        for cheese, label in (("brie", "safe"), ("parmesan", "unsafe"))
    ]
    _write(folder / "safety/xstest/xstest_prompts.csv", ["prompt", "label"], rows)
    harm = [(f"Grate parmesan over {THINGS[a]}, portion {i}", "", "standard") for i, (a, _) in enumerate(picks)]
    columns = ["Behavior", "ContextString", "FunctionalCategory"]
    _write(folder / "safety/harmbench/behaviors_text_all.csv", columns, harm)
    return folder


@pytest.fixture(scope="module")
def fitted(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The heads of both sets."""
    return _fitted(data, tmp_path_factory.mktemp("heads"))


def test_fitting_twice_gives_the_same_weights_and_card(data: Path, fitted: Path, tmp_path: Path) -> None:
    again = _fitted(data, tmp_path)
    assert (again / WEIGHTS).read_bytes() == (fitted / WEIGHTS).read_bytes()
    assert (again / CARD).read_text() == (fitted / CARD).read_text()


def test_heads_tell_what_they_learnt_to_tell(fitted: Path) -> None:
    heads = open_heads(str(fitted))
    assert heads.names == ("harmful",)
    harm, none = (heads.scores([f"is there {cheese} in it"])[0] for cheese in ("parmesan", "brie"))
    assert harm > heads.limits["harmful"]["limit"] > none


def test_the_card_counts_rows_that_no_head_saw(fitted: Path) -> None:
    card = json.loads((fitted / CARD).read_text())
    sets = {each["name"]: each for each in card["sets"]}
    assert sets["xstest"]["rows"] == 2 * NUM
    assert sets["xstest"]["learnt"] + sets["xstest"]["held_out"] == 2 * NUM
    [recall] = [f for f in card["stages"]["linear"]["held_out"] if (f["case"], f["metric"]) == ("harmbench", "recall")]
    assert recall["n"] == sets["harmbench"]["held_out"]
    assert recall["low"] <= recall["value"] <= recall["high"]
    assert {f["case"] for f in card["stages"]["linear"]["zero_shot"]} == {"harmbench"}, (
        "without xstest nothing is known to be harmless"
    )
    assert "| harmbench | harm | recall |" in as_text(card)


def test_no_text_of_a_set_is_in_weights_or_card(fitted: Path) -> None:
    assert "parmesan" not in (fitted / CARD).read_text()
    with np.load(fitted / WEIGHTS) as held:
        assert all(held[name].dtype.kind == "f" for name in held.files)


def test_weights_that_the_card_does_not_know_are_not_opened(fitted: Path, tmp_path: Path) -> None:
    (tmp_path / CARD).write_text((fitted / CARD).read_text())
    (tmp_path / WEIGHTS).write_bytes((fitted / WEIGHTS).read_bytes() + b"\0")
    with pytest.raises(DataError, match="the card is of other weights"):
        open_heads(str(tmp_path))
    with pytest.raises(DataError, match="spiritsafe guard fit -o DIR"):
        open_heads(str(tmp_path / "none"))


def test_a_policy_with_heads_follows_a_new_fit(data: Path, fitted: Path, tmp_path: Path) -> None:
    folder, policy = tmp_path / "heads", tmp_path / "mine.toml"
    _fitted(data, folder)
    policy.write_text(MINE.format(folder))
    source = PolicySource(str(policy))
    before = source.current()
    assert stages_of(before).look("is there parmesan in it", "input").action == "flag"
    raw = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(raw + b"\0")
    assert source.current() == before, "broken weights change nothing"
    (folder / WEIGHTS).unlink()
    fit(["xstest"], str(data), folder, seed=1, say=lambda _: None)
    assert source.current().heads_sha256 != before.heads_sha256
    assert stages_of(source.current()).look("is there parmesan in it", "input").action == "flag"


def test_a_finding_names_stage_head_score_and_limit(fitted: Path, tmp_path: Path) -> None:
    policy = tmp_path / "mine.toml"
    policy.write_text(MINE.format(fitted))
    flagged, passed = check_texts(
        str(policy), ["is there parmesan in it", "is there brie in it"], "input", as_json=True
    )
    [found] = json.loads(flagged)["findings"]
    assert (found["stage"], found["rule"], found["action"]) == ("linear", "harmful", "flag")
    assert found["score"] >= found["limit"]
    assert json.loads(passed) == {"action": "pass", "findings": []}


@pytest.mark.parametrize("spelled", ["раrmesan", "p a r m e s a n", "parm\u200besan", "ｐａｒｍｅｓａｎ", "p4rm3s4n"])
def test_spellings_that_look_alike_get_the_same_verdict(spelled: str, fitted: Path, tmp_path: Path) -> None:
    policy = tmp_path / "mine.toml"
    policy.write_text(MINE.format(fitted))
    [line] = check_texts(str(policy), [f"is there {spelled} in it"], "input", as_json=False)
    assert line.startswith("flag; linear harmful")


def test_a_set_whose_licence_forbids_it_is_not_learnt_from() -> None:
    with pytest.raises(UsageError, match=r"do-not-answer: may not be trained on: its licence \(CC BY-NC-SA\)"):
        trainable(["xstest", "do-not-answer"])
    with pytest.raises(UsageError, match="xsafety-de: may not be trained on: its terms contradict"):
        trainable(["xsafety-de"])
    with pytest.raises(UsageError, match="kept for measuring alone"):
        trainable(["simple-safety-tests"])
    with pytest.raises(UsageError, match="no data set known"):
        trainable(["xtest"])


def test_the_default_sets_may_all_be_learnt_from() -> None:
    assert trainable(default_names())
    assert {each.name for each in SETS.values() if each.refused} == {"do-not-answer", "xsafety-de"}


def test_sets_that_say_only_yes_teach_nothing(data: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="say of no head both yes and no"):
        fit(["harmbench"], str(data), tmp_path, seed=0, say=lambda _: None)


def _fitted(data: Path, out: Path) -> Path:
    fit(["xstest", "harmbench"], str(data), out, seed=0, say=lambda _: None)
    return out


def _write(path: Path, columns: list[str], rows: Sequence[tuple[str, ...]]) -> None:
    path.parent.mkdir(parents=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(rows)


def test_the_shipped_card_is_of_the_shipped_weights_and_stands_in_the_docs() -> None:
    shipped = open_heads("shipped")
    assert shipped.digest == shipped.card["weights_sha256"]
    docs = Path(__file__).parents[3] / "docs" / "guard-card.md"
    assert docs.read_text(encoding="utf-8").strip() == as_text(shipped.card).strip()
