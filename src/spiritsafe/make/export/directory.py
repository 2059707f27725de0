"""A student as a Hugging Face directory of its own: what `transformers` loads, and its model card."""

from pathlib import Path

from spiritsafe.errors import UsageError, writing
from spiritsafe.make.student import save_student
from spiritsafe.models.local import load_parts

CARD = "README.md"


def export_directory(folder: Path, target: Path) -> Path:
    """Copy a student: sharded safetensors in the stored precision, configs, tokenizer, chat template, card.

    Raises `UsageError` where `target` is there already, unless it is an empty directory.
    """
    with writing(target, option="-o DIR"):
        if target.is_file() or (target.is_dir() and any(target.iterdir())):
            raise UsageError(str(target), "exists already", "name a new directory, or remove this one")
        model, tokenizer = load_parts(folder, dtype="auto")
        card = folder / CARD
        save_student(model, tokenizer, target, beside=[card] if card.is_file() else [])
    return target
