"""The stages of a making, each done once: prompts, answers, the student's start, signals, the training.

recipe.json  prompts.jsonl  exchanges/  signals/  start/  metrics.jsonl  stages/  ledger.json  student/
"""

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spiritsafe.errors import DataError, EndpointError, UsageError
from spiritsafe.ledger import Entry
from spiritsafe.make.data.collect import collect, stored
from spiritsafe.make.data.prepare import prepare
from spiritsafe.make.verb.possible import Gives
from spiritsafe.make.verb.prompts import heldout_share, read_prompts
from spiritsafe.make.verb.said import answers_said, nothing_kept
from spiritsafe.make.verb.settings import MakeSettings, parse_student
from spiritsafe.models import Model, Request, ask, open_model
from spiritsafe.progress import Show
from spiritsafe.prompts import Prompt
from spiritsafe.record import Exchange, Sampling, read_jsonl, repair_jsonl, seed_of, write_atomic
from spiritsafe.run import Run
from spiritsafe.stage import Done, Stages

if TYPE_CHECKING:
    from spiritsafe.models.local import LocalModel


@dataclass
class Work:
    """An open making, its stages, what its teacher gives, and the models of this process."""

    run: Run[MakeSettings]
    stages: Stages
    kind: Gives

    @property
    def settings(self) -> MakeSettings:
        """The making's."""
        return self.run.recipe

    @property
    def show(self) -> Show:
        """Where progress goes."""
        return self.stages.show

    def path(self, *parts: str) -> Path:
        """A path inside the directory."""
        return self.run.path(*parts)

    @cached_property
    def teacher(self) -> Model:
        """The teacher; a server whose log-probabilities are wanted is probed. Raises `UsageError` without them."""
        part = self.settings.teacher
        model: Any = open_model(part.model, batch=part.batch)
        if self.kind != "server" or self.settings.method != "cached":
            return model  # type: ignore[no-any-return]
        from spiritsafe.make.signals.server import ServerTeacher
        from spiritsafe.make.verb.start import own_tokenizer

        tokenizer, vocab = own_tokenizer(parse_student(self.settings.student))
        said, num = self.path("exchanges", "all.said"), self.settings.make.signals.size
        repair_jsonl(said)
        try:
            return ServerTeacher(model, tokenizer, vocab, said, num=num)
        except EndpointError as error:
            raise UsageError(
                f"--method cached: {error.where}", error.what, error.hint or "take --method text"
            ) from None

    @property
    def local_teacher(self) -> "LocalModel":
        """The teacher where its weights are here, which is checked before."""
        from spiritsafe.models.local import LocalModel

        assert isinstance(self.teacher, LocalModel), "checked before"
        return self.teacher

    def prompts(self, split: str) -> list[Prompt]:
        """The prompts to learn from (`train`), or those held out."""
        return [p for p in read_jsonl(self.path("prompts.jsonl"), Prompt) if p.split == split]

    def kept(self) -> list[Exchange]:
        """The teacher's answers to learn from."""
        return read_jsonl(self.path("exchanges", "kept.jsonl"), Exchange)

    @property
    def needs_answers(self) -> bool:
        """Whether the method learns from answers of the teacher."""
        own = self.settings.make.own.share == 1
        return self.settings.method in ("text", "cached", "online") or (self.settings.method == "gkd" and not own)

    def answered(self, prompts: list[Prompt], name: str, entry: Entry) -> list[Exchange]:
        """The teacher's answers to some prompts, one each, kept in `exchanges/NAME.jsonl`."""
        part, path = self.settings.data.collect, self.path("exchanges", f"{name}.jsonl")
        sampling = part.sampling.model_copy(update={"seed": self.settings.run.seed})
        requests = ask([p.messages for p in prompts], sampling, purpose=name)
        with self.show.bar(f"answers: {name}", len(requests)) as tick:
            found = collect(self.teacher, requests, path, part, tick=tick)
        entry.count(tokens_in=found.tokens_in, tokens_out=found.tokens_out)
        return stored(path, self.teacher.digest, requests)


def know_teacher(work: Work, entry: Entry) -> Done:
    """Note which model the teacher is. Raises `UsageError` where the student that is wanted does not fit it."""
    from spiritsafe.make.verb.fits import check_fits

    check_fits(work.settings, work.teacher)
    return Done(notes={"address": work.settings.teacher.model, "digest": work.teacher.digest, "gives": work.kind})


def write_prompts(work: Work, entry: Entry) -> Done:
    """The prompts, split by content; none is held out where nothing can be compared on them."""

    def generate(num: int, sampling: Sampling) -> list[Exchange]:
        requests: list[Request] = [replace(r, open_turn="user") for r in ask([()], sampling, n=num, purpose="self")]
        found = work.teacher.generate(requests)
        for e in found:
            entry.count(tokens_in=e.usage.prompt_tokens, tokens_out=e.usage.completion_tokens)
        return found

    said: list[str] = []
    share = heldout_share(work.settings, work.kind)
    prompts = read_prompts(work.settings, share, generate, say=said.append)
    for text in said:
        work.show.say(text)
    path = work.path("prompts.jsonl")
    write_atomic(path, "".join(p.model_dump_json() + "\n" for p in prompts))
    return Done((path,), notes={"read": said})


def collect_answers(work: Work, entry: Entry) -> Done:
    """The teacher's answers, verified, kept by rule, freed of doubles. Raises `DataError` where nothing is left."""
    settings, prompts = work.settings, work.prompts("train")
    data = settings.data
    found = prepare(
        data, prompts, work.run.folder, teacher=work.teacher, seed=settings.run.seed, entry=entry, show=work.show
    ).report
    if not found.kept:
        raise DataError(str(work.run.folder), *nothing_kept(found))
    work.show.say(answers_said(found))
    notes = {
        "kept": found.kept,
        "answers": found.answers,
        "stopped": found.collected.stopped,
        "failed": found.collected.failed,
        "said": answers_said(found),
    }
    return Done((work.path("exchanges", "kept.jsonl"),), notes=notes)


def begin_student(work: Work, entry: Entry) -> Done:
    """The student's start, in `start/` where it is made here."""
    from spiritsafe.make.verb import start

    settings, folder = work.settings, work.path("start")
    student = parse_student(settings.student)
    if student.kind == "model":
        model = start.opened(student.source)
        return Done(notes={"text": f"the model {student.source}", "digest": model.digest, "first": 0})
    if student.kind == "config":
        seed = seed_of(settings.run.seed, "start") % 2**31
        start.write_random(student.source, start.tokenizer_for(student, work.teacher), folder, seed=seed)
        return Done((folder,), notes={"text": f"random weights by {Path(student.source).name}", "first": 0})
    teacher = work.local_teacher
    tried = work.kept() or work.answered(work.prompts("train")[: settings.make.importance_prompts], "trial", entry)
    cut = start.cut_of(teacher, settings.make, student.layers, tried, work.show)
    start.write_pruned(teacher, cut, folder)
    text = f"a depth-pruned copy of the teacher, {len(cut.keep)} of its {cut.depth} layers"
    return Done((folder,), notes={"text": text, "first": cut.first, "keep": list(cut.keep)})


def capture_signals(work: Work, entry: Entry) -> Done:
    """What the teacher says at each token of the kept answers."""
    from spiritsafe.make.signals import Keep, fill
    from spiritsafe.make.signals.server import ServerTeacher, fill_from_said

    folder, kept, part = work.path("signals"), work.kept(), work.settings.make.signals
    with work.show.bar("answers scored by the teacher", len(kept)) as tick:
        if isinstance(work.teacher, ServerTeacher):
            keep = Keep("head", min(part.size, work.teacher.can.top))
            fill_from_said(work.teacher, kept, folder, keep=keep, tick=tick)
        else:
            fill(
                work.local_teacher,
                kept,
                folder,
                keep=Keep(part.kind, part.size),
                seed=work.settings.run.seed,
                tick=tick,
            )
    return Done((folder,), notes={"bytes": sum(file.stat().st_size for file in folder.iterdir())})
