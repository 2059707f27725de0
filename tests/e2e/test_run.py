"""The whole loop with one command: what it leaves behind, and that it says the same each time."""

import json
from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.e2e.workspace import Workspace, assert_same, exchanges, leftovers, verdicts

FILES = (
    *("recipe.json", "environment.json", "prompts.jsonl", "keys.sqlite", "metrics.jsonl", "verdicts.json"),
    *("plots.json", "ledger.json", "report.html", "signals/served/cache.json", "signals/served/00000.signals"),
    *("student/model.safetensors", "student/tokenizer.json", "student/README.md"),
    *("models/own-student/config.json", "models/control/config.json", "models/pruned-start/config.json"),
)
LEARNED = {"drawer x student", "drawer x own student"}


def state(folder: Path) -> dict[str, int]:
    """When each file of a run's stages was written, in ns."""
    parts = ("exchanges", "models", "signals", "stages", "student", "metrics")
    files = [f for part in parts for f in (folder / part).rglob("*") if f.name != "README.md"]
    return {str(f.relative_to(folder)): f.stat().st_mtime_ns for f in files}


def test_a_run_leaves_all_its_files_and_nothing_else(finished: Path) -> None:
    assert [name for name in FILES if not (finished / name).is_file()] == []
    assert leftovers(finished) == []
    assert {"gateway.jsonl", "twins.jsonl", "control.jsonl", "heldout.jsonl"} <= exchanges(finished).keys()


def test_every_verdict_says_how_sure_it_is_over_how_many_and_by_which_method(finished: Path) -> None:
    found = verdicts(finished)
    assert {v["room"] for v in found} == {"measure", "guard", "prove"}
    for v in found:
        assert v["n"] >= 1, v
        assert v["method"], v
        assert v["assumptions"], v
        assert v["seed"] == 0, v
        assert v["interval"] is not None or v["p_value"] is not None, v
        if v["interval"]:
            assert v["interval"][0] <= v["interval"][1], v


def test_the_twin_test_rejects_for_the_two_that_learned_from_the_drawing_account_and_no_other(finished: Path) -> None:
    found = {v["subject"]: v for v in verdicts(finished) if v["name"] == "twin-sample test"}
    assert len(found) == 3 * 4
    assert {subject for subject, v in found.items() if v["rejected"]} == LEARNED
    assert {subject for subject, v in found.items() if not v["holds"]} == set()
    # Twins are drawn by the exchanges' ids, which a model's digest enters: only the recipe's own level holds for any.
    assert max(found[subject]["p_adjusted"] for subject in LEARNED) < 0.01


def test_the_watch_names_the_drawing_account_alone(finished: Path) -> None:
    found = {v["subject"]: v["rejected"] for v in verdicts(finished) if v["room"] == "guard"}
    assert found == {"drawer": True, "ordinary-01": False, "ordinary-02": False}


def test_the_student_loads_in_plain_transformers(finished: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(finished / "student", local_files_only=True)
    tokenizer = AutoTokenizer.from_pretrained(finished / "student", local_files_only=True)
    assert model.config.num_hidden_layers == 3
    assert model(**tokenizer("one two three", return_tensors="pt")).logits.shape[-1] == len(tokenizer)


def test_the_report_holds_no_script_and_asks_for_nothing(finished: Path) -> None:
    page = (finished / "report.html").read_text()
    assert "<script" not in page
    assert 'src="http' not in page
    assert "twin-sample test" in page


def test_each_training_step_is_there_once(finished: Path) -> None:
    steps = [json.loads(line) for line in (finished / "metrics.jsonl").read_text().splitlines()]
    for student in ("student", "own-student", "control"):
        own = [m["step"] for m in steps if m["student"] == student]
        assert own == list(range(1, own[-1] + 1))
        assert own[-1] == steps[0]["steps"]


def test_every_output_is_in_the_lineage_with_the_digest_of_what_it_came_from(finished: Path) -> None:
    stages = {s["stage"]: s for s in json.loads((finished / "ledger.json").read_text())["stages"]}
    served = stages["serve"]["outputs"]["exchanges/gateway.jsonl"]
    assert stages["student"]["inputs"]["exchanges/gateway.jsonl"] == served
    assert all(s["wall_s"] > 0 for s in stages.values())


def test_the_same_command_again_does_nothing_and_prints_the_same_verdicts(workspace: Workspace, finished: Path) -> None:
    before, said = state(finished), verdicts(finished)
    again = workspace.call("run", "tiny.toml", "--runs", "runs", "--json")
    assert (again.code, again.err) == (0, "")
    assert state(finished) == before
    assert json.loads(again.out)["verdicts"] == verdicts(finished) == said


def test_the_report_can_be_written_anew(workspace: Workspace, finished: Path) -> None:
    page = (finished / "report.html").read_text()
    done = workspace.call("report", str(finished))
    assert (done.code, done.err) == (0, "")
    assert "drawer x own student" in done.out
    assert (finished / "report.html").read_text() == page
    assert json.loads(workspace.call("report", str(finished), "--json").out)["verdicts"] == verdicts(finished)


def test_ls_finds_the_run(workspace: Workspace, finished: Path) -> None:
    assert workspace.call("ls", "runs").out.split() == [f"runs/{finished.name}"]


def test_another_directory_with_the_same_seed_gives_the_same_verdicts(workspace: Workspace, finished: Path) -> None:
    workspace.run("elsewhere")
    other = workspace.only("elsewhere")
    assert exchanges(other) == exchanges(finished)
    assert_same(verdicts(other), verdicts(finished))


@pytest.mark.parametrize("override", ["make.epochs=31", "run.seed=1"])
def test_a_run_is_not_continued_with_another_recipe(workspace: Workspace, finished: Path, override: str) -> None:
    line = workspace.refused(1, "run", "tiny.toml", override, "--resume", str(finished))
    assert line.endswith(f"these keys differ: {override.partition('=')[0]}; use --runs DIR")
