"""Hidden states of real text: SmolLM2-135M-Instruct as teacher, itself without 6 of its 30 layers as student.

The text is GSM8K's test questions with their answers (`../shared/data`, read in place). Both models share the
teacher's head. 16,384 tokens take a minute or two, so they are kept in the user's cache for the processes of a bench.
"""

import json
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from spiritsafe.cache import cache_dir
from spiritsafe.make.depth import without_block
from spiritsafe.make.prune import prune
from spiritsafe.models import open_model

TEXT = Path(__file__).parents[2] / "shared" / "data" / "capability" / "gsm8k" / "test.jsonl"
KEEP = without_block(30, 12, 6)  # decision 006
FEW, MOST, LENGTH = 1024, 16384, 256


class States(NamedTuple):
    """Positions of real text and the token that follows each; the head is both models'."""

    student_ND: Tensor
    teacher_ND: Tensor
    tokens_N: Tensor
    head_VD: Tensor


def sources() -> tuple[str, ...]:
    """`real` where the text is at hand, and `random`."""
    return ("real", "random") if TEXT.exists() else ("random",)


def real_states(num: int) -> States:
    """The first `num` positions, at most 16,384; float32."""
    size = FEW if num <= FEW else MOST
    kept = cache_dir() / "bench" / f"gsm8k-{size}-{len(KEEP)}.pt"
    if not kept.exists():
        kept.parent.mkdir(parents=True, exist_ok=True)
        made = kept.with_suffix(".part")
        torch.save(_made(size), made)
        made.replace(kept)
    student_ND, teacher_ND, tokens_N, head_VD = torch.load(kept, mmap=True)
    return States(student_ND[:num].clone(), teacher_ND[:num].clone(), tokens_N[:num].clone(), head_VD.clone())


def _made(size: int) -> tuple[Tensor, ...]:
    teacher: Any = open_model("smollm2")
    rows = [json.loads(line) for line in TEXT.read_text(encoding="utf-8").splitlines()]
    text = "\n\n".join(row["question"] + "\n" + row["answer"] for row in rows[:160])
    ids_T = torch.tensor(teacher.tokenizer(text)["input_ids"])
    ids_BT = ids_T[: size + size // LENGTH].view(-1, LENGTH + 1)
    student = prune(teacher.model, KEEP)
    with torch.inference_mode():
        found = [
            torch.cat([model.model(input_ids=part_BT[:, :-1]).last_hidden_state for part_BT in torch.split(ids_BT, 8)])
            for model in (student, teacher.model)
        ]
    head_VD = teacher.model.lm_head.weight.detach().clone()
    return found[0].flatten(0, 1), found[1].flatten(0, 1), ids_BT[:, 1:].flatten().clone(), head_VD
