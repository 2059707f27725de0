"""The extraction watch: who draws the model off?"""

from spiritsafe.guard.watch.conformal import watch

__all__ = ["watch"]
