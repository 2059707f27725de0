"""A making's method, put together from its settings: teacher, student, samples or prompts."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spiritsafe.make.methods import Text, from_cache
from spiritsafe.make.methods.judged import Judge, Judged, pairwise, rating
from spiritsafe.make.methods.on_policy import Gkd, Ids, PolicyGradient, Write, student
from spiritsafe.make.methods.online import Online
from spiritsafe.make.rollout.engine import Rollout
from spiritsafe.make.samples import Method, Sample
from spiritsafe.make.signals import SignalCache
from spiritsafe.make.verb.settings import MakeSettings, lasting
from spiritsafe.models import Model, Request
from spiritsafe.models.local import LocalModel
from spiritsafe.models.stored import Stored
from spiritsafe.prompts import Prompt
from spiritsafe.recipe import TrainPart
from spiritsafe.record import Exchange, Sampling, seed_of


@dataclass(frozen=True)
class Lesson:
    """What a training needs beside the student: its method, its settings, its samples' answer tokens (0: its own)."""

    method: Method
    settings: TrainPart
    answer_tokens: int
    loss: str


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
    samples = _samples(settings, teacher, start, given)
    tokens = sum(len(s.answer_ids) for s in samples)
    part = lasting(settings, samples=len(samples), tokens=tokens)
    loss = "the text"
    match settings.method:
        case "text":
            method: Any = Text(samples, part, seed=seed)
        case "cached":
            assert given.cache is not None, "captured before"
            ids = [e.id for e in given.exchanges]
            method, loss = from_cache(given.cache, ids, samples, part, seed=seed, objective=objective), ""
        case "online":
            method, loss = Online(samples, _weights(teacher), objective, part, seed=seed), ""
        case _:
            write, share = _writer(settings, start, [s.prompt_ids for s in samples], None), settings.make.own.share
            method = Gkd(samples, write, _weights(teacher), objective, part, seed=seed, own_share=share)
            loss = ""
    return Lesson(method, part, tokens, loss)


def _on_prompts(settings: MakeSettings, teacher: Model, start: LocalModel, given: Given, seed: int) -> Lesson:
    """Methods that need no answer but the student's own."""
    own, judging = settings.make.own, settings.make.judge
    asked = [(p.messages[-1].content, _render(start, p)) for p in given.prompts]
    part = lasting(settings, samples=len(asked), tokens=len(asked) * own.group)
    ids = [i for _, i in asked]
    if settings.method == "policy-gradient":
        write = _writer(settings, start, ids, _weights(teacher))
        method: Any = PolicyGradient(ids, write, part, seed=seed, group=own.group, clip=own.clip)
        return Lesson(method, part, 0, "policy gradient of the reverse KL on sampled tokens")
    write, judge = _writer(settings, start, ids, None), judge_of(settings, teacher, given.judge_log)
    method = Judged(asked, write, judge, start.text_of, part, seed=seed, group=own.group)
    return Lesson(method, part, 0, f"policy gradient of the teacher's {judging.way}")


def judge_of(settings: MakeSettings, teacher: Model, log: Path) -> Judge:
    """The teacher as a judge; what it said is in `log` and is not asked again."""
    part = settings.make.judge
    ask = pairwise if part.way == "pairwise" else rating
    return ask(Stored(teacher, log), seed=settings.run.seed, max_tokens=part.max_tokens)


def _samples(settings: MakeSettings, teacher: Model, start: LocalModel, given: Given) -> list[Sample]:
    """The kept answers; where nothing was collected, prompts with an answer that no step will see."""
    if settings.method == "text":
        return [Sample(*start.pair(e.model_copy(update={"token_ids": None}))) for e in given.exchanges]
    if settings.method == "cached" and given.cache is not None and not isinstance(teacher, LocalModel):
        return [Sample(start.render(e), given.cache.tokens(e.id)) for e in given.exchanges]
    assert isinstance(teacher, LocalModel), "checked before"
    if settings.method == "gkd" and settings.make.own.share == 1:
        return [Sample(_render(teacher, p), (teacher.end_ids[0],)) for p in given.prompts]
    return [Sample(*teacher.pair(e)) for e in given.exchanges]


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
