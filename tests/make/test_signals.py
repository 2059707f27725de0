"""The cache of a teacher's log-probabilities, and the student's directory."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from spiritsafe.errors import DataError
from spiritsafe.make.prune import prune
from spiritsafe.make.signals import Signals, capture, load_signals
from spiritsafe.make.student import save_student
from spiritsafe.models import open_model
from spiritsafe.models.local import LocalModel
from spiritsafe.record import Exchange


@pytest.fixture
def path(teacher: LocalModel, answers: list[Exchange], tmp_path: Path) -> Path:
    """A cache of the answers' top 5."""
    capture(teacher, answers, tmp_path / "signals" / "s.safetensors", top_k=5)
    return tmp_path / "signals" / "s.safetensors"


def load(path: Path, teacher: LocalModel, answers: list[Exchange]) -> Signals:
    """The cache, as it was captured."""
    return load_signals(path, teacher_digest=teacher.digest, exchanges=answers)


def test_what_is_captured_is_what_the_teacher_scores(teacher: LocalModel, answers: list[Exchange], path: Path) -> None:
    found = load(path, teacher, answers)
    for i, scores in enumerate(teacher.score(answers, top_k=5)):
        ids, logprobs = found.of(i)
        assert ids.tolist() == [list(row) for row in scores.top_ids]
        torch.testing.assert_close(logprobs, torch.tensor(scores.top_logprobs))


def test_a_cache_of_another_teacher_or_other_answers_names_both_sides(
    teacher: LocalModel, answers: list[Exchange], path: Path
) -> None:
    with pytest.raises(DataError, match=f"teacher is {teacher.digest}, expected another; delete it"):
        load_signals(path, teacher_digest="another", exchanges=answers)
    with pytest.raises(DataError, match=r"exchanges is \w{64}, expected \w{64}"):
        load(path, teacher, answers[::-1])


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.99])
def test_a_truncated_cache_is_one_line(teacher: LocalModel, answers: list[Exchange], path: Path, share: float) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    with pytest.raises(DataError, match=r"s\.safetensors: cannot be read") as caught:
        load(path, teacher, answers)
    assert "\n" not in str(caught.value)


def test_a_missing_cache_is_one_line(teacher: LocalModel, answers: list[Exchange], tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.safetensors: cannot be read") as caught:
        load(tmp_path / "none.safetensors", teacher, answers)
    assert "\n" not in str(caught.value)


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
