"""A student's directory."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from spiritsafe.make.prune import prune
from spiritsafe.make.student import save_student
from spiritsafe.models import open_model
from spiritsafe.models.local import LocalModel


@pytest.fixture
def student(teacher: LocalModel, tmp_path: Path) -> tuple[Any, Path]:
    """A pruned model and where it was saved."""
    made = prune(teacher.model, (0, 3))
    save_student(made, teacher.tokenizer, tmp_path / "student")
    return made, tmp_path / "student"


def test_a_student_s_directory_loads_in_plain_transformers(teacher: LocalModel, student: tuple[Any, Path]) -> None:
    model, folder = student
    plain, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    turns = [{"role": "user", "content": "one two"}]
    ids = tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_tensors="pt", return_dict=False)
    with torch.inference_mode():
        torch.testing.assert_close(plain(ids).logits, model(ids).logits)
        assert plain.generate(ids, max_new_tokens=3, do_sample=False).shape[0] == 1
    assert plain.config.num_hidden_layers == 2
    assert plain.generation_config.eos_token_id == teacher.model.generation_config.eos_token_id


def test_a_student_is_written_whole_and_over_an_older_one(teacher: LocalModel, student: tuple[Any, Path]) -> None:
    _, folder = student
    (folder / "stale").write_text("")
    save_student(prune(teacher.model, (0, 1, 3)), teacher.tokenizer, folder)
    assert not (folder / "stale").exists()
    assert [p.name for p in folder.parent.iterdir()] == ["student"]
    found = open_model(str(folder))
    assert isinstance(found, LocalModel)
    assert found.model.config.num_hidden_layers == 3
