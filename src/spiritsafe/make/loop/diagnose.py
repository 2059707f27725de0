"""A glance at how near the student is: figures of a few answer tokens, cheap enough to take while training.

Suffixes: N answer tokens, K tokens compared, D hidden, V vocabulary.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from spiritsafe.make.samples import Target
from spiritsafe.make.signals.kinds import DenseSignal, SparseSignal, TeacherSignal
from spiritsafe.models.logits import capped

NUM, TOP = 128, 16
Figures = dict[str, float]


def diagnose(hidden_ND: Tensor, head_VD: Tensor, targets: Sequence[Target], *, cap: float | None = None) -> Figures:
    """Means over the first `NUM` tokens of the first target that has a teacher.

    `overlap`: share of the teacher's `TOP` likeliest tokens that are among the student's. `teacher_mass`,
    `student_mass`: either's mass on them. `teacher_entropy` in nats; a sparse teacher's tail counts as one
    token there, so that it is a lower bound. `student_entropy`: of any target.
    """
    target = next((t for t in targets if t.signal is not None), targets[0])
    chosen = torch.arange(len(hidden_ND), device=hidden_ND.device)
    chosen = (chosen if target.rows is None else chosen[target.rows])[:NUM]
    with torch.no_grad():
        student_NV = _logprobs(hidden_ND[chosen], head_VD, cap)
        figures = {"student_entropy": float(_entropy(student_NV.exp()).mean())}
        return figures | ({} if target.signal is None else _beside(target.signal, student_NV))


def _beside(signal: TeacherSignal, student_NV: Tensor) -> Figures:
    few = signal.rows(slice(0, len(student_NV)))
    probs_NK, ids_NK, entropy_N = _dense(few) if isinstance(few, DenseSignal) else _sparse(few)
    student_ids_NK = student_NV.topk(probs_NK.shape[1]).indices
    known_NK = probs_NK > 0
    shared_NK = (ids_NK[:, :, None] == student_ids_NK[:, None, :]).any(-1) & known_NK
    on_them_NK = student_NV.exp().gather(1, ids_NK.clamp_min(0)) * known_NK
    return {
        "overlap": float((shared_NK.sum(1) / known_NK.sum(1)).mean()),
        "teacher_mass": float(probs_NK.sum(1).mean()),
        "student_mass": float(on_them_NK.sum(1).mean()),
        "teacher_entropy": float(entropy_N.mean()),
    }


def _dense(signal: DenseSignal) -> tuple[Tensor, Tensor, Tensor]:
    probs_NV = _logprobs(signal.hidden_NE.to(signal.head_VE.dtype), signal.head_VE, signal.cap).exp()
    top = probs_NV.topk(min(TOP, probs_NV.shape[1]))
    return top.values, top.indices, _entropy(probs_NV)


def _sparse(signal: SparseSignal) -> tuple[Tensor, Tensor, Tensor]:
    top = signal.probs_NK.topk(min(TOP, signal.probs_NK.shape[1]))
    whole_NK = torch.cat([signal.probs_NK, signal.tail_N[:, None]], 1)
    return top.values, signal.ids_NK.gather(1, top.indices), _entropy(whole_NK)


def _entropy(probs: Tensor) -> Tensor:
    entropy: Tensor = torch.special.entr(probs).sum(-1)
    return entropy


def _logprobs(hidden_ND: Tensor, head_VD: Tensor, cap: float | None) -> Tensor:
    return capped((hidden_ND @ head_VD.T).float(), cap).log_softmax(-1)
