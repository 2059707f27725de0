"""What a step learns from: samples, packed into one row of tokens, and targets at their answers' tokens.

A `Method` says which samples a step sees and what each answer token is pulled towards; the loop does the
rest and does not know which method runs. Suffixes name axes: T all tokens of a packed row, N its answer
tokens, S samples.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from spiritsafe.make.objective import Objective
from spiritsafe.make.signals.kinds import SparseSignal, TeacherSignal


@dataclass(frozen=True)
class Sample:
    """One prompt and one answer to learn from, both never empty.

    `weights` multiply the loss of each answer token: 0 leaves a token out (a tool's output), an advantage
    makes it a policy gradient; None is 1 everywhere. `signal` has one row for each answer token. `teacher`
    names the teacher where a method has several.
    """

    prompt_ids: tuple[int, ...]
    answer_ids: tuple[int, ...]
    weights: tuple[float, ...] | None = None
    signal: SparseSignal | None = None
    teacher: str = ""

    @property
    def tokens(self) -> int:
        """Tokens of prompt and answer."""
        return len(self.prompt_ids) + len(self.answer_ids)


@dataclass(frozen=True)
class Packed:
    """Samples one behind the other in one row; attention never crosses a sample's border.

    `ids_T`, `positions_T` (each sample counts from 0), `borders` (S + 1) where samples begin and the last
    ends. `rows_N` are the places in T that predict `tokens_N`; `weights_N` their weights (float32).
    """

    samples: tuple[Sample, ...]
    ids_T: Tensor
    positions_T: Tensor
    borders: tuple[int, ...]
    rows_N: Tensor
    tokens_N: Tensor
    weights_N: Tensor


@dataclass(frozen=True)
class Target:
    """What some answer tokens of a packed row are pulled towards; several targets of a row are added up.

    `rows` selects among the N answer tokens (None: all), `signal` has a row for each selected one.
    """

    objective: Objective
    signal: TeacherSignal | None = None
    rows: Tensor | None = None
    weight: float = 1.0


class Method(Protocol):
    """One way to learn. What a step sees depends on the seed, the step and, on-policy, the student alone."""

    @property
    def name(self) -> str:
        """What the reports call it."""
        ...

    @property
    def steps(self) -> int:
        """Optimiser steps."""
        ...

    @property
    def digest(self) -> str:
        """Of all that decides what it gives (samples, signals, own settings): another one's checkpoint is refused."""
        ...

    @property
    def on_policy(self) -> bool:
        """Whether the student writes samples, for which it must be whole in this process."""
        ...

    def samples(self, step: int) -> Sequence[Sample]:
        """All samples of one optimiser step; an on-policy method lets the student write them now."""
        ...

    def targets(self, packed: Packed) -> Sequence[Target]:
        """What the packed samples' answer tokens are pulled towards; a live teacher is run here, without gradient."""
        ...
