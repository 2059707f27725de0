"""What cannot become a student is refused at the teacher's stage, in one line, before anything is paid for."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer, GPT2Config, Qwen2MoeConfig

from spiritsafe.cli import main
from spiritsafe.errors import DataError, SpiritsafeError
from spiritsafe.make.verb.settings import LearnPart, MakeSettings
from spiritsafe.making import Options, make_student, settings_of
from spiritsafe.record import read_json
from tests.tiny import WORDS, write_tiny

SIZES: dict[str, Any] = {"vocab_size": 27, "hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 4}
EXPERTS: dict[str, Any] = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
GPT2 = GPT2Config(vocab_size=27, n_embd=32, n_layer=3, n_head=4, n_positions=64, eos_token_id=1, pad_token_id=1)
BY_NUMBER = Qwen2MoeConfig(
    **SIZES,
    **EXPERTS,
    num_hidden_layers=4,
    num_key_value_heads=2,
    shared_expert_intermediate_size=16,
    decoder_sparse_step=2,
    eos_token_id=1,
    pad_token_id=1,
)
SHORT = ("data.collect.sampling.max_tokens=6", "data.keep.finished=false", "make.epochs=1", "heldout.share=0")


@pytest.fixture
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tiny models, configs and prompts."""
    here = tmp_path_factory.mktemp("fits")
    tiny = write_tiny(here / "tiny", scale=1.5)
    tokenizer = AutoTokenizer.from_pretrained(tiny)
    for name, config in (("gpt2", GPT2), ("by-number", BY_NUMBER)):
        torch.manual_seed(0)
        AutoModelForCausalLM.from_config(config, dtype=torch.float32).save_pretrained(here / name)
        tokenizer.save_pretrained(here / name)
    plain = json.loads((tiny / "config.json").read_text()) | {"num_hidden_layers": 2}
    (here / "config.json").write_text(json.dumps(plain))
    (here / "vision.json").write_text(json.dumps({"model_type": "vit", "hidden_size": 32}))
    (here / "p.txt").write_text("\n".join(" ".join(WORDS[i : i + 3]) for i in range(8)) + "\n")
    return here


@pytest.fixture
def made(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """The directory of a making."""
    monkeypatch.chdir(folder)

    def make(teacher: str, method: str, student: str, *overrides: str) -> Path:
        settings = settings_of(teacher, Options("p.txt", method, student), [*SHORT, *overrides])
        make_student(settings, tmp_path / "made", resume=False)
        return tmp_path / "made"

    return make


REFUSED = {
    ("./gpt2", "text", "pruned:2", ()): r"--student pruned:2: cannot be cut into layers: its architecture \(gpt2\)",
    ("./by-number", "text", "pruned:3", ()): "a rule by the layer's number",
    ("./tiny", "text", "./gpt2", ("make.train=above-cut",)): "cannot be trained above a cut: .*take make.train=all",
    ("./tiny", "text", "config:vision.json", ()): "no language model's",
    ("./tiny", "text", "config:config.json", ("make.train=above-cut",)): "make.train would leave weights",
    (
        "./tiny",
        "text",
        "./tiny",
        ('make.lora.targets=["away"]', "make.lora.rank=2"),
    ): "lora.targets: the model has no away",
}


@pytest.mark.parametrize("wanted", REFUSED, ids=lambda w: " ".join([*w[:3], *w[3]]))
def test_an_impossible_student_is_refused_before_the_first_prompt(
    made: Callable[..., Path], tmp_path: Path, wanted: tuple[str, str, str, tuple[str, ...]]
) -> None:
    teacher, method, student, overrides = wanted
    with pytest.raises(SpiritsafeError, match=REFUSED[wanted]) as caught:
        made(teacher, method, student, *overrides)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "made" / "prompts.jsonl").exists()


@pytest.mark.parametrize("method", ["text", "online"])
def test_a_student_of_another_architecture_learns(made: Callable[..., Path], method: str) -> None:
    here = made("./tiny", method, "./gpt2")
    before, after = (load_file(part / "model.safetensors") for part in (Path("gpt2"), here / "student"))
    assert any(not torch.equal(before[name], after[name]) for name in before)


def test_no_tensor_of_a_student_by_a_config_stays_as_it_was_drawn(made: Callable[..., Path]) -> None:
    here = made("./tiny", "online", "config:config.json")
    start, student = (load_file(here / part / "model.safetensors") for part in ("start", "student"))
    assert start.keys() == student.keys()
    assert [name for name in start if torch.equal(start[name], student[name])] == []


@pytest.mark.parametrize("method", ["text", "gkd", "policy-gradient"])
def test_what_the_student_cannot_read_is_left_out_and_counted(
    made: Callable[..., Path], folder: Path, method: str
) -> None:
    (folder / "p.txt").write_text("one two\nred\ngreen blue\n" + " ".join(WORDS * 5) + "\n")  # 110 of gpt2's 64
    here = made("./tiny", method, "./gpt2", "make.own.max_tokens=6", "data.near.threshold=0.99")
    assert read_json(here / "stages" / "student.json")["notes"]["left_out"] == 1


def test_a_training_of_which_nothing_can_be_read_says_so(made: Callable[..., Path], folder: Path) -> None:
    (folder / "p.txt").write_text(" ".join(WORDS * 5) + "\n" + " ".join(WORDS[::-1] * 4) + "\n")
    with pytest.raises(DataError, match="none of 2 prompts or answers can be learned from"):
        made("./tiny", "text", "./gpt2", "data.near.threshold=0.99")


def test_only_a_part_of_its_teacher_is_trained_above_a_cut_unless_told_otherwise() -> None:
    given: dict[str, Any] = {"run": {"name": "a"}, "teacher": {"model": "fake:a"}, "prompts": "p", "method": "text"}
    assert MakeSettings(**given, student="pruned:2").make.train == "above-cut"
    assert MakeSettings(**given, student="./other").make.train == "all"
    assert MakeSettings(**given, student="config:c.json", make=LearnPart(epochs=3)).make.train == "all"
    assert MakeSettings(**given, student="./other", make=LearnPart(train="above-cut")).make.train == "above-cut"


def test_the_command_says_it_in_one_line(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    words = ["make", "./gpt2", "--prompts", "p.txt", "--method", "online", "--student", "pruned:2"]
    monkeypatch.setattr(sys, "argv", ["spiritsafe", *words, "-o", str(tmp_path / "made")])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 2
    assert "Traceback" not in capsys.readouterr().err
