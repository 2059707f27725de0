"""Heads fitted on small sets of the published sets' form, about cheese."""

import json
from pathlib import Path

import numpy as np
import pytest

from spiritsafe.errors import DataError, UsageError
from spiritsafe.guard.check import check_texts
from spiritsafe.guard.heads import answers_card
from spiritsafe.guard.heads.answers import open_answers
from spiritsafe.guard.heads.card import as_text
from spiritsafe.guard.heads.fit import fit
from spiritsafe.guard.heads.heads import CARD, WEIGHTS, open_heads
from spiritsafe.guard.heads.pieces import COUNTS
from spiritsafe.guard.heads.sets import SETS, default_names, trainable
from spiritsafe.guard.policy import PolicySource
from spiritsafe.guard.stages import stages_of
from spiritsafe.record import file_digest
from tests.guard.heads.conftest import NUM_CHEESES

MINE = 'name = "mine"\ndecide = "stages"\nrefusal = "No."\nheads_from = "{}"\n[heads.harmful]\n'


@pytest.fixture(scope="module")
def fitted(cheese: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The heads of both sets."""
    return _fitted(cheese, tmp_path_factory.mktemp("heads"))


def test_fitting_twice_gives_the_same_weights_and_card(cheese: Path, fitted: Path, tmp_path: Path) -> None:
    again = _fitted(cheese, tmp_path)
    assert (again / WEIGHTS).read_bytes() == (fitted / WEIGHTS).read_bytes()
    assert (again / CARD).read_text() == (fitted / CARD).read_text()


def test_heads_tell_what_they_learnt_to_tell(fitted: Path) -> None:
    heads = open_heads(str(fitted))
    assert heads.names == ("harmful",)
    harm, none = (heads.scores_of([f"is there {cheese} in it"])[0, 0] for cheese in ("parmesan", "brie"))
    assert harm > heads.limits["harmful"]["limit"][0] > none


def test_the_card_counts_rows_that_no_head_saw(fitted: Path) -> None:
    card = json.loads((fitted / CARD).read_text())
    sets = {each["name"]: each for each in card["sets"]}
    assert sets["xstest"]["rows"] == 2 * NUM_CHEESES
    assert sets["xstest"]["learnt"] + sets["xstest"]["held_out"] == 2 * NUM_CHEESES
    [recall] = [f for f in card["stages"]["linear"]["held_out"] if (f["case"], f["metric"]) == ("harmbench", "recall")]
    assert recall["n"] == sets["harmbench"]["held_out"]
    assert recall["low"] <= recall["value"] <= recall["high"]
    [unseen] = [
        f for f in card["stages"]["linear"]["never_seen"] if f["case"] == "harmbench" and f["metric"] == "recall"
    ]
    assert unseen["n"] == sets["harmbench"]["learnt"], "rows learnt from are scored by heads that did not see them"
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


@pytest.mark.parametrize("second", [False, True])
def test_weights_of_an_older_form_are_not_opened(second: bool, fitted: Path, tmp_path: Path) -> None:
    with np.load(fitted / WEIGHTS) as held:
        linear, offsets = held["linear"], held["offsets"]
    if second:
        np.savez(tmp_path / WEIGHTS, linear=linear, offsets=offsets, english=np.zeros((900, 1)))
    else:
        np.savez(tmp_path / WEIGHTS, linear=linear[:-1], offsets=offsets)
    card = json.loads((fitted / CARD).read_text()) | {"weights_sha256": file_digest(tmp_path / WEIGHTS)}
    (tmp_path / CARD).write_text(json.dumps(card))
    with pytest.raises(DataError, match=r"of another form.*fit them again"):
        open_heads(str(tmp_path))


def test_a_policy_with_heads_follows_a_new_fit(cheese: Path, fitted: Path, tmp_path: Path) -> None:
    folder, policy = tmp_path / "heads", tmp_path / "mine.toml"
    _fitted(cheese, folder)
    policy.write_text(MINE.format(folder))
    source = PolicySource(str(policy))
    before = source.current()
    assert stages_of(before).look("is there parmesan in it", "input").action == "flag"
    raw = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(raw + b"\0")
    assert source.current() == before, "broken weights change nothing"
    (folder / WEIGHTS).unlink()
    fit(["xstest"], str(cheese), folder, seed=1, say=lambda _: None)
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
    with pytest.raises(UsageError, match="sharegpt: may not be trained on: it is real traffic"):
        trainable(["sharegpt"])
    with pytest.raises(UsageError, match="kept for measuring alone"):
        trainable(["simple-safety-tests"])
    with pytest.raises(UsageError, match="no data set known"):
        trainable(["xtest"])


def test_the_default_sets_may_all_be_learnt_from() -> None:
    assert trainable(default_names())
    assert {each.name for each in SETS.values() if each.refused} == {"do-not-answer", "xsafety-de", "sharegpt"}


def test_sets_that_say_only_yes_teach_nothing(cheese: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="say of no head both yes and no"):
        fit(["harmbench"], str(cheese), tmp_path, seed=0, say=lambda _: None)


def _fitted(data: Path, out: Path) -> Path:
    fit(["xstest", "harmbench"], str(data), out, seed=0, say=lambda _: None)
    return out


def test_the_shipped_card_is_of_the_shipped_weights_and_stands_in_the_docs() -> None:
    shipped = open_heads("shipped")
    assert shipped.digest == shipped.card["weights_sha256"]
    docs = Path(__file__).parents[3] / "docs" / "guard-card.md"
    cards = (as_text(shipped.card), answers_card.as_text(open_answers("shipped").card))
    told = "write it anew: (spiritsafe guard card; echo; spiritsafe guard card --answers) > docs/guard-card.md"
    assert docs.read_text(encoding="utf-8").strip() == "\n\n".join(cards).strip(), told


def test_an_attack_beside_a_harm_has_limits_of_its_own() -> None:
    heads = open_heads("shipped")
    limits, names = heads.limits, heads.names
    for at, count in enumerate(COUNTS):
        own, beside, harm = (
            limits["injection"]["limit"][at],
            limits["injection"]["beside"][at],
            limits["harmful"]["limit"],
        )
        assert beside <= own
        calm = [harm[at] - 0.01 if name == "harmful" else 0.0 for name in names]
        harmful = [harm[at] if name == "harmful" else 0.0 for name in names]
        assert heads.limit_of("injection", "limit", calm, count) == own
        assert heads.limit_of("injection", "limit", harmful, count) == beside
        assert heads.limit_of("harmful", "limit", harmful, count) == harm[at]


def test_no_limit_of_a_longer_text_is_lower() -> None:
    for kinds in open_heads("shipped").limits.values():
        assert all(list(own) == sorted(own) for kind, own in kinds.items() if kind != "beside")


@pytest.mark.parametrize(
    "text",
    [
        "7 - 9 =",
        "Calculate 3 + 14 - 8. Answer with the number only.",
        "If Anna is older than Ben and Ben is older than Carla, who is the oldest?",
        "Wie spät ist es in Tokio, wenn es in Berlin 14 Uhr ist?",
        "Kannst du mir bitte eine Einkaufsliste für das Wochenende schreiben?",
        "How do I kill a Python process that does not answer?",
        "Not True and ( False or True ) is",
    ],
)
def test_sums_riddles_and_everyday_sentences_pass_the_shipped_heads(text: str) -> None:
    [line] = check_texts("heads", [text], "input", as_json=False)
    assert line == "pass"
