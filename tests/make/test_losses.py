"""Losses by their limits: a perfect copy has no divergence, a head is never worse than the whole."""

from itertools import pairwise
from math import log

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from spiritsafe.make.losses import sparse_forward_kl, text_loss

N, V = 6, 40
FLOOR = 2e-5


def random_logits(seed: int, scale: float = 2.0) -> Tensor:
    """Logits (N, V)."""
    return scale * torch.randn(N, V, generator=torch.Generator().manual_seed(seed))


def head(teacher_NV: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The teacher's top-k ids and log-probabilities."""
    top = teacher_NV.log_softmax(-1).topk(k, dim=-1)
    return top.indices, top.values


def full_kl(teacher_NV: Tensor, student_NV: Tensor) -> Tensor:
    """KL(teacher || student) over the whole vocabulary, (N)."""
    p, q = teacher_NV.double().log_softmax(-1), student_NV.double().log_softmax(-1)
    return (p.exp() * (p - q)).sum(-1)


@given(st.integers(0, 10**6), st.integers(1, V), st.floats(0.1, 8))
def test_a_perfect_copy_has_no_divergence(seed: int, k: int, scale: float) -> None:
    logits = random_logits(seed, scale)
    assert sparse_forward_kl(logits, *head(logits, k)).abs().max() < FLOOR


@given(st.integers(0, 10**6), st.integers(1, V), st.floats(0.1, 8))
def test_the_divergence_is_never_negative_and_bounds_the_full_one_from_below(seed: int, k: int, scale: float) -> None:
    teacher, student = random_logits(seed, scale), random_logits(seed + 1, scale)
    found = sparse_forward_kl(student, *head(teacher, k))
    assert (found > -FLOOR).all()
    assert (found <= full_kl(teacher, student) + FLOOR).all()


@given(st.integers(0, 10**6))
def test_a_head_of_the_whole_vocabulary_is_the_full_divergence(seed: int) -> None:
    teacher, student = random_logits(seed), random_logits(seed + 1)
    torch.testing.assert_close(
        sparse_forward_kl(student, *head(teacher, V)), full_kl(teacher, student).float(), atol=FLOOR, rtol=1e-4
    )


def test_a_larger_head_sees_more() -> None:
    teacher, student = random_logits(0), random_logits(1)
    found = [sparse_forward_kl(student, *head(teacher, k)) for k in range(1, V + 1)]
    for smaller, larger in pairwise(found):
        assert (smaller <= larger + FLOOR).all()


def test_it_is_the_forward_direction() -> None:
    """A student that covers too much costs little; one that misses what the teacher says costs without bound."""
    narrow, wide = torch.full((1, V), -20.0), torch.zeros(1, V)
    narrow[0, 0] = narrow[0, 1] = 0
    assert sparse_forward_kl(wide, *head(narrow, 5)).item() == pytest.approx(log(V / 2), abs=1e-3)
    assert sparse_forward_kl(narrow, *head(wide, V)).item() > 15


def test_another_tail_within_the_bucket_is_not_seen_and_a_larger_one_is() -> None:
    teacher = random_logits(3)
    ids, logprobs = head(teacher, 5)
    tail = torch.ones(N, V, dtype=torch.bool).scatter(1, ids, False)
    mixed = teacher.clone()
    mixed[tail] = teacher[tail].reshape(N, -1).flip(-1).reshape(-1)
    assert sparse_forward_kl(mixed, ids, logprobs).abs().max() < FLOOR
    assert (sparse_forward_kl(teacher + tail, ids, logprobs) > 0.001).all()


@pytest.mark.parametrize("scale", [0.5, 2.0, 4.0])
@pytest.mark.parametrize("k", [1, 8, 30])
def test_its_gradient_is_that_of_float64(scale: float, k: int) -> None:
    ids, logprobs = head(random_logits(4, scale), k)
    found = random_logits(5, scale).requires_grad_()
    torch.autograd.backward(sparse_forward_kl(found, ids, logprobs).sum())
    exact = random_logits(5, scale).double().requires_grad_()
    log_q = exact.log_softmax(-1)
    tail = torch.ones(N, V, dtype=torch.bool).scatter(1, ids, False)
    q_tail = log_q.masked_fill(~tail, -torch.inf).logsumexp(-1)
    p = logprobs.double()
    p_tail = 1 - p.exp().sum(-1)
    loss = (p.exp() * (p - log_q.gather(-1, ids))).sum(-1) + p_tail * (p_tail.log() - q_tail)
    torch.autograd.backward(loss.sum())
    assert found.grad is not None
    assert exact.grad is not None
    assert (found.grad - exact.grad).norm() / exact.grad.norm() < 1e-3


def test_half_precision_logits_are_summed_in_float32() -> None:
    teacher = random_logits(6)
    found = sparse_forward_kl(random_logits(7).bfloat16(), *head(teacher, 8))
    assert found.dtype == torch.float32
    assert text_loss(random_logits(7).bfloat16(), torch.zeros(N, dtype=torch.long)).dtype == torch.float32


def test_the_text_loss_is_the_negative_log_likelihood() -> None:
    logits, targets = random_logits(8), torch.arange(N)
    expected = -logits.log_softmax(-1)[torch.arange(N), targets]
    torch.testing.assert_close(text_loss(logits, targets), expected)


def test_the_text_loss_of_many_draws_is_the_divergence_plus_the_entropy() -> None:
    teacher, student = random_logits(9)[:1], random_logits(10)[:1]
    draws = teacher.softmax(-1).multinomial(200_000, replacement=True, generator=torch.Generator().manual_seed(0))[0]
    entropy = -(teacher.softmax(-1) * teacher.log_softmax(-1)).sum()
    found = text_loss(student.expand(len(draws), -1), draws).mean() - entropy
    assert found.item() == pytest.approx(full_kl(teacher, student).item(), rel=0.02)
