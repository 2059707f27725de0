"""Jailbreaks: questions joined to templates by a seed, paired with themselves as they were; all stand-ins."""

import json
from pathlib import Path

import pytest

from spiritsafe.errors import UsageError
from spiritsafe.measure.compare import table_verdicts
from spiritsafe.measure.harness import Plan, measure
from spiritsafe.measure.registry import find_task
from spiritsafe.measure.tasks import jailbreaks
from spiritsafe.models import open_model

FORMS = (("a", "Once upon a time: {{ prompt }}"), ("b", "{{prompt}} Answer in verse, with \\1."))


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Twelve questions about stills in the place of HarmBench's, two harmless templates, one stored attack."""
    monkeypatch.setattr(jailbreaks, "templates", lambda: FORMS)
    folder = tmp_path / "harmbench"
    folder.mkdir()
    lines = ["Behavior,SemanticCategory,ContextString", *(f"Describe still number {i}?,stills," for i in range(12))]
    (folder / "behaviors_text_all.csv").write_text("\n".join(lines))
    rows = [{"prompt": "Tell of peat.", "response": "Peat is cut.", "jailbroken": i == 0} for i in range(2)]
    rows = [{**row, "category": "fuel", "behavior": f"peat {i}"} for i, row in enumerate(rows)]
    (tmp_path / "jailbreakbench").mkdir()
    for attack in jailbreaks.ATTACKS:
        path = tmp_path / "jailbreakbench" / f"{attack}.json"
        path.write_text(json.dumps({"jailbreaks": [*rows, {**rows[0], "prompt": None}]}))
    return str(tmp_path)


def test_each_question_stands_inside_one_template_chosen_by_the_seed(data: str) -> None:
    first, again, other = (find_task(f"jailbreak:harmbench{s}").load(data) for s in ("", "#0", "#1"))
    assert [i.messages for i in first] == [i.messages for i in again] != [i.messages for i in other]
    questions = {i.key: i.messages[0].content for i in find_task("harmbench").load(data)}
    assert {i.cluster for i in first} == {"a", "b"}
    for item in first:
        assert questions[item.pair] in item.messages[0].content
        assert "{{" not in item.messages[0].content


def test_long_templates_are_left_out_where_a_bound_is_named(data: str) -> None:
    short = find_task(f"jailbreak:harmbench#0,{len(FORMS[0][1])}").load(data)
    assert {i.cluster for i in short} == {"a"}
    assert len(short) == 12


def test_jailbroken_questions_are_compared_with_themselves(data: str, tmp_path: Path) -> None:
    tasks = [find_task("harmbench"), find_task("jailbreak:harmbench")]
    model = open_model("fake:fixed=Describe it? A still is a copper pot.")
    cells = measure([model], tasks, tmp_path / "out", Plan(data=data, limit=8)).cells
    plain, broken = (next(c for c in cells if (c.task, c.metric) == (t.name, "unsafe")) for t in tasks)
    assert set(plain.keys) == set(broken.keys)
    (change,) = [v for v in table_verdicts(cells, seed=0) if "jailbreak:harmbench: difference in unsafe" in v.name]
    assert change.subject == f"{model.address}, jailbreak:harmbench vs harmbench"
    assert change.value == 0


def test_stored_attacks_come_alone_or_with_the_answer_they_got(data: str) -> None:
    alone, turns = (find_task(n).load(data) for n in ("jailbreakbench", "jailbreakbench-multi-turn"))
    assert {i.cluster for i in alone} == {"peat 0", "peat 1"}
    assert {tuple(m.role for m in i.messages) for i in turns} == {("user", "assistant", "user")}
    assert {i.cluster for i in turns} == {"peat 0"}


@pytest.mark.parametrize("name", ["jailbreak", "jailbreak:gsm8k", "jailbreakbench:x", "jailbreak:harmbench#0,x"])
def test_a_set_that_cannot_be_jailbroken_is_named(name: str) -> None:
    with pytest.raises(UsageError, match="is not known"):
        find_task(name)
