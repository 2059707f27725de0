"""What a local model costs on a machine that has other work: our way of waiting and summing beside OpenMP's own.

`python -m bench.busy [--json]`. A second process keeps one core busy. `one`: a wave of eight requests; `serving`: two
at once, as the gateway's two queues ask. `ours`: threads that wait sleep, MKL sums in one order;
`libraries' defaults`: threads that wait spin, MKL sums by the number of threads. SmolLM2 135M, runs alternate, each in
a process of its own, loading not counted. `wall_s` is what a user waits, `processor_s` what it costs.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from statistics import median

from bench._schema import Row, main, note

RUNS, TOKENS, WAVE = 3, 8, 8
# Libraries that are loaded before spiritsafe keep their own way; MKL reads its setting at its first product.
WAYS = {"ours": "", "libraries' defaults": "import os, numpy, torch; os.environ['MKL_CBWR'] = 'AUTO'; "}
WORK = "import sys; from bench.busy import work; work(int(sys.argv[1]), int(sys.argv[2]))"
CASES = {"one": 1, "serving": 2}
BUSY = "while True: pass"


def measure(seed: int) -> Sequence[Row]:
    """Seconds of both ways in each case, and their ratio."""
    spent: dict[tuple[str, str, str], list[float]] = {}
    other = subprocess.Popen([sys.executable, "-c", BUSY])
    try:
        for run in range(RUNS):
            for case, askers in CASES.items():
                for way, before in WAYS.items():
                    wall_s, processor_s = _seconds(before + WORK, askers, seed)
                    note(f"run {run + 1} of {RUNS}, {case}, {way}: {wall_s:.2f} s, processor {processor_s:.2f} s")
                    spent.setdefault((case, "wall_s", way), []).append(wall_s)
                    spent.setdefault((case, "processor_s", way), []).append(processor_s)
    finally:
        other.kill()
        other.wait()
    return [_row(spent, case, metric) for case in CASES for metric in ("wall_s", "processor_s")]


def _row(spent: dict[tuple[str, str, str], list[float]], case: str, metric: str) -> Row:
    ours, theirs = (spent[case, metric, way] for way in WAYS)
    mine, other = median(ours), median(theirs)
    return Row(case, metric, mine, "libraries' defaults", other, other / mine, n=RUNS, spread=(min(ours), max(ours)))


def _seconds(code: str, askers: int, seed: int) -> tuple[float, float]:
    """Wall and processor seconds of the work, in a process without settings of threads."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "MKL_", "OPENBLAS_"))}
    command = [sys.executable, "-c", code, str(askers), str(seed)]
    done = subprocess.run(command, env=plain, stdout=subprocess.PIPE, text=True, check=True)
    wall_s, processor_s = json.loads(done.stdout.splitlines()[-1])
    return wall_s, processor_s


def work(askers: int, seed: int) -> None:
    """Print wall and processor seconds of as many waves as threads, all asked at once."""
    from concurrent.futures import ThreadPoolExecutor

    from spiritsafe.models import ask, open_model, user
    from spiritsafe.record import Sampling

    model = open_model("smollm2")
    prompts = [user(f"Tell me about {number} trees.") for number in range(WAVE)]
    requests = ask(prompts, Sampling(max_tokens=TOKENS, seed=seed))
    model.generate(requests[:1])
    started, used = time.perf_counter(), time.process_time()
    with ThreadPoolExecutor(askers) as pool:
        list(pool.map(model.generate, [requests] * askers))
    print(json.dumps([time.perf_counter() - started, time.process_time() - used]))


if __name__ == "__main__":
    main("busy", measure)
