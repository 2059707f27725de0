"""lm-evaluation-harness (0.4): `results_DATE.json`, with the `samples_TASK_DATE.jsonl` that `--log_samples` adds.

The samples beside a results file are taken with it. A samples file alone names no model: it needs its results file
beside it. Figures outside [0, 1] (perplexities) and groups of tasks are left out, and said so.
"""

import json
from pathlib import Path
from typing import Any

from spiritsafe.errors import DataError
from spiritsafe.measure.foreign.imported import Imported, mean_verdict, plain, sample_cell

PREFIX, SAMPLES = "results_", "samples_"


def read_results(path: Path, held: dict[str, Any]) -> Imported:
    """A results file and the samples of the same run beside it."""
    found = Imported()
    stamp = path.stem.removeprefix(PREFIX)
    for task in held["results"]:
        samples = path.with_name(f"{SAMPLES}{task}_{stamp}.jsonl")
        if samples.is_file():
            _add_samples(found, samples, task, held)
        else:
            _add_means(found, task, held)
    return found


def read_samples(path: Path) -> Imported:
    """One task's samples. Raises `DataError` where the results file of its run is not beside it."""
    for results in sorted(path.parent.glob(f"{PREFIX}*.json")):
        task = path.stem.removeprefix(SAMPLES).removesuffix(f"_{results.stem.removeprefix(PREFIX)}")
        held = json.loads(results.read_text(encoding="utf-8"))
        if task in held["results"]:
            found = Imported()
            _add_samples(found, path, task, held)
            return found
    raise DataError(str(path), "names no model, and its results file is not beside it", "put results_*.json there")


def _add_samples(found: Imported, path: Path, task: str, held: dict[str, Any]) -> None:
    values: dict[tuple[str, str], dict[str, float]] = {}
    broken: set[str] = set()
    for line in path.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        for name in row["metrics"]:
            if isinstance(row[name], (int, float)):
                key = f"{row['doc_id']}:{row.get('doc_hash', '')[:16]}"
                values.setdefault((name, row["filter"]), {})[key] = float(row[name])
            else:
                broken.add(name)
    for (name, kept), by_sample in values.items():
        metric, better = _named(name, kept), _better(held, task, name)
        cell = sample_cell(_model(held), task, metric, values=by_sample, better=better, note=_note(held, task))
        if cell is None or name in broken:
            broken.add(name)
        else:
            found.cells.append(cell)
    found.left_out.extend(f"{path.name}: {name} is no score between 0 and 1" for name in sorted(broken))


def _add_means(found: Imported, task: str, held: dict[str, Any]) -> None:
    numbers = held["results"][task]
    n = held.get("n-samples", {}).get(task, {}).get("effective")
    if not n:
        found.left_out.append(f"{task}: a group of tasks, or one without its number of samples")
        return
    for key, value in numbers.items():
        name, comma, kept = key.partition(",")
        if not comma or name.endswith("_stderr"):
            continue
        if not isinstance(value, (int, float)) or not 0 <= value <= 1:
            found.left_out.append(f"{task}: {name} is no score between 0 and 1")
            continue
        error = numbers.get(f"{name}_stderr,{kept}")
        found.means.append(
            mean_verdict(
                _model(held), task, _named(name, kept), value=float(value), n=n, better=_better(held, task, name),
                error=float(error) if isinstance(error, (int, float)) else None, note=_note(held, task),
            )
        )  # fmt: skip


def _named(name: str, kept: str) -> str:
    return plain(name if kept == "none" else f"{name} {kept}")


def _better(held: dict[str, Any], task: str, name: str) -> bool | None:
    found: bool | None = held.get("higher_is_better", {}).get(task, {}).get(name)
    return found


def _model(held: dict[str, Any]) -> str:
    return str(held.get("model_name") or held["config"]["model"])


def _note(held: dict[str, Any], task: str) -> str:
    shots = held.get("n-shot", {}).get(task, "?")
    return f"imported from lm-evaluation-harness {held.get('lm_eval_version', '')}, {shots}-shot".replace("  ", " ")
