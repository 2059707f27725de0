"""Head and loss fused: the gradient is computed in the forward pass, logits exist for one tile of tokens.

Memory beyond the inputs is the gradients (float32 for the head) and tiles of at most 48 MiB, whatever the
number of tokens; tokens of weight 0 cost nothing. Axes: N answer tokens, D the student's hidden size, V
vocabulary, M tokens of a tile, K stored tokens.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from spiritsafe.errors import DataError
from spiritsafe.make.head.reduced import reduced
from spiritsafe.make.head.tiles import LANES, Part, Tails, Tiles, large, tiles
from spiritsafe.make.objective import Objective
from spiritsafe.make.signals.kinds import DenseSignal, SparseSignal, TeacherSignal

MIB = 2**20
TOTAL_MIB = 164


@dataclass(frozen=True)
class HeadLoss:
    """`total` is differentiable once; `losses_N` (float32, nats, unweighted) are not, and 0 where the weight is."""

    total: Tensor
    losses_N: Tensor


def head_loss(
    hidden_ND: Tensor,
    head_VD: Tensor,
    tokens_N: Tensor,
    objective: Objective,
    *,
    signal: TeacherSignal | None = None,
    weights_N: Tensor | None = None,
    scale: float = 1.0,
    vocabulary: int | None = None,
    cap: float | None = None,
) -> HeadLoss:
    """`scale` times the weighted sum of the tokens' losses; hidden states and head of one dtype.

    float32 or bfloat16 inputs; products accumulate in float32. The head's gradient has the dtype
    `head_VD.grad_dtype` (torch's default: the head's own). `vocabulary` leaves out the rows behind it in both
    heads, which then get no mass: for models of one family whose embeddings are padded differently. `cap` bends
    the student's logits as `models.logits` says. Raises `DataError` where student, teacher and tokens do not fit
    together.
    """
    size = vocabulary or len(head_VD)
    _check(tokens_N, objective, signal, hidden_ND, head_VD, vocabulary)
    weights_N = torch.ones(len(tokens_N)) if weights_N is None else weights_N.float()
    total, losses_N = _Fused.apply(  # type: ignore[no-untyped-call]
        hidden_ND, head_VD, _Problem(tokens_N, objective, signal, weights_N * scale, size, cap)
    )
    return HeadLoss(total, losses_N)


@dataclass(frozen=True)
class _Problem:
    tokens_N: Tensor
    objective: Objective
    signal: TeacherSignal | None
    weights_N: Tensor
    vocabulary: int
    cap: float | None

    @property
    def num_tiles(self) -> int:
        """Tiles in memory at once: the logits, the teacher's, and the slope of a cap."""
        return 1 + isinstance(self.signal, DenseSignal) + (self.cap is not None)


class _Fused(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden_ND: Tensor, head_VD: Tensor, problem: _Problem) -> tuple[Tensor, Tensor]:
        wants_head = ctx.needs_input_grad[1]
        dhidden_ND = torch.zeros_like(hidden_ND)
        dhead_VD = large(*head_VD.shape, device=head_VD.device).zero_() if wants_head else None
        losses_N = torch.zeros(len(hidden_ND))
        size = problem.vocabulary
        head, dhead = head_VD[:size].contiguous(), dhead_VD[:size] if dhead_VD is not None else None
        run = tiles(head)
        rows_N = problem.weights_N.nonzero()[:, 0]
        num = min(_rows_per_tile(problem, hidden_ND, dhead), len(rows_N) + -len(rows_N) % LANES)
        memory = large(problem.num_tiles, size * num, device=head_VD.device)
        for rows_M in torch.split(rows_N, max(1, num)):
            losses_M, dhidden_MD = _tile(run, problem, hidden_ND, head, dhead, rows_M, memory)
            losses_N[rows_M] = losses_M
            dhidden_ND[rows_M] = dhidden_MD.to(dhidden_ND.dtype)
        total = (losses_N.double() * problem.weights_N).sum().float()
        if dhead_VD is not None and head_VD.dtype != torch.float32 and _grad_dtype(head_VD) != torch.float32:
            dhead_VD = _narrowed(dhead_VD, head_VD.dtype)
        ctx.gradients = (dhidden_ND, dhead_VD)
        ctx.mark_non_differentiable(losses_N)
        return total, losses_N

    @staticmethod
    def backward(ctx: Any, slope: Tensor, _: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        if ctx.gradients is None:
            raise RuntimeError("head_loss keeps its gradients for one backward pass only")
        dhidden_ND, dhead_VD = ctx.gradients
        ctx.gradients = None
        if float(slope) != 1:
            for gradient in (dhidden_ND, dhead_VD):
                if gradient is not None:
                    gradient.mul_(slope)
        return dhidden_ND if ctx.needs_input_grad[0] else None, dhead_VD, None


def _tile(
    run: Tiles,
    problem: _Problem,
    hidden_ND: Tensor,
    head_VD: Tensor,
    dhead_VD: Tensor | None,
    rows_M: Tensor,
    memory: Tensor,
) -> tuple[Tensor, Tensor]:
    """Losses (M) of some tokens and the gradient of their hidden states; the head's is added to."""
    num = len(rows_M)
    pad = -num % LANES
    hidden_MD = _padded(hidden_ND.detach()[rows_M], pad)
    tokens_M, weights_M = _padded(problem.tokens_N[rows_M], pad), _padded(problem.weights_N[rows_M], pad)
    size = len(head_VD), num + pad
    tile_VM, *others = (one[: size[0] * size[1]].view(size) for one in memory)
    run.project(hidden_MD, head_VD, tile_VM)
    bend_VM = None
    if problem.cap is not None:  # the slope of c tanh(x / c) is 1 - tanh(x / c)^2
        bend_VM = others[-1]
        torch.div(_bend(tile_VM, problem.cap), problem.cap, out=bend_VM).square_().neg_().add_(1)
    part = Part(hidden_MD, head_VD, torch.empty_like(hidden_MD, dtype=torch.float32), dhead_VD, bend_VM)
    if isinstance(problem.signal, DenseSignal):
        theirs_ME, teacher_VM = _padded(problem.signal.hidden_NE[rows_M], pad), others[0]
        teacher_head_VE = problem.signal.head_VE[: len(head_VD)].contiguous()
        tiles(teacher_head_VE).project(theirs_ME.to(teacher_head_VE.dtype), teacher_head_VE, teacher_VM)
        if problem.signal.cap is not None:
            _bend(teacher_VM, problem.signal.cap)
        losses_M = run.dense(part, tile_VM, teacher_VM, tokens_M, weights_M, problem.objective)
    else:
        losses_M = _sparse(run, part, problem, tile_VM, rows_M, tokens_M, weights_M)
    return losses_M[:num], part.dhidden_MD[:num]


def _sparse(
    run: Tiles, part: Part, problem: _Problem, tile_VM: Tensor, rows_M: Tensor, tokens_M: Tensor, weights_M: Tensor
) -> Tensor:
    """The head's few logits are taken out of the tile, the rest counts by its mass alone."""
    pad, objective = len(tokens_M) - len(rows_M), problem.objective
    signal = problem.signal.rows(rows_M) if isinstance(problem.signal, SparseSignal) else None
    loss = reduced(signal, tokens_M, objective, pad=pad)
    ids_MK, columns_M1 = loss.ids_MK, torch.arange(len(tokens_M))[:, None]
    safe_MK = ids_MK.clamp_min(0)
    logits_MK = tile_VM[safe_MK, columns_M1]
    taken = ids_MK >= 0
    tile_VM[ids_MK[taken], columns_M1.expand_as(ids_MK)[taken]] = -1e30
    scale = 1 / objective.temperature
    mass_M = run.sums(tile_VM, scale)
    plain_M = run.sums(tile_VM, 1.0) if scale != 1 and objective.cross_entropy and objective.divergence else None
    losses_M, slopes_MK, slope_M, plain_slope_M = loss.solve(logits_MK, mass_M, plain_M, weights_M)
    tails = Tails(scale, mass_M, slope_M * scale, plain_M, plain_slope_M)
    run.sparse(part, tile_VM, tails, ids_MK, slopes_MK)
    return losses_M


def _rows_per_tile(problem: _Problem, hidden_ND: Tensor, dhead_VD: Tensor | None) -> int:
    """Tokens of a tile, by what the gradients leave of `TOTAL_MIB`: larger tiles read the head less often."""
    gradients = hidden_ND.nbytes + (dhead_VD.nbytes if dhead_VD is not None else 0)
    free = min(48 * MIB, max(16 * MIB, TOTAL_MIB * MIB - gradients))
    each = problem.vocabulary * 4 * problem.num_tiles
    return max(LANES, min(256, free // each // LANES * LANES))


def _bend(tile_VM: Tensor, cap: float) -> Tensor:
    """Cap a tile's logits in place."""
    return tile_VM.div_(cap).tanh_().mul_(cap)


def _padded(x: Tensor, rows: int) -> Tensor:
    return torch.cat([x, x.new_zeros(rows, *x.shape[1:])]) if rows else x.contiguous()


def _grad_dtype(weight: Tensor) -> torch.dtype | None:
    return weight.grad_dtype if weight.is_leaf else weight.dtype


def _narrowed(wide_VD: Tensor, dtype: torch.dtype) -> Tensor:
    """The same values in a smaller dtype, in the front half of the same memory."""
    flat, step = wide_VD.view(-1), 2**20
    narrow = flat.view(dtype)[: flat.numel()]
    for at in range(0, flat.numel(), step):
        narrow[at : at + step] = flat[at : at + step].clone().to(dtype)
    return narrow.view(wide_VD.shape)


def _check(
    tokens_N: Tensor,
    objective: Objective,
    signal: TeacherSignal | None,
    hidden_ND: Tensor,
    head_VD: Tensor,
    vocabulary: int | None,
) -> None:
    where, size = "head_loss", vocabulary or len(head_VD)
    if hidden_ND.shape != (len(tokens_N), head_VD.shape[1]) or hidden_ND.dtype != head_VD.dtype:
        shapes = f"hidden {tuple(hidden_ND.shape)} {hidden_ND.dtype}, head {tuple(head_VD.shape)} {head_VD.dtype}"
        raise DataError(where, f"{len(tokens_N)} tokens do not fit {shapes}")
    if size > len(head_VD) or (len(tokens_N) and not 0 <= int(tokens_N.min()) <= int(tokens_N.max()) < size):
        raise DataError(where, f"a token lies outside the vocabulary of {size}")
    if (signal is None) != (objective.divergence is None):
        raise DataError(where, "a divergence needs a teacher's signal, and a signal a divergence")
    if isinstance(signal, DenseSignal) and (
        len(signal.head_VE) < size or (vocabulary is None and len(signal.head_VE) > size)
    ):
        what = f"the teacher's head has {len(signal.head_VE)} rows, the student's {len(head_VD)}"
        raise DataError(where, what, "say how many are real tokens: vocabulary=N")
    if isinstance(signal, SparseSignal) and len(signal.ids_NK) and int(signal.ids_NK.max()) >= size:
        raise DataError(where, f"the teacher's token {int(signal.ids_NK.max())} lies outside the vocabulary of {size}")
    if signal is not None and len(signal.hidden_NE if isinstance(signal, DenseSignal) else signal.ids_NK) != len(
        tokens_N
    ):
        raise DataError(where, f"the signal does not have {len(tokens_N)} rows")
