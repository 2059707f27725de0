"""`spiritsafe make`: a teacher's address and some prompts in, a small student with its card and evidence out.

Beside pipeline.py, since the student is compared with its start (`measure`) and described (`report`).
"""

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spiritsafe.errors import RunError, UsageError
from spiritsafe.ledger import Entry, summary
from spiritsafe.make.verb.possible import check, probe_teacher
from spiritsafe.make.verb.prompts import check_prompts, check_source
from spiritsafe.make.verb.said import no_verdict
from spiritsafe.make.verb.settings import METHODS, MakeSettings
from spiritsafe.progress import Show, warn
from spiritsafe.prompts import Prompt
from spiritsafe.recipe import override, parse_any
from spiritsafe.record import Verdict, file_digest, read_json, read_jsonl, write_atomic, write_json
from spiritsafe.run import Run, opened, stage_record
from spiritsafe.stage import Done, Stages

if TYPE_CHECKING:
    from spiritsafe.make.verb.work import Work


@dataclass(frozen=True)
class Options:
    """The command's options as they were given."""

    prompts: str
    method: str
    student: str
    limit: int | None = None
    seed: int = 0
    tokens: int | None = None
    seconds: float | None = None


@dataclass(frozen=True)
class Made:
    """What a making left: the student's directory, what its training notes, and the verdicts.

    `answers` says what became of the teacher's answers, `no_verdict` why there is none; "" if there is.
    """

    student: Path
    notes: dict[str, Any]
    verdicts: list[Verdict]
    answers: str
    no_verdict: str


def settings_of(teacher: str, options: Options, overrides: Sequence[str]) -> MakeSettings:
    """Settings from the command line, checked as far as that goes without a model. Raises `UsageError`."""
    for name in ("prompts", "method", "student"):
        if not getattr(options, name):
            raise UsageError(f"--{name}", "is missing", "--probe says which methods a teacher allows")
    if options.method not in METHODS:
        raise UsageError(f"--method {options.method}", "is not known", ", ".join(METHODS))
    data: dict[str, Any] = {
        "run": {"name": f"{options.method}-student", "seed": options.seed},
        "teacher": {"model": teacher},
        "prompts": options.prompts,
        "limit": options.limit,
        "method": options.method,
        "student": options.student,
        "length": {"tokens": options.tokens, "seconds": options.seconds},
    }
    override(data, overrides)
    settings = parse_any({"kind": "make", **data}, where="make")
    assert isinstance(settings, MakeSettings), "kind"
    check_source(settings.prompts, weights=check(settings) == "weights")
    return settings


def check_prompts_of(settings: MakeSettings) -> None:
    """Read the prompts as the making would, and say how. Raises `DataError` if they cannot be used."""
    if said := check_prompts(settings, check(settings)):
        Show().say(said)


def make_student(settings: MakeSettings, folder: Path, *, resume: bool) -> Made:
    """Run or continue every stage in `folder`, or with `resume` only continue; returns what was made."""
    show, given = Show(), {"resume": folder} if resume else {"folder": folder}
    new = not folder.exists()
    try:
        with opened(settings, Path(), **given) as (run, warnings):
            for text in warnings:
                warn(text)
            show.say(f"directory: {folder}")
            verdicts = run_making(run, show)
            return _made(run, verdicts)
    except BaseException:
        if new and folder.is_dir() and not _holds_work(folder):
            shutil.rmtree(folder)
        raise


def _made(run: Run[MakeSettings], verdicts: list[Verdict]) -> Made:
    settings, notes = run.recipe, read_json(run.path("stages", "student.json"))["notes"]
    data, compare = (run.path("stages", f"{name}.json") for name in ("data", "compare"))
    answers = read_json(data)["notes"].get("said", "") if data.is_file() else ""
    heldout = sum(p.split == "heldout" for p in read_jsonl(run.path("prompts.jsonl"), Prompt))
    told_of = read_json(compare)["notes"] if compare.is_file() else {}
    local = check(settings) == "weights"
    why = "" if verdicts else no_verdict(settings, local=local, heldout=heldout, notes=told_of)
    return Made(run.folder / "student", notes, verdicts, answers, why)


def _holds_work(folder: Path) -> bool:
    """Whether a making that failed left what cost something: answers, prompts that a teacher wrote, a start."""
    paid = [*folder.glob("exchanges/*.jsonl"), *folder.glob("exchanges/*.said"), *folder.glob("start/*")]
    own = [p for p in read_jsonl(folder / "prompts.jsonl", Prompt) if p.source == "self-synthesis"]
    return bool(own) or any(file.stat().st_size for file in paid)


def told(made: Made, *, as_json: bool) -> str:
    """What was made, in a line for a person, or all of it for a program."""
    notes = {key: value for key, value in made.notes.items() if key != "loss"}
    if as_json:
        verdicts = [v.model_dump(mode="json") for v in made.verdicts]
        why = {"answers": made.answers, "no_verdict": made.no_verdict}
        return json.dumps({"student": str(made.student), **notes, **why, "verdicts": verdicts}, indent=1)
    what = f"{notes['method']}, {notes['steps']} steps, {notes['answer_tokens']:,} answer tokens"
    said = [made.answers, f"no verdict: {made.no_verdict}" if made.no_verdict else ""]
    lines = [f"student: {made.student} ({what})", *said, f"report: {made.student.parent / 'report.html'}"]
    return "\n".join(line for line in lines if line)


def print_probe(teacher: str, student: str, *, as_json: bool) -> None:
    """Find out what a teacher gives, and say it."""
    found = probe_teacher(teacher, student)
    if as_json:
        print(json.dumps(asdict(found), indent=1))
        return
    print(f"teacher: {found.teacher}\ngives: {found.gives}")
    for key, value in found.told.items():
        if value not in ("", None):
            print(f"  {key}: {value}")
    for name, why in [*((f"method {m}", why) for m, why in found.methods.items()), ("student pruned", found.pruned)]:
        print(f"{name}: {'no: it ' + why if why else 'possible'}")


def run_making(run: Run[MakeSettings], show: Show) -> list[Verdict]:
    """Run or continue every stage of a recipe of the kind `make`; returns all verdicts."""
    show.say(f"loading {run.recipe.teacher.model}")  # the libraries alone, imported here, may take a minute
    from spiritsafe.make.verb import work as stages
    from spiritsafe.make.verb.start import student_files
    from spiritsafe.make.verb.train import train_student
    from spiritsafe.report.html import write_report

    settings, kind = run.recipe, check(run.recipe)
    files = check_source(settings.prompts, weights=kind == "weights")
    work = stages.Work(run, Stages(run, show), kind)
    do = work.stages.do
    _check_prompts(run, files)
    do("teacher", (), partial(stages.know_teacher, work))
    do("prompts", ("teacher",), partial(stages.write_prompts, work), also=files)
    needs = ["teacher", "prompts"]
    if work.needs_answers:
        do("data", ("teacher", "prompts"), partial(stages.collect_answers, work))
        needs.append("data")
    do("start", tuple(needs), partial(stages.begin_student, work), also=student_files(settings.student))
    if settings.method == "cached":
        do("signals", ("teacher", "data"), partial(stages.capture_signals, work))
        needs.append("signals")
    do("student", (*needs, "start"), partial(train_student, work))
    if work.prompts("heldout"):
        ask = _judge if settings.method == "judged" else _compare
        do("compare", ("teacher", "prompts", "start", "student"), partial(ask, work))
    verdicts = work.stages.verdicts()
    _describe(work, verdicts)
    write_report(run.folder)
    return verdicts


def _check_prompts(run: Run[MakeSettings], files: Mapping[str, str]) -> None:
    """Raise `RunError` if the file of prompts was edited since this making read it: what follows is of the old one."""
    known = stage_record(run, "prompts")
    before = known["entry"]["inputs"].get("prompts") if known else None
    if before and before != files.get("prompts"):
        what = f"{run.recipe.prompts} was edited since this making read it"
        raise RunError(str(run.folder), what, "put the old file back to go on, or use -o DIR for a new making")


def _compare(work: "Work", entry: Entry) -> Done:
    """How close start and student are to the teacher on its answers to the held-out prompts."""
    from spiritsafe.make.verb.start import check_vocabulary, opened_folder
    from spiritsafe.make.verb.train import open_start
    from spiritsafe.measure.fidelity import change_verdict, fidelity, fidelity_verdicts, reference
    from spiritsafe.models.logits import num_rows

    part, seed, teacher = work.settings.heldout, work.settings.run.seed, work.local_teacher
    models = {"start": open_start(work), "student": opened_folder(work.path("student"))}
    try:
        check_vocabulary(teacher, models["student"].tokenizer, num_rows(models["student"].model))
    except UsageError:
        return Done(notes={"no_verdict": "the student has other tokens than its teacher, and no KL to it"})
    answers = work.answered(work.prompts("heldout")[: part.most], "heldout", entry)
    if len(answers) < 2:
        what = f"{len(answers)} held-out prompt with an answer, and two are needed: give more, or raise heldout.share"
        return Done(notes={"no_verdict": what})
    theirs = reference(teacher, answers)
    found = {name: fidelity(theirs, model, answers) for name, model in models.items()}
    figures = [v for n, f in found.items() for v in fidelity_verdicts(n, f, seed=seed, resamples=part.bootstrap)]
    change = change_verdict("student", "start", found["student"], found["start"], seed=seed, resamples=part.bootstrap)
    return Done(verdicts=[*figures, change])


def _judge(work: "Work", entry: Entry) -> Done:
    """What the judge thinks of start and student on the held-out prompts."""
    from spiritsafe.make.verb.judgement import judge_verdicts
    from spiritsafe.make.verb.learn import judge_of
    from spiritsafe.make.verb.start import opened_folder
    from spiritsafe.make.verb.train import open_start

    prompts = work.prompts("heldout")[: work.settings.heldout.most]
    judge = judge_of(work.settings, work.teacher, work.path("exchanges", "judge.jsonl"))
    models = open_start(work), opened_folder(work.path("student"))
    verdicts = judge_verdicts(work.settings, judge, *models, prompts)
    what = f"the judge scored fewer than two of {len(prompts)} held-out prompts in a way that can be read"
    return Done(verdicts=verdicts, notes={} if verdicts else {"no_verdict": what})


def _describe(work: "Work", verdicts: Sequence[Verdict]) -> None:
    """Write verdicts, ledger and model card from what the stages left."""
    from spiritsafe.report.card import objective_text, write_card
    from spiritsafe.report.table import verdicts_json

    settings, records = work.settings, work.stages.records
    write_atomic(work.path("verdicts.json"), verdicts_json(verdicts, computed=work.stages.computed()))
    write_json(work.path("ledger.json"), summary([r["entry"] for r in records.values()], settings.ledger))
    notes, kept = records["student"]["notes"], work.path("exchanges", "kept.jsonl")
    data: dict[str, str | int] = {"prompts": settings.prompts, "prompts learned from": len(work.prompts("train"))}
    if work.needs_answers:
        data |= {"exchanges": records["data"]["notes"]["kept"], "sha256": file_digest(kept)}
    write_card(
        work.path("student"),
        name=settings.run.name,
        seed=settings.run.seed,
        settings={key: str(value) for key, value in settings.make},
        verdicts=verdicts,
        teacher=records["teacher"]["notes"],
        method={
            "start": records["start"]["notes"]["text"],
            "method": notes["method"],
            "loss per token": notes["loss"] or objective_text(settings.make.loss.objective()),
            "steps": notes["steps"],
            "answer tokens": notes["answer_tokens"],
        },
        data=data,
        licence=settings.teacher.licence,
    )
