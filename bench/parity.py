"""Losses and gradients beside TRL's own, in float32: its chunked divergence and the GKD trainer's loss.

`loss_rel_diff` and `grad_rel_diff` (the larger of the hidden states' and the head's) compare us with TRL;
`loss_err` and `grad_err` compare both with float64 by definition, so that a difference says whose it is.
`limit_rel_diff` is how far JSD / min(beta, 1 - beta) is from the KL that it tends to, per token in the
Euclidean norm, ours and that of float64: the direct test against swapped directions. Not covered: bf16 (see
`kd_loss`), sparse teachers, which TRL does not have. Random inputs alone where the text is not at hand.
"""

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor

from bench._kd_losses import PEERS, Case, Result, exact, make_case
from bench._real_states import sources
from bench._schema import Row, main, note
from spiritsafe.make.head import head_loss

NUM = 128
NEAR = 1e-4
BETAS = (0.0, NEAR, 0.1, 0.5, 0.9, 1 - NEAR, 1.0)
TRL = ("trl 1.16.0", "trl 1.16.0 gkd")


def measure(seed: int) -> list[Row]:
    """Real text and random inputs, every beta."""
    rows: list[Row] = []
    for source in sources():
        base = make_case(NUM, "fkl", "fp32", seed, source)
        for beta in BETAS:
            rows += compared(f"{source} beta={beta:g}", replace(base, beta=beta))
        rows += [limit_of(f"{source} beta={beta:g}", base, beta) for beta in (NEAR, 1 - NEAR)]
    return rows


def compared(case: str, given: Case) -> Iterator[Row]:
    """Four rows a peer."""
    own, wanted = PEERS["ours"](given), exact(given)
    for peer in TRL:
        theirs = PEERS[peer](given)
        note(f"{case} {peer}: loss {loss_diff(own, theirs):.1e}, gradient {grad_diff(own, theirs):.1e}")
        yield Row(f"{case} from {peer}", "loss_rel_diff", loss_diff(own, theirs), n=NUM)
        yield Row(f"{case} from {peer}", "grad_rel_diff", grad_diff(own, theirs), n=NUM)
        for metric, diff in {"loss_err": loss_diff, "grad_err": grad_diff}.items():
            mine, their = diff(own, wanted), diff(theirs, wanted)
            yield Row(case, metric, mine, peer, their, their / max(mine, 1e-12), n=NUM)


def limit_of(case: str, base: Case, beta: float) -> Row:
    """The KL is ours, exact in these digits; float64's JSD has its own distance to it, of order beta."""
    end = replace(base, beta=round(beta))
    near_N, end_N = losses(replace(base, beta=beta)) / min(beta, 1 - beta), losses(end)
    return Row(case, "limit_rel_diff", float((near_N - end_N).norm() / end_N.norm()), n=NUM)


def losses(case: Case) -> Tensor:
    """Per token."""
    with torch.no_grad():
        found = head_loss(case.hidden_ND, case.head_VD, case.tokens_N, case.objective, signal=case.dense)
    return found.losses_N.double()


def loss_diff(a: Result, b: Result) -> float:
    """Of the summed losses, relative."""
    return abs(a[0] - b[0]) / abs(b[0])


def grad_diff(a: Result, b: Result) -> float:
    """The larger of two relative differences, in the Euclidean norm."""
    pairs = zip(a[1:], b[1:], strict=True)
    return max(float((x.double() - y.double()).norm() / y.double().norm()) for x, y in pairs)


if __name__ == "__main__":
    main("parity", measure)
