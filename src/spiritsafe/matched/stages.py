"""The stages of a comparison: prompts, the teacher's answers and signals, the start, every training, the verdicts.

Each training is a stage: a run that was killed continues with the training it was in, from that one's beginning.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from spiritsafe.distil import prune_start
from spiritsafe.house import START, TEACHER, House, collect, in_order, write_claims
from spiritsafe.ledger import Entry
from spiritsafe.matched.costs import costs
from spiritsafe.matched.training import ANSWERS, HELDOUT, SIGNALS, Lab, run_trial
from spiritsafe.matched.trial import SUMS, Look, Trial, trials
from spiritsafe.models import Request, ask
from spiritsafe.pipeline import know_teacher, write_prompts
from spiritsafe.progress import Show
from spiritsafe.prompts import Prompt
from spiritsafe.recipe_matched import MatchedRecipe
from spiritsafe.record import Exchange, Sampling, Verdict, append_jsonl, read_jsonl, write_json
from spiritsafe.run import Run
from spiritsafe.stage import Done, Stages

TASK_BUDGETS = ("tokens", "seconds")


def run_matched(run: Run[MatchedRecipe], show: Show) -> list[Verdict]:
    """Run or continue every stage of a comparison and write the report; returns all verdicts."""
    house: House[MatchedRecipe] = House(run, Stages(run, show))
    lab, do = Lab(house), house.stages.do
    house.check_teacher()
    do("teacher", (), partial(know_teacher, house))
    do("prompts", ("teacher",), partial(write_prompts, house))
    do("answers", ("teacher", "prompts"), partial(draw_answers, house))
    do("heldout", ("teacher", "prompts"), partial(draw_heldout, house))
    do("signals", ("teacher", "answers"), partial(keep_signals, house))
    do("start", ("teacher", "answers"), partial(prune_start, house, answers=ANSWERS))
    do("before", ("start", "heldout"), partial(look_before, lab))
    wanted = trials(run.recipe.matched)
    for trial in wanted:
        do(trial.name, ("start", "answers", "heldout", "signals"), partial(train_and_look, lab, trial))
    do("compare", ("before", *(trial.name for trial in wanted)), partial(compare, lab, wanted))
    return finish(house, wanted)


def draw_answers(house: House[MatchedRecipe], entry: Entry) -> Done:
    """The teacher's answers to all training prompts."""
    sampling = Sampling(max_tokens=house.run.recipe.matched.answer_tokens, seed=house.seed)
    chosen = [p.messages for p in house.prompts() if p.split == "train"]
    return Done((collect(house, house.teacher, ask(chosen, sampling, purpose="learn"), ANSWERS, entry),))


def draw_heldout(house: House[MatchedRecipe], entry: Entry) -> Done:
    """The teacher's answers to prompts that nothing is trained on."""
    part = house.run.recipe.measure
    sampling = Sampling(max_tokens=part.heldout_tokens, seed=house.seed)
    free = [p.messages for p in house.prompts() if p.split == "heldout" and not p.family][: part.heldout_prompts]
    return Done((collect(house, house.teacher, ask(free, sampling, purpose="held"), HELDOUT, entry),))


def keep_signals(house: House[MatchedRecipe], entry: Entry) -> Done:
    """What the teacher says at each token of its answers, for the method that learns from a cache."""
    from spiritsafe.make.signals import Keep, fill

    if "cached" not in house.run.recipe.matched.methods:
        return Done()
    folder, answers, part = house.run.path(*SIGNALS), house.exchanges(ANSWERS), house.run.recipe.make.signals
    with house.stages.show.bar("answers scored by the teacher", len(answers)) as tick:
        fill(house.teacher, answers, folder, keep=Keep(part.kind, part.size), seed=house.seed, tick=tick)
    read = sum(len(prompt) + len(answer) for prompt, answer in map(house.teacher.pair, answers))
    entry.count(tokens_in=read)
    return Done((folder,), notes={"read": read, "bytes": sum(file.stat().st_size for file in folder.iterdir())})


def look_before(lab: Lab, entry: Entry) -> Done:
    """Start and teacher, which no training changes: how near they are, and which tasks they solve."""
    found, house = lab.fidelity(lab.start), lab.house
    told = {key: getattr(found, key) for key in (*SUMS, "tokens", "num_bytes")}
    path = house.run.path("looks", "before.json")
    write_json(path, told)
    start = lab.local(lab.start, START)
    files = [answer_tasks(lab, model, name, entry) for model, name in ((start, START), (house.teacher, TEACHER))]
    return Done((path, *(f for f in files if f)))


def train_and_look(lab: Lab, trial: Trial, entry: Entry) -> Done:
    """One training, its looks, and the tasks where it is the first of its kind."""
    house, before_s = lab.house, teacher_before_s(lab.house, trial)
    with house.stages.show.bar(f"training steps, {trial.name}", 0) as tick:
        model, looks = run_trial(lab, trial, before_s, tick)
    path = house.run.path("looks", f"{trial.name}.jsonl")
    path.unlink(missing_ok=True)
    append_jsonl(path, looks)
    entry.count(tokens_in=looks[-1].tokens + looks[-1].read, tokens_out=looks[-1].written)
    answered = None
    if trial.number == 0 and trial.budget in TASK_BUDGETS:
        answered = answer_tasks(lab, lab.local(model, trial.subject), trial.name, entry)
    return Done((path, answered) if answered else (path,))


def teacher_before_s(house: House[MatchedRecipe], trial: Trial) -> float:
    """Seconds of the teacher that this method needs before it can begin, as if nobody else had."""
    records = house.stages.records
    needs_none = trial.method == "on-policy" and house.run.recipe.matched.own_share == 1
    sampled = 0.0 if needs_none else _wall_s(records, ANSWERS)
    return sampled + (_wall_s(records, "signals") if trial.method == "cached" else 0.0)


def tasks_of(house: House[MatchedRecipe]) -> tuple[list[Prompt], list[Request]]:
    """The held-out tasks, and how they are asked: greedy."""
    tasks = [p for p in house.prompts() if p.family and p.split == "heldout"]
    sampling = Sampling(temperature=0.0, max_tokens=house.run.recipe.measure.task_tokens, seed=house.seed)
    return tasks, ask([p.messages for p in tasks], sampling, purpose="tasks")


def answer_tasks(lab: Lab, model: Any, name: str, entry: Entry) -> Path | None:
    """A model's answers to the held-out tasks; None where the recipe has none."""
    _, requests = tasks_of(lab.house)
    return collect(lab.house, model, requests, _log_of(name), entry) if requests else None


def outcomes(house: House[MatchedRecipe], name: str) -> list[bool | None]:
    """Which held-out tasks a model solved; None for what could not be scored."""
    from spiritsafe.measure.accuracy import correct

    tasks, requests = tasks_of(house)
    return correct(in_order(house, _log_of(name), requests), tasks)


def compare(lab: Lab, wanted: Sequence[Trial], entry: Entry) -> Done:
    """All verdicts, paired on the same prompts, and the curves."""
    from spiritsafe.matched.claims import Heldout, curves, fidelity_claims, task_claims
    from spiritsafe.record import read_json

    house = lab.house
    before = read_json(house.run.path("looks", "before.json"))
    heldout = Heldout(
        tuple(before["tokens"]), tuple(before["num_bytes"]), house.seed, house.run.recipe.measure.bootstrap
    )
    looks = looks_of(house, wanted)
    verdicts = fidelity_claims(looks, before, heldout)
    if tasks_of(house)[0]:
        asked = [t for t in wanted if t.number == 0 and t.budget in TASK_BUDGETS]
        solved = {t: outcomes(house, t.name) for t in asked}
        verdicts += task_claims(solved, {name: outcomes(house, name) for name in (START, TEACHER)}, seed=house.seed)
    return Done(verdicts=verdicts, plots={"curves": curves(looks, before, heldout)})


def looks_of(house: House[MatchedRecipe], wanted: Sequence[Trial]) -> list[Look]:
    """What all looks found."""
    return [look for trial in wanted for look in read_jsonl(house.run.path("looks", f"{trial.name}.jsonl"), Look)]


def finish(house: House[MatchedRecipe], wanted: Sequence[Trial]) -> list[Verdict]:
    """Write verdicts, plot data, ledger, costs and report."""
    from spiritsafe.report.matched import write_matched

    run, stages = house.run, house.stages
    verdicts = write_claims(stages)
    entries = [record["entry"] for record in stages.records.values()]
    signals_read = int(stages.records["signals"]["notes"].get("read", 0))
    answers = exchanges_written(house.exchanges(ANSWERS))
    told = costs(entries, looks_of(house, wanted), run.recipe, written=answers, signals_read=signals_read)
    write_json(run.path("costs.json"), told)
    write_matched(run.folder)
    return verdicts


def exchanges_written(exchanges: Sequence[Exchange]) -> int:
    """Tokens of all answers."""
    return sum(e.usage.completion_tokens for e in exchanges)


def _log_of(name: str) -> str:
    return f"tasks-{name.replace(' ', '-')}"


def _wall_s(records: dict[str, dict[str, Any]], stage: str) -> float:
    return float(records[stage]["entry"]["wall_s"])
