"""A student leaves the house: as a Hugging Face directory, or as one GGUF file for llama.cpp and its kin."""

from pathlib import Path
from typing import Literal, get_args

from spiritsafe.errors import ModelError, UsageError

Kind = Literal["hf", "gguf-f16", "gguf-q8_0"]
KINDS: tuple[Kind, ...] = get_args(Kind)


def kind_of(name: str) -> Kind:
    """The kind of that name. Raises `UsageError` where there is none."""
    for kind in KINDS:
        if kind == name:
            return kind
    raise UsageError(f"--to {name}", "is not known", f"one of {', '.join(KINDS)}")


def export(folder: Path, target: Path, kind: Kind = "hf") -> Path:
    """Write the student in `folder` (a Hugging Face directory) to `target`, all or nothing; returns `target`.

    Raises `UsageError` where a directory is in the way, `ModelError` where the student cannot be written in
    this form, `RunError` where the disk is full or `target` may not be written.
    """
    if not (folder / "config.json").is_file():
        what = "holds no config.json" if folder.is_dir() else "no such directory"
        raise ModelError(str(folder), what, "name a student's directory, e.g. runs/NAME/student")
    if kind == "hf":
        from spiritsafe.make.export.directory import export_directory

        return export_directory(folder, target)
    from spiritsafe.make.export.gguf import write_gguf

    return write_gguf(folder, target, "q8_0" if kind == "gguf-q8_0" else "f16")
