"""Logits as the model computes them: what an architecture does to its head's product before it tells it.

    logits = cap * tanh(scale * (hidden @ weight.T + bias) / cap)

Granite divides, Cohere multiplies, Gemma 2, 3n and 4 cap, Phi adds a bias. Which of these a model does is measured
once on its own forward pass, not looked up by its name; what has another form is refused. Suffixes: N positions,
D hidden, V vocabulary.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from spiritsafe.errors import ModelError

# Tokens of the trial: real states at the first, and states drawn at random, small and huge, at the others.
REAL, DRAWN = 7, 4
# A cap c changes a product of this size by less than its rounding for every c above 0.1.
SMALL = 1e-4
# Every cap in use (3 to 100) is reached long before.
HUGE = 1e5
HINT = "name a model of another architecture"


@dataclass(frozen=True)
class LogitForm:
    """What follows the head's product; `cap` is None where nothing is capped."""

    scale: float = 1.0
    cap: float | None = None

    def of(self, product_NV: Tensor) -> Tensor:
        """Logits of the head's product, in the product's dtype."""
        scaled_NV = product_NV if self.scale == 1 else product_NV * self.scale
        return capped(scaled_NV, self.cap)


def capped(logits_NV: Tensor, cap: float | None) -> Tensor:
    """Logits bent towards +-`cap`, as Gemma 2 bends them; themselves without one."""
    return logits_NV if cap is None else cap * torch.tanh(logits_NV / cap)


_known: "WeakKeyDictionary[nn.Module, LogitForm]" = WeakKeyDictionary()


def logits_of(model: Any, hidden_ND: Tensor) -> Tensor:
    """The model's logits (N, V) of its final hidden states. Raises `ModelError` as `logit_form` does."""
    return logit_form(model).of(model.get_output_embeddings()(hidden_ND))


def logit_form(model: Any) -> LogitForm:
    """How the model makes logits of its head's product; tried out once a model, with a few tokens.

    Raises `ModelError` where it has no head, does something of another form, or gives NaN.
    """
    if model not in _known:
        training = model.training
        model.eval()
        try:
            with torch.no_grad():
                _known[model] = _tried(model)
        except (AttributeError, IndexError, NotImplementedError, RuntimeError, TypeError, ValueError) as error:
            first = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise ModelError(type(model).__name__, f"cannot be run as a language model ({first})", HINT) from None
        finally:
            model.train(training)
    return _known[model]


def text_config(model: Any) -> Any:
    """The config of the language model, which is a part of the whole where the model sees or hears as well."""
    return model.config.get_text_config()


def num_rows(model: Any) -> int:
    """How many tokens a model tells apart: the rows of its head."""
    return int(model.get_output_embeddings().weight.shape[0])


def _tried(model: Any) -> LogitForm:
    head, name = model.get_output_embeddings(), type(model).__name__
    if head is None or getattr(head, "weight", None) is None:
        raise ModelError(name, "has no head that gives a logit for each token", HINT)
    device, rows = head.weight.device, len(head.weight)
    ids_1T = (torch.arange(REAL + 2 * DRAWN, device=device) * 7 + 3)[None] % min(rows, _embedded(model, rows))
    own_TD = model.base_model(input_ids=ids_1T, use_cache=False).last_hidden_state[0]
    states_TD = torch.cat([own_TD[:REAL], _drawn(head, own_TD)])
    with _ending_in(model, states_TD) as seen:
        told_TV = model(input_ids=ids_1T, use_cache=False).logits[0].double()
    if not told_TV.isfinite().all():
        raise ModelError(
            name, "gives logits that are NaN or infinite", "its weights are broken: fetch or train it again"
        )
    product_TV = head(states_TD).double()
    rounding = 2e-2 if head.weight.dtype in (torch.bfloat16, torch.float16) else 1e-4
    form = _fitted(model, product_TV[REAL:], told_TV[REAL:], rounding)
    most = rounding * told_TV.abs().amax(-1, keepdim=True).clamp_min(SMALL)
    if not ((form.of(product_TV) - told_TV).abs() <= most).all() or _apart(seen[0], own_TD, rounding):
        what = "its logits are more than its hidden states times a head, with a bias, a scale and a cap"
        raise ModelError(name, what, HINT)
    return form


def _fitted(model: Any, product_TV: Tensor, told_TV: Tensor, rounding: float) -> LogitForm:
    """By the small states the scale, by the huge ones the cap; both as the config has them, where it does."""
    small_TV, huge_TV = product_TV[:DRAWN], product_TV[DRAWN:]
    clear_TV = small_TV.abs() > small_TV.abs().max() / 2
    scale = _as_written(float((told_TV[:DRAWN] / small_TV)[clear_TV].median()), model, rounding)
    reached = float(told_TV[DRAWN:].abs().max())
    if reached > float((scale * huge_TV).abs().max()) / 2:
        return LogitForm(scale)
    return LogitForm(scale, _as_written(reached, model, rounding))


def _as_written(measured: float, model: Any, rounding: float) -> float:
    """The config's number, or its inverse, that a measured one is up to rounding; itself where none is."""
    values = [float(v) for v in text_config(model).to_dict().values() if type(v) in (int, float) and v]
    near = [v for v in (1.0, *values, *(1 / v for v in values)) if abs(v - measured) <= rounding * abs(measured)]
    return min(near, key=lambda v: abs(v - measured), default=measured)


def _drawn(head: Any, like_TD: Tensor) -> Tensor:
    """Random states whose products are small, then some whose products are huge, (2 * DRAWN, D)."""
    generator = torch.Generator().manual_seed(0)
    states_ND = torch.randn(DRAWN, like_TD.shape[1], generator=generator).to(like_TD)
    bias = getattr(head, "bias", None)
    size = (head(states_ND) - (0 if bias is None else bias)).abs().max().clamp_min(1e-30)
    return torch.cat([states_ND * (SMALL / size), states_ND * (HUGE / size)])


@contextmanager
def _ending_in(model: Any, states_TD: Tensor) -> Iterator[list[Tensor]]:
    """While this lasts the trunk's result is replaced by given states; its own are in the list."""
    seen: list[Tensor] = []

    def replace(_: nn.Module, given: Any, out: Any) -> Any:
        seen.append(out.last_hidden_state[0])
        out.last_hidden_state = states_TD[None]
        return out

    # OPT's head asks the decoder inside its trunk.
    trunks = {id(trunk): trunk for trunk in (model.get_decoder(), model.base_model)}
    hooks = [trunk.register_forward_hook(replace) for trunk in trunks.values()]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


def _embedded(model: Any, rows: int) -> int:
    """Rows of the embedding, which may be other than the head's."""
    weight = getattr(model.get_input_embeddings(), "weight", None)
    return rows if weight is None else len(weight)


def _apart(found: Tensor, wanted: Tensor, rounding: float) -> bool:
    return bool((found.double() - wanted.double()).norm() > rounding * wanted.double().norm())
