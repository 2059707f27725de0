"""A local teacher's log-probabilities of given answers: one pass over all their tokens, prompts read once."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from spiritsafe.make.rollout import plain
from spiritsafe.models.decoding import sample_native
from spiritsafe.models.decoding.llama import MAX_ROWS, Packed, Steps, fits
from spiritsafe.models.decoding.scoring import Pair

SLOTS = 16


class Scorer:
    """Scores (prompt ids, answer ids); the teacher's weights are taken once."""

    def __init__(self, model: Any, *, capacity: int, half: bool) -> None:
        self.model = model
        runs = fits(model, capacity)
        self._steps = Steps(Packed(model, half=half), slots=SLOTS, capacity=capacity) if runs else None

    def score(self, pairs: Sequence[Pair]) -> list[tuple[float, ...]]:
        """Log-probabilities in nats of each answer's tokens, in order; nothing may be empty."""
        if self._steps is None:
            return [plain.score(self.model, *pair) for pair in pairs]
        found: list[tuple[float, ...]] = []
        for start in range(0, len(pairs), SLOTS):
            found += _wave(self._steps, pairs[start : start + SLOTS])
        return found


def _wave(steps: Steps, pairs: Sequence[Pair]) -> list[tuple[float, ...]]:
    steps.seat([(slot, prompt[:-1]) for slot, (prompt, _) in enumerate(pairs)])
    rows = [
        (before, slot, len(prompt) - 1 + i, token)
        for slot, (prompt, answer) in enumerate(pairs)
        for i, (before, token) in enumerate(zip((prompt[-1], *answer[:-1]), answer, strict=True))
    ]
    flat: list[float] = []
    for start in range(0, len(rows), MAX_ROWS):
        inputs, slots, places, tokens = zip(*rows[start : start + MAX_ROWS], strict=True)
        flat += sample_native.score(steps.forward(inputs, slots, places, range(len(inputs))), tokens)
    ends = [0]
    for _, answer in pairs:
        ends.append(ends[-1] + len(answer))
    return [tuple(flat[a:b]) for a, b in pairwise(ends)]
