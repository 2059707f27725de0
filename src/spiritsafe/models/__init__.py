"""One door to every model: `open_model(address)`."""

from importlib.metadata import entry_points

from spiritsafe.errors import UsageError
from spiritsafe.models.address import parse_address
from spiritsafe.models.base import Model, Request, Scores, ask, user

__all__ = ["Model", "Request", "Scores", "ask", "open_model", "user"]


def open_model(address: str, *, batch: int = 64) -> Model:
    """Open the model at an address; `batch` sequences are decoded at once where the model is local.

    Schemes are entry points of the group `spiritsafe.models`, a function `(address, rest, batch) -> Model`
    each; plug-ins add their own. Raises `UsageError` for an unknown address, `ModelError` where the
    model cannot be loaded, `EndpointError` where its server is out of reach.
    """
    parsed = parse_address(address)
    found = entry_points(group="spiritsafe.models", name=parsed.scheme)
    if not found:
        raise UsageError(address, f"no plug-in opens '{parsed.scheme}:' addresses", "reinstall spiritsafe")
    opened: Model = next(iter(found)).load()(address, parsed.rest, batch)
    return opened
