"""Runs killed by SIGKILL in the middle of a step end, once continued, as those that were never disturbed."""

import multiprocessing
import random
import signal
from pathlib import Path

import pytest
import torch

from tests.make import trains
from tests.tiny import write_tiny

FORK = multiprocessing.get_context("fork")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the runs leave their files."""
    place = tmp_path_factory.mktemp("killed")
    write_tiny(place / "tiny", scale=1.5)
    return place


def process(folder: Path, name: str, case: str, kill: int | None = None) -> int | None:
    """Train in a process of its own; returns how it ended."""
    child = FORK.Process(target=trains.run, args=(folder, name, case, kill))
    child.start()
    child.join(60)
    return child.exitcode


@pytest.mark.slow
@pytest.mark.parametrize("case", trains.CASES)
def test_a_run_killed_again_and_again_ends_with_the_same_bits(folder: Path, case: str) -> None:
    assert process(folder, "whole", case) == 0
    for step in sorted(random.Random(case).sample(range(1, 9), 3)):
        assert process(folder, "killed", case, step) == -signal.SIGKILL
    assert process(folder, "killed", case) == 0
    whole, killed = (torch.load(folder / f"{name}-{case}.pt") for name in ("whole", "killed"))
    assert all(torch.equal(a, b) for a, b in zip(whole, killed, strict=True))
    told = [(folder / f"{name}-{case}.jsonl").read_text().count("\n") for name in ("whole", "killed")]
    assert told[1] < told[0], "the last process began where a checkpoint was"
