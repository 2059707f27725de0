"""What is done to one tile of logits: in C++ where it compiles, in plain torch elsewhere, with equal results.

A tile is (V, M): M tokens side by side. Axes: D hidden, V vocabulary, M tokens of the tile, K stored tokens.
"""

import ctypes
import mmap
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from spiritsafe.make.objective import Objective
from spiritsafe.native import native

KINDS = ("forward-kl", "reverse-kl", "jsd", "skew-kl", "tv")
LANES = 16
BLOCK = 2048
# The share of the norm of a tile's gradient by its logits that may lie in rows multiplied in bfloat16 where inputs
# are float32: two roundings of 2^-8 change the whole by 2.4e-4 of that norm at most, by about 7e-5 in the mean square.
SHARE_IN_BF16 = 0.03


@dataclass(frozen=True)
class Part:
    """One tile's tokens: `hidden_MD` and `head_VD` of one dtype; gradients are written to the float32 others.

    `bend_VM` is the slope of the logits by the product of the two, where they are capped.
    """

    hidden_MD: Tensor
    head_VD: Tensor
    dhidden_MD: Tensor
    dhead_VD: Tensor | None
    bend_VM: Tensor | None = None


class Tiles(Protocol):
    """The steps of a tile."""

    def project(self, hidden_MD: Tensor, head_VD: Tensor, tile_VM: Tensor) -> None:
        """Logits, float32."""
        ...

    def sums(self, tile_VM: Tensor, scale: float) -> Tensor:
        """log-sum-exp over the vocabulary of `scale` times the logits, (M)."""
        ...

    def dense(
        self,
        part: Part,
        tile_VM: Tensor,
        teacher_VM: Tensor,
        tokens_M: Tensor,
        weights_M: Tensor,
        objective: Objective,
    ) -> Tensor:
        """Loss of each token (M) against the teacher's logits, which are overwritten; writes the gradients."""
        ...

    def sparse(self, part: Part, tile_VM: Tensor, tails: "Tails", ids_MK: Tensor, slopes_MK: Tensor) -> None:
        """Gradients from slopes at the K tokens (-1: none) and on the tails' log-masses."""
        ...


@dataclass(frozen=True)
class Tails:
    """log-sum-exp over all tokens outside the head, and the loss's slope by it, (M) each.

    Once for logits times `scale`; a second time unscaled where a text loss needs it.
    """

    scale: float
    mass_M: Tensor
    slope_M: Tensor
    plain_mass_M: Tensor | None = None
    plain_slope_M: Tensor | None = None


class Plain:
    """Plain torch."""

    def project(self, hidden_MD: Tensor, head_VD: Tensor, tile_VM: Tensor) -> None:
        """Logits, float32."""
        columns_DM = hidden_MD.float().T
        for at in range(0, len(head_VD), BLOCK):
            torch.mm(head_VD[at : at + BLOCK].float(), columns_DM, out=tile_VM[at : at + BLOCK])

    def sums(self, tile_VM: Tensor, scale: float) -> Tensor:
        """log-sum-exp over the vocabulary."""
        return torch.logsumexp(tile_VM * scale, 0)

    def dense(
        self,
        part: Part,
        tile_VM: Tensor,
        teacher_VM: Tensor,
        tokens_M: Tensor,
        weights_M: Tensor,
        objective: Objective,
    ) -> Tensor:
        """Loss and gradients against the teacher's logits."""
        scale, text = 1 / objective.temperature, objective.cross_entropy
        losses_M, slopes_VM = _divergence(
            (tile_VM * scale).log_softmax(0), teacher_VM.mul_(scale).log_softmax(0), objective
        )
        losses_M *= 1 - text
        slopes_VM *= (1 - text) * scale
        if text:
            logq_VM = tile_VM.log_softmax(0)
            losses_M -= text * logq_VM.gather(0, tokens_M[None])[0]
            slopes_VM.add_(logq_VM.exp_(), alpha=text)
            slopes_VM[tokens_M, torch.arange(len(tokens_M))] -= text
        self._products(part, slopes_VM.mul_(weights_M))
        return losses_M

    def sparse(self, part: Part, tile_VM: Tensor, tails: Tails, ids_MK: Tensor, slopes_MK: Tensor) -> None:
        """Gradients from slopes at the K tokens and on the tails."""
        slopes_VM = (tile_VM * tails.scale).sub_(tails.mass_M).exp_().mul_(tails.slope_M)
        if tails.plain_mass_M is not None and tails.plain_slope_M is not None:
            slopes_VM += (tile_VM - tails.plain_mass_M).exp_() * tails.plain_slope_M
        rows, columns = (ids_MK >= 0).nonzero(as_tuple=True)
        slopes_VM[ids_MK[rows, columns], rows] = slopes_MK[rows, columns]
        self._products(part, slopes_VM)

    def _products(self, part: Part, slopes_VM: Tensor) -> None:
        hidden_MD = part.hidden_MD.float()
        if part.bend_VM is not None:
            slopes_VM.mul_(part.bend_VM)
        part.dhidden_MD.zero_()
        for at in range(0, len(slopes_VM), BLOCK):
            block = slice(at, at + BLOCK)
            part.dhidden_MD.addmm_(slopes_VM[block].T, part.head_VD[block].float())
            if part.dhead_VD is not None:
                part.dhead_VD[block].addmm_(slopes_VM[block], hidden_MD)


class Native:
    """The C++ of tiles.cpp and products.cpp: tokens must come in multiples of 16, an even hidden size."""

    def __init__(self, losses: ctypes.CDLL, products: ctypes.CDLL) -> None:
        self._losses, self._products = losses, products

    def project(self, hidden_MD: Tensor, head_VD: Tensor, tile_VM: Tensor) -> None:
        """Logits, float32."""
        self._products.head_project(*_shape(hidden_MD, head_VD), _at(tile_VM))

    def sums(self, tile_VM: Tensor, scale: float) -> Tensor:
        """log-sum-exp over the vocabulary."""
        out_M = torch.empty(tile_VM.shape[1])
        sizes = [ctypes.c_int64(n) for n in reversed(tile_VM.shape)]
        self._losses.head_sums(_at(tile_VM), *sizes, ctypes.c_float(scale), _at(out_M))
        return out_M

    def dense(
        self,
        part: Part,
        tile_VM: Tensor,
        teacher_VM: Tensor,
        tokens_M: Tensor,
        weights_M: Tensor,
        objective: Objective,
    ) -> Tensor:
        """Loss and gradients against the teacher's logits."""
        scale, text = 1 / objective.temperature, objective.cross_entropy
        assert objective.divergence
        scaled_M, theirs_M = self.sums(tile_VM, scale), self.sums(teacher_VM, scale)
        plain_M = scaled_M if scale == 1 or not text else self.sums(tile_VM, 1.0)
        losses_M, squares_V = torch.empty(tile_VM.shape[1]), torch.empty(len(tile_VM))
        self._losses.head_dense(
            *[ctypes.c_int64(n) for n in reversed(tile_VM.shape)],
            KINDS.index(objective.divergence),
            ctypes.c_float(scale),
            ctypes.c_float(objective.beta),
            *map(_at, (tile_VM, teacher_VM, scaled_M, theirs_M, plain_M, tokens_M, weights_M)),
            ctypes.c_float(text),
            *map(_at, (losses_M, squares_V)),
        )
        self._gradients(part, teacher_VM, squares_V)
        return losses_M

    def sparse(self, part: Part, tile_VM: Tensor, tails: Tails, ids_MK: Tensor, slopes_MK: Tensor) -> None:
        """Gradients from slopes at the K tokens and on the tails."""
        tensors = (tile_VM, tails.mass_M, tails.plain_mass_M, tails.slope_M, tails.plain_slope_M)
        squares_V = torch.empty(len(tile_VM))
        self._losses.head_sparse(
            *[ctypes.c_int64(n) for n in reversed(tile_VM.shape)],
            ctypes.c_float(tails.scale),
            *map(_at, tensors),
            ctypes.c_int64(ids_MK.shape[1]),
            *map(_at, (ids_MK, slopes_MK, squares_V)),
        )
        self._gradients(part, tile_VM, squares_V)

    def _gradients(self, part: Part, slopes_VM: Tensor, squares_V: Tensor) -> None:
        """Both gradients; rows whose squares add up to little are multiplied in bfloat16, where the processor can."""
        if part.bend_VM is not None:
            torch.sum(slopes_VM.mul_(part.bend_VM).square(), 1, out=squares_V)
        self._products.head_gradients(
            *_shape(part.hidden_MD, part.head_VD),
            *map(_at, (slopes_VM, squares_V)),
            ctypes.c_float(_share_in_bf16(part)),
            *map(_at, (part.dhead_VD, part.dhidden_MD)),
        )


def tiles(head_VD: Tensor) -> Tiles:
    """The fastest way for this head on this machine."""
    fits = head_VD.dtype in (torch.float32, torch.bfloat16) and head_VD.shape[1] % 2 == 0
    if head_VD.device.type != "cpu" or not fits:
        return Plain()
    losses, products = (native(Path(__file__).with_name(name), torch=True) for name in ("tiles.cpp", "products.cpp"))
    return Native(losses, products) if losses and products else Plain()


def large(*shape: int, device: torch.device) -> Tensor:
    """Empty float32 memory in large pages where the system gives them: 108 MiB are zeroed in 11 ms instead of 47."""
    found = torch.empty(shape, device=device)
    advice = getattr(mmap, "MADV_HUGEPAGE", None)
    if advice is not None and device.type == "cpu":
        skipped = -found.data_ptr() % mmap.PAGESIZE
        place, size = ctypes.c_void_p(found.data_ptr() + skipped), ctypes.c_size_t(max(0, found.nbytes - skipped))
        ctypes.CDLL(None).madvise(place, size, advice)  # refused advice changes nothing
    return found


def _divergence(logq_VM: Tensor, logp_VM: Tensor, objective: Objective) -> tuple[Tensor, Tensor]:
    """Divergence (M) and its derivative by the student's scaled logits."""
    kind, b = objective.divergence, objective.beta
    q_VM, p_VM = logq_VM.exp(), logp_VM.exp()
    if kind == "forward-kl":
        return (p_VM * (logp_VM - logq_VM)).sum(0), q_VM - p_VM
    if kind == "reverse-kl":
        slope_VM = logq_VM - logp_VM
        losses_M = (q_VM * slope_VM).sum(0)
    elif kind == "tv":
        slope_VM = (q_VM > p_VM).float() - 0.5
        losses_M = ((q_VM - p_VM) * slope_VM).sum(0)
    else:
        mix_VM = p_VM * b + q_VM * (1 - b)
        logm_VM = mix_VM.clamp_min(torch.finfo(torch.float32).tiny).log()
        losses_M = (p_VM * (logp_VM - logm_VM)).sum(0)
        slope_VM = -(1 - b) * p_VM / mix_VM.clamp_min(torch.finfo(torch.float32).tiny)
        if kind == "jsd":
            slope_VM = (1 - b) * (logq_VM - logm_VM)
            losses_M = b * losses_M + (q_VM * slope_VM).sum(0)
    return losses_M, q_VM * (slope_VM - (q_VM * slope_VM).sum(0))


def _share_in_bf16(part: Part) -> float:
    return 1.0 if part.head_VD.dtype == torch.bfloat16 else SHARE_IN_BF16


def _shape(hidden_MD: Tensor, head_VD: Tensor) -> tuple[object, ...]:
    sizes = (*hidden_MD.shape, len(head_VD))
    half = int(head_VD.dtype == torch.bfloat16)
    return (half, _at(hidden_MD), _at(head_VD), *[ctypes.c_int64(n) for n in sizes])


def _at(tensor: Tensor | None) -> ctypes.c_void_p:
    assert tensor is None or tensor.is_contiguous()
    return ctypes.c_void_p(None if tensor is None else tensor.data_ptr())
