"""A byte-level BPE tokenizer as the fields of a GGUF file; one that llama.cpp would read otherwise is refused.

llama.cpp does not compose Unicode: text that is not in NFC is split otherwise than by a tokenizer that
normalises (Qwen's).
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from spiritsafe.errors import ModelError
from spiritsafe.models.gguf_form import PRE_TOKENIZERS

NORMAL, CONTROL, USER_DEFINED, UNUSED = 1, 3, 4, 5
# What llama.cpp takes for an end whatever the file says.
ENDS = (
    "<|eot_id|>",
    "<|im_end|>",
    "<|end|>",
    "<|return|>",
    "<|call|>",
    "<end_of_turn>",
    "<|endoftext|>",
    "<|eom_id|>",
    "< EOT >",
    "<EOT>",
    "_<EOT>",
    "<end_of_utterance>",
)
HINT = "only byte-level BPE as in SmolLM2, Llama 3, Qwen2 and GPT-2 can be written"


@dataclass(frozen=True)
class Vocabulary:
    """Tokens by id with their types, merges by rank, and the name of the pre-tokenizer."""

    tokens: tuple[str, ...]
    types: tuple[int, ...]
    merges: tuple[str, ...]
    pre: str


def vocabulary_of(tokenizer: Any, size: int, where: str) -> Vocabulary:
    """The vocabulary of a tokenizer for a model of `size` embedding rows. Raises `ModelError` naming what does not fit.

    Ids without a token are filled with unused ones.
    """
    form = json.loads(tokenizer.backend_tokenizer.to_str())
    pre = _pre_tokenizer(form, where)
    ids = {i: token for token, i in tokenizer.get_vocab().items()}
    if max(ids) >= size:
        raise ModelError(where, f"the tokenizer has id {max(ids)}, the model {size} rows", "resize its embeddings")
    kinds = {added["id"]: _added_kind(added, where) for added in form["added_tokens"]}
    tokens = tuple(ids.get(i, f"[PAD{i}]") for i in range(size))
    types = tuple(kinds.get(i, NORMAL) if i in ids else UNUSED for i in range(size))
    merges = tuple(m if isinstance(m, str) else " ".join(m) for m in form["model"]["merges"])
    return Vocabulary(tokens, types, merges, pre)


def end_tokens(tokenizer: Any, configured: Sequence[int], where: str) -> list[int]:
    """The tokens that end an answer: of the text, of a turn and of a message, as far as there are such.

    llama.cpp ends at those three and at the `ENDS` that it knows by name. Raises `ModelError` where there is none,
    or one would be lost.
    """
    known = {tokenizer.convert_tokens_to_ids(name) for name in ENDS if name in tokenizer.get_vocab()}
    written = {tokenizer.convert_tokens_to_ids(name) for name in ENDS if name in str(tokenizer.chat_template or "")}
    given = [tokenizer.eos_token_id, *configured, *sorted(known & written)]
    ends = list(dict.fromkeys(i for i in given if i is not None))
    if not ends:
        raise ModelError(where, "has no end token: its answers would never end", "name one in generation_config.json")
    first, *others = ends
    needed = sorted(others, key=lambda i: (i in known, others.index(i)))
    if lost := [i for i in needed[2:] if i not in known]:
        raise ModelError(where, f"ends at token {lost[0]} too, and GGUF names three ends", "leave out one of them")
    return [first, *needed[:2]]


def adds(tokenizer: Any) -> tuple[bool, bool]:
    """Whether the tokenizer puts its first and its last token around a text by itself."""
    ids = tokenizer("a")["input_ids"]
    first, last = tokenizer.bos_token_id, tokenizer.eos_token_id
    return first is not None and ids[0] == first, len(ids) > 1 and last is not None and ids[-1] == last


def _pre_tokenizer(form: dict[str, Any], where: str) -> str:
    model, normalizer = form["model"], form["normalizer"]
    if model["type"] != "BPE" or model.get("byte_fallback") or model.get("dropout"):
        kind = "BPE over characters" if model["type"] == "BPE" else model["type"]
        raise ModelError(where, f"its tokenizer is {kind}", HINT)
    if model.get("continuing_subword_prefix") or model.get("end_of_word_suffix"):
        raise ModelError(where, "its tokenizer marks the parts of words", HINT)
    if normalizer and normalizer["type"] != "NFC":
        raise ModelError(where, f"its tokenizer normalises by {normalizer['type']}", HINT)
    steps = tuple(_steps(form["pre_tokenizer"]))
    for name, known in PRE_TOKENIZERS.items():
        if known.steps == steps and known.whole == bool(model.get("ignore_merges")):
            return name
    raise ModelError(where, "llama.cpp has no pre-tokenizer like its own", HINT)


def _steps(pre: dict[str, Any] | None) -> list[tuple[Any, ...]]:
    """The pre-tokenizer as `models.gguf_form` writes it; a step that has no name there stays as it is."""
    if pre is None:
        return []
    if pre["type"] == "Sequence":
        return [step for inner in pre["pretokenizers"] for step in _steps(inner)]
    if pre["type"] == "Digits" and pre["individual_digits"]:
        return [("digits",)]
    if pre["type"] == "ByteLevel" and not pre["add_prefix_space"]:
        return [("bytes", pre["use_regex"])]
    if pre["type"] == "Split" and pre["behavior"] == "Isolated" and not pre["invert"]:
        return [("split", pre["pattern"].get("Regex"))]
    return [("other", json.dumps(pre))]


def _added_kind(added: dict[str, Any], where: str) -> int:
    if added["lstrip"] or added["rstrip"] or added["single_word"]:
        what = f"token {added['content']!r} takes the space around it"
        raise ModelError(where, what, "GGUF cannot say so")
    return CONTROL if added["special"] else USER_DEFINED
