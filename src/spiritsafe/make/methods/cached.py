"""White-box distillation from stored signals: the teacher was asked once and is not in memory.

Word-level distillation (Hinton et al., arXiv 1503.02531) towards what a cache holds of each token.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

from spiritsafe.errors import DataError
from spiritsafe.make.batches import digest_samples, order
from spiritsafe.make.objective import Objective
from spiritsafe.make.samples import Packed, Sample, Target
from spiritsafe.make.signals.kinds import SparseSignal, joined
from spiritsafe.make.signals.reader import SignalCache
from spiritsafe.recipe import TrainPart
from spiritsafe.record import digest_of


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
    cache: SignalCache,
    exchanges: Sequence[str],
    samples: Sequence[Sample],
    settings: TrainPart,
    *,
    seed: int,
    objective: Objective | None = None,
) -> Cached:
    """Towards what a cache holds of the exchanges (ids), which `samples` are; forward KL unless told otherwise.

    Raises `DataError` where it holds signals of other tokens.
    """
    for exchange, sample in zip(exchanges, samples, strict=True):
        if cache.tokens(exchange) != sample.answer_ids:
            what = f"exchange {exchange} has {len(cache.tokens(exchange))} tokens that are not the sample's"
            raise DataError(str(cache.folder), what, "delete the cache and capture again")

    def signal_of(i: int) -> SparseSignal:
        return cache.signal(exchanges[i])

    return Cached(samples, signal_of, objective or Objective(), settings, seed=seed, source=cache.digest)
