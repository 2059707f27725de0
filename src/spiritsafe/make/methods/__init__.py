"""Ways to learn, one file each; the loop does not know which one runs."""

from spiritsafe.make.methods.cached import Cached, from_cache
from spiritsafe.make.methods.text import Text

__all__ = ["Cached", "Text", "from_cache"]
