"""Black-box distillation: cross-entropy with the teacher's text, all that an outsider can train on.

Sequence-level distillation (Kim and Rush, arXiv 1606.07947), as R1's students were made; with texts of any
other origin it is supervised fine-tuning.
"""

from collections.abc import Sequence

from spiritsafe.make.batches import digest_samples, order
from spiritsafe.make.objective import TEXT
from spiritsafe.make.samples import Packed, Sample, Target
from spiritsafe.recipe import TrainPart


class Text:
    """The samples' own answer tokens are the target."""

    name = "text"
    on_policy = False

    def __init__(self, samples: Sequence[Sample], settings: TrainPart, *, seed: int) -> None:
        self._samples = tuple(samples)
        self._order = order([len(s.answer_ids) for s in samples], settings, seed=seed)
        self.steps, self.digest = len(self._order), digest_samples(samples)

    def samples(self, step: int) -> list[Sample]:
        """The samples of one step: every epoch is a permutation of its own."""
        return [self._samples[i] for i in self._order[step]]

    def targets(self, packed: Packed) -> list[Target]:
        """Every answer token."""
        return [Target(TEXT)]
