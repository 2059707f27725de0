"""Held-out KL to the teacher after equal wall-clock: our training from stored signals beside TRL's GKD and SFT.

A student of 10 of SmolLM2-135M's 30 layers (left out is the block whose loss costs least), all of it trained, learns
for `SECONDS` from the teacher's answers to prompts of its own, 8 a step, AdamW at one constant rate for all. Ours
reads a top-50 cache, and the seconds in which the teacher filled it are taken off its time; GKD (lmbda 0, forward
KL) has the teacher in memory, SFT needs none. Each peer in the faster of bfloat16 autocast and float32 (in float32
where the processor has no bfloat16 products), without gradient checkpointing. The clock runs from the first step
on, so loading counts for nobody. `NUM_SEEDS` orders of the data each, in turn.

Rows: the median of the seeds, `spread` their smallest and largest; theirs in the case. The difference is paired on
the held-out prompts, a mean over seeds, with its 95 % interval as `spread` and the prompts as `n`.
Not covered: other learning rates, longer trainings, a GPU.
"""

import copy
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
import transformers

from bench._schema import Row, main, note
from bench.train_cached import as_row, faster, gkd_step_s, padded, sft_step_s
from spiritsafe.evidence import compare_sums
from spiritsafe.make.batches import samples_of
from spiritsafe.make.loop import Budget, train
from spiritsafe.make.methods import from_cache
from spiritsafe.make.prune import choose_cut, prune
from spiritsafe.make.samples import Sample
from spiritsafe.make.signals import Keep, fill, open_cache, tokenizer_digest
from spiritsafe.measure.fidelity import fidelity, reference
from spiritsafe.models import ask, open_model
from spiritsafe.models.local import LocalModel
from spiritsafe.prompts import synthesise
from spiritsafe.recipe import PromptsPart, TrainPart
from spiritsafe.record import Exchange, Sampling

SECONDS, NUM_SEEDS, LAYERS, RATE, BATCH = 120.0, 3, 10, 2e-4, 8
TRAIN, HELDOUT, ANSWER_TOKENS = 128, 32, 48
PEER = "trl 1.16.0"
ENDLESS = 10_000  # epochs: the clock ends a training, not the data


@dataclass(frozen=True)
class Data:
    """The teacher, its answers to learn from and to measure on, and what it says of the latter."""

    local: LocalModel
    answers: list[Exchange]
    samples: list[Sample]
    heldout: list[Exchange]
    theirs: list[Any]


def measure(seed: int) -> list[Row]:
    """Two rows a peer."""
    transformers.utils.logging.set_verbosity_error()
    local: Any = open_model("smollm2", batch=128)
    data = some_data(local, seed)
    pairs = [local.pair(e) for e in data.answers[:6]]
    start = prune(local.model, choose_cut(local.model, pairs, num_layers=LAYERS, pad_id=local.pad_id).keep)
    few = data.samples[:BATCH]
    half = {"gkd": half_is_faster("gkd", partial(gkd_step_s, start, local, few))}
    half["sft"] = half_is_faster("sft", partial(sft_step_s, start, local, few, packing=False))
    ways: dict[str, Callable[[int], Any]] = {
        "ours": partial(our_student, start, data),
        "gkd": partial(trl_student, "gkd", start, data, half["gkd"]),
        "sft": partial(trl_student, "sft", start, data, half["sft"]),
    }
    note(f"untrained: {mean(sums_of(start, data), data):.4f} nats a token")
    found: dict[str, list[tuple[float, ...]]] = {name: [] for name in ways}
    for number in range(NUM_SEEDS):
        for name, way in ways.items():
            found[name].append(sums_of(way(seed + number), data))
        told = ", ".join(f"{name} {mean(sums[-1], data):.4f}" for name, sums in found.items())
        note(f"seed {seed + number}, held-out KL in nats a token: {told}")
    return [row for peer in ("gkd", "sft") for row in rows_of(found["ours"], found[peer], peer, data, seed)]


def half_is_faster(name: str, step: Callable[..., float]) -> bool:
    """Whether a peer takes less time in bfloat16: tried where the processor multiplies it."""
    chosen: Any = faster(name, step)
    return bool(chosen.keywords["half"])


def some_data(local: LocalModel, seed: int) -> Data:
    """Prompts that the teacher writes itself, and its answers."""
    part = PromptsPart(num_train=TRAIN, num_heldout=HELDOUT)

    def generate(num: int, sampling: Sampling) -> list[Exchange]:
        return local.generate([replace(r, open_turn="user") for r in ask([()], sampling, n=num, purpose="synthesise")])

    prompts = synthesise(generate, part, seed=seed)
    sampling = Sampling(max_tokens=ANSWER_TOKENS, seed=seed)
    answers, heldout = (
        local.generate(ask([p.messages for p in prompts if p.split == split], sampling, purpose=split))
        for split in ("train", "heldout")
    )
    note(f"{len(answers)} answers of {sum(len(e.token_ids or ()) for e in answers)} tokens, {len(heldout)} held out")
    return Data(local, answers, samples_of(map(local.pair, answers)), heldout, reference(local, heldout))


def our_student(start: Any, data: Data, seed: int) -> Any:
    """A student from a cache that is filled anew, which counts."""
    settings = TrainPart(
        train="all", epochs=ENDLESS // 10, batch=BATCH, learning_rate=RATE, warmup=0.0, schedule="constant",
        diagnose_every=0, checkpoint_every=ENDLESS,
    )  # fmt: skip
    model = copy.deepcopy(start)
    with tempfile.TemporaryDirectory() as name:
        began = time.perf_counter()
        fill(data.local, data.answers, Path(name), keep=Keep("head", 50), seed=seed)
        before_s = time.perf_counter() - began
        cache = open_cache(
            Path(name),
            teacher_digest=data.local.digest,
            tokenizer_digest=tokenizer_digest(data.local.tokenizer),
            exchanges=data.answers,
        )
        method = from_cache(cache, [e.id for e in data.answers], data.samples, settings, seed=seed)
        budget = Budget(seconds=SECONDS, before_s=before_s)
        spent = train(model, method, settings, seed=seed, budget=budget)
    note(f"ours: {spent.steps} steps in {spent.wall_s:.1f} s after {before_s:.1f} s of the teacher")
    return model


def trl_student(kind: str, start: Any, data: Data, half: bool, seed: int) -> Any:
    """A student of one of TRL's trainers, stopped by the clock."""
    model, clock = copy.deepcopy(start), Stop()
    gkd, trl = import_module("trl.experimental.gkd"), import_module("trl")
    pad = partial(padded, pad_id=data.local.pad_id)
    rows = import_module("datasets").Dataset.from_list([as_row(s) for s in data.samples])
    with tempfile.TemporaryDirectory() as folder:
        if kind == "gkd":
            settings = gkd.GKDConfig(lmbda=0.0, beta=0.0, temperature=1.0, **common(folder, half, seed))
            teacher = copy.deepcopy(data.local.model).to(torch.bfloat16 if half else torch.float32)
            made = partial(gkd.GKDTrainer, model, teacher_model=teacher, data_collator=pad)
        else:
            settings = trl.SFTConfig(**common(folder, half, seed))
            made = partial(trl.SFTTrainer, model, data_collator=lambda batch: without_prompts(pad(batch)))
        trainer = made(args=settings, train_dataset=rows, processing_class=data.local.tokenizer)
        trainer.add_callback(clock)
        trainer.remove_callback(transformers.PrinterCallback)  # it writes to stdout
        trainer.train()
    note(f"{PEER} {kind}: {clock.steps} steps in {clock.spent_s:.1f} s, {'bfloat16' if half else 'float32'}")
    return model


def common(folder: str, half: bool, seed: int) -> dict[str, Any]:
    """What both trainers are told: our optimiser's settings."""
    return {
        "output_dir": folder,
        "seed": seed,
        "per_device_train_batch_size": BATCH,
        "num_train_epochs": ENDLESS,
        "learning_rate": RATE,
        "lr_scheduler_type": "constant",
        "adam_beta2": 0.95,
        "max_grad_norm": 1.0,
        "use_cpu": True,
        "bf16": half,
        "gradient_checkpointing": False,
        "report_to": "none",
        "save_strategy": "no",
        "disable_tqdm": True,
        "logging_strategy": "no",
    }


def without_prompts(batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """A batch as a model takes it."""
    return {key: value for key, value in batch.items() if key != "prompts"}


class Stop(transformers.TrainerCallback):  # type: ignore[misc]
    """Ends a training at the first step after its seconds, counted from the first step's beginning."""

    def __init__(self) -> None:
        self.steps, self.spent_s, self._began = 0, 0.0, 0.0

    def on_step_begin(self, args: Any, state: Any, control: Any, **others: Any) -> None:
        """The first step starts the clock."""
        self._began = self._began or time.perf_counter()

    def on_step_end(self, args: Any, state: Any, control: Any, **others: Any) -> None:
        """The weights are new."""
        self.steps, self.spent_s = self.steps + 1, time.perf_counter() - self._began
        control.should_training_stop = self.spent_s >= SECONDS


def sums_of(model: Any, data: Data) -> tuple[float, ...]:
    """KL to the teacher in nats, summed over each held-out answer."""
    model = model.float().eval()
    return fidelity(data.theirs, LocalModel("student", "", model, data.local.tokenizer), data.heldout).kl


def mean(sums: Sequence[float], data: Data) -> float:
    """Nats a token."""
    return sum(sums) / sum(len(theirs) for theirs in data.theirs)


def rows_of(
    ours: list[tuple[float, ...]], theirs: list[tuple[float, ...]], peer: str, data: Data, seed: int
) -> list[Row]:
    """Medians over seeds, and the difference paired on the prompts."""
    mine, their = sorted(mean(s, data) for s in ours), sorted(mean(s, data) for s in theirs)
    case = (
        f"{LAYERS} layers, {SECONDS:.0f} s, cached KD beside {peer}, whose seeds gave {their[0]:.4f} to {their[-1]:.4f}"
    )
    own, other = statistics.median(mine), statistics.median(their)
    first, second = ([statistics.fmean(v) for v in zip(*sums, strict=True)] for sums in (ours, theirs))
    found = compare_sums(first, second, [len(t) for t in data.theirs], seed=seed)
    return [
        Row(case, "heldout_kl", own, f"{PEER} {peer}", other, other / own, None, NUM_SEEDS, (mine[0], mine[-1])),
        Row(
            case,
            "heldout_kl_difference",
            float(found.difference),
            n=found.n,
            spread=(float(found.low), float(found.high)),
        ),
    ]


if __name__ == "__main__":
    main("quality", measure)
