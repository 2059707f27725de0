"""Answers checked against their tasks, by processes of their own: see `process` and `sandbox`.

An answer whose check fails ("error") or is ended at a limit ("stopped") is unscorable: neither correct nor wrong.
Safe to use from any thread.
"""

import atexit
import json
import select
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cache
from queue import LifoQueue
from typing import Any, Literal

from spiritsafe.checks.values import references
from spiritsafe.errors import MissingExtra, RecipeError, RunError
from spiritsafe.progress import Tick
from spiritsafe.prompts import Prompt

Outcome = Literal["correct", "wrong", "error", "stopped"]
UNSCORABLE: tuple[Outcome, ...] = ("error", "stopped")
LIMIT_S = 5.0
START_S = 300.0  # its imports take seconds, and a minute on a crowded machine
FEW = 64
# All that the process gets of an environment. Numpy's threads would be shared with its forks; some families draw from
# sets, whose order follows the seed of Python's hashes.
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "PYTHONHASHSEED": "0"}
START = "import sys; sys.path[:] = {path}; from spiritsafe.checks.process import main; main()"


def checkable(prompt: Prompt) -> bool:
    """Whether a prompt says how to check an answer: a reasoning-gym item, or a reference `answer`."""
    return bool(prompt.family) or bool(references(prompt))


class Checkers:
    """Processes that check, started when they are needed; `limit_s` is of processor time for each answer."""

    def __init__(self, *, limit_s: float = LIMIT_S, workers: int = 2) -> None:
        self.limit_s, self.workers = limit_s, workers
        # Last in, first out: who asks one question after the other needs one process alone.
        self._free: LifoQueue[_Process] = LifoQueue()
        for _ in range(workers):
            self._free.put(_Process())

    def __enter__(self) -> "Checkers":
        return self

    def __exit__(self, *_: object) -> None:
        for _number in range(self.workers):
            self._free.get().end()

    def check(self, prompt: Prompt, answer: str) -> Outcome:
        """Check one answer. Raises `MissingExtra` without the verifier, `RecipeError` for a family nobody read."""
        process = self._free.get()
        try:
            question = {"prompt": prompt.model_dump(mode="json"), "answer": answer, "limit_s": self.limit_s}
            found: Outcome = process.ask(question).get("outcome", "stopped")
            return found
        finally:
            self._free.put(process)

    def questions(self, family: str, options: dict[str, Any], *, size: int, seed: int) -> list[str]:
        """The questions of a family's tasks, the same in every process. Raises `RecipeError`, `MissingExtra`."""
        process = self._free.get()
        try:
            said = process.ask({"family": family, "options": options, "size": size, "seed": seed})
        finally:
            self._free.put(process)
        if "questions" not in said:
            raise RecipeError("prompts.tasks", f"{family}: its tasks could not be made", "take other options")
        found: list[str] = said["questions"]
        return found

    def layers(self) -> tuple[str, ...]:
        """Which layers keep the checks from doing anything else, here: those of `sandbox`."""
        process = self._free.get()
        try:
            return process.start()
        finally:
            self._free.put(process)


def outcomes(prompts: Sequence[Prompt], answers: Sequence[str], *, tick: Tick = lambda: None) -> list[Outcome]:
    """What became of each answer's check, in order, by processes that stay until this one ends."""

    def one(prompt: Prompt, answer: str) -> Outcome:
        found = checkers.check(prompt, answer)
        tick()
        return found

    checkers = _lasting()
    # A second process takes seconds to start: it pays from some answers on.
    workers = checkers.workers if len(answers) >= FEW else 1
    with ThreadPoolExecutor(workers) as pool:
        return list(pool.map(one, prompts, answers))


def outcome(prompt: Prompt, answer: str) -> Outcome:
    """What became of one answer's check, by a process that stays until this one ends."""
    return _lasting().check(prompt, answer)


def questions(family: str, options: dict[str, Any], *, size: int, seed: int) -> list[str]:
    """As `Checkers.questions`, by a process that stays until this one ends."""
    return _lasting().questions(family, options, size=size, seed=seed)


def layers() -> tuple[str, ...]:
    """Which layers of `sandbox` hold here."""
    return _lasting().layers()


@cache
def _lasting() -> Checkers:
    checkers = Checkers()
    atexit.register(checkers.__exit__)
    return checkers


class _Process:
    """One checking process, started at the first question, and again if something ended it."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._layers: tuple[str, ...] = ()

    def start(self) -> tuple[str, ...]:
        if self._process is None:
            # No module is found in the folder it runs in, and no variable of ours is passed on.
            path = [entry for entry in sys.path if entry]
            command = [sys.executable, "-s", "-c", START.format(path=path)]
            pipe = subprocess.PIPE
            self._process = subprocess.Popen(
                command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, env=ENVIRONMENT, cwd=_nowhere()
            )
            self._layers = self._started(self._process)
        return self._layers

    def _started(self, process: "subprocess.Popen[bytes]") -> tuple[str, ...]:
        """The layers that the process names first. Raises `RunError` if it ends before, or takes `START_S`."""
        assert process.stdout is not None
        ready, _, _ = select.select([process.stdout], [], [], START_S)
        line = process.stdout.readline() if ready else b""
        if not line:
            process.kill()
            self.end()
            what = "ended at its start" if ready else f"did not start within {START_S:.0f} s"
            command = "python -c 'import spiritsafe.checks.process'"
            raise RunError("the process that checks answers", what, f"see what {command} says, and try again")
        return tuple(json.loads(line)["layers"])

    def ask(self, question: dict[str, Any]) -> dict[str, Any]:
        """What the process says; {} if it ended over it."""
        self.start()
        assert self._process is not None
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps(question).encode() + b"\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = b""
        if not line:
            self.end()
            return {}
        said: dict[str, Any] = json.loads(line)
        if "missing" in said:
            raise MissingExtra(said["missing"], "torch")
        if "refused" in said:
            raise RecipeError("prompts.tasks", said["refused"], said["hint"])
        return said

    def end(self) -> None:
        if self._process:
            with suppress(BrokenPipeError):
                self._process.communicate()
            self._process = None


@cache
def _nowhere() -> str:
    """An empty folder that may not be written, removed at the end."""
    folder = tempfile.TemporaryDirectory(prefix="spiritsafe-check-")
    atexit.register(folder.cleanup)
    return folder.name
