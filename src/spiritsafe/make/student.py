"""Write a student as a Hugging Face directory that loads in plain `transformers`."""

import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from spiritsafe.errors import ModelError, writing
from spiritsafe.models.quiet import quieten

MAX_SHARD = "4GB"


def save_student(model: Any, tokenizer: Any, target: Path, *, beside: Sequence[Path] = ()) -> None:
    """Weights as safetensors (sharded above 4 GB), configs, tokenizer and chat template; all or nothing.

    `beside` are files that go along, e.g. the model card. Raises `ModelError` for a model with an adapter put in.
    """
    quieten()
    if getattr(model, "_hf_peft_config_loaded", False):
        what = "carries an adapter, beside which its weights would not be saved"
        raise ModelError(type(model).__name__, what, "merge the adapter into it first")
    with writing(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}.", suffix=".tmp"))
        try:
            model.save_pretrained(scratch, max_shard_size=MAX_SHARD)
            tokenizer.save_pretrained(scratch)
            for file in beside:
                shutil.copyfile(file, scratch / file.name)
            scratch.chmod(0o755)
            shutil.rmtree(target, ignore_errors=True)
            scratch.rename(target)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
