"""lm-evaluation-harness (0.4): `results_DATE.json`, with the `samples_TASK_DATE.jsonl` that `--log_samples` adds.

The samples beside a results file are taken with it. A samples file alone names no model: it needs its results file
beside it. Versions before 0.4.6 write no names of metrics into samples: then those of the results file hold. Figures
outside [0, 1] (perplexities) and groups of tasks are left out, and so are samples without a score (NaN, null, a line
that was cut off); all are named, and a metric that more than a quarter of its samples lack is left out whole.
"""

from collections.abc import Iterator
from math import isfinite
from pathlib import Path
from typing import Any

from spiritsafe.errors import DataError
from spiritsafe.measure.foreign.imported import Imported, Scored, mean_verdict, number_of, plain
from spiritsafe.record import parse_json

PREFIX, SAMPLES = "results_", "samples_"


def read_results(path: Path, held: dict[str, Any]) -> Imported:
    """A results file and the samples of the same run beside it."""
    imported = Imported()
    stamp = path.stem.removeprefix(PREFIX)
    for task in held["results"]:
        samples = path.with_name(f"{SAMPLES}{task}_{stamp}.jsonl")
        if samples.is_file():
            _add_samples(imported, samples, task, held)
        else:
            _add_means(imported, task, held)
    return imported


def read_samples(path: Path) -> Imported:
    """One task's samples. Raises `DataError` if the results file of its run is not beside it."""
    for results in sorted(path.parent.glob(f"{PREFIX}*.json")):
        task = path.stem.removeprefix(SAMPLES).removesuffix(f"_{results.stem.removeprefix(PREFIX)}")
        held = parse_json(results.read_text(encoding="utf-8-sig"))
        if task in held["results"]:
            imported = Imported()
            _add_samples(imported, path, task, held)
            return imported
    raise DataError(str(path), "names no model, and its results file is not beside it", "put results_*.json there")


def _add_samples(imported: Imported, path: Path, task: str, held: dict[str, Any]) -> None:
    scored = Scored(_model(held), task, _note(held, task))
    for row in _rows(path, imported):
        key = f"{row.get('doc_id')}:{str(row.get('doc_hash', ''))[:16]}"
        for name, kept in _metrics(row, task, held):
            scored.add(_named(name, kept), key, number_of(row.get(name)), _better(held, task, name))
    scored.into(imported, path.name)


def _rows(path: Path, imported: Imported) -> Iterator[dict[str, Any]]:
    """The lines of a samples file; those that cannot be read are named."""
    broken: list[int] = []
    # Only a line feed ends a line of JSON: the texts hold other separators.
    for number, line in enumerate(path.read_text(encoding="utf-8-sig", errors="replace").split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = parse_json(line)
        except ValueError:
            broken.append(number)
            continue
        if isinstance(row, dict):
            yield row
        else:
            broken.append(number)
    if broken:
        first = f"line {broken[0]}" + (f" and {len(broken) - 1} more" if len(broken) > 1 else "")
        imported.left_out.append(f"{path.name}: {first} cannot be read (was the run cut off?)")


def _metrics(row: dict[str, Any], task: str, held: dict[str, Any]) -> list[tuple[str, str]]:
    """The metrics of a sample with their filters; older samples name none, then the results file does."""
    if "metrics" in row:
        return [(str(name), str(row.get("filter", "none"))) for name in row["metrics"]]
    keys = [key.partition(",") for key in held["results"][task] if "," in key]
    named: dict[str, list[str]] = {}
    for name, _, kept in keys:
        if not name.endswith("_stderr"):
            named.setdefault(name, []).append(kept)
    # Of several filters nobody knows which one an old sample is of.
    return [(name, filters[0] if len(filters) == 1 else "unknown filter") for name, filters in named.items()]


def _add_means(imported: Imported, task: str, held: dict[str, Any]) -> None:
    numbers = held["results"][task]
    n = held.get("n-samples", {}).get(task, {}).get("effective")
    metrics = [key for key in numbers if "," in key and not key.partition(",")[0].endswith("_stderr")]
    if not n:
        why = "its number of samples is not known (lm-evaluation-harness before 0.4.3 does not write it)"
        imported.left_out.append(f"{task}: {why if metrics else 'a group of tasks, which has no samples of its own'}")
        return
    for key in metrics:
        name, _, kept = key.partition(",")
        value = numbers[key]
        if not isinstance(value, int | float) or not 0 <= value <= 1:
            imported.left_out.append(f"{task}: {name} is no score between 0 and 1")
            continue
        error = numbers.get(f"{name}_stderr,{kept}")
        imported.means.append(
            mean_verdict(
                _model(held),
                task,
                _named(name, kept),
                value=float(value),
                n=n,
                better=_better(held, task, name),
                error=float(error) if isinstance(error, int | float) and isfinite(error) else None,
                note=_note(held, task),
            )
        )


def _named(name: str, kept: str) -> str:
    return plain(name if kept == "none" else f"{name} {kept}")


def _better(held: dict[str, Any], task: str, name: str) -> bool | None:
    known: bool | None = held.get("higher_is_better", {}).get(task, {}).get(name)
    return known


def _model(held: dict[str, Any]) -> str:
    return str(held.get("model_name") or held["config"]["model"])


def _note(held: dict[str, Any], task: str) -> str:
    shots = held.get("n-shot", {}).get(task, "?")
    return f"imported from lm-evaluation-harness {held.get('lm_eval_version', '')}, {shots}-shot".replace("  ", " ")
