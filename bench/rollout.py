"""Generated tokens a second on SmolLM2-135M: our rollout beside transformers' `generate` and continuous batching.

All draw the same number of new tokens for the same prompts at temperature 1 and ignore end tokens; all use
the same threads. Each peer is timed once in bfloat16 and in float32 before, and the faster of the two runs
in turn with ours. `limit`: the weights read once a step at the measured bandwidth or the products at the
measured peak, whichever takes longer; attention and sampling left out.
Not covered: prompts of different length, shared prompts, other models, a GPU.
"""

import copy
import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
import transformers

from bench import _schema
from bench._limits import bandwidth_gb_s, gemm_peak_gflops
from bench._schema import Row, note
from spiritsafe.make.rollout.engine import Rollout
from spiritsafe.models import open_model

SIZES, PROMPT_TOKENS, NEW_TOKENS, RUNS = (1, 16, 64), 32, 32, 5
PEERS = ("transformers generate", "transformers continuous batching")
Prompts = Sequence[tuple[int, ...]]
Work = Callable[[], None]


def measure(seed: int) -> list[Row]:
    """Two rows a size, one for each peer."""
    transformers.utils.logging.set_verbosity_error()
    local: Any = open_model("smollm2")
    rollout = Rollout(local.model, (), slots=max(SIZES), capacity=PROMPT_TOKENS + NEW_TOKENS)
    models = {dtype: copy.deepcopy(local.model).to(dtype) for dtype in (torch.bfloat16, torch.float32)}
    rows = []
    for size in SIZES:
        prompts = some_prompts(size, local.model.config.vocab_size, seed)
        ours = partial(rollout.draw, prompts, seeds=range(size), max_tokens=NEW_TOKENS)
        timed(ours)
        peers = {peer: fastest(peer, models, prompts) for peer in PEERS}
        spent = in_turn({"ours": ours, **peers})
        limit = tokens_at_most(size, local.model, half=rollout.half)
        rows += [row_of(size, peer, spent, limit) for peer in PEERS]
    return rows


def some_prompts(size: int, vocab: int, seed: int) -> list[tuple[int, ...]]:
    """Random token ids: what is written does not change the work."""
    ids_BT = torch.randint(10, vocab, (size, PROMPT_TOKENS), generator=torch.Generator().manual_seed(seed))
    return [tuple(row) for row in ids_BT.tolist()]


def generate(model: Any, prompts: Prompts) -> None:
    """`model.generate` with pure sampling."""
    ids_BT = torch.tensor(prompts)
    out_BT = model.generate(
        ids_BT, attention_mask=torch.ones_like(ids_BT), **pure_sampling(), min_new_tokens=NEW_TOKENS, pad_token_id=2
    )
    assert out_BT.shape == (len(prompts), PROMPT_TOKENS + NEW_TOKENS)


def continuous(model: Any, prompts: Prompts) -> None:
    """`model.generate_batch`; a CPU has no memory to infer sizes from, so they are given."""
    pages = transformers.ContinuousBatchingConfig(
        num_blocks=2 * len(prompts) + 8, page_size=PROMPT_TOKENS + NEW_TOKENS, max_batch_tokens=512
    )
    settings = transformers.GenerationConfig(**pure_sampling(), eos_token_id=-1, pad_token_id=2)
    found = model.generate_batch(
        [list(p) for p in prompts], generation_config=settings, continuous_batching_config=pages
    )
    assert [len(f.generated_tokens) for f in found.values()] == [NEW_TOKENS] * len(prompts)


def pure_sampling() -> dict[str, Any]:
    """Settings under which every token of the vocabulary can be drawn."""
    return {"do_sample": True, "temperature": 1.0, "top_k": 0, "top_p": 1.0, "max_new_tokens": NEW_TOKENS}


def fastest(peer: str, models: dict[torch.dtype, Any], prompts: Prompts) -> Work:
    """The peer in the type that is faster here."""
    way = generate if peer == PEERS[0] else continuous
    works = {dtype: partial(way, model, prompts) for dtype, model in models.items()}
    seconds = {dtype: timed(work) for dtype, work in works.items()}
    best = min(seconds, key=lambda dtype: seconds[dtype])
    note(f"B={len(prompts)} {peer}: {best} of { {str(d): round(s, 2) for d, s in seconds.items()} } s")
    return works[best]


def in_turn(works: dict[str, Callable[[], object]]) -> dict[str, list[float]]:
    """Seconds of `RUNS` runs of each, alternating."""
    spent: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(RUNS):
        for name, work in works.items():
            spent[name].append(timed(work))
    return spent


def timed(work: Callable[[], object]) -> float:
    """Seconds that one call takes."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def tokens_at_most(size: int, model: Any, *, half: bool) -> float:
    """Tokens a second that memory and multipliers allow."""
    weights: int = sum(w.numel() for w in model.parameters())  # the tied head counts once, the embedding is not read
    dtype = torch.bfloat16 if half else torch.float32
    read_s = weights * (2 if half else 4) / bandwidth_gb_s() / 1e9
    multiply_s = 2 * weights * size / gemm_peak_gflops(dtype) / 1e9
    return size / max(read_s, multiply_s)


def row_of(size: int, peer: str, spent: dict[str, list[float]], limit: float) -> Row:
    """Medians in tokens a second."""
    tokens = size * NEW_TOKENS
    rates = {name: [tokens / s for s in seconds] for name, seconds in spent.items()}
    ours, theirs = statistics.median(rates["ours"]), statistics.median(rates[peer])
    spread = (min(rates["ours"]), max(rates["ours"]))
    return Row(f"B={size}", "tokens_per_s", ours, peer, theirs, ours / theirs, limit, RUNS, spread)


if __name__ == "__main__":
    _schema.main("rollout", measure)
