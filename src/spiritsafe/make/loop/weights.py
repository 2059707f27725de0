"""The trained weights of a model in one process: float32 masters, and copies to compute with.

In bfloat16 the model itself holds the copies; its gradients are summed up in float32, the optimiser changes
the masters, and the copies are made anew after each step. Frozen weights return as they were, bit for bit.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from spiritsafe.make.depth import layers_of
from spiritsafe.make.loop.layers import changed, forget
from spiritsafe.make.loop.learner import Learner
from spiritsafe.models.logits import logit_form
from spiritsafe.native import has_bfloat16
from spiritsafe.recipe import TrainPart


class Weights:
    """Masters and copies of `trained`, from `with` to its end; then the model holds the masters' values."""

    def __init__(self, model: Any, trained: Sequence[nn.Parameter], dtype: torch.dtype, *, first: int) -> None:
        self.learner, self.dtype = Learner(model, first, logit_form(model)), dtype
        self._trained = list(trained)
        self._kept = {weight: weight.data for weight in model.parameters()}
        self._masters = {weight: weight.data.float() for weight in trained}
        self.masters = [nn.Parameter(self._masters[weight]) for weight in trained]

    def __enter__(self) -> "Weights":
        for weight, kept in self._kept.items():
            weight.data = kept.to(self.dtype)
            if weight.requires_grad:
                weight.grad_dtype = torch.float32
        self.refresh()
        return self

    def __exit__(self, *error: object) -> None:
        for weight, kept in self._kept.items():
            weight.grad = None
            weight.data = kept
        with torch.no_grad():
            for weight, master in zip(self._trained, self.masters, strict=True):
                weight.copy_(master)
        forget(self.learner.model)

    def clip(self, most: float) -> float:
        """Hand the step's gradients to the masters, clipped to a global norm of `most`; returns their norm."""
        for weight, master in zip(self._trained, self.masters, strict=True):
            master.grad = weight.grad
        return float(nn.utils.clip_grad_norm_(self.masters, most, foreach=True))

    def refresh(self) -> None:
        """Make the copies anew from the masters and set the gradients to 0, in place: new memory costs more."""
        for weight, master in zip(self._trained, self.masters, strict=True):
            if weight.grad is not None:
                weight.grad.zero_()
            if self.dtype == torch.float32:
                weight.data = master.data
            else:
                weight.data.copy_(master.data)
        changed(self.learner.model)

    def sync(self, last: bool) -> None:
        """Nothing to exchange in one process."""

    def whole(self, tensor: Tensor) -> Tensor:
        """The tensor itself: nothing is spread."""
        return tensor

    def load(self, tensor: Tensor, whole: Tensor) -> None:
        """Take the values of a stored tensor."""
        tensor.copy_(whole)


@contextmanager
def rows_added(embedding: Any) -> Iterator[None]:
    """The embedding's gradient is added row by row to a float32 sum while this lasts.

    torch's own would be a dense matrix a pass, added up in the weights' dtype: in bfloat16 a frequent token's
    many small gradients stop counting. The pad token learns like any other: it often ends an answer too.
    """
    padding, embedding.padding_idx = embedding.padding_idx, None
    if type(embedding) is nn.Embedding and embedding.weight.requires_grad:
        embedding.__dict__["forward"] = partial(_Rows.apply, embedding.weight)
    try:
        yield
    finally:
        embedding.padding_idx = padding
        embedding.__dict__.pop("forward", None)


class _Rows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weight_VD: nn.Parameter, ids: Tensor) -> Tensor:
        ctx.weight, ctx.ids = weight_VD, ids
        return weight_VD.detach()[ids]

    @staticmethod
    def backward(ctx: Any, slopes: Tensor) -> tuple[None, None]:
        weight = ctx.weight
        if weight.grad is None:
            weight.grad = torch.zeros_like(weight, dtype=torch.float32)
        weight.grad.index_add_(0, ctx.ids.reshape(-1), slopes.reshape(-1, slopes.shape[-1]).float())
        return None, None


def trained_weights(model: Any, settings: TrainPart, first_trained: int) -> list[nn.Parameter]:
    """The parameters to train; the others are frozen. Adapters, where there are any, are trained alone.

    `above-cut` trains the layers from `first_trained` on and the final norm: below the cut a depth-pruned
    student computes what its teacher computes, and its embedding and head are the teacher's.
    """
    if settings.lora is None:
        model.requires_grad_(settings.train == "all")
        if settings.train == "above-cut":
            layers_of(model)[first_trained:].requires_grad_(True)
            model.base_model.norm.requires_grad_(True)
    return [w for w in model.parameters() if w.requires_grad]


def compute_dtype(wanted: str, device: torch.device) -> torch.dtype:
    """bfloat16 where the device multiplies it natively (a processor with AMX or AVX-512, a GPU), else float32."""
    if wanted != "auto":
        dtype: torch.dtype = getattr(torch, wanted)
        return dtype
    if device.type != "cpu":
        return torch.bfloat16
    return torch.bfloat16 if has_bfloat16() else torch.float32
