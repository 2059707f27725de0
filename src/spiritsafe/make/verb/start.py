"""Where a student begins: a copy of the teacher without some layers, any local model, or a config's random weights."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from spiritsafe.errors import ModelError, UsageError
from spiritsafe.make.prune import choose_cut, first_changed, prune
from spiritsafe.make.signals import tokenizer_digest
from spiritsafe.make.student import save_student
from spiritsafe.make.verb.settings import WHITE_BOX, LearnPart, MakeSettings, Student, parse_student
from spiritsafe.models import Model, open_model
from spiritsafe.models.local import LocalModel, open_directory
from spiritsafe.progress import Show
from spiritsafe.record import Exchange, file_digest


@dataclass(frozen=True)
class Cut:
    """Layers of the teacher that a pruned student keeps, and the KL of each block tried, by its first layer."""

    keep: tuple[int, ...]
    depth: int
    trials: dict[int, float]

    @property
    def first(self) -> int:
        """The first layer that follows another one than in the teacher."""
        return first_changed(self.keep)


def check_fits(settings: MakeSettings, teacher: Model) -> None:
    """Raises `UsageError` where the student has too many layers, or other tokens than a method can compare."""
    student = parse_student(settings.student)
    if not isinstance(teacher, LocalModel):
        return
    if student.kind == "pruned":
        depth = len(teacher.model.model.layers)
        if not 2 <= student.layers < depth:
            what = f"is no part of a teacher of {depth} layers"
            raise UsageError(f"--student {settings.student}", what, f"pruned:2 to pruned:{depth - 1}")
    elif settings.method in WHITE_BOX:
        own = student.kind == "model" or brings_tokenizer(student.source)
        tokenizer = own_tokenizer(student)[0] if own else teacher.tokenizer
        size = vocabulary(student)
        check_vocabulary(teacher, tokenizer, size)


def vocabulary(student: Student) -> int:
    """Rows of the head of a student that is no part of the teacher."""
    if student.kind == "config":
        return int(read_config(student.source).vocab_size)
    return rows_of_head(opened(student.source))


def rows_of_head(model: LocalModel) -> int:
    """How many tokens a model tells apart."""
    return int(model.model.get_output_embeddings().weight.shape[0])


def check_vocabulary(teacher: LocalModel, tokenizer: Any, rows: int) -> None:
    """Raises `UsageError` where a distribution over the teacher's tokens is none over the student's."""
    theirs = rows_of_head(teacher)
    if tokenizer_digest(teacher.tokenizer) == tokenizer_digest(tokenizer) and theirs == rows:
        return
    what = f"has other tokens than its teacher (vocabularies of {rows:,} and {theirs:,})"
    raise UsageError("--student", what, "take --method text or judged, or a student of the same tokenizer")


def cut_of(teacher: LocalModel, part: LearnPart, layers: int, exchanges: Sequence[Exchange], show: Show) -> Cut:
    """Which layers stay. Raises `UsageError` where the teacher has no such number."""
    depth = len(teacher.model.model.layers)
    if part.drop == "measured":
        pairs = [teacher.pair(e) for e in exchanges[: part.importance_prompts]]
        with show.bar("blocks of layers tried", layers - 1) as tick:
            found = choose_cut(teacher.model, pairs, num_layers=layers, pad_id=teacher.pad_id, tick=tick)
        return Cut(found.keep, depth, found.kl_by_start)
    keep = tuple(i for i in range(depth) if i not in part.drop)
    if len(keep) != layers:
        what = f"leaves {len(keep)} of the teacher's {depth} layers, and --student asks for {layers}"
        raise UsageError("make.drop", what, "make both say the same")
    return Cut(keep, depth, {})


def write_pruned(teacher: LocalModel, cut: Cut, folder: Path) -> None:
    """The teacher without the layers that are cut, as a directory."""
    save_student(prune(teacher.model, cut.keep), teacher.tokenizer, folder)


def write_random(source: str, tokenizer: Any, folder: Path, *, seed: int) -> None:
    """Random weights by a config, drawn with the seed, as a directory."""
    from transformers import AutoModelForCausalLM

    config = read_config(source)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    if len(tokenizer) > config.vocab_size:
        what = f"has a vocabulary of {config.vocab_size}, its tokenizer has {len(tokenizer)} tokens"
        raise ModelError(source, what, "raise vocab_size")
    save_student(model, tokenizer, folder)


def read_config(source: str) -> Any:
    """A transformers config from a `config.json` or the directory it is in. Raises `ModelError`."""
    from transformers import AutoConfig

    file = Path(source) / "config.json" if Path(source).is_dir() else Path(source)
    if not file.is_file():
        raise ModelError(source or "config:", "no such config", "name a config.json, or a directory that holds one")
    try:
        given = json.loads(file.read_text())
        return AutoConfig.for_model(given.pop("model_type"), **given)
    except (ValueError, KeyError, TypeError) as error:
        raise ModelError(
            str(file), f"is no config of a model ({error})", "model_type must be one of transformers'"
        ) from None


def own_tokenizer(student: Student) -> tuple[Any, int]:
    """A student's own tokenizer, and the size of its vocabulary. Raises `UsageError` where it brings none."""
    if student.kind == "model":
        model = opened(student.source)
        return model.tokenizer, int(model.model.config.vocab_size)
    if student.kind == "pruned" or not brings_tokenizer(student.source):
        what = "brings no tokenizer, and the teacher's is not at hand"
        raise UsageError(f"--student {student.kind}:{student.source}", what, "put tokenizer files beside the config")
    from transformers import AutoTokenizer

    config = read_config(student.source)
    return AutoTokenizer.from_pretrained(_beside(student.source), local_files_only=True), int(config.vocab_size)


def brings_tokenizer(source: str) -> bool:
    """Whether a tokenizer lies beside a config."""
    return (_beside(source) / "tokenizer_config.json").is_file()


def _beside(source: str) -> Path:
    return Path(source) if Path(source).is_dir() else Path(source).parent


def student_files(text: str) -> dict[str, str]:
    """Digests of a config that a student is made by."""
    kind, _, source = text.partition(":")
    file = Path(source) / "config.json" if Path(source).is_dir() else Path(source)
    return {"config": file_digest(file)} if kind == "config" and file.is_file() else {}


def opened(address: str) -> LocalModel:
    """A model whose weights are here. Raises `UsageError` where they are not."""
    model = open_model(address)
    if not isinstance(model, LocalModel):
        raise UsageError(address, "is no model whose weights are here", "name a local one")
    return model


def opened_folder(folder: Path) -> LocalModel:
    """A model of the making's own."""
    return open_directory(str(folder), str(folder))
