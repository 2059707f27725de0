"""The teacher's cached top-k log-probabilities of given answers: capture once, read in any order.

One safetensors file: `ids` (N, K) int32, `logprobs` (N, K) float32, `tokens` (N) int32, `offsets` (E + 1)
int64 over E exchanges; its metadata name the teacher's digest and the exchanges.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from spiritsafe.errors import DataError
from spiritsafe.models.base import Model
from spiritsafe.record import Exchange, digest_of, write_atomic

FORMAT = "1"


@dataclass(frozen=True)
class Signals:
    """A loaded cache; `of(i)` are the top-k ids (T, K) and log-probabilities (T, K) of exchange `i`."""

    ids_NK: Tensor
    logprobs_NK: Tensor
    offsets: list[int]

    def of(self, i: int) -> tuple[Tensor, Tensor]:
        """Top-k ids and log-probabilities, both (T, K), at the tokens of exchange `i`."""
        part = slice(self.offsets[i], self.offsets[i + 1])
        return self.ids_NK[part], self.logprobs_NK[part]


def capture(teacher: Model, exchanges: Sequence[Exchange], path: Path, *, top_k: int) -> None:
    """Score the exchanges' own tokens with the teacher and write the cache, atomically."""
    scores = teacher.score(exchanges, top_k=top_k)
    offsets = [0]
    for score in scores:
        offsets.append(offsets[-1] + len(score.token_ids))
    tensors = {
        "ids": torch.tensor([row for s in scores for row in s.top_ids], dtype=torch.int32),
        "logprobs": torch.tensor([row for s in scores for row in s.top_logprobs], dtype=torch.float32),
        "tokens": torch.tensor([t for s in scores for t in s.token_ids], dtype=torch.int32),
        "offsets": torch.tensor(offsets, dtype=torch.int64),
    }
    write_atomic(path, save(tensors, metadata=_metadata(teacher.digest, exchanges)))


def load_signals(path: Path, *, teacher_digest: str, exchanges: Sequence[Exchange]) -> Signals:
    """Read a cache. Raises `DataError` where it belongs to another teacher or other exchanges."""
    try:
        with safe_open(path, framework="pt") as file:
            found = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in ("ids", "logprobs", "offsets")}
    except (OSError, SafetensorError) as error:
        raise DataError(str(path), f"cannot be read ({error})", "delete it and run again") from None
    for key, wanted in _metadata(teacher_digest, exchanges).items():
        if found.get(key) != wanted:
            raise DataError(str(path), f"{key} is {found.get(key)}, expected {wanted}", "delete it and run again")
    return Signals(tensors["ids"].long(), tensors["logprobs"], tensors["offsets"].tolist())


def _metadata(teacher_digest: str, exchanges: Sequence[Exchange]) -> dict[str, str]:
    return {"format": FORMAT, "teacher": teacher_digest, "exchanges": digest_of([e.id for e in exchanges])}
