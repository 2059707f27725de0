"""Tokens drawn in C++ are those that `sampling` draws, from the same numbers."""

import ctypes

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from spiritsafe.models.decoding import sample_native, sampling
from spiritsafe.models.decoding.sample_native import Drawing
from spiritsafe.native import native

SEEDS = st.integers(0, 2**63 - 1)


@given(SEEDS, st.integers(0, 10_000), st.integers(1, 3000))
def test_the_exponentials_are_numpys(seed: int, step: int, count: int) -> None:
    library = native(sample_native.SOURCE, torch=True)
    assert library
    found = np.empty(count)
    library.race_exponentials(
        ctypes.c_uint64(seed), ctypes.c_uint64(step), ctypes.c_long(count), sample_native.pointer(found)
    )
    np.testing.assert_allclose(found, sampling.exponentials(seed, step, count), rtol=1e-14)


@given(SEEDS, st.sampled_from([(0.0, 1.0), (1.0, 1.0), (0.6, 1.0), (1.0, 0.9), (1.7, 0.3)]), st.integers(2, 2000))
def test_a_draw_is_the_reference_draw(seed: int, how: tuple[float, float], vocab: int) -> None:
    logits_BV = 3 * torch.randn(3, vocab, generator=torch.Generator().manual_seed(seed))
    seeds, steps = [seed, seed + 1, seed], [0, 7, 1]
    tokens, logprobs = sample_native.draw(logits_BV, seeds, steps, Drawing(*how))
    assert tokens == sampling.draw(logits_BV, seeds, steps, [how[0]] * 3, [how[1]] * 3).tolist()
    wanted = logits_BV.double().log_softmax(-1).gather(-1, torch.tensor(tokens)[:, None])[:, 0]
    torch.testing.assert_close(torch.tensor(logprobs).double(), wanted, atol=3e-6, rtol=1e-6)


def test_a_nucleus_of_equal_tokens_keeps_the_first() -> None:
    tokens, _ = sample_native.draw(torch.zeros(200, 40), range(200), [0] * 200, Drawing(1.0, 0.24))
    assert set(tokens) == set(range(10))


def test_scores_are_log_softmax() -> None:
    logits_BV = 20 * torch.randn(5, 77)
    wanted = logits_BV.log_softmax(-1)[torch.arange(5), [3, 0, 76, 9, 9]]
    torch.testing.assert_close(
        torch.tensor(sample_native.score(logits_BV, [3, 0, 76, 9, 9])), wanted, atol=1e-5, rtol=1e-5
    )


def test_without_a_compiler_the_draws_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    logits_BV = 3 * torch.randn(20, 500)
    tokens, logprobs = sample_native.draw(logits_BV, range(20), range(20), Drawing())
    monkeypatch.setattr(sample_native, "native", lambda *_, **__: None)
    plain_tokens, plain_logprobs = sample_native.draw(logits_BV, range(20), range(20), Drawing())
    assert plain_tokens == tokens
    assert plain_logprobs == pytest.approx(logprobs, abs=1e-5)
