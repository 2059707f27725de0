"""spiritsafe: distils, measures, guards and traces language models."""

from spiritsafe import threads

__version__ = "0.1.0"

threads.settle()
