"""The one training loop; it does not know which method runs.

AdamW on float32 masters; the loss is a mean over all answer tokens of a step, however they are packed or
spread. Dropout is off: one big batch equals many small ones. A checkpoint holds masters, optimiser, average
and what was spent; a killed run continues to bit-identical weights on one machine. Not covered: models whose layers
do not fit one device.
"""

import math
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from spiritsafe.errors import DataError, UsageError
from spiritsafe.make.loop.budget import Budget, Spent, Way
from spiritsafe.make.loop.checkpoint import fingerprint, load_state, save_state
from spiritsafe.make.loop.diagnose import Figures
from spiritsafe.make.loop.frozen import Frozen
from spiritsafe.make.loop.lora import adapted
from spiritsafe.make.loop.ranks import Ranks, this_rank
from spiritsafe.make.loop.schedule import learning_rate, rate_along
from spiritsafe.make.loop.state import State
from spiritsafe.make.loop.trunk import check_head
from spiritsafe.make.loop.weights import Weights, compute_dtype, rows_added, trained_weights
from spiritsafe.make.packing import on_device, pack
from spiritsafe.make.samples import Method, Packed
from spiritsafe.recipe import TrainPart

OnStep = Callable[[dict[str, float | int]], None]
ONLY_FOR_SPEED = {"checkpoint_every", "diagnose_every", "track"}


def train(
    model: Any,
    method: Method,
    settings: TrainPart,
    *,
    seed: int,
    first_trained: int = 0,
    checkpoint: Path | None = None,
    budget: Budget | None = None,
    until: float = 1.0,
    on_step: OnStep = lambda metrics: None,
) -> Spent:
    """Train `model` in place; with `train="above-cut"` layers below `first_trained` stay as they are.

    A `budget` ends the training instead of the method's steps. `until` stops at this share of the way, with a
    checkpoint, from which another call with the same start goes on as if none had stopped. `on_step` gets each
    step that was not done before a resume: step, steps, loss (nats per answer token), tokens, answer_tokens, lr,
    grad_norm, elapsed_s, cpu_s, tokens_per_s, and every `diagnose_every` steps what `diagnose` finds. Returns
    what was spent from the first step on. Under `torchrun` (see `joined`) all processes call this and the first
    one's model is trained. Raises `DataError` for a checkpoint of other settings or data, where samples end
    before the budget, or at a loss that is no number; `UsageError` for an on-policy method in several processes.
    """
    ranks = this_rank()
    if ranks.num > 1 and method.on_policy:
        raise UsageError(method.name, "the student writes its own samples, which needs one process", "leave torchrun")
    check_head(model)
    first = first_trained if settings.train == "above-cut" else 0
    identity = {
        "settings": {k: v for k, v in settings.model_dump(mode="json").items() if k in _deciding()},
        "data": {"method": method.name, "steps": method.steps, "digest": method.digest},
        "run": {"seed": seed, "first_trained": first_trained, "start": fingerprint(model)},
        "budget": asdict(budget) if budget else None,
    }
    with ExitStack() as stack:
        stack.enter_context(adapted(model, settings.lora, first_trained=first, seed=seed))
        loop = _Loop(model, method, settings, first, ranks, stack)
        way, spent = Way(method, budget), loop.state.restore(load_state(checkpoint, identity) if checkpoint else None)
        loop.frozen.catch_up(method, spent.steps)
        while not way.ends(spent, until):
            metrics = loop.step(spent.steps, _rate(spent, way, settings))
            if not math.isfinite(metrics["loss"]):
                what = f"the loss of step {spent.steps + 1} is {metrics['loss']}: what it learns from, or the student"
                raise DataError(method.name, f"{what}, gives no finite number", "lower the learning rate")
            spent.count(metrics)
            due = spent.steps % settings.checkpoint_every == 0 or way.ends(spent, until)
            if checkpoint and due and not way.ends(spent, 1.0):
                stored = loop.state.stored(spent)
                if ranks.rank == 0:
                    save_state(checkpoint, identity, stored)
            on_step(metrics)
        loop.state.settle()
    return spent


class _Loop:
    """What a step needs, in the order in which it is set up."""

    def __init__(
        self, model: Any, method: Method, settings: TrainPart, first: int, ranks: Ranks, stack: ExitStack
    ) -> None:
        self.method, self.settings, self.ranks = method, settings, ranks
        trained = trained_weights(model, settings, first)
        self.device = trained[0].device
        dtype = compute_dtype(settings.dtype, self.device)
        self.weights: Any = Weights(model, trained, dtype, first=first)
        if ranks.num > 1:
            from spiritsafe.make.loop.sharded import Sharded

            self.weights = Sharded(model, trained, dtype, first=first, ranks=ranks)
        else:
            stack.enter_context(rows_added(model.get_input_embeddings()))
        stack.enter_context(self.weights)
        self.state = State(self.weights, settings)
        self.frozen = Frozen(model, first, tokens_per_row=settings.tokens_per_row, keep=not method.on_policy)
        model.eval()

    def step(self, step: int, rate: float) -> dict[str, float | int]:
        """One optimiser step; returns its metrics."""
        started, cpu, settings = time.perf_counter(), time.process_time(), self.settings
        samples = self.method.samples(step)
        self.frozen.see(samples)
        answer_tokens = sum(len(sample.answer_ids) for sample in samples)
        rows = self.ranks.share(pack(samples, tokens_per_row=settings.tokens_per_row))
        look = settings.diagnose_every > 0 and step % settings.diagnose_every == 0
        loss, figures = 0.0, Figures()
        for number, (row, counts) in enumerate(rows):
            self.weights.sync(last=number + 1 == len(rows))
            found, seen = self._learn(on_device(row, self.device), 1 / answer_tokens, counts, look and not number)
            loss, figures = loss + found, figures | seen
        norm = self.weights.clip(settings.clip)
        self.state.step(rate)
        self.weights.refresh()
        elapsed_s, cpu_s = self._shared(time.perf_counter() - started), self._shared(time.process_time() - cpu)
        tokens = sum(sample.tokens for sample in samples)
        return {
            "step": step + 1,
            "steps": self.method.steps,
            "loss": self.ranks.total(loss, self.device),
            "tokens": tokens,
            "answer_tokens": answer_tokens,
            "lr": rate,
            "grad_norm": norm,
            "elapsed_s": elapsed_s,
            "cpu_s": cpu_s,
            "tokens_per_s": tokens / elapsed_s,
            **figures,
        }

    def _shared(self, seconds: float) -> float:
        """The mean over the processes, so that all of them stop at the same step."""
        return self.ranks.total(seconds, self.device) / self.ranks.num

    def _learn(self, row: Packed, scale: float, counts: bool, look: bool) -> tuple[float, Figures]:
        """Add one row's gradients; FSDP2 takes their mean over the processes, which the scale undoes."""
        targets = self.method.targets(row)
        states_TD = self.frozen.states(row)
        loss, figures = self.weights.learner(row, targets, scale=scale * self.ranks.num, states_TD=states_TD, look=look)
        loss = loss * counts
        torch.autograd.backward(loss)
        return float(loss.detach()) / self.ranks.num, figures


def _rate(spent: Spent, way: Way, settings: TrainPart) -> float:
    if way.budget is None:
        return learning_rate(spent.steps, way.method.steps, settings)
    return rate_along(way.trained(spent), settings)


def _deciding() -> set[str]:
    """The settings that decide which weights come out."""
    return set(TrainPart.model_fields) - ONLY_FOR_SPEED
