"""Answers checked against their tasks, each outcome on disk as it comes."""

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from spiritsafe.checks.verify import LIMIT_S, Checkers, Outcome, checkable
from spiritsafe.progress import Tick
from spiritsafe.prompts import Prompt
from spiritsafe.record import Exchange, Record, append_jsonl, digest_of, read_jsonl, repair_jsonl


class Check(Record):
    """What became of one answer's check; `task` is the digest of what it was checked against."""

    id: str
    task: str
    outcome: Outcome


def verify(
    exchanges: Sequence[Exchange],
    prompts: dict[str, Prompt],
    path: Path,
    *,
    limit_s: float = LIMIT_S,
    workers: int = 2,
    tick: Tick = lambda: None,
) -> dict[str, Outcome]:
    """Outcomes by exchange id where the prompt, looked up by exchange id, is checkable; those in `path` are kept."""
    repair_jsonl(path)
    tasks = {i: digest_of([p.family, p.index, p.options]) for i, p in prompts.items() if checkable(p)}
    known: dict[str, Outcome] = {c.id: c.outcome for c in read_jsonl(path, Check) if tasks.get(c.id) == c.task}
    missing = [e for e in exchanges if e.id in tasks and e.id not in known]
    lock = threading.Lock()

    def one(exchange: Exchange) -> None:
        outcome = checkers.check(prompts[exchange.id], exchange.answer)
        with lock:
            append_jsonl(path, [Check(id=exchange.id, task=tasks[exchange.id], outcome=outcome)])
            known[exchange.id] = outcome
            tick()

    with Checkers(limit_s=limit_s, workers=workers) as checkers, ThreadPoolExecutor(workers) as pool:
        list(pool.map(one, missing))
    return {e.id: known[e.id] for e in exchanges if e.id in known}
