"""On-policy distillation beside TRL's DistillationTrainer: answer tokens a second of generate + score + update.

A student of 10 of SmolLM2-135M's 30 layers, all of it trained, writes answers to 16 prompts of equal length,
the whole model (bfloat16 where the processor has it) scores them; reverse KL, AdamW. Both ignore end tokens;
TRL without gradient checkpointing, in the faster of bfloat16 autocast and float32. Each run is two steps of
which the second counts, runs alternate. `limit`: the products alone at the measured peak, 2 operations a
weight for each token that is written, scored, or read by the student's forward, 4 for its backward.
Not covered: shared prompts, several processes, a GPU.
"""

import copy
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from importlib import import_module
from typing import Any

import torch
import transformers

from bench._limits import gemm_peak_gflops
from bench._schema import Row, main, note
from spiritsafe.make.loop.train import train
from spiritsafe.make.methods.on_policy import Gkd, student
from spiritsafe.make.objective import Objective
from spiritsafe.make.prune import prune
from spiritsafe.make.rollout.engine import Rollout, has_bfloat16
from spiritsafe.make.samples import Sample
from spiritsafe.models import open_model
from spiritsafe.recipe import TrainPart

PROMPTS, PROMPT_TOKENS, LENGTHS, LAYERS, STEPS, RUNS = 16, 48, (32, 128), 10, 2, 5
PEER = "trl 1.16.0"
WORDS = "the sea is wide and calm while a small boat goes home with fish for all who wait there"


def measure(seed: int) -> list[Row]:
    """One row for each length of the answers."""
    transformers.utils.logging.set_verbosity_error()
    local: Any = open_model("smollm2")
    teacher = copy.deepcopy(local.model).to(torch.bfloat16 if has_bfloat16() else torch.float32)
    start = prune(local.model, (*range(LAYERS - 1), len(local.model.model.layers) - 1))
    texts = some_prompts(local.tokenizer)
    return [compare(start, teacher, local.tokenizer, texts, seed, length=length) for length in LENGTHS]


def compare(start: Any, teacher: Any, tokenizer: Any, texts: list[str], seed: int, *, length: int) -> Row:
    """Both trainers in turn, TRL in its faster type."""
    ours = partial(our_step_s, start, teacher, tokenizer, texts, seed, length=length)
    theirs = {half: partial(trl_step_s, start, teacher, tokenizer, texts, seed, length, half) for half in (True, False)}
    spent = {half: run() for half, run in theirs.items()}
    note(f"{PEER}, {length} tokens, s a step: bfloat16 {spent[True]:.1f}, float32 {spent[False]:.1f}")
    mine, their = in_turn(ours, theirs[min(spent, key=lambda half: spent[half])])
    return row_of(mine, their, products_at_most(start, teacher, length), length)


def some_prompts(tokenizer: Any) -> list[str]:
    """Different texts of `PROMPT_TOKENS` tokens each."""
    words = WORDS.split()
    texts = []
    for i in range(PROMPTS):
        turned = words[i:] + words[:i]
        ids = tokenizer(" ".join(turned * 8))["input_ids"][:PROMPT_TOKENS]
        text = tokenizer.decode(ids)
        assert tokenizer(text)["input_ids"] == ids
        texts.append(text)
    return texts


def our_step_s(start: Any, teacher: Any, tokenizer: Any, texts: list[str], seed: int, *, length: int) -> float:
    """Seconds of our last step."""
    model, spent = copy.deepcopy(start), []
    rollout = Rollout(model, (), slots=PROMPTS, capacity=PROMPT_TOKENS + length)
    settings = TrainPart(
        epochs=STEPS, batch=PROMPTS, train="all", learning_rate=1e-6, diagnose_every=0, checkpoint_every=1000
    )
    samples = [Sample(tuple(tokenizer(text)["input_ids"]), (2,)) for text in texts]
    method = Gkd(
        samples,
        student(rollout, max_tokens=length),
        teacher,
        Objective("reverse-kl"),
        settings,
        seed=seed,
        own_share=1.0,
    )
    train(model, method, settings, seed=seed, on_step=lambda metrics: spent.append(checked(metrics, length)))
    return spent[-1]


def checked(metrics: dict[str, float | int], length: int) -> float:
    """Seconds of a step that learned from as many tokens as it should."""
    assert metrics["answer_tokens"] == PROMPTS * length
    return float(metrics["elapsed_s"])


def trl_step_s(start: Any, teacher: Any, tokenizer: Any, texts: list[str], seed: int, length: int, half: bool) -> float:
    """Seconds of TRL's last step."""
    from trl import DistillationConfig, DistillationTrainer

    data = import_module("datasets").Dataset.from_dict({"prompt": texts})
    clock = Clock()
    with tempfile.TemporaryDirectory() as folder:
        settings = DistillationConfig(
            output_dir=folder,
            per_device_train_batch_size=PROMPTS,
            num_train_epochs=STEPS,
            max_completion_length=length,
            generation_kwargs={"min_new_tokens": length},
            beta=1.0,
            bf16=half,
            use_cpu=True,
            gradient_checkpointing=False,
            report_to=[],
            save_strategy="no",
            disable_tqdm=True,
            logging_strategy="no",
            seed=seed,
        )
        trainer = DistillationTrainer(
            copy.deepcopy(start),
            teacher,
            settings,
            train_dataset=data,
            processing_class=tokenizer,
            callbacks=[clock],
        )
        trainer.remove_callback(transformers.PrinterCallback)  # it writes to stdout
        trainer.train()
    assert len(clock.ends_s) == STEPS
    return clock.ends_s[-1] - clock.ends_s[-2]


class Clock(transformers.TrainerCallback):  # type: ignore[misc]
    """When each step ended."""

    def __init__(self) -> None:
        self.ends_s: list[float] = []

    def on_step_end(self, *_: Any, **__: Any) -> None:
        """Note the time."""
        self.ends_s.append(time.perf_counter())


def in_turn(*runs: Callable[[], float]) -> list[list[float]]:
    """What `RUNS` calls of each gave, alternating."""
    found: list[list[float]] = [[] for _ in runs]
    for _ in range(RUNS):
        for place, run in enumerate(runs):
            found[place].append(run())
    return found


def products_at_most(start: Any, teacher: Any, length: int) -> float:
    """Answer tokens a second if nothing but products took time."""
    own, whole = (sum(int(w.numel()) for w in model.parameters()) for model in (start, teacher))
    trunk = own - int(start.get_input_embeddings().weight.numel())
    answers, prompts = PROMPTS * length, PROMPTS * PROMPT_TOKENS
    operations = 2 * own * answers + 2 * trunk * prompts  # written
    operations += 2 * whole * (answers + prompts)  # scored
    operations += 6 * own * answers + 6 * trunk * prompts  # learned
    return answers / (operations / gemm_peak_gflops(torch.bfloat16) / 1e9)


def row_of(mine: list[float], their: list[float], limit: float, length: int) -> Row:
    """Medians in answer tokens a second."""
    tokens = PROMPTS * length
    ours, theirs = tokens / statistics.median(mine), tokens / statistics.median(their)
    spread = (tokens / max(mine), tokens / min(mine))
    case = f"{LAYERS} layers, {PROMPTS} prompts of {PROMPT_TOKENS}, {length} new tokens"
    return Row(case, "tokens_per_s", ours, PEER, theirs, ours / theirs, limit, RUNS, spread)


if __name__ == "__main__":
    main("on_policy", measure)
