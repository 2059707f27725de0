"""Real SmolLM2 answers with the teacher's hidden states, for the benches of the signal cache.

Two thirds of the prompts are written by the model itself (arXiv 2406.08464), one third are GSM8K's test questions
(`../shared/data`, read in place; without it the model writes all). Answers are drawn at temperature 1. They take a
few minutes, so they are kept in the user's cache, by the prompts' and the model's digests.
"""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bench._schema import note
from spiritsafe.cache import cache_dir
from spiritsafe.models import ask, open_model, user
from spiritsafe.models.decoding.scoring import Pair, answer_hidden
from spiritsafe.models.local import LocalModel
from spiritsafe.record import Sampling, digest_of

QUESTIONS = Path(__file__).parents[2] / "shared" / "data" / "capability" / "gsm8k" / "test.jsonl"
WRITTEN, ASKED, PROMPT_TOKENS, ANSWER_TOKENS, BATCH = 208, 104, 32, 128, 8


@dataclass(frozen=True)
class Answers:
    """Answers as (prompt ids, answer ids), the teacher's hidden states (T, E) at their positions, and its head."""

    pairs: tuple[Pair, ...]
    hidden: tuple[Tensor, ...]
    head_VE: Tensor


def answers(seed: int) -> Answers:
    """The answers of a seed, made at the first call."""
    local: Any = open_model("smollm2")
    kept = cache_dir() / "bench" / f"answers-{digest_of([local.digest, _settings(), seed])[:16]}.pt"
    if not kept.exists():
        kept.parent.mkdir(parents=True, exist_ok=True)
        made = kept.with_suffix(".part")
        torch.save(_made(local, seed), made)
        made.replace(kept)
    pairs, hidden = torch.load(kept)
    return Answers(tuple(pairs), tuple(hidden), local.model.lm_head.weight.detach().float())


def _settings() -> list[int]:
    return [WRITTEN, ASKED if QUESTIONS.exists() else 0, PROMPT_TOKENS, ANSWER_TOKENS]


def _made(local: LocalModel, seed: int) -> tuple[list[Pair], list[Tensor]]:
    questions = QUESTIONS.read_text(encoding="utf-8").splitlines()[:ASKED] if QUESTIONS.exists() else []
    wanted = Sampling(max_tokens=PROMPT_TOKENS, seed=seed)
    num = WRITTEN + ASKED - len(questions)
    asked = [replace(r, open_turn="user") for r in ask([()], wanted, n=num, purpose="prompts")]
    written = [e.answer for e in local.generate(asked) if e.answer.strip()]
    prompts = [user(text) for text in [*written, *(json.loads(line)["question"] for line in questions)]]
    said = local.generate(ask(prompts, wanted.model_copy(update={"max_tokens": ANSWER_TOKENS})))
    note(f"{len(said)} answers")
    pairs = [local.pair(e) for e in said]
    with torch.inference_mode():
        parts = [pairs[start : start + BATCH] for start in range(0, len(pairs), BATCH)]
        hidden = [h.clone() for part in parts for h in answer_hidden(local.model, part, pad_id=local.pad_id)]
    return pairs, hidden
