"""The extraction watch: who draws the model off?"""

from spiritsafe.guard.watch.accounts import fewest_ordinary, listing, uses_of
from spiritsafe.guard.watch.conformal import watch

__all__ = ["fewest_ordinary", "listing", "uses_of", "watch"]
