"""Draw a student's answers on its training weights: static cache, continuous batching, shared prompts.

Llama-family models run in C++ (`models.decoding.llama`), any other architecture through transformers' own forward
(`models.decoding.padded`). A draw is a function of weights, prompt, settings and its own seed: not of batch, slot or
order. Not covered: stop strings, models on an accelerator (see `server`).
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch

from spiritsafe.errors import ModelError
from spiritsafe.make.rollout import plain
from spiritsafe.make.rollout.score import Scorer
from spiritsafe.models.decoding import sample_native
from spiritsafe.models.decoding.llama import MAX_ROWS, Packed, Steps, fits
from spiritsafe.models.decoding.sample_native import Drawing
from spiritsafe.native import has_bfloat16


@dataclass(frozen=True)
class Drawn:
    """One answer, its end token included where the student wrote one; log-probabilities in nats at temperature 1.

    `teacher_logprobs` are the teacher's of the same tokens, None without a teacher.
    """

    prompt_ids: tuple[int, ...]
    answer_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    teacher_logprobs: tuple[float, ...] | None
    finish_reason: Literal["stop", "length"]


@dataclass
class Growing:
    """An answer while it is drawn."""

    prompt_ids: tuple[int, ...]
    seed: int
    drawn: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)


class Rollout:
    """A student that writes answers with the weights of its last `refresh()`.

    `slots` answers (at most 128) grow at once, none longer than `capacity` tokens with its prompt. `dtype` is what
    Llama-family models compute in: `auto` takes bfloat16 where the processor multiplies it; other models
    compute in their own.
    """

    def __init__(
        self,
        model: Any,
        end_ids: Sequence[int],
        *,
        slots: int = 64,
        capacity: int = 1024,
        dtype: Literal["auto", "bfloat16", "float32"] = "auto",
        teacher: Any = None,
    ) -> None:
        self.model, self.end_ids, self.capacity = model, tuple(end_ids), capacity
        self.slots = min(slots, MAX_ROWS)
        self.half = has_bfloat16() if dtype == "auto" else dtype == "bfloat16"
        fast = fits(model, capacity)
        self._steps = Steps(Packed(model, half=self.half), slots=self.slots, capacity=capacity) if fast else None
        self._scorer = None if teacher is None else Scorer(teacher, capacity=capacity, half=self.half)

    def refresh(self) -> None:
        """Take the student's weights as they are now; call it after each change of them."""
        if self._steps:
            self._steps.refresh()

    @torch.inference_mode()
    def draw(
        self,
        prompts: Sequence[tuple[int, ...]],
        *,
        seeds: Sequence[int],
        max_tokens: int,
        temperature: float = 1.0,
        top_p: float = 1.0,
        group: int = 1,
    ) -> list[Drawn]:
        """`group` answers for each prompt, a prompt's answers side by side; one 64-bit seed for each answer.

        Raises `ModelError` for an empty prompt or one that leaves no room for `max_tokens`.
        """
        rows = self._rows(prompts, seeds, max_tokens, group)
        drawing = Drawing(temperature, top_p)
        if self._steps:
            self._grow(self._steps, rows, max_tokens, drawing)
        else:
            plain.grow(self.model, rows, self.end_ids, max_tokens, drawing, self.slots)
        scores = self._scorer.score([(row.prompt_ids, tuple(row.drawn)) for row in rows]) if self._scorer else None
        return [self._drawn(row, scores[i] if scores else None) for i, row in enumerate(rows)]

    def _rows(
        self, prompts: Sequence[tuple[int, ...]], seeds: Sequence[int], max_tokens: int, group: int
    ) -> list[Growing]:
        for i, prompt in enumerate(prompts):
            if not 0 < len(prompt) <= self.capacity - max_tokens:
                what = f"has {len(prompt)} tokens, {max_tokens} more must fit into {self.capacity}"
                raise ModelError(f"prompt {i}", what, "give the rollout a larger capacity")
        wanted = [prompt for prompt in prompts for _ in range(group)]
        return [Growing(tuple(prompt), seed) for prompt, seed in zip(wanted, seeds, strict=True)]

    def _grow(self, steps: Steps, rows: Sequence[Growing], max_tokens: int, drawing: Drawing) -> None:
        waiting, growing = deque(rows), dict[int, Growing]()
        while waiting or growing:
            free = [slot for slot in range(self.slots) if slot not in growing]
            new = {slot: waiting.popleft() for slot in free[: len(waiting)]}
            steps.seat([(slot, row.prompt_ids[:-1]) for slot, row in new.items()])
            growing |= new
            slots, now = list(growing), list(growing.values())
            ahead = [len(row.drawn) for row in now]
            last = [row.drawn[-1] if row.drawn else row.prompt_ids[-1] for row in now]
            places = [len(row.prompt_ids) - 1 + count for row, count in zip(now, ahead, strict=True)]
            logits_BV = steps.forward(last, slots, places, range(len(now)))
            tokens, logprobs = sample_native.draw(logits_BV, [row.seed for row in now], ahead, drawing)
            for slot, row, token, logprob in zip(slots, now, tokens, logprobs, strict=True):
                row.drawn.append(token)
                row.logprobs.append(logprob)
                if token in self.end_ids or len(row.drawn) == max_tokens:
                    del growing[slot]

    def _drawn(self, row: Growing, scores: tuple[float, ...] | None) -> Drawn:
        reason: Literal["stop", "length"] = "stop" if row.drawn[-1] in self.end_ids else "length"
        return Drawn(row.prompt_ids, tuple(row.drawn), tuple(row.logprobs), scores, reason)
