"""Draws follow the distribution, depend on seed and step alone, and stay in the nucleus."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare

from spiritsafe.models.decoding.sampling import draw, exponentials, nucleus

LOGITS = torch.tensor([2.0, 1.0, 0.5, 0.0, -1.0, -2.0])


def draws(num: int, *, temperature: float = 1.0, top_p: float = 1.0, step: int = 0) -> np.ndarray:
    """How often each token is drawn under `num` seeds."""
    tokens = draw(LOGITS.expand(num, -1), range(num), [step] * num, [temperature] * num, [top_p] * num)
    return np.bincount(tokens.numpy(), minlength=len(LOGITS))


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("step", [0, 7])
def test_tokens_come_as_often_as_their_probability_says(temperature: float, step: int) -> None:
    expected = (LOGITS.double() / temperature).softmax(-1).numpy() * 4000
    assert chisquare(draws(4000, temperature=temperature, step=step), expected).pvalue > 1e-3


def test_the_steps_of_one_seed_are_independent() -> None:
    tokens = draw(LOGITS.expand(4000, -1), [5] * 4000, range(4000), [1.0] * 4000, [1.0] * 4000).numpy()
    assert chisquare(np.bincount(tokens, minlength=6), LOGITS.double().softmax(-1).numpy() * 4000).pvalue > 1e-3
    assert abs(np.corrcoef(tokens[:-1], tokens[1:])[0, 1]) < 4 / np.sqrt(4000)


def test_draws_from_the_nucleus_follow_the_renormalised_distribution() -> None:
    kept = nucleus(LOGITS.softmax(-1), 0.8).double().numpy()
    counts = draws(4000, top_p=0.8)
    assert set(np.flatnonzero(counts)) == set(np.flatnonzero(kept))
    inside = kept > 0
    assert chisquare(counts[inside], kept[inside] / kept.sum() * 4000).pvalue > 1e-3


def test_temperature_0_takes_the_likeliest_whatever_the_seed() -> None:
    assert draws(50, temperature=0.0).tolist() == [50, 0, 0, 0, 0, 0]


def test_a_low_temperature_approaches_the_likeliest() -> None:
    assert draws(500, temperature=0.01)[0] == 500


def test_a_row_does_not_know_the_others() -> None:
    rows = torch.randn(8, 50, generator=torch.Generator().manual_seed(0))
    together = draw(rows, range(8), range(8), [1.0] * 8, [0.9] * 8)
    alone = [int(draw(rows[i : i + 1], [i], [i], [1.0], [0.9])) for i in range(8)]
    assert together.tolist() == alone


@given(st.lists(st.floats(-5, 5), min_size=1, max_size=20), st.floats(0, 1))
def test_the_nucleus_is_the_smallest_likeliest_set_that_reaches_its_mass(logits: list[float], top_p: float) -> None:
    probs = torch.tensor(logits).softmax(-1)
    kept = nucleus(probs, top_p)
    inside = kept > 0
    assert inside.any()
    assert torch.equal(kept[inside], probs[inside])
    assert kept.double().sum() >= min(top_p, float(probs.double().sum())) - 1e-6
    assert kept.double().sum() - kept[inside].min() < max(top_p, 1e-6) + 1e-6
    assert not (~inside).any() or probs[~inside].max() <= probs[inside].min()


def test_exponentials_are_exponential_and_streams_do_not_overlap() -> None:
    first = exponentials(2**63 - 1, 0, 1000)
    assert first.mean() == pytest.approx(1, abs=0.15)
    assert np.intersect1d(first, exponentials(2**63 - 1, 1, 1000)).size == 0
    assert np.intersect1d(first, exponentials(2**63 - 2, 0, 1000)).size == 0
    assert exponentials(3, 4, 10).tolist() == exponentials(3, 4, 20)[:10].tolist()
