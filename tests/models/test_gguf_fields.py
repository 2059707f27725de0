"""A GGUF file's fields: what llama.cpp can do without has its defaults, and what cannot be is one line, at once."""

import random
import struct
import time
from pathlib import Path
from typing import Any

import pytest
from gguf import GGUFReader, GGUFWriter

from spiritsafe.errors import ModelError
from spiritsafe.models import Request, open_model, user
from spiritsafe.models.gguf import convert_gguf
from spiritsafe.models.gguf_read import read_header
from spiritsafe.models.local import LocalModel
from spiritsafe.record import Sampling
from tests.models.test_gguf import TOKENS, llama, write_gguf


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole file; read only."""
    return write_gguf(tmp_path_factory.mktemp("gguf") / "x.gguf", llama())


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache of the test's own."""
    monkeypatch.setenv("SPIRITSAFE_CACHE", str(tmp_path / "cache"))


def changed(source: Path, target: Path, **changes: Any) -> Path:
    """The file with fields replaced, added or (None) left out; names with __ for dots."""
    header, reader = read_header(source), GGUFReader(source)
    fields = header.fields | {name.replace("__", "."): value for name, value in changes.items()}
    writer = GGUFWriter(target, fields.pop("general.architecture"))
    for name, value in fields.items():
        if isinstance(value, list):
            writer.add_array(name, value)
        elif isinstance(value, bool):
            writer.add_bool(name, value)
        elif isinstance(value, str):
            writer.add_string(name, value)
        elif isinstance(value, float):
            writer.add_float32(name, value)
        elif value is not None:
            writer.add_uint32(name, value)
    for tensor in reader.tensors:
        writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return target


def opened(path: Path) -> LocalModel:
    """A local model."""
    model = open_model(str(path))
    assert isinstance(model, LocalModel)
    return model


def test_the_header_is_what_the_format_s_own_reader_reads(written: Path) -> None:
    header, reader = read_header(written), GGUFReader(written)
    own = {name: field.contents() for name, field in reader.fields.items() if not name.startswith("GGUF.")}
    assert header.fields == own
    stored = {(t.name, tuple(reversed(t.shape.tolist())), int(t.data_offset), int(t.n_bytes)) for t in reader.tensors}
    assert {(t.name, t.shape, t.start, t.num_bytes) for t in header.tensors} == stored


def test_what_llama_cpp_can_do_without_has_its_defaults(written: Path, tmp_path: Path) -> None:
    optional = (
        "llama__rope__freq_base",
        *(f"tokenizer__ggml__{name}" for name in ("pre", "token_type", "eos_token_id")),
    )
    less: dict[str, Any] = dict.fromkeys(optional)
    model = opened(changed(written, tmp_path / "less.GGUF", **less))
    assert model.model.config.rope_parameters["rope_theta"] == 10_000
    assert model.end_ids == ()
    assert model.generate([Request(user("ab"), Sampling(seed=1, max_tokens=3))])[0].usage.completion_tokens == 3


def test_an_answer_ends_at_each_token_that_is_known_to_end_one(written: Path, tmp_path: Path) -> None:
    tokens = [*TOKENS[:-2], "<|im_end|>", "<|endoftext|>"]
    named = {"tokenizer__ggml__tokens": tokens, "tokenizer__ggml__merges": ["a b"]}
    model = opened(changed(written, tmp_path / "ends.gguf", **named))
    assert model.end_ids == (0, len(TOKENS) - 2, len(TOKENS) - 1)
    assert model.tokenizer("a<|im_end|>")["input_ids"][-1] == len(TOKENS) - 2


def test_named_templates_keep_their_names(written: Path, tmp_path: Path) -> None:
    both = {"tokenizer__chat_template": "{{ 1 }}", "tokenizer__chat_template.rag": "{{ 2 }}"}
    model = opened(changed(written, tmp_path / "named.gguf", **both))
    assert model.tokenizer.chat_template == {"default": "{{ 1 }}", "rag": "{{ 2 }}"}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"split__count": 2, "split__no": 0}, "is part 1 of 2; join the parts"),
        ({"general__type": "adapter"}, "is no model but of the type 'adapter'"),
        ({"llama__block_count": 1}, "llama.block_count is '1', expected 2, the layers that are there"),
        ({"llama__block_count": 2**31 - 1}, "llama.block_count is '2147483647', expected 2, the layers that are"),
        ({"llama__block_count": 2**32 - 1}, "llama.block_count is '4294967295', expected a whole number"),
        ({"llama__attention__head_count": 0}, "llama.attention.head_count is '0', expected a whole number above 0"),
        ({"llama__attention__head_count": 3}, "llama.attention.head_count_kv is '2', expected a divisor of 3"),
        ({"llama__rope__freq_base": float("nan")}, "llama.rope.freq_base is 'nan', expected a number above 0"),
        ({"llama__attention__layer_norm_rms_epsilon": -1.0}, "layer_norm_rms_epsilon is '-1.0', expected a number"),
        ({"llama__embedding_length": 2**30}, "shapes do not fit: token_embd.weight is"),
        ({"llama__attention__key_length": 2**30}, "shapes do not fit: blk.0.attn_q.weight is"),
        ({"tokenizer__ggml__eos_token_id": 10**6}, "tokenizer.ggml.eos_token_id is '1000000', expected a token below"),
        ({"tokenizer__ggml__merges": ["zz"]}, "tokenizer.ggml.merges is 'zz', expected two tokens"),
        ({"tokenizer__ggml__merges": ["a zz"]}, "cannot be read"),
        ({"tokenizer__ggml__tokens": ["a", "a"]}, "tokenizer.ggml.tokens is"),
        ({"tokenizer__chat_template": ["x"]}, "tokenizer.chat_template is"),
        ({"general__type": "a\nb\x1b[31m"}, "is no model but of the type"),
        ({"general__architecture": "a\nb\x1b[31m"}, "architecture/tokenizer a b"),
        ({"llama__context_length": None}, "lacks the field 'llama.context_length'"),
    ],
)
def test_fields_that_cannot_be_are_named(written: Path, tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ModelError) as caught:
        open_model(str(changed(written, tmp_path / "y.gguf", **changes)))
    assert said in str(caught.value)
    assert str(caught.value).isprintable()


def test_a_big_endian_file_is_said_to_be_one(written: Path, tmp_path: Path) -> None:
    data = written.read_bytes()
    (tmp_path / "big.gguf").write_bytes(data[:4] + struct.pack(">I", 3) + data[8:])
    with pytest.raises(ModelError, match="is a big-endian GGUF file"):
        open_model(str(tmp_path / "big.gguf"))


def test_a_header_changed_anywhere_is_read_or_one_line_in_time(written: Path, tmp_path: Path) -> None:
    data, draw = written.read_bytes(), random.Random(0)
    start = min(tensor.start for tensor in read_header(written).tensors)
    path = tmp_path / "z.gguf"
    for number in range(120):
        broken = bytearray(data)
        for _ in range(draw.choice([1, 1, 3])):
            place = draw.randrange(start)
            value = draw.choice([0, 1, 255, 2**31, 2**32, 2**40, 2**64 - 1])
            piece = draw.choice([bytes([draw.randrange(256)]), struct.pack("<Q", value)])
            broken[place : place + len(piece)] = piece
        path.write_bytes(broken[: len(data)])
        started, said = time.process_time(), ""
        try:
            convert_gguf(path, tmp_path / str(number))
        except ModelError as error:
            said = str(error)
        assert "\n" not in said
        assert time.process_time() - started < 20
