"""What a person sees while it runs, all on stderr: on a terminal lines and bars, in a log lines with their time."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from spiritsafe.errors import printable

Tick = Callable[[], None]
WINDOW_S = 300.0  # the time left is told by the speed over so long: answers come in batches


class Show:
    """Progress on stderr; with `quiet` nothing at all. A log (no terminal) has a line for each stage and no bars."""

    def __init__(self, *, quiet: bool = False) -> None:
        self._is_log = not sys.stderr.isatty()
        self._lines = Console(stderr=True, quiet=quiet)
        self._bars = Console(stderr=True, quiet=quiet or self._is_log)

    def say(self, text: str) -> None:
        """One line; in a log it begins with the time, HH:MM:SS."""
        head = time.strftime("%H:%M:%S ") if self._is_log else ""
        self._lines.print(head + printable(text), markup=False, highlight=False, soft_wrap=True)

    @contextmanager
    def bar(self, text: str, total: int) -> Iterator[Tick]:
        """A bar over `total` ticks; calling what it yields is one tick, from any thread."""
        columns = (
            TextColumn("  {task.description}", markup=False),
            BarColumn(24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=self._bars, transient=True, speed_estimate_period=WINDOW_S) as progress:
            task = progress.add_task(printable(text), total=total)
            yield lambda: progress.advance(task)


def warn(text: str) -> None:
    """A warning on stderr, also in a pipe."""
    Console(stderr=True).print(printable(f"warning: {text}"), markup=False, highlight=False, soft_wrap=True)
