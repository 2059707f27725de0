"""A training of a comparison: the method, its clocks, and looks at the student when shares of the budget are spent.

The student is looked at between two steps, with the weights that it computes with; that time counts nowhere.
Trainings are short: one that was killed begins anew.
"""

import time
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from spiritsafe.house import FOLDERS, START, House
from spiritsafe.matched.trial import Look, Trial
from spiritsafe.recipe import TrainPart
from spiritsafe.recipe_matched import MatchedRecipe
from spiritsafe.record import Exchange, append_jsonl, seed_of

if TYPE_CHECKING:
    from torch import Tensor

    from spiritsafe.make.loop import Budget, Spent
    from spiritsafe.make.samples import Method, Packed, Sample, Target
    from spiritsafe.measure.fidelity import Fidelity
    from spiritsafe.models.local import LocalModel

ANSWERS, HELDOUT = "answers", "heldout"
SIGNALS = ("signals", ANSWERS)
Looked = Callable[[float, "Spent", "Clocks"], None]


@dataclass
class Lab:
    """What all trainings of a run share."""

    house: House[MatchedRecipe]

    def __post_init__(self) -> None:
        self.cold = self.recipe.matched.methods

    @property
    def first(self) -> int:
        """The first layer of the start that is not as in the teacher."""
        from spiritsafe.make.prune import first_changed

        return first_changed(self.house.stages.records["start"]["notes"]["keep"])

    @property
    def recipe(self) -> MatchedRecipe:
        """The comparison's."""
        return self.house.run.recipe

    @cached_property
    def answers(self) -> list[Exchange]:
        """The teacher's, to learn from."""
        return self.house.exchanges(ANSWERS)

    @cached_property
    def heldout(self) -> list[Exchange]:
        """The teacher's, to measure on."""
        return self.house.exchanges(HELDOUT)

    @cached_property
    def theirs(self) -> "list[Tensor]":
        """What the teacher says of its held-out answers."""
        from spiritsafe.measure.fidelity import reference

        return reference(self.house.teacher, self.heldout)

    @cached_property
    def start(self) -> Any:
        """The common start's weights, not to be changed."""
        from spiritsafe.models.local import load_parts

        return load_parts(self.house.run.path(FOLDERS[START]))[0]

    @cached_property
    def teacher(self) -> Any:
        """The teacher that scores, in what products are computed in."""
        import torch

        from spiritsafe.make.loop.weights import compute_dtype

        model = self.house.teacher.model
        dtype = compute_dtype(self.recipe.make.dtype, model.device)
        return model if dtype == torch.float32 else deepcopy(model).to(dtype)

    def local(self, model: Any, name: str) -> "LocalModel":
        """A student's weights as a model that answers."""
        from spiritsafe.make.loop.checkpoint import fingerprint
        from spiritsafe.models.local import LocalModel

        tokenizer, batch = self.house.teacher.tokenizer, self.recipe.teacher.batch
        return LocalModel(name, fingerprint(model), model, tokenizer, batch=batch)

    def warm(self) -> None:
        """Take one step with every method, once in a process: what is loaded and compiled then is nobody's cost."""
        from spiritsafe.make.loop import Budget, train

        while self.cold:
            trial, model = Trial("tokens", self.cold[0], 0), deepcopy(self.start)
            method = method_of(self, trial, model, 0, Clocks())
            train(model, method, self.recipe.make, seed=0, first_trained=self.first, budget=Budget(answer_tokens=1))
            self.cold = self.cold[1:]

    def fidelity(self, model: Any) -> "Fidelity":
        """How near the teacher these weights are."""
        from spiritsafe.measure.fidelity import fidelity

        return fidelity(self.theirs, self.local(model, "student"), self.heldout)


@dataclass
class Clocks:
    """Seconds of a teacher in memory and of the student's writing, and the tokens of both."""

    scoring_s: float = 0.0
    writing_s: float = 0.0
    read: int = 0
    written: int = 0


@dataclass
class Timed:
    """A method whose calls to a teacher in memory are timed."""

    method: "Method"
    clocks: Clocks
    asks: bool
    name: str = field(init=False)
    steps: int = field(init=False)
    digest: str = field(init=False)
    on_policy: bool = field(init=False)

    def __post_init__(self) -> None:
        self.name, self.steps = self.method.name, self.method.steps
        self.digest, self.on_policy = self.method.digest, self.method.on_policy

    def samples(self, step: int) -> "Sequence[Sample]":
        """As the method's."""
        return self.method.samples(step)

    def targets(self, packed: "Packed") -> "Sequence[Target]":
        """As the method's."""
        began = time.perf_counter()
        found = self.method.targets(packed)
        if self.asks:
            self.clocks.scoring_s += time.perf_counter() - began
            self.clocks.read += len(packed.ids_T)
        return found


def run_trial(lab: Lab, trial: Trial, before_s: float, tick: Callable[[], None]) -> tuple[Any, list[Look]]:
    """Train one student from the start until its budget is spent; returns it and what every look found."""
    from spiritsafe.make.loop import train
    from spiritsafe.make.loop.budget import Spent, Way

    part, settings = lab.recipe.matched, lab.recipe.make
    lab.warm()
    model, clocks, spent, looks = deepcopy(lab.start), Clocks(), Spent(), list[Look]()
    seed = seed_of(lab.house.seed, "order", trial.number)
    method = Timed(method_of(lab, trial, model, seed, clocks), clocks, asks=trial.method in ("online", "on-policy"))
    budget = budget_of(lab.recipe, trial, before_s)
    way, due, log = Way(method, budget), list(part.shares), lab.house.run.path("metrics", f"{trial.name}.jsonl")
    log.unlink(missing_ok=True)

    def look() -> None:
        while due and way.gone(spent) >= due[0]:
            looks.append(_look(lab, trial, model, due.pop(0), before_s, spent, clocks))

    def after_step(metrics: dict[str, float | int]) -> None:
        append_jsonl(log, [{"student": trial.name, **metrics}])
        spent.count(metrics)
        look()
        tick()

    look()
    train(model, method, settings, seed=seed, first_trained=lab.first, budget=budget, on_step=after_step)
    return model, looks


def budget_of(recipe: MatchedRecipe, trial: Trial, before_s: float) -> "Budget":
    """Where a training ends; the teacher's seconds before it count where the budget says so."""
    from spiritsafe.make.loop import Budget

    if trial.budget == "tokens":
        return Budget(answer_tokens=recipe.matched.budget_tokens)
    counted = before_s if trial.budget == "all-seconds" else 0.0
    return Budget(seconds=recipe.matched.budget_seconds, before_s=counted)


def method_of(lab: Lab, trial: Trial, model: Any, seed: int, clocks: Clocks) -> "Method":
    """How this student learns."""
    from spiritsafe.make.batches import samples_of
    from spiritsafe.make.methods import Text, from_cache
    from spiritsafe.make.methods.on_policy import Gkd
    from spiritsafe.make.methods.online import Online
    from spiritsafe.make.objective import Objective
    from spiritsafe.make.signals import open_cache, tokenizer_digest

    settings: TrainPart = lab.recipe.make
    known, part, answers = lab.house.teacher, lab.recipe.matched, lab.answers
    samples, objective = samples_of(map(known.pair, answers)), Objective(part.divergence)
    match trial.method:
        case "text":
            return Text(samples, settings, seed=seed)
        case "online":
            return Online(samples, lab.teacher, objective, settings, seed=seed)
        case "cached":
            cache = open_cache(
                lab.house.run.path(*SIGNALS),
                teacher_digest=known.digest,
                tokenizer_digest=tokenizer_digest(known.tokenizer),
                exchanges=answers,
            )
            return from_cache(cache, [e.id for e in answers], samples, settings, seed=seed, objective=objective)
        case "on-policy":
            write = _writer(lab, model, samples, clocks)
            return Gkd(samples, write, lab.teacher, objective, settings, seed=seed, own_share=part.own_share)


def _writer(lab: Lab, model: Any, samples: "Sequence[Sample]", clocks: Clocks) -> Any:
    """The student writing, timed."""
    from spiritsafe.make.methods.on_policy import student
    from spiritsafe.make.rollout.engine import Rollout

    most = lab.recipe.matched.answer_tokens
    capacity = max(len(s.prompt_ids) for s in samples) + most
    rollout = Rollout(model, lab.house.teacher.end_ids, capacity=capacity)
    write = student(rollout, max_tokens=most)

    def timed(prompts: Sequence[tuple[int, ...]], *, seeds: Sequence[int]) -> Any:
        began = time.perf_counter()
        found = write(prompts, seeds=seeds)
        clocks.writing_s += time.perf_counter() - began
        clocks.written += sum(len(w.answer_ids) for w in found)
        return found

    return timed


def _look(lab: Lab, trial: Trial, model: Any, share: float, before_s: float, spent: "Spent", clocks: Clocks) -> Look:
    found = lab.fidelity(model)
    return Look(
        budget=trial.budget,
        method=trial.method,
        number=trial.number,
        share=share,
        before_s=before_s,
        **spent.stored(),
        scoring_s=clocks.scoring_s,
        writing_s=clocks.writing_s,
        read=clocks.read,
        written=clocks.written,
        kl=found.kl,
        agree=found.agree,
        bits=found.bits,
        accepted=found.accepted,
    )
