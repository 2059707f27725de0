"""A folder with a tiny teacher and a small recipe, and the installed command run in it as a user would."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spiritsafe.record import Exchange, read_jsonl
from tests.said import without_progress

COMMAND = str(Path(sys.executable).with_name("spiritsafe"))
SERVER = Path(__file__).with_name("warm_server.py")
CLIENT = Path(__file__).with_name("warm_client.py")
OWN = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
WITHOUT = "import sys; sys.modules[{module!r}] = None; from spiritsafe.cli import main; main()"


@dataclass(frozen=True)
class Ended:
    """How a command ended, and what it said; `err` is without its progress."""

    code: int
    out: str
    err: str
    progress: str = ""


@dataclass(frozen=True)
class Workspace:
    """The command line in one folder; the cache is inside it, so that nothing of the user's is touched.

    Commands are forked by the server at the socket `warm`, which has imported what they need, or started `fresh`.
    """

    folder: Path
    warm: Path | None = None

    def path(self, *parts: str) -> Path:
        """A path in the workspace."""
        return self.folder.joinpath(*parts)

    def start(self, *words: str, without: str = "", fresh: bool = False, **extra: str) -> "subprocess.Popen[str]":
        """Start `spiritsafe WORDS`, `without` a module as if it were not installed; `extra` is its environment."""
        own = {**OWN, "SPIRITSAFE_CACHE": str(self.path("cache"))}
        command = [COMMAND]
        if without:
            command = [sys.executable, "-c", WITHOUT.format(module=without)]
        elif self.warm and not fresh:
            # Without `site`, as this process only stands for the command's.
            command = [sys.executable, "-I", "-S", str(CLIENT), str(self.warm)]
        return subprocess.Popen(
            [*command, *words],
            cwd=self.folder,
            env={**os.environ, **own, **extra},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def call(self, *words: str, without: str = "", fresh: bool = False, **extra: str) -> Ended:
        """Run `spiritsafe WORDS` to its end."""
        return ended(self.start(*words, without=without, fresh=fresh, **extra))

    def refused(self, code: int, *words: str, without: str = "", fresh: bool = False, **extra: str) -> str:
        """The one line with which a command is refused, at the exit code it must have."""
        done = self.call(*words, without=without, fresh=fresh, **extra)
        assert done.code == code, done
        assert done.out == ""
        assert done.err.startswith("error: "), done.err
        assert done.err.count("\n") == 1, done.err
        return done.err.removeprefix("error: ").rstrip("\n")

    def run(self, runs: str, *, fresh: bool = False) -> Ended:
        """Run the recipe, which must succeed without a word on stderr but its progress."""
        done = self.call("run", "tiny.toml", "--runs", runs, fresh=fresh)
        assert (done.code, done.err) == (0, "")
        return done

    def copy(self, runs: str, to: str) -> Path:
        """A copy of the one run below `runs`, as the run below `to`."""
        shutil.copytree(self.path(runs), self.path(to))
        return self.only(to)

    def only(self, runs: str) -> Path:
        """The one run directory below `runs`."""
        (folder,) = self.path(runs).iterdir()
        return folder


@contextmanager
def warm_server(folder: Path) -> Iterator[Path | None]:
    """The socket of a server that forks commands; None where a system lacks what it needs."""
    if not sys.platform.startswith("linux"):
        yield None
        return
    link = folder / "warm"
    command = [sys.executable, str(SERVER), str(link)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, env={**os.environ, **OWN}, text=True) as server:
        assert server.stdout is not None
        assert server.stdin is not None
        assert server.stdout.readline() == "ready\n"
        yield link
        server.stdin.close()  # it ends with this


def ended(process: "subprocess.Popen[str]", timeout_s: float = 3600) -> Ended:
    """Wait for a process; the time is against one that hangs alone, as the machine may be busy."""
    try:
        out, err = process.communicate(timeout=timeout_s)
    except BaseException:
        process.kill()
        process.communicate()
        raise
    said = without_progress(err)
    progress = "".join(line for line in err.splitlines(keepends=True) if line not in said)
    return Ended(process.returncode, out, said, progress)


def wait_for(seen: Callable[[], bool], process: "subprocess.Popen[str]", timeout_s: float = 3600) -> None:
    """Wait until something is seen. Fails where the process ends before."""
    ends_s = time.monotonic() + timeout_s
    while not seen():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < ends_s
        time.sleep(0.002)


def interrupt(process: "subprocess.Popen[str]") -> Ended:
    """Press Ctrl-C."""
    process.send_signal(signal.SIGINT)
    return ended(process)


def verdicts(run: Path) -> list[dict[str, Any]]:
    """A run's verdicts."""
    found: list[dict[str, Any]] = json.loads((run / "verdicts.json").read_text())["verdicts"]
    return found


def exchanges(run: Path) -> dict[str, dict[str, tuple[str, tuple[int, ...] | None]]]:
    """For each log of a run, its answers and their tokens by id. Fails where an id is there twice."""
    logs = {file.name: read_jsonl(file, Exchange) for file in (run / "exchanges").iterdir()}
    for name, log in logs.items():
        assert len({e.id for e in log}) == len(log), f"{name} holds an exchange twice"
    return {name: {e.id: (e.answer, e.token_ids) for e in log} for name, log in logs.items()}


def leftovers(folder: Path) -> list[str]:
    """Files that a process must not leave behind when it ends."""
    kept = {".lock"}
    return [str(p.relative_to(folder)) for p in folder.rglob(".*") if p.name not in kept]


def assert_same(one: Any, other: Any, place: str = "") -> None:
    """Two JSON values are equal, floats to within 1e-6."""
    if isinstance(one, float) and isinstance(other, float):
        assert abs(one - other) <= 1e-6 * max(1.0, abs(one)), place
    elif isinstance(one, dict) and isinstance(other, dict):
        assert one.keys() == other.keys(), place
        for key in one:
            assert_same(one[key], other[key], f"{place}.{key}")
    elif isinstance(one, list) and isinstance(other, list):
        assert len(one) == len(other), place
        for number, (a, b) in enumerate(zip(one, other, strict=True)):
            assert_same(a, b, f"{place}[{number}]")
    else:
        assert one == other, place
