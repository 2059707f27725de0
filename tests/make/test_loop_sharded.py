"""Two processes under torchrun with FSDP2 over gloo beside one: the same losses, the same weights."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from spiritsafe.make.loop import layers
from spiritsafe.make.loop.ranks import Ranks
from spiritsafe.make.packing import pack
from tests.make import trains
from tests.tiny import write_tiny

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All cases, run in two processes under torchrun."""
    place = tmp_path_factory.mktemp("two")
    write_tiny(place / "tiny", scale=1.5)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    script = [str(ROOT / "tests" / "make" / "trains.py"), str(place), "two", *trains.CASES]
    given = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(map(str, (ROOT / "src", ROOT)))}
    done = subprocess.run([*command, *script], env=given, capture_output=True, text=True, timeout=170, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return place


@pytest.fixture(autouse=True)
def transformers_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    """What FSDP2 shards is transformers' layers: one process computes with those too, so that sums are the same."""
    monkeypatch.setattr(layers, "runs", lambda *_: False)


# In bfloat16 the sums over rows are rounded elsewhere: equal up to that only.
@pytest.mark.parametrize(("case", "most"), [("all", 1e-5), ("above-cut", 1e-5), ("lora", 1e-5), ("average", 1e-2)])
def test_two_processes_give_the_loss_curve_of_one(folder: Path, case: str, most: float) -> None:
    """Weights to 1e-4 at a rate of 3e-3: the head rounds by tile, and AdamW makes a step of a gradient near 0."""
    trains.run(folder, "one", case)
    one, two = (
        [json.loads(x) for x in (folder / f"{n}-{case}.jsonl").read_text().splitlines()] for n in ("one", "two")
    )
    assert [m["loss"] for m in two] == pytest.approx([m["loss"] for m in one], rel=most)
    for mine, theirs in zip(torch.load(folder / f"one-{case}.pt"), torch.load(folder / f"two-{case}.pt"), strict=True):
        torch.testing.assert_close(mine, theirs, atol=max(most, 1e-4), rtol=most)


def test_a_checkpoint_of_two_processes_is_continued_by_one(folder: Path) -> None:
    shutil.copy(folder / "two-all.checkpoint", folder / "continued-all.checkpoint")
    trains.run(folder, "continued", "all")
    for mine, theirs in zip(torch.load(folder / "continued-all.pt"), torch.load(folder / "two-all.pt"), strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-4, rtol=1e-5)


def test_an_on_policy_method_refuses_two_processes(folder: Path) -> None:
    said = (folder / "two-on-policy.error").read_text()
    assert said == "on-policy: the student writes its own samples, which needs one process; leave torchrun"


@pytest.mark.parametrize("num", [1, 2, 3, 5])
def test_every_row_counts_in_one_process_and_all_have_equally_many(num: int) -> None:
    rows = pack(trains.data(), tokens_per_row=40)
    shares = [Ranks(rank, num).share(rows) for rank in range(num)]
    assert len({len(share) for share in shares}) == 1
    counted = [row.borders for share in shares for row, counts in share if counts]
    assert sorted(counted) == sorted(row.borders for row in rows)
