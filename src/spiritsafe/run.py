"""The run directory: create it, resume it by digest, record its environment; one process at a time.

    recipe.json  environment.json  exchanges/  signals/  stages/NAME.json  metrics.jsonl
    verdicts.json  plots.json  ledger.json  student/  report.html

A stage is a function of its inputs' digests and its part of the recipe; `stages/NAME.json` is written
last, so a killed stage is seen as not done and runs again over what it left.
"""

import fcntl
import os
import platform
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import distributions
from pathlib import Path
from typing import Any, Generic

from spiritsafe.errors import RunError, writing
from spiritsafe.recipe import AnyRecipe, R, differing_keys
from spiritsafe.record import digest_of, file_digest, read_json, repair_jsonl, write_json


@dataclass(frozen=True)
class Run(Generic[R]):
    """An open run directory and its recipe, the whole loop's unless another kind is named."""

    folder: Path
    recipe: R
    digest: str

    def path(self, *parts: str) -> Path:
        """A path inside the run directory."""
        return self.folder.joinpath(*parts)


def recipe_digest(recipe: AnyRecipe) -> str:
    """sha256 of the resolved recipe."""
    return digest_of(recipe.model_dump(mode="json"))


def run_folder(recipe: AnyRecipe, root: Path) -> Path:
    """`root/NAME-DIGEST`, the digest shortened to 10 digits."""
    return root / f"{recipe.run.name}-{recipe_digest(recipe)[:10]}"


@contextmanager
def opened(
    recipe: R, root: Path, *, resume: Path | None = None, folder: Path | None = None
) -> Iterator[tuple[Run[R], list[str]]]:
    """Create or continue a run, locked against a second process; yields it and warnings of what was repaired.

    It lives in `root/NAME-DIGEST` unless `folder` says where.

    Raises `RunError` where the directory belongs to another recipe (the differing keys are named),
    cannot be written, or is in use, or where `resume` is no run directory. A new directory in which no
    stage left anything is removed when the block ends with an error.
    """
    option, folder = ("-o DIR" if folder else "--runs DIR"), resume or folder or run_folder(recipe, root)
    if resume and not (resume / "recipe.json").is_file():
        raise RunError(str(resume), "is not a run directory", "name one that holds a recipe.json")
    new = [path for path in (folder, folder.parent) if not path.exists()]
    with writing(folder, option=option):
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / ".lock").open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        lock.close()
        raise RunError(str(folder), "is in use by another process", "wait for it or stop it") from None
    try:
        run = Run(folder, recipe, recipe_digest(recipe))
        _claim(run, option)
        warnings = [w for w in map(repair_jsonl, sorted(folder.rglob("*.jsonl"))) if w]
        for leftover in list(folder.rglob(".*.tmp")):
            shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()
        yield run, warnings
    except BaseException:
        if folder in new:
            _forget(folder, new)
        raise
    finally:
        lock.close()


def _forget(folder: Path, new: Sequence[Path]) -> None:
    """Remove a run directory that holds nothing but what `opened` wrote, and its parent if that is new too."""
    if {path.name for path in folder.iterdir()} <= {".lock", "recipe.json", "environment.json"}:
        shutil.rmtree(folder)
        if folder.parent in new and not any(folder.parent.iterdir()):
            folder.parent.rmdir()


def stage_record(run: Run[Any], stage: str) -> dict[str, Any] | None:
    """What a finished stage left, or None where it has to run (again)."""
    path = run.path("stages", f"{stage}.json")
    if not path.exists():
        return None
    record: dict[str, Any] = read_json(path)
    intact = all(run.path(name).is_file() and file_digest(run.path(name)) == d for name, d in record["outputs"].items())
    return record if intact else None


def outputs_of(run: Run[Any], files: Sequence[Path]) -> dict[str, str]:
    """sha256 of each file (of each file below a directory), by its path inside the run."""
    flat = [f for path in files for f in (sorted(path.rglob("*")) if path.is_dir() else [path]) if f.is_file()]
    return {str(f.relative_to(run.folder)): file_digest(f) for f in flat}


def _claim(run: Run[Any], option: str) -> None:
    path = run.path("recipe.json")
    new = run.recipe.model_dump(mode="json")
    if path.exists():
        old = read_json(path)
        if old["digest"] != run.digest:
            keys = ", ".join(differing_keys(old["recipe"], new)) or "(the recipe's form)"
            raise RunError(str(run.folder), f"belongs to another recipe; these keys differ: {keys}", f"use {option}")
        return
    write_json(path, {"digest": run.digest, "recipe": new})
    write_json(run.path("environment.json"), environment(run.recipe.run.seed))


def environment(seed: int | None = None) -> dict[str, Any]:
    """Versions, machine, git state and seed of this process."""
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "machine": platform.machine(),
        "cpu": _cpu(),
        "cores": len(os.sched_getaffinity(0)),
        "packages": {d.metadata["Name"]: d.version for d in sorted(distributions(), key=lambda d: d.metadata["Name"])},
        "git": _git(),
        "started_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "seed": seed,
    }


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")


def _git() -> str | None:
    here = Path(__file__).parent
    done = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=here, capture_output=True, text=True, check=False
    )
    return done.stdout.strip() or None
