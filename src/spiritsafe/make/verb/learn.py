"""A making's method, put together from its settings: teacher, student, samples or prompts."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spiritsafe.errors import DataError
from spiritsafe.make.methods import Text, from_cache
from spiritsafe.make.methods.judged import Judge, Judged, pairwise, rating
from spiritsafe.make.methods.on_policy import Gkd, Ids, PolicyGradient, Write, student
from spiritsafe.make.methods.online import Online
from spiritsafe.make.rollout.engine import Rollout
from spiritsafe.make.samples import Method, Sample
from spiritsafe.make.signals import SignalCache
from spiritsafe.make.verb.settings import MakeSettings, lasting
from spiritsafe.models import Model, Request
from spiritsafe.models.base import RequestError
from spiritsafe.models.decoding.scoring import Pair
from spiritsafe.models.local import LocalModel
from spiritsafe.models.stored import Stored
from spiritsafe.prompts import Prompt
from spiritsafe.recipe import TrainPart
from spiritsafe.record import Exchange, Sampling, seed_of

SHORTER = "shorten prompts, lower data.collect.sampling.max_tokens or make.own.max_tokens"


@dataclass(frozen=True)
class Lesson:
    """What a training needs beside the student: its method, its settings, its samples' answer tokens (0: its own).

    `left_out` says for each prompt or answer that the models cannot read why not.
    """

    method: Method
    settings: TrainPart
    answer_tokens: int
    loss: str
    left_out: tuple[str, ...] = ()


@dataclass(frozen=True)
class Given:
    """What there is to learn from: prompts, the teacher's kept answers, and what a server or the teacher said."""

    prompts: Sequence[Prompt]
    exchanges: Sequence[Exchange]
    cache: SignalCache | None
    judge_log: Path


def lesson(settings: MakeSettings, teacher: Model, start: LocalModel, given: Given) -> Lesson:
    """The method over `start`, which is the model that will be trained."""
    seed, objective = seed_of(settings.run.seed, "order"), settings.make.loss.objective()
    if settings.method in ("policy-gradient", "judged"):
        return _on_prompts(settings, teacher, start, given, seed)
    left_out: list[str] = []
    learned = _samples(settings, teacher, start, given, left_out)
    samples = [sample for _, sample in learned]
    tokens = sum(len(s.answer_ids) for s in samples)
    part = lasting(settings, samples=len(samples), tokens=tokens)
    loss = "the text"
    match settings.method:
        case "text":
            method: Any = Text(samples, part, seed=seed)
        case "cached":
            assert given.cache is not None, "captured before"
            ids = [given_id for given_id, _ in learned]
            method, loss = from_cache(given.cache, ids, samples, part, seed=seed, objective=objective), ""
        case "online":
            method, loss = Online(samples, _weights(teacher), objective, part, seed=seed), ""
        case _:
            write, share = _writer(settings, start, [s.prompt_ids for s in samples], None), settings.make.own.share
            method = Gkd(samples, write, _weights(teacher), objective, part, seed=seed, own_share=share)
            loss = ""
    return Lesson(method, part, tokens, loss, tuple(left_out))


def _on_prompts(settings: MakeSettings, teacher: Model, start: LocalModel, given: Given, seed: int) -> Lesson:
    """Methods that need no answer but the student's own."""
    own, judging = settings.make.own, settings.make.judge
    left_out: list[str] = []
    most = _room([start, teacher] if settings.method == "policy-gradient" else [start], own.max_tokens)
    read = _readable(given.prompts, lambda p: (_render(start, p), ()), most, left_out)
    asked = [(p.messages[-1].content, ids) for p, (ids, _) in read]
    part = lasting(settings, samples=len(asked), tokens=len(asked) * own.group)
    ids = [i for _, i in asked]
    if settings.method == "policy-gradient":
        write = _writer(settings, start, ids, _weights(teacher))
        method: Any = PolicyGradient(ids, write, part, seed=seed, group=own.group, clip=own.clip)
        return Lesson(method, part, 0, "policy gradient of the reverse KL on sampled tokens", tuple(left_out))
    write, judge = _writer(settings, start, ids, None), judge_of(settings, teacher, given.judge_log)
    method = Judged(asked, write, judge, start.text_of, part, seed=seed, group=own.group)
    return Lesson(method, part, 0, f"policy gradient of the teacher's {judging.way}", tuple(left_out))


def judge_of(settings: MakeSettings, teacher: Model, log: Path) -> Judge:
    """The teacher as a judge; what it said is in `log` and is not asked again."""
    part = settings.make.judge
    ask = pairwise if part.way == "pairwise" else rating
    return ask(Stored(teacher, log), seed=settings.run.seed, max_tokens=part.max_tokens)


def _samples(
    settings: MakeSettings, teacher: Model, start: LocalModel, given: Given, left_out: list[str]
) -> list[tuple[str, Sample]]:
    """The kept answers by their ids; where nothing was collected, prompts with an answer that no step will see."""
    items: Sequence[Any] = given.exchanges
    cache, models, own = given.cache, [start, teacher], 0
    if settings.method == "text":
        models = [start]

        def pair(e: Any) -> Pair:
            return start.pair(e.model_copy(update={"token_ids": None}))

    elif settings.method == "cached" and cache is not None and not isinstance(teacher, LocalModel):

        def pair(e: Any) -> Pair:
            return start.render(e), cache.tokens(e.id)

    else:
        assert isinstance(teacher, LocalModel), "checked before"
        reader, own = teacher, settings.make.own.max_tokens if settings.method == "gkd" else 0
        if settings.method == "gkd" and settings.make.own.share == 1:
            items = given.prompts

        def pair(e: Any) -> Pair:
            return (_render(reader, e), reader.end_ids[:1]) if isinstance(e, Prompt) else reader.pair(e)

    read = _readable(items, pair, _room(models, own), left_out, most_alone=_room(models, 0))
    return [("" if isinstance(item, Prompt) else item.id, Sample(*found)) for item, found in read]


def _readable(
    items: Sequence[Any], pair: Callable[[Any], Pair], most: float, left_out: list[str], *, most_alone: float = math.inf
) -> list[tuple[Any, Pair]]:
    """Items with their tokens; those that a model cannot read are left out, and why is noted.

    A prompt may have `most` tokens, with its answer `most_alone`. Raises `DataError` where nothing is left.
    """
    found: list[tuple[Any, Pair]] = []
    for item in items:
        try:
            prompt, answer = pair(item)
        except RequestError as error:
            left_out.append(error.what)
            continue
        if len(prompt) > most or len(prompt) + len(answer) - 1 > most_alone:
            num, room = len(prompt) + len(answer), min(most, most_alone)
            left_out.append(f"prompt and answer of {num} tokens, and {room:.0f} are left of what the models can read")
        else:
            found.append((item, (prompt, answer)))
    if not found:
        why = left_out[0] if left_out else "there are none"
        raise DataError("training", f"none of {len(items)} prompts or answers can be learned from: {why}", SHORTER)
    return found


def _room(models: Sequence[Any], own: int) -> float:
    """Tokens that the models can read before `own` more that the student writes; its last one is not read again."""
    contexts = [m.context for m in models if isinstance(m, LocalModel) and m.context is not None]
    return min(contexts, default=math.inf) - max(0, own - 1)


def _writer(settings: MakeSettings, start: LocalModel, prompts: Sequence[Ids], teacher: Any) -> Write:
    own = settings.make.own
    capacity = max(map(len, prompts)) + own.max_tokens
    rollout = Rollout(start.model, start.end_ids, slots=own.slots, capacity=capacity, teacher=teacher)
    return student(rollout, max_tokens=own.max_tokens, temperature=own.temperature)


def _weights(teacher: Model) -> Any:
    assert isinstance(teacher, LocalModel), "checked before"
    return teacher.model


def _render(model: LocalModel, prompt: Prompt) -> Ids:
    return model.render(Request(prompt.messages, Sampling()))
