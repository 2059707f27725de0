"""White-box distillation from stored signals: the teacher was asked once and is not in memory.

Word-level distillation (Hinton et al., arXiv 1503.02531) towards what a cache holds of each token.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from torch import Tensor

from spiritsafe.make.batches import digest_samples, order
from spiritsafe.make.objective import Objective
from spiritsafe.make.samples import Packed, Sample, Target
from spiritsafe.make.signals import load_signals
from spiritsafe.make.signals.kinds import SparseSignal, joined
from spiritsafe.recipe import TrainPart
from spiritsafe.record import Exchange, digest_of, file_digest


class Cached:
    """The teacher's stored distributions are the target; `signal_of(i)` reads those of sample `i` when it is needed.

    `source` is the digest of what is read.
    """

    name = "cached log-probabilities"
    on_policy = False

    def __init__(
        self,
        samples: Sequence[Sample],
        signal_of: Callable[[int], SparseSignal],
        objective: Objective,
        settings: TrainPart,
        *,
        seed: int,
        source: str,
    ) -> None:
        self._samples, self._signal_of, self._objective = tuple(samples), signal_of, objective
        self._order = order([len(s.answer_ids) for s in samples], settings, seed=seed)
        self.steps = len(self._order)
        self.digest = digest_of([digest_samples(samples), source, repr(objective)])

    def samples(self, step: int) -> list[Sample]:
        """The samples of one step with their signals; every epoch is a permutation of its own."""
        return [replace(self._samples[i], signal=self._signal_of(i)) for i in self._order[step]]

    def targets(self, packed: Packed) -> list[Target]:
        """Every answer token's own distribution."""
        return [Target(self._objective, joined([s.signal for s in packed.samples if s.signal is not None]))]


def from_cache(
    path: Path,
    exchanges: Sequence[Exchange],
    samples: Sequence[Sample],
    settings: TrainPart,
    *,
    teacher_digest: str,
    seed: int,
) -> Cached:
    """Forward KL to what a file of signals holds of the exchanges, whose tokens are `samples`."""
    signals = load_signals(path, teacher_digest=teacher_digest, exchanges=exchanges)

    def signal_of(i: int) -> SparseSignal:
        return top_k_signal(*signals.of(i))

    return Cached(samples, signal_of, Objective(), settings, seed=seed, source=file_digest(path))


def top_k_signal(ids_TK: Tensor, logprobs_TK: Tensor) -> SparseSignal:
    """Stored top-k log-probabilities as a signal: what they leave over is the tail's mass."""
    probs_TK = logprobs_TK.float().exp()
    return SparseSignal(ids_TK, probs_TK, (1 - probs_TK.sum(-1)).clamp_min(0))
