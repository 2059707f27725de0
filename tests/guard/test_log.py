"""The exchange log: nothing is served unlogged, also where the disk is full."""

import resource
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from spiritsafe.guard.log import STEP_BYTES, Log, Unwritable, line_size, recordable
from spiritsafe.models.base import Request, failed, user
from spiritsafe.record import Exchange, Sampling, read_jsonl

ASKED = Request(user("hello"), Sampling(), account="alice")


def exchange(answer: str = "hi", **more: object) -> Exchange:
    """An answered exchange of alice's."""
    return failed("fake:a", "0", ASKED, "", "").model_copy(
        update={"answer": answer, "finish_reason": "stop", "error": "", **more}
    )


@contextmanager
def full_at(num_bytes: int) -> Iterator[None]:
    """As if the disk were full: no file may grow beyond so many bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_what_is_kept_is_read_again_and_is_its_owners_alone(tmp_path: Path) -> None:
    log = Log(tmp_path / "log.jsonl")
    log.keep([exchange("one"), exchange("two")])
    log.path.unlink()
    log.keep([exchange("three")])
    assert [e.answer for e in read_jsonl(log.path, Exchange)] == ["three"]
    assert stat.S_IMODE(log.path.stat().st_mode) == 0o600


def test_nothing_is_taken_on_without_room_for_it_and_again_once_there_is(tmp_path: Path) -> None:
    log = Log(tmp_path / "log.jsonl")
    log.reserve(10)
    with full_at(STEP_BYTES + 1000):
        log.reserve(100)
        with pytest.raises(Unwritable, match="nothing is served until it can be written"):
            log.reserve(2 * STEP_BYTES)
        with pytest.raises(Unwritable):
            log.check()
    log.check()
    log.reserve(2 * STEP_BYTES)
    log.close()
    assert list(tmp_path.iterdir()) == [log.path]
    assert log.path.read_bytes() == b""


def test_what_is_out_already_is_written_as_soon_as_it_can_be(tmp_path: Path) -> None:
    log = Log(tmp_path / "log.jsonl")
    log.keep([exchange("one")])
    with full_at(log.path.stat().st_size + 10):
        with pytest.raises(Unwritable):
            log.keep([exchange("two")])
        log.owe(exchange("", sent="half"))
        assert [e.answer for e in read_jsonl(log.path, Exchange)] == ["one"]
        with pytest.raises(Unwritable):
            log.check()
    log.check()
    log.keep([exchange("three")])
    assert [(e.answer, e.sent) for e in read_jsonl(log.path, Exchange)] == [
        ("one", None),
        ("", "half"),
        ("three", None),
    ]


def test_what_no_reader_could_read_is_a_failure_of_the_model() -> None:
    assert recordable(exchange("fine"), ASKED).answer == "fine"
    assert recordable(exchange("\ud800"), ASKED).error_kind == "model"
    assert recordable(exchange("x", logprobs=(-1.0, float("nan"))), ASKED).error_kind == "model"
    assert recordable(exchange("x", logprobs=(-1.0, float("-inf"))), ASKED).error == "log-probabilities are not finite"


@pytest.mark.parametrize("text", ["plain", 'quo"tes\\' * 50, "\x01" * 100, "Grüße, 世界 😀" * 20])
def test_a_lines_size_is_never_below_what_it_takes(text: str) -> None:
    request = Request(user(text), Sampling(), account="alice")
    line = failed("fake:a", "0" * 64, request, "e" * 500, "passing").model_dump_json()
    assert len(line.encode()) <= line_size(request)
