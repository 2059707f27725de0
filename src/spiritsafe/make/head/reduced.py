"""The loss of a token as a function of a few logits and one mass: all that a sparse teacher or a text needs.

Everything outside the teacher's tokens counts by its log-mass alone, which the kernel sums over exactly those
tokens: no difference of nearly equal sums. Solved in float64. Axes: M tokens, K the teacher's tokens and the
text's own.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from spiritsafe.make.objective import Objective
from spiritsafe.make.signals.kinds import SparseSignal

LEAST = 1e-12


@dataclass(frozen=True)
class Reduced:
    """`ids_MK` (-1: none); `text_M` is the column of the text's token; `probs_MK`, `rest_M` the teacher's masses."""

    ids_MK: Tensor
    text_M: Tensor
    probs_MK: Tensor | None
    rest_M: Tensor | None
    outside_MK: Tensor
    objective: Objective

    def solve(
        self, logits_MK: Tensor, mass_M: Tensor, plain_mass_M: Tensor | None, weights_M: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        """Losses (M); the weighted slopes by the logits (M, K), by the mass (M), and by the unscaled mass.

        `mass_M` is the log-mass outside `ids_MK` of logits divided by the temperature, `plain_mass_M` of the
        logits themselves, where both are needed.
        """
        with torch.enable_grad():
            given = [logits_MK, mass_M, *([] if plain_mass_M is None else [plain_mass_M])]
            inputs = [x.detach().double().requires_grad_() for x in given]
            losses_M = self._losses(inputs[0], inputs[1], inputs[-1])
            slopes = torch.autograd.grad((losses_M * weights_M).sum(), inputs)
        found = [s.float().contiguous() for s in slopes]
        return losses_M.detach().float(), found[0], found[1], found[2] if plain_mass_M is not None else None

    def _losses(self, logits_MK: Tensor, mass_M: Tensor, plain_mass_M: Tensor) -> Tensor:
        objective = self.objective
        text = objective.cross_entropy
        losses_M = torch.zeros_like(mass_M)
        missing_MK = self.ids_MK < 0
        if objective.divergence:
            scaled_MK = (logits_MK / objective.temperature).masked_fill(missing_MK, -torch.inf)
            losses_M = losses_M + (1 - text) * self._divergence(scaled_MK, mass_M)
        if text:
            plain_MK = logits_MK.masked_fill(missing_MK, -torch.inf)
            whole_M = torch.logaddexp(torch.logsumexp(plain_MK, 1), plain_mass_M)
            losses_M = losses_M + text * (whole_M - logits_MK.gather(1, self.text_M[:, None])[:, 0])
        return losses_M

    def _divergence(self, scaled_MK: Tensor, mass_M: Tensor) -> Tensor:
        """Between the teacher's and the student's masses on each stored token and on all others together."""
        assert self.probs_MK is not None
        assert self.rest_M is not None
        whole_M = torch.logaddexp(torch.logsumexp(scaled_MK, 1), mass_M)
        others_MK = scaled_MK.masked_fill(~self.outside_MK, -torch.inf)
        rest_M = torch.logsumexp(torch.cat([others_MK, mass_M[:, None]], 1), 1)
        logq_MK = torch.cat([scaled_MK, rest_M[:, None]], 1) - whole_M[:, None]
        p_MK = torch.cat([self.probs_MK, self.rest_M[:, None]], 1).double()
        counts_MK = torch.cat(
            [~(self.outside_MK | (self.ids_MK < 0)), torch.ones_like(rest_M, dtype=torch.bool)[:, None]], 1
        )
        logq_MK = logq_MK.masked_fill(~counts_MK, 0.0)
        return _terms(p_MK, logq_MK, self.objective).masked_fill(~counts_MK, 0.0).sum(1)


def reduced(signal: SparseSignal | None, tokens_M: Tensor, objective: Objective, *, pad: int = 0) -> Reduced:
    """The reduced loss of `tokens_M`, the last `pad` of which are only there to fill a tile."""
    num = len(tokens_M)
    if signal is None:
        column_M = torch.zeros(num, dtype=torch.long)
        return Reduced(
            tokens_M[:, None].contiguous(), column_M, None, None, torch.zeros(num, 1, dtype=torch.bool), objective
        )
    ids_MK = _filled(signal.ids_NK, pad, -1)
    probs_MK, rest_M = _filled(signal.probs_NK, pad, 0.0), _filled(signal.tail_N, pad, 1.0)
    if not objective.cross_entropy:
        return Reduced(
            ids_MK,
            torch.zeros(num, dtype=torch.long),
            probs_MK,
            rest_M,
            torch.zeros_like(ids_MK, dtype=torch.bool),
            objective,
        )
    known_M, column_M = (ids_MK == tokens_M[:, None]).max(1)
    extra_M1 = torch.where(known_M, -1, tokens_M)[:, None]
    ids_MK, probs_MK = torch.cat([ids_MK, extra_M1], 1), torch.nn.functional.pad(probs_MK, (0, 1))
    outside_MK = torch.zeros_like(ids_MK, dtype=torch.bool)
    outside_MK[:, -1] = ~known_M
    text_M = torch.where(known_M, column_M, ids_MK.shape[1] - 1)
    return Reduced(ids_MK, text_M, probs_MK, rest_M, outside_MK, objective)


def _terms(p: Tensor, logq: Tensor, objective: Objective) -> Tensor:
    """What each mass adds to the divergence; a teacher's mass of 0 counts as `LEAST` in logarithms."""
    logp, q, b = p.clamp_min(LEAST).log(), logq.exp(), objective.beta
    match objective.divergence:
        case "forward-kl":
            return p * (logp - logq)
        case "reverse-kl":
            return q * (logq - logp)
        case "tv":
            return (p - q).abs() / 2
    logm = (b * p + (1 - b) * q).clamp_min(LEAST).log()
    if objective.divergence == "skew-kl":
        return p * (logp - logm)
    return b * p * (logp - logm) + (1 - b) * q * (logq - logm)


def _filled(x: Tensor, rows: int, value: float) -> Tensor:
    return torch.cat([x, x.new_full((rows, *x.shape[1:]), value)]) if rows else x.contiguous()
