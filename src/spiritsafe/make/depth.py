"""What a model is without some of its layers, and whether its config can say so.

Configs say things layer by layer in several ways: a list with an entry for each layer, the numbers of some layers,
how many of the first ones differ, a rule by the layer's number. The first three follow the layers that stay. What
comes of it is compared with the model that transformers builds by the new config, on the meta device: where they
differ, the copy would not be read again as it was measured, and the cut is refused.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

# How many of the first layers are of another kind.
FIRST = ("first_k_dense_replace", "max_window_layers", "num_dense_layers", "moe_layer_start_index")
# Lists that have nothing to do with layers, of whatever length.
NOT_BY_LAYER = ("architectures", "token_id", "token_ids")
Settings = dict[str, Any]


def layers_of(model: Any) -> Any:
    """The model's layers. Raises `AttributeError` where `why_no_layers` gives a reason."""
    return model.base_model.layers


def why_no_layers(model: Any) -> str:
    """Why a model's layers cannot be told apart; "" where they can: they lie in a row before a last norm."""
    trunk = model.base_model
    layers, norm = getattr(trunk, "layers", None), getattr(trunk, "norm", None)
    if isinstance(layers, nn.ModuleList) and norm is not None and len(layers) == model.config.num_hidden_layers:
        return ""
    return f"its architecture ({model.config.model_type}) does not keep its layers in a row before a last norm"


def settings_without(config: Any, keep: Sequence[int]) -> Settings:
    """The config's settings that change when only the layers `keep` stay, in order."""
    depth, found = config.num_hidden_layers, Settings(num_hidden_layers=len(keep))
    for name, value in vars(config).items():
        if name.startswith("_") or name.endswith(NOT_BY_LAYER):
            continue
        if isinstance(value, list | tuple) and len(value) == depth:
            found[name] = type(value)(value[i] for i in keep)
        elif _numbers(name, value, depth):
            found[name] = [place for place, layer in enumerate(keep) if layer in value]
        elif name in FIRST and type(value) is int and value < depth:
            found[name] = sum(layer < value for layer in keep)
    return found


@contextmanager
def layers_left(model: Any, keep: Sequence[int]) -> Iterator[None]:
    """Run a model with only the layers `keep` for a while; nothing is copied."""
    layers, changed = layers_of(model), settings_without(model.config, keep)
    before = {name: getattr(model.config, name) for name in changed}
    numbers = [(part, part.layer_idx) for part in layers.modules() if type(getattr(part, "layer_idx", None)) is int]
    try:
        model.base_model.layers = nn.ModuleList([layers[i] for i in keep])
        for name, value in changed.items():
            setattr(model.config, name, value)
        for number, layer in enumerate(model.base_model.layers):
            for part in layer.modules():
                if type(getattr(part, "layer_idx", None)) is int:
                    part.layer_idx = number
        yield
    finally:
        model.base_model.layers = layers
        for name, value in before.items():
            setattr(model.config, name, value)
        for part, number in numbers:
            part.layer_idx = number


def why_not_without(model: Any, keep: Sequence[int]) -> str:
    """Why a copy with only the layers `keep` would be read again as another model; "" where it would not."""
    with layers_left(model, keep):
        config = model.config
        try:
            again = type(config).from_dict(config.to_dict())
            with torch.device("meta"):
                twin = type(model)._from_config(again, attn_implementation=config._attn_implementation)
        except (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError) as error:
            first = (str(error).strip().splitlines() or [type(error).__name__])[0]
            return f"its config does not allow it ({first})"
        ours, theirs = config.to_dict(), again.to_dict()
        if other := next((name for name in ours if ours[name] != theirs.get(name)), None):
            return f"its config's {other} would be read otherwise"
        mine, built = _form(model), _form(twin)
        if other := next(
            (name for name in sorted(mine.keys() | built.keys()) if mine.get(name) != built.get(name)), ""
        ):
            return f"its {other} would be another: its config has a rule by the layer's number"
    return ""


def cuts(model: Any, num_layers: int) -> tuple[list[int], str]:
    """Where a block can begin that leaves `num_layers`, first and last always kept, and why others cannot."""
    depth = model.config.num_hidden_layers
    size, reason, known, starts = depth - num_layers, "", dict[str, str](), []
    for start in range(1, num_layers):
        keep = without_block(depth, start, size)
        alike = repr((settings_without(model.config, keep), [_kinds(model)[i] for i in keep]))
        if alike not in known:
            known[alike] = why_not_without(model, keep)
        reason = reason or known[alike]
        if not known[alike]:
            starts.append(start)
    return starts, reason


def without_block(depth: int, start: int, size: int) -> tuple[int, ...]:
    """Layer numbers of a model of `depth` layers without the block of `size` that begins at `start`."""
    return tuple(i for i in range(depth) if not start <= i < start + size)


def _numbers(name: str, value: Any, depth: int) -> bool:
    """Whether a setting is a list of layers' numbers."""
    by_layer = isinstance(value, list) and bool(value) and ("layer" in name or "block" in name)
    return by_layer and all(type(v) is int and 0 <= v < depth for v in value)


def _kinds(model: Any) -> list[str]:
    """What kind of layer each is, its number left out."""
    return [repr({k: v for k, v in _plain_parts(layer).items() if v}) for layer in layers_of(model)]


def _form(model: Any) -> Settings:
    """All that a model was built with: its parts' classes and plain settings, and its tensors' shapes."""
    shapes = {f"tensor {name}": tuple(t.shape) for name, t in model.state_dict().items()}
    return shapes | {f"part {name}": found for name, found in _plain_parts(model, number=True).items()}


def _plain_parts(whole: nn.Module, *, number: bool = False) -> Settings:
    simple = (int, float, str, bool, type(None))
    parts: Settings = {}
    for name, part in whole.named_modules():
        if isinstance(part, PreTrainedModel):
            continue
        held = {k: v for k, v in vars(part).items() if k[0] != "_" and k != "training" and isinstance(v, simple)}
        parts[name] = (type(part).__name__, held if number else {k: v for k, v in held.items() if k != "layer_idx"})
    return parts
