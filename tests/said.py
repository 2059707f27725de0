"""What a command said on stderr beside its progress."""

import re

PROGRESS = re.compile(r"\d\d:\d\d:\d\d ")


def without_progress(err: str) -> str:
    """The lines of stderr that do not report progress, which begin with the time."""
    return "".join(line for line in err.splitlines(keepends=True) if not PROGRESS.match(line))
