"""The former name of `models.decoding.native`, for scripts that import it: a local model decodes by it itself."""

from spiritsafe.models.local import LocalModel


def fast(model: LocalModel) -> LocalModel:
    """The model as it is."""
    return model
