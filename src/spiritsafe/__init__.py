"""spiritsafe: distils, measures, guards and traces language models."""

__version__ = "0.1.0"
