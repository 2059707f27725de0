"""The trained weights of a model spread over several processes (FSDP2): each holds a part of the masters.

The caller's model keeps its classes and gets no hooks: a copy of its structure that shares its weights is
what is sharded. Run on processors over gloo; never run on GPUs.
"""

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from spiritsafe.make.depth import layers_left, layers_of
from spiritsafe.make.loop.learner import Learner
from spiritsafe.make.loop.ranks import Ranks
from spiritsafe.models.logits import logit_form


class Sharded:
    """As `Weights`, over all processes; at the end the first one's model holds the trained weights."""

    def __init__(
        self, model: Any, trained: Sequence[nn.Parameter], dtype: torch.dtype, *, first: int, ranks: Ranks
    ) -> None:
        self._model, self._dtype, self._rank, self._first = model, dtype, ranks.rank, first
        self._kept = {weight: weight.data for weight in model.parameters()}
        weights = {id(weight): weight for weight in model.parameters()}
        with layers_left(model, range(first, len(layers_of(model)))):
            twin = copy.deepcopy(model, dict(weights))
            by_name = dict(model.named_parameters())
        for module in twin.modules():
            if isinstance(module, nn.Embedding):
                module.padding_idx = None
        policy = MixedPrecisionPolicy(param_dtype=dtype, reduce_dtype=torch.float32)
        mesh = init_device_mesh(trained[0].device.type, (ranks.num,))
        for layer in twin.model.layers:
            fully_shard(layer, mesh=mesh, mp_policy=policy)
        self.learner: Any = fully_shard(Learner(twin, 0, logit_form(model)), mesh=mesh, mp_policy=policy)
        parts = dict(twin.named_parameters())
        self._parts = [(by_name[name], part) for name, part in parts.items()]
        wanted = {id(weight) for weight in trained}
        self.masters = [part for weight, part in self._parts if id(weight) in wanted]

    def __enter__(self) -> "Sharded":
        for weight, kept in self._kept.items():
            weight.data = kept.to(self._dtype) if self._first else kept.new_empty(0)
        if not self._first:
            self._kept = {}
        return self

    def __exit__(self, kind: object, *error: object) -> None:
        for weight, kept in self._kept.items():
            weight.data = kept
        if kind is None:
            for weight, part in self._parts:
                whole = self.whole(part.data)
                if self._rank == 0:
                    weight.data = whole

    def sync(self, last: bool) -> None:
        """Gradients of a step's rows are added up here and exchanged with those of the last row."""
        self.learner.set_requires_gradient_sync(last)

    def clip(self, most: float) -> float:
        """Clip the step's gradients to a global norm of `most`; returns their norm over all processes."""
        norm = nn.utils.clip_grad_norm_(self.masters, most)
        return float(norm.full_tensor() if isinstance(norm, DTensor) else norm)

    def refresh(self) -> None:
        """Forget the gradients; each forward pass makes its own copies."""
        for master in self.masters:
            master.grad = None

    def whole(self, tensor: Tensor) -> Tensor:
        """The whole of a tensor that is spread like the masters; every process must ask."""
        return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor

    def load(self, tensor: Tensor, whole: Tensor) -> None:
        """Take this process's part of a whole tensor."""
        if isinstance(tensor, DTensor):
            whole = distribute_tensor(whole.to(tensor.device), tensor.device_mesh, tensor.placements)
        tensor.copy_(whole)
