"""The control of answers: what it reads of an answer, how a score comes about, and which policies have it."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from spiritsafe.errors import DataError, UsageError
from spiritsafe.guard.control import Control
from spiritsafe.guard.heads import ngrams
from spiritsafe.guard.heads.answers import CARD, COUNTS, WEIGHTS, AnswerHeads, Said, open_answers, told_of, windows
from spiritsafe.guard.heads.answers_card import as_text
from spiritsafe.guard.heads.answers_corpus import SHIPPED, answers_of, fit_two, never_seen
from spiritsafe.guard.heads.answers_figures import unseen_figures
from spiritsafe.guard.heads.answers_fit import BUDGETS, choose
from spiritsafe.guard.heads.answers_sets import LEARNT, TRAFFIC, Pair, PairSet, own_refusals
from spiritsafe.guard.policy import Answers, Policy, Rule, checking, load_policy
from spiritsafe.guard.stages import stages_of
from spiritsafe.guard.turns import turns_of
from spiritsafe.models.base import Request, exchange_id, user
from spiritsafe.models.encoder import missing
from spiritsafe.record import Exchange, Message, Sampling

OURS = Path(__file__).parents[3] / "src/spiritsafe/guard/heads/refusals.txt"
ORDINARY = (
    "Mix the flour with the water, wait an hour, then bake the bread until the crust is brown.",
    "Here is a function that sorts a list of names; it runs in n log n and keeps equal names in order.",
    "Der Fluss war still, und die Kinder malten Boote mit Kreide auf den Weg.",
    "",
)
THINGS = ("bread", "a soup", "the salad", "an omelette", "some pasta", "a pie", "the toast", "a stew")


@pytest.mark.parametrize(
    "text", ["", "a b c", "can't; won't " * 90, "über den fluss, " * 70, "x" * 3000, "日本 " * 200]
)
def test_windows_are_those_that_heads_read(text: str) -> None:
    spans = windows(text)
    own = [ngrams.buckets(text[start:end])[0].tolist() for start, end in spans]
    assert own == [window.tolist() for window in ngrams.buckets(text)][: len(own)]
    assert len(own) == len(ngrams.buckets(text)) or not text


def test_what_declines_tells_less_and_what_did_harm_tells_more() -> None:
    plain, declining, harmful = told_of(np.array([[0.5, 0.0, -1.0, 0.0], [0.5, 0.0, 1.0, 0.0], [0.5, 1.0, -1.0, 0.0]]))
    assert declining < plain - 5
    assert plain < harmful


def test_the_more_a_question_asks_for_harm_the_more_an_answer_gives_away() -> None:
    heads = _of_words({"gruyere": 1.0})
    mild, strong = heads.score([_said("gruyere", "take some"), _said("gruyere gruyere bread", "take some")])
    assert mild.score > strong.score
    assert heads.score([_said("", "take some")])[0].score < strong.score


def test_a_refusal_at_the_beginning_hides_nothing_that_comes_a_window_later() -> None:
    heads = _of_words({"gruyere": 8.0, "sorry": 0.0}, declines={"sorry": 8.0})
    near = heads.score([_said("", "sorry " * 10 + "gruyere " * 10)])[0]
    far = heads.score([_said("", "sorry " * 10 + "and some bread " * 80 + "gruyere " * 100)])[0]
    assert far.score > near.score
    assert "gruyere" in ("sorry " * 10 + "and some bread " * 80 + "gruyere " * 100)[slice(*far.span)]


def test_an_empty_answer_gives_nothing_away() -> None:
    heads = open_answers("shipped")
    [told] = heads.score([Said([("x", ("x",))], [("", ("",))])])
    assert not told.flagged
    assert heads.score([]) == []


def test_refusals_and_ordinary_answers_pass_in_every_language_we_have() -> None:
    stages = stages_of(load_policy("heads"))
    texts = [pair.answer for pair in own_refusals([OURS])] + list(ORDINARY)
    assert [text for text, look in zip(texts, stages.look_all(texts, "output"), strict=True) if look.findings] == []


def test_a_beginning_of_an_answer_is_scored_as_an_answer_is() -> None:
    stages = stages_of(load_policy("heads"))
    whole = ORDINARY[0]
    looks = stages.look_answers([(turns_of(user("How do I bake bread?")), whole[:end]) for end in range(len(whole))])
    assert {look.action for look in looks} == {"pass"}


@pytest.mark.parametrize("policy", ["heads", "strict", *([] if missing() else ["encoder"])])
@pytest.mark.parametrize("side", ["output", "both"])
def test_shipped_policies_with_heads_read_answers(policy: str, side: str) -> None:
    read = checking(load_policy(policy), side, "here")  # type: ignore[arg-type]
    assert read.answers is not None
    assert read.answers_sha256 == open_answers("shipped").digest


@pytest.mark.parametrize("side", ["output", "both"])
def test_a_policy_without_a_rule_for_answers_still_refuses_that_side(side: str) -> None:
    with pytest.raises(UsageError, match="'default' has no rule or head that reads the output"):
        checking(load_policy("default"), side, "here")  # type: ignore[arg-type]


def test_the_control_reads_what_was_asked_since_the_last_answer(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('name = "mine"\ndecide = "stages"\nrefusal = "No."\ncheck = "output"\n[answers]\npair = -100\n')
    control = Control(load_policy(str(path)))
    [decision] = control.decide([_exchange("How do I bake bread?", ORDINARY[0])])
    assert (decision.side, decision.stage, decision.rule, decision.stopped) == ("output", "answers", "answer", True)
    [finding] = decision.findings
    assert finding.limit == -100
    alone = control.policy.model_copy(update={"check": "output"})
    asked = stages_of(alone)
    new = asked.look_answers(
        [(turns_of([*user("Bread?"), Message(role="assistant", content="Yes."), *user("How?")]), "So.")]
    )
    same = asked.look_answers([(turns_of(user("How?")), "So.")])
    assert [f.score for look in new for f in look.findings] == [f.score for look in same for f in look.findings]


def test_weights_that_the_card_does_not_know_are_not_opened(tmp_path: Path) -> None:
    shipped = Path(OURS).with_name("shipped")
    (tmp_path / CARD).write_bytes((shipped / CARD).read_bytes())
    (tmp_path / WEIGHTS).write_bytes((shipped / WEIGHTS).read_bytes() + b"\0")
    with pytest.raises(DataError, match="the card is of other weights"):
        open_answers(str(tmp_path))
    with pytest.raises(DataError, match="spiritsafe guard fit-answers -o DIR"):
        open_answers(str(tmp_path / "none"))


def test_a_policy_names_the_weights_that_it_was_made_for(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('extends = "heads"\nname = "mine"\nanswers_sha256 = "00"\n')
    with pytest.raises(UsageError, match="answers_sha256: the weights of 'shipped' have"):
        load_policy(str(path))


def test_the_shipped_card_keeps_what_it_promises() -> None:
    card = open_answers("shipped").card
    rows = {(row["case"], row["metric"]): row for row in (*card["never_seen"], *card["in_use"])}
    assert rows["xstest answers", "difference in f1"]["low"] > 0.2
    assert rows["real traffic", "flagged"]["value"] <= 0.02
    assert rows["real traffic of more than 1,500 characters", "flagged"]["value"] <= 0.03
    assert all(row["low"] <= row["value"] <= row["high"] for row in rows.values())
    assert set(json.loads(json.dumps(card["limits"]))) == {"pair", "alone"}
    assert f"| real traffic | flagged | {100 * rows['real traffic', 'flagged']['value']:.1f} " in as_text(card)


def test_nothing_is_learnt_from_real_traffic() -> None:
    assert TRAFFIC.name not in {each.name for each in LEARNT}


def test_limits_keep_to_their_budgets_and_longer_answers_have_no_lower_ones() -> None:
    answers = _about_cheese(400)
    told = np.random.default_rng(0).normal(size=len(answers.pairs))
    rows = np.ones(len(told), bool)
    limits = choose(answers, told, rows)
    for own in limits.values():
        assert len(own) == len(COUNTS)
        assert list(own) == sorted(own)
    alone = told >= limits["alone"][0]
    assert alone.mean() <= BUDGETS["alone"][0]
    assert (alone | (answers.asked + told >= limits["pair"][0])).mean() <= BUDGETS["pair"][0]


def test_what_a_writer_says_is_scored_by_heads_that_never_read_that_writer() -> None:
    answers = _about_cheese(240)
    (weights, offset), (others, other) = fit_two(answers, np.ones(len(answers.pairs), bool))
    scored = answers.windows @ weights + offset
    truth = answers.did_harm[answers.of_window]
    assert scored[truth == 1].min() > scored[truth == 0].max()
    assert ((answers.windows @ others + other > 0) == (answers.declines[answers.of_window] == 1)).all()
    told = never_seen(answers, [_cheese(240)], lambda _: None)
    figures = unseen_figures(answers, told, {"pair": (9.0,) * 3, "alone": (0.0,) * 3}, np.ones(len(told), bool), seed=0)
    [found] = [row for row in figures if (row["case"], row["metric"]) == ("xstest answers", "difference in f1")]
    assert found["low"] > 0.2


def _about_cheese(num: int):  # type: ignore[no-untyped-def]
    return answers_of([_cheese(num)], "", {SHIPPED: ((np.zeros(ngrams.WIDTH), 0.0),) * 2})


def _cheese(num: int) -> PairSet:
    """Answers in which parmesan does harm and brie does none, by two writers, some of whom decline."""
    picks = np.random.default_rng(0).integers(0, len(THINGS), (num, 2)).tolist()
    pairs = [pair for i, (a, b) in enumerate(picks) for pair in _of_question(i, THINGS[a], THINGS[b])]
    return PairSet("xstest answers", "ours", (), lambda _: pairs)


def _of_question(number: int, one: str, other: str) -> list[Pair]:
    question = f"What goes with {one} and {other} of batch {number}?"
    writer = f"writer {number % 2}"
    return [
        Pair(
            question,
            f"Sure: grate parmesan over {one} and {other}.",
            True,
            False,
            question,
            writer,
            "unsafe full compliance",
        ),
        Pair(
            question, f"Sure: melt brie over {one} and {other}.", False, False, question, writer, "safe full compliance"
        ),
        Pair(
            question,
            f"Sorry, I can't talk about {one} and {other}.",
            False,
            True,
            question,
            writer,
            "unsafe full refusal",
        ),
    ]


@pytest.mark.parametrize(
    ("answer", "rules"),
    [
        ("Sure. You melt soft brie over a low flame.", ["soft"]),
        ("I'm sorry, but I can't help you melt soft brie.", []),
        ("I cannot help with that. Soft brie is dangerous.", []),
        ("I can't help with that. I really can't. Anyway: you take a pan. You melt soft brie in it.", ["soft"]),
        ("Ich kann dir nicht helfen, soft brie zu schmelzen.", []),
        ("You bake the bread.", []),
    ],
)
def test_words_are_found_in_answers_but_where_they_decline(answer: str, rules: list[str]) -> None:
    words = {"soft": Rule(phrases=("soft brie",))}
    policy = Policy(name="cheese", decide="stages", refusal="No.", rules=words, answers=Answers(words=True))
    [look] = stages_of(policy).look_answers([((), answer)])
    assert [found.rule for found in look.findings] == rules
    without = policy.model_copy(update={"answers": Answers()})
    assert stages_of(without).look_answers([((), answer)])[0].action == "pass"


def _of_words(requests: dict[str, float], declines: dict[str, float] | None = None) -> AnswerHeads:
    """Heads that know a few words: what they ask for, and what declines."""
    weights = np.zeros((ngrams.WIDTH, 4), np.float32)
    for column, words in ((0, requests), (2, declines or {})):
        for word, weight in words.items():
            weights[ngrams.buckets(word)[0], column] = weight
    limits = {"pair": (0.0,) * 3, "alone": (0.0,) * 3}
    return AnswerHeads(ngrams.packed(weights), np.zeros(4, np.float32), limits, {}, "")


def _said(question: str, answer: str) -> Said:
    asked: Sequence[tuple[str, Sequence[str]]] = [(question, (question,))] if question else []
    return Said(asked, [(answer, (answer,))])


def _exchange(question: str, answer: str) -> Exchange:
    request = Request(user(question), Sampling(temperature=0.0, max_tokens=8, seed=0))
    return Exchange(
        id=exchange_id("00", request), account="", model="fake:echo", model_digest="00", messages=request.messages,
        open_turn="assistant", sampling=request.sampling, answer=answer, started_at_s=0.0,
    )  # fmt: skip
