"""On-policy distillation beside TRL's DistillationTrainer: answer tokens a second of generate + score + update.

A student of 10 of SmolLM2-135M's 30 layers, all of it trained, writes answers, the whole model (bfloat16 where the
processor has it) scores them; reverse KL, AdamW. Once every prompt has one answer, and once chat prompts of
different length have four each, as advantages over a group need them. Both ignore end tokens; TRL without gradient
checkpointing, in the faster of float32 and bfloat16 autocast, which is tried where the processor multiplies it.
Each run is two steps of which the second counts, runs alternate. `limit`: the products alone at the measured peak,
2 operations a weight for each token that is written, scored, or read by the student's forward, 4 for its backward;
a prompt counts once however many answers it has, the head for answer tokens only.
Not covered: answers that end early, several processes, a GPU.
"""

import copy
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from typing import Any

import torch
import transformers

from bench._limits import best_peak_gflops
from bench._schema import Row, main, note
from spiritsafe.make.loop.train import train
from spiritsafe.make.methods.on_policy import Gkd, student
from spiritsafe.make.objective import Objective
from spiritsafe.make.prune import prune
from spiritsafe.make.rollout.engine import Rollout
from spiritsafe.make.samples import Sample
from spiritsafe.models import open_model
from spiritsafe.native import has_bfloat16
from spiritsafe.recipe import TrainPart

PROMPTS, PROMPT_TOKENS, LAYERS, STEPS, RUNS = 16, 48, 10, 2, 5
PEER = "trl 1.16.0"
WORDS = "the sea is wide and calm while a small boat goes home with fish for all who wait there"
ASKED = (
    "Why is the sky blue?",
    "A train leaves at 9:40 and arrives at 13:05. How long does it take? Show how you got there.",
    "Write a short letter to the city asking for a bench at the bus stop in our street. Say who needs it and why.",
    "Here is a list of words: boat, harbour, storm, lamp, keeper, fish, morning. Write a story for children of about"
    " eight years that uses all of them, is not sad, and ends with someone having breakfast. Keep sentences short.",
)


@dataclass(frozen=True)
class Case:
    """Texts of the prompts, equal ones side by side, and how many tokens each answer has."""

    name: str
    texts: tuple[str, ...]
    length: int


def measure(seed: int) -> list[Row]:
    """One row for each case."""
    transformers.utils.logging.set_verbosity_error()
    local: Any = open_model("smollm2")
    teacher = copy.deepcopy(local.model).to(torch.bfloat16 if has_bfloat16() else torch.float32)
    start = prune(local.model, (*range(LAYERS - 1), len(local.model.model.layers) - 1))
    found: list[Row] = []
    half = True
    for case in cases(local.tokenizer):
        ours = partial(our_step_s, start, teacher, local.tokenizer, case, seed)
        theirs = partial(trl_step_s, start, teacher, local.tokenizer, case, seed)
        if not found:
            half = faster(theirs)
        mine, their = in_turn(ours, partial(theirs, half))
        found.append(row_of(mine, their, start, teacher, local.tokenizer, case))
        note(f"{found[-1]}")
    return found


def cases(tokenizer: Any) -> list[Case]:
    """Prompts of one length with an answer each, and chat prompts with four."""
    texts = some_prompts(tokenizer)
    asked = [tokenizer.apply_chat_template([user_turn(q)], tokenize=False, add_generation_prompt=True) for q in ASKED]
    several = PROMPTS // len(ASKED)
    return [
        *(Case(f"{PROMPTS} prompts of {PROMPT_TOKENS}, {n} new tokens", texts, n) for n in (32, 128)),
        Case(
            f"{len(ASKED)} chat prompts, {several} answers each, 64 new tokens",
            tuple(text for text in asked for _ in range(several)),
            64,
        ),
    ]


def user_turn(text: str) -> dict[str, str]:
    """A message."""
    return {"role": "user", "content": text}


def some_prompts(tokenizer: Any) -> tuple[str, ...]:
    """Different texts of `PROMPT_TOKENS` tokens each."""
    words = WORDS.split()
    texts = []
    for i in range(PROMPTS):
        turned = words[i:] + words[:i]
        ids = tokenizer(" ".join(turned * 8))["input_ids"][:PROMPT_TOKENS]
        text = tokenizer.decode(ids)
        assert tokenizer(text)["input_ids"] == ids
        texts.append(text)
    return tuple(texts)


def faster(theirs: Callable[[bool], float]) -> bool:
    """Whether TRL takes less time in bfloat16, where the processor multiplies it."""
    if not has_bfloat16():
        return False
    spent = {half: theirs(half) for half in (True, False)}
    note(f"{PEER}, s a step: bfloat16 {spent[True]:.2f}, float32 {spent[False]:.2f}")
    return spent[True] < spent[False]


def our_step_s(start: Any, teacher: Any, tokenizer: Any, case: Case, seed: int) -> float:
    """Seconds of our last step."""
    model, spent = copy.deepcopy(start), []
    samples = [Sample(tuple(tokenizer(text)["input_ids"]), (2,)) for text in case.texts]
    capacity = max(len(sample.prompt_ids) for sample in samples) + case.length
    rollout = Rollout(model, (), slots=PROMPTS, capacity=capacity)
    settings = TrainPart(
        epochs=STEPS, batch=PROMPTS, train="all", learning_rate=1e-6, diagnose_every=0, checkpoint_every=1000
    )
    method = Gkd(
        samples,
        student(rollout, max_tokens=case.length),
        teacher,
        Objective("reverse-kl"),
        settings,
        seed=seed,
        own_share=1.0,
    )
    train(model, method, settings, seed=seed, on_step=lambda metrics: spent.append(checked(metrics, case.length)))
    return spent[-1]


def checked(metrics: dict[str, float | int], length: int) -> float:
    """Seconds of a step that learned from as many tokens as it should."""
    assert metrics["answer_tokens"] == PROMPTS * length
    return float(metrics["elapsed_s"])


def trl_step_s(start: Any, teacher: Any, tokenizer: Any, case: Case, seed: int, half: bool) -> float:
    """Seconds of TRL's last step."""
    from trl import DistillationConfig, DistillationTrainer

    data = import_module("datasets").Dataset.from_dict({"prompt": list(case.texts)})
    clock = Clock()
    with tempfile.TemporaryDirectory() as folder:
        settings = DistillationConfig(
            output_dir=folder,
            per_device_train_batch_size=PROMPTS,
            num_train_epochs=STEPS,
            max_completion_length=case.length,
            generation_kwargs={"min_new_tokens": case.length},
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


def products_at_most(start: Any, teacher: Any, prompts: int, answers: int) -> float:
    """Answer tokens a second if nothing but products took time."""
    head = int(start.get_input_embeddings().weight.numel())
    trunk, whole = (sum(int(w.numel()) for w in model.parameters()) - head for model in (start, teacher))
    read, answered = trunk * (prompts + answers) + head * answers, whole * (prompts + answers) + head * answers
    operations = 2 * read + 2 * answered + 6 * read  # written, scored, learned
    return answers / (operations / best_peak_gflops() / 1e9)


def row_of(mine: list[float], their: list[float], start: Any, teacher: Any, tokenizer: Any, case: Case) -> Row:
    """Medians in answer tokens a second."""
    tokens = PROMPTS * case.length
    limit = products_at_most(start, teacher, sum(len(tokenizer(t)["input_ids"]) for t in set(case.texts)), tokens)
    ours, theirs = tokens / statistics.median(mine), tokens / statistics.median(their)
    spread = (tokens / max(mine), tokens / min(mine))
    name = f"{LAYERS} layers, {case.name}"
    return Row(name, "tokens_per_s", ours, PEER, theirs, ours / theirs, limit, RUNS, spread)


if __name__ == "__main__":
    main("on_policy", measure)
