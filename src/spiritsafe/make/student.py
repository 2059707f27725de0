"""Write a student as a Hugging Face directory that loads in plain `transformers`."""

import shutil
import tempfile
from pathlib import Path
from typing import Any

from spiritsafe.errors import writing


def save_student(model: Any, tokenizer: Any, target: Path) -> None:
    """Weights as safetensors, config, generation config, tokenizer and chat template; all or nothing."""
    with writing(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}.", suffix=".tmp"))
        try:
            model.save_pretrained(scratch)
            tokenizer.save_pretrained(scratch)
            scratch.chmod(0o755)
            shutil.rmtree(target, ignore_errors=True)
            scratch.rename(target)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
