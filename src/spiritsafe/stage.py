"""Run a stage once: a function of the outputs of the stages before it and its part of the recipe.

`stages/NAME.json` is written when a stage ends; where it is there, its inputs are the same and its files
intact, the stage is not run again. Answers are collected by id, so none is lost or doubled by a kill.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from spiritsafe.ledger import Entry, metered
from spiritsafe.progress import Show
from spiritsafe.record import Verdict, digest_of, write_json
from spiritsafe.run import STAGE_VERSION, Run, outputs_of, seal_of, stage_record


@dataclass
class Done:
    """What a stage leaves: files (hashed into the lineage), verdicts, plot data, and notes for later stages."""

    files: tuple[Path, ...] = ()
    verdicts: list[Verdict] = field(default_factory=list)
    plots: dict[str, Any] = field(default_factory=dict)
    notes: dict[str, Any] = field(default_factory=dict)


@dataclass
class Stages:
    """The stages of one run so far, by name: `records` are what `stages/NAME.json` hold."""

    run: Run[Any]
    show: Show
    records: dict[str, dict[str, Any]] = field(default_factory=dict)

    def do(
        self, name: str, needs: Sequence[str], work: Callable[[Entry], Done], *, also: Mapping[str, str] | None = None
    ) -> dict[str, Any]:
        """Run stage `name` unless it is done; returns its notes.

        `also` names further inputs by digest: files outside the run that the recipe points at.
        """
        inputs = {file: digest for need in needs for file, digest in self.records[need]["outputs"].items()}
        inputs |= {f"stage {need}": self.records[need]["digest"] for need in needs}
        inputs |= also or {}
        old = stage_record(self.run, name)
        if old and old["key"] == digest_of([name, inputs]):
            self.show.say(f"{name}: done before")
            self.records[name] = old
        else:
            self.show.say(f"{name} ...")
            with metered(name, self.run.recipe.ledger) as entry:
                done = work(entry)
            entry.inputs, entry.outputs = inputs, outputs_of(self.run, done.files)
            self.records[name] = _record(name, inputs, entry, done)
            write_json(self.run.path("stages", f"{name}.json"), self.records[name])
            self.show.say(f"{name}: {entry.wall_s:.0f} s")
        notes: dict[str, Any] = self.records[name]["notes"]
        return notes

    def verdicts(self) -> list[Verdict]:
        """All verdicts so far, in the order of the stages."""
        return [Verdict.model_validate(v) for record in self.records.values() for v in record["verdicts"]]

    def computed(self) -> list[dict[str, Any]]:
        """With what the stages were computed (`threads.computed`), each once."""
        found = [record["entry"].get("computed", {}) for record in self.records.values()]
        return [each for i, each in enumerate(found) if each and each not in found[:i]]

    def plots(self) -> dict[str, Any]:
        """All plot data so far."""
        return {name: data for record in self.records.values() for name, data in record["plots"].items()}


def _record(name: str, inputs: dict[str, str], entry: Entry, done: Done) -> dict[str, Any]:
    verdicts = [v.model_dump(mode="json") for v in done.verdicts]
    record = {
        "version": STAGE_VERSION,
        "key": digest_of([name, inputs]),
        "digest": digest_of([entry.outputs, verdicts, done.notes]),
        "outputs": entry.outputs,
        "entry": entry.model_dump(mode="json"),
        "verdicts": verdicts,
        "plots": done.plots,
        "notes": done.notes,
    }
    # As JSON holds it: a tuple comes back as a list.
    written: dict[str, Any] = json.loads(json.dumps(record))
    return written | {"seal": seal_of(written)}
