"""inspect logs (versions 1 and 2): one JSON file, or an `.eval` archive of JSON files.

A sample's score is C (1), P (0.5), I or N (0), a truth value or a number; of several epochs it is the mean. NaN and
null mean that it was not scored. Letters and truth values are ranked, higher is better; a log does not say of numbers
which way they count. Archives packed with Zstandard need the `[inspect]` extra.
"""

import struct
import zipfile
from pathlib import Path
from typing import Any

from spiritsafe.errors import DataError, MissingExtra
from spiritsafe.measure.foreign.imported import LETTERS, Imported, Scored, mean_verdict, number_of, plain
from spiritsafe.record import parse_json

ZSTANDARD = 93


def read_log(path: Path, held: dict[str, Any]) -> Imported:
    """A log as one JSON value. Raises `DataError` if it names no model, or holds neither samples nor results."""
    head = held["eval"]
    if not head.get("model") or not head.get("task"):
        missing = "model" if not head.get("model") else "task"
        raise DataError(str(path), f"names no {missing}: 'eval.{missing}' is not there", "copy the log again")
    model, task = str(head["model"]), str(head["task"])
    status = held.get("status", "success")
    version = head.get("packages", {}).get("inspect_ai", "")
    note = f"imported from inspect {version}".strip() + ("" if status == "success" else f", its run ended in {status}")
    results = held.get("results") or {}
    samples = [sample for sample in held.get("samples") or [] if sample.get("scores") or sample.get("score")]
    imported = Imported()
    if samples:
        _add_samples(imported, model, task, samples, note, results)
    elif results:
        _add_means(imported, model, task, results, note)
    else:
        raise DataError(str(path), f"holds no scores (status {status})", "import a log of a finished run")
    return imported


def read_archive(path: Path) -> Imported:
    """An `.eval` archive. Raises `DataError` where it is broken or was not finished."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            if "header.json" not in names:
                raise DataError(str(path), "has no header: its run was cut off", "finish it with inspect eval-retry")
            held = parse_json(_member(path, archive, "header.json"))
            parts = sorted(name for name in names if name.startswith("samples/"))
            held["samples"] = [parse_json(_member(path, archive, name)) for name in parts]
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


def _add_samples(
    imported: Imported, model: str, task: str, samples: list[dict[str, Any]], note: str, results: dict[str, Any]
) -> None:
    scored = Scored(model, task, note)
    seen: set[tuple[str, str]] = set()
    doubled: set[str] = set()
    for sample in samples:
        key = str(sample["id"])
        epoch = (key, str(sample.get("epoch", 1)))
        if epoch in seen:
            doubled.add(key)
        seen.add(epoch)
        for name, value in _values(_scores_of(sample, results)):
            ranked = True if isinstance(value, bool) or value in LETTERS else None
            number = number_of(value)
            scored.add(plain(name), key, number, True if number is None else ranked)
    scored.into(imported, task)
    if doubled:
        imported.left_out.append(f"{task}: {len(doubled)} samples stand twice in one epoch, their scores were averaged")


def _scores_of(sample: dict[str, Any], results: dict[str, Any]) -> dict[str, Any]:
    """A sample's scores by scorer; version 1 has one, named in the results."""
    if sample.get("scores"):
        return dict(sample["scores"])
    return {str((results.get("scorer") or {}).get("name", "score")): sample["score"]}


def _values(scores: dict[str, Any]) -> list[tuple[str, Any]]:
    """Every scorer's value by name; a scorer of several values gives one for each."""
    values: list[tuple[str, Any]] = []
    for name, score in scores.items():
        value = score.get("value") if isinstance(score, dict) else score
        if isinstance(value, dict):
            values += [(f"{name} {key}", part) for key, part in value.items()]
        else:
            values.append((name, value))
    return values


def _add_means(imported: Imported, model: str, task: str, results: dict[str, Any], note: str) -> None:
    n = results.get("completed_samples")
    for name, metrics, scored in _metrics(results):
        value = metrics.get("accuracy", metrics.get("mean"))
        number = scored or n
        if value is None or not number or not 0 <= value <= 1:
            why = "has no number of samples" if not number else "is no score between 0 and 1"
            imported.left_out.append(f"{task}: {plain(name)} {why}")
            continue
        error = metrics.get("stderr")
        imported.means.append(
            mean_verdict(
                model,
                task,
                plain(name),
                value=value,
                error=error,
                n=number,
                better=True if "accuracy" in metrics else None,
                note=note,
            )
        )


def _metrics(results: dict[str, Any]) -> list[tuple[str, dict[str, float], int | None]]:
    """Each scorer's name, metrics and number of samples; grouped metrics stand under a name of their own."""
    if "scores" not in results:  # version 1
        name = str((results.get("scorer") or {}).get("name", "score"))
        return [(name, _leaves(results.get("metrics") or {}), None)]
    found: list[tuple[str, dict[str, float], int | None]] = []
    for score in results["scores"]:
        grouped = {key: value for key, value in score["metrics"].items() if _is_group(value)}
        alone = {key: value for key, value in score["metrics"].items() if key not in grouped}
        if alone:
            found.append((str(score["name"]), _leaves(alone), score.get("scored_samples")))
        for key, value in grouped.items():
            parts = value if isinstance(value, list) else [value]
            leaves = {name: number for part in parts for name, number in _leaves(part).items()}
            found.append((f"{score['name']} {key}", leaves, score.get("scored_samples")))
    return found


def _is_group(value: Any) -> bool:
    return isinstance(value, list) or (isinstance(value, dict) and "value" not in value)


def _leaves(metrics: dict[str, Any]) -> dict[str, float]:
    """The numbers of metrics by name; one that is not finite was not measured."""
    numbers = {name: number_of(held.get("value") if isinstance(held, dict) else held) for name, held in metrics.items()}
    return {name: number for name, number in numbers.items() if number is not None}
