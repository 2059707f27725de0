"""Answers sampled on a Ray cluster: every model at once, each on actors of its own, requests handed out in leases.

Only this process writes to the store, so a node that dies costs its lease, and a killed measurement goes on. The
cluster needs a processor for each actor of each model. Not spread: log-likelihoods, and reviews of the risk control.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from threading import Lock

from spiritsafe.errors import ModelError
from spiritsafe.measure.store import Meter, exchanges_of, missing_of
from spiritsafe.models.base import Model, Request
from spiritsafe.models.fan import Fan
from spiritsafe.models.many import Unanswered, take_from
from spiritsafe.record import Exchange, append_jsonl


def spread(
    models: Sequence[Model], requests: Sequence[Request], folder: Path, *, actors: int, cluster: str, meter: Meter
) -> None:
    """Answer what the store lacks. What a server leaves unanswered is left to the caller, who asks again.

    Raises `BudgetSpent` after the answer that reaches a bound, and what `Fan` raises.
    """
    work = {m.digest: (m, missing_of(folder, m, requests)) for m in models}
    with ExitStack() as stack, ThreadPoolExecutor(len(work)) as pool:
        fans = [
            (model, missing, stack.enter_context(Fan(model.address, actors=actors, cluster=cluster)))
            for model, missing in work.values()
            if missing
        ]
        lock = Lock()
        futures = [pool.submit(_answer, fan, model, missing, folder, meter, lock) for model, missing, fan in fans]
        for future in futures:
            future.result()


def _answer(fan: Fan, model: Model, missing: Sequence[Request], folder: Path, meter: Meter, lock: Lock) -> None:
    if fan.digest != model.digest:
        what = f"is another model on the cluster: {fan.digest[:12]} and {model.digest[:12]}"
        raise ModelError(model.address, what, "give every node the same weights")
    path, _ = exchanges_of(folder, model)

    def keep(result: Exchange | Unanswered) -> None:
        if isinstance(result, Unanswered):
            return
        append_jsonl(path, [result])
        with lock:
            meter.count(result)
            meter.check()

    meter.check()
    fan.answer_all(take_from(missing), keep)
