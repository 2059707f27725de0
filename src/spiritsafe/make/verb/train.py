"""The training of a making: from the start and what was kept to the student's directory; continues after any kill."""

import json
from pathlib import Path
from typing import Any

from spiritsafe.ledger import Entry
from spiritsafe.make.loop import Budget, tracked, train
from spiritsafe.make.signals import open_cache, tokenizer_digest
from spiritsafe.make.student import save_student
from spiritsafe.make.verb.learn import Given, Lesson, lesson
from spiritsafe.make.verb.settings import WHITE_BOX, parse_student
from spiritsafe.make.verb.start import opened, opened_folder
from spiritsafe.make.verb.work import Work
from spiritsafe.models.local import LocalModel
from spiritsafe.record import append_jsonl, seed_of, write_atomic
from spiritsafe.stage import Done


def train_student(work: Work, entry: Entry) -> Done:
    """Train the start by the method and write the student."""
    start, settings, seed = open_start(work), work.settings, work.settings.run.seed
    taught = lesson(settings, work.teacher, start, _given(work, start))
    if taught.left_out:
        work.show.say(f"left out of the training: {len(taught.left_out)}, e.g. {taught.left_out[0]}")
    metrics, checkpoint = work.path("metrics.jsonl"), work.path("checkpoint.pt")
    length = settings.length
    budget = Budget(length.tokens, length.seconds) if length.tokens or length.seconds else None
    told = tracked(settings.make.track, project=settings.run.name, run=work.run.folder.name)
    with told as track, work.show.bar("training steps", taught.method.steps) as tick:

        def on_step(step: dict[str, float | int]) -> None:
            append_jsonl(metrics, [step])
            track(step)
            tick()

        spent = train(
            start.model,
            taught.method,
            taught.settings,
            seed=seed_of(seed, "order"),
            first_trained=work.stages.records["start"]["notes"]["first"],
            checkpoint=checkpoint,
            budget=budget,
            on_step=on_step,
        )
    entry.count(tokens_in=spent.tokens)
    write_atomic(metrics, once_each(metrics))
    save_student(start.model, _tokenizer(work, start), work.path("student"))
    checkpoint.unlink(missing_ok=True)
    return Done((work.path("student"),), notes=_notes(taught, spent.answer_tokens, spent.steps, metrics))


def open_start(work: Work) -> LocalModel:
    """The student's start, read anew."""
    student = parse_student(work.settings.student)
    return opened(student.source) if student.kind == "model" else opened_folder(work.path("start"))


def once_each(metrics: Path) -> str:
    """A training's steps, once each: a continued one repeats those since its checkpoint."""
    lines = metrics.read_text().splitlines()
    return "".join(f"{line}\n" for line in {json.loads(line)["step"]: line for line in lines}.values())


def _given(work: Work, start: LocalModel) -> Given:
    kept, cache = work.kept() if work.needs_answers else [], None
    if work.settings.method == "cached":
        teacher = work.teacher
        of = teacher.tokenizer if isinstance(teacher, LocalModel) else start.tokenizer
        cache = open_cache(
            work.path("signals"), teacher_digest=teacher.digest, tokenizer_digest=tokenizer_digest(of), exchanges=kept
        )
    return Given(work.prompts("train"), kept, cache, work.path("exchanges", "judge.jsonl"))


def _tokenizer(work: Work, start: LocalModel) -> Any:
    """The student's; with its teacher's chat template where it learned on prompts in that."""
    teacher = work.teacher
    return (
        teacher.tokenizer if work.settings.method in WHITE_BOX and isinstance(teacher, LocalModel) else start.tokenizer
    )


def _notes(taught: Lesson, answer_tokens: int, steps: int, metrics: Path) -> dict[str, Any]:
    losses = [json.loads(line)["loss"] for line in metrics.read_text().splitlines()]
    told = {"method": taught.method.name, "loss": taught.loss, "steps": steps, "answer_tokens": answer_tokens}
    return told | {
        "first_loss": losses[0],
        "last_loss": losses[-1],
        "unread": getattr(taught.method, "unread", 0),
        "left_out": len(taught.left_out),
    }
