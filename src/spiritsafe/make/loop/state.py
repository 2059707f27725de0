"""Optimiser and average of the masters, and how a checkpoint holds them."""

from typing import Any

import torch
from torch import Tensor

from spiritsafe.make.loop.budget import Spent
from spiritsafe.recipe import TrainPart

BETAS = (0.9, 0.95)


class State:
    """AdamW on the masters and, where `average` is set, their exponential moving average."""

    def __init__(self, weights: Any, settings: TrainPart) -> None:
        self.weights, self._decay = weights, settings.average
        self.optimizer = torch.optim.AdamW(
            weights.masters,
            lr=settings.learning_rate,
            weight_decay=settings.weight_decay,
            betas=BETAS,
            fused=True,
        )
        self._average = [master.detach().clone() for master in weights.masters] if settings.average else []

    def step(self, rate: float) -> None:
        """Change the masters by their gradients, and the average towards them."""
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        for mean, master in zip(self._average, self.weights.masters, strict=bool(self._average)):
            mean.lerp_(master.detach(), 1 - self._decay)

    def settle(self) -> None:
        """The average, where there is one, becomes the trained weights."""
        with torch.no_grad():
            for mean, master in zip(self._average, self.weights.masters, strict=bool(self._average)):
                master.copy_(mean)

    def stored(self, spent: Spent) -> dict[str, Any]:
        """All of it and what was spent, whole tensors; every process must ask."""
        whole = self.weights.whole
        moments = [self.optimizer.state[master] for master in self.weights.masters]
        return {
            "spent": spent.stored(),
            "masters": [whole(master.data) for master in self.weights.masters],
            "average": [whole(mean) for mean in self._average],
            "optimizer": [{name: whole(value) for name, value in moment.items()} for moment in moments],
        }

    def restore(self, stored: dict[str, Any] | None) -> Spent:
        """Take a stored state; returns what was spent for it."""
        if stored is None:
            return Spent()
        with torch.no_grad():
            for name, mine in (("masters", self.weights.masters), ("average", self._average)):
                for tensor, whole in zip(mine, stored[name], strict=True):
                    self.weights.load(tensor, whole)
            for master, moments in zip(self.weights.masters, stored["optimizer"], strict=True):
                self.optimizer.state[master] = {name: self._moment(master, x) for name, x in moments.items()}
        self.weights.refresh()
        return Spent(**stored["spent"])

    def _moment(self, master: Tensor, whole: Tensor) -> Tensor:
        """An optimiser's tensor: a number, or spread like the master it belongs to."""
        if not whole.ndim:
            return whole
        mine = torch.zeros_like(master.detach())
        self.weights.load(mine, whole)
        return mine
