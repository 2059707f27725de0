"""Answers sampled on a local Ray cluster, two models at once: the same table as without it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

RUN = """
import sys
from pathlib import Path
from spiritsafe.measure.compare import table_verdicts
from spiritsafe.measure.harness import Plan, measure
from spiritsafe.measure.output import write_results
from spiritsafe.measure.registry import find_task
from spiritsafe.models.budget import Budget
from spiritsafe.models import open_model
data, out, actors, tokens = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
models = [open_model(a) for a in ("fake:echo", "fake:random")]
budget = Budget(tokens=tokens or None)
plan = Plan(data=data, actors=actors, budget=budget)
found = measure(models, [find_task("gsm8k")], out, plan)
write_results(out, table_verdicts(found.cells, seed=0), [], stopped=found.stopped)
print(found.stopped)
"""


def run(*words: object) -> str:
    """What the script says with these arguments."""
    command = [sys.executable, "-c", RUN, *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1200, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.mark.slow
def test_models_and_shards_fan_out_to_the_same_table_and_a_budget_stops_them(tmp_path: Path) -> None:
    rows = [{"question": f"A cask and {i}", "answer": f"so #### {i}"} for i in range(90)]
    (tmp_path / "gsm8k").mkdir()
    (tmp_path / "gsm8k/test.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    plain, spread = tmp_path / "plain", tmp_path / "spread"
    run(tmp_path, plain, 0, 0)
    assert "--max-tokens" in run(tmp_path, spread, 1, 200)
    lines = [line for f in (spread / "exchanges").glob("*.jsonl") for line in f.read_text().splitlines()]
    assert 0 < len(lines) < 180
    assert run(tmp_path, spread, 1, 0).strip() == ""
    for name in ("verdicts.json", "table.csv"):
        assert (spread / name).read_bytes() == (plain / name).read_bytes()
