"""Limits: under the budgets, the one that serves best; a group of rows counts once."""

from dataclasses import dataclass
from typing import cast

import numpy as np
import pytest
from numpy.typing import NDArray

from spiritsafe.guard.heads.corpus import Corpus
from spiritsafe.guard.heads.limits import Budget, choose, limits_of
from spiritsafe.guard.heads.pieces import COUNTS


@dataclass
class Rows:
    """What `choose` asks of a corpus."""

    of_set: dict[str, NDArray[np.bool_]]
    groups: NDArray[np.int64]
    labels: NDArray[np.int64]
    counts: NDArray[np.int64]
    continues: NDArray[np.bool_]

    @property
    def asked(self) -> NDArray[np.bool_]:
        """All of them."""
        return np.ones(len(self.labels), bool)

    @property
    def opens(self) -> NDArray[np.bool_]:
        """None of them."""
        return np.zeros(len(self.labels), bool)

    def says(self, head: str) -> NDArray[np.int64]:
        """The labels, whatever the head."""
        del head
        return self.labels


def limits(
    scores: list[float],
    labels: list[int],
    groups: list[int] | None = None,
    *,
    share: float,
    counts: int | list[int] = 1,
) -> tuple[float, ...]:
    """The limits for one set, by the number of pieces."""
    num = len(scores)
    of_rows = np.broadcast_to(counts, num)
    everything, nothing = np.ones(num, bool), np.zeros(num, bool)
    rows = Rows({"a": everything}, np.array(groups or range(num)), np.array(labels), of_rows, nothing)
    return choose(cast(Corpus, rows), "harmful", np.array(scores), np.ones(num, bool), Budget(share))


def limit(scores: list[float], labels: list[int], groups: list[int] | None = None, *, share: float) -> float:
    """The limit for texts of one piece."""
    return limits(scores, labels, groups, share=share)[0]


def test_no_more_harmless_rows_are_flagged_than_the_budget_allows() -> None:
    scores = [*np.linspace(-1, 1, 101), *np.linspace(-1, 1, 101)]
    labels = [0] * 101 + [1] * 101
    found = limit(scores, labels, share=0.1)
    assert np.mean(np.linspace(-1, 1, 101) >= found) <= 0.1
    assert found == pytest.approx(0.82)


def test_where_no_row_says_yes_the_lowest_is_taken() -> None:
    assert limit([*np.linspace(-1, 0, 101)], [0] * 101, share=0.05) == pytest.approx(-0.04)
    assert limit([*np.linspace(-1, 0, 101)], [0] * 101, share=0.5) == pytest.approx(-0.48)


def test_fillings_of_one_template_count_as_one() -> None:
    scores = [-1.0] * 99 + [0.5] * 101
    apart = limit(scores, [0] * 200, share=0.02)
    together = limit(scores, [0] * 200, [*range(99), *[99] * 101], share=0.02)
    assert (apart, together) == pytest.approx((0.52, -0.98))


def test_a_handful_of_rows_is_no_judge() -> None:
    assert limit([1.5] * 49, [0] * 49, share=0.02) == -2.0
    assert limit([1.5] * 50, [0] * 50, share=0.02) == pytest.approx(1.52)


def test_longer_texts_have_limits_of_their_own_and_none_is_lower() -> None:
    short, long = [*np.linspace(-1, 0, 100)], [*np.linspace(0, 1, 100)]
    counts = [COUNTS[0]] * 100 + [COUNTS[1]] * 100
    assert limits(short + long, [0] * 200, share=0.05, counts=counts) == pytest.approx((-0.04, 0.96, 0.96), abs=0.021)
    assert limits(long + short, [0] * 200, share=0.05, counts=counts) == pytest.approx((0.96, 0.96, 0.96), abs=0.021)


def test_the_same_limit_holds_up_to_eight_pieces() -> None:
    assert limits_of(np.array([1, 2, 8, 9, 32, 33, 900]), (0.1, 0.2, 0.3)).tolist() == [
        0.1,
        0.1,
        0.1,
        0.2,
        0.2,
        0.3,
        0.3,
    ]


def test_of_conversations_no_more_are_flagged_than_their_budget_allows() -> None:
    rng = np.random.default_rng(0)
    num_talks, turns = 400, 8
    scores = rng.normal(size=num_talks * turns)
    counts = rng.choice([1, 9, 40], size=len(scores), p=[0.8, 0.15, 0.05])
    groups = np.repeat(np.arange(num_talks), turns)
    everything = np.ones(len(scores), bool)
    rows = Rows({"a": everything}, groups, np.zeros(len(scores), np.int64), counts, everything)

    shares = {}
    for budget in (0.02, 0.1, 1.0):
        found = choose(cast(Corpus, rows), "harmful", scores, everything, Budget(0.2, talks=budget))
        flags = (scores >= limits_of(counts, found)).reshape(num_talks, turns)
        shares[budget] = float(flags.any(axis=1).mean())

    assert 0.01 <= shares[0.02] <= 0.02
    assert 0.08 <= shares[0.1] <= 0.1
    assert shares[1.0] > 0.2
