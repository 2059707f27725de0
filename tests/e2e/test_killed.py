"""`kill -9` and Ctrl-C at any time: the same command continues, and no exchange is lost or doubled."""

import random
import signal
import time
from pathlib import Path

import pytest

from tests.e2e.workspace import Ended, Workspace, assert_same, ended, exchanges, leftovers, verdicts, wait_for

pytestmark = pytest.mark.slow

# Wait for this file of the run, then up to so many seconds at random: the moments spread over the whole loop.
MOMENTS = (
    ("recipe.json", 3.0, signal.SIGKILL),
    ("stages/teacher.json", 1.0, signal.SIGKILL),
    ("exchanges/gateway.jsonl", 0.6, signal.SIGKILL),
    ("signals/served/00000.signals", 0.02, signal.SIGKILL),
    ("metrics/student.jsonl", 1.0, signal.SIGKILL),
    ("metrics/own-student.jsonl", 1.0, signal.SIGINT),
    ("stages/control.json", 1.0, signal.SIGKILL),
    ("exchanges/twins.jsonl", 0.8, signal.SIGKILL),
)


@pytest.fixture(scope="module")
def battered(workspace: Workspace) -> tuple[Path, list[Ended]]:
    """A run that was stopped again and again until it came to its end; and how each attempt ended."""
    delays, attempts = random.Random(0), []
    for file, most_s, kind in MOMENTS:
        process = workspace.start("run", "tiny.toml", "--runs", "battered")
        wait_for(lambda file=file: any(workspace.path("battered").glob(f"*/{file}")), process)  # type: ignore[misc]
        time.sleep(delays.uniform(0, most_s))
        process.send_signal(kind)
        attempts.append(ended(process))
    attempts.append(workspace.call("run", "tiny.toml", "--runs", "battered"))
    return workspace.only("battered"), attempts


def test_every_attempt_ended_as_it_was_told(battered: tuple[Path, list[Ended]]) -> None:
    _, attempts = battered
    codes = {signal.SIGKILL: -signal.SIGKILL, signal.SIGINT: 130}
    assert [a.code for a in attempts] == [*(codes[kind] for _, _, kind in MOMENTS), 0]


def test_ctrl_c_is_one_line_that_says_how_to_continue(battered: tuple[Path, list[Ended]]) -> None:
    _, attempts = battered
    (stopped,) = [a for a in attempts if a.code == 130]
    lines = [line for line in stopped.err.splitlines() if not line.startswith("warning: ")]
    assert lines == ["interrupted; the same command continues where it was"]
    assert stopped.out == ""


def test_nothing_is_said_but_what_was_repaired(battered: tuple[Path, list[Ended]]) -> None:
    _, attempts = battered
    assert all(line.startswith("warning: ") for line in attempts[-1].err.splitlines())


def test_no_exchange_is_lost_or_doubled(battered: tuple[Path, list[Ended]], finished: Path) -> None:
    folder, _ = battered
    assert exchanges(folder) == exchanges(finished)


def test_the_verdicts_are_those_of_a_run_that_nobody_stopped(
    battered: tuple[Path, list[Ended]], finished: Path
) -> None:
    folder, _ = battered
    assert_same(verdicts(folder), verdicts(finished))


def test_a_capture_killed_within_a_record_continues_to_the_same_bytes(workspace: Workspace, finished: Path) -> None:
    folder = workspace.copy("runs", "torn-signals")
    shard = folder / "signals" / "served" / "00000.signals"
    for stage in ("signals", "own-student", "fidelity", "prove"):
        (folder / "stages" / f"{stage}.json").unlink()
    whole = shard.read_bytes()
    shard.write_bytes(whole[: len(whole) // 2])
    workspace.run("torn-signals")
    assert shard.read_bytes() == whole
    assert_same(verdicts(folder), verdicts(finished))


def test_nothing_is_left_behind(battered: tuple[Path, list[Ended]], finished: Path) -> None:
    folder, _ = battered
    assert leftovers(folder) == []
    names = [{str(f.relative_to(run)) for f in run.rglob("*")} for run in (folder, finished)]
    assert names[0] == names[1]


def test_the_training_steps_are_those_of_a_run_that_nobody_stopped(
    battered: tuple[Path, list[Ended]], finished: Path
) -> None:
    folder, _ = battered
    steps = [(run / "metrics.jsonl").read_text().splitlines() for run in (folder, finished)]
    assert len(steps[0]) == len(steps[1])
