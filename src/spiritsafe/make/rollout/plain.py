"""The same draws and scores through transformers' own forward, for every architecture.

Answers grow in waves that shrink as answers end; a prompt that a wave shares is read once.
"""

from collections.abc import Sequence
from typing import Any, Protocol

import torch

from spiritsafe.errors import ModelError
from spiritsafe.models.decoding import sample_native
from spiritsafe.models.decoding.padded import Row, decode
from spiritsafe.models.decoding.sample_native import Drawing
from spiritsafe.record import Sampling


class Grown(Protocol):
    """What `grow` reads and extends."""

    prompt_ids: tuple[int, ...]
    seed: int
    drawn: list[int]
    logprobs: list[float]


def grow(
    model: Any, answers: Sequence[Grown], end_ids: Sequence[int], max_tokens: int, drawing: Drawing, size: int
) -> None:
    """Extend every answer until its end token or `max_tokens`, `size` of them at once."""

    def finished(_: int, row: Row) -> bool:
        return row.drawn[-1] in end_ids or len(row.drawn) >= max_tokens

    training = model.training
    model.eval()
    for start in range(0, len(answers), size):
        part = answers[start : start + size]
        how = Sampling(temperature=drawing.temperature, top_p=drawing.top_p, max_tokens=max_tokens)
        rows = [Row(a.prompt_ids, how.model_copy(update={"seed": a.seed}), a.drawn, a.logprobs) for a in part]
        decode(model, rows, pad_id=end_ids[0] if end_ids else 0, finished=finished)
        if any(row.broken for row in rows):
            what = "gives numbers that are NaN or infinite"
            raise ModelError(type(model).__name__, what, "lower the learning rate, or begin with a whole model")
    model.train(training)


def score(model: Any, prompt_ids: tuple[int, ...], answer_ids: tuple[int, ...]) -> tuple[float, ...]:
    """The model's log-probability of each token of an answer."""
    ids_BT = torch.tensor([[*prompt_ids, *answer_ids[:-1]]])
    logits_TV = model(input_ids=ids_BT, logits_to_keep=len(answer_ids), use_cache=False).logits[0].float()
    return tuple(sample_native.score(logits_TV.contiguous(), answer_ids))
