"""Answers sampled on a Ray cluster: every model at once, each on actors of its own, requests handed out in leases.

Only this process writes to the store, so a node that dies costs its lease, and a killed measurement goes on. The
cluster needs a processor for each actor of each model. Not spread: log-likelihoods, and reviews of the risk control.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

from spiritsafe.errors import ModelError
from spiritsafe.measure.store import Asking
from spiritsafe.models.base import Model, Request
from spiritsafe.models.budget import Meter
from spiritsafe.models.fan import Fan


def spread(
    models: Sequence[Model], requests: Sequence[Request], folder: Path, *, actors: int, cluster: str, meter: Meter
) -> None:
    """Answer what the store lacks. What failed for a while is left to the caller, who asks again.

    Raises as `store.answers` does, and what `Fan` raises.
    """
    asked = [Asking(folder, model, requests, meter=meter, tick=lambda: None) for model in models]
    work = {asking.model.digest: asking for asking in asked if asking.left}
    with ExitStack() as stack, ThreadPoolExecutor(max(1, len(work))) as pool:
        fans = [
            (asking, stack.enter_context(Fan(asking.model.address, actors=actors, cluster=cluster)))
            for asking in work.values()
        ]
        for future in [pool.submit(_answer, fan, asking) for asking, fan in fans]:
            future.result()


def _answer(fan: Fan, asking: Asking) -> None:
    model = asking.model
    if fan.digest != model.digest:
        what = f"is another model on the cluster: {fan.digest[:12]} and {model.digest[:12]}"
        raise ModelError(model.address, what, "give every node the same weights")
    fan.answer_all(asking.take, asking.keep, ends_s=asking.meter.ends_s)
    asking.check()
