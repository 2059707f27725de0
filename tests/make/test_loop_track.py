"""Trackers are told each step's figures; one that is not installed names the pip command."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import pytest

from spiritsafe.errors import MissingExtra
from spiritsafe.make.loop import tracked

STEP = {"step": 3, "steps": 9, "loss": 1.5, "tokens": 40}


def stand_in(monkeypatch: pytest.MonkeyPatch, name: str, *calls: str) -> list[tuple[Any, ...]]:
    """A module that only notes how it is called: the real ones are not in the development environment."""
    noted: list[tuple[Any, ...]] = []
    module = ModuleType(name)
    for call in calls:
        setattr(module, call, lambda *given, call=call, **named: noted.append((call, *given, named)))
    monkeypatch.setitem(sys.modules, name, module)
    return noted


def test_trackio_is_told_each_step_under_the_runs_name(monkeypatch: pytest.MonkeyPatch) -> None:
    noted = stand_in(monkeypatch, "trackio", "init", "log", "finish")
    with tracked("trackio", project="quickstart", run="student") as track:
        track(STEP)
    assert noted == [
        ("init", {"project": "quickstart", "name": "student", "resume": "allow"}),
        ("log", {"loss": 1.5, "tokens": 40.0}, {"step": 3}),
        ("finish", {}),
    ]


def test_mlflow_is_told_each_step_and_its_run_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    noted = stand_in(monkeypatch, "mlflow", "set_experiment", "log_metrics", "start_run")
    ends: list[str] = []

    @contextmanager
    def start_run(run_name: str) -> Iterator[None]:
        noted.append(("start_run", run_name))
        yield
        ends.append("closed")

    monkeypatch.setattr(sys.modules["mlflow"], "start_run", start_run)
    with tracked("mlflow", project="quickstart", run="student") as track:
        track(STEP)
    assert noted[:2] == [("set_experiment", "quickstart", {}), ("start_run", "student")]
    assert noted[2] == ("log_metrics", {"loss": 1.5, "tokens": 40.0}, {"step": 3})
    assert ends == ["closed"]


@pytest.mark.parametrize(("kind", "extra"), [("trackio", "tracking"), ("mlflow", "mlflow")])
def test_a_tracker_that_is_not_installed_names_the_command(
    monkeypatch: pytest.MonkeyPatch, kind: str, extra: str
) -> None:
    monkeypatch.setitem(sys.modules, kind, None)
    with (
        pytest.raises(MissingExtra, match=rf"pip install 'spiritsafe\[{extra}\]'"),
        tracked(kind, project="p", run="r"),
    ):
        pass


def test_without_a_tracker_nobody_is_told() -> None:
    with tracked(None, project="p", run="r") as track:
        track(STEP)
