"""From prompts to training data in one call: right answers only, nothing twice, killed or not."""

import json
import random
import shutil
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from spiritsafe.errors import DataError, RunError
from spiritsafe.ledger import Entry
from spiritsafe.make.data.prepare import Prepared, prepare
from spiritsafe.make.data.problems import evaluation_texts, problems
from spiritsafe.make.data.settings import DataSettings, EvaluationPart
from spiritsafe.record import Exchange, read_jsonl
from tests.make.data.sums import Sums, problem

PROMPTS = [problem(a, b) for a, b in ((3, 4), (15, 27), (60, 70), (0, 9), (8, 31), (44, 5), (12, 13), (9, 90))]
SETTINGS = DataSettings.model_validate(
    {
        "collect": {"num_samples": 6, "sampling": {"max_tokens": 40}},
        "keep": {"per_prompt": 3, "pass_rate": (0.1, 0.95)},
        "near": {"threshold": 0.9},
        "clean": {"short": 4},
    }
)
HELD = {"held": [PROMPTS[4].messages[0].content, "An unseen question about something else entirely, is it not?"]}


def run(folder: Path, **also: object) -> Prepared:
    """Prepare with the adding teacher."""
    settings = SETTINGS.model_copy(update=also)
    return prepare(settings, PROMPTS, folder, teacher=Sums(), evaluations=HELD)


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which everything was prepared."""
    folder = tmp_path_factory.mktemp("done")
    run(folder)
    return folder


@pytest.fixture
def folder(done: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return Path(shutil.copytree(done, tmp_path / "copy"))


def test_what_is_kept_is_right_rare_enough_and_in_no_evaluation(folder: Path) -> None:
    entry = Entry(stage="data")
    found = prepare(SETTINGS, PROMPTS, folder, teacher=Sums(), evaluations=HELD, entry=entry)
    kept, report = read_jsonl(found.exchanges, Exchange), found.report
    right = {p.messages: int(p.options["answer"]) for p in PROMPTS}
    assert kept
    assert all(f"{{{right[e.messages]}}}" in e.answer for e in kept)
    assert not {PROMPTS[i].messages for i in (2, 3, 4)} & {e.messages for e in kept}
    assert max(sum(e.messages == p.messages for e in kept) for p in PROMPTS) <= 3
    assert sum(report.answers.values()) == report.collected.answered == 48
    assert report.answers["kept"] == report.kept == len(kept)
    assert {"wrong", "too easy", "surplus", "contaminated"} <= set(report.answers)
    assert report.pass_rates["1"] >= 1
    assert report.pass_rates["0"] >= 1
    assert (entry.tokens_in, entry.tokens_out) == (48 * 12, 48 * 10)


def test_the_report_names_what_was_hit_and_both_shares(done: Path) -> None:
    report = json.loads((done / "data.json").read_text())
    [seen] = report["evaluations"]
    assert (seen["evaluation"], seen["items"], seen["contaminated"], seen["share"]) == ("held", 2, 1, 0.5)
    dropped = [json.loads(line) for line in (done / "dropped.jsonl").read_text().splitlines()]
    hits = [hit for row in dropped if row["reason"] == "contaminated" for hit in row["hits"]]
    assert {(hit["evaluation"], hit["index"], hit["overlap"]) for hit in hits} == {("held", 0, 1.0)}
    assert all(hit["digest"] in seen["digests"] and len(hit["shared"]) <= 80 for hit in hits)
    assert all(len(example["excerpt"]) <= 80 for example in report["examples"])


def test_a_second_run_asks_and_checks_nothing_and_writes_the_same(done: Path, folder: Path) -> None:
    found = run(folder)
    for name in ("exchanges/all.jsonl", "exchanges/kept.jsonl", "checks.jsonl", "pass_rates.jsonl", "dropped.jsonl"):
        assert (folder / name).read_bytes() == (done / name).read_bytes()
    assert found.report.collected.asked == 0


def test_what_is_learnt_from_is_sealed_and_for_its_owner_alone(done: Path, tmp_path: Path) -> None:
    kept = done / "exchanges" / "kept.jsonl"
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    edited = kept.read_text().replace('"answer":"', '"answer":"no, ', 1)
    (tmp_path / "edited.jsonl").write_text(edited)
    with pytest.raises(DataError, match="line 1"):
        read_jsonl(tmp_path / "edited.jsonl", Exchange)


def test_each_step_can_be_switched_off(folder: Path) -> None:
    found = run(folder, near=None, clean=None).report
    assert found.near_recall is None
    assert not {"near-duplicate", "contaminated"} & set(found.answers)


def test_a_budget_ends_it_early_with_what_there_is(tmp_path: Path) -> None:
    collect = SETTINGS.collect.model_validate({**SETTINGS.collect.model_dump(), "budget": {"tokens": 500}})
    found = run(tmp_path, collect=collect)
    assert found.report.collected.stopped.startswith("tokens: ")
    assert 0 < sum(found.report.answers.values()) == found.report.collected.answered < 48
    assert run(tmp_path).report.collected.answered == 48


SCRIPT = """
import sys
from pathlib import Path
from spiritsafe.make.data.prepare import prepare
from tests.make.data.sums import Sums
from tests.make.data.test_prepare import HELD, PROMPTS, SETTINGS
prepare(SETTINGS, PROMPTS, Path(sys.argv[1]), teacher=Sums(pause_s=0.01), evaluations=HELD)
"""


@pytest.mark.slow
def test_killed_at_random_points_it_ends_in_the_same_data(done: Path, tmp_path: Path, root: Path) -> None:
    killed, draw = tmp_path / "killed", random.Random(1)
    for share in (0.5, 1.3):
        process = subprocess.Popen([sys.executable, "-c", SCRIPT, str(killed)], cwd=root)
        while process.poll() is None and progress(killed) < share * (0.9 + 0.2 * draw.random()):
            time.sleep(0.001)
        process.send_signal(signal.SIGKILL)
        process.wait()
    found = run(killed)
    assert found.report.answers == json.loads((done / "data.json").read_text())["answers"]
    assert ids(found.exchanges) == ids(done / "exchanges" / "kept.jsonl")
    for name, num in (("exchanges/all.jsonl", 48), ("checks.jsonl", 48)):
        lines = [json.loads(line)["id"] for line in (killed / name).read_text().splitlines()]
        assert len(lines) == len(set(lines)) == num


def progress(folder: Path) -> float:
    """0 to 1 while answers come, 1 to 2 while they are checked."""
    files = (folder / "exchanges" / "all.jsonl", folder / "checks.jsonl")
    return sum(f.read_bytes().count(b"\n") for f in files if f.exists()) / 48


def ids(path: Path) -> list[str]:
    """The ids of stored exchanges, in order."""
    return [e.id for e in read_jsonl(path, Exchange)]


def test_two_at_once_are_refused(tmp_path: Path) -> None:
    class Nested(Sums):
        """Tries to prepare in the same folder while it is asked."""

        def generate(self, *_: object, **__: object) -> list[Exchange]:
            """Start a second one."""
            run(tmp_path)
            return []

    with pytest.raises(RunError, match="is in use by another process"):
        prepare(SETTINGS, PROMPTS, tmp_path, teacher=Nested())


def test_problems_and_evaluations_are_read_from_jsonl(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    rows = [{"question": "2+2?", "answer": "two and two\n#### 4"}, {"question": "2+2?", "answer": "4"}]
    path.write_text("\n".join(json.dumps(r) for r in rows) + "\n\n")
    [prompt] = problems(str(path))
    assert prompt.options == {"answer": "4"}
    assert evaluation_texts(EvaluationPart(name="x", path=str(path))) == ["2+2?", "2+2?"]
    with pytest.raises(DataError, match="line 1 has no text 'prompt'; it has question, answer"):
        evaluation_texts(EvaluationPart(name="x", path=str(path), fields=("prompt",)))
    path.write_text('{"question": ')
    with pytest.raises(DataError, match="line 1 is not JSON"):
        problems(str(path))
    with pytest.raises(DataError, match="no such file"):
        problems(str(tmp_path / "none"))
