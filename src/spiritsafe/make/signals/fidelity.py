"""What storing a teacher's signals in few bytes does to a student's loss and gradient.

The loss is the forward KL from the teacher to the student, in nats a token, as `head_loss` computes it. A stored
target p' counts as sum p' log(p / q) with the teacher's own p: q's part is the loss that is trained on, and the
rest does not depend on the student. Ways that sample are drawn several times: bias is the distance of the mean,
noise the spread of one draw. Suffixes: N positions, T those of one answer, K entries, V vocabulary, D hidden.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from spiritsafe.evidence import Estimate, clustered_mean
from spiritsafe.make.head import head_loss
from spiritsafe.make.objective import Objective
from spiritsafe.make.signals.coder import open_coder
from spiritsafe.make.signals.kinds import DenseSignal, SparseSignal, joined
from spiritsafe.make.signals.reader import signal_of
from spiritsafe.make.signals.sample import Keep, choose, rows_of
from spiritsafe.models.logits import capped
from spiritsafe.record import seed_of

ID_BYTES, VALUE_BYTES = 2, 2


@dataclass(frozen=True)
class Way:
    """A way to store targets: as a cache does, or `raw` 16-bit ids and values of the top `keep.num`, for comparison.

    `truncated` leaves the tail out of the loss, `renormalised` scales the head to 1.
    """

    name: str
    keep: Keep
    raw: Literal["", "truncated", "renormalised"] = ""


@dataclass(frozen=True)
class Scene:
    """Answer positions as a teacher and a student see them; `lengths` are the answers' numbers of tokens."""

    teacher: DenseSignal
    hidden_ND: Tensor
    head_VD: Tensor
    tokens_N: Tensor
    lengths: tuple[int, ...]


@dataclass(frozen=True)
class Fidelity:
    """What a way costs and does, with 95 % intervals over answers; `draws` is 1 where it does not sample.

    `total_variation` between the teacher's and the expected target, all of the tail as one token. `loss_bias` in
    nats a token, `loss_noise` the standard deviation of one token's loss over draws. `cosine` of one answer's
    gradient by the hidden states. For the gradient of all answers by the head: `cosine_head` (mean over draws),
    and `bias_head`, `noise_head` relative to its length.
    """

    name: str
    bytes_per_token: float
    total_variation: Estimate
    loss_bias: Estimate
    loss_noise: float
    cosine: Estimate
    cosine_head: float
    bias_head: float
    noise_head: float
    draws: int


@dataclass(frozen=True)
class Target:
    """A stored target, the teacher's own log-probabilities of its tokens and of its tail, and where samples are."""

    signal: SparseSignal
    logprobs_NK: Tensor
    tail_N: Tensor
    sampled_NK: Tensor


@dataclass(frozen=True)
class Slopes:
    """A target's losses (N) and gradients of their mean."""

    losses_N: Tensor
    hidden_ND: Tensor
    head_VD: Tensor


@dataclass
class _Sums:
    """Over the draws of one way."""

    apart: list[Tensor] = field(default_factory=list)
    losses: list[Tensor] = field(default_factory=list)
    cosines: list[Tensor] = field(default_factory=list)
    cosines_head: list[float] = field(default_factory=list)
    head_VD: Tensor | float = 0.0
    squares: float = 0.0


def fidelity(
    scene: Scene, ways: Sequence[Way], *, seed: int, draws: int = 8, tick: Callable[[], object] = lambda: None
) -> list[Fidelity]:
    """Each way's cost and faithfulness on the same positions; `tick` is called after each way.

    Raises `ValueError` for fewer than 2 draws: bias could not be told from noise.
    """
    if draws < 2:
        raise ValueError(f"draws is {draws}, must be at least 2")
    full = slopes(scene, scene.teacher)
    found = []
    for way in ways:
        times = draws if way.keep.mode == "unbiased" else 1
        sums, size = _Sums(), 0.0
        for draw in range(times):
            target, size = stored(scene, way, seed=seed_of(seed, "fidelity", str(draw)))
            _add(sums, scene, target, full)
        found.append(_fidelity(way, scene, sums, full, size, seed))
        tick()
    return found


def slopes(scene: Scene, signal: DenseSignal | SparseSignal) -> Slopes:
    """The student's losses against a signal, and the gradients of their mean."""
    hidden, head = scene.hidden_ND.clone().requires_grad_(), scene.head_VD.clone().requires_grad_()
    loss = head_loss(hidden, head, scene.tokens_N, Objective(), signal=signal, scale=1 / len(hidden))
    loss.total.backward()  # type: ignore[no-untyped-call]
    assert hidden.grad is not None
    assert head.grad is not None
    return Slopes(loss.losses_N, hidden.grad, head.grad)


def stored(scene: Scene, way: Way, *, seed: int) -> tuple[Target, float]:
    """The targets of all answers as they come back from storage, and the bytes of one token's."""
    coder, coded, targets = open_coder(len(scene.teacher.head_VE)), 0, []
    lengths = list(scene.lengths)
    hidden, tokens = torch.split(scene.teacher.hidden_NE, lengths), torch.split(scene.tokens_N, lengths)
    for number, (hidden_TE, tokens_T) in enumerate(zip(hidden, tokens, strict=True)):
        product_TV = hidden_TE.float() @ scene.teacher.head_VE.float().T
        logprobs_TV = capped(product_TV, scene.teacher.cap).log_softmax(-1)
        kept = choose(logprobs_TV, way.keep, seed=seed_of(seed, str(number)))
        if way.raw:
            signal = _raw(kept.ids_TK, kept.logprobs_TK, renormalise=way.raw == "renormalised")
            coded += kept.ids_TK.numel() * (ID_BYTES + VALUE_BYTES)
        else:
            rows = rows_of(kept, tokens_T, way.keep.precision)
            coded += len(coder.encode(rows))
            signal = signal_of(rows, way.keep.precision)
        own_TK = logprobs_TV.gather(1, kept.ids_TK)
        rest_T = (1 - own_TK.double().exp().sum(-1)).clamp_min(1e-30).log().float()
        targets.append(Target(signal, own_TK, rest_T, kept.sampled_TK))
    whole = Target(
        joined([t.signal for t in targets]), *(torch.cat(parts) for parts in zip(*map(_own, targets), strict=True))
    )
    return whole, coded / len(scene.tokens_N)


def _own(target: Target) -> tuple[Tensor, Tensor, Tensor]:
    return target.logprobs_NK, target.tail_N, target.sampled_NK


def _raw(ids_TK: Tensor, logprobs_TK: Tensor, *, renormalise: bool) -> SparseSignal:
    probs_TK = logprobs_TK.half().float().exp()
    if renormalise:
        probs_TK = probs_TK / probs_TK.sum(-1, keepdim=True)
    return SparseSignal(ids_TK, probs_TK, torch.zeros(len(ids_TK)))


def _add(sums: _Sums, scene: Scene, target: Target, full: Slopes) -> None:
    """Take in one draw."""
    found, signal = slopes(scene, target.signal), target.signal
    probs_NK, tail_N = signal.probs_NK.double(), signal.tail_N.double()
    own_N = torch.special.xlogy(probs_NK, probs_NK).sum(-1) + torch.special.xlogy(tail_N, tail_N)
    teachers_N = (probs_NK * target.logprobs_NK).sum(-1) + torch.where(tail_N > 0, tail_N * target.tail_N, 0.0)
    sums.losses.append(found.losses_N.double() - own_N + teachers_N)
    given_NK = torch.where(target.sampled_NK, 0.0, target.logprobs_NK.double().exp())
    kept_NK = torch.where(target.sampled_NK, 0.0, probs_NK)
    rest_N = torch.where(target.sampled_NK, probs_NK, 0.0).sum(-1) + tail_N
    sums.apart.append(((given_NK - kept_NK).abs().sum(-1) + (1 - given_NK.sum(-1) - rest_N).abs()) / 2)
    lengths = list(scene.lengths)
    pairs = zip(torch.split(found.hidden_ND, lengths), torch.split(full.hidden_ND, lengths), strict=True)
    sums.cosines.append(torch.tensor([_cosine(ours, theirs) for ours, theirs in pairs]))
    sums.cosines_head.append(_cosine(found.head_VD, full.head_VD))
    sums.head_VD = sums.head_VD + found.head_VD
    sums.squares += float(found.head_VD.square().sum(dtype=torch.float64))


def _fidelity(way: Way, scene: Scene, sums: _Sums, full: Slopes, size: float, seed: int) -> Fidelity:
    draws = len(sums.losses)
    losses_SN, mean_VD = torch.stack(sums.losses), sums.head_VD / draws
    assert isinstance(mean_VD, Tensor)
    spread = 0.0
    if draws > 1:
        spread = max(0.0, sums.squares - draws * float(mean_VD.square().sum(dtype=torch.float64))) / (draws - 1)
    distance = float((mean_VD - full.head_VD).square().sum(dtype=torch.float64)) - spread / draws
    length = float(full.head_VD.norm())
    return Fidelity(
        way.name,
        size,
        _over_answers(torch.stack(sums.apart).mean(0), scene, seed),
        _over_answers(losses_SN.mean(0) - full.losses_N, scene, seed),
        float(losses_SN.var(0).mean().sqrt()) if draws > 1 else 0.0,
        clustered_mean(torch.stack(sums.cosines).mean(0).tolist(), [1.0] * len(scene.lengths), seed=seed),
        float(np.mean(sums.cosines_head)),
        max(0.0, distance) ** 0.5 / length,
        spread**0.5 / length,
        draws,
    )


def _over_answers(values_N: Tensor, scene: Scene, seed: int) -> Estimate:
    sums = [float(part.sum()) for part in torch.split(values_N, list(scene.lengths))]
    return clustered_mean(sums, [float(length) for length in scene.lengths], seed=seed)


def _cosine(ours: Tensor, theirs: Tensor) -> float:
    a, b = ours.flatten().double(), theirs.flatten().double()
    return float(a @ b / (a.norm() * b.norm()).clamp_min(1e-300))
