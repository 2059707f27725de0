"""Files of other harnesses by their form: lm-evaluation-harness results and samples, inspect logs.

Where a file holds single samples, its figures are ours over those samples, and models are compared on the samples
they share. Where it holds means alone, they stand as the file gives them, and are compared with nothing.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from spiritsafe.errors import DataError, UsageError
from spiritsafe.measure.foreign import inspect_log, lm_eval
from spiritsafe.measure.foreign.imported import Imported
from spiritsafe.record import parse_json

FORMS = "an lm-evaluation-harness results_*.json or samples_*.jsonl, or an inspect log (.json, .eval)"


def read_foreign(paths: Sequence[Path]) -> Imported:
    """Read files of other harnesses. Raises `DataError` for one that is none, `UsageError` for one figure twice."""
    found = [_checked(path) for path in paths]
    cells = [cell for part in found for cell in part.cells]
    means = [verdict for part in found for verdict in part.means]
    named = [(c.model, c.task, c.metric) for c in cells] + [
        (v.subject, v.detail["task"], v.detail["metric"]) for v in means
    ]
    twice = sorted({key for key in named if named.count(key) > 1})
    if twice:
        raise UsageError("--import", f"holds {twice[0][2]} of {twice[0][0]} on {twice[0][1]} twice", "name it once")
    return Imported(cells, means, [text for part in found for text in part.left_out])


def _checked(path: Path) -> Imported:
    """What a file holds. Raises `DataError` if it is not as its harness writes it, or nothing in it can be used."""
    try:
        imported = _read(path)
    except (KeyError, TypeError, AttributeError, ValueError, IndexError, RecursionError) as error:
        what = f"is not as its harness writes it ({type(error).__name__}: {error})"
        raise DataError(str(path), what, f"name {FORMS}") from None
    if not imported.cells and not imported.means:
        why = "; ".join(imported.left_out) or "no task stands in it"
        raise DataError(str(path), f"holds nothing that can be used: {why}", "import its samples or a newer log")
    return imported


def _read(path: Path) -> Imported:
    if not path.is_file():
        raise DataError(str(path), "no such file", f"name {FORMS}")
    if path.suffix == ".eval":
        return inspect_log.read_archive(path)
    if path.suffix == ".jsonl":
        return lm_eval.read_samples(path)
    held = _json(path)
    if "results" in held and "configs" not in held and "versions" in held:
        what = "was written by lm-evaluation-harness before 0.4, which states no numbers of samples"
        raise DataError(str(path), what, "run it again with a newer one")
    if "results" in held and "configs" in held:
        return lm_eval.read_results(path, held)
    if "eval" in held and ("plan" in held or "results" in held or "samples" in held):
        return inspect_log.read_log(path, held)
    raise DataError(str(path), "is of no known form", f"name {FORMS}")


def _json(path: Path) -> dict[str, Any]:
    try:
        held = parse_json(path.read_text(encoding="utf-8-sig"))
    except ValueError as error:
        raise DataError(str(path), f"is not JSON ({error})", f"name {FORMS}") from None
    if not isinstance(held, dict):
        raise DataError(str(path), "is of no known form", f"name {FORMS}")
    return held
