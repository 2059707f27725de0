"""A GGUF file is the student it was written from: to our reader, to transformers and to llama.cpp."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bench._llama_cpp import LlamaCpp
from spiritsafe.errors import ModelError
from spiritsafe.make.export import Kind, export
from spiritsafe.models import open_model
from spiritsafe.models.gguf import ENDS
from spiritsafe.models.gguf_form import llama3_factors, permute, unpermute
from spiritsafe.models.local import LocalModel, load_parts
from tests.make.export.students import LLAMA3, STUDENTS, TEXTS, Student, write_student
from tests.tiny import write_tiny

IDS = [3 + 7 * i % 400 for i in range(40)]


@pytest.fixture(scope="module", params=STUDENTS)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A student of each kind; read only."""
    return write_student(tmp_path_factory.mktemp(request.param) / "student", STUDENTS[request.param])


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache of the test's own."""
    monkeypatch.setenv("SPIRITSAFE_CACHE", str(tmp_path / "cache"))


def logprobs(model: Any, ids: list[int]) -> np.ndarray[Any, Any]:
    """Log-probabilities (T, V) after each token."""
    with torch.inference_mode():
        found: np.ndarray[Any, Any] = model(torch.tensor([ids])).logits[0].double().log_softmax(-1).numpy()
    return found


def divergence(true: np.ndarray[Any, Any], found: np.ndarray[Any, Any]) -> float:
    """Mean KL in nats per token."""
    return float((np.exp(true) * (true - found)).sum(-1).mean())


def test_our_reader_and_transformers_read_the_student_again(folder: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    path, true = export(folder, tmp_path / "x.gguf", "gguf-f16"), logprobs(load_parts(folder)[0], IDS)
    ours = open_model(str(path))
    assert isinstance(ours, LocalModel)
    assert np.abs(logprobs(ours.model, IDS) - true).max() < 0.02
    kind = load_parts(folder)[0].config.rope_parameters["rope_type"]
    if kind == "default":  # transformers leaves RoPE scaling out
        theirs = AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file="x.gguf", dtype=torch.float32)
        assert np.abs(logprobs(theirs, IDS) - true).max() < 0.02


def test_llama_cpp_computes_what_the_student_does(folder: Path, tmp_path: Path) -> None:
    model, tokenizer = load_parts(folder)
    true = logprobs(model, IDS)
    bounds: tuple[tuple[Kind, float, float], ...] = (("gguf-f16", 0.05, 1e-5), ("gguf-q8_0", 1.0, 1e-2))
    for kind, most, kl in bounds:
        path = export(folder, tmp_path / f"{kind}.gguf", kind)
        reader = LlamaCpp(path, num_tokens=model.config.vocab_size)
        found = reader.logprobs(IDS)
        assert np.abs(found - true).max() < most
        assert divergence(true, found) < kl
        for text in TEXTS:
            assert reader.tokens(text) == tokenizer(text, add_special_tokens=False)["input_ids"], text
            assert reader.tokens(text, special=True) == tokenizer(text)["input_ids"], text


def test_the_tokenizer_is_read_again_with_its_template(folder: Path, tmp_path: Path) -> None:
    found = open_model(str(export(folder, tmp_path / "x.gguf", "gguf-q8_0")))
    assert isinstance(found, LocalModel)
    tokenizer = load_parts(folder)[1]
    for text in TEXTS:
        assert found.tokenizer(text)["input_ids"] == tokenizer(text)["input_ids"]
    assert found.tokenizer.chat_template == tokenizer.chat_template
    # A GGUF's reader knows ends by name too, as llama.cpp does.
    names = [tokenizer.convert_ids_to_tokens(number) for number in found.end_ids]
    assert found.end_ids[0] == tokenizer.eos_token_id
    assert set(names[1:]) <= set(ENDS)


def test_rows_of_heads_are_put_back_where_they_were() -> None:
    weight = torch.arange(24.0 * 5).reshape(24, 5)
    assert torch.equal(unpermute(permute(weight, 3), 3), weight)
    assert permute(weight, 3)[:8, 0].tolist() == [5.0 * row for row in (0, 4, 1, 5, 2, 6, 3, 7)]


def test_llama_3_s_factors_are_those_of_transformers() -> None:
    from transformers import LlamaConfig
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    config = LlamaConfig(hidden_size=256, num_attention_heads=4, rope_parameters=LLAMA3)
    scaled, _ = ROPE_INIT_FUNCTIONS["llama3"](config, torch.device("cpu"))
    plain = 1 / 500000.0 ** (torch.arange(0, 64, 2) / 64)
    factors = llama3_factors(LLAMA3, 64)
    assert factors.min() == 1
    assert factors.max() == 8
    torch.testing.assert_close(plain / scaled, factors, rtol=1e-4, atol=0)


def test_q8_0_is_off_by_half_a_step_of_its_block_at_most(folder: Path, tmp_path: Path) -> None:
    again = open_model(str(export(folder, tmp_path / "x.gguf", "gguf-q8_0")))
    assert isinstance(again, LocalModel)
    found = again.model.state_dict()
    for name, weight in load_parts(folder)[0].state_dict().items():
        if weight.ndim == 1:
            assert torch.equal(found[name], weight)
            continue
        blocks, error = weight.reshape(-1, 32), (found[name] - weight).reshape(-1, 32).abs()
        step = blocks.abs().amax(1, keepdim=True) / 127
        assert (error <= step * (0.5 + 127 * 2**-11) + 1e-7).all(), name


@pytest.fixture
def student(tmp_path: Path) -> Path:
    """A plain student, to be spoilt."""
    return write_student(tmp_path / "student", Student())


def test_a_second_token_that_ends_an_answer_goes_along(student: Path) -> None:
    settings = student / "generation_config.json"
    end, turn = (load_parts(student)[1].convert_tokens_to_ids(token) for token in ("<end>", "<user>"))
    settings.write_text(json.dumps(json.loads(settings.read_text()) | {"eos_token_id": [end, turn]}))
    found = open_model(str(export(student, student.parent / "x.gguf", "gguf-f16")))
    assert isinstance(found, LocalModel)
    assert found.end_ids == (end, turn)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model_type": "gpt2"}, "its architecture is gpt2; GGUF is written for llama, qwen2, qwen3"),
        ({"hidden_act": "gelu"}, "its activation is gelu"),
        ({"rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}}, "scaled by dynamic"),
        (
            {"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e4, "factor": 2.0, "beta_fast": 16.0}},
            "its YaRN sets beta_fast",
        ),
        ({"vocab_size": 100}, r"the tokenizer has id \d+, the model 100 rows; resize its embeddings"),
        ({"num_hidden_layers": 3}, r"holds 20 of 29 tensors"),
        ({"model_type": "qwen3"}, r"holds 20 of 24 tensors"),
    ],
)
def test_what_llama_cpp_would_compute_otherwise_is_refused(student: Path, changes: dict[str, Any], said: str) -> None:
    config = json.loads((student / "config.json").read_text())
    (student / "config.json").write_text(json.dumps(config | changes))
    with pytest.raises(ModelError, match=said) as caught:
        export(student, student.parent / "x.gguf", "gguf-f16")
    assert "\n" not in str(caught.value)
    assert [p.name for p in student.parent.iterdir()] == ["student"]


@pytest.mark.parametrize(
    ("part", "change", "said"),
    [
        ("normalizer", {"type": "Lowercase"}, "normalises by Lowercase"),
        ("pre_tokenizer", {"type": "Whitespace"}, "no pre-tokenizer like its own"),
        ("pre_tokenizer", None, "no pre-tokenizer like its own"),
    ],
)
def test_a_tokenizer_that_llama_cpp_lacks_is_refused(
    student: Path, part: str, change: dict[str, Any] | None, said: str
) -> None:
    form = json.loads((student / "tokenizer.json").read_text())
    (student / "tokenizer.json").write_text(json.dumps(form | {part: change}))
    with pytest.raises(ModelError, match=said):
        export(student, student.parent / "x.gguf", "gguf-f16")


def test_a_tokenizer_of_words_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="its tokenizer is WordLevel; only byte-level BPE"):
        export(write_tiny(tmp_path / "tiny"), tmp_path / "x.gguf", "gguf-f16")


def test_a_weight_beyond_f16_is_refused_and_fits_q8_0(student: Path) -> None:
    model, _ = load_parts(student)
    with torch.no_grad():
        model.model.layers[1].mlp.up_proj.weight[3, 5] = 70000.0
    model.save_pretrained(student)
    with pytest.raises(ModelError, match=r"model\.layers\.1\.mlp\.up_proj\.weight holds values that F16 cannot"):
        export(student, student.parent / "x.gguf", "gguf-f16")
    assert export(student, student.parent / "x.gguf", "gguf-q8_0").is_file()
