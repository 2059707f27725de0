"""What whoever asks a local model gets: tokens a second in C++ beside the padded decoder, on SmolLM2-135M in float32.

`one by one` and `16 at once` call the model; `measure` runs a task through the harness, `served` has sixteen official
clients stream from a gateway, `guarded` asks the model behind a policy. Every pair of runs draws the same answers.
`limit`: weights read once a step at the measured bandwidth, or products at the measured peak, whichever takes longer;
prompts and attention left out. transformers' `generate` draws as many tokens from the same prompts.
`tokens_per_s` is what a user waits for; `tokens_per_processor_s` counts this process's own processor seconds, clients
among them, and so depends less on what else the machine does. Not covered: other models, long answers.
"""

import json
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import openai
import torch

from bench import _schema
from bench._schema import Row, note
from bench.rollout import pure_sampling, tokens_at_most
from spiritsafe.guard.app import create_app
from spiritsafe.guard.keys import Keys
from spiritsafe.guard.server import serving
from spiritsafe.measure.harness import Plan
from spiritsafe.measure.harness import measure as measured
from spiritsafe.measure.registry import find_task
from spiritsafe.models import Model, Request, ask, open_model, user
from spiritsafe.models.decoding import padded
from spiritsafe.models.decoding.native import Native
from spiritsafe.models.decoding.padded import pad_left
from spiritsafe.models.local import LocalModel
from spiritsafe.record import Exchange, Sampling, read_jsonl

RUNS, TOKENS, MANY, FEW = 5, 24, 16, 3
TOPICS = ("copper", "rain", "Berlin", "bread", "chess", "rivers", "foxes", "winter", "tea", "paper", "gold", "sleep")
PEER, GENERATE = "padded decoder", "transformers generate"
WALL, PROCESSOR = "tokens_per_s", "tokens_per_processor_s"
Said = list[tuple[int, ...]]
Work = Callable[[], Said]
Rates = dict[str, list[float]]  # by who decodes


def measure(seed: int) -> list[Row]:
    """A row a case and peer."""
    local: Any = open_model("smollm2")
    guarded = open_model("guarded:default+smollm2")
    requests = requests_of(MANY, seed)
    works: dict[str, tuple[LocalModel, Work, int]] = {
        "one by one": (local, partial(one_by_one, local, requests[:FEW]), 1),
        "16 at once": (local, partial(at_once, local, requests), MANY),
        "measure": (local, partial(through_measure, local, seed), MANY),
        "served": (local, partial(through_gateway, local, seed), MANY),
        "guarded": (guarded.inner, partial(at_once, guarded, requests), MANY),  # type: ignore[attr-defined]
    }
    rows: list[Row] = []
    for case, (model, work, size) in works.items():
        ways = {"ours": partial(decoded, model, Native(), work), PEER: partial(decoded, model, padded.decode, work)}
        if case in ("one by one", "16 at once"):
            ways[GENERATE] = partial(generated, model, requests[: FEW if size == 1 else MANY], size)
        spent = in_turn(case, ways, seed)
        limits = {WALL: tokens_at_most(size, model.model, half=False), PROCESSOR: None}
        for peer in [name for name in ways if name != "ours"]:
            rows += [row_of(case, metric, peer, spent[metric], limits[metric]) for metric in (WALL, PROCESSOR)]
    return rows


def requests_of(number: int, seed: int) -> list[Request]:
    """Short questions, each with a seed of its own."""
    prompts = [user(f"Tell me about {TOPICS[i % len(TOPICS)]}{', in short' * (i % 3)}.") for i in range(number)]
    return ask(prompts, Sampling(seed=seed, max_tokens=TOKENS))


def one_by_one(model: Model, requests: Sequence[Request]) -> Said:
    """Each request alone."""
    return [model.generate([request])[0].token_ids or () for request in requests]


def at_once(model: Model, requests: Sequence[Request]) -> Said:
    """All requests in one call."""
    return [exchange.token_ids or () for exchange in model.generate(requests)]


def through_measure(model: Model, seed: int) -> Said:
    """A task of the harness, as `spiritsafe measure` asks it; one whose scores need no process of their own."""
    plan = Plan(limit=MANY // 2, samples=2, seed=seed, answer_tokens=TOKENS)
    with tempfile.TemporaryDirectory() as folder:
        prompts = Path(folder) / "prompts.jsonl"
        lines = [json.dumps({"prompt": f"Tell me about {topic}."}) for topic in TOPICS[: MANY // 2]]
        prompts.write_text("\n".join(lines) + "\n")
        measured([model], [find_task(f"self-consistency:{prompts}")], Path(folder) / "out", plan)
        (file,) = (Path(folder) / "out" / "exchanges").glob("*.jsonl")
        return stored(file)


def through_gateway(model: Model, seed: int) -> Said:
    """Sixteen clients of a gateway on loopback, which read the text as it grows."""
    with tempfile.TemporaryDirectory() as folder:
        keys = Keys(Path(folder) / "keys.db")
        log = Path(folder) / "log.jsonl"
        app = create_app(model, keys=keys, log=log, name="served")
        options = {"api_key": keys.create("bench"), "max_retries": 0}
        with serving(app) as url, openai.OpenAI(base_url=f"{url}/v1", **options) as client:  # type: ignore[arg-type]
            ask_all(client, seed)
        return stored(log)


def ask_all(client: openai.OpenAI, seed: int) -> None:
    """Sixteen requests at the same time."""
    with ThreadPoolExecutor(MANY) as pool:
        list(pool.map(partial(stream, client, seed), range(MANY)))


def stored(path: Path) -> Said:
    """The tokens of a file's answers, whatever their order."""
    return sorted(exchange.token_ids or () for exchange in read_jsonl(path, Exchange))


def stream(client: openai.OpenAI, seed: int, number: int) -> int:
    """Pieces of one streamed answer."""
    text = f"Tell me about {TOPICS[number % len(TOPICS)]}."
    pieces = client.chat.completions.create(
        model="served",
        messages=[{"role": "user", "content": text}],
        max_tokens=TOKENS,
        seed=1000 * seed + number,
        stream=True,
    )
    return len(list(pieces))


def decoded(model: LocalModel, way: Callable[..., None], work: Work) -> Said:
    """The work with one of the decoders."""
    model.decode = way
    return work()


def generated(model: LocalModel, requests: Sequence[Request], size: int) -> Said:
    """`model.generate` of transformers on the same prompts, `size` at once."""
    said: Said = []
    for start in range(0, len(requests), size):
        prompts = [model.render(request) for request in requests[start : start + size]]
        ids_BT, mask_BT = pad_left(prompts, model.pad_id)
        settings = {**pure_sampling(), "max_new_tokens": TOKENS, "min_new_tokens": TOKENS}
        with torch.inference_mode():
            out_BT = model.model.generate(ids_BT, attention_mask=mask_BT, pad_token_id=model.pad_id, **settings)
        said += [tuple(row[-TOKENS:]) for row in out_BT.tolist()]
    return said


def in_turn(case: str, ways: Mapping[str, Work], seed: int) -> dict[str, Rates]:
    """Tokens a second, by each clock, of `RUNS` runs of each, in an order of chance after one that is not counted."""
    said = {name: work() for name, work in ways.items() if name != GENERATE}
    assert said["ours"] == said[PEER], "the decoders draw different answers"
    clocks = {WALL: time.perf_counter, PROCESSOR: time.process_time}
    rates: dict[str, Rates] = {metric: {name: [] for name in ways} for metric in clocks}
    chance = random.Random(seed)
    for _ in range(RUNS):
        for name in chance.sample(list(ways), len(ways)):
            started = {metric: clock() for metric, clock in clocks.items()}
            num = sum(map(len, ways[name]()))
            for metric, clock in clocks.items():
                rates[metric][name].append(num / (clock() - started[metric]))
        note(f"{case}: " + ", ".join(f"{name} {each[-1]:.1f}" for name, each in rates[WALL].items()))
    return rates


def row_of(case: str, metric: str, peer: str, rates: Rates, limit: float | None) -> Row:
    """Medians; the ratio is the median of the runs' own, whose halves met the same machine."""
    ours, theirs = (statistics.median(rates[name]) for name in ("ours", peer))
    ratio = statistics.median(a / b for a, b in zip(rates["ours"], rates[peer], strict=True))
    spread = (min(rates["ours"]), max(rates["ours"]))
    return Row(case, metric, ours, peer, theirs, ratio, limit, RUNS, spread)


if __name__ == "__main__":
    _schema.main("served_decoder", measure)
