"""Several processes that train one model, started by `torchrun`: who this one is, and its share of the work."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist

from spiritsafe.make.samples import Packed


@dataclass(frozen=True)
class Ranks:
    """This process is number `rank` of `num`."""

    rank: int = 0
    num: int = 1

    def share(self, rows: Sequence[Packed]) -> list[tuple[Packed, bool]]:
        """This process's rows; every process has equally many, the last ones may not count."""
        mine = [(row, True) for row in rows[self.rank :: self.num]]
        missing = -(-len(rows) // self.num) - len(mine)
        return mine + [(rows[-1], False)] * missing

    def total(self, value: float, device: torch.device) -> float:
        """The sum of all processes' values."""
        if self.num == 1:
            return value
        tensor = torch.tensor(value, dtype=torch.float64, device=device)
        dist.all_reduce(tensor)
        return float(tensor)


def this_rank() -> Ranks:
    """Who this process is; the only one where no others have been joined."""
    if not (dist.is_available() and dist.is_initialized()):
        return Ranks()
    return Ranks(dist.get_rank(), dist.get_world_size())


@contextmanager
def joined() -> Iterator[Ranks]:
    """Join the processes that `torchrun` started, over gloo on processors and nccl on GPUs; alone without it."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield Ranks()
        return
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    try:
        yield this_rank()
    finally:
        dist.destroy_process_group()
