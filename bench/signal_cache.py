"""The signal cache on real SmolLM2 answers, beside raw storage: bytes a token, total variation, tokens a second.

Prompts are written by the model itself, answers drawn at temperature 1. Peers: raw top-50 as fp16 and u16
(200 B), raw top-32 as bf16 and u16 (128 B). Total variation is half the L1 distance between the teacher's and the
stored probabilities over the stored head tokens and the tail as one token; quantisation alone, so raw formats are
not compared by it. Decoding is the coder's alone, without files and without turning levels into probabilities.
Not covered: other models, the entropy bound (no true model of the ids is known), answers kept between runs.
"""

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from bench import _schema
from bench._schema import Row, note
from spiritsafe.make.signals.coder import Rows, open_coder
from spiritsafe.make.signals.quantise import Precision
from spiritsafe.make.signals.reader import signal_of
from spiritsafe.make.signals.sample import Keep, Kept, choose, rows_of
from spiritsafe.models import ask, open_model, user
from spiritsafe.models.scoring import answer_logprobs
from spiritsafe.record import Sampling

PROMPTS, PROMPT_TOKENS, ANSWER_TOKENS, RUNS = 256, 32, 96, 5
CASES = {"top-50": Keep(), "unbiased": Keep("unbiased", 24)}
RAW = {"top-50": (("raw top-50 fp16+u16", 200.0), ("raw top-32 bf16+u16", 128.0)), "unbiased": ()}


@dataclass(frozen=True)
class Captured:
    """The entries of one answer and its tokens."""

    kept: Kept
    tokens: torch.Tensor


def measure(seed: int) -> list[Row]:
    """Four figures a case."""
    found = captured(seed)
    return [row for case, answers in found.items() for row in rows_of_case(case, answers, CASES[case].precision)]


def captured(seed: int) -> dict[str, list[Captured]]:
    """What each case keeps of the same answers."""
    local: Any = open_model("smollm2")
    wanted = Sampling(max_tokens=PROMPT_TOKENS, seed=seed)
    asked = [replace(r, open_turn="user") for r in ask([()], wanted, n=PROMPTS, purpose="prompts")]
    prompts = [user(e.answer) for e in local.generate(asked) if e.answer.strip()]
    answers = local.generate(ask(prompts, wanted.model_copy(update={"max_tokens": ANSWER_TOKENS})))
    note(f"{len(answers)} answers")
    found: dict[str, list[Captured]] = {case: [] for case in CASES}
    for start in range(0, len(answers), 8):
        pairs = [local.pair(e) for e in answers[start : start + 8]]
        with torch.inference_mode():
            scored = answer_logprobs(local.model, pairs, pad_id=local.pad_id)
            for number, ((_, answer), logprobs_TV) in enumerate(zip(pairs, scored, strict=True)):
                for case, keep in CASES.items():
                    kept = choose(logprobs_TV, keep, seed=seed + start + number)
                    found[case].append(Captured(kept, torch.tensor(answer)))
    return found


def rows_of_case(case: str, answers: Sequence[Captured], precision: Precision) -> list[Row]:
    """The figures of one case."""
    rows = [rows_of(a.kept, a.tokens, precision) for a in answers]
    tokens = sum(len(r.tokens_T) for r in rows)
    encode_s, decode_s, coded = [], [], [b""]
    for _ in range(RUNS):
        coder, started = open_coder(49152), time.perf_counter()
        coded = [coder.encode(r) for r in rows]
        encode_s.append(time.perf_counter() - started)
        coder, started = open_coder(49152), time.perf_counter()
        for data, r in zip(coded, rows, strict=True):
            coder.decode(data, *r.ids_TK.shape)
        decode_s.append(time.perf_counter() - started)
    size = sum(map(len, coded)) / tokens
    apart = np.concatenate([variation(a.kept, r, precision) for a, r in zip(answers, rows, strict=True)])
    return [
        Row(case, "bytes_per_token", size, n=tokens),
        *(Row(case, "bytes_per_token", size, peer, raw, raw / size, n=tokens) for peer, raw in RAW[case]),
        Row(case, "total_variation", float(apart.mean()), n=tokens),
        rate(case, "encode_tokens_per_s", tokens, encode_s),
        rate(case, "decode_tokens_per_s", tokens, decode_s),
    ]


def variation(kept: Kept, rows: Rows, precision: Precision) -> Any:
    """Total variation of each token's stored target, its tail taken as one token."""
    signal = signal_of(rows, precision)
    given_TK = torch.where(kept.sampled_TK, 0.0, kept.logprobs_TK.exp())
    stored_TK = torch.where(kept.sampled_TK, 0.0, signal.probs_NK)
    tail_T = (given_TK.sum(-1) - stored_TK.sum(-1)).abs()
    return ((given_TK - stored_TK).abs().sum(-1) + tail_T).numpy() / 2


def rate(case: str, metric: str, tokens: int, spent_s: Sequence[float]) -> Row:
    """Median, smallest and largest rate."""
    rates = [tokens / s for s in spent_s]
    return Row(case, metric, statistics.median(rates), n=RUNS, spread=(min(rates), max(rates)))


if __name__ == "__main__":
    _schema.main("signal_cache", measure)
