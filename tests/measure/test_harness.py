"""The harness: asked once, killed anywhere, the same results byte for byte."""

import json
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from spiritsafe.errors import UsageError
from spiritsafe.evidence import JudgeCounts
from spiritsafe.measure.compare import partial, saturated, table_verdicts
from spiritsafe.measure.harness import Cell, Plan, measure
from spiritsafe.measure.output import parse_gate, write_results
from spiritsafe.measure.registry import find_task, suite_tasks, task_names
from spiritsafe.measure.store import BudgetSpent, spent
from spiritsafe.models import ask, open_model, user
from spiritsafe.models.budget import Budget, Meter
from spiritsafe.record import Exchange, Sampling, Usage, read_jsonl
from tests.measure.conftest import Muted

RUN = """
import sys
from pathlib import Path
from spiritsafe.measure.compare import table_verdicts
from spiritsafe.measure.harness import Plan, measure
from spiritsafe.measure.output import write_results
from spiritsafe.measure.registry import find_task
from spiritsafe.models import open_model
data, out = sys.argv[1:]
models = [open_model(a) for a in ("fake:slow=0.003", "fake:slow=0.004")]
cells = measure(models, [find_task("gsm8k")], Path(out), Plan(data=data)).cells
write_results(Path(out), table_verdicts(cells, seed=0), [])
"""


@pytest.fixture
def data(tmp_path: Path) -> str:
    """150 questions whose last number is their answer: an echo solves the even ones."""
    rows = [{"question": f"A cask and {i}", "answer": f"so #### {i + i % 2}"} for i in range(150)]
    (tmp_path / "data/gsm8k").mkdir(parents=True)
    (tmp_path / "data/gsm8k/test.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    return str(tmp_path / "data")


def lines(folder: Path) -> list[str]:
    """All whole lines stored."""
    files = sorted((folder / "exchanges").glob("*.jsonl")) if folder.exists() else []
    return [line for f in files for line in f.read_text(errors="replace").splitlines(keepends=True) if line[-1] == "\n"]


@pytest.mark.slow
def test_killed_at_25_points_it_reports_the_same_and_generates_nothing_twice(data: str, tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    subprocess.run([sys.executable, "-c", RUN, data, str(whole)], check=True)
    for point in sorted(random.Random(0).sample(range(1, 290), 25)):
        process = subprocess.Popen([sys.executable, "-c", RUN, data, str(killed)], stderr=subprocess.DEVNULL)
        while process.poll() is None and len(lines(killed)) < point:
            time.sleep(0.002)
        before = set(lines(killed))
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        assert before <= set(lines(killed))
    subprocess.run([sys.executable, "-c", RUN, data, str(killed)], check=True)
    for name in ("verdicts.json", "table.csv", "junit.xml"):
        assert (killed / name).read_bytes() == (whole / name).read_bytes()
    ids = [e.id for f in (killed / "exchanges").glob("*.jsonl") for e in read_jsonl(f, Exchange)]
    assert len(ids) == len(set(ids)) == 300


def test_stored_answers_are_scored_without_the_model(data: str, tmp_path: Path, muted: Muted) -> None:
    model, task = open_model("fake:echo"), find_task("gsm8k")
    first = measure([model], [task], tmp_path / "out", Plan(data=data)).cells

    assert measure([muted(model)], [task], tmp_path / "out", Plan(data=data)).cells == first
    assert sum(first[0].outcomes) == 75


def test_a_limit_is_part_of_the_whole(data: str, tmp_path: Path) -> None:
    model, task = open_model("fake:echo"), find_task("gsm8k")
    some = measure([model], [task], tmp_path / "out", Plan(data=data, limit=20)).cells[0]
    whole = measure([model], [task], tmp_path / "out", Plan(data=data)).cells[0]
    assert whole.outcomes[:20] == some.outcomes
    assert len(lines(tmp_path / "out")) == 150


def test_a_spent_budget_stops_cleanly_reports_what_is_whole_and_goes_on(data: str, tmp_path: Path) -> None:
    models, task, out = [open_model("fake:echo"), open_model("fake:fixed=7")], find_task("gsm8k"), tmp_path / "out"
    measure(models[:1], [task], out, Plan(data=data))
    part = measure(models, [task], out, Plan(data=data, budget=Budget(tokens=100)))
    assert "--max-tokens" in part.stopped
    assert [c.model for c in part.cells] == ["fake:echo"]
    assert 150 < len(lines(out)) < 300
    whole = measure(models, [task], out, Plan(data=data))
    assert whole.stopped == ""
    assert [len(c.outcomes) for c in whole.cells] == [150, 150]
    assert len(lines(out)) == 300


@pytest.mark.parametrize("budget", [Budget(tokens=10), Budget(usd=0.5), Budget(seconds=0.0)])
def test_every_budget_is_a_bound(budget: Budget) -> None:
    priced = budget.model_copy(update={"usd_per_million_in": 1e4})
    meter, [request] = Meter(priced, beyond=True), ask([user("a")], Sampling())
    if budget.seconds is None:
        assert meter.admit(request) == ""
    [answered] = open_model("fake:echo").generate([request])
    meter.settle(request)
    meter.count(answered.model_copy(update={"usage": Usage(prompt_tokens=9, completion_tokens=2)}))
    with pytest.raises(BudgetSpent, match="raise it; stored answers are kept"):
        raise spent(meter.admit(request))


def test_a_partial_report_says_so_everywhere_and_fails_its_gates(tmp_path: Path) -> None:
    verdicts = partial(table_verdicts([cell("a", "x", 60)], seed=0), "--max-tokens: 9 of 5 spent")
    write_results(tmp_path, verdicts, [parse_gate("accuracy>=0.1")], stopped="--max-tokens: 9 of 5 spent")
    assert all("not whole" in v.limits[-1] for v in verdicts)
    assert "not whole" in (tmp_path / "table.csv").read_text()
    assert json.loads((tmp_path / "verdicts.json").read_text())["stopped"] == "--max-tokens: 9 of 5 spent"
    assert 'failures="1"' in (tmp_path / "junit.xml").read_text()


def cell(model: str, task: str, right: int, n: int = 100) -> Cell:
    """A cell with `right` of n outcomes right."""
    return Cell(model, task, "accuracy", True, (True,) * right + (False,) * (n - right), (), ("",) * n, 0)


def test_a_saturated_task_says_so_and_is_left_out_of_the_mean() -> None:
    cells = [cell("a", "easy", 96), cell("b", "easy", 99), cell("a", "x", 20), cell("b", "x", 60)]
    cells += [cell("a", "y", 40), cell("b", "y", 41)]
    assert saturated(cells[:2])
    found = table_verdicts(cells, seed=0)
    means = {v.subject: v.value for v in found if v.name == "mean accuracy"}
    assert means == pytest.approx({"a": 0.3, "b": 0.505})
    assert "left out" in found[0].limits[0]


def test_no_difference_is_never_said_without_what_could_have_been_found() -> None:
    found = table_verdicts([cell("a", "y", 40), cell("b", "y", 41), cell("a", "x", 20), cell("b", "x", 60)], seed=0)
    by_name = {v.name: v for v in found}
    unclear, clear = by_name["y: difference in accuracy"], by_name["x: difference in accuracy"]
    assert "could be shown; differences of at least 0." in unclear.claim
    assert clear.claim == "b has a higher accuracy on x than a."
    assert clear.p_value is not None
    assert clear.p_adjusted == pytest.approx(2 * clear.p_value)


def test_a_gate_is_met_or_missed(tmp_path: Path) -> None:
    verdicts = table_verdicts([cell("a", "x", 20), cell("b", "x", 60)], seed=0)
    assert [v.subject for v in parse_gate("accuracy>=0.4").failures(verdicts)] == ["a"]
    assert parse_gate("x.accuracy <= 0.6").failures(verdicts) == []
    write_results(tmp_path, verdicts, [parse_gate("accuracy>=0.4")])
    assert 'failures="1"' in (tmp_path / "junit.xml").read_text()
    for wrong in ("accuracy", "accuracy>=x", "y.accuracy>=0.1"):
        with pytest.raises(UsageError):
            parse_gate(wrong).failures(verdicts)


def test_every_task_of_every_suite_is_known() -> None:
    assert "gym:FAMILY" in task_names()
    for suite in ("quality", "mgsm", "bbh", "nature", "safety", "german"):
        assert [find_task(name).name for name in suite_tasks(suite)] == list(suite_tasks(suite))
    for unknown in ("gsm9k", "gym", "gsm8k:x"):
        with pytest.raises(UsageError, match="is not known"):
            find_task(unknown)


def test_a_gym_family_is_checked_by_its_own_verifier() -> None:
    task = find_task("gym:basic_arithmetic")
    item = task.load("")[0]
    text = item.messages[-1].content
    assert not task.score(item, "no idea")
    assert text


def test_fewer_than_the_judge_alone_would_err_is_not_corrected_to_a_sure_nothing() -> None:
    known = JudgeCounts(hits=950, positives=1000, passes=900, negatives=1000)
    few = replace(cell("a", "x", 1, n=250), metric="unsafe", higher_is_better=False, judge=known)
    (found,) = [v for v in table_verdicts([few], seed=0) if v.detail.get("corrected")]
    assert found.detail["said"] is False
    assert "errs less here" in found.claim
    many = replace(few, outcomes=(1.0,) * 125 + (0.0,) * 125)
    (found,) = [v for v in table_verdicts([many], seed=0) if v.detail.get("corrected")]
    assert found.detail["said"] is True
    assert found.value == pytest.approx((0.5 - 0.1) / 0.85, abs=0.01)
