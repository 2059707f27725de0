"""A stage runs once; again only where its inputs changed or its files are not as it left them."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from spiritsafe.errors import DataError, RunError
from spiritsafe.ledger import Entry
from spiritsafe.progress import Show
from spiritsafe.recipe import parse_recipe
from spiritsafe.record import Verdict, append_jsonl, verdict_file, verdicts_of, write_atomic, write_json
from spiritsafe.run import Run, check_evidence, opened
from spiritsafe.stage import Done, Stages

VERDICT = Verdict(room="make", name="n", subject="s", claim="c", value=0.5, n=3, method="m")


@pytest.fixture
def run(small_recipe: dict[str, Any], tmp_path: Path) -> Iterator[Run]:
    """An open run."""
    with opened(parse_recipe(small_recipe), tmp_path) as (run, _):
        yield run


class Work:
    """Two stages, `first` and `second` which needs it; counts how often each ran."""

    def __init__(self, run: Run) -> None:
        self.run, self.text, self.ran = run, "first", list[str]()

    def do(self) -> Stages:
        """Run what has to be run, as a new process would."""
        self.ran.clear()
        stages = Stages(self.run, Show(quiet=True))
        stages.do("first", (), self._work("a.txt", lambda: self.text))
        stages.do("second", ("first",), self._work("b.txt", lambda: self.run.path("a.txt").read_text().upper()))
        return stages

    def _work(self, name: str, text: Callable[[], str]) -> Callable[[Entry], Done]:
        def work(entry: Entry) -> Done:
            self.ran.append(name)
            entry.count(tokens_out=7)
            write_atomic(self.run.path(name), text())
            return Done((self.run.path(name),), [VERDICT], {name: [1]}, {"length": len(text())})

        return work


@pytest.fixture
def work(run: Run) -> Work:
    """Two stages that ran once."""
    made = Work(run)
    made.do()
    assert made.ran == ["a.txt", "b.txt"]
    return made


def test_a_finished_stage_is_not_run_again_and_says_the_same(work: Work) -> None:
    before = {f: f.read_bytes() for f in work.run.path("stages").iterdir()}
    again = work.do()
    assert work.ran == []
    assert {f: f.read_bytes() for f in work.run.path("stages").iterdir()} == before
    assert again.records["first"]["notes"] == {"length": 5}
    assert again.verdicts() == [VERDICT, VERDICT]
    assert again.plots() == {"a.txt": [1], "b.txt": [1]}


@pytest.mark.parametrize("harm", [lambda p: p.unlink(), lambda p: p.write_text("forged")])
def test_a_stage_whose_output_was_deleted_or_altered_runs_again(work: Work, harm: Callable[[Path], None]) -> None:
    harm(work.run.path("b.txt"))
    work.do()
    assert work.ran == ["b.txt"]
    assert work.run.path("b.txt").read_text() == "FIRST"


def test_an_output_made_again_as_it_was_does_not_run_the_stages_behind_it(work: Work) -> None:
    work.run.path("a.txt").unlink()
    work.do()
    assert work.ran == ["a.txt"]


def test_an_output_made_again_otherwise_runs_the_stages_behind_it(work: Work) -> None:
    work.run.path("a.txt").unlink()
    work.text = "other"
    work.do()
    assert work.ran == ["a.txt", "b.txt"]
    assert work.run.path("b.txt").read_text() == "OTHER"


def test_a_killed_stage_is_not_done(work: Work) -> None:
    work.run.path("stages", "second.json").unlink()
    work.do()
    assert work.ran == ["b.txt"]


def test_a_stage_that_fails_leaves_no_record(run: Run) -> None:
    def fail(entry: Entry) -> Done:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Stages(run, Show(quiet=True)).do("first", (), fail)
    assert not run.path("stages").exists()


def test_the_record_holds_lineage_and_the_ledger_entry(work: Work) -> None:
    first, second = (json.loads(work.run.path("stages", f"{n}.json").read_text()) for n in ("first", "second"))
    assert second["entry"]["inputs"]["a.txt"] == first["outputs"]["a.txt"]
    assert second["entry"]["outputs"] == second["outputs"]
    assert first["entry"]["tokens_out"] == 7
    assert first["entry"]["wall_s"] > 0


@pytest.mark.parametrize("edit", [{"p_value": 1e-99}, {"value": 0.9}, {"claim": "other"}])
def test_a_finished_stage_whose_verdict_was_rewritten_is_refused(work: Work, edit: dict[str, Any]) -> None:
    path = work.run.path("stages", "second.json")
    record = json.loads(path.read_text())
    record["verdicts"][0] |= edit
    path.write_text(json.dumps(record))
    with pytest.raises(RunError, match=r"second\.json: was changed since the stage ended; put it back, or remove it"):
        work.do()
    path.unlink()
    work.do()
    assert work.ran == ["b.txt"]


def test_a_finished_stage_whose_stored_answers_were_edited_is_refused(run: Run) -> None:
    path = run.path("exchanges", "a.jsonl")

    def work(entry: Entry) -> Done:
        append_jsonl(path, [{"answer": "one"}])
        return Done((path,), [VERDICT])

    Stages(run, Show(quiet=True)).do("first", (), work)
    check_evidence(run.folder, [VERDICT])
    path.write_text('{"answer": "two"}\n')
    for check in (lambda: check_evidence(run.folder, []), lambda: Stages(run, Show(quiet=True)).do("first", (), work)):
        with pytest.raises(RunError, match="was changed since stage 'first' ended"):
            check()


def test_a_verdict_that_no_stage_claimed_is_no_evidence(work: Work) -> None:
    check_evidence(work.run.folder, [VERDICT])
    with pytest.raises(RunError, match="the verdict 'n' of 's' is of none of the run's stages"):
        check_evidence(work.run.folder, [VERDICT.model_copy(update={"value": 0.75})])


def test_a_record_of_an_older_form_runs_its_stage_again(work: Work) -> None:
    path = work.run.path("stages", "first.json")
    record = json.loads(path.read_text())
    path.write_text(json.dumps({key: value for key, value in record.items() if key not in ("version", "seal")}))
    work.do()
    assert work.ran == ["a.txt"]


def test_verdicts_name_each_number_of_threads_that_stages_ran_with_once(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    stages = Stages(run, Show(quiet=True))
    for name, number in (("first", "1"), ("second", "2"), ("third", "1")):
        monkeypatch.setenv("SPIRITSAFE_THREADS", number)
        stages.do(name, (), lambda _: Done(verdicts=[VERDICT]))
    assert [each["threads"] for each in stages.computed()] == [1, 2]
    held = verdict_file(stages.verdicts(), computed=stages.computed())
    assert held["computed"] == stages.computed()
    write_json(run.path("verdicts.json"), held)
    assert verdicts_of(run.path("verdicts.json"), held) == (VERDICT,) * 3
    with pytest.raises(DataError, match="was changed"):
        verdicts_of(run.path("verdicts.json"), held | {"computed": []})
