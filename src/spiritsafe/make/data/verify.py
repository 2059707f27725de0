"""Answers checked against their tasks, each outcome on disk as it comes.

Checks run in processes of their own, which the kernel ends at a limit of processor time, wall time or memory;
an answer that needs more is "stopped", and is no correct one. Safe to use from any thread.
"""

import json
import subprocess
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Literal

from spiritsafe.errors import MissingExtra
from spiritsafe.progress import Tick
from spiritsafe.prompts import Prompt
from spiritsafe.record import Exchange, Record, append_jsonl, digest_of, read_jsonl, repair_jsonl

Outcome = Literal["correct", "wrong", "error", "stopped"]


class Check(Record):
    """What became of one answer's check; `task` is the digest of what it was checked against."""

    id: str
    task: str
    outcome: Outcome


def checkable(prompt: Prompt) -> bool:
    """Whether a prompt says how to check an answer: a reasoning-gym item, or a reference `answer`."""
    return bool(prompt.family) or "answer" in prompt.options


class Checkers:
    """Processes that check, started when they are needed; `limit_s` is of processor time for each answer."""

    def __init__(self, *, limit_s: float = 5.0, workers: int = 2) -> None:
        self.limit_s, self.workers = limit_s, workers
        self._free: SimpleQueue[_Process] = SimpleQueue()
        for _ in range(workers):
            self._free.put(_Process())

    def __enter__(self) -> "Checkers":
        return self

    def __exit__(self, *_: object) -> None:
        for _number in range(self.workers):
            self._free.get().end()

    def check(self, prompt: Prompt, answer: str) -> Outcome:
        """Check one answer. Raises `MissingExtra` where the verifier is not installed."""
        process = self._free.get()
        try:
            question = {"prompt": prompt.model_dump(mode="json"), "answer": answer, "limit_s": self.limit_s}
            return process.ask(question)
        finally:
            self._free.put(process)


def verify(
    exchanges: Sequence[Exchange],
    prompts: dict[str, Prompt],
    path: Path,
    *,
    limit_s: float = 5.0,
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


class _Process:
    """One checking process, started at the first question."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None

    def ask(self, question: dict[str, Any]) -> Outcome:
        if self._process is None:
            command = [sys.executable, "-m", "spiritsafe.make.data.checking"]
            pipe = subprocess.PIPE
            self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL)
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(question).encode() + b"\n")
        self._process.stdin.flush()
        said = json.loads(self._process.stdout.readline())
        if "missing" in said:
            raise MissingExtra(said["missing"], "torch")
        outcome: Outcome = said["outcome"]
        return outcome

    def end(self) -> None:
        if self._process:
            self._process.communicate()
