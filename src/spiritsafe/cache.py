"""Where this user's downloads, converted models and compiled kernels are kept."""

import os
from pathlib import Path


def cache_dir() -> Path:
    """The user's cache: `$SPIRITSAFE_CACHE`, else `$XDG_CACHE_HOME/spiritsafe`, else `~/.cache/spiritsafe`."""
    named = os.environ.get("SPIRITSAFE_CACHE")
    if named:
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "spiritsafe"
