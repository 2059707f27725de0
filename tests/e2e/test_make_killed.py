"""`spiritsafe make`, killed at any time: the same command continues to the same student, and nothing is asked twice."""

import json
import signal
import time
from pathlib import Path

import pytest

from spiritsafe.record import Exchange, file_digest, read_jsonl
from tests.e2e.workspace import Workspace, ended, leftovers, wait_for
from tests.tiny import WORDS, write_tiny

pytestmark = pytest.mark.slow

SHORT = ("data.collect.sampling.max_tokens=12", "data.keep.finished=false", "make.own.max_tokens=12", "--seed", "5")
LEARN = ("make.epochs=25", "make.learning_rate=3e-3", "make.checkpoint_every=7", "--limit", "30")


@pytest.fixture(scope="module")
def cellar(tmp_path_factory: pytest.TempPathFactory, warm: Path | None) -> Workspace:
    """A folder with a tiny teacher and prompts."""
    folder = tmp_path_factory.mktemp("cellar")
    write_tiny(folder / "tiny", scale=1.5)
    texts = [" ".join((WORDS * 9)[i * j % 23 : i * j % 23 + 1 + i % 4]) for i in range(1, 24) for j in range(1, 6)]
    (folder / "p.jsonl").write_text("".join(json.dumps({"prompt": text}) + "\n" for text in texts))
    return Workspace(folder, warm)


def weights(folder: Path) -> str:
    """The digest of a student's weights."""
    return file_digest(folder / "student" / "model.safetensors")


@pytest.mark.parametrize("method", ["cached", "gkd"])
def test_a_training_killed_twice_ends_with_the_same_weights(cellar: Workspace, method: str) -> None:
    words = ("make", "./tiny", "--prompts", "p.jsonl", "--method", method, "--student", "pruned:2", *SHORT, *LEARN)
    whole, broken = cellar.path(f"{method}-whole"), cellar.path(f"{method}-broken")
    done = cellar.call(*words, "-o", whole.name)
    assert (done.code, done.err) == (0, "")
    metrics = broken / "metrics.jsonl"
    for least in (10, 40):
        process = cellar.start(*words, "-o", broken.name)
        wait_for(lambda least=least: metrics.exists() and metrics.read_text().count("\n") > least, process)  # type: ignore[misc]
        process.send_signal(signal.SIGKILL)
        assert ended(process).code == -signal.SIGKILL
    assert (broken / "checkpoint.pt").is_file()
    done = cellar.call(*words, "--resume", broken.name)
    assert done.code == 0
    assert weights(broken) == weights(whole)
    steps = [
        [json.loads(line)["step"] for line in (f / "metrics.jsonl").read_text().splitlines()] for f in (broken, whole)
    ]
    assert steps[0] == steps[1]
    assert leftovers(broken) == leftovers(whole)
    assert {f.name for f in broken.iterdir()} == {f.name for f in whole.iterdir()}


def test_answers_that_were_stored_before_a_kill_are_not_asked_for_again(cellar: Workspace) -> None:
    words = ("make", "fake:slow=0.05", "--prompts", "p.jsonl", "--method", "text", "--student", "./tiny", "-o", "slow")
    stored = cellar.path("slow", "exchanges", "all.jsonl")
    process = cellar.start(*words, "make.epochs=1")
    wait_for(lambda: stored.exists() and stored.read_text().count("\n") > 5, process)
    time.sleep(0.1)
    process.send_signal(signal.SIGKILL)
    ended(process)
    before = stored.read_text()
    assert cellar.call(*words, "make.epochs=1").code == 0
    after = read_jsonl(stored, Exchange)
    assert stored.read_text().startswith(before[: before.rfind("\n") + 1])
    assert len({e.id for e in after}) == len(after) > before.count("\n") > 5
