"""Losses per token, in nats. Reducing over tokens is the loop's job.

Suffixes name axes: N answer tokens, V vocabulary, K the teacher's top-k.
"""

from torch import Tensor
from torch.nn.functional import cross_entropy, log_softmax


def text_loss(logits_NV: Tensor, targets_N: Tensor) -> Tensor:
    """Cross-entropy with the tokens of a text, shape (N): all that an outsider can train on."""
    return cross_entropy(logits_NV.float(), targets_N, reduction="none")


def sparse_forward_kl(logits_NV: Tensor, ids_NK: Tensor, logprobs_NK: Tensor) -> Tensor:
    """KL(teacher || student) over the teacher's top-k tokens and one bucket for all others, shape (N).

    The bucket makes it a divergence between two distributions: never negative, zero only where head and
    tail agree; a truncated sum over the head alone is neither. It bounds the full KL from below.
    """
    student_NK = log_softmax(logits_NV.float(), -1).gather(-1, ids_NK)
    teacher_tail_N = _tail(logprobs_NK)
    student_tail_N = _tail(student_NK)
    head_N = (logprobs_NK.exp() * (logprobs_NK - student_NK)).sum(-1)
    return head_N + teacher_tail_N * (teacher_tail_N.log() - student_tail_N.log())


def _tail(logprobs_NK: Tensor) -> Tensor:
    """Mass outside the head, kept above float32's rounding of a sum near 1."""
    return (1 - logprobs_NK.exp().sum(-1)).clamp_min(1e-6)
