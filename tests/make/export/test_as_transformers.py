"""GGUF export reads the weights that transformers reads, and writes whole names, ends and templates."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from gguf import GGUFReader
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from spiritsafe.errors import ModelError
from spiritsafe.make.export import export
from spiritsafe.make.student import save_student
from spiritsafe.models import open_model
from spiritsafe.models.local import load_parts
from tests.make.export.students import TEMPLATE, Student, write_student

IDS = torch.tensor([[3 + 7 * i % 400 for i in range(24)]])


@pytest.fixture
def student(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A student with a head of its own, in a making's directory."""
    monkeypatch.setenv("SPIRITSAFE_CACHE", str(tmp_path / "cache"))
    return write_student(tmp_path / "made-of-words" / "student", Student(tied=False))


def exported(student: Path) -> Path:
    """The student's GGUF file."""
    return export(student, student.parent / "x.gguf", "gguf-f16")


def apart(student: Path) -> float:
    """The largest difference of a log-probability between transformers' model and the GGUF file's."""
    theirs: Any = AutoModelForCausalLM.from_pretrained(student, dtype=torch.float32).eval()
    ours: Any = open_model(str(exported(student)))
    with torch.no_grad():
        wanted, found = (m(IDS).logits.log_softmax(-1) for m in (theirs, ours.model))
    return float((wanted - found).abs().max())


def fields(path: Path) -> dict[str, Any]:
    """A GGUF file's fields."""
    return {name: field.contents() for name, field in GGUFReader(path).fields.items()}


def changed(student: Path, name: str, **changes: Any) -> None:
    """Change keys of one of the student's JSON files."""
    path = student / name
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_an_older_file_beside_the_weights_is_not_read(student: Path) -> None:
    weights = load_file(student / "model.safetensors")
    save_file({name: w * 0 for name, w in weights.items()}, student / "zzz-old.safetensors", {"format": "pt"})
    save_file({"layers.0.attention.wq.weight": torch.zeros(2, 2)}, student / "consolidated.safetensors")
    assert apart(student) < 0.02


def test_old_shards_beside_an_index_are_not_read(student: Path) -> None:
    model = load_parts(student)[0]
    (student / "model.safetensors").unlink()
    model.save_pretrained(student, max_shard_size="200KB")
    shards = sorted(student.glob("model-*.safetensors"))
    assert len(shards) > 2
    stale = {name: w * 0 for name, w in load_file(shards[0]).items()}
    save_file(stale, student / "model-00009-of-00009.safetensors", {"format": "pt"})
    assert apart(student) < 0.02
    shards[1].unlink()
    with pytest.raises(ModelError, match=f"lacks {shards[1].name}, which its index names"):
        exported(student)


def test_an_own_head_is_kept_whatever_the_flag_says(student: Path) -> None:
    changed(student, "config.json", tie_word_embeddings=True)
    assert apart(student) < 0.02


def test_weights_that_are_no_safetensors_are_named(student: Path) -> None:
    torch.save(load_file(student / "model.safetensors"), student / "pytorch_model.bin")
    (student / "model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"holds neither model\.safetensors nor .*; write it with export --to hf"):
        exported(student)


def test_named_templates_go_along(student: Path) -> None:
    (student / "chat_template.jinja").unlink(missing_ok=True)
    templates = [{"name": "default", "template": TEMPLATE}, {"name": "tool_use", "template": "TOOLS " + TEMPLATE}]
    changed(student, "tokenizer_config.json", chat_template=templates)
    found = fields(exported(student))
    assert found["tokenizer.chat_template"] == TEMPLATE
    assert found["tokenizer.chat_template.tool_use"] == "TOOLS " + TEMPLATE
    assert found["tokenizer.chat_templates"] == ["tool_use"]


def test_every_token_that_ends_an_answer_is_named_or_refused(student: Path) -> None:
    ids = [load_parts(student)[1].convert_tokens_to_ids(t) for t in ("<end>", "<user>", "<begin>", "<assistant>")]
    changed(student, "generation_config.json", eos_token_id=ids[:3])
    found = fields(exported(student))
    names = ("eos", "eot", "eom")
    assert [found[f"tokenizer.ggml.{name}_token_id"] for name in names] == ids[:3]
    changed(student, "generation_config.json", eos_token_id=ids)
    with pytest.raises(ModelError, match="GGUF names three ends"):
        exported(student)


def test_a_student_without_an_end_is_refused(student: Path) -> None:
    changed(student, "generation_config.json", eos_token_id=None)
    changed(student, "tokenizer_config.json", eos_token=None)
    (student / "special_tokens_map.json").unlink(missing_ok=True)
    with pytest.raises(ModelError, match="has no end token"):
        exported(student)


def test_a_file_is_called_as_its_making(student: Path) -> None:
    assert fields(exported(student))["general.name"] == "made-of-words"
    other = shutil.copytree(student, student.parent / "little-one")
    assert fields(exported(other))["general.name"] == "little-one"


def test_an_adapter_beside_the_weights_is_not_left_out_silently(student: Path) -> None:
    (student / "adapter_config.json").write_text("{}")
    with pytest.raises(ModelError, match="holds an adapter beside its weights"):
        exported(student)


def test_a_model_with_an_adapter_put_in_is_not_saved_without_its_weights(student: Path, tmp_path: Path) -> None:
    from peft import LoraConfig

    model, tokenizer = load_parts(student)
    model.add_adapter(LoraConfig(r=2, target_modules=["q_proj"]))
    with pytest.raises(ModelError, match="carries an adapter"):
        save_student(model, tokenizer, tmp_path / "saved")
    assert not (tmp_path / "saved").exists()
