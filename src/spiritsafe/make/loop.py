"""The one training loop; it does not know which method runs.

AdamW on float32 master weights, token-normalised loss, linear warm-up and decay, clipping. A checkpoint
holds the trained weights, the optimiser and the step; a killed run continues to bit-identical weights on
one machine. Not covered here: several processes, gradient accumulation, weight averaging.
"""

import io
import pickle
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from spiritsafe.errors import DataError
from spiritsafe.make.batches import Batch, collate, order
from spiritsafe.make.methods import Method
from spiritsafe.make.prune import layers_left
from spiritsafe.models.scoring import Pair
from spiritsafe.recipe import MakePart
from spiritsafe.record import digest_of, write_atomic

OnStep = Callable[[dict[str, float | int]], None]


def train(
    model: Any,
    pairs: Sequence[Pair],
    method: Method,
    part: MakePart,
    *,
    seed: int,
    pad_id: int,
    first_trained: int = 0,
    checkpoint: Path | None = None,
    on_step: OnStep = lambda metrics: None,
) -> None:
    """Train `model` in place on (prompt ids, answer ids); layers below `first_trained` stay as they are.

    `on_step` gets step, loss (nats per answer token), tokens, lr, grad_norm and elapsed_s of every step
    not seen before a resume. Raises `DataError` for a checkpoint of other settings.
    """
    weights = trained_weights(model, part.train, first_trained)
    optimizer = torch.optim.AdamW(weights, lr=part.learning_rate, weight_decay=part.weight_decay, betas=(0.9, 0.95))
    steps = order(len(pairs), epochs=part.epochs, size=part.batch, seed=seed)
    settings = [part.model_dump(mode="json"), seed, first_trained, method.name]
    identity = digest_of([*settings, [[list(p), list(a)] for p, a in pairs]])
    done = _restore(checkpoint, identity, weights, optimizer)
    dtype, frozen = compute_dtype(part.dtype), first_trained if part.train == "above-cut" else 0
    states = trunk_states(model, pairs, frozen, pad_id=pad_id, dtype=dtype) if frozen else None
    model.train()
    with layers_left(model, range(frozen, len(model.model.layers))):
        for step in range(done, len(steps)):
            started, rate = time.perf_counter(), learning_rate(step, len(steps), part)
            for group in optimizer.param_groups:
                group["lr"] = rate
            batch = collate(pairs, steps[step], pad_id=pad_id)
            loss = batch_loss(model, batch, method, dtype=dtype, states=states)
            torch.autograd.backward(loss)
            norm = float(nn.utils.clip_grad_norm_(weights, part.clip))
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            if checkpoint and (step + 1) % part.checkpoint_every == 0 and step + 1 < len(steps):
                _save(checkpoint, identity, step + 1, weights, optimizer)
            metrics = {"step": step + 1, "steps": len(steps), "loss": loss.item(), "tokens": len(batch.targets_N)}
            on_step({**metrics, "lr": rate, "grad_norm": norm, "elapsed_s": time.perf_counter() - started})
    model.eval()


def batch_loss(
    model: Any, batch: Batch, method: Method, *, dtype: torch.dtype, states: Sequence[Tensor] | None = None
) -> Tensor:
    """Mean loss over the batch's answer tokens; the head runs at those positions only.

    With `states`, one (T, D) per exchange, the model begins at the layer behind them.
    """
    if states is None:
        inputs = {"input_ids": batch.ids_BT}
    else:
        inputs = {"inputs_embeds": pad_sequence([states[i] for i in batch.items], batch_first=True)}
    with _mixed(dtype):
        hidden_BTD = model.model(**inputs, attention_mask=batch.mask_BT, use_cache=False).last_hidden_state
        logits_NV = model.lm_head(hidden_BTD[batch.rows_N, batch.columns_N])
    return method.loss(logits_NV, batch).mean()


def trunk_states(
    model: Any, pairs: Sequence[Pair], first: int, *, pad_id: int, dtype: torch.dtype, size: int = 16
) -> list[Tensor]:
    """Hidden states (T, D) in front of layer `first` for each exchange.

    Frozen layers give the same states in every epoch, so they run once.
    """
    states: list[Tensor] = []
    for start in range(0, len(pairs), size):
        batch = collate(pairs, tuple(range(start, min(start + size, len(pairs)))), pad_id=pad_id)
        with torch.no_grad(), _mixed(dtype), layers_left(model, range(first + 1)):
            seen = model.model(
                input_ids=batch.ids_BT, attention_mask=batch.mask_BT, use_cache=False, output_hidden_states=True
            ).hidden_states[first]
        states += [row[: int(mask.sum())].clone() for row, mask in zip(seen, batch.mask_BT, strict=True)]
    return states


def trained_weights(model: Any, which: str, first_trained: int) -> list[nn.Parameter]:
    """The parameters to train; the others are frozen.

    `above-cut` trains the layers from `first_trained` on and the final norm: below the cut a depth-pruned
    student computes what its teacher computes, and its embedding and head are the teacher's.
    """
    for weight in model.parameters():
        weight.requires_grad_(which == "all")
    if which == "above-cut":
        for layer in model.model.layers[first_trained:]:
            layer.requires_grad_(True)
        model.model.norm.requires_grad_(True)
    return [w for w in model.parameters() if w.requires_grad]


def learning_rate(step: int, steps: int, part: MakePart) -> float:
    """Linear warm-up over a share of the steps, then linear decay to a tenth."""
    warm = max(1, round(part.warmup * steps))
    if step < warm:
        return part.learning_rate * (step + 1) / warm
    return part.learning_rate * (1 - 0.9 * (step - warm) / max(1, steps - warm))


def compute_dtype(wanted: str) -> torch.dtype:
    """bfloat16 where the processor multiplies it natively (AMX or AVX-512), else float32."""
    if wanted != "auto":
        dtype: torch.dtype = getattr(torch, wanted)
        return dtype
    flags = Path("/proc/cpuinfo")
    native = flags.exists() and any(f in flags.read_text().split() for f in ("amx_bf16", "avx512_bf16"))
    return torch.bfloat16 if native else torch.float32


def _mixed(dtype: torch.dtype) -> AbstractContextManager[Any]:
    return torch.autocast("cpu", dtype) if dtype != torch.float32 else nullcontext()


def _save(
    path: Path, identity: str, step: int, weights: Sequence[nn.Parameter], optimizer: torch.optim.Optimizer
) -> None:
    state = {
        "identity": identity,
        "step": step,
        "weights": [w.data for w in weights],
        "optimizer": optimizer.state_dict(),
    }
    buffer = io.BytesIO()
    torch.save(state, buffer)
    write_atomic(path, buffer.getvalue())


def _restore(
    path: Path | None, identity: str, weights: Sequence[nn.Parameter], optimizer: torch.optim.Optimizer
) -> int:
    if path is None or not path.exists():
        return 0
    try:
        state = torch.load(path, weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError):
        raise DataError(str(path), "cannot be read", "delete it and run again") from None
    if state["identity"] != identity:
        raise DataError(str(path), "belongs to other settings or data", "delete it and run again")
    for weight, saved in zip(weights, state["weights"], strict=True):
        weight.data.copy_(saved)
    optimizer.load_state_dict(state["optimizer"])
    return int(state["step"])
