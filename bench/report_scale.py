"""The bootstrap behind a large report: 100,000 records, control off and on, 30 categories, 10,000 draws.

`python -m bench.report_scale [--json] [--log] [--seed N]`. Once with independent records, once with 2,232
clusters (as many as the templates of a published jailbreak table). Memory is the process's peak, in MB.
"""

import resource
import time
from collections.abc import Sequence

import numpy as np

from bench._schema import Row, main, note
from spiritsafe.evidence import bootstrap_changes

RECORDS, CATEGORIES, DRAWS, TEMPLATES, RUNS = 100_000, 30, 10_000, 2_232, 5


def measure(seed: int) -> Sequence[Row]:
    """Seconds of each case, and the peak memory after both."""
    random = np.random.Generator(np.random.Philox(seed))
    off, on = random.random(RECORDS) < 0.2, random.random(RECORDS) < 0.05
    categories = random.integers(0, CATEGORIES, RECORDS)
    cases = {"independent records": np.arange(RECORDS), "2,232 templates": random.integers(0, TEMPLATES, RECORDS)}
    rows = []
    for case, clusters in cases.items():
        took = []
        for _ in range(RUNS):
            started = time.perf_counter()
            bootstrap_changes(off, on, categories, clusters, draws=DRAWS, seed=seed)
            took.append(time.perf_counter() - started)
            note(f"{case}: {took[-1]:.2f} s")
        rows.append(Row(case, "seconds", float(np.median(took)), n=RUNS, spread=(min(took), max(took))))
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return [*rows, Row("both", "peak_mb", peak_mb)]


if __name__ == "__main__":
    main("report_scale", measure)
