"""A local model's answers by decoding steps in C++: the same draws as `padded`, several times as fast.

For float32 weights that stay as they are while they answer, of an architecture that `llama` computes and without
adapters beside them; any other model is decoded by `padded`, and so is one whose second copy of the weights does not
fit into memory. `threads.computed` names what decoded. Suffixes name axes: B rows, V vocabulary.
"""

import math
import threading
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from spiritsafe import threads
from spiritsafe.models.decoding import padded, sample_native
from spiritsafe.models.decoding.llama import MAX_ROWS, Packed, Steps, core_of, fits, head_dim
from spiritsafe.models.decoding.padded import Row
from spiritsafe.models.decoding.sample_native import Drawing

# Keys and values with which a wave begins; what it writes later may take more, as it does in `padded`.
CACHE_BYTES = 1 << 30
# Tokens by which the room for an answer grows: few enough that little of it stays empty.
GROWTH = 128
# Packed weights of models that are idle: those of a model and its reviewer, or of a run's student and teacher.
KEPT_BYTES = 2 << 30
MEMORY = Path("/proc/meminfo")
GROUP = Path("/sys/fs/cgroup")

_lock = threading.Lock()
_latest: "deque[weakref.ref[Native]]" = deque()  # those that hold packed weights, the last used first


class Native:
    """Decodes one model; its packed weights are kept from one call to the next. Threads may call it at once."""

    def __init__(self) -> None:
        self.packed: Packed | None = None
        self._seen: tuple[object, ...] = ()

    def __call__(self, model: Any, rows: Sequence[Row], *, pad_id: int, finished: Callable[[int, Row], bool]) -> None:
        """As `padded.decode`: extend every row in place until `finished`; a row's draws do not depend on the others."""
        longest = max(len(row.prompt_ids) + row.sampling.max_tokens for row in rows)
        packed = self._weights(model) if runs(model, longest) else None
        threads.decoded_by("native" if packed else "padded")
        if packed:
            _grow(packed, rows, finished)
        else:
            padded.decode(model, rows, pad_id=pad_id, finished=finished)

    def _weights(self, model: Any) -> Packed | None:
        """The model's weights as they are now, packed; None if memory has no room for them."""
        with _lock:
            seen = _state(model)
            if self.packed is None or self._seen != seen:
                self.packed = None
                _drop_idle(KEPT_BYTES - weight_bytes(model))
                if not _has_room(weight_bytes(model)):
                    return None
                self.packed = Packed(model, half=False)
                self._seen = seen
            for held in [ref for ref in _latest if ref() in (None, self)]:
                _latest.remove(held)
            _latest.appendleft(weakref.ref(self))
            return self.packed


def runs(model: Any, capacity: int) -> bool:
    """Whether a model is decoded in C++, as long as there is memory."""
    if model.dtype != torch.float32 or hasattr(model, "peft_config") or not fits(model, capacity):
        return False
    is_whole: bool = len(core_of(model).layers) == model.config.num_hidden_layers  # layers may be out for a while
    return is_whole


def weight_bytes(model: Any) -> int:
    """What the packed weights take; a tied head is packed, and the embeddings are read where they are."""
    return sum(4 * weight.numel() for weight in model.parameters())


def _state(model: Any) -> tuple[object, ...]:
    """What changes if weights do: where they lie, and how often torch wrote them."""
    return tuple((w.data_ptr(), -1 if w.is_inference() else w._version) for w in model.parameters())


def _drop_idle(room: int) -> None:
    """Forget packed weights, the longest unused first, until those that are left take no more than `room` bytes."""
    held = [native for ref in _latest if (native := ref()) and native.packed]
    while held and sum(weight_bytes(native.packed.model) for native in held if native.packed) > room:
        held.pop().packed = None


def _has_room(size: int) -> bool:
    """Whether so many bytes, and a cache, can be taken; taken to be so if the system does not say."""
    lines = MEMORY.read_text().splitlines() if MEMORY.is_file() else []
    free = [int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvailable:")]
    most = [GROUP / "memory.max", GROUP / "memory.current"]
    said = [file.read_text().strip() for file in most if file.is_file()]
    if len(said) == 2 and all(text.isdigit() for text in said):  # "max": without a bound
        free.append(int(said[0]) - int(said[1]))
    return not free or size + CACHE_BYTES < min(free)


def _grow(packed: Packed, rows: Sequence[Row], finished: Callable[[int, Row], bool]) -> None:
    """Extend every row; whoever ends gives its slot to the next."""
    capacity = max(len(row.prompt_ids) for row in rows) + min(GROWTH, max(row.sampling.max_tokens for row in rows))
    slots = min(len(rows), MAX_ROWS, max(1, CACHE_BYTES // (token_bytes(packed.model.config) * capacity)))
    steps = Steps(packed, slots=slots, capacity=capacity)
    waiting = deque(enumerate(rows))
    growing = dict[int, tuple[int, Row]]()
    while waiting or growing:
        free = [slot for slot in range(slots) if slot not in growing]
        new = {slot: waiting.popleft() for slot in free[: len(waiting)]}
        steps.seat([(slot, row.prompt_ids[:-1]) for slot, (_, row) in new.items()])
        growing |= new
        _step(steps, growing)
        growing = {slot: (i, row) for slot, (i, row) in growing.items() if not (row.broken or finished(i, row))}


def _step(steps: Steps, growing: dict[int, tuple[int, Row]]) -> None:
    """One token more for each row."""
    rows = [row for _, row in growing.values()]
    last = [row.drawn[-1] if row.drawn else row.prompt_ids[-1] for row in rows]
    places = [len(row.prompt_ids) - 1 + len(row.drawn) for row in rows]
    if max(places) >= steps.capacity:
        steps.resize(steps.capacity + GROWTH)
    logits_BV = steps.forward(last, list(growing), places, range(len(rows)))
    kinds: dict[Drawing, list[int]] = {}
    for at, row in enumerate(rows):
        kinds.setdefault(Drawing(row.sampling.temperature, row.sampling.top_p), []).append(at)
    for drawing, members in kinds.items():
        part_BV = logits_BV if len(kinds) == 1 else logits_BV[members]
        _draw(part_BV, [rows[at] for at in members], drawing)


def _draw(logits_BV: Tensor, rows: Sequence[Row], drawing: Drawing) -> None:
    seeds = [row.sampling.seed or 0 for row in rows]
    ahead = [len(row.drawn) for row in rows]
    for row, token, logprob in zip(rows, *sample_native.draw(logits_BV, seeds, ahead, drawing), strict=True):
        row.broken = not math.isfinite(logprob)
        if not row.broken:
            row.drawn.append(token)
            row.logprobs.append(logprob)


def token_bytes(config: Any) -> int:
    """What a token's keys and values take."""
    return int(2 * 4 * config.num_hidden_layers * config.num_key_value_heads * head_dim(config))
