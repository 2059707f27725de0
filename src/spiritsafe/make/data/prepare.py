"""From prompts to training data: collect, verify, keep, throw out doubles, decontaminate, report.

    FOLDER/exchanges/all.jsonl      every answer, as it came        exchanges/all.failures   requests without one
    FOLDER/checks.jsonl             every check's outcome           pass_rates.jsonl         one line a prompt
    FOLDER/exchanges/kept.jsonl     the training data               dropped.jsonl            one line an answer, and why
    FOLDER/data.json                the report

Collecting and checking continue where they were killed; the rest is a pure function of what they stored,
done again each time and written in one piece.
"""

import fcntl
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from spiritsafe.checks.verify import Outcome, checkable, layers
from spiritsafe.errors import RunError, writing
from spiritsafe.ledger import Entry
from spiritsafe.make.data.clean import Seen
from spiritsafe.make.data.collect import Collected, collect, stored
from spiritsafe.make.data.keep import Candidate, PassRate, pass_rates
from spiritsafe.make.data.near import bands_for
from spiritsafe.make.data.problems import evaluation_texts
from spiritsafe.make.data.select import select
from spiritsafe.make.data.settings import DataSettings, NearPart
from spiritsafe.make.data.verify import verify
from spiritsafe.models import Model, Request, ask, open_model
from spiritsafe.models.base import exchange_id
from spiritsafe.models.fan import Fan
from spiritsafe.progress import Show
from spiritsafe.prompts import Prompt
from spiritsafe.record import Exchange, Record, digest_of, file_digest, write_json, write_jsonl

EXCERPT = 80
SHOWN = 20


class Report(Record):
    """What became of every answer. `answers` counts reasons, and adds up to what was collected.

    `unanswered` names the first prompts without an answer; `checks` the layers that kept the checks from doing
    anything else, if there were any.
    """

    version: int = 1
    teacher: str
    teacher_digest: str
    settings: str
    seed: int
    prompts: int
    prompts_kept: int
    collected: Collected
    answers: dict[str, int]
    kept: int
    kept_sha256: str
    pass_rates: dict[str, int]
    near_recall: float | None
    evaluations: tuple[Seen, ...]
    examples: tuple[dict[str, Any], ...]
    unanswered: tuple[dict[str, str], ...] = ()
    checks: tuple[str, ...] = ()


class Prepared(Record):
    """The training data and its report; `report.collected.stopped` says where a budget ended it early."""

    exchanges: Path
    folder: Path
    report: Report


def prepare(
    settings: DataSettings,
    prompts: Sequence[Prompt],
    folder: Path,
    *,
    teacher: str | Model,
    seed: int = 0,
    evaluations: Mapping[str, Sequence[str]] | None = None,
    entry: Entry | None = None,
    show: Show | None = None,
) -> Prepared:
    """Make training data of a teacher's answers to these prompts; continues what `folder` holds.

    `evaluations` are texts by name, beside those that the settings name. With `collect.ray`, `teacher` is an
    address. Raises `RunError` where another process is at it, `EndpointError` where too much stays unanswered.
    """
    sets = _evaluations(settings, evaluations or {})
    show = show or Show(quiet=True)
    with _locked(folder), _opened(teacher, settings) as model:
        requests = _requests(settings, prompts, seed)
        with show.bar("answers collected", len({r for r, _ in requests})) as tick:
            path = folder / "exchanges" / "all.jsonl"
            collected = collect(model, [r for r, _ in requests], path, settings.collect, tick=tick)
        by_id = {exchange_id(model.digest, r): p for r, p in requests}
        exchanges = stored(path, model.digest, [r for r, _ in requests])
        if entry:
            entry.count(tokens_in=collected.tokens_in, tokens_out=collected.tokens_out)
        outcomes = _verified(settings, exchanges, by_id, folder, show)
    candidates = [Candidate(e, by_id[e.id].digest, outcomes.get(e.id)) for e in exchanges]
    dropped, seen = select(settings, candidates, sets)
    kept = [e for e in exchanges if e.id not in dropped]
    rates = pass_rates(candidates)
    exchange_file = folder / "exchanges" / "kept.jsonl"
    write_jsonl(exchange_file, kept)
    write_jsonl(folder / "pass_rates.jsonl", list(rates.values()))
    write_jsonl(folder / "dropped.jsonl", [{"id": i, **why} for i, why in dropped.items()])
    report = Report(
        teacher=model.address,
        teacher_digest=model.digest,
        seed=seed,
        collected=collected,
        settings=digest_of(settings),
        prompts=len({p.digest for p in prompts}),
        prompts_kept=len({by_id[e.id].digest for e in kept}),
        answers=dict(Counter(dropped[e.id]["reason"] if e.id in dropped else "kept" for e in exchanges)),
        kept=len(kept),
        kept_sha256=file_digest(exchange_file),
        pass_rates=_histogram(rates),
        near_recall=_recall(settings.near),
        evaluations=seen,
        examples=_examples(exchanges, dropped),
        unanswered=tuple(
            {"id": i, "prompt": by_id[i].messages[-1].content[:EXCERPT], "error": error}
            for i, error in collected.unanswered.items()
        ),
        checks=layers() if outcomes else (),
    )
    write_json(folder / "data.json", report)
    return Prepared(exchanges=exchange_file, folder=folder, report=report)


def _requests(settings: DataSettings, prompts: Sequence[Prompt], seed: int) -> list[tuple[Request, Prompt]]:
    part = settings.collect
    sampling = part.sampling.model_copy(update={"seed": seed})
    return [(r, p) for p in prompts for r in ask([p.messages], sampling, n=part.num_samples, purpose="data")]


def _evaluations(settings: DataSettings, given: Mapping[str, Sequence[str]]) -> dict[str, Sequence[str]]:
    parts = settings.clean.against if settings.clean else ()
    return {**given, **{part.name: evaluation_texts(part) for part in parts}}


def _verified(
    settings: DataSettings, exchanges: Sequence[Exchange], by_id: dict[str, Prompt], folder: Path, show: Show
) -> dict[str, Outcome]:
    num = sum(checkable(by_id[e.id]) for e in exchanges)
    with show.bar("answers checked", num) as tick:
        return verify(exchanges, by_id, folder / "checks.jsonl", limit_s=settings.keep.limit_s, tick=tick)


def _histogram(rates: Mapping[str, PassRate]) -> dict[str, int]:
    """Prompts by pass rate."""
    names = ("0", "0 to 1/4", "1/4 to 1/2", "1/2 to 3/4", "3/4 to 1", "1")
    found = Counter(
        names[-1] if r.rate == 1 else names[int(r.rate * 4) + 1] if r.rate else names[0] for r in rates.values()
    )
    return {name: found[name] for name in names}


def _recall(part: NearPart | None) -> float | None:
    return bands_for(part.threshold, part.recall).recall(part.threshold) if part else None


def _examples(exchanges: Sequence[Exchange], dropped: Mapping[str, dict[str, Any]]) -> tuple[dict[str, Any], ...]:
    """A few answers that were left out, the first ones of each reason."""
    shown: Counter[str] = Counter()
    found = []
    for exchange in exchanges:
        why = dropped.get(exchange.id)
        if why and shown[why["reason"]] < SHOWN:
            shown[why["reason"]] += 1
            found.append({"id": exchange.id, "excerpt": exchange.answer[:EXCERPT], **why})
    return tuple(found)


@contextmanager
def _opened(teacher: str | Model, settings: DataSettings) -> Iterator[Model | Fan]:
    ray = settings.collect.ray
    if ray:
        address = teacher if isinstance(teacher, str) else teacher.address
        with Fan(address, actors=ray.actors, lease=ray.lease, cluster=ray.cluster) as fan:
            yield fan
    else:
        yield open_model(teacher) if isinstance(teacher, str) else teacher


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / ".data.lock").open("w")
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RunError(str(folder), "is in use by another process", "wait for it or stop it") from None
        yield
