"""The fused head and loss against the definitions in float64, compiled and in plain torch."""

from dataclasses import replace
from itertools import product
from typing import Any, get_args

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from spiritsafe.errors import DataError
from spiritsafe.make.head import head_loss, loss, tiles
from spiritsafe.make.objective import TEXT, Divergence, Objective
from spiritsafe.make.signals import DenseSignal, SparseSignal, TeacherSignal
from spiritsafe.models.logits import capped

V, PADDED, D, E, N = 403, 410, 32, 24, 37
DIVERGENCES = get_args(Divergence)


@pytest.fixture(params=["compiled", "compiled in float32", "plain"], autouse=True)
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Every test runs all ways; a machine without a compiler runs the last alone."""
    chosen: str = request.param
    if chosen == "compiled in float32":
        monkeypatch.setattr(tiles, "SHARE_IN_BF16", 0.0)
    if chosen == "plain":
        monkeypatch.setattr(loss, "tiles", lambda head_VD: tiles.Plain())
    elif isinstance(tiles.tiles(torch.zeros(2, 2)), tiles.Plain):
        pytest.skip("no C++ compiler here")
    return chosen


def problem(dtype: torch.dtype = torch.float32, seed: int = 0, rows: int = PADDED) -> dict[str, Any]:
    """Hidden states, heads of `rows` rows, tokens, weights and both kinds of signal."""
    g = torch.Generator().manual_seed(seed)
    hidden_ND, head_VD = torch.randn(N, D, generator=g).to(dtype), (torch.randn(rows, D, generator=g) * 0.5).to(dtype)
    dense = DenseSignal(torch.randn(N, E, generator=g).to(dtype), (torch.randn(rows, E, generator=g) * 0.5).to(dtype))
    top = (dense.hidden_NE.float() @ dense.head_VE[:V].float().T).softmax(-1).topk(20)
    ids_NK, probs_NK = top.indices.clone(), top.values.clone()
    ids_NK[3, -4:], probs_NK[3, -4:] = -1, 0.0
    tokens_N = torch.randint(0, V, (N,), generator=g)
    tokens_N[::3] = ids_NK[::3, 2]
    weights_N = torch.rand(N, generator=g)
    weights_N[::5], weights_N[1] = 0.0, -0.5
    if dtype != torch.float32:
        head_VD.grad_dtype = torch.float32
    return {
        "hidden": hidden_ND.requires_grad_(),
        "head": head_VD.requires_grad_(),
        "tokens": tokens_N,
        "weights": weights_N,
        "dense": dense,
        "sparse": SparseSignal(ids_NK, probs_NK, 1 - probs_NK.sum(1)),
    }


def by_definition(
    p: dict[str, Any], objective: Objective, signal: TeacherSignal | None, cap: float | None = None
) -> tuple[Tensor, ...]:
    """Losses (N) and both gradients from whole float64 logits."""
    hidden_ND = p["hidden"].detach().double().requires_grad_()
    head_VD = p["head"].detach().double().requires_grad_()
    logits_NV = capped(hidden_ND @ head_VD[:V].T, cap)
    losses_N = torch.zeros(N, dtype=torch.double)
    if signal is not None:
        logq, probs = buckets((logits_NV / objective.temperature).log_softmax(-1), signal, objective.temperature)
        losses_N = losses_N + (1 - objective.cross_entropy) * divergence(probs, logq, objective)
    text_N = -logits_NV.log_softmax(-1).gather(1, p["tokens"][:, None])[:, 0]
    losses_N = losses_N + objective.cross_entropy * text_N
    torch.autograd.backward((losses_N * p["weights"]).sum())
    assert hidden_ND.grad is not None
    assert head_VD.grad is not None
    return losses_N.detach(), hidden_ND.grad, head_VD.grad


def buckets(logq_NV: Tensor, signal: TeacherSignal, temperature: float) -> tuple[Tensor, Tensor]:
    """The student's log-masses and the teacher's masses on the same buckets."""
    if isinstance(signal, DenseSignal):
        theirs_NV = capped(signal.hidden_NE.double() @ signal.head_VE[:V].double().T, signal.cap)
        return logq_NV, (theirs_NV / temperature).softmax(-1)
    here_NK = signal.ids_NK >= 0
    taken_NV = torch.zeros_like(logq_NV, dtype=torch.bool)
    for row, (ids, here) in enumerate(zip(signal.ids_NK, here_NK, strict=True)):
        taken_NV[row, ids[here]] = True
    rest_N1 = logq_NV.masked_fill(taken_NV, -torch.inf).logsumexp(1, keepdim=True)
    head_NK = logq_NV.gather(1, signal.ids_NK.clamp_min(0)).masked_fill(~here_NK, -200.0)
    return torch.cat([head_NK, rest_N1], 1), torch.cat([signal.probs_NK, signal.tail_N[:, None]], 1).double()


def divergence(p: Tensor, logq: Tensor, objective: Objective) -> Tensor:
    """As the papers write it."""

    def kl(a: Tensor, b: Tensor) -> Tensor:
        return torch.where(a > 0, a * (a.clamp_min(1e-300).log() - b.clamp_min(1e-300).log()), 0.0).sum(-1)

    q, b = logq.exp(), objective.beta
    mix = b * p + (1 - b) * q
    return {
        "forward-kl": lambda: kl(p, q),
        "reverse-kl": lambda: kl(q, p),
        "jsd": lambda: b * kl(p, mix) + (1 - b) * kl(q, mix),
        "skew-kl": lambda: kl(p, mix),
        "tv": lambda: (p - q).abs().sum(-1) / 2,
    }[objective.divergence or ""]()


def error(found: Tensor | None, wanted: Tensor) -> float:
    """Relative, in the Euclidean norm."""
    assert found is not None
    return float((found.double() - wanted).norm() / wanted.norm())


def rounding(way: str) -> float:
    """Bound of the error of float32 gradients; by default small rows are multiplied in bfloat16."""
    return 2e-4 if way == "compiled" else 1e-5


def mixes() -> list[Objective]:
    """Every divergence, with and without temperature and text."""
    settings = product(DIVERGENCES, (1.0, 2.0), (0.0, 0.4))
    return [Objective(d, beta=0.3, temperature=t, cross_entropy=c) for d, t, c in settings]


@pytest.mark.parametrize("kind", ["dense", "sparse"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_losses_and_gradients_are_those_of_the_definitions(dtype: torch.dtype, kind: str, way: str) -> None:
    bound = rounding(way) if dtype == torch.float32 else 5e-3
    for objective in mixes():
        p = problem(dtype)
        found = head_loss(
            p["hidden"], p["head"], p["tokens"], objective, signal=p[kind], weights_N=p["weights"], vocabulary=V
        )
        torch.autograd.backward(found.total)
        losses_N, dhidden_ND, dhead_VD = by_definition(p, objective, p[kind])
        counted = p["weights"] != 0
        assert error(found.losses_N[counted], losses_N[counted]) < 2e-5, objective
        assert error(p["hidden"].grad, dhidden_ND) < bound, objective
        assert error(p["head"].grad, dhead_VD) < bound, objective


@pytest.mark.parametrize("kind", ["dense", "sparse"])
def test_capped_logits_have_the_gradients_of_the_definitions(kind: str, way: str) -> None:
    for objective in [TEXT, *(o for o in mixes() if o.temperature != 1 or o.divergence == "forward-kl")]:
        p = problem()
        dense = replace(p["dense"], cap=1.5)
        signal = None if objective is TEXT else dense if kind == "dense" else p["sparse"]
        found = head_loss(
            p["hidden"], p["head"], p["tokens"], objective, signal=signal, weights_N=p["weights"], vocabulary=V, cap=2.0
        )
        torch.autograd.backward(found.total)
        losses_N, dhidden_ND, dhead_VD = by_definition(p, objective, signal, cap=2.0)
        counted = p["weights"] != 0
        assert error(found.losses_N[counted], losses_N[counted]) < 2e-5, objective
        assert error(p["hidden"].grad, dhidden_ND) < rounding(way), objective
        assert error(p["head"].grad, dhead_VD) < rounding(way), objective


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_text_alone_is_cross_entropy(dtype: torch.dtype) -> None:
    p = problem(dtype, rows=V)
    found = head_loss(p["hidden"], p["head"], p["tokens"], TEXT, weights_N=p["weights"])
    torch.autograd.backward(found.total)
    _, dhidden_ND, dhead_VD = by_definition(p, TEXT, None)
    wanted = torch.nn.functional.cross_entropy((p["hidden"] @ p["head"].T).float(), p["tokens"], reduction="none") * (
        p["weights"] != 0
    )
    assert error(found.losses_N, wanted.detach().double()) < (1e-5 if dtype == torch.float32 else 1e-2)
    assert error(p["hidden"].grad, dhidden_ND) < 5e-3
    assert error(p["head"].grad, dhead_VD) < 5e-3


@pytest.mark.parametrize("divergence", DIVERGENCES)
def test_a_perfect_copy_has_no_divergence_and_no_gradient(divergence: Divergence) -> None:
    p = problem(rows=V)
    own = DenseSignal(p["hidden"].detach(), p["head"].detach())
    found = head_loss(p["hidden"], p["head"], p["tokens"], Objective(divergence), signal=own)
    torch.autograd.backward(found.total)
    assert found.losses_N.abs().max() < 1e-5
    if divergence != "tv":  # its derivative jumps there
        assert p["hidden"].grad.abs().max() < 1e-4


@pytest.mark.parametrize("beta", [1e-3, 1 - 1e-3])
def test_jsd_tends_to_one_kl_and_not_to_the_other(beta: float) -> None:
    p = problem(rows=V)
    near = DenseSignal(p["hidden"].detach() * 0.7, p["head"].detach())

    def losses_N(objective: Objective) -> Tensor:
        return head_loss(p["hidden"], p["head"], p["tokens"], objective, signal=near).losses_N.double()

    forward_N, reverse_N = losses_N(Objective("forward-kl")), losses_N(Objective("reverse-kl"))
    right_N, wrong_N = (forward_N, reverse_N) if beta < 0.5 else (reverse_N, forward_N)
    ours_N = losses_N(Objective("jsd", beta=beta)) / min(beta, 1 - beta)
    assert error(ours_N, right_N) < 0.02
    assert error(ours_N, wrong_N) > 0.1


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])  # the way is the same for all examples
@given(cut=st.integers(1, N - 1), seed=st.integers(0, 20))
def test_one_call_equals_two_over_its_parts(way: str, cut: int, seed: int) -> None:
    p = problem(seed=seed, rows=V)
    whole = head_loss(p["hidden"], p["head"], p["tokens"], Objective(), signal=p["sparse"], scale=0.1)
    torch.autograd.backward(whole.total)
    wanted = p["head"].grad.clone()
    p["head"].grad = None
    for part in (slice(0, cut), slice(cut, N)):
        signal = p["sparse"].rows(part)
        found = head_loss(p["hidden"][part], p["head"], p["tokens"][part], Objective(), signal=signal, scale=0.1)
        torch.autograd.backward(found.total)
    assert error(p["head"].grad, wanted.double()) < rounding(way)


def test_tokens_without_weight_change_nothing() -> None:
    p = problem(rows=V)
    weights_N = (torch.arange(N) % 2).float()
    found = head_loss(p["hidden"], p["head"], p["tokens"], TEXT, weights_N=weights_N)
    torch.autograd.backward(found.total)
    assert p["hidden"].grad[::2].abs().sum() == 0
    assert found.losses_N[::2].sum() == 0
    alone = head_loss(p["hidden"][1::2], p["head"], p["tokens"][1::2], TEXT)
    assert float(alone.total.detach()) == pytest.approx(float(found.total.detach()), rel=1e-5)


def test_padding_rows_get_neither_mass_nor_gradient() -> None:
    p = problem()
    with torch.no_grad():
        p["head"][V:] = 100.0
    found = head_loss(p["hidden"], p["head"], p["tokens"], Objective(), signal=p["dense"], vocabulary=V)
    torch.autograd.backward(found.total)
    assert torch.isfinite(found.total)
    assert p["head"].grad[V:].abs().sum() == 0


def test_equal_calls_give_equal_bits() -> None:
    seen = []
    for _ in range(3):
        p = problem(rows=V)
        torch.autograd.backward(
            head_loss(p["hidden"], p["head"], p["tokens"], Objective("jsd"), signal=p["dense"]).total
        )
        seen.append((p["hidden"].grad, p["head"].grad))
    assert all(torch.equal(a, b) for one in seen[1:] for a, b in zip(one, seen[0], strict=True))


def test_a_frozen_head_gets_no_gradient_and_a_later_factor_counts(way: str) -> None:
    p = problem(rows=V)
    head_VD = p["head"].detach()
    torch.autograd.backward(3 * head_loss(p["hidden"], head_VD, p["tokens"], TEXT).total)
    wanted = by_definition({**p, "weights": torch.full((N,), 3.0)}, TEXT, None)[1]
    assert error(p["hidden"].grad, wanted) < rounding(way)


def test_a_bfloat16_head_can_have_a_bfloat16_gradient() -> None:
    p = problem(torch.bfloat16, rows=V)
    p["head"].grad_dtype = torch.bfloat16
    torch.autograd.backward(head_loss(p["hidden"], p["head"], p["tokens"], TEXT).total)
    wanted = by_definition({**p, "weights": torch.ones(N)}, TEXT, None)[2]
    assert p["head"].grad.dtype == torch.bfloat16
    assert error(p["head"].grad, wanted) < 1e-2


def test_a_sampled_teachers_gradient_is_that_of_its_masses(way: str) -> None:
    """Without a rest the masses are a target of their own: gradient (sum p) q - p, also where they miss 1."""
    p = problem(rows=V)
    signal = SparseSignal(p["sparse"].ids_NK, p["sparse"].probs_NK * 1.2, torch.zeros(N))
    torch.autograd.backward(head_loss(p["hidden"], p["head"], p["tokens"], Objective(), signal=signal).total)
    q_NV = (p["hidden"].detach() @ p["head"].detach().T).softmax(-1)
    target_NV = torch.zeros(N, V).scatter_add_(1, signal.ids_NK.clamp_min(0), signal.probs_NK)
    slope_NV = q_NV * target_NV.sum(1, keepdim=True) - target_NV
    assert error(p["head"].grad, (slope_NV.T @ p["hidden"].detach()).double()) < rounding(way)


def test_what_does_not_fit_is_refused() -> None:
    p = problem()
    hidden, head, tokens, dense = p["hidden"], p["head"], p["tokens"], p["dense"]
    with pytest.raises(DataError, match="outside the vocabulary of 10"):
        head_loss(hidden, head, tokens, TEXT, vocabulary=10)
    with pytest.raises(DataError, match="a divergence needs a teacher"):
        head_loss(hidden, head, tokens, Objective())
    with pytest.raises(DataError, match=r"teacher's head has 403 rows.*vocabulary=N"):
        head_loss(hidden, head, tokens, Objective(), signal=DenseSignal(dense.hidden_NE, dense.head_VE[:V]))
    with pytest.raises(DataError, match="does not have 37 rows"):
        head_loss(hidden, head, tokens, Objective(), signal=dense.rows(slice(0, 5)))
    with pytest.raises(DataError, match="do not fit"):
        head_loss(hidden, head.bfloat16(), tokens, TEXT)
    found = head_loss(hidden, head, tokens, TEXT)
    torch.autograd.backward(found.total, retain_graph=True)
    with pytest.raises(RuntimeError, match="one backward pass"):
        torch.autograd.backward(found.total)
