"""What a cache of signals is of: its teacher, its exchanges and how they are kept, as `cache.json`."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from spiritsafe.errors import DataError
from spiritsafe.make.signals.sample import Keep
from spiritsafe.make.signals.shard import VERSION
from spiritsafe.record import Exchange, digest_of, prompt_digest, write_json

NAME = "cache.json"
LOCAL = {"kind": "local"}


def manifest_of(
    teacher: str,
    tokenizer: str,
    vocab: int,
    exchanges: Sequence[Exchange],
    keep: Keep,
    *,
    seed: int,
    source: dict[str, Any] = LOCAL,
) -> dict[str, Any]:
    """Everything that decides what the cache holds, by digest where it is long."""
    decided = {"format": VERSION, "source": source, "vocab": vocab, "keep": asdict(keep), "seed": seed}
    return decided | expected(teacher, tokenizer, exchanges)


def expected(teacher: str, tokenizer: str, exchanges: Sequence[Exchange]) -> dict[str, str]:
    """The part of a manifest that a reader knows: whose signals, in which tokens, of which answers; all digests."""
    return {
        "teacher": teacher,
        "tokenizer": tokenizer,
        "prompts": digest_of([prompt_digest(e.messages) for e in exchanges]),
        "sampling": digest_of([e.sampling.model_dump() for e in exchanges]),
        "answers": digest_of([e.token_ids or [e.answer, e.finish_reason] for e in exchanges]),
        "exchanges": digest_of([e.id for e in exchanges]),
    }


def tokenizer_digest(tokenizer: Any) -> str:
    """Of a transformers tokenizer's tokens and their ids."""
    return digest_of(sorted(tokenizer.get_vocab().items()))


def read_manifest(folder: Path) -> dict[str, Any]:
    """A cache's manifest. Raises `DataError` where there is none."""
    path = folder / NAME
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise DataError(str(path), f"cannot be read ({error})", "delete the cache and run again") from None
    if not isinstance(found, dict) or found.get("format") != VERSION:
        what = f"format is {found.get('format') if isinstance(found, dict) else found}, expected {VERSION}"
        raise DataError(str(path), what, "delete the cache and run again")
    return found


def check(folder: Path, wanted: dict[str, Any]) -> None:
    """Raises `DataError` naming both sides where the cache is of something else than `wanted`'s keys say."""
    found = read_manifest(folder)
    for key, value in wanted.items():
        if found.get(key) != value:
            what = f"{key} is {found.get(key)}, expected {value}"
            raise DataError(str(folder / NAME), what, "delete the cache and run again")


def write_or_check(folder: Path, manifest: dict[str, Any]) -> None:
    """Begin a cache, or make sure that the one begun is of the same."""
    if (folder / NAME).exists():
        return check(folder, manifest)
    write_json(folder / NAME, manifest)
    return None
