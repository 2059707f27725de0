"""What a person sees while it runs: rich lines and bars on a terminal, silence in a pipe (all on stderr)."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

Tick = Callable[[], None]
WINDOW_S = 300.0  # the time left is told by the speed over so long: answers come in batches


class Show:
    """Progress on stderr; `quiet` where stderr is no terminal."""

    def __init__(self, *, quiet: bool | None = None) -> None:
        self.console = Console(stderr=True, quiet=not sys.stderr.isatty() if quiet is None else quiet)

    def say(self, text: str) -> None:
        """One line."""
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)

    @contextmanager
    def bar(self, text: str, total: int) -> Iterator[Tick]:
        """A bar over `total` ticks; calling what it yields is one tick, from any thread."""
        columns = (TextColumn("  {task.description}"), BarColumn(24), MofNCompleteColumn(), TimeElapsedColumn())
        rest = TimeRemainingColumn()
        with Progress(*columns, rest, console=self.console, transient=True, speed_estimate_period=WINDOW_S) as progress:
            task = progress.add_task(text, total=total)
            yield lambda: progress.advance(task)


def warn(text: str) -> None:
    """A warning on stderr, also in a pipe."""
    Console(stderr=True).print(f"warning: {text}", markup=False, highlight=False, soft_wrap=True)
