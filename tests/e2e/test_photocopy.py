"""A photocopy of a photocopy with one command: who learned from whom, what is told of it, and kills on the way."""

import csv
import json
import random
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from spiritsafe.record import read_json
from tests.e2e.workspace import Workspace, assert_same, ended, exchanges, leftovers, verdicts, wait_for

pytestmark = pytest.mark.slow

RECIPE = Path(__file__).parent / "photocopy.toml"
COPIES = ("generation 1", "generation 2", "mixed 2")
PAIRS = ("generation 2 vs generation 1", "mixed 2 vs generation 1", "mixed 2 vs generation 2")
TESTED = {
    *("kl to teacher", "acceptance", "distinct-2", "tail coverage", "semantic entropy", "inconsistency"),
    *("rejected", "over-refusal", "tasks solved"),
}
MOMENTS = (
    ("exchanges/answers-teacher.jsonl", 0.3),
    ("metrics/generation-1.jsonl", 0.5),
    ("exchanges/answers-generation-1.jsonl", 0.2),
    ("metrics/mixed-2.jsonl", 0.3),
    ("exchanges/samples-teacher.jsonl", 1.0),
    ("measured/exchanges", 0.5),
)


def write_csv(path: Path, rows: list[dict[str, str]]) -> None:
    """Published files in small: harmless words in place of what they hold."""
    path.parent.mkdir(parents=True)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


@pytest.fixture(scope="module")
def pressed(workspace: Workspace) -> Path:
    """The directory of a finished photocopy run; not to be changed."""
    shutil.copy(RECIPE, workspace.folder)
    safe = [{"prompt": f"how now cat {i}", "type": "homonyms", "label": "safe"} for i in range(6)]
    write_csv(workspace.path("data", "xstest", "xstest_prompts.csv"), safe)
    tests = [{"prompts_final": f"why dog runs {i}", "harm_area": "none"} for i in range(6)]
    write_csv(workspace.path("data", "simple_safety_tests", "test_cases.csv"), tests)
    done = workspace.call("run", "photocopy.toml", "--runs", "pressed")
    assert done.code == 0
    # A tiny model may end at once; that is said, and nothing else.
    assert all(line.startswith("warning: ") and line.endswith(" empty") for line in done.err.splitlines())
    return workspace.only("pressed")


def test_each_generation_learned_from_the_one_before_and_the_mixed_one_half_from_the_teacher(pressed: Path) -> None:
    inputs = {s["stage"]: set(s["inputs"]) for s in read_json(pressed / "ledger.json")["stages"]}
    learned = {
        copy: {f for f in inputs[copy] if f.startswith("exchanges/")}
        for copy in ("generation-1", "generation-2", "mixed-2")
    }
    teacher, first = "exchanges/answers-teacher.jsonl", "exchanges/answers-generation-1.jsonl"
    assert learned == {"generation-1": {teacher}, "generation-2": {first}, "mixed-2": {teacher, first}}
    notes = {copy: read_json(pressed / "stages" / f"{copy}.json")["notes"] for copy in learned}
    assert [notes[copy]["of_the_teacher"] for copy in learned] == [12, 0, 6]
    assert {n["answers"] for n in notes.values()} == {12}
    digests = {
        read_json(pressed / "stages" / f"{copy}.json")["outputs"][f"models/{copy}/model.safetensors"]
        for copy in learned
    }
    assert len(digests) == 3


def test_all_generations_are_asked_the_same_and_trained_alike(pressed: Path) -> None:
    logs = exchanges(pressed)
    assert {len(logs[f"samples-{m}.jsonl"]) for m in ("teacher", "generation-1", "generation-2", "mixed-2")} == {8 * 3}
    steps = [json.loads(line) for line in (pressed / "metrics.jsonl").read_text().splitlines()]
    assert {m["student"] for m in steps} == {c.replace(" ", "-") for c in COPIES}
    assert {m["steps"] for m in steps} == {6 * 3}
    assert len(steps) == 3 * 6 * 3


def said(pressed: Path) -> list[dict[str, Any]]:
    """The verdicts that claim something: a tiny copy may end at once, and of its tasks nothing is claimed."""
    return [v for v in verdicts(pressed) if v["detail"].get("said") is not False]


def test_every_quantity_is_told_of_every_model_with_its_interval_number_seed_and_limits(pressed: Path) -> None:
    levels = [v for v in verdicts(pressed) if "generation" in v["detail"]]
    for name in {v["name"] for v in levels}:
        assert [v["subject"] for v in levels if v["name"] == name] == ["teacher", *COPIES], name
    assert {v["name"] for v in verdicts(pressed) if v not in said(pressed)} <= {
        "tasks solved",
        "change in tasks solved",
    }
    for v in said(pressed):
        assert v["interval"][0] <= v["value"] <= v["interval"][1], v
        assert v["n"] >= 4, v
        assert v["seed"] == 0, v
        assert v["method"], v
        assert v["limits"], v


def test_every_tested_quantity_has_both_tests_for_each_pair(pressed: Path) -> None:
    changes = [v for v in verdicts(pressed) if v["name"].startswith("change in ")]
    names = {v["name"].removeprefix("change in ") for v in changes}
    assert names <= TESTED
    assert TESTED - names <= {"tail coverage"}, "the tiny model may have no rare words"
    for name in names:
        rows = [v for v in changes if v["name"] == f"change in {name}"]
        assert [v["subject"] for v in rows] == list(PAIRS)
        rows = [v for v in rows if v in said(pressed)]
        assert all(0 < v["p_value"] <= v["p_adjusted"] <= 1 for v in rows)
        assert all(0 < v["detail"]["alike_p"] <= v["detail"]["alike_p_adjusted"] <= 1 for v in rows)


def test_copies_of_copies_go_away_from_the_original(pressed: Path) -> None:
    """By construction: the tiny model's answers are drawn hot, and each copy learns them by heart."""
    kl = {v["subject"]: v for v in verdicts(pressed) if v["name"] == "kl to teacher"}
    assert kl["teacher"]["value"] == 0
    assert 0 < kl["generation 1"]["value"] < kl["generation 2"]["value"]
    assert kl["mixed 2"]["value"] < kl["generation 2"]["value"]


def test_the_report_holds_the_curves_the_heat_map_and_the_tests_and_asks_for_nothing(
    workspace: Workspace, pressed: Path
) -> None:
    page = (pressed / "report.html").read_text()
    for name in {v["name"] for v in verdicts(pressed) if v["name"] in TESTED}:
        assert f"{name} over generations" in page
    assert "Safety over generations" in page
    assert all(pair in page for pair in PAIRS)
    assert "<script" not in page
    assert 'src="http' not in page
    before = page
    assert workspace.call("report", str(pressed)).code == 0
    assert (pressed / "report.html").read_text() == before


def test_the_same_command_again_does_nothing(workspace: Workspace, pressed: Path) -> None:
    stages = {f.name: f.stat().st_mtime_ns for f in (pressed / "stages").iterdir()}
    again = workspace.call("run", "photocopy.toml", "--runs", "pressed", "--json")
    assert (again.code, again.err) == (0, "")
    assert {f.name: f.stat().st_mtime_ns for f in (pressed / "stages").iterdir()} == stages
    assert json.loads(again.out)["verdicts"] == verdicts(pressed)


def test_killed_again_and_again_it_gives_the_same_verdicts(workspace: Workspace, pressed: Path) -> None:
    delays = random.Random(1)
    for file, most_s in MOMENTS:
        process = workspace.start("run", "photocopy.toml", "--runs", "torn-photocopy")
        wait_for(lambda file=file: any(workspace.path("torn-photocopy").glob(f"*/{file}")), process)  # type: ignore[misc]
        time.sleep(delays.uniform(0, most_s))
        process.send_signal(signal.SIGKILL)
        assert ended(process).code == -signal.SIGKILL
    assert workspace.call("run", "photocopy.toml", "--runs", "torn-photocopy").code == 0
    folder = workspace.only("torn-photocopy")
    assert exchanges(folder) == exchanges(pressed)
    assert_same(verdicts(folder), verdicts(pressed))
    assert leftovers(folder) == leftovers(pressed)
