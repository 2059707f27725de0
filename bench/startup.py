"""How fast the command line starts, what it imports, and how many packages an installation brings.

`help_s`: seconds of `spiritsafe --help` in a fresh process, median of 10, alternating with a bare
interpreter (`limit`); files may be in the page cache. `imports_torch`: modules of torch loaded by
`--help` and by loading every shipped recipe. `packages_*`: what pip would install into an empty
environment at the versions of constraints.txt, spiritsafe itself not counted; needs the package index.
Not covered: the time of the verbs behind `--help`, and peers, which are null until measured here.
"""

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from bench import _schema
from bench._schema import Row, note

ROOT = Path(__file__).parent.parent
COLD_STARTS = 10

LOOK = """
import contextlib, io, sys
from spiritsafe.cli import main
from spiritsafe.recipe import read_recipe, shipped_recipes
sys.argv = ["spiritsafe", "--help"]
with contextlib.redirect_stdout(io.StringIO()):
    try:
        main()
    except SystemExit as stop:
        assert not stop.code, stop.code
assert shipped_recipes()
for name in shipped_recipes():
    read_recipe(name)
print(*(name for name in sys.modules if name.split(".")[0] == "torch"))
"""


def measure(seed: int) -> list[Row]:
    """All four metrics; nothing here is random, so `seed` changes nothing."""
    del seed
    return [
        help_time(COLD_STARTS),
        Row("--help and every shipped recipe", "imports_torch", len(torch_modules())),
        Row("pip install spiritsafe", "packages_base", len(packages("."))),
        Row("pip install spiritsafe[torch]", "packages_torch", len(packages(".[torch]"))),
    ]


def help_time(num_starts: int) -> Row:
    """Median seconds of `spiritsafe --help`, with the bare interpreter's start as the limit."""
    ours, bare = [], []
    for start in range(num_starts):
        note(f"start {start + 1} of {num_starts}")
        ours.append(_seconds([str(Path(sys.executable).parent / "spiritsafe"), "--help"]))
        bare.append(_seconds([sys.executable, "-c", "pass"]))
    median, limit = statistics.median(ours), statistics.median(bare)
    return Row("spiritsafe --help", "help_s", median, limit=limit, n=num_starts, spread=(min(ours), max(ours)))


def torch_modules() -> list[str]:
    """Names of torch's modules that a fresh process holds after `--help` and loading every shipped recipe."""
    done = subprocess.run([sys.executable, "-c", LOOK], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"bench.startup: spiritsafe --help failed: {done.stderr.strip().splitlines()[-1]}")
    return done.stdout.split()


def packages(requirement: str) -> list[str]:
    """Names that pip would install for `requirement` into an empty environment, spiritsafe left out."""
    note(f"resolving {requirement}")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--dry-run", "--ignore-installed", "--report", "-"]
    pins = os.environ | {"PIP_CONSTRAINT": "constraints.txt", "PIP_BUILD_CONSTRAINT": "constraints.txt"}
    done = subprocess.run([*pip, requirement], capture_output=True, text=True, cwd=ROOT, env=pins, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise SystemExit(f"bench.startup: pip could not resolve {requirement} (it needs the package index): {last}")
    names = [str(item["metadata"]["name"]) for item in json.loads(done.stdout)["install"]]
    return [name for name in names if name != "spiritsafe"]


def _seconds(command: Sequence[str]) -> float:
    begin = time.perf_counter()
    subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)
    return time.perf_counter() - begin


if __name__ == "__main__":
    _schema.main("startup", measure)
