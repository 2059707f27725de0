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
    done = subprocess.run([*command, *script], env=given, capture_output=True, text=True, timeout=1800, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return place


@pytest.fixture(autouse=True)
def transformers_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    """What FSDP2 shards is transformers' layers: one process computes with those too, so that sums are the same."""
    monkeypatch.setattr(layers, "runs", lambda *_: False)


@pytest.mark.slow
@pytest.mark.parametrize("case", ["all", "above-cut", "lora"])
def test_two_processes_give_the_loss_curve_of_one(folder: Path, case: str) -> None:
    """Weights to 1e-4 at a rate of 3e-3: the head rounds by tile, and AdamW makes a step of a gradient near 0."""
    trains.run(folder, "one", case)
    assert losses(folder, "two", case) == pytest.approx(losses(folder, "one", case), rel=1e-5)
    for mine, theirs in zip(weights(folder, "one", case), weights(folder, "two", case), strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-4, rtol=1e-5)


def test_in_bfloat16_two_processes_are_as_near_to_one_as_that_is_to_float32(folder: Path) -> None:
    """Sums over rows are rounded elsewhere, and training carries each rounding on."""
    trains.run(folder, "one", "average")
    trains.run(folder, "exact", "average", dtype="float32")
    one, two, exact = (torch.tensor(losses(folder, name, "average")) for name in ("one", "two", "exact"))
    assert (one - two).abs().mean() < 2 * (one - exact).abs().mean() < 0.02 * exact.mean()
    one, two, exact = (torch.cat([w.flatten() for w in weights(folder, n, "average")]) for n in ("one", "two", "exact"))
    assert (one - two).norm() < 2 * (one - exact).norm() < 0.2 * exact.norm()


def losses(folder: Path, name: str, case: str) -> list[float]:
    """The loss curve of a run."""
    return [json.loads(line)["loss"] for line in (folder / f"{name}-{case}.jsonl").read_text().splitlines()]


def weights(folder: Path, name: str, case: str) -> list[torch.Tensor]:
    """What a run trained."""
    found: list[torch.Tensor] = torch.load(folder / f"{name}-{case}.pt")
    return found


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
