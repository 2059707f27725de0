"""An exported directory is the student for plain transformers; nothing half-written is left, whatever happens."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from spiritsafe.errors import ModelError, RunError, UsageError
from spiritsafe.make import student as student_file
from spiritsafe.make.export import KINDS, Kind, export, kind_of
from spiritsafe.models import open_model
from spiritsafe.models.local import load_parts
from tests.make.export.students import Student, write_student

LOAD = """
import sys, warnings
warnings.simplefilter("error")
from transformers import AutoModelForCausalLM, AutoTokenizer
tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])
model = AutoModelForCausalLM.from_pretrained(sys.argv[1])
messages = [{"role": "user", "content": "What is copper used for?"}]
inputs = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt", return_dict=True)
answer = model.generate(**inputs, max_new_tokens=4)
print(answer.shape[1] - inputs["input_ids"].shape[1])
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A student with a model card."""
    written = write_student(tmp_path / "in" / "student", Student())
    (written / "README.md").write_text('---\nlicense: "apache-2.0"\n---\n# A student\n')
    return written


def test_it_is_the_same_student_with_its_card(folder: Path, tmp_path: Path) -> None:
    out = export(folder, tmp_path / "out", "hf")
    assert open_model(str(out)).digest == open_model(str(folder)).digest
    assert (out / "README.md").read_text() == (folder / "README.md").read_text()
    assert {"config.json", "generation_config.json", "tokenizer.json", "chat_template.jinja"} <= {
        p.name for p in out.iterdir()
    }


@pytest.mark.slow
def test_transformers_loads_it_without_a_word(folder: Path, tmp_path: Path) -> None:
    out = export(folder, tmp_path / "out", "hf")
    command = [sys.executable, "-c", LOAD, str(out)]
    quiet = {"HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "PATH": ""}
    done = subprocess.run(command, capture_output=True, text=True, env=quiet, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, "4"), done.stderr
    assert [line for line in done.stderr.splitlines() if "Loading weights" not in line] == []


def test_stored_precision_is_kept(folder: Path, tmp_path: Path) -> None:
    model, _ = load_parts(folder)
    model.to(torch.bfloat16).save_pretrained(folder)
    out = export(folder, tmp_path / "out", "hf")
    assert json.loads((out / "config.json").read_text())["dtype"] == "bfloat16"
    assert load_parts(out, dtype="auto")[0].dtype == torch.bfloat16


def test_weights_above_a_size_come_in_several_files(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(student_file, "MAX_SHARD", "100KB")
    out = export(folder, tmp_path / "out", "hf")
    assert len([*out.glob("model-*.safetensors")]) > 2
    found, true = load_parts(out)[0].state_dict(), load_parts(folder)[0].state_dict()
    assert found.keys() == true.keys()
    assert all(torch.equal(found[name], weight) for name, weight in true.items())
    assert export(out, tmp_path / "x.gguf", "gguf-f16").is_file()


def test_the_card_s_licence_goes_into_the_gguf_file(folder: Path, tmp_path: Path) -> None:
    from gguf import GGUFReader

    fields = GGUFReader(export(folder, tmp_path / "x.gguf", "gguf-f16")).fields
    assert fields["general.license"].contents() == "apache-2.0"
    assert fields["general.file_type"].contents() == 1


@pytest.mark.parametrize("kind", KINDS)
def test_a_full_disk_and_a_sealed_one_are_one_line_and_leave_nothing(
    folder: Path, tmp_path: Path, kind: Kind, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="file/deep/out: Not a directory"):
        export(folder, tmp_path / "file" / "deep" / "out", kind)

    def refuse(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace" if kind != "hf" else "shutil.copyfile", refuse)
    with pytest.raises(RunError, match="No space left on device; free some disk space") as caught:
        export(folder, tmp_path / "out", kind)
    assert "\n" not in str(caught.value)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "in"]


def test_what_is_there_already_is_kept(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter").write_text("dear")
    with pytest.raises(UsageError, match="exists already; name a new directory"):
        export(folder, tmp_path / "mine", "hf")
    with pytest.raises(RunError, match="Is a directory"):
        export(folder, tmp_path / "mine", "gguf-f16")
    assert [p.name for p in (tmp_path / "mine").iterdir()] == ["letter"]
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []


def test_no_student_and_no_such_kind_are_said_so(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no such directory; name a student's directory"):
        export(tmp_path / "none", tmp_path / "out")
    with pytest.raises(ModelError, match=r"holds no config\.json"):
        export(tmp_path / "in", tmp_path / "out")
    with pytest.raises(UsageError, match="--to gguf-q4: is not known; one of hf, gguf-f16, gguf-q8_0"):
        kind_of("gguf-q4")
