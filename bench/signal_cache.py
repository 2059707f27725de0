"""The signal cache on real SmolLM2 answers, beside raw storage: bytes a token, total variation, tokens a second.

Answers: see `_answers.py`. Peers: raw top-50 as fp16 and u16 (200 B), raw top-32 as bf16 and u16 (128 B), written and
read back by torch. Total variation is half the L1 distance between the teacher's and the stored probabilities over the
stored head tokens and the tail as one token: what rounding does, so for the raw formats too; the tail of a raw format
is what its head leaves. Encoding and decoding are the coder's alone, on one core, without files and without turning
levels into probabilities, in processor time. Not covered: other models, the entropy bound (no true model of the ids is
known).
"""

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from bench import _schema
from bench._answers import answers
from bench._schema import Row, note
from spiritsafe.make.signals.coder import Rows, open_coder
from spiritsafe.make.signals.quantise import Precision
from spiritsafe.make.signals.reader import signal_of
from spiritsafe.make.signals.sample import Keep, Kept, choose, rows_of

VOCAB, RUNS = 49152, 7
CASES = {"top-50": Keep(), "unbiased": Keep("unbiased", 24)}
RAW = {"raw top-50 fp16+u16": (50, torch.float16), "raw top-32 bf16+u16": (32, torch.bfloat16)}


@dataclass(frozen=True)
class Captured:
    """The entries of one answer and its tokens."""

    kept: Kept
    tokens: torch.Tensor


def measure(seed: int) -> list[Row]:
    """Bytes, distance and speed of each case and each raw format."""
    torch.set_num_threads(1)
    found, peers = captured(seed)
    rows = [row for case, kept in found.items() for row in rows_of_case(case, kept, CASES[case].precision)]
    return beside(rows, [row for name, parts in peers.items() for row in rows_of_raw(name, parts)])


def captured(seed: int) -> tuple[dict[str, list[Captured]], dict[str, list[Kept]]]:
    """What each case, and each raw format, keeps of the same answers."""
    said = answers(seed)
    found: dict[str, list[Captured]] = {case: [] for case in CASES}
    peers: dict[str, list[Kept]] = {name: [] for name in RAW}
    for number, ((_, answer), hidden_TE) in enumerate(zip(said.pairs, said.hidden, strict=True)):
        logprobs_TV = (hidden_TE @ said.head_VE.T).log_softmax(-1)
        for case, keep in CASES.items():
            found[case].append(Captured(choose(logprobs_TV, keep, seed=seed + number), torch.tensor(answer)))
        for name, (num, _) in RAW.items():
            peers[name].append(choose(logprobs_TV, Keep(num=num), seed=0))
    note(f"{len(said.pairs)} answers, {sum(map(len, said.hidden))} tokens")
    return found, peers


def rows_of_case(case: str, answers: Sequence[Captured], precision: Precision) -> list[Row]:
    """The figures of one case."""
    rows = [rows_of(a.kept, a.tokens, precision) for a in answers]
    tokens = sum(len(r.tokens_T) for r in rows)
    encode_s, decode_s, coded = [], [], [b""]
    for _ in range(RUNS):
        coder, started = open_coder(VOCAB), time.thread_time()
        coded = [coder.encode(r) for r in rows]
        encode_s.append(time.thread_time() - started)
        coder, started = open_coder(VOCAB), time.thread_time()
        for data, r in zip(coded, rows, strict=True):
            coder.decode(data, *r.ids_TK.shape)
        decode_s.append(time.thread_time() - started)
    apart = torch.cat([variation(a.kept, r, precision) for a, r in zip(answers, rows, strict=True)])
    return figures(case, sum(map(len, coded)) / tokens, apart, encode_s, decode_s)


def rows_of_raw(name: str, parts: Sequence[Kept]) -> list[Row]:
    """The figures of a raw format: u16 ids (49,152 tokens fit) and 16-bit log-probabilities."""
    kind = RAW[name][1]
    encode_s, decode_s, coded, apart = [], [], [], []
    for _ in range(RUNS):
        started = time.thread_time()
        coded = [(k.ids_TK.to(torch.uint16), k.logprobs_TK.to(kind)) for k in parts]
        encode_s.append(time.thread_time() - started)
        started = time.thread_time()
        apart = [(ids_TK.long(), values_TK.float()) for ids_TK, values_TK in coded]
        decode_s.append(time.thread_time() - started)
    size = sum(ids_TK.nbytes + values_TK.nbytes for ids_TK, values_TK in coded) / sum(
        len(ids_TK) for ids_TK, _ in coded
    )
    given = [(k.logprobs_TK.exp(), values_TK.exp()) for k, (_, values_TK) in zip(parts, apart, strict=True)]
    return figures(name, size, torch.cat([distance(a_TK, b_TK) for a_TK, b_TK in given]), encode_s, decode_s)


def figures(case: str, size: float, apart_N: Tensor, encode_s: Sequence[float], decode_s: Sequence[float]) -> list[Row]:
    """The four rows of a format."""
    num = len(apart_N)
    return [
        Row(case, "bytes_per_token", size, n=num),
        Row(case, "total_variation", float(apart_N.double().mean()), n=num),
        rate(case, "encode_tokens_per_s", num, encode_s),
        rate(case, "decode_tokens_per_s", num, decode_s),
    ]


def beside(ours: Sequence[Row], raw: Sequence[Row]) -> list[Row]:
    """Our rows; those of the head again beside each raw format. Fewer bytes and more tokens a second are better."""
    theirs = [(r, mine) for r in raw for mine in ours if mine.case == "top-50" and mine.metric == r.metric]
    pairs = [
        replace(
            mine, peer=r.case, theirs=r.ours, ratio=mine.ours / r.ours if "per_s" in r.metric else r.ours / mine.ours
        )
        for r, mine in theirs
    ]
    return [*ours, *pairs]


def variation(kept: Kept, rows: Rows, precision: Precision) -> Tensor:
    """Total variation of each token's stored target, its tail taken as one token."""
    signal = signal_of(rows, precision)
    given_TK = torch.where(kept.sampled_TK, 0.0, kept.logprobs_TK.exp())
    return distance(given_TK, torch.where(kept.sampled_TK, 0.0, signal.probs_NK))


def distance(given_TK: Tensor, stored_TK: Tensor) -> Tensor:
    """Half the L1 distance; what the tokens leave of 1 is one token more."""
    return ((given_TK - stored_TK).abs().sum(-1) + (given_TK.sum(-1) - stored_TK.sum(-1)).abs()) / 2


def rate(case: str, metric: str, tokens: int, spent_s: Sequence[float]) -> Row:
    """Median, smallest and largest rate."""
    rates = [tokens / s for s in spent_s]
    return Row(case, metric, statistics.median(rates), n=RUNS, spread=(min(rates), max(rates)))


if __name__ == "__main__":
    _schema.main("signal_cache", measure)
