"""A training run's metrics in a tracker as well: trackio or MLflow, whichever is installed; JSONL is written anyway."""

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from importlib import import_module
from typing import Any

from spiritsafe.errors import MissingExtra

Track = Callable[[Mapping[str, float | int]], None]


@contextmanager
def tracked(kind: str | None, *, project: str, run: str) -> Iterator[Track]:
    """What to tell each step's metrics; tells nobody where `kind` is None.

    Where metrics go is the tracker's own configuration: trackio keeps them in `TRACKIO_DIR`, MLflow in
    `MLFLOW_TRACKING_URI`, both on this machine unless told otherwise. Raises `MissingExtra`.
    """
    match kind:
        case None:
            yield lambda metrics: None
        case "trackio":
            tracker = _imported("trackio", "tracking")
            with redirect_stdout(sys.stderr):  # it prints where results go
                tracker.init(project=project, name=run, resume="allow")
            try:
                yield lambda metrics: tracker.log(_figures(metrics), step=metrics["step"])
            finally:
                with redirect_stdout(sys.stderr):
                    tracker.finish()
        case _:
            tracker = _imported("mlflow", "mlflow")
            tracker.set_experiment(project)
            with tracker.start_run(run_name=run):
                yield lambda metrics: tracker.log_metrics(_figures(metrics), step=int(metrics["step"]))


def _figures(metrics: Mapping[str, float | int]) -> dict[str, float]:
    return {name: float(value) for name, value in metrics.items() if name not in ("step", "steps")}


def _imported(name: str, extra: str) -> Any:
    try:
        return import_module(name)
    except ModuleNotFoundError:
        raise MissingExtra(name, extra) from None
