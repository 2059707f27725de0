"""Training runs in processes of their own: `python trains.py FOLDER NAME CASE...`, alone or under torchrun.

Reads the tiny model in FOLDER/tiny; writes NAME-CASE.pt (the trained weights), NAME-CASE.jsonl (metrics), and
a checkpoint as it goes.
"""

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import torch

from spiritsafe.errors import SpiritsafeError
from spiritsafe.make.loop import joined, this_rank, train
from spiritsafe.make.methods import Text
from spiritsafe.make.samples import Packed, Sample, Target
from spiritsafe.models.local import load_parts
from spiritsafe.recipe import TrainPart

BASE = {"epochs": 3, "batch": 6, "learning_rate": 3e-3, "checkpoint_every": 2, "tokens_per_row": 32, "dtype": "float32"}
CASES: dict[str, dict[str, Any]] = {
    "all": {"train": "all"},
    "above-cut": {},
    "lora": {"train": "all", "lora": {"rank": 4}},
    "average": {"train": "all", "average": 0.8, "dtype": "bfloat16", "tokens_per_step": 40, "batch": None},
    "on-policy": {"train": "all"},
}


def data(num: int = 22) -> list[Sample]:
    """Random samples of several lengths."""
    source = torch.Generator().manual_seed(0)

    def some(most: int) -> tuple[int, ...]:
        size = int(torch.randint(1, most, (1,), generator=source))
        return tuple(torch.randint(4, 27, (size,), generator=source).tolist())

    return [Sample(some(9), some(14)) for _ in range(num)]


class OnPolicy:
    """The student's own greedy answers."""

    name, on_policy, steps, digest = "on-policy", True, 9, "fixed prompts"

    def __init__(self, student: Any, settings: TrainPart) -> None:
        self.student, self.prompts = student, Text(data(), settings, seed=1)

    def samples(self, step: int) -> list[Sample]:
        """Each given prompt with what the student says now, 6 tokens."""
        return [Sample(s.prompt_ids, self._answer(s.prompt_ids)) for s in self.prompts.samples(step)]

    def targets(self, packed: Packed) -> list[Target]:
        """Its own tokens."""
        return self.prompts.targets(packed)

    def _answer(self, prompt: tuple[int, ...]) -> tuple[int, ...]:
        ids = list(prompt)
        with torch.no_grad():
            for _ in range(6):
                ids.append(int(self.student(torch.tensor([ids])).logits[0, -1].argmax()))
        return tuple(ids[len(prompt) :])


class Dies:
    """Any method whose process is killed when a step's rows are half done."""

    def __init__(self, method: Any, step: int) -> None:
        self._method, self._last, self._now = method, step, -1
        self.name, self.steps = method.name, method.steps
        self.digest, self.on_policy = method.digest, method.on_policy

    def samples(self, step: int) -> Any:
        """As the method's."""
        self._now = step
        return self._method.samples(step)

    def targets(self, packed: Packed) -> Any:
        """As the method's, unless the time has come."""
        if self._now == self._last:
            os.kill(os.getpid(), signal.SIGKILL)
        return self._method.targets(packed)


def run(folder: Path, name: str, case: str, kill: int | None = None, **changed: Any) -> None:
    """Train the tiny model and write what came out; under torchrun the first process writes."""
    torch.set_num_threads(1)
    model, _ = load_parts(folder / "tiny")
    settings = TrainPart.model_validate({**BASE, **CASES[case], **changed})
    method: Any = OnPolicy(model, settings) if case == "on-policy" else Text(data(), settings, seed=1)
    told: list[dict[str, float | int]] = []
    train(
        model,
        method if kill is None else Dies(method, kill),
        settings,
        seed=3,
        first_trained=2,
        checkpoint=folder / f"{name}-{case}.checkpoint",
        on_step=told.append,
    )
    if this_rank().rank == 0:
        torch.save([w.detach() for w in model.parameters()], folder / f"{name}-{case}.pt")
        (folder / f"{name}-{case}.jsonl").write_text("".join(json.dumps(m) + "\n" for m in told))


def main(folder: Path, name: str, cases: list[str]) -> None:
    """Several runs one after the other, between processes that are joined once; errors go to NAME-CASE.error."""
    with joined():
        for case in cases:
            try:
                run(folder, name, case)
            except SpiritsafeError as error:
                (folder / f"{name}-{case}.error").write_text(str(error))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3:])
