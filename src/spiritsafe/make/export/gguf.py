"""A student as one GGUF file, f16 or q8_0, as llama.cpp's own converter writes it.

Matrices are stored in the asked precision (f16 where a row is no multiple of q8_0's 32), vectors in float32.
Weights are read and written one tensor at a time. Dense llama, qwen2 and qwen3 only.
"""

import json
import os
import re
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from spiritsafe.errors import ModelError, writing
from spiritsafe.make.export.vocabulary import adds, end_tokens, vocabulary_of
from spiritsafe.models.gguf_form import (
    ARCHITECTURES,
    ROPE_FREQS,
    TOP_NAMES,
    layer_names,
    llama3_factors,
    permute,
    split_layer,
)

Precision = Literal["f16", "q8_0"]
BLOCK = ALIGNMENT = 32
F16_MAX = 65504.0
HEAD, EMBEDDING = "lm_head.weight", "model.embed_tokens.weight"
WHOLE, INDEX, ADAPTER = "model.safetensors", "model.safetensors.index.json", "adapter_config.json"


@dataclass(frozen=True)
class Tensor:
    """One tensor to write: its name in GGUF, in the student's files, its shape, and its heads where it is permuted."""

    name: str
    source: str
    shape: tuple[int, ...]
    heads: int = 0


def write_gguf(folder: Path, target: Path, precision: Precision) -> Path:
    """Write the student in `folder` to `target`, all or nothing. Raises `ModelError` with what GGUF cannot say."""
    from transformers import AutoConfig, AutoTokenizer

    where = str(folder)
    if (folder / ADAPTER).is_file():
        raise ModelError(where, "holds an adapter beside its weights", "merge the two, or take the adapter away")
    config = AutoConfig.from_pretrained(folder, local_files_only=True)
    _check(config, where)
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    weights = _Weights(folder)
    tensors = _tensors(weights, config, where)
    with writing(target, option="-o FILE"):
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, scratch = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.", suffix=".tmp")
        os.close(handle)
        try:
            _write(Path(scratch), folder, config, tokenizer, tensors, weights, precision)
            os.chmod(scratch, 0o644)
            os.replace(scratch, target)
        finally:
            Path(scratch).unlink(missing_ok=True)
    return target


def _check(config: Any, where: str) -> None:
    """Refuse what llama.cpp would compute otherwise."""
    kind = config.model_type
    if kind not in ARCHITECTURES:
        raise ModelError(where, f"its architecture is {kind}", f"GGUF is written for {', '.join(ARCHITECTURES)}")
    if config.hidden_act != "silu":
        raise ModelError(where, f"its activation is {config.hidden_act}", f"llama.cpp's {kind} has silu")
    if getattr(config, "use_sliding_window", False):
        raise ModelError(where, "it attends through a sliding window", f"llama.cpp's {kind} has none")
    rope = config.rope_parameters
    if rope["rope_type"] not in ("default", "linear", "llama3", "yarn"):
        raise ModelError(where, f"its RoPE is scaled by {rope['rope_type']}", "linear, llama3 and yarn are written")
    if rope.get("partial_rotary_factor", 1) != 1:
        raise ModelError(where, "it turns only part of each head by RoPE", f"llama.cpp's {kind} turns all")
    plain = {"rope_type", "rope_theta", "factor", "original_max_position_embeddings", "partial_rotary_factor"}
    if rope["rope_type"] == "yarn" and (other := sorted(k for k in set(rope) - plain if rope[k] is not None)):
        raise ModelError(where, f"its YaRN sets {other[0]}", "only plain YaRN is written")


def _tensors(weights: "_Weights", config: Any, where: str) -> list[Tensor]:
    """Every tensor in the model's order. Raises `ModelError` for one that has no place in the architecture."""
    tops = {ours: theirs for theirs, ours in TOP_NAMES.items()}
    layers = {ours: theirs for theirs, ours in layer_names(config.model_type).items()}
    heads = {"attn_q.weight": config.num_attention_heads, "attn_k.weight": config.num_key_value_heads}
    permuted = ARCHITECTURES[config.model_type].permuted
    tensors = []
    tied = config.tie_word_embeddings and not weights.own_head()
    for source, shape in weights.shapes.items():
        part = split_layer(source)
        if source == HEAD and tied:
            continue
        if part and part[1] in layers:
            theirs = layers[part[1]]
            turned = heads.get(theirs, 0) if permuted else 0
            tensors.append(Tensor(f"blk.{part[0]}.{theirs}", source, shape, turned))
        elif source in tops:
            tensors.append(Tensor(tops[source], source, shape))
        else:
            raise ModelError(where, f"its tensor {source} has no place in GGUF's {config.model_type}")
    expected = len(layers) * config.num_hidden_layers + len(TOP_NAMES) - bool(tied)
    if len(tensors) != expected:
        raise ModelError(where, f"holds {len(tensors)} of {expected} tensors", "save the student again")
    factors = [Tensor(ROPE_FREQS, "", (_head_dim(config) // 2,))]
    return [*(factors if config.rope_parameters["rope_type"] == "llama3" else []), *tensors]


def _write(
    path: Path, folder: Path, config: Any, tokenizer: Any, tensors: Sequence[Tensor], weights: "_Weights", to: Precision
) -> None:
    from gguf import GGMLQuantizationType, GGUFWriter

    arrays = _arrays(tensors, weights, config, to, str(folder))
    kinds = {tensor.name: GGMLQuantizationType[_kind(tensor.shape, to)] for tensor in tensors}
    writer = GGUFWriter(path, config.model_type)
    try:
        _add_model(writer, folder, config, to)
        _add_tokenizer(writer, str(folder), config, tokenizer)
        for tensor in tensors:
            kind = kinds[tensor.name]
            writer.add_tensor_info(tensor.name, tensor.shape, np.dtype(np.float32), _num_bytes(tensor, kind), kind)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
    finally:
        writer.close()
    with path.open("ab") as file:
        for array in arrays:
            file.write(b"\0" * (-file.tell() % ALIGNMENT))
            file.write(array.data)
        file.write(b"\0" * (-file.tell() % ALIGNMENT))
        file.flush()
        os.fsync(file.fileno())


def _arrays(
    tensors: Sequence[Tensor], weights: "_Weights", config: Any, to: Precision, where: str
) -> Iterator[np.ndarray[Any, Any]]:
    """What is stored of each tensor, one at a time. Raises `ModelError` for a value that f16 cannot hold."""
    from gguf import GGMLQuantizationType, quantize

    for tensor in tensors:
        if tensor.name == ROPE_FREQS:
            weight = llama3_factors(config.rope_parameters, _head_dim(config))
        else:
            weight = weights.read(tensor.source).float()
        if tensor.heads:
            weight = permute(weight, tensor.heads)
        kind = _kind(tensor.shape, to)
        if not weight.isfinite().all() or (kind == "F16" and weight.abs().max() > F16_MAX):
            raise ModelError(where, f"its tensor {tensor.source} holds values that {kind} cannot", "train it again")
        yield np.ascontiguousarray(quantize(weight.numpy(), GGMLQuantizationType[kind]))


def _kind(shape: tuple[int, ...], to: Precision) -> str:
    if len(shape) == 1:
        return "F32"
    return "Q8_0" if to == "q8_0" and shape[-1] % BLOCK == 0 else "F16"


def _num_bytes(tensor: Tensor, kind: Any) -> int:
    from gguf import GGML_QUANT_SIZES

    per_block, block_bytes = GGML_QUANT_SIZES[kind]
    return int(prod(tensor.shape) // per_block * block_bytes)


def _add_model(writer: Any, folder: Path, config: Any, to: Precision) -> None:
    """What kind of network it is, in llama.cpp's terms."""
    from gguf import GGML_QUANT_VERSION, LlamaFileType, RopeScalingType

    writer.add_type("model")
    writer.add_name(_name(folder))
    if licence := _licence(folder):
        writer.add_license(licence)
    writer.add_file_type(LlamaFileType.MOSTLY_Q8_0 if to == "q8_0" else LlamaFileType.MOSTLY_F16)
    writer.add_quantization_version(GGML_QUANT_VERSION)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(_head_dim(config))
    writer.add_value_length(_head_dim(config))
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)
    rope = config.rope_parameters
    writer.add_rope_dimension_count(_head_dim(config))
    writer.add_rope_freq_base(rope["rope_theta"])
    if rope["rope_type"] in ("linear", "yarn"):
        writer.add_rope_scaling_type(RopeScalingType(rope["rope_type"]))
        writer.add_rope_scaling_factor(rope["factor"])
    if rope["rope_type"] == "yarn":
        writer.add_rope_scaling_orig_ctx_len(
            rope.get("original_max_position_embeddings") or config.max_position_embeddings
        )


def _add_tokenizer(writer: Any, where: str, config: Any, tokenizer: Any) -> None:
    vocabulary = vocabulary_of(tokenizer, config.vocab_size, where)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(vocabulary.pre)
    writer.add_token_list(vocabulary.tokens)
    writer.add_token_types(vocabulary.types)
    writer.add_token_merges(vocabulary.merges)
    first, last = adds(tokenizer)
    writer.add_add_bos_token(first)
    writer.add_add_eos_token(last)
    if tokenizer.bos_token_id is not None:
        writer.add_bos_token_id(tokenizer.bos_token_id)
    ends = end_tokens(tokenizer, _end_ids(Path(where)), where)
    for add, token in zip(
        (writer.add_eos_token_id, writer.add_eot_token_id, writer.add_eom_token_id), ends, strict=False
    ):
        add(token)
    if tokenizer.unk_token_id is not None:
        writer.add_unk_token_id(tokenizer.unk_token_id)
    if tokenizer.pad_token_id is not None:
        writer.add_pad_token_id(tokenizer.pad_token_id)
    _add_templates(writer, tokenizer.chat_template)


def _add_templates(writer: Any, template: str | dict[str, str] | None) -> None:
    """The default template, and others under their names in llama.cpp's letters."""
    from gguf import Keys

    templates = {"default": template} if isinstance(template, str) else template or {}
    named = {re.sub("[^a-zA-Z0-9]", "_", name): text for name, text in templates.items() if name != "default"}
    for name in sorted(named):
        writer.add_string(Keys.Tokenizer.CHAT_TEMPLATE_N.format(name=name), named[name])
    if named:
        writer.add_array(Keys.Tokenizer.CHAT_TEMPLATES, sorted(named))
    if "default" in templates:
        writer.add_chat_template(templates["default"])


def _name(folder: Path) -> str:
    """The student's own name: its directory's, or the making's where that is only called student."""
    here = folder.resolve()
    return here.parent.name if here.name == "student" and here.parent.name else here.name


def _head_dim(config: Any) -> int:
    return int(getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads)


def _end_ids(folder: Path) -> list[int]:
    """The tokens that end an answer, by the generation config; [] where there is none."""
    path = folder / "generation_config.json"
    found = json.loads(path.read_text()).get("eos_token_id") if path.is_file() else None
    return found if isinstance(found, list) else [] if found is None else [found]


def _licence(folder: Path) -> str:
    """The licence that the model card's front matter names; "" where there is none."""
    card = folder / "README.md"
    found = re.match(r"---\n(?:.*\n)*?license: (.+)\n", card.read_text(encoding="utf-8")) if card.is_file() else None
    return found[1].strip().strip('"') if found else ""


class _Weights:
    """The tensors that transformers reads from a directory, read when asked for.

    It takes model.safetensors, else what the index names; whatever lies beside them is none of the model's.
    """

    def __init__(self, folder: Path) -> None:
        from safetensors import SafetensorError, safe_open

        self.shapes: dict[str, tuple[int, ...]] = {}
        self._files: dict[str, Any] = {}
        for path, wanted in _files(folder).items():
            try:
                file: Any = safe_open(path, framework="pt")
                for name in file.keys():  # noqa: SIM118 (not a mapping)
                    if wanted is None or name in wanted:
                        self.shapes[name] = tuple(file.get_slice(name).get_shape())
                        self._files[name] = file
            except (SafetensorError, OSError) as error:
                raise ModelError(str(path), f"cannot be read ({error})", "save the student again") from None

    def own_head(self) -> bool:
        """Whether there is a head with other values than the embedding's, which transformers keeps, tied or not."""
        if HEAD not in self.shapes or EMBEDDING not in self.shapes:
            return False
        return not torch.equal(self.read(HEAD), self.read(EMBEDDING))

    def read(self, name: str) -> torch.Tensor:
        """One tensor, as it is stored."""
        tensor: torch.Tensor = self._files[name].get_tensor(name)
        return tensor


def _files(folder: Path) -> dict[Path, frozenset[str] | None]:
    """The files of a directory's weights, with the tensors that are taken of each (None: all)."""
    if (folder / WHOLE).is_file():
        return {folder / WHOLE: None}
    if not (folder / INDEX).is_file():
        what = f"holds neither {WHOLE} nor {INDEX}"
        raise ModelError(str(folder), what, "write it with export --to hf first")
    try:
        places = json.loads((folder / INDEX).read_text())["weight_map"]
        files = {file: frozenset(n for n, at in places.items() if at == file) for file in sorted(set(places.values()))}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(str(folder / INDEX), f"is no index ({error})", "save the student again") from None
    if lost := next((file for file in files if not (folder / file).is_file()), None):
        raise ModelError(str(folder), f"lacks {lost}, which its index names", "save the student again")
    return {folder / file: tensors for file, tensors in files.items()}
