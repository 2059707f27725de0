"""The verbs. Nothing heavy is imported before a verb needs it: `spiritsafe --help` stays instant.

Results go to stdout, progress and warnings to stderr. Exit codes: 0 done, 1 failed, 2 usage, 3 a gate was
not met, 130 interrupted.
"""

# The order of import is the order in which --help lists the verbs.
# isort: off
from spiritsafe.cli import run, serve, make, chat, measure, guard, info

# isort: on
from spiritsafe.cli.main import main
from spiritsafe.cli.shared import app

__all__ = ["app", "chat", "guard", "info", "main", "make", "measure", "run", "serve"]
