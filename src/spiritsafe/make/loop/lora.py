"""Low-rank adapters (LoRA, arXiv 2106.09685) through `peft`; merged at the end, the student is a plain model."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from spiritsafe.errors import MissingExtra, RecipeError
from spiritsafe.make.depth import layers_of
from spiritsafe.recipe import LoraPart


@contextmanager
def adapted(model: Any, lora: LoraPart | None, *, first_trained: int, seed: int) -> Iterator[None]:
    """While this lasts the model has adapters, and only they are trained; nothing where `lora` is None.

    Layers before `first_trained` get none. Raises `RecipeError` for targets that the model does not have and
    for a head that is the embedding too.
    """
    if lora is None:
        yield
        return
    try:
        from peft import LoraConfig, get_peft_model
    except ModuleNotFoundError:
        raise MissingExtra("peft", "torch") from None
    check_lora(model, lora)
    config = LoraConfig(r=lora.rank, lora_alpha=lora.alpha, target_modules=_targets(model, lora, first_trained))
    with torch.random.fork_rng(), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # peft asks transformers by an old name
        torch.manual_seed(seed)
        try:
            wrapped = get_peft_model(model, config)
        except ValueError as error:
            raise RecipeError("lora.targets", str(error).splitlines()[0], "name linear layers of the model") from None
    try:
        yield
    finally:
        wrapped.merge_and_unload()


def check_lora(model: Any, lora: LoraPart) -> None:
    """Raises `RecipeError` for targets that the model does not have and for a head that is the embedding too."""
    names = {name.rpartition(".")[2] for name, _ in model.named_modules()}
    if not isinstance(lora.targets, str) and (lost := sorted(set(lora.targets) - names)):
        raise RecipeError("lora.targets", f"the model has no {lost[0]}", "name linear layers of the model")
    head, embedding = model.get_output_embeddings(), model.get_input_embeddings()
    name = next(name for name, module in model.named_modules() if module is head)
    if head.weight is embedding.weight and not isinstance(lora.targets, str) and name in lora.targets:
        hint = "leave it out, or train without adapters"
        raise RecipeError("lora.targets", f"{name} is the embedding too: one adapter would change both", hint)


def _targets(model: Any, lora: LoraPart, first_trained: int) -> str | list[str]:
    """The layers that get adapters; spelled out in full where only those above a cut do."""
    wanted = lora.targets if isinstance(lora.targets, str) else list(lora.targets)
    if not first_trained:
        return wanted
    modules = {id(m) for layer in layers_of(model)[first_trained:] for m in layer.modules()}
    above = [n for n, m in model.named_modules() if id(m) in modules and isinstance(m, nn.Linear)]
    return above if isinstance(wanted, str) else [n for n in above if n.rpartition(".")[2] in wanted]
