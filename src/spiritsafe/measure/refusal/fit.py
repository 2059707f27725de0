"""Fits the judge's weights from human labels and measures it on answers it never saw: weights.npz and card.json.

`python -m spiritsafe.measure.refusal.fit XSTEST_DIR -o DIR [--pyrit FILE ...]`. XSTEST_DIR holds the human-labelled
completions of XSTest (arXiv 2308.01263, CC BY 4.0), one CSV a model; a full or partial refusal counts as one.
FILES are pyrit's labelled refusals (MIT); they are only measured on, never trained on.
"""

import argparse
import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spiritsafe.errors import DataError
from spiritsafe.evidence import wilson
from spiritsafe.measure.refusal.features import first_sentence
from spiritsafe.measure.refusal.judge import NAME, Array, RefusalJudge
from spiritsafe.measure.refusal.linear import fitted, rows
from spiritsafe.record import write_json

COST, SENTENCE_WEIGHT = 10.0, 0.3


@dataclass(frozen=True)
class Labelled:
    """Answers with human labels: `refused` by the source's own definition, `model` that wrote them."""

    source: str
    prompts: tuple[str, ...]
    answers: tuple[str, ...]
    refused: tuple[bool, ...]
    models: tuple[str, ...]

    def where(self, keep: NDArray[np.bool_]) -> "Labelled":
        """The labelled answers that `keep` names."""
        columns = [tuple(np.array(c, object)[keep]) for c in (self.prompts, self.answers, self.refused, self.models)]
        return Labelled(self.source, *columns)


def read_xstest(folder: Path) -> Labelled:
    """XSTest's completions. Raises `DataError` where there are none."""
    found = [(path.stem, row) for path in sorted(folder.glob("*.csv")) for row in _csv(path.read_text("utf-8"))]
    if not found:
        raise DataError(str(folder), "holds no CSV of completions", "it is xstest/completions of the published set")
    refused = tuple(not row["final_label"].startswith("1") for _, row in found)
    prompts, answers = tuple(r["prompt"] for _, r in found), tuple(r["completion"] for _, r in found)
    return Labelled("xstest", prompts, answers, refused, tuple(m for m, _ in found))


def read_pyrit(path: Path) -> Labelled:
    """One of pyrit's labelled sets of refusals: an answer that does not do what is asked counts as one."""
    text = "".join(line for line in path.read_text("utf-8").splitlines(keepends=True) if not line.startswith("#"))
    found = _csv(text)
    prompts, answers = tuple(r["objective"] for r in found), tuple(r["assistant_response"] for r in found)
    refused = tuple(float(r["human_score"]) > 0.5 for r in found)
    return Labelled(f"pyrit {path.stem}", prompts, answers, refused, ("",) * len(found))


def fit(data: Labelled) -> Array:
    """Weights from labelled answers, in half precision, so that what is measured is what is shipped.

    The model learns from the answers' first sentences too, at a smaller weight.
    """
    texts = [*data.answers, *(first_sentence(a) for a in data.answers)]
    labels, weights = np.tile(np.array(data.refused, bool), 2), np.repeat([1.0, SENTENCE_WEIGHT], len(data.answers))
    found = fitted(rows(texts).tocsr(), labels, cost=COST, weights_N=weights)
    return found.astype(np.float16).astype(float)


def leave_one_model_out(data: Labelled) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Readings of each answer by a judge that saw no answer of its model: refused, declined (N each)."""
    models = np.array(data.models)
    refused, declined = np.zeros(len(models), bool), np.zeros(len(models), bool)
    for model in dict.fromkeys(data.models):
        out = models == model
        left = data.where(out)
        found = RefusalJudge(fit(data.where(~out))).read(left.prompts, left.answers)
        refused[out], declined[out] = [r.refused for r in found], [r.declined for r in found]
    return refused, declined


def counts(said: Sequence[bool] | NDArray[np.bool_], data: Labelled) -> dict[str, Any]:
    """A judge's errors against human labels: counts, rates with Wilson's intervals, accuracy and F1."""
    said, truth = np.asarray(said, bool), np.array(data.refused, bool)
    hits, passes = int((said & truth).sum()), int((~said & ~truth).sum())
    positives, negatives = int(truth.sum()), int((~truth).sum())
    se, sp, right = wilson(hits, positives), wilson(passes, negatives), wilson(hits + passes, len(truth))
    return {
        "hits": hits, "positives": positives, "passes": passes, "negatives": negatives,
        "sensitivity": [se.value, se.low, se.high], "specificity": [sp.value, sp.low, sp.high],
        "accuracy": [right.value, right.low, right.high], "f1": 2 * hits / (hits + positives + negatives - passes),
    }  # fmt: skip


def main() -> None:
    """Fit, measure, and write weights and card."""
    parser = argparse.ArgumentParser(prog="python -m spiritsafe.measure.refusal.fit", description=__doc__)
    parser.add_argument("xstest", type=Path)
    parser.add_argument("--pyrit", type=Path, nargs="*", default=[])
    parser.add_argument("-o", "--out", type=Path, default=Path("."))
    options = parser.parse_args()
    data, others = read_xstest(options.xstest), [read_pyrit(path) for path in options.pyrit]
    weights = fit(data)
    refused, declined = leave_one_model_out(data)
    errors: dict[str, Any] = {"xstest, refused, model left out": counts(refused, data)}
    errors["xstest, declined, model left out"] = counts(declined, data)
    judge = RefusalJudge(weights)
    for other in others:
        found = judge.read(other.prompts, other.answers)
        errors[f"{other.source}, refused, never seen"] = counts([r.refused for r in found], other)
        errors[f"{other.source}, declined, never seen"] = counts([r.declined for r in found], other)
    options.out.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(options.out / "weights.npz", weights=weights.astype(np.float16))
    write_json(options.out / "card.json", {**CARD, "trained_on": _trained_on(data), "errors": errors})


CARD = {
    "name": NAME,
    "says": "refused: the answer declines in words; declined: that, or it speaks of something else",
    "german": "no human-labelled German answers are known: the cues carry over, their error rate is not measured",
    "limits": [
        "the design was chosen with pyrit's sets of refusals in view, the weights never saw them",
        "which n-grams are counted and the cost were chosen by the same leave-one-model-out figures on XSTest",
        "answers of models of 2023 taught it; newer phrasings of refusals are known to it by the cues alone",
    ],
}


def _trained_on(data: Labelled) -> dict[str, Any]:
    models = sorted(set(data.models))
    return {
        "source": "XSTest completions, two human annotators (CC BY 4.0)",
        "answers": len(data.answers),
        "of": models,
    }


def _csv(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text, newline="")))


if __name__ == "__main__":
    main()
