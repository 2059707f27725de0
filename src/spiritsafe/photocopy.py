"""A photocopy of a photocopy: the stages of a recipe of kind `photocopy`.

teacher -> generation 1 -> 2 -> 3, each from the same start with equal steps, each on what the one before says to the
same prompts. The mixed branch begins with generation 1 and has a share of the teacher's own answers from then on.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from spiritsafe.distil import prune_start, steps, train_from_start
from spiritsafe.house import START, TEACHER, House, collect, in_order, write_claims
from spiritsafe.ledger import Entry
from spiritsafe.models import Request, ask
from spiritsafe.pipeline import know_teacher, write_prompts
from spiritsafe.progress import Show, warn
from spiritsafe.prompts import Prompt
from spiritsafe.recipe_photocopy import PhotocopyRecipe
from spiritsafe.record import Exchange, Sampling, Verdict, digest_of, seed_of, write_atomic
from spiritsafe.run import Run
from spiritsafe.stage import Done, Stages

COPIES, MIXED = "copies", "mixed"
Press = House[PhotocopyRecipe]


@dataclass(frozen=True)
class Copy:
    """One model of the chain or of the mixed branch, and the model whose answers it learns from."""

    name: str
    generation: int
    branch: str
    source: str


def lineage(generations: int) -> list[Copy]:
    """All copies, each after its source: the chain, then the mixed branch from generation 2 on."""
    chain = [
        Copy(f"generation {g}", g, COPIES, f"generation {g - 1}" if g > 1 else TEACHER)
        for g in range(1, generations + 1)
    ]
    mixed = [
        Copy(f"mixed {g}", g, MIXED, f"mixed {g - 1}" if g > 2 else "generation 1") for g in range(2, generations + 1)
    ]
    return [*chain, *mixed]


def run_photocopy(run: Run[PhotocopyRecipe], show: Show) -> list[Verdict]:
    """Run or continue every stage and write the report; returns all verdicts."""
    copies = lineage(run.recipe.copies.generations)
    folders = {name: f"models/{_slug(name)}" for name in (START, *(c.name for c in copies))}
    house = House(run, Stages(run, show), folders)
    do = house.stages.do
    house.check_teacher()
    do("teacher", (), partial(know_teacher, house))
    do("prompts", ("teacher",), partial(write_prompts, house))
    do(_answers(TEACHER), ("teacher", "prompts"), partial(draw_answers, house, TEACHER))
    do("start", ("teacher", _answers(TEACHER)), partial(prune_start, house, answers=_answers(TEACHER)))
    sources = {c.source for c in copies}
    for copy in copies:
        learns = {_answers(TEACHER), _answers(copy.source)} if copy.branch == MIXED else {_answers(copy.source)}
        do(_slug(copy.name), ("start", *sorted(learns)), partial(train_copy, house, copy))
        if copy.name in sources:
            do(_answers(copy.name), ("prompts", _slug(copy.name)), partial(draw_answers, house, copy.name))
    models = tuple(_slug(c.name) for c in copies)
    do("samples", ("teacher", "prompts", *models), partial(draw_samples, house))
    do("fidelity", ("teacher", "samples", *models), partial(measure_fidelity, house))
    do("texts", ("samples",), partial(measure_texts, house))
    do("tasks", ("teacher", "prompts", *models), partial(measure_tasks, house), also=_policy(run.recipe))
    do("drift", ("fidelity", "texts", "tasks"), partial(tell_drift, house))
    return finish(house)


def draw_answers(house: Press, name: str, entry: Entry) -> Done:
    """A model's answers to the training prompts, from which the next generation learns."""
    return Done((collect(house, house.model(name), _asked(house, name), _answers(name), entry),))


def train_copy(house: Press, copy: Copy, entry: Entry) -> Done:
    """Train one copy from the common start, on text alone, as from a model that only returns text."""
    from spiritsafe.make.batches import samples_of
    from spiritsafe.make.methods import Text

    texts = _given(house, copy.source)
    real: set[int] = set()
    if copy.branch == MIXED:
        originals, num = _given(house, TEACHER), round(house.run.recipe.copies.real_share * len(texts))
        order = np.random.Generator(np.random.Philox(seed_of(house.seed, "mixed", copy.generation)))
        real = set(order.permutation(len(texts))[:num].tolist())
        texts = [originals[i] if i in real else text for i, text in enumerate(texts)]
    samples = samples_of(house.teacher.pair(e.model_copy(update={"token_ids": None})) for e in texts)
    method = Text(samples, house.run.recipe.make, seed=seed_of(house.seed, "order"))
    done = train_from_start(house, copy.name, method, samples, entry)
    done.notes |= {"answers": len(texts), "of_the_teacher": len(texts) if copy.source == TEACHER else len(real)}
    return done


def draw_samples(house: Press, entry: Entry) -> Done:
    """Several answers of every model to each held-out prompt; of the teacher two more sets, to compare with."""
    files = [
        collect(house, house.model(name), _sampled(house), f"samples-{_slug(name)}", entry) for name in _models(house)
    ]
    for purpose in ("heldout", "tail"):
        files.append(collect(house, house.teacher, _sampled(house, purpose), purpose, entry))
    return Done(tuple(files))


def measure_fidelity(house: Press, entry: Entry) -> Done:
    """How close every model is to the original, on the original's held-out answers."""
    from spiritsafe.measure.drift.quantities import of_fidelity
    from spiritsafe.measure.fidelity import compare, fidelity, reference

    heldout = in_order(house, "heldout", _sampled(house, "heldout"))
    theirs = reference(house.teacher, heldout)
    found = {TEACHER: compare(theirs, theirs, [house.teacher.pair(e) for e in heldout], heldout)}
    names = [name for name in _models(house) if name != TEACHER]
    with house.stages.show.bar("models compared", len(names)) as tick:
        for name in names:
            found[name] = fidelity(theirs, house.model(name), heldout)
            tick()
    return _noted(of_fidelity(found, house.run.recipe.measure.margins))


def measure_texts(house: Press, entry: Entry) -> Done:
    """Variety, tail coverage, semantic entropy and self-consistency of the sampled answers."""
    from spiritsafe.measure.drift.quantities import of_texts

    part = house.run.recipe.measure
    found = {
        name: _by_prompt(in_order(house, f"samples-{_slug(name)}", _sampled(house)), part.samples)
        for name in _models(house)
    }
    tail = _by_prompt(in_order(house, "tail", _sampled(house, "tail")), part.samples)
    return _noted(of_texts(found, tail, most=part.rare, margins=part.margins))


def measure_tasks(house: Press, entry: Entry) -> Done:
    """Verifiable tasks, TruthfulQA, rejections with the control off and on, over-refusal: by the laboratory."""
    from spiritsafe.measure.drift.quantities import of_cells
    from spiritsafe.measure.harness import Plan, measure
    from spiritsafe.measure.registry import available, find_task
    from spiritsafe.measure.tasks.gym import of_prompts

    part = house.run.recipe.measure
    tasks = available([find_task(name) for name in part.tasks], part.data, warn)
    own = [p for p in house.prompts() if p.family and p.split == "heldout"]
    tasks += [of_prompts("held-out tasks", own)] if own else []
    models, folder = {house.model(name).address: name for name in _models(house)}, house.run.path("measured")
    plan = Plan(part.data, part.limit, house.seed, ("off", part.guard), answer_tokens=part.answer_tokens)
    found = measure([house.model(name) for name in models.values()], tasks, folder, plan, show=house.stages.show)
    entry.count(tokens_in=sum(c.tokens for c in found.cells if c.setting == "off"))
    files = tuple(folder / kind for kind in ("exchanges", "likelihoods") if (folder / kind).is_dir())
    return _noted(of_cells(found.cells, models, guard=part.guard, margins=part.margins), files)


def tell_drift(house: Press, entry: Entry) -> Done:
    """The levels of all quantities, and what changed from generation 1 on."""
    from spiritsafe.measure.drift.table import Design, Quantity, drift_verdicts

    part, copies = house.run.recipe.measure, lineage(house.run.recipe.copies.generations)
    places = {TEACHER: (0, "original")} | {c.name: (c.generation, c.branch) for c in copies}
    last = house.run.recipe.copies.generations
    pairs = [(c.name, "generation 1") for c in copies[1:]] + [(f"mixed {last}", f"generation {last}")]
    noted = [q for stage in ("fidelity", "texts", "tasks") for q in house.stages.records[stage]["notes"]["quantities"]]
    design = Design(places, tuple(pairs), part.alpha, house.seed, part.bootstrap)
    return Done(verdicts=drift_verdicts([Quantity.model_validate(q) for q in noted], design))


def finish(house: Press) -> list[Verdict]:
    """Write verdicts, plot data, ledger and report."""
    from spiritsafe.report.html import write_report

    run, stages = house.run, house.stages
    verdicts = write_claims(stages)
    copies = lineage(run.recipe.copies.generations)
    write_atomic(run.path("metrics.jsonl"), "".join(steps(run, copy.name) for copy in copies))
    write_report(run.folder)
    return verdicts


def _slug(name: str) -> str:
    return name.replace(" ", "-")


def _answers(name: str) -> str:
    return f"answers-{_slug(name)}"


def _models(house: Press) -> list[str]:
    return [TEACHER, *(c.name for c in lineage(house.run.recipe.copies.generations))]


def _asked(house: Press, name: str) -> list[Request]:
    """What is asked of a model for the next generation: the same prompts in the same order, with seeds of its own."""
    part, train = house.run.recipe.copies, [p for p in house.prompts() if p.split == "train"]
    sampling = part.sampling.model_copy(update={"seed": house.seed})
    return ask([p.messages for p in train], sampling, n=part.answers_per_prompt, purpose=f"copy of {name}")


def _given(house: Press, name: str) -> list[Exchange]:
    return in_order(house, _answers(name), _asked(house, name))


def _sampled(house: Press, purpose: str = "samples") -> list[Request]:
    """Requests to the held-out prompts; one a prompt where fidelity is measured, else several."""
    part = house.run.recipe.measure
    free: list[Prompt] = [p for p in house.prompts() if p.split == "heldout" and not p.family][: part.heldout_prompts]
    sampling = Sampling(max_tokens=part.heldout_tokens, seed=house.seed)
    return ask([p.messages for p in free], sampling, n=1 if purpose == "heldout" else part.samples, purpose=purpose)


def _by_prompt(exchanges: Sequence[Exchange], samples: int) -> list[list[str]]:
    texts = [e.answer for e in exchanges]
    return [texts[start : start + samples] for start in range(0, len(texts), samples)]


def _noted(quantities: Sequence[Any], files: Sequence[Any] = ()) -> Done:
    return Done(tuple(files), notes={"quantities": [q.model_dump(mode="json") for q in quantities]})


def _policy(recipe: PhotocopyRecipe) -> dict[str, str]:
    """The digests of the policy that the setting of the risk control names, and of the judge of refusals."""
    from spiritsafe.guard.policy import load_policy
    from spiritsafe.measure.refusal.judge import digest

    named = recipe.measure.guard.rpartition("@")[0].partition("~")[0]
    return {"policy": digest_of(load_policy(named or "default")), "refusal judge": digest()}
