"""Files of prompts as people have them: their rows by the file's ending, and what could not be read as a row.

.jsonl .ndjson .jsonlines    an object a line, or an array of objects
.json                        an array of objects, one under a single name, or an object a line
.csv .tsv                    a header and a row a line, quoted as spreadsheets do; .csv with commas, semicolons or tabs
.txt                         a prompt a line
.gz                          each of them, compressed

UTF-8 with or without a byte order mark, or UTF-16 with one. Not covered: Parquet, data sets of hubs.
"""

import csv
import gzip
import io
import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spiritsafe.errors import DataError

KNOWN = ".jsonl, .ndjson, .json, .csv, .tsv, .txt, each also as .gz"
LINES = (".jsonl", ".ndjson", ".jsonlines")
FORMS = {".json": "JSON", ".csv": "CSV", ".tsv": "TSV", ".txt": "text, a prompt a line"}
# Beyond this share of rows that cannot be read, the file is another than we take it for; of five rows one may be.
MOST_BROKEN = 0.05
FEWEST_ROWS = 5
NAMED = 3


@dataclass(frozen=True)
class Row:
    """A row with its line, or its place in an array; `fields` is None where `broken` says what is wrong with it."""

    number: int
    fields: dict[str, Any] | None
    broken: str = ""


@dataclass(frozen=True)
class Rows:
    """What a file holds. `form` names what it was read as, `place` what a row's number counts."""

    form: str
    rows: list[Row]
    place: str = "line"


def ending_of(path: Path) -> str:
    """The ending that says a file's form, in small letters, without `.gz`. Raises `DataError` if none is known."""
    ending = Path(path.name.lower().removesuffix(".gz")).suffix
    if ending == ".parquet":
        raise DataError(str(path), "is Parquet, which is not read here", "write it as JSON lines, e.g. df.to_json(...)")
    if ending not in LINES and ending not in FORMS:
        raise DataError(str(path), f"has no ending that says its form ('{ending}')", f"known are {KNOWN}")
    return ending


def read_rows(path: Path) -> Rows:
    """All rows of a file. Raises `DataError` for an ending that is not known, and what cannot be read at all."""
    ending = ending_of(path)
    data = _unpacked(path) if path.name.lower().endswith(".gz") else path.read_bytes()
    data, encoding = _utf8(path, data)
    form = FORMS.get(ending, "JSON lines") + (f", {encoding}" if encoding else "")
    if ending == ".txt":
        return Rows(form, [_text(number, line) for number, line in _lines(data)])
    if ending in (".csv", ".tsv"):
        return Rows(form, _table(path, data, "\t" if ending == ".tsv" else _delimiter(data)))
    if ending == ".json" and (whole := _array(path, data)) is not None:
        return Rows(form, whole, "item")
    return Rows(form if ending != ".json" else form.replace("JSON", "JSON lines"), list(_objects(data)))


def named(broken: list[Row], place: str, of: int, path: Path) -> str:
    """What is said of rows that are left out, the first three named; "" for none.

    Raises `DataError` if they are more than a file of prompts may hold.
    """
    if not broken:
        return ""
    reasons = [f"{place} {row.number} {row.broken}" for row in broken]
    allowed = max(1 if of >= FEWEST_ROWS else 0, int(of * MOST_BROKEN))
    if len(broken) > allowed:
        counted = f" ({len(broken)} of {of} rows cannot be read)" if of > 1 else ""
        raise DataError(str(path), f"{reasons[0]}{counted}", "mend or remove it")
    more = "; ..." if len(broken) > NAMED else ""
    return f"{len(broken)} left out ({'; '.join(reasons[:NAMED])}{more})"


def _unpacked(path: Path) -> bytes:
    try:
        return gzip.decompress(path.read_bytes())
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(str(path), f"cannot be unpacked ({error})", "fetch it again") from None


def _utf8(path: Path, data: bytes) -> tuple[bytes, str]:
    """The bytes without a byte order mark, from UTF-16 if that is what the mark says, and the name of that."""
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        try:
            return data.decode("utf-16").encode(), "UTF-16"
        except UnicodeDecodeError as error:
            raise DataError(str(path), f"is broken UTF-16 ({error.reason})", "convert it to UTF-8") from None
    if data[:2000].count(b"\0") > len(data[:2000]) // 4:
        raise DataError(str(path), "looks like UTF-16 without a mark, or is no text", "convert it to UTF-8")
    return data.removeprefix(b"\xef\xbb\xbf"), ""


def _lines(data: bytes) -> Iterator[tuple[int, bytes]]:
    """At line feeds alone: U+2028 and others of its kind may stand inside a JSON string."""
    for number, line in enumerate(data.split(b"\n"), 1):
        if line.strip():
            yield number, line


def _decoded(line: bytes) -> str:
    """Raises `ValueError` that says what else than UTF-8 it might be."""
    try:
        return line.decode()
    except UnicodeDecodeError as error:
        what = f"is not UTF-8 (byte 0x{line[error.start]:02x}; Latin-1 or Windows-1252? convert it to UTF-8)"
        raise ValueError(what) from None


def _text(number: int, line: bytes) -> Row:
    try:
        return Row(number, {"prompt": _decoded(line).strip()})
    except ValueError as error:
        return Row(number, None, str(error))


def _objects(data: bytes) -> Iterator[Row]:
    """An object a line; a line may also be an array of them."""
    spread = list(_spread(data))
    if spread:
        yield from spread
        return
    for number, line in _lines(data):
        try:
            text = _decoded(line)
        except ValueError as error:
            yield Row(number, None, str(error))
            continue
        try:
            held = json.loads(text)
        except (ValueError, RecursionError) as error:
            yield Row(number, None, f"is not JSON ({error})")
            continue
        for one in held if isinstance(held, list) and held else [held]:
            yield _object(number, one)


def _spread(data: bytes) -> Iterator[Row]:
    """Objects that are spread over several lines, by the line that each begins at; none if one stands on the first."""
    first = next(_lines(data), (0, b""))[1].strip()
    if first not in (b"{", b"["):
        return
    try:
        text = _decoded(data)
    except ValueError:
        return
    place, number = 0, 1
    while rest := text[place:].lstrip():
        number += text[place : len(text) - len(rest)].count("\n")
        place = len(text) - len(rest)
        try:
            held, after = json.JSONDecoder().raw_decode(text, place)
        except (ValueError, RecursionError) as error:
            yield Row(number, None, f"is not JSON ({error})")
            return
        for one in held if isinstance(held, list) and held else [held]:
            yield _object(number, one)
        number += text[place:after].count("\n")
        place = after


def _object(number: int, held: Any) -> Row:
    if isinstance(held, dict):
        return Row(number, held)
    if isinstance(held, str):
        return Row(number, {"prompt": held})
    return Row(number, None, "is no object; give each a field prompt, or messages")


def _array(path: Path, data: bytes) -> list[Row] | None:
    """The objects of a JSON file; None if it holds an object a line."""
    try:
        held = json.loads(_decoded(data))
    except RecursionError:
        raise DataError(str(path), "is nested too deeply") from None
    except ValueError as error:
        if len(list(_lines(data))) > 1 and _is_json(next(_lines(data))[1]):
            return None
        raise DataError(str(path), f"is not JSON ({error})", "mend it; with an object a line, name it .jsonl") from None
    if isinstance(held, dict):
        lists = [value for value in held.values() if isinstance(value, list) and value and isinstance(value[0], dict)]
        own = {"messages", "conversations", "prompt"} & set(held)
        held = [held] if own or len(lists) != 1 else lists[0]
    if not isinstance(held, list):
        raise DataError(str(path), "holds no array of objects", "give each a field prompt, or messages")
    return [_object(number, one) for number, one in enumerate(held, 1)]


def _is_json(line: bytes) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except ValueError:
        return False


def _delimiter(data: bytes) -> str:
    """By the header: spreadsheets write semicolons where a comma stands in numbers, and tabs in "Unicode text"."""
    header = next(_lines(data), (0, b""))[1]
    return max(",;\t", key=lambda sign: header.count(sign.encode()))  # of equally many the first


def _table(path: Path, data: bytes, delimiter: str) -> list[Row]:
    try:
        text = _decoded(data)
    except ValueError as error:
        raise DataError(str(path), str(error)) from None
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    rows: list[Row] = []
    # The limit is the process's: lowered, it would refuse the next file.
    csv.field_size_limit(max(csv.field_size_limit(), len(text) + 1))
    try:
        for fields in reader:
            if None in fields or None in fields.values():
                rows.append(Row(reader.line_num, None, "has another number of columns than the header"))
            else:
                rows.append(Row(reader.line_num, {(name or "").strip(): value for name, value in fields.items()}))
    except csv.Error as error:
        raise DataError(str(path), f"line {reader.line_num} is broken ({error})", "mend it") from None
    return rows
