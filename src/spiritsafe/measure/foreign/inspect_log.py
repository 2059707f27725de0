"""inspect logs (version 2): one JSON file, or an `.eval` archive of JSON files.

A sample's score is C (1), P (0.5), I or N (0), a truth value or a number; of several epochs it is the mean. Letters
and truth values are ranked, higher is better; a log does not say of numbers which way they count. Archives packed
with Zstandard need the `[inspect]` extra.
"""

import json
import struct
import zipfile
from pathlib import Path
from typing import Any

from spiritsafe.errors import DataError, MissingExtra
from spiritsafe.measure.foreign.imported import Imported, mean_verdict, plain, sample_cell

LETTERS = {"C": 1.0, "P": 0.5, "I": 0.0, "N": 0.0}
ZSTANDARD = 93


def read_log(path: Path, held: dict[str, Any]) -> Imported:
    """A log as one JSON value. Raises `DataError` where it holds neither samples nor results."""
    model, task = held["eval"]["model"], held["eval"]["task"]
    status = held.get("status", "success")
    version = held["eval"].get("packages", {}).get("inspect_ai", "")
    note = f"imported from inspect {version}".strip() + ("" if status == "success" else f", its run ended in {status}")
    samples = [sample for sample in held.get("samples") or [] if sample.get("scores")]
    found = Imported()
    if samples:
        _add_samples(found, model, task, samples, note)
    elif held.get("results"):
        _add_means(found, model, task, held["results"], note)
    else:
        raise DataError(str(path), f"holds no scores (status {status})", "import a log of a finished run")
    return found


def read_archive(path: Path) -> Imported:
    """An `.eval` archive. Raises `DataError` where it is broken or was not finished."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            if "header.json" not in names:
                raise DataError(str(path), "has no header: its run was cut off", "finish it with inspect eval-retry")
            held = json.loads(_member(path, archive, "header.json"))
            parts = sorted(name for name in names if name.startswith("samples/"))
            held["samples"] = [json.loads(_member(path, archive, name)) for name in parts]
    except (zipfile.BadZipFile, ValueError, struct.error) as error:
        raise DataError(str(path), f"is no inspect archive ({error})", "copy it again") from None
    return read_log(path, held)


def _member(path: Path, archive: zipfile.ZipFile, name: str) -> bytes:
    """One file of the archive; `zipfile` itself knows no Zstandard before Python 3.14."""
    info = archive.getinfo(name)
    if info.compress_type != ZSTANDARD:
        return archive.read(name)
    try:
        import zstandard
    except ModuleNotFoundError:
        raise MissingExtra("zstandard", "inspect") from None
    with path.open("rb") as file:
        file.seek(info.header_offset)
        name_length, extra_length = struct.unpack("<HH", file.read(30)[26:30])
        file.seek(info.header_offset + 30 + name_length + extra_length)
        packed = file.read(info.compress_size)
    data: bytes = zstandard.ZstdDecompressor().decompressobj().decompress(packed)
    return data


def _add_samples(found: Imported, model: str, task: str, samples: list[dict[str, Any]], note: str) -> None:
    scores: dict[str, dict[str, list[float]]] = {}
    broken: set[str] = set()
    ranked: dict[str, bool] = {}
    for sample in samples:
        for name, value in _values(sample["scores"]):
            number = _number(value)
            if number is None:
                broken.add(name)
                continue
            ranked[name] = ranked.get(name, True) and (isinstance(value, bool) or value in LETTERS)
            scores.setdefault(name, {}).setdefault(str(sample["id"]), []).append(number)
    for name, by_sample in scores.items():
        means = {key: sum(values) / len(values) for key, values in by_sample.items()}
        better = True if ranked[name] else None
        cell = None if name in broken else sample_cell(model, task, plain(name), values=means, better=better, note=note)
        if cell:
            found.cells.append(cell)
        else:
            broken.add(name)
    found.left_out.extend(f"{task}: {name} is no score between 0 and 1" for name in sorted(broken))


def _values(scores: dict[str, Any]) -> list[tuple[str, Any]]:
    """Every scorer's value by name; a scorer of several values gives one for each."""
    found: list[tuple[str, Any]] = []
    for name, score in scores.items():
        several = isinstance(score["value"], dict)
        found += (
            [(f"{name} {key}", part) for key, part in score["value"].items()] if several else [(name, score["value"])]
        )
    return found


def _number(value: Any) -> float | None:
    if isinstance(value, str):
        return LETTERS.get(value)
    return float(value) if isinstance(value, (int, float)) else None


def _add_means(found: Imported, model: str, task: str, results: dict[str, Any], note: str) -> None:
    for score in results["scores"]:
        metrics = {name: held["value"] for name, held in score["metrics"].items()}
        value = metrics.get("accuracy", metrics.get("mean"))
        n = score.get("scored_samples") or results.get("completed_samples")
        if value is None or not n or not 0 <= value <= 1:
            found.left_out.append(f"{task}: {score['name']} is no score between 0 and 1")
            continue
        found.means.append(
            mean_verdict(
                model, task, plain(score["name"]), value=value, error=metrics.get("stderr"), n=n,
                better=True if "accuracy" in metrics else None, note=note,
            )
        )  # fmt: skip
