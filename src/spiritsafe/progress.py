"""What a person sees while it runs, all on stderr: lines, one for each stage, and on a terminal also bars."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from spiritsafe.errors import printable

Tick = Callable[[], None]
WINDOW_S = 300.0  # the time left is told by the speed over so long: answers come in batches


class Show:
    """Progress on stderr; with `quiet` nothing at all. Lines go into a pipe or a log too, bars do not."""

    def __init__(self, *, quiet: bool = False) -> None:
        self.console = Console(stderr=True, quiet=quiet)
        self._bars = Console(stderr=True, quiet=quiet or not sys.stderr.isatty())

    def say(self, text: str) -> None:
        """One line."""
        self.console.print(printable(text), markup=False, highlight=False, soft_wrap=True)

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
