"""The records that go to disk: Message, Sampling, Usage, Exchange, Verdict; and JSONL in and out.

All are frozen and versioned and have no methods that act. Times are seconds since the epoch (UTC),
log-probabilities are in nats.

A stored exchange is sealed (`seal.py`): a line that was changed since, or has no seal, is refused when it is read.
"""

import hashlib
import json
import math
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from io import FileIO
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from spiritsafe.errors import DataError, writing
from spiritsafe.locks import locked
from spiritsafe.seal import MEMBER, is_sealed, sealed, unsealed, without_seal

VERDICT_VERSION = 1
GZIP = b"\x1f\x8b"
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
# The mask can only be read by setting it, which is safe as long as there is one thread.
UMASK = os.umask(0o077)
os.umask(UMASK)
FinishReason = Literal["stop", "length", "content_filter", "tool_calls", "error", "unknown"]
ErrorKind = Literal["", "request", "filter", "passing", "model"]


class Record(BaseModel):
    """Base of every record: frozen, unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Message(Record):
    """One turn of a conversation. `developer` is a newer word for `system`; `tool` holds a tool's result."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str


class Sampling(Record):
    """How an answer is drawn. `seed` is this one sequence's own 63-bit seed (`None`: not known)."""

    temperature: float = 1.0
    top_p: float = 1.0
    max_tokens: int = 64
    stop: tuple[str, ...] = ()
    seed: int | None = None


class Usage(Record):
    """Tokens read and written; where `known` is false, the server did not say and both are 0."""

    prompt_tokens: int = Field(default=0, ge=0)
    completion_tokens: int = Field(default=0, ge=0)
    known: bool = True


class Exchange(Record):
    """One prompt and one answer: what `make` trains on, `measure` scores, `guard` logs, `prove` compares.

    `token_ids` holds the answer's tokens, with the end token where the model wrote one; `logprobs`
    the model's own log-probability of each in nats at temperature 1. `open_turn="user"` marks a user's
    turn that the model itself wrote (self-synthesis). `reasoning` is what a server reports apart from
    the answer as the model's thoughts. `sent` is what the client received, if that is not `answer`.
    A `finish_reason` that nobody understands is `unknown`, never `stop`. If there is no answer, it is
    `error`, `error` says why, and `error_kind` who can mend it: `request` (asked again it fails again, e.g.
    beyond the context), `filter` (the provider's own filter), `passing` (may go well later), `model` (failed).
    """

    version: Literal[1, 2] = 2
    id: str
    account: str = ""
    model: str
    model_digest: str
    messages: tuple[Message, ...]
    open_turn: Literal["assistant", "user"] = "assistant"
    sampling: Sampling
    answer: str
    finish_reason: FinishReason = "stop"
    token_ids: tuple[int, ...] | None = None
    logprobs: tuple[float, ...] | None = None
    usage: Usage = Usage()
    started_at_s: float = 0.0
    elapsed_s: float = 0.0
    cost_usd: float = 0.0
    flags: tuple[str, ...] = ()
    reasoning: str = ""
    sent: str | None = None
    error: str = ""
    error_kind: ErrorKind = ""


class Verdict(Record):
    """What is claimed, with its evidence. `interval` is at `confidence`; `n` counts independent units.

    `kind` names whose randomness a p-value rests on: E exact (the owner's own draws), C calibrated
    (a population), I indicative, S sampling of prompts. `expected` is what the run's own ground truth
    says, where it is known; `holds` whether the verdict agrees with it.
    """

    version: Literal[1] = 1
    room: Literal["make", "measure", "guard", "prove"]
    name: str
    subject: str
    claim: str
    value: float
    unit: str = ""
    interval: tuple[float, float] | None = None
    confidence: float = 0.95
    n: int
    seed: int | None = None
    method: str
    kind: Literal["E", "C", "I", "S"] = "S"
    assumptions: tuple[str, ...] = ()
    limits: tuple[str, ...] = ()
    p_value: float | None = None
    p_adjusted: float | None = None
    e_value: float | None = None
    rejected: bool | None = None
    expected: str = ""
    holds: bool | None = None
    detail: dict[str, Any] = Field(default_factory=dict)


R = TypeVar("R", bound=BaseModel)
# Half a character (a lone surrogate) is written as JSON's own escape of it, which every reader of JSON takes.
HALVES = "backslashreplace"


def digest_of(value: Any) -> str:
    """sha256 of a value's canonical JSON (sorted keys, no spaces), as 64 hex digits."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, default=_plain)
    return hashlib.sha256(text.encode("utf-8", HALVES)).hexdigest()


def bytes_digest(data: bytes) -> str:
    """sha256 of bytes, as 64 hex digits."""
    return hashlib.sha256(data).hexdigest()


def file_digest(path: Path) -> str:
    """sha256 of a file's bytes, as 64 hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sent_text(exchange: Exchange) -> str:
    """What the client received: the answer, or what was sent instead."""
    return exchange.answer if exchange.sent is None else exchange.sent


def prompt_digest(messages: Iterable[Message]) -> str:
    """sha256 over the messages of a prompt: its identity wherever it occurs."""
    return digest_of([[m.role, m.content] for m in messages])


def seed_of(*parts: object) -> int:
    """A 63-bit seed derived from any parts; equal parts give equal seeds on every machine."""
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:8], "big") >> 1


def append_jsonl(path: Path, records: Iterable[BaseModel | Mapping[str, Any]]) -> None:
    """Append records, one line each, in a single write: a killed process leaves at most one broken tail.

    If the disk is full, or an exchange holds NaN or infinity, which no reader takes, the file stays as it was.
    It is locked meanwhile, so that no other process that appends or repairs cuts what this one writes. A new file
    may be read by its owner alone (mode 0600): it holds what people wrote.
    """
    lines = [_line(path, record) for record in records]
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "ab", buffering=0, opener=_private) as file, locked(file):
            before = file.seek(0, os.SEEK_END) if file.seekable() else 0
            try:
                _write_all(file, "".join(line + "\n" for line in lines).encode("utf-8", HALVES))
            except OSError:
                with suppress(OSError):  # a device has no length
                    file.truncate(before)
                raise


def read_jsonl(
    path: Path,
    model: type[R],
    *,
    on_torn: Callable[[str], None] | None = None,
    on_unsealed: Callable[[str], None] | None = None,
) -> list[R]:
    """All records of a JSONL file; [] where there is none. Raises `DataError` naming a broken line.

    With `on_torn`, a last line that is still being written, or never will be, is left out, and it is told so.
    An exchange without a seal is refused. `on_unsealed` is for files of others, which may have no seal at all: it is
    told so. One unsealed line among sealed ones is refused there, too.
    """
    lines = list(_lines(path))
    if on_torn and lines and _broken_tail(lines[-1][1].encode()) == 0:
        lines.pop()
        on_torn(f"{path}: the last line is broken and was left out")
    if model is not Exchange:
        return [_parse(path, number, line, model) for number, line in lines]
    open_lines = [(number, line) for number, line in lines if not is_sealed(line)]
    if on_unsealed and open_lines and len(open_lines) == len(lines) and not any(MEMBER.search(t) for _, t in lines):
        on_unsealed(f"{path}: its {len(lines):,} lines have no seal: an edit of them would not be noticed")
    elif open_lines:
        raise without_seal(path, *open_lines[0])
    return [_parse(path, number, unsealed(path, number, line), model) for number, line in lines]


def jsonl_lines(text: str) -> Iterator[tuple[int, str]]:
    """The lines of a JSONL text that are not empty, with their numbers, whatever else they hold than line feeds.

    U+2028, U+2029, U+0085 and form feeds may stand inside a JSON string; `str.splitlines` cuts there. A byte order
    mark at the beginning is no part of the first line.
    """
    for number, line in enumerate(text.removeprefix("\ufeff").split("\n"), 1):
        if line.strip():
            yield number, line


def repair_jsonl(path: Path) -> str | None:
    """Cut a last line that a killed process left broken; returns a warning if it did.

    The file is locked meanwhile: a line that a running process is writing is whole once the lock is had.
    """
    if not path.exists():
        return None
    with writing(path), path.open("r+b", buffering=0) as file, locked(file):
        data = file.readall()
        cut = _broken_tail(data)
        if cut is None:
            return None
        if cut == len(data):
            _write_all(file, b"\n")
            return None
        file.truncate(cut)
    return f"{path}: the last line was broken ({len(data) - cut} bytes, a killed process?) and was cut off"


def write_jsonl(path: Path, records: Iterable[BaseModel | Mapping[str, Any]]) -> None:
    """Write a whole JSONL file as `append_jsonl` writes its lines, sealed and for its owner alone, and atomically."""
    write_atomic(path, "".join(_line(path, record) + "\n" for record in records), mode=0o600)


def write_atomic(path: Path, data: str | bytes, *, mode: int = 0o666) -> None:
    """Write a file so that readers see the old or the new one, never a part."""
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data.encode("utf-8", HALVES) if isinstance(data, str) else data)
                file.flush()
                os.fsync(file.fileno())
            os.chmod(name, mode & ~UMASK)
            os.replace(name, path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise


def parse_json(data: str | bytes) -> Any:
    """A JSON text of others, halves of characters (lone surrogates) replaced. Raises as `json.loads` does."""
    text = data if isinstance(data, str) else data.decode("utf-8-sig")
    value = json.loads(text)
    if "\\ud" in text.lower():
        plain = json.dumps(value, ensure_ascii=False)
        return json.loads(plain.encode("utf-16", "surrogatepass").decode("utf-16", "replace"))
    return value


def write_json(path: Path, value: Any) -> None:
    """Write a value as indented JSON, atomically."""
    write_atomic(path, json.dumps(value, indent=1, ensure_ascii=False, default=_plain) + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON file. Raises `DataError` where it is missing or broken."""
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        raise DataError(str(path), "no such file") from None
    except ValueError as error:
        raise DataError(str(path), f"is not JSON ({error})", "delete it and run again") from None


def verdict_file(
    verdicts: Iterable[Verdict], *, stopped: str = "", computed: Sequence[Mapping[str, Any]] = ()
) -> dict[str, Any]:
    """What a `verdicts.json` holds; `stopped` is what ended a measurement that is not whole.

    `computed` is with what the processes behind it computed, each once (`threads.computed`).
    """
    held = [verdict.model_dump(mode="json") for verdict in verdicts]
    whole = {"version": VERDICT_VERSION, "verdicts": held} | ({"stopped": stopped} if stopped else {})
    whole |= {"computed": list(computed)} if computed else {}
    return whole | {"digest": digest_of(whole)}


def verdicts_of(path: Path, data: Any) -> tuple[Verdict, ...]:
    """The verdicts of a `verdicts.json`. Raises `DataError` if they are not as they were written."""
    whole = {key: value for key, value in data.items() if key != "digest"}
    if data.get("digest") != digest_of(whole):
        what = "was changed since it was written: its digest does not match"
        raise DataError(str(path), what, "run the command that wrote it again")
    return tuple(Verdict.model_validate_json(json.dumps(item)) for item in data["verdicts"])


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _line(path: Path, record: BaseModel | Mapping[str, Any]) -> str:
    if isinstance(record, Exchange):
        numbers = (*(record.logprobs or ()), record.started_at_s, record.elapsed_s, record.cost_usd)
        if not all(map(math.isfinite, (*numbers, record.sampling.temperature, record.sampling.top_p))):
            what = f"exchange {record.id} holds a number that is NaN or infinite, and is not written"
            raise DataError(str(path), what, "its model is broken")
        return sealed(record.model_dump_json())
    return record.model_dump_json() if isinstance(record, BaseModel) else json.dumps(record, ensure_ascii=False)


def _write_all(file: FileIO, data: bytes) -> None:
    while data:
        data = data[file.write(data) :]


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    if not path.exists():
        return
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if number == 1 and line.startswith(GZIP):
                raise DataError(str(path), "is compressed by gzip", "unpack it first: gunzip")
            if line.strip():
                yield number, line.removeprefix(BYTE_ORDER_MARK if number == 1 else b"").decode(errors="replace")


def _parse(path: Path, number: int, line: str, model: type[R]) -> R:
    try:
        return model.model_validate_json(line)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        what = f"line {number} is broken: {place + ': ' if place else ''}{first['msg']}"
        raise DataError(str(path), what, "mend or remove that line") from None


def _broken_tail(data: bytes) -> int | None:
    """Where to cut; `len(data)` where only the newline is missing; None where nothing is."""
    if not data or data.endswith(b"\n"):
        return None
    start = data.rfind(b"\n") + 1
    try:
        json.loads(data[start:])
    except ValueError:
        return start
    return len(data)


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"{type(value).__name__} cannot be written as JSON")
