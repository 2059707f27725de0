"""The run directory: create it, resume it by digest, record its environment; one process at a time.

    recipe.json  environment.json  exchanges/  signals/  stages/NAME.json  metrics.jsonl
    verdicts.json  plots.json  ledger.json  student/  report.html

A stage is a function of its inputs' digests and its part of the recipe; `stages/NAME.json` is written
last, so a killed stage is seen as not done and runs again over what it left. What is missing or damaged is made
again; evidence that was edited, a stage's record or the answers that it stored, is an error.
"""

import fcntl
import os
import platform
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import distributions
from pathlib import Path
from typing import Any, Generic

from spiritsafe import threads
from spiritsafe.errors import RunError, writing
from spiritsafe.recipe import AnyRecipe, R, differing_keys
from spiritsafe.record import Verdict, digest_of, file_digest, read_json, repair_jsonl, write_json

STAGE_VERSION = 2


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
        changed = _claim(run, option)
        warnings = [changed] if changed else []
        warnings += [w for w in map(repair_jsonl, sorted(folder.rglob("*.jsonl"))) if w]
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
    """What a finished stage left, or None if it has to run (again): it never ended, or a file that it made is gone.

    Raises `RunError` if its record or the exchanges that it stored are not as they were when it ended: a stage that
    runs again would take the edited answers for its own.
    """
    record = _sealed_record(run.folder, stage)
    if record is None:
        return None
    outputs: dict[str, str] = record["outputs"]
    intact = all(run.path(name).is_file() and file_digest(run.path(name)) == d for name, d in outputs.items())
    return record if intact else None


def check_evidence(folder: Path, verdicts: Sequence[Verdict]) -> None:
    """Raise `RunError` if what a run's finished stages left was edited, or the verdicts are not theirs."""
    stages = sorted(path.stem for path in (folder / "stages").glob("*.json"))
    records = [record for stage in stages if (record := _sealed_record(folder, stage))]
    claimed = {digest_of(verdict) for record in records for verdict in record["verdicts"]}
    for verdict in verdicts:
        if digest_of(verdict) not in claimed:
            what = f"the verdict '{verdict.name}' of '{verdict.subject}' is of none of the run's stages"
            raise RunError(str(folder / "verdicts.json"), what, "run the same command again")


def _sealed_record(folder: Path, stage: str) -> dict[str, Any] | None:
    path = folder / "stages" / f"{stage}.json"
    if not path.exists():
        return None
    record: dict[str, Any] = read_json(path)
    if record.get("version") != STAGE_VERSION:
        return None
    if record.get("seal") != seal_of(record):
        raise RunError(str(path), "was changed since the stage ended", "put it back, or remove it to run it again")
    for name, digest in record["outputs"].items():
        file = folder / name
        if name.startswith("exchanges/") and file.is_file() and file_digest(file) != digest:
            what = f"was changed since stage '{stage}' ended"
            raise RunError(str(file), what, "put it back, or remove it to draw its answers again")
    return record


def seal_of(record: Mapping[str, Any]) -> str:
    """sha256 of a stage's whole record but its seal."""
    return digest_of({key: value for key, value in record.items() if key != "seal"})


def outputs_of(run: Run[Any], files: Sequence[Path]) -> dict[str, str]:
    """sha256 of each file (of each file below a directory), by its path inside the run."""
    flat = [f for path in files for f in (sorted(path.rglob("*")) if path.is_dir() else [path]) if f.is_file()]
    return {str(f.relative_to(run.folder)): file_digest(f) for f in flat}


def _claim(run: Run[Any], option: str) -> str:
    """Make the directory this recipe's; what is another now than when it began, in a line."""
    path = run.path("recipe.json")
    new = run.recipe.model_dump(mode="json")
    if path.exists():
        old = read_json(path)
        if old["digest"] != run.digest:
            keys = ", ".join(differing_keys(old["recipe"], new)) or "(the recipe's form)"
            raise RunError(str(run.folder), f"belongs to another recipe; these keys differ: {keys}", f"use {option}")
        return _changed(run)
    write_json(path, {"digest": run.digest, "recipe": new})
    write_json(run.path("environment.json"), environment(run.recipe.run.seed))
    return ""


def _changed(run: Run[Any]) -> str:
    path = run.path("environment.json")
    before = read_json(path).get("computed", {}) if path.is_file() else {}
    changed = threads.difference(before, threads.computed())
    return f"{run.folder} was begun with other settings: {changed}; its ledger has each stage's" if changed else ""


def environment(seed: int | None = None) -> dict[str, Any]:
    """Versions, machine, git state and seed of this process."""
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "machine": platform.machine(),
        "cpu": _cpu(),
        "cores": cores(),
        "computed": threads.computed(),
        "packages": {d.metadata["Name"]: d.version for d in sorted(distributions(), key=lambda d: d.metadata["Name"])},
        "git": _git(),
        "started_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "seed": seed,
    }


def cores() -> int:
    """Processors that this process may use; all there are if the system does not say which."""
    allowed = getattr(os, "sched_getaffinity", None)  # Linux alone
    return len(allowed(0)) if allowed else os.cpu_count() or 1


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")


def _git() -> str | None:
    """The commit of this project's own checkout; None for an installed package, whatever repository encloses it."""
    root = Path(__file__).parents[2]
    if not (root / ".git").exists():
        return None
    command = ["git", "-C", str(root), "describe", "--always", "--dirty"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError:  # git is not installed
        return None
    return done.stdout.strip() or None
