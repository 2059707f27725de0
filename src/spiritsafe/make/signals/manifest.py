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


def manifest_of(
    teacher: str, tokenizer: str, vocab: int, exchanges: Sequence[Exchange], keep: Keep, *, seed: int
) -> dict[str, Any]:
    """Everything that decides what the cache holds, by digest where it is long."""
    return {
        "format": VERSION,
        "teacher": teacher,
        "tokenizer": tokenizer,
        "vocab": vocab,
        "exchanges": digest_of([e.id for e in exchanges]),
        "prompts": digest_of([prompt_digest(e.messages) for e in exchanges]),
        "sampling": digest_of([e.sampling.model_dump() for e in exchanges]),
        "keep": asdict(keep),
        "seed": seed,
    }


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
