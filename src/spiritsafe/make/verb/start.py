"""Where a student begins: a copy of the teacher without some layers, any local model, or a config's random weights."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from spiritsafe.errors import ModelError, UsageError
from spiritsafe.make.prune import choose_cut, first_changed, num_layers_of, prune
from spiritsafe.make.signals import tokenizer_digest
from spiritsafe.make.student import save_student
from spiritsafe.make.verb.settings import LearnPart, Student
from spiritsafe.models import Model, open_model
from spiritsafe.models.local import LocalModel, open_directory
from spiritsafe.models.logits import num_rows, text_config
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


def check_vocabulary(teacher: LocalModel, tokenizer: Any, rows: int) -> None:
    """Raises `UsageError` where a distribution over the teacher's tokens is none over the student's."""
    theirs = num_rows(teacher.model)
    same = tokenizer_digest(teacher.tokenizer) == tokenizer_digest(tokenizer)
    if same and theirs == rows:
        return
    what = f"has other tokens than its teacher (vocabularies of {rows:,} and {theirs:,})"
    if same:
        what = f"has its teacher's tokens, but {rows:,} rows for them where the teacher has {theirs:,}"
    raise UsageError("--student", what, "take --method text or judged, or a student of the same tokenizer")


def cut_of(teacher: LocalModel, part: LearnPart, layers: int, exchanges: Sequence[Exchange], show: Show) -> Cut:
    """Which layers stay. Raises `UsageError` where the teacher has no such number."""
    depth = num_layers_of(teacher.model)
    if part.drop == "measured":
        pairs = [teacher.pair(e) for e in exchanges[: part.importance_prompts]]
        with show.bar("blocks of layers tried", layers - 1) as tick:
            found = choose_cut(teacher.model, pairs, num_layers=layers, pad_id=teacher.pad_id, tick=tick)
        return Cut(found.keep, depth, found.kl_by_start)
    return Cut(kept_by(part.drop, depth, layers), depth, {})


def kept_by(drop: Sequence[int], depth: int, layers: int) -> tuple[int, ...]:
    """The layers that stay of `depth` without those of `make.drop`. Raises `UsageError` where they are not `layers`."""
    keep = tuple(i for i in range(depth) if i not in drop)
    if len(keep) != layers:
        what = f"leaves {len(keep)} of the teacher's {depth} layers, and --student asks for {layers}"
        raise UsageError("make.drop", what, "make both say the same")
    return keep


def write_pruned(teacher: LocalModel, cut: Cut, folder: Path) -> None:
    """The teacher without the layers that are cut, as a directory."""
    save_student(prune(teacher.model, cut.keep), teacher.tokenizer, folder)


def write_random(source: str, tokenizer: Any, folder: Path, *, seed: int) -> None:
    """Random weights by a config, drawn with the seed, as a directory."""
    save_student(random_model(source, tokenizer, seed=seed), tokenizer, folder)


def random_model(source: str, tokenizer: Any, *, seed: int) -> Any:
    """Random weights by a config, drawn with the seed. Raises `ModelError` where it is no language model's."""
    from transformers import AutoModelForCausalLM

    config = read_config(source)
    if type(config) not in AutoModelForCausalLM._model_mapping:
        what = f"is the config of a {config.model_type}, which is no language model's"
        raise ModelError(source, what, "name the config of a causal language model")
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    if len(tokenizer) > config.vocab_size:
        what = f"has a vocabulary of {config.vocab_size}, its tokenizer has {len(tokenizer)} tokens"
        raise ModelError(source, what, "raise vocab_size")
    return model


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
        return model.tokenizer, int(text_config(model.model).vocab_size)
    if student.kind == "pruned" or not brings_tokenizer(student.source):
        what = "brings no tokenizer, and the teacher's is not at hand"
        raise UsageError(f"--student {student.kind}:{student.source}", what, "put tokenizer files beside the config")
    from transformers import AutoTokenizer

    config = read_config(student.source)
    return AutoTokenizer.from_pretrained(_beside(student.source), local_files_only=True), int(config.vocab_size)


def tokenizer_for(student: Student, teacher: Model) -> Any:
    """The tokenizer of a student made by a config: its own, else its teacher's. Raises as `own_tokenizer`."""
    if isinstance(teacher, LocalModel) and not brings_tokenizer(student.source):
        return teacher.tokenizer
    return own_tokenizer(student)[0]


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
