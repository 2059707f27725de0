"""A Hugging Face model directory: which of its files make the model, and why it cannot be opened.

Weights are looked for as transformers does: `model.safetensors`, else the shards of its index, else pickles, which
are loaded with `weights_only=True` and run nothing. Code that lies beside a model is never run.
"""

import json
import re
import struct
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from spiritsafe.errors import ModelError
from spiritsafe.models.template import CLOCK, first_line, one_line
from spiritsafe.record import digest_of, file_digest

WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")
SETTINGS = ("config.json", "generation_config.json", "tokenizer_config.json", "special_tokens_map.json")
# What transformers notes in them of how they were saved.
NOTES = frozenset(("is_local", "local_files_only", "name_or_path", "_name_or_path", "transformers_version"))
# The files that hold some tokenizer's tokens, and every other that a tokenizer of transformers reads.
TOKENS = (
    "tokenizer.json", "vocab*", "merges*", "*.model", "*.spm", "*.tiktoken", "*.vocab", "tekken.json", "encoder.json",
    "bpe.codes",
)  # fmt: skip
TOKENIZER = (
    *TOKENS, "tokenizer*.json", "special_tokens_map.json", "added_tokens.json", "chat_template*",
    "additional_chat_templates/*",
)  # fmt: skip
# How a file begins that torch wrote: a zip archive, or, before torch 1.6, a pickle of protocol 2 and later.
PICKLES = (b"PK\x03\x04", b"\x80")
LFS = b"version https://git-lfs"
TEMPLATES = ("tokenizer_config.json", "chat_template*", "additional_chat_templates/*")
PIECES = ("tokenizer.model", "spiece.model", "sentencepiece.bpe.model")
LAYERS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")
WIDTHS = ("hidden_size", "n_embd", "d_model", "dim")
# Numbers of a config that are each a side of some matrix, whose other side is the width.
SIDES = (
    "vocab_size", "intermediate_size", "ffn_dim", "n_inner", "num_local_experts", "num_experts", "n_routed_experts",
    "num_attention_heads", "n_head", "num_key_value_heads", "head_dim", "moe_intermediate_size",
)  # fmt: skip
# An element of a stored weight takes at least a bit.
PER_BYTE = 8
HEADER = 8


def weight_files(folder: Path) -> list[Path]:
    """The files whose weights are loaded, an index among them. Raises `ModelError` if one of them is not there."""
    named = _json(folder / "config.json").get("transformers_weights")
    for name in [named] if isinstance(named, str) else WEIGHTS:
        file = folder / name
        if not file.is_file():
            continue
        if not name.endswith(".index.json"):
            return [file]
        return [file, *_shards(file)]
    if (folder / "adapter_config.json").is_file():
        raise _adapter(folder, alone=True)
    hint = "name a directory with model.safetensors"
    raise ModelError(str(folder), "holds no weights (model.safetensors, its index, or pytorch_model.bin)", hint)


def model_files(folder: Path) -> list[Path]:
    """All files that have a say in what the model answers: weights, configs, tokenizer, templates."""
    patterns = ("config.json", "generation_config.json", *TOKENIZER)
    beside = {file for pattern in patterns for file in folder.glob(pattern) if file.is_file()}
    return sorted({*beside, *weight_files(folder)})


def file_identity(file: Path) -> str:
    """sha256 of a model's file; of its settings what they say, not how and by which version they were saved."""
    if file.name not in SETTINGS:
        return file_digest(file)
    return digest_of({key: value for key, value in _json(file).items() if key not in NOTES})


def reads_the_clock(folder: Path) -> bool:
    """Whether a template of the directory asks for the date."""
    files = [file for pattern in TEMPLATES for file in folder.glob(pattern)]
    return any(CLOCK.encode() in file.read_bytes() for file in files if file.is_file())


def check_folder(folder: Path) -> dict[str, Any]:
    """The directory's config. Raises `ModelError` for what cannot be a model, before anything is loaded."""
    if not (folder / "config.json").is_file():
        if (folder / "adapter_config.json").is_file():
            raise _adapter(folder, alone=True)
        what = "holds no config.json" if folder.is_dir() else "no such directory"
        raise ModelError(str(folder), what, "name a Hugging Face model directory")
    if (folder / "adapter_config.json").is_file():
        raise _adapter(folder, alone=False)
    config, *_ = [_json(folder / name) for name in SETTINGS if (folder / name).is_file()]
    files = weight_files(folder)
    for file in files:
        _check_whole(file)
    size = sum(file.stat().st_size for file in files)
    for part in _parts(config):
        _check_sizes(folder, part, size, _num_tensors(files))
    return config


def failure(folder: Path, config: dict[str, Any], error: Exception) -> ModelError:
    """What to say of a directory that transformers could not load, and what helps."""
    first, where = first_line(error), str(folder)
    method = (config.get("quantization_config") or {}).get("quant_method")
    kind = one_line(str(config.get("model_type")))
    if method:
        method = one_line(str(method))
        what = f"is quantised by {method}, which cannot be opened here ({first})"
        return ModelError(where, what, "open the unquantised model, or a GGUF file of it")
    own = [name for name in ("config.json", "tokenizer_config.json") if "auto_map" in _json_or_empty(folder / name)]
    if own and ("trust_remote_code" in str(error) or not _known(config)):
        what = f"asks for code of its own (auto_map in {own[0]}), which is never run"
        return ModelError(where, what, "only architectures of transformers are opened")
    if not _known(config):
        what = f"is of the architecture {kind}, which this transformers does not know"
        return ModelError(where, what, "update transformers, or name another model")
    pieces = [name for name in PIECES if (folder / name).is_file()]
    if pieces and not (folder / "tokenizer.json").is_file() and not find_spec("sentencepiece"):
        what = f"has its tokenizer in {pieces[0]} alone, which needs the package sentencepiece"
        return ModelError(where, what, "pip install sentencepiece, or put a tokenizer.json beside it")
    if not any(file.is_file() for pattern in TOKENS for file in folder.glob(pattern)):
        what = "holds no tokenizer (tokenizer.json, a vocabulary or tokenizer.model)"
        return ModelError(where, what, "put the model's tokenizer.json beside it")
    if type(error).__name__ == "SafetensorError":
        return ModelError(where, f"has weights that are truncated or broken ({first})", "fetch it again")
    return ModelError(where, f"cannot be loaded ({first})", "is it whole, and does plain transformers open it?")


def not_text(folder: Path, config: dict[str, Any]) -> ModelError:
    """What to say of an architecture that is not one of causal language models."""
    name = one_line(str((config.get("architectures") or [config.get("model_type")])[0]))
    what = f"architecture {name} cannot be opened as a text model"
    return ModelError(str(folder), what, "name a causal language model, e.g. the text model it is built on")


def lost_layers(unexpected: list[str], held: set[str]) -> list[str]:
    """Stored tensors of a kind that the model has, but of layers that it has not: its config says too few."""
    kinds = {re.sub(r"\d+", "#", name) for name in held}
    return sorted(name for name in unexpected if "." in name and re.sub(r"\d+", "#", name) in kinds)


def _adapter(folder: Path, *, alone: bool) -> ModelError:
    given = _json_or_empty(folder / "adapter_config.json")
    kind = str(given.get("peft_type", "LORA")).replace("LORA", "LoRA")
    what = one_line(f"holds an adapter ({kind} of {given.get('base_model_name_or_path')})")
    merge = "merge it into its base (peft: merge_and_unload, save_pretrained) and name that"
    if alone:
        return ModelError(str(folder), f"{what} and no whole model", merge)
    hint = f"{merge}, or put the adapter in a directory of its own"
    return ModelError(str(folder), f"{what} beside a model; which of them is meant is not said", hint)


def _shards(index: Path) -> Iterator[Path]:
    """The files that an index names. Raises `ModelError` if one is missing or lies elsewhere."""
    places = _json(index).get("weight_map")
    if not isinstance(places, dict) or not places:
        raise ModelError(str(index), "names no weights", "fetch it again")
    for name in sorted({str(place) for place in places.values()}):
        file = index.parent / name
        if Path(name).name != name:
            raise ModelError(str(index), f"names a file outside its directory: {name!r}", "do not trust this model")
        if not file.is_file():
            raise ModelError(str(index.parent), f"lacks {one_line(name)}, which {index.name} names", "fetch that file")
        yield file


def _json(file: Path) -> dict[str, Any]:
    try:
        held = json.loads(file.read_bytes().decode("utf-8-sig"))
    except FileNotFoundError:
        return {}
    except (ValueError, RecursionError) as error:
        raise ModelError(str(file), f"is not JSON ({first_line(error)})", "mend it, or fetch it again") from None
    if not isinstance(held, dict):
        raise ModelError(str(file), "is no JSON object", "mend it, or fetch it again")
    return held


def _json_or_empty(file: Path) -> dict[str, Any]:
    return _json(file) if file.is_file() else {}


def _parts(config: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield config
    for part in config.values():
        if isinstance(part, dict):
            yield from _parts(part)


def _check_sizes(folder: Path, config: dict[str, Any], size: int, num_tensors: int | None) -> None:
    """Raises `ModelError` if a config speaks of more than its weights can hold: it would be built before it fails."""
    numbers = {key: value for key, value in config.items() if isinstance(value, int | float)}
    width = max([abs(numbers[key]) for key in WIDTHS if key in numbers], default=1)
    for key in LAYERS:
        if num_tensors is not None and numbers.get(key, 0) > num_tensors:
            raise _too_large(folder, key, numbers[key], f"hold {num_tensors} tensors")
    for key in (*LAYERS, *SIDES, *WIDTHS):
        if abs(numbers.get(key, 0)) * (1 if key in WIDTHS else width) > PER_BYTE * size:
            raise _too_large(folder, key, numbers[key], f"have {size} bytes")


def _too_large(folder: Path, key: str, value: float, has: str) -> ModelError:
    return ModelError(
        str(folder), f"config.json says {key} = {value}, and the weights {has}", "fetch it again, or mend it"
    )


def _check_whole(file: Path) -> None:
    """Raises `ModelError` for what was fetched as a pointer, and for a pickle that torch did not write."""
    with file.open("rb") as opened:
        start = opened.read(len(LFS))
    if start == LFS:
        raise ModelError(str(file), "is a pointer of git-lfs and not the weights", "git lfs pull, or fetch that file")
    if file.suffix not in (".safetensors", ".json") and not start.startswith(PICKLES):
        size = file.stat().st_size
        raise ModelError(str(file), f"is no file of weights that torch wrote ({size} bytes)", "fetch it again")


def _num_tensors(files: list[Path]) -> int | None:
    """How many tensors safetensors files hold; None for pickles, whose contents are not listed."""
    files = [file for file in files if not file.name.endswith(".index.json")]
    if any(file.suffix != ".safetensors" for file in files):
        return None
    return sum(_num_stored(file) for file in files)


def _num_stored(file: Path) -> int:
    with file.open("rb") as opened:
        start = opened.read(HEADER)
        length = struct.unpack("<Q", start)[0] if len(start) == HEADER else file.stat().st_size
        if length > file.stat().st_size - HEADER:
            raise ModelError(str(file), "is truncated or broken", "fetch it again")
        try:
            return len(json.loads(opened.read(length)))
        except (ValueError, RecursionError, TypeError):
            raise ModelError(str(file), "has a broken header", "fetch it again") from None


def _known(config: dict[str, Any]) -> bool:
    from transformers import CONFIG_MAPPING

    return config.get("model_type") in CONFIG_MAPPING
