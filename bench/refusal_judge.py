"""The refusal judge against human labels, beside the string judges of garak and llm-guard.

`python -m bench.refusal_judge [--json] [--seed N]`. XSTest's completions are read from `../shared/data` or from
`SPIRITSAFE_DATA`; pyrit's labelled refusals and the peers' lists of phrases from their wheels, which are downloaded
once and never run. On XSTest the judge saw no answer of the model judged; of pyrit's sets it saw nothing. A peer
refuses where a phrase of its list occurs, in any case, as its own matcher does. One thread.
"""

import ast
import os
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from statistics import median

import numpy as np
from numpy.typing import NDArray

from bench._schema import Row, main
from spiritsafe.measure.refusal.fit import Labelled, counts, leave_one_model_out, read_pyrit, read_xstest
from spiritsafe.measure.refusal.judge import shipped
from spiritsafe.models.pypi import pypi_file

DATA = Path(os.environ.get("SPIRITSAFE_DATA", "../shared/data"))
SETS = "pyrit==1.1.0/pyrit/datasets/scorer_evals/refusal_scorer/"
PEERS = {
    "garak 0.17.1 MitigationBypass": ("garak==0.17.1/garak/detectors/mitigation.py", "MitigationBypass"),
    "llm-guard 0.3.16 NoRefusalLight": ("llm-guard==0.3.16/llm_guard/output_scanners/no_refusal.py", "NoRefusalLight"),
}
RUNS = 5

Says = Callable[[Labelled], Sequence[bool]]


def measure(seed: int) -> Sequence[Row]:
    """Accuracy and F1 of each set beside each peer, and judgements a second."""
    phrases = {peer: _phrases(pypi_file(file), name) for peer, (file, name) in PEERS.items()}
    xstest = read_xstest(DATA / "safety/xstest/completions")
    refused, declined = leave_one_model_out(xstest)
    rows = [*_beside("xstest leave-one-model-out", refused, xstest, phrases)]
    rows += _beside("xstest leave-one-model-out, declined", declined, xstest, {})
    for case, name in (("pyrit refusal", "refusal.csv"), ("pyrit refusal_extra", "refusal_extra.csv")):
        data = read_pyrit(pypi_file(SETS + name))
        found = shipped().read(data.prompts, data.answers)
        rows += _beside(case, [r.declined for r in found], data, phrases)
        rows += _beside(f"{case}, in words alone", [r.refused for r in found], data, {})
    return [*rows, *_speed(xstest, phrases)]


def _beside(
    case: str, said: Sequence[bool] | NDArray[np.bool_], data: Labelled, phrases: dict[str, tuple[str, ...]]
) -> list[Row]:
    ours, rows = counts(said, data), []
    theirs = {peer: counts(_matches(listed, data), data) for peer, listed in phrases.items()}
    for metric in ("accuracy", "f1"):
        value = _value(ours[metric])
        spread = (ours["accuracy"][1], ours["accuracy"][2]) if metric == "accuracy" else None
        n = len(data.answers)
        rows += [
            Row(case, metric, value, p, t := _value(f[metric]), value / t, n=n, spread=spread)
            for p, f in theirs.items()
        ]
        rows += [] if theirs else [Row(case, metric, value, n=n, spread=spread)]
    return rows


def _speed(data: Labelled, phrases: dict[str, tuple[str, ...]]) -> list[Row]:
    """Answers in the order of the files' rows, all models mixed by a fixed stride; 450 a run."""
    picked = data.where(np.arange(len(data.answers)) % 5 == 0)
    judges: dict[str, Says] = {"": lambda d: [r.declined for r in shipped().read(d.prompts, d.answers)]}
    judges |= {peer: partial(_matches, listed) for peer, listed in phrases.items()}
    spent: dict[str, list[float]] = {name: [] for name in judges}
    for _ in range(RUNS):
        for name, says in judges.items():
            started = time.perf_counter()
            says(picked)
            spent[name].append(len(picked.answers) / (time.perf_counter() - started))
    ours = spent.pop("")
    found, spread = median(ours), (min(ours), max(ours))
    case = "xstest answers, one thread"
    return [
        Row(case, "judgements_per_s", found, peer, median(rates), found / median(rates), n=RUNS, spread=spread)
        for peer, rates in spent.items()
    ]


def _matches(phrases: Sequence[str], data: Labelled) -> list[bool]:
    return [any(phrase in answer.lower() for phrase in phrases) for answer in data.answers]


def _phrases(path: Path, name: str) -> tuple[str, ...]:
    """The longest list of strings inside a class of a source file, read without running it."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    owner = next(node for node in ast.walk(tree) if isinstance(node, ast.ClassDef) and node.name == name)
    lists = [node for node in ast.walk(owner) if isinstance(node, ast.List)]
    return tuple(str(text).lower() for text in ast.literal_eval(max(lists, key=lambda node: len(node.elts))))


def _value(figure: float | list[float]) -> float:
    return figure[0] if isinstance(figure, list) else figure


if __name__ == "__main__":
    main("refusal_judge", measure)
