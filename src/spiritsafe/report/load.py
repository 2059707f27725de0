"""Reads a run directory into one frozen `RunData`: what the report may know. No model is opened.

Texts of exchanges are taken only from what the gateway served to the account that drew off; of the safety
suite only digests are.
"""

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from spiritsafe.errors import DataError
from spiritsafe.recipe import Recipe, parse_recipe
from spiritsafe.record import Exchange, Verdict, file_digest, read_json, read_jsonl, verdicts_of

HINT = "finish the run with the command that began it: spiritsafe run RECIPE"
SERVED = "gateway.jsonl"
NUM_EXCERPTS = 3
T = TypeVar("T")


class View(BaseModel):
    """Base of what is read from a run: frozen; keys that the report does not show are left unread."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class Environment(View):
    """The machine and the packages of a run."""

    python: str
    platform: str
    machine: str
    cpu: str
    cores: int
    packages: dict[str, str]
    git: str | None = None
    started_at: str
    seed: int | None = None


class Step(View):
    """One training step: `loss` in nats per token, `elapsed_s` since training began."""

    student: str
    step: int
    loss: float
    tokens: int
    lr: float
    grad_norm: float
    elapsed_s: float


class PowerPoint(View):
    """Twin-sample tests of one model on subsets of `num_logged` answers of one account's log."""

    model: str
    account: str
    num_logged: int
    median_p: float
    low_p: float
    high_p: float
    share_rejected: float
    alpha: float


class WatchScore(View):
    """The watch's feature for one account, with its p-value where the account was judged."""

    account: str
    role: Literal["draws", "ordinary", "calibration"]
    value: float
    p_value: float | None = None


class CutTrial(View):
    """KL to the teacher (nats per token) without the block of layers that begins at `start`."""

    start: int
    kl: float


class Plots(View):
    """Points that verdicts do not hold; any part may be missing."""

    cut: tuple[CutTrial, ...] = ()
    power: tuple[PowerPoint, ...] = ()
    watch: tuple[WatchScore, ...] = ()


class Totals(View):
    """What the whole run cost."""

    wall_s: float
    cpu_s: float
    tokens_in: int
    tokens_out: int
    joules: float
    usd: float


class Stage(Totals):
    """What one stage cost, read and wrote (path -> sha256)."""

    stage: str
    joules_kind: Literal["measured", "estimated"]
    inputs: dict[str, str]
    outputs: dict[str, str]


class Ledger(View):
    """The costs of a run, and what they leave out."""

    stages: tuple[Stage, ...]
    totals: Totals
    joules_kind: Literal["measured", "estimated"]
    assumed_watts: float
    usd_per_hour: float
    leaves_out: tuple[str, ...]


@dataclass(frozen=True)
class Excerpt:
    """One exchange: its texts, which are empty where they are withheld, and the sha256 of its record."""

    account: str
    prompt: str
    answer: str
    digest: str
    withheld: bool


@dataclass(frozen=True)
class Log:
    """One file of exchanges."""

    name: str
    num_exchanges: int
    digest: str


@dataclass(frozen=True)
class RunData:
    """Everything that a report shows of one run."""

    name: str
    digest: str
    recipe: Recipe
    environment: Environment
    verdicts: tuple[Verdict, ...]
    metrics: tuple[Step, ...]
    plots: Plots
    ledger: Ledger
    excerpts: tuple[Excerpt, ...]
    logs: tuple[Log, ...]

    @property
    def drawing_account(self) -> str:
        """The name of the account that drew off training data."""
        return next(a.name for a in self.recipe.guard.accounts if a.role == "draws")


def kind_of(run_dir: Path) -> str:
    """The kind of recipe that a run directory is of. Raises `DataError` where it holds none."""
    return parsed(run_dir / "recipe.json", lambda data: str(data["recipe"].get("kind", "loop")))


def load_run(run_dir: Path) -> RunData:
    """Read a run directory. Raises `DataError` naming the file that is missing or broken, and what to run."""
    head = parsed(run_dir / "recipe.json", lambda data: (str(data["digest"]), parse_recipe(data["recipe"])))
    digest, recipe = head
    plots = run_dir / "plots.json"
    texts_of = next(a.name for a in recipe.guard.accounts if a.role == "draws")
    excerpts, logs = _exchanges(run_dir / "exchanges", texts_of)
    return RunData(
        name=run_dir.resolve().name,
        digest=digest,
        recipe=recipe,
        environment=parsed(run_dir / "environment.json", Environment.model_validate),
        verdicts=read_verdicts(run_dir),
        metrics=tuple(read_jsonl(_present(run_dir / "metrics.jsonl"), Step)),
        plots=parsed(plots, Plots.model_validate) if plots.exists() else Plots(),
        ledger=parsed(run_dir / "ledger.json", Ledger.model_validate),
        excerpts=excerpts,
        logs=logs,
    )


def read_verdicts(run_dir: Path) -> tuple[Verdict, ...]:
    """The verdicts of a run or a measurement. Raises `DataError` if they were changed since they were written."""
    path = run_dir / "verdicts.json"
    return parsed(path, partial(verdicts_of, path))


def parsed(path: Path, parse: Callable[[Any], T]) -> T:
    """What `parse` makes of a JSON file. Raises `DataError` naming the place that is not as it should be."""
    data = read_json(_present(path))
    try:
        return parse(data)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        raise DataError(str(path), f"{place}: {first['msg']}", HINT) from None
    except (KeyError, TypeError) as error:
        raise DataError(str(path), f"is not of the stated form ({error})", HINT) from None


def _present(path: Path) -> Path:
    if not path.is_file():
        raise DataError(str(path), "no such file", HINT)
    return path


def _exchanges(directory: Path, texts_of: str) -> tuple[tuple[Excerpt, ...], tuple[Log, ...]]:
    excerpts: list[Excerpt] = []
    logs: list[Log] = []
    for path in sorted(directory.rglob("*.jsonl")):
        exchanges = read_jsonl(path, Exchange)
        logs.append(Log(path.relative_to(directory).as_posix(), len(exchanges), file_digest(path)))
        excerpts += _excerpts(path, exchanges, texts_of)
    shown = [e for e in excerpts if not e.withheld][:NUM_EXCERPTS]
    return (*shown, *[e for e in excerpts if e.withheld][:NUM_EXCERPTS]), tuple(logs)


def _excerpts(path: Path, exchanges: Iterable[Exchange], texts_of: str) -> list[Excerpt]:
    unsafe = any(word in path.stem for word in ("safety", "unsafe", "harm"))
    served = path.name == SERVED
    chosen = [e for e in exchanges if unsafe or (served and e.account == texts_of)]
    return [_withheld(e) if unsafe or e.flags else _shown(e) for e in chosen[:NUM_EXCERPTS]]


def _shown(exchange: Exchange) -> Excerpt:
    prompt = next((m.content for m in reversed(exchange.messages) if m.role == "user"), "")
    return Excerpt(exchange.account, prompt, exchange.answer, _digest(exchange), withheld=False)


def _withheld(exchange: Exchange) -> Excerpt:
    return Excerpt("", "", "", _digest(exchange), withheld=True)


def _digest(exchange: Exchange) -> str:
    return hashlib.sha256(exchange.model_dump_json().encode()).hexdigest()
