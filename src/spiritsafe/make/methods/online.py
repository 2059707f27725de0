"""White-box distillation on given answers from teachers in memory: one, one for each sample, or a mixture."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from spiritsafe.errors import DataError, RecipeError
from spiritsafe.make.batches import digest_samples, order
from spiritsafe.make.loop.trunk import hidden_states, product_of
from spiritsafe.make.objective import Objective
from spiritsafe.make.packing import packed
from spiritsafe.make.samples import Packed, Sample, Target
from spiritsafe.make.signals.kinds import DenseSignal
from spiritsafe.models.logits import logit_form
from spiritsafe.recipe import TrainPart
from spiritsafe.record import digest_of


class Online:
    """Word-level distillation from the teacher's whole distribution (Hinton et al., arXiv 1503.02531)."""

    name = "online"
    on_policy = False

    def __init__(
        self, samples: Sequence[Sample], teacher: Any, objective: Objective, settings: TrainPart, *, seed: int
    ) -> None:
        self._samples, self._teacher, self._objective = tuple(samples), teacher, objective
        self._order = order([len(s.answer_ids) for s in samples], settings, seed=seed)
        self.steps = len(self._order)
        self.digest = digest_of([self.name, digest_samples(samples), repr(objective)])

    def samples(self, step: int) -> list[Sample]:
        """The samples of one step: every epoch is a permutation of its own."""
        return [self._samples[i] for i in self._order[step]]

    def targets(self, packed: Packed) -> list[Target]:
        """The teacher reads the same row."""
        return [Target(self._objective, dense(self._teacher, packed))]


class Teachers:
    """Several teachers of one vocabulary: a mixture, or each for the samples that name it (`Sample.teacher`).

    With `shares` every teacher pulls on every token, in proportion. For forward KL that is the divergence to the
    mixture of their distributions up to a constant, so its gradient is the mixture's; for the other divergences
    it is the mean of the divergences, another loss.
    """

    name = "several teachers"
    on_policy = False

    def __init__(
        self,
        samples: Sequence[Sample],
        teachers: Mapping[str, Any],
        objective: Objective,
        settings: TrainPart,
        *,
        seed: int,
        shares: Mapping[str, float] | None = None,
    ) -> None:
        if shares and (set(shares) != set(teachers) or abs(sum(shares.values()) - 1) > 1e-6):
            raise RecipeError("shares", f"{dict(shares)} do not share out {sorted(teachers)}")
        unknown = {s.teacher for s in samples} - set(teachers)
        if not shares and unknown:
            raise DataError("samples", f"teacher {min(unknown)!r} is none of {sorted(teachers)}")
        self._samples, self._teachers, self._objective = tuple(samples), dict(teachers), objective
        self._shares = dict(shares or {})
        self._order = order([len(s.answer_ids) for s in samples], settings, seed=seed)
        self.steps = len(self._order)
        self.digest = digest_of([self.name, digest_samples(samples), repr(objective), sorted(self._shares.items())])

    def samples(self, step: int) -> list[Sample]:
        """The samples of one step: every epoch is a permutation of its own."""
        return [self._samples[i] for i in self._order[step]]

    def targets(self, packed: Packed) -> list[Target]:
        """All teachers on all tokens, or each on its own."""
        if self._shares:
            return [
                Target(self._objective, dense(self._teachers[name], packed), weight=share)
                for name, share in self._shares.items()
            ]
        return [self._own(packed, name) for name in sorted({s.teacher for s in packed.samples})]

    def _own(self, row: Packed, name: str) -> Target:
        chosen = [s for s in row.samples if s.teacher == name]
        return Target(self._objective, dense(self._teachers[name], packed(chosen)), rows=_tokens_of(row, name))


def dense(teacher: Any, row: Packed) -> DenseSignal:
    """What a local teacher says at the row's answer tokens."""
    with torch.no_grad():
        form = logit_form(teacher)
        hidden_NE, head_VE = product_of(teacher, hidden_states(teacher, row), form)
        return DenseSignal(hidden_NE, head_VE.detach(), form.cap)


def _tokens_of(row: Packed, name: str) -> Tensor:
    """Which of the row's answer tokens belong to samples of this teacher."""
    mine = [s.teacher == name for s in row.samples for _ in s.answer_ids]
    return torch.tensor(mine).nonzero()[:, 0]
