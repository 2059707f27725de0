"""One head and one loss, by us and by the peers, over the same inputs: `python -m bench._kd_losses PEER N KIND DTYPE
SOURCE` prints the peak of memory beyond the inputs, in MiB, of one such call in a process of its own.

All return (loss, gradient of the hidden states, gradient of the head) of the summed loss. Axes as in the
package: N tokens, D hidden, V vocabulary, K stored tokens.
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import log_softmax

from bench._real_states import real_states
from spiritsafe.make.head import head_loss
from spiritsafe.make.objective import Objective
from spiritsafe.make.signals import DenseSignal, SparseSignal

V, D, K = 49152, 576, 50
BETAS = {"fkl": 0.0, "rkl": 1.0, "jsd": 0.5}
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


@dataclass(frozen=True)
class Case:
    """Student and teacher, the teacher's top-50 in sparse cases; the divergence as TRL's `beta` names it."""

    beta: float
    hidden_ND: Tensor
    head_VD: Tensor
    dense: DenseSignal
    sparse: SparseSignal | None
    tokens_N: Tensor

    @property
    def objective(self) -> Objective:
        """`beta` 0 is forward KL, 1 reverse KL."""
        return {0.0: Objective(), 1.0: Objective("reverse-kl")}.get(self.beta) or Objective("jsd", beta=self.beta)


Result = tuple[float, Tensor, Tensor]
Loss = Callable[[Case], Result]


def make_case(num: int, kind: str, dtype: str, seed: int, source: str, *, beta: float | None = None) -> Case:
    """Inputs by `source`: `real` text, or `random` by seed with logits of about the same spread."""
    states = real_states(num) if source == "real" else None
    g = torch.Generator().manual_seed(seed)
    to = DTYPES[dtype]
    if states:
        hidden_ND, student, tokens_N = states.student_ND.to(to), states.head_VD.to(to), states.tokens_N
        dense = DenseSignal(states.teacher_ND.to(to), states.head_VD.to(to).clone())
    else:
        head_VD = torch.randn(V, D, generator=g) * 0.1
        theirs_VD = head_VD + 0.03 * torch.randn(V, D, generator=g)
        hidden_ND = torch.randn(num, D, generator=g)
        theirs_ND = hidden_ND + 0.3 * torch.randn(num, D, generator=g)
        dense = DenseSignal(theirs_ND.to(to), theirs_VD.to(to))
        tokens_N = torch.randint(0, V, (num,), generator=g)
        hidden_ND, student = hidden_ND.to(to), head_VD.to(to)
    if to == torch.bfloat16:
        student.grad_dtype = torch.float32
    return Case(
        beta=BETAS[kind.removeprefix("sparse ")] if beta is None else beta,
        hidden_ND=hidden_ND.requires_grad_(),
        head_VD=student.requires_grad_(),
        dense=dense,
        sparse=_top(dense) if kind.startswith("sparse") else None,
        tokens_N=tokens_N,
    )


def _top(dense: DenseSignal) -> SparseSignal:
    ids_NK, probs_NK = [], []
    for part_MD in torch.split(dense.hidden_NE, 256):
        top = (part_MD.float() @ dense.head_VE.float().T).softmax(-1).topk(K)
        ids_NK.append(top.indices)
        probs_NK.append(top.values)
    probs = torch.cat(probs_NK)
    return SparseSignal(torch.cat(ids_NK), probs, (1 - probs.sum(1)).clamp_min(1e-7))


def ours(case: Case) -> Result:
    """spiritsafe."""
    found = head_loss(case.hidden_ND, case.head_VD, case.tokens_N, case.objective, signal=case.sparse or case.dense)
    return _gradients(case, found.total)


def trl(case: Case) -> Result:
    """TRL's stable chunked divergence."""
    from trl.kernels.chunked_divergence import ChunkedDivergenceFunction

    signal = case.dense
    found = ChunkedDivergenceFunction.apply(
        case.hidden_ND, case.head_VD, None, signal.hidden_NE, signal.head_VE, None, case.beta
    )
    return _gradients(case, found[0].sum())


def trl_small(case: Case) -> Result:
    """The same with smaller tiles."""
    from trl.kernels import chunked_divergence as module

    before = module.TOKEN_CHUNK_SIZE, module.VOCAB_CHUNK_SIZE
    module.TOKEN_CHUNK_SIZE, module.VOCAB_CHUNK_SIZE = 128, 8192
    try:
        return trl(case)
    finally:
        module.TOKEN_CHUNK_SIZE, module.VOCAB_CHUNK_SIZE = before


def trl_gkd(case: Case) -> Result:
    """TRL GKD's loss on whole logits."""
    from trl.experimental.gkd import GKDTrainer

    logits_NV, theirs_NV = case.hidden_ND @ case.head_VD.T, case.dense.hidden_NE @ case.dense.head_VE.T
    loss = GKDTrainer.generalized_jsd_loss(logits_NV[None], theirs_NV[None], beta=case.beta, reduction="sum")
    return _gradients(case, loss)


def liger(case: Case, *, compiled: bool = False) -> Result:
    """Liger's fused linear loss, eager."""
    from liger_kernel.chunked_loss import LigerFusedLinearJSDLoss

    loss = LigerFusedLinearJSDLoss(0.0, 1.0, case.beta, compiled=compiled, chunk_size=256)
    found = loss(case.hidden_ND, case.head_VD, case.dense.hidden_NE, case.dense.head_VE, case.tokens_N)
    return _gradients(case, found * len(case.tokens_N))


def liger_compiled(case: Case) -> Result:
    """The same, compiled by TorchInductor."""
    return liger(case, compiled=True)


def full_sparse(case: Case) -> Result:
    """A sparse teacher on whole logits: log-softmax, gather, one bucket for the tail."""
    logq_NV = log_softmax((case.hidden_ND @ case.head_VD.T).float(), -1)
    assert case.sparse
    p_NK, logq_NK = case.sparse.probs_NK, logq_NV.gather(1, case.sparse.ids_NK)
    rest_N = (1 - logq_NK.exp().sum(1)).clamp_min(1e-7)
    head_N = (p_NK * (p_NK.clamp_min(1e-12).log() - logq_NK)).sum(1)
    tail_N = case.sparse.tail_N * (case.sparse.tail_N.clamp_min(1e-12).log() - rest_N.log())
    return _gradients(case, (head_N + tail_N).sum())


PEERS: dict[str, Loss] = {
    "ours": ours,
    "trl 1.16.0": trl,
    "trl 1.16.0 small tiles": trl_small,
    "trl 1.16.0 gkd": trl_gkd,
    "liger 0.8.5 eager": liger,
    "liger 0.8.5 compiled": liger_compiled,
    "full-logit sparse": full_sparse,
}


def exact(case: Case) -> Result:
    """By definition, in float64."""
    hidden_ND, head_VD = (x.detach().double().requires_grad_() for x in (case.hidden_ND, case.head_VD))
    total = 0.0
    for at in range(0, len(hidden_ND), 16):
        part = slice(at, at + 16)
        logq_MV = (hidden_ND[part] @ head_VD.T).log_softmax(-1)
        loss = _by_definition(case, logq_MV, part)
        torch.autograd.backward(loss)
        total += float(loss.detach())
    assert hidden_ND.grad is not None
    assert head_VD.grad is not None
    return total, hidden_ND.grad, head_VD.grad


def _by_definition(case: Case, logq_MV: Tensor, part: slice) -> Tensor:
    if case.sparse:
        sparse = case.sparse.rows(part)
        taken_MV = torch.zeros_like(logq_MV, dtype=torch.bool).scatter_(1, sparse.ids_NK, True)
        rest_M1 = logq_MV.masked_fill(taken_MV, -torch.inf).logsumexp(1, keepdim=True)
        logq = torch.cat([logq_MV.gather(1, sparse.ids_NK), rest_M1], 1)
        p = torch.cat([sparse.probs_NK, sparse.tail_N[:, None]], 1).double()
        return (p * (p.log() - logq)).sum()
    dense = case.dense.rows(part)
    logp_MV = (dense.hidden_NE.double() @ dense.head_VE.double().T).log_softmax(-1)
    p_MV, q_MV = logp_MV.exp(), logq_MV.exp()
    if case.beta == 0:
        return (p_MV * (logp_MV - logq_MV)).sum()
    if case.beta == 1:
        return (q_MV * (logq_MV - logp_MV)).sum()
    b = torch.tensor(case.beta, dtype=torch.double)
    mix_MV = torch.logaddexp(logp_MV + b.log(), logq_MV + (-b).log1p())
    return (b * p_MV * (logp_MV - mix_MV) + (1 - b) * q_MV * (logq_MV - mix_MV)).sum()


def _gradients(case: Case, loss: Any) -> Result:
    torch.autograd.backward(loss)
    found = float(loss.detach()), case.hidden_ND.grad, case.head_VD.grad
    case.hidden_ND.grad = case.head_VD.grad = None
    assert found[1] is not None
    assert found[2] is not None
    return found[0], found[1], found[2]


def _memory_mib(key: str) -> float:
    with open("/proc/self/status", encoding="ascii") as status:
        return next(int(line.split()[1]) for line in status if line.startswith(key)) / 1024


def main(peer: str, num: str, kind: str, dtype: str, source: str) -> None:
    """Warm up on a few tokens, forget the peak so far, run once."""
    PEERS[peer](make_case(32, kind, dtype, 1, source))
    case = make_case(int(num), kind, dtype, 0, source)
    with open("/proc/self/clear_refs", "w", encoding="ascii") as file:
        file.write("5")
    before = _memory_mib("VmRSS")
    PEERS[peer](case)
    print(_memory_mib("VmHWM") - before)


if __name__ == "__main__":
    main(*sys.argv[1:])
