"""A training step from stored signals beside TRL's GKD (teacher in memory) and SFT: tokens a second, end to end.

A student of 10 of SmolLM2-135M's 30 layers, all of it trained by AdamW; a step is the same 8 sequences of 128
to 512 tokens for all, an eighth of each being prompt. Ours reads a top-50 teacher, GKD runs the teacher
(lmbda 0), SFT has none. Each peer without gradient checkpointing and in the faster of float32 and bfloat16 autocast,
which is tried where the processor multiplies it; SFT packed, which on processors masks attention densely, and padded.
Each run is two steps of which the second counts, runs alternate. `limit`: the products alone at the measured peak, 6
operations a weight and token, the head's for answer tokens only; attention left out. Not covered: reading from disk, a
GPU.
"""

import copy
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from importlib import import_module
from typing import Any

import torch
import transformers

from bench._limits import best_peak_gflops
from bench._schema import Row, main, note
from spiritsafe.make.loop import train
from spiritsafe.make.methods import Cached
from spiritsafe.make.objective import Objective
from spiritsafe.make.prune import prune
from spiritsafe.make.samples import Sample
from spiritsafe.make.signals.kinds import SparseSignal
from spiritsafe.models import open_model
from spiritsafe.native import has_bfloat16
from spiritsafe.recipe import TrainPart

LENGTHS, LAYERS, TOP, STEPS, RUNS = (128, 512, 300, 200, 400, 256, 350, 220), 10, 50, 2, 5
TRL, CASE = "trl 1.16.0", f"{LAYERS} layers"
Step = Callable[[], float]


def measure(seed: int) -> list[Row]:
    """One row a peer."""
    transformers.utils.logging.set_verbosity_error()
    local: Any = open_model("smollm2")
    start = prune(local.model, (*range(LAYERS // 2), *range(30 - LAYERS // 2, 30)))
    samples = some_samples(seed)
    ours: Step = partial(our_step_s, start, samples, seed)
    peers: dict[str, Callable[..., float]] = {
        "gkd": partial(gkd_step_s, start, local, samples),
        "sft packed": partial(sft_step_s, start, local, samples, packing=True),
        "sft padded": partial(sft_step_s, start, local, samples, packing=False),
    }
    chosen = {name: faster(name, peer) for name, peer in peers.items()}
    spent: dict[str, list[float]] = {name: [] for name in ("ours", *chosen)}
    for number in range(RUNS):
        for name, step in {"ours": ours, **chosen}.items():
            spent[name].append(step())
        note(f"run {number + 1}: " + ", ".join(f"{n} {s[-1]:.2f} s" for n, s in spent.items()))
    return [row_of(spent["ours"], spent[name], f"{TRL} {name}", limit(start, samples)) for name in chosen]


def some_samples(seed: int) -> list[Sample]:
    """Random tokens: how fast a step is does not depend on which."""
    source = torch.Generator().manual_seed(seed)

    def some(num: int) -> tuple[int, ...]:
        return tuple(torch.randint(5, 49_000, (num,), generator=source).tolist())

    return [Sample(some(length // 8), some(length - length // 8)) for length in LENGTHS]


def our_step_s(start: Any, samples: Sequence[Sample], seed: int) -> float:
    """Seconds of the last of a few steps."""
    settings = TrainPart(train="all", epochs=STEPS, batch=len(samples), diagnose_every=0)
    source = torch.Generator().manual_seed(seed)

    def signal_of(i: int) -> SparseSignal:
        num = len(samples[i].answer_ids)
        ids = torch.rand(num, 49_000, generator=source).topk(TOP).indices if not signals.get(i) else None
        if ids is not None:
            probs = 0.95 * torch.rand(num, TOP, generator=source).softmax(-1)
            signals[i] = SparseSignal(ids, probs, 1 - probs.sum(-1))
        return signals[i]

    signals: dict[int, SparseSignal] = {}
    for i in range(len(samples)):
        signal_of(i)
    method = Cached(samples, signal_of, Objective(), settings, seed=seed, source="random")
    told: list[float] = []
    train(copy.deepcopy(start), method, settings, seed=seed, on_step=lambda m: told.append(float(m["elapsed_s"])))
    return told[-1]


def gkd_step_s(start: Any, local: Any, samples: Sequence[Sample], *, half: bool) -> float:
    """Seconds of TRL's step with the teacher in memory; forward KL at the same tokens."""
    gkd = import_module("trl.experimental.gkd")
    settings = partial(gkd.GKDConfig, lmbda=0.0, beta=0.0, temperature=1.0, per_device_train_batch_size=len(samples))
    teacher = copy.deepcopy(local.model).to(torch.bfloat16 if half else torch.float32)
    pad = partial(padded, pad_id=local.pad_id)
    made = partial(gkd.GKDTrainer, copy.deepcopy(start), teacher_model=teacher, data_collator=pad)
    return trl_step_s(made, settings, local.tokenizer, [as_row(s) for s in samples], half=half)


def sft_step_s(start: Any, local: Any, samples: Sequence[Sample], *, half: bool, packing: bool) -> float:
    """Seconds of TRL's step on text alone: rows of at most 1,024 tokens, or one padded batch."""
    trl = import_module("trl")
    rows = {"packing": True, "max_length": 1024, "per_device_train_batch_size": 1, "gradient_accumulation_steps": 3}
    settings = partial(trl.SFTConfig, **(rows if packing else {"per_device_train_batch_size": len(samples)}))
    made = partial(trl.SFTTrainer, copy.deepcopy(start))
    return trl_step_s(made, settings, local.tokenizer, [as_row(s) for s in samples], half=half)


def trl_step_s(made: Any, settings: Any, tokenizer: Any, rows: list[dict[str, Any]], *, half: bool) -> float:
    """Seconds of the last of a few steps of a trainer; each step sees all rows once."""
    datasets = import_module("datasets")
    clock = Clock()
    with tempfile.TemporaryDirectory() as folder:
        given = settings(
            output_dir=folder,
            max_steps=STEPS,
            num_train_epochs=STEPS,
            use_cpu=True,
            bf16=half,
            gradient_checkpointing=False,
            report_to="none",
            save_strategy="no",
            disable_tqdm=True,
            logging_strategy="no",
        )
        trainer = made(args=given, train_dataset=datasets.Dataset.from_list(rows), processing_class=tokenizer)
        trainer.add_callback(clock)
        trainer.train()
    return clock.steps_s[-1]


class Clock(transformers.TrainerCallback):  # type: ignore[misc]
    """Seconds of each optimiser step."""

    def __init__(self) -> None:
        self.steps_s: list[float] = []
        self._began = 0.0

    def on_step_begin(self, args: Any, state: Any, control: Any, **others: Any) -> None:
        """A step's data are there."""
        self._began = time.perf_counter()

    def on_step_end(self, args: Any, state: Any, control: Any, **others: Any) -> None:
        """The weights are new."""
        self.steps_s.append(time.perf_counter() - self._began)


def as_row(sample: Sample) -> dict[str, Any]:
    """A sample as TRL's tokenised row."""
    prompt, answer = list(sample.prompt_ids), list(sample.answer_ids)
    return {"input_ids": prompt + answer, "labels": [-100] * len(prompt) + answer}


def padded(rows: Sequence[dict[str, Any]], *, pad_id: int) -> dict[str, torch.Tensor]:
    """One batch; GKD looks at its prompts only when the student writes."""
    width = max(len(row["input_ids"]) for row in rows)

    def filled(key: str, value: int) -> torch.Tensor:
        return torch.tensor([row[key] + [value] * (width - len(row[key])) for row in rows])

    ids = filled("input_ids", pad_id)
    ones = torch.tensor([[1] * len(r["input_ids"]) + [0] * (width - len(r["input_ids"])) for r in rows])
    return {"input_ids": ids, "attention_mask": ones, "labels": filled("labels", -100), "prompts": ids[:, :1]}


def faster(name: str, peer: Callable[..., float]) -> Step:
    """The peer in the dtype in which a step of it takes less time; float32 where no bfloat16 is multiplied."""
    if not has_bfloat16():
        return partial(peer, half=False)
    spent = {half: peer(half=half) for half in (True, False)}
    note(f"{TRL} {name}, s a step: bfloat16 {spent[True]:.2f}, float32 {spent[False]:.2f}")
    return partial(peer, half=spent[True] < spent[False])


def limit(start: Any, samples: Sequence[Sample]) -> float:
    """Tokens a second of the products alone."""
    tokens, answers = sum(s.tokens for s in samples), sum(len(s.answer_ids) for s in samples)
    head = start.lm_head.weight.numel()
    body = sum(w.numel() for w in start.parameters()) - head
    return float(tokens * best_peak_gflops() * 1e9 / (6 * (body * tokens + head * answers)))


def row_of(mine: Sequence[float], theirs: Sequence[float], peer: str, most: float) -> Row:
    """Medians as tokens a second."""
    total = sum(LENGTHS)
    own, their = (total / statistics.median(x) for x in (mine, theirs))
    return Row(CASE, "tokens_per_s", own, peer, their, own / their, most, RUNS, (total / max(mine), total / min(mine)))


if __name__ == "__main__":
    main("train_cached", measure)
