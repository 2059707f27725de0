"""From a local teacher's answers to a cache: one batch of whole distributions in memory at a time."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from spiritsafe.make.signals.manifest import expected, manifest_of, tokenizer_digest
from spiritsafe.make.signals.reader import SignalCache
from spiritsafe.make.signals.sample import Keep, choose, rows_of
from spiritsafe.make.signals.writer import SHARD_TOKENS, Writer
from spiritsafe.models.decoding.scoring import answer_logprobs
from spiritsafe.models.local import LocalModel
from spiritsafe.record import Exchange, seed_of

BATCH = 8


def fill(
    teacher: LocalModel,
    exchanges: Sequence[Exchange],
    folder: Path,
    *,
    keep: Keep | None = None,
    seed: int = 0,
    shard_tokens: int = SHARD_TOKENS,
    tick: Callable[[], object] = lambda: None,
) -> None:
    """Score the exchanges' own tokens and keep what `keep` says; continues a capture that was stopped.

    `tick` is called after each exchange. Raises `DataError` where the folder is of another teacher,
    other exchanges or other settings.
    """
    keep = keep or Keep()
    manifest = expected_of(teacher, exchanges, keep, seed=seed)
    writer = Writer(folder, manifest, shard_tokens=shard_tokens)
    wanted = [e for e in {e.id: e for e in exchanges}.values() if not writer.has(e.id)]
    for start in range(0, len(wanted), BATCH):
        part = wanted[start : start + BATCH]
        pairs = [teacher.pair(e) for e in part]
        with torch.inference_mode():
            scored = answer_logprobs(teacher.model, pairs, pad_id=teacher.pad_id)
            for exchange, (_, answer), logprobs_TV in zip(part, pairs, scored, strict=True):
                kept = choose(logprobs_TV, keep, seed=seed_of(seed, "signals", exchange.id))
                writer.add(exchange.id, rows_of(kept, torch.tensor(answer), keep.precision))
                tick()


def expected_of(teacher: LocalModel, exchanges: Sequence[Exchange], keep: Keep, *, seed: int = 0) -> dict[str, Any]:
    """The manifest that a cache of these has."""
    tokenizer, vocab = tokenizer_digest(teacher.tokenizer), int(teacher.model.config.vocab_size)
    return manifest_of(teacher.digest, tokenizer, vocab, exchanges, keep, seed=seed)


def open_cache(
    folder: Path, *, teacher_digest: str, tokenizer_digest: str, exchanges: Sequence[Exchange]
) -> SignalCache:
    """A whole cache of these exchanges. Raises `DataError` where it is of something else, or lacks some."""
    cache = SignalCache(folder, expected(teacher_digest, tokenizer_digest, exchanges))
    held = set(cache.exchanges)
    for exchange in exchanges:
        if exchange.id not in held:
            cache.rows(exchange.id)  # says what is missing
    return cache
