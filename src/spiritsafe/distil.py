"""The stages of a run that make students: the pruned start, the teacher's signals, and every training."""

import json
from functools import partial
from pathlib import Path
from typing import Any

from spiritsafe.house import OWN, START, STUDENT, House, drawn
from spiritsafe.ledger import Entry
from spiritsafe.progress import Tick
from spiritsafe.record import Exchange, append_jsonl, seed_of
from spiritsafe.run import Run
from spiritsafe.stage import Done


def prune_start(house: House[Any], entry: Entry, *, answers: str = "control") -> Done:
    """Choose which layers to leave out, by the teacher's `answers`, and write the students' common start."""
    from spiritsafe.make.prune import choose_cut, num_layers_of, prune
    from spiritsafe.make.student import save_student

    part, teacher = house.run.recipe.make, house.teacher
    depth = num_layers_of(teacher.model)
    notes: dict[str, Any] = {"depth": depth}
    trials: list[dict[str, float]] = []
    if part.drop == "measured":
        pairs = [teacher.pair(e) for e in house.exchanges(answers)[: part.importance_prompts]]
        with house.stages.show.bar("blocks of layers tried", part.num_layers - 1) as tick:
            cut = choose_cut(teacher.model, pairs, num_layers=part.num_layers, pad_id=teacher.pad_id, tick=tick)
        keep, trials = cut.keep, [{"start": start, "kl": kl} for start, kl in cut.kl_by_start.items()]
    else:
        keep = tuple(i for i in range(depth) if i not in part.drop)
    folder = house.run.path(house.folders[START])
    save_student(prune(teacher.model, keep), teacher.tokenizer, folder)
    return Done((folder,), plots={"cut": trials}, notes={**notes, "keep": list(keep)})


def capture_signals(house: House, entry: Entry) -> Done:
    """Keep what the teacher says at each token of the answers that the drawing account was served."""
    from spiritsafe.make.signals import Keep, fill

    folder, served, part = house.run.path("signals", "served"), drawn(house), house.run.recipe.make.signals
    with house.stages.show.bar("answers scored by the teacher", len(served)) as tick:
        fill(house.teacher, served, folder, keep=Keep(part.kind, part.size), seed=house.seed, tick=tick)
    num_bytes = sum(file.stat().st_size for file in folder.iterdir())
    return Done((folder,), notes={"kind": part.kind, "size": part.size, "bytes": num_bytes})


def train_student(house: House, name: str, entry: Entry) -> Done:
    """Train one student from the common start: from served text, from cached signals, or from other draws."""
    method, samples = _method(house, name)
    return train_from_start(house, name, method, samples, entry)


def train_from_start(house: House[Any], name: str, method: Any, samples: list[Any], entry: Entry) -> Done:
    """Train the model called `name` from the common start by a method over its samples, and save it."""
    from spiritsafe.make.loop import tracked, train
    from spiritsafe.make.prune import first_changed
    from spiritsafe.make.student import save_student
    from spiritsafe.models.local import load_parts

    settings, slug = house.run.recipe.make, name.replace(" ", "-")
    model, tokenizer = load_parts(house.run.path(house.folders[START]))
    keep = house.stages.records["start"]["notes"]["keep"]
    metrics, checkpoint = house.run.path("metrics", f"{slug}.jsonl"), house.run.path("checkpoints", f"{slug}.pt")
    told = tracked(settings.track, project=house.run.recipe.run.name, run=f"{house.run.folder.name}-{slug}")
    with told as track, house.stages.show.bar(f"training steps of the {name}", method.steps) as tick:
        train(
            model,
            method,
            settings,
            seed=seed_of(house.seed, "order"),
            first_trained=first_changed(keep),
            checkpoint=checkpoint,
            on_step=partial(_log_step, metrics, slug, tick, track),
        )
    entry.count(tokens_in=sum(s.tokens for s in samples) * settings.epochs)
    save_student(model, tokenizer, folder := house.run.path(house.folders[name]))
    checkpoint.unlink(missing_ok=True)
    answer_tokens = sum(len(s.answer_ids) for s in samples)
    return Done((folder,), notes={"answer_tokens": answer_tokens, "method": method.name})


def steps(run: Run[Any], name: str) -> str:
    """A student's training steps, once each: a continued run repeats those since its checkpoint."""
    lines = run.path("metrics", f"{name.replace(' ', '-')}.jsonl").read_text().splitlines()
    return "".join(f"{line}\n" for line in {json.loads(line)["step"]: line for line in lines}.values())


def _method(house: House, name: str) -> tuple[Any, list[Any]]:
    """What a student learns from, and its samples."""
    from spiritsafe.make.batches import samples_of
    from spiritsafe.make.methods import Text

    teacher, settings, seed = house.teacher, house.run.recipe.make, seed_of(house.seed, "order")
    served = drawn(house)
    if name == OWN:
        samples = samples_of(map(teacher.pair, served))
        return _from_signals(house, served, samples), samples
    texts = served if name == STUDENT else house.exchanges("control")
    samples = samples_of(teacher.pair(e.model_copy(update={"token_ids": None})) for e in texts)
    return Text(samples, settings, seed=seed), samples


def _from_signals(house: House, served: list[Exchange], samples: list[Any]) -> Any:
    """Learning from the teacher's signals of what was served."""
    from spiritsafe.make.methods import from_cache
    from spiritsafe.make.signals import open_cache, tokenizer_digest

    teacher, seed = house.teacher, seed_of(house.seed, "order")
    cache = open_cache(
        house.run.path("signals", "served"),
        teacher_digest=teacher.digest,
        tokenizer_digest=tokenizer_digest(teacher.tokenizer),
        exchanges=served,
    )
    return from_cache(cache, [e.id for e in served], samples, house.run.recipe.make, seed=seed)


def _log_step(path: Path, student: str, tick: Tick, track: Any, metrics: dict[str, float | int]) -> None:
    append_jsonl(path, [{"student": student, **metrics}])
    track(metrics)
    tick()
