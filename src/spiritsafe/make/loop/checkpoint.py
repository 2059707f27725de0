"""A training run's state on disk: written whole or not at all, refused where it belongs to another run."""

import hashlib
import os
import pickle
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from spiritsafe.errors import DataError, writing
from spiritsafe.recipe import differing_keys

FORMAT = 3
SAMPLE = 1024


def save_state(path: Path, identity: Mapping[str, Any], state: Mapping[str, Any]) -> None:
    """Write a state of tensors and plain values; readers see the old or the new one."""
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
        try:
            with os.fdopen(handle, "wb") as file:
                torch.save({"format": FORMAT, "identity": dict(identity), "state": dict(state)}, file)
                file.flush()
                os.fsync(file.fileno())
            os.replace(name, path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise


def load_state(path: Path, identity: Mapping[str, Any]) -> dict[str, Any] | None:
    """The stored state, None where there is none. Raises `DataError` naming what differs from `identity`."""
    if not path.exists():
        return None
    try:
        stored = torch.load(path, weights_only=True, map_location="cpu")
        found = stored["identity"] if stored["format"] == FORMAT else None
    except (pickle.UnpicklingError, RuntimeError, EOFError, KeyError, TypeError):
        found = None
    if found is None:
        raise DataError(str(path), "cannot be read", "delete it and run again")
    if differing := differing_keys(found, identity):
        what = f"belongs to other settings or data: {', '.join(differing)} differ"
        raise DataError(str(path), what, "delete it and run again")
    state: dict[str, Any] = stored["state"]
    return state


def fingerprint(model: Any) -> str:
    """Which weights a model starts from, by the first values of each."""
    total = hashlib.sha256()
    for name, weight in model.named_parameters():
        few = weight.detach().flatten()[:SAMPLE].float().cpu()
        total.update(f"{name} {tuple(weight.shape)} ".encode() + few.numpy().tobytes())
    return total.hexdigest()
