"""A run's house: its models, prompts and exchanges by name, and answers collected so that none is doubled."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic

from spiritsafe.accounts import names, plan
from spiritsafe.errors import RunError
from spiritsafe.ledger import Entry, summary
from spiritsafe.models import Model, Request, open_model
from spiritsafe.prompts import Prompt
from spiritsafe.recipe import R
from spiritsafe.record import Exchange, Verdict, append_jsonl, digest_of, read_jsonl, write_atomic, write_json
from spiritsafe.run import Run, stage_record
from spiritsafe.stage import Stages

if TYPE_CHECKING:
    from spiritsafe.models.local import LocalModel

START, STUDENT, OWN, CONTROL, TEACHER = "pruned start", "student", "own student", "control", "teacher"
FOLDERS = {START: "models/pruned-start", STUDENT: "student", OWN: "models/own-student", CONTROL: "models/control"}


@dataclass
class House(Generic[R]):
    """A run with its stages, where its models live, and those it has opened."""

    run: Run[R]
    stages: Stages
    folders: Mapping[str, str] = field(default_factory=lambda: FOLDERS)
    opened: dict[str, "LocalModel"] = field(default_factory=dict)

    @property
    def seed(self) -> int:
        """The run's seed."""
        return self.run.recipe.run.seed

    @cached_property
    def teacher(self) -> "LocalModel":
        """The teacher, which must be a local model: its weights are pruned and its logits compared."""
        from spiritsafe.errors import RecipeError
        from spiritsafe.models.local import LocalModel

        part = self.run.recipe.teacher
        model = open_model(part.model, batch=part.batch)
        if not isinstance(model, LocalModel):
            raise RecipeError("teacher.model", f"{part.model} is not a local model", "name weights, not a server")
        return model

    def check_teacher(self) -> None:
        """Raise `RunError` where the teacher is not the one that the run's finished stages knew."""
        known = stage_record(self.run, "teacher")
        if known and known["notes"]["digest"] != self.teacher.digest:
            was, now = known["notes"]["digest"][:16], self.teacher.digest[:16]
            what = f"its teacher {self.run.recipe.teacher.model} has digest {now}, but was {was} when the run began"
            raise RunError(str(self.run.folder), what, "put the old one back, or use --runs DIR for a new run")

    def model(self, name: str) -> "LocalModel":
        """One of the run's models by name, read from its directory at first use."""
        from spiritsafe.models.local import open_directory

        if name == TEACHER:
            return self.teacher
        if name not in self.opened:
            folder = str(self.run.path(self.folders[name]))
            self.opened[name] = open_directory(folder, folder, self.run.recipe.teacher.batch)
        return self.opened[name]

    def exchanges(self, name: str) -> list[Exchange]:
        """The stored exchanges of one kind that were answered."""
        stored = read_jsonl(self.run.path("exchanges", f"{name}.jsonl"), Exchange)
        return [exchange for exchange in stored if not exchange.error_kind]

    def prompts(self) -> list[Prompt]:
        """All prompts of the run."""
        return read_jsonl(self.run.path("prompts.jsonl"), Prompt)


def collect(house: House[Any], model: Model, requests: Sequence[Request], name: str, entry: Entry) -> Path:
    """Answer the requests that `exchanges/NAME.jsonl` does not hold yet, storing each as it ends.

    Answers of another model, one made again since, are thrown away first. Raises `RunError` if some have no answer,
    once all others are stored: a run compares its models on the same prompts, every one of them.
    """
    path = house.run.path("exchanges", f"{name}.jsonl")
    before = read_jsonl(path, Exchange)
    if any(e.model_digest != model.digest for e in before):
        path.unlink()
        before = []
    stored = {_key(e) for e in before}
    missing = [r for r in requests if _key(r) not in stored]
    failures: list[Exchange] = []
    with house.stages.show.bar(f"answers: {name}", len(requests)) as tick:
        for _ in range(len(requests) - len(missing)):
            tick()

        def keep(exchange: Exchange) -> None:
            if exchange.error_kind:
                failures.append(exchange)
            else:
                append_jsonl(path, [exchange])
            tick()

        model.generate(missing, on_exchange=keep)
    if failures:
        what = f"{len(failures)} of {len(requests)} requests got no answer, the first: {failures[0].error}"
        raise RunError(str(path), what, "the others are stored; mend it and run the same command again")
    count(entry, read_jsonl(path, Exchange))
    return path


def logged(house: House) -> list[Exchange]:
    """What the gateway served, in the order of the plan: the log's own order differs from run to run."""
    served = {(e.account, e.sampling.seed): e for e in house.exchanges("gateway")}
    return [served[w.account, w.sampling.seed] for w in plan(house.run.recipe, house.prompts())]


def drawn(house: House) -> list[Exchange]:
    """What the drawing account was served, in the order of the plan."""
    drawing = names(plan(house.run.recipe, house.prompts()), "draws")
    return [e for e in logged(house) if e.account in drawing]


def _key(item: Request | Exchange) -> str:
    return digest_of([item.open_turn, [m.model_dump() for m in item.messages], item.sampling.model_dump()])


def in_order(house: House[Any], name: str, requests: Sequence[Request]) -> list[Exchange]:
    """The stored exchanges of one kind, in the order of the requests they answer."""
    stored = {_key(e): e for e in house.exchanges(name)}
    return [stored[_key(r)] for r in requests]


def count(entry: Entry, exchanges: list[Exchange]) -> list[Exchange]:
    """Add the exchanges' tokens to the ledger; returns them."""
    for e in exchanges:
        entry.count(tokens_in=e.usage.prompt_tokens, tokens_out=e.usage.completion_tokens)
    return exchanges


def write_claims(stages: Stages) -> list[Verdict]:
    """Write a run's verdicts, plot data and ledger; returns the verdicts."""
    from spiritsafe.report.table import verdicts_json

    run, verdicts = stages.run, stages.verdicts()
    write_atomic(run.path("verdicts.json"), verdicts_json(verdicts, computed=stages.computed()))
    write_json(run.path("plots.json"), stages.plots())
    write_json(run.path("ledger.json"), summary([r["entry"] for r in stages.records.values()], run.recipe.ledger))
    return verdicts


def describe_student(house: House, verdicts: Sequence[Verdict]) -> None:
    """Write the student's model card from what the stages left."""
    from spiritsafe.make.objective import TEXT
    from spiritsafe.report.card import objective_text, write_card

    recipe, records = house.run.recipe, house.stages.records
    start, trained = records["start"]["notes"], records["student"]["notes"]
    write_card(
        house.run.path(STUDENT),
        name=f"{recipe.run.name} student",
        seed=recipe.run.seed,
        settings={key: str(value) for key, value in recipe.make},
        verdicts=verdicts,
        teacher=records["teacher"]["notes"],
        method={
            "start": f"a depth-pruned copy of the teacher, {len(start['keep'])} of its {start['depth']} layers",
            "method": trained["method"],
            "loss per token": objective_text(TEXT),
        },
        data={
            "exchanges": len(drawn(house)),
            "answer_tokens": trained["answer_tokens"],
            "source": "answers drawn through the run's own gateway, prompts written by the teacher itself",
            "sha256": records["serve"]["outputs"]["exchanges/gateway.jsonl"],
        },
        licence=recipe.teacher.licence,
    )
