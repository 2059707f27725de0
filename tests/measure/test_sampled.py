"""Semantic entropy and self-consistency as tasks: sampled once, scored without the model, paired, in the report."""

import json
from math import log
from pathlib import Path

import pytest

from spiritsafe.errors import DataError, UsageError
from spiritsafe.measure.compare import estimate, table_verdicts
from spiritsafe.measure.harness import Plan, measure
from spiritsafe.measure.output import parse_gate
from spiritsafe.measure.registry import find_task, suite_tasks, task_names
from spiritsafe.models import open_model
from spiritsafe.record import Exchange, read_jsonl
from tests.measure.conftest import Muted

PROMPTS = ["What is a still?", "Was ist Gärung?", "What is a cask?", "Why copper?", "How old is it?", "Wer brennt?"]


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    path = tmp_path / "prompts.txt"
    path.write_text("\n".join(PROMPTS), encoding="utf-8")
    return path


def both(path: Path) -> list[str]:
    return [f"semantic-entropy:{path}", f"self-consistency:{path}"]


def test_a_model_that_always_says_the_same_is_sure_and_one_that_never_does_is_not(
    prompts: Path, tmp_path: Path
) -> None:
    sure = open_model("fake:fixed=Copper is a metal.")
    unsure = open_model("fake:random")
    tasks = [find_task(name) for name in both(prompts)]
    cells = measure([sure, unsure], tasks, tmp_path / "out", Plan(samples=5)).cells
    by = {(c.model, c.metric): c for c in cells}
    same, other = by[sure.address, "semantic_entropy"], by[unsure.address, "semantic_entropy"]
    assert same.outcomes == (0.0,) * len(PROMPTS)
    assert all(0.5 < value <= log(5) + 1e-9 for value in other.outcomes)
    assert same.most == pytest.approx(log(5))
    assert (same.unit, same.samples) == ("nats", 5)
    assert max(by[sure.address, "inconsistency"].outcomes) < 1e-9
    assert min(by[unsure.address, "inconsistency"].outcomes) > 0.1
    verdicts = table_verdicts(cells, seed=0)
    apart = next(v for v in verdicts if v.name.endswith("difference in semantic_entropy"))
    assert apart.value == pytest.approx(sum(other.outcomes) / len(PROMPTS))
    assert min(apart.interval or [0.0]) > 0
    assert apart.n == len(PROMPTS)
    assert all(any("consistent falsehoods" in limit for limit in v.limits) for v in verdicts)
    gate = parse_gate(f"{tasks[0].name}.semantic_entropy<=0.5")
    assert [v.subject for v in gate.failures(verdicts)] == [unsure.address]


def test_both_read_the_same_answers_and_score_them_without_the_model(
    prompts: Path, tmp_path: Path, muted: Muted
) -> None:
    model, tasks = open_model("fake:echo"), [find_task(name) for name in both(prompts)]
    first = measure([model], tasks, tmp_path / "out", Plan(samples=4)).cells
    kept = [e for f in (tmp_path / "out/exchanges").glob("*.jsonl") for e in read_jsonl(f, Exchange)]
    assert len({e.id for e in kept}) == len(kept) == 4 * len(PROMPTS)

    assert measure([muted(model)], tasks, tmp_path / "out", Plan(samples=4)).cells == first
    fewer = measure([muted(model)], tasks, tmp_path / "out", Plan(samples=3)).cells
    assert [c.samples for c in fewer] == [3, 3]


def test_prompts_come_from_a_file_of_rows_or_another_task(tmp_path: Path) -> None:
    (tmp_path / "gsm8k").mkdir()
    rows = [{"question": f"Vat {i}?", "answer": "#### 7"} for i in range(3)]
    (tmp_path / "gsm8k/test.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    of_task = find_task("semantic-entropy:gsm8k").load(str(tmp_path))
    of_file = find_task(f"semantic-entropy:{tmp_path / 'gsm8k/test.jsonl'}").load("")
    assert len(of_task) == len(of_file) == 3
    assert [i.messages[-1].content for i in of_file] == ["Vat 0?", "Vat 1?", "Vat 2?"]
    assert "semantic-entropy[:FILE|TASK]" in task_names()
    assert list(suite_tasks("hallucination"))[-2:] == ["semantic-entropy", "self-consistency"]


def test_what_cannot_be_read_is_told(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such file"):
        find_task("semantic-entropy:gone.jsonl")
    with pytest.raises(UsageError, match="is not known"):
        find_task("self-consistency:nothing-like-it")
    (tmp_path / "broken.jsonl").write_text('{"prompt": "one?"}\n{"prompt": \n')
    with pytest.raises(DataError, match="line 2 is not JSON"):
        find_task(f"semantic-entropy:{tmp_path / 'broken.jsonl'}").load("")
    (tmp_path / "empty.txt").write_text("\n")
    with pytest.raises(DataError, match="holds no prompt"):
        find_task(f"semantic-entropy:{tmp_path / 'empty.txt'}").load("")


@pytest.mark.slow
def test_a_real_model_is_less_sure_than_one_that_repeats_itself(prompts: Path, tmp_path: Path) -> None:
    models = [open_model("smollm2"), open_model("fake:fixed=Copper is a metal.")]
    plan = Plan(samples=3, limit=3, answer_tokens=8)
    cells = measure(models, [find_task(f"semantic-entropy:{prompts}")], tmp_path / "out", plan).cells
    real, repeats = [estimate(c) for c in cells]
    assert 0.0 == repeats.value < real.value <= log(3) + 1e-9
    assert repeats.high > 0.0
