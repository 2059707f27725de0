"""A GGUF file is the model it was written from; a broken one is one line."""

import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType, GGUFWriter, quantize
from transformers import LlamaConfig, LlamaForCausalLM

from spiritsafe.errors import ModelError
from spiritsafe.models import ask, open_model, user
from spiritsafe.models.gguf import convert_gguf
from spiritsafe.models.gguf_form import LAYER_NAMES, TOP_NAMES
from spiritsafe.models.local import LocalModel
from spiritsafe.record import Sampling

HEADS, KV_HEADS = 4, 2
MERGES = ["a b", "ab c", "1 2"]


def byte_letters() -> list[str]:
    """The printable letters that byte-level BPE writes bytes with (GPT-2)."""
    from tokenizers.pre_tokenizers import ByteLevel

    return sorted(ByteLevel.alphabet())


TOKENS = ["<end>", "<pad>", *byte_letters(), *(m.replace(" ", "") for m in MERGES)]


def llama(*, tied: bool = True, width: int = 48) -> Any:
    """A random Llama with grouped queries; `width` of its MLP."""
    torch.manual_seed(0)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(TOKENS),
            hidden_size=32,
            intermediate_size=width,
            num_hidden_layers=2,
            num_attention_heads=HEADS,
            num_key_value_heads=KV_HEADS,
            max_position_embeddings=64,
            rope_theta=5000.0,
            initializer_range=0.3,
            tie_word_embeddings=tied,
        )
    ).eval()


def permuted(weight: np.ndarray, heads: int) -> np.ndarray:
    """Rows of q or k as llama.cpp's converter orders them."""
    rows, columns = weight.shape
    return weight.reshape(heads, 2, rows // heads // 2, columns).swapaxes(1, 2).reshape(rows, columns)


def gguf_tensors(model: Any) -> dict[str, np.ndarray]:
    """The model's weights under GGUF's names."""
    ours = {theirs: name for name, theirs in LAYER_NAMES.items()}
    tops = {theirs: name for name, theirs in TOP_NAMES.items()}
    tensors: dict[str, np.ndarray] = {}
    for name, weight in model.state_dict().items():
        array = weight.numpy()
        if part := re.fullmatch(r"model\.layers\.(\d+)\.(.+)\.weight", name):
            if "q_proj" in name or "k_proj" in name:
                array = permuted(array, HEADS if "q_proj" in name else KV_HEADS)
            tensors[f"blk.{part[1]}.{ours[part[2]]}.weight"] = array
        elif name != "lm_head.weight" or not model.config.tie_word_embeddings:
            tensors[tops[name]] = array
    return tensors


def write_gguf(
    path: Path,
    model: Any,
    *,
    architecture: str = "llama",
    pre: str = "gpt-2",
    without: str = "",
    extra: str = "",
    scaling: dict[str, str | float] | None = None,
    storage: GGMLQuantizationType = GGMLQuantizationType.F32,
) -> Path:
    """Write a model as llama.cpp's converter does; `without` and `extra` name a tensor to lose or to add.

    `scaling` are fields below `llama.rope.scaling`; `storage` is that of matrices.
    """
    writer, config = GGUFWriter(path, architecture), model.config
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    if without != "rope":
        writer.add_rope_freq_base(5000.0)
    for name, value in (scaling or {}).items():
        add = writer.add_string if isinstance(value, str) else writer.add_float32
        add(f"llama.rope.scaling.{name}", value)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(TOKENS)
    writer.add_token_types([3, 3] + [1] * (len(TOKENS) - 2))
    writer.add_token_merges(MERGES)
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(0)
    writer.add_pad_token_id(1)
    tensors = gguf_tensors(model)
    if extra:
        tensors[extra] = np.arange(1, 5, dtype=np.float32)
    for name, array in tensors.items():
        if name != without:
            kind = storage if array.ndim > 1 else GGMLQuantizationType.F32
            writer.add_tensor(name, quantize(np.ascontiguousarray(array, np.float32), kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of the test's own."""
    monkeypatch.setenv("SPIRITSAFE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.mark.parametrize("tied", [True, False])
def test_a_gguf_file_gives_the_logits_of_its_source(tmp_path: Path, tied: bool) -> None:
    source = llama(tied=tied)
    found = open_model(str(write_gguf(tmp_path / "x.gguf", source)))
    assert isinstance(found, LocalModel)
    ids = torch.randint(0, len(TOKENS), (2, 20), generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        torch.testing.assert_close(found.model(ids).logits, source(ids).logits, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("storage", "most"), [("F16", 2**-11), ("BF16", 2**-8), ("Q8_0", 2**-7)])
def test_every_storage_that_others_write_is_read(tmp_path: Path, storage: str, most: float) -> None:
    source = llama(width=64)
    found = open_model(str(write_gguf(tmp_path / "x.gguf", source, storage=GGMLQuantizationType[storage])))
    assert isinstance(found, LocalModel)
    for name, weight in found.model.state_dict().items():
        true = source.state_dict()[name]
        assert (weight - true).abs().max() <= most * true.abs().max(), name
        assert (weight.ndim == 1) == torch.equal(weight, true)


def test_rope_scaling_is_honoured_and_what_is_not_known_refused(tmp_path: Path) -> None:
    scaling: dict[str, str | float] = {"type": "linear", "factor": 4.0}
    found = open_model(str(write_gguf(tmp_path / "x.gguf", llama(), scaling=scaling)))
    assert isinstance(found, LocalModel)
    rope = found.model.config.rope_parameters
    assert (rope["rope_type"], rope["factor"], rope["rope_theta"]) == ("linear", 4.0, 5000.0)
    assert found.model.model.rotary_emb.inv_freq[0] == 0.25
    with pytest.raises(ModelError, match="scales RoPE by 'longrope'; only linear, yarn and Llama 3"):
        open_model(str(write_gguf(tmp_path / "y.gguf", llama(), scaling={"type": "longrope", "factor": 4.0})))
    plain: dict[str, str | float] = {"type": "yarn", "factor": 4.0, "original_context_length": 16.0}
    with pytest.raises(ModelError, match=r"sets llama\.rope\.scaling\.attn_factor; only plain YaRN is read"):
        open_model(str(write_gguf(tmp_path / "z.gguf", llama(), scaling={**plain, "attn_factor": 2.0})))
    with pytest.raises(ModelError, match=r"rope_freqs\.weight is not Llama 3\.1's scaling"):
        open_model(str(write_gguf(tmp_path / "f.gguf", llama(), extra="rope_freqs.weight")))


def test_its_tokenizer_is_byte_level_bpe_with_its_merges_and_end(tmp_path: Path) -> None:
    found = open_model(str(write_gguf(tmp_path / "x.gguf", llama())))
    assert isinstance(found, LocalModel)
    ids = found.tokenizer("abc12 ü<end>")["input_ids"]
    assert [TOKENS[i] for i in ids] == ["abc", "12", "Ġ", "Ã", "¼", "<end>"]
    assert found.tokenizer.decode(ids, skip_special_tokens=True) == "abc12 ü"
    assert (found.end_ids, found.pad_id) == ((0,), 1)


def test_digits_are_split_where_its_pre_tokenizer_splits_them(tmp_path: Path) -> None:
    found = open_model(str(write_gguf(tmp_path / "x.gguf", llama(), pre="smollm")))
    assert isinstance(found, LocalModel)
    assert [TOKENS[i] for i in found.tokenizer("abc12")["input_ids"]] == ["abc", "1", "2"]


def test_a_character_of_several_tokens_is_streamed_whole(tmp_path: Path) -> None:
    found = open_model(str(write_gguf(tmp_path / "x.gguf", llama())))
    pieces: list[str] = []
    requests = ask([user("ab")], Sampling(seed=0, max_tokens=60), n=4)
    exchanges = found.generate(requests, on_text=lambda _, piece: pieces.append(piece))
    assert sorted("".join(pieces)) == sorted("".join(e.answer for e in exchanges))


def test_it_is_converted_once(tmp_path: Path, cache: Path) -> None:
    path = write_gguf(tmp_path / "x.gguf", llama())
    first = open_model(str(path))
    [folder] = (cache / "models").iterdir()
    before = folder.stat().st_mtime_ns
    again = open_model(str(shutil.copy(path, tmp_path / "y.gguf")))
    assert again.digest == first.digest
    assert [p.stat().st_mtime_ns for p in (cache / "models").iterdir()] == [before]


def test_what_a_killed_conversion_left_is_gone_at_the_next_open(tmp_path: Path, cache: Path) -> None:
    path = write_gguf(tmp_path / "x.gguf", llama())
    for _ in range(2):  # the second time nothing is converted
        leftover = cache / "models" / ".converting-a1b2c3d4"
        leftover.mkdir(parents=True)
        (leftover / "model.safetensors").write_bytes(b"half")
        open_model(str(path))
        assert not leftover.exists()


def test_a_file_cut_anywhere_is_one_line_and_leaves_nothing_in_the_cache(tmp_path: Path, cache: Path) -> None:
    data = write_gguf(tmp_path / "x.gguf", llama()).read_bytes()
    cuts = [0, 3, 4, 8, 20, 30, *(int(len(data) * share) for share in (0.01, 0.05, 0.1, 0.3, 0.6, 0.9)), len(data) - 1]
    for cut in cuts:
        path = tmp_path / "cut.gguf"
        path.write_bytes(data[:cut])
        with pytest.raises(ModelError, match=r"cut\.gguf: is (not a GGUF file|truncated)") as caught:
            open_model(str(path))
        assert "\n" not in str(caught.value)
    assert [*(cache / "models").iterdir()] == []


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"architecture": "gemma"}, "architecture/tokenizer gemma/gpt2; only llama/gpt2, qwen2/gpt2, qwen3/gpt2"),
        ({"pre": "tekken"}, "pre-tokenizer tekken; only gpt-2, smollm"),
        ({"without": "blk.1.ffn_up.weight"}, r"lacks the tensors of model\.layers\.1\.mlp\.up_proj"),
        ({"extra": "blk.0.attn_q.bias"}, r"unknown tensor blk\.0\.attn_q\.bias"),
        ({"extra": "rope_factors_long.weight"}, r"unknown tensor rope_factors_long\.weight"),
    ],
)
def test_what_does_not_fit_is_named(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ModelError, match=said):
        open_model(str(write_gguf(tmp_path / "x.gguf", llama(), **changes)))


def test_a_tensor_of_another_shape_is_one_line(tmp_path: Path) -> None:
    model = llama()
    model.model.norm.weight = torch.nn.Parameter(torch.ones(7))
    with pytest.raises(ModelError, match="shapes do not fit") as caught:
        open_model(str(write_gguf(tmp_path / "x.gguf", model)))
    assert "\n" not in str(caught.value)


def test_a_storage_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    path, model = tmp_path / "x.gguf", llama()
    write_gguf(path, model)
    data = path.read_bytes()
    name = b"blk.0.ffn_up.weight"
    kind = data.index(name) + len(name) + 4 + 2 * 8
    path.write_bytes(data[:kind] + int(GGMLQuantizationType.I32).to_bytes(4, "little") + data[kind + 4 :])
    with pytest.raises(ModelError, match=r"blk\.0\.ffn_up\.weight is stored as I32"):
        convert_gguf(path, tmp_path / "out")


def test_no_file_and_another_file_are_said_so(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no such file"):
        open_model(str(tmp_path / "none.gguf"))
    (tmp_path / "a.gguf").write_bytes(b"PK\x03\x04 a zip")
    with pytest.raises(ModelError, match="is not a GGUF file"):
        open_model(str(tmp_path / "a.gguf"))
