"""Records: what is written is what is read, and a killed process costs at most the line it was writing."""

import gzip
import json
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from spiritsafe.errors import DataError, RunError
from spiritsafe.locks import locked
from spiritsafe.record import (
    Exchange,
    Message,
    Sampling,
    Usage,
    Verdict,
    append_jsonl,
    digest_of,
    file_digest,
    parse_json,
    prompt_digest,
    read_json,
    read_jsonl,
    repair_jsonl,
    seed_of,
    sent_text,
    verdict_file,
    verdicts_of,
    write_atomic,
    write_json,
)

text = st.text(max_size=40)
exchanges = st.builds(
    Exchange,
    id=text,
    account=text,
    model=text,
    model_digest=text,
    messages=st.lists(st.builds(Message, role=st.sampled_from(["system", "user", "assistant"]), content=text)).map(
        tuple
    ),
    sampling=st.builds(Sampling, temperature=st.floats(0, 2), seed=st.none() | st.integers(0, 2**63 - 1)),
    answer=text,
    token_ids=st.none() | st.lists(st.integers(0, 2**31)).map(tuple),
    logprobs=st.none() | st.lists(st.floats(-1e6, 0)).map(tuple),
    usage=st.builds(Usage, prompt_tokens=st.integers(0, 10**9)),
    flags=st.lists(text).map(tuple),
)


def exchange(number: int) -> Exchange:
    """A small exchange whose text has more than one script and a line break."""
    messages = (Message(role="user", content="Grüße,\n世界?"),)
    return Exchange(
        id=str(number), model="fake:a", model_digest="0", messages=messages, sampling=Sampling(), answer="Hi."
    )


def logged(path: Path, count: int) -> list[Exchange]:
    """Write `count` exchanges to a file and return them."""
    written = [exchange(number) for number in range(count)]
    append_jsonl(path, written)
    return written


@given(exchanges)
def test_an_exchange_survives_the_way_to_disk(written: Exchange) -> None:
    assert Exchange.model_validate_json(written.model_dump_json()) == written


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("field", ["logprobs", "elapsed_s", "cost_usd"])
def test_what_no_reader_takes_is_not_written(tmp_path: Path, field: str, number: float) -> None:
    path = tmp_path / "x.jsonl"
    known = logged(path, 2)
    broken = exchange(7).model_copy(update={field: (-1.0, number) if field == "logprobs" else number})
    with pytest.raises(DataError, match="exchange 7 holds a number that is NaN or infinite, and is not written"):
        append_jsonl(path, [exchange(6), broken])
    assert read_jsonl(path, Exchange) == known


def test_appended_records_are_read_in_order(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.jsonl"
    first = logged(path, 3)
    append_jsonl(path, [exchange(3)])
    assert read_jsonl(path, Exchange) == [*first, exchange(3)]


def test_a_missing_log_is_an_empty_one(tmp_path: Path) -> None:
    assert read_jsonl(tmp_path / "none.jsonl", Exchange) == []
    assert repair_jsonl(tmp_path / "none.jsonl") is None


def test_a_whole_log_needs_no_repair(tmp_path: Path) -> None:
    logged(tmp_path / "a.jsonl", 2)
    before = (tmp_path / "a.jsonl").read_bytes()
    assert repair_jsonl(tmp_path / "a.jsonl") is None
    assert (tmp_path / "a.jsonl").read_bytes() == before


def test_a_log_cut_at_any_byte_is_repaired_without_losing_a_whole_line(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    written = logged(path, 3)
    data = path.read_bytes()
    for size in range(len(data)):
        path.write_bytes(data[:size])
        torn = size > 0 and data[size - 1 : size] != b"\n" and data[size : size + 1] != b"\n"
        warning = repair_jsonl(path)
        assert (warning is not None) == torn
        whole = data[: size + 1].count(b"\n")
        assert read_jsonl(path, Exchange) == written[:whole]
        append_jsonl(path, [exchange(9)])
        assert read_jsonl(path, Exchange) == [*written[:whole], exchange(9)]


def test_the_repair_says_what_it_cut(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    logged(path, 1)
    with path.open("a") as file:
        file.write('{"id": "half')
    assert repair_jsonl(path) == f"{path}: the last line was broken (12 bytes, a killed process?) and was cut off"


def test_a_broken_line_elsewhere_is_named_by_number(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    logged(path, 3)
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0], lines[1][:20], lines[2]]) + "\n")
    assert repair_jsonl(path) is None
    with pytest.raises(DataError, match=r"a\.jsonl: line 2 is broken or cut off: .*, or remove that line"):
        read_jsonl(path, Exchange)


def test_an_unknown_version_and_an_unknown_key_are_named(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    known = exchange(0).model_dump(mode="json")
    for changed, key in ((known | {"version": 3}, "version"), (known | {"extra": 1}, "extra")):
        path.write_text(json.dumps(changed) + "\n")
        with pytest.raises(DataError, match=f"line 1 is broken: {key}: "):
            read_jsonl(path, Exchange, on_unsealed=print)


def test_an_exchange_of_the_first_version_is_still_read(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    new = ("reasoning", "sent", "error", "error_kind")
    old = {key: value for key, value in exchange(0).model_dump(mode="json").items() if key not in new}
    old["usage"].pop("known")
    path.write_text(json.dumps(old | {"version": 1}) + "\n")
    (read,) = read_jsonl(path, Exchange, on_unsealed=print)
    assert read.version == 1
    assert (read.sent, read.error, read.usage.known) == (None, "", True)


def test_tokens_used_are_never_negative() -> None:
    with pytest.raises(ValidationError, match="completion_tokens"):
        Usage(completion_tokens=-1)


def test_a_verdict_of_another_version_is_rejected() -> None:
    verdict = Verdict(room="prove", name="n", subject="s", claim="c", value=0.5, n=3, method="m")
    assert Verdict.model_validate_json(verdict.model_dump_json()) == verdict
    with pytest.raises(ValidationError, match="version"):
        Verdict.model_validate(verdict.model_dump() | {"version": 0})


def test_a_record_cannot_be_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        exchange(0).answer = "other"


def test_an_atomic_write_that_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    with pytest.raises(RunError, match="taken: Is a directory"):
        write_atomic(tmp_path / "taken", "text")
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]


def test_json_that_cannot_be_written_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"a": 1})
    with pytest.raises(TypeError, match="object cannot be written as JSON"):
        write_json(path, {"a": object()})
    assert read_json(path) == {"a": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


def test_missing_and_broken_json_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        read_json(tmp_path / "a.json")
    (tmp_path / "a.json").write_bytes(b'{"a": \xff')
    with pytest.raises(DataError, match="is not JSON"):
        read_json(tmp_path / "a.json")


def test_digests_depend_on_the_content_and_not_on_the_order_of_keys(tmp_path: Path) -> None:
    assert digest_of({"a": 1, "b": 2}) == digest_of({"b": 2, "a": 1}) != digest_of({"a": 1, "b": 3})
    (tmp_path / "empty").touch()
    assert file_digest(tmp_path / "empty") == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    turns = (Message(role="user", content="a"), Message(role="assistant", content="b"))
    assert prompt_digest(turns) != prompt_digest(turns[::-1])


@given(st.lists(st.integers() | text), st.lists(st.integers() | text))
def test_seeds_are_63_bits_and_differ_where_their_parts_do(a: list[int | str], b: list[int | str]) -> None:
    assert 0 <= seed_of(*a) < 2**63
    assert (seed_of(*a) == seed_of(*b)) == (a == b)


def test_half_a_character_is_written_as_json_escapes_it_and_replaced_in_what_others_wrote(tmp_path: Path) -> None:
    write_json(tmp_path / "half.json", {"name": "a\ud800b"})
    assert read_json(tmp_path / "half.json") == {"name": "a\ud800b"}
    assert digest_of({"name": "a\ud800b"}) != digest_of({"name": "ab"})
    assert parse_json(r'{"a\ud800b": ["\udfff", "\ud83d\ude00"]}') == {"a\ufffdb": ["\ufffd", "\N{GRINNING FACE}"]}


def test_an_exchange_comes_back_as_it_was_sealed(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    append_jsonl(path, [exchange(0), exchange(1)])
    assert read_jsonl(path, Exchange) == [exchange(0), exchange(1)]
    assert path.read_text().count('"checksum":"') == 2


@pytest.mark.parametrize("change", [("answer", "x"), ("account", "x"), ("started_at_s", 5.0), ("flags", ["x"])])
def test_an_exchange_that_was_edited_is_refused_and_its_line_named(tmp_path: Path, change: tuple[str, Any]) -> None:
    path = tmp_path / "a.jsonl"
    append_jsonl(path, [exchange(0), exchange(1)])
    first, second = path.read_text().splitlines()
    edited = json.loads(second) | dict([change])
    path.write_text(f"{first}\n{json.dumps(edited, separators=(',', ':'))}\n")
    with pytest.raises(DataError, match="line 2 was changed since it was written"):
        read_jsonl(path, Exchange)


def without_seals(lines: str) -> str:
    """The lines of a log as somebody leaves them who edits them and takes the seals off."""
    bare = [{key: value for key, value in json.loads(line).items() if key != "checksum"} for line in lines.splitlines()]
    return "".join(json.dumps(line, separators=(",", ":")) + "\n" for line in bare)


def test_an_exchange_without_a_seal_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    append_jsonl(path, [exchange(0), exchange(1)])
    first, second = path.read_text().splitlines()

    path.write_text(f"{first}\n{without_seals(second)}")
    for say in (None, lambda _: None):
        with pytest.raises(DataError, match="line 2 has no seal"):
            read_jsonl(path, Exchange, on_unsealed=say)
    path.write_text(without_seals(f"{first}\n{second}"))
    with pytest.raises(DataError, match="line 1 has no seal"):
        read_jsonl(path, Exchange)


def test_a_log_of_others_without_any_seal_is_read_and_that_is_said(tmp_path: Path) -> None:
    path, warnings = tmp_path / "a.jsonl", list[str]()
    append_jsonl(path, [exchange(0), exchange(1)])
    path.write_text(without_seals(path.read_text()))

    assert read_jsonl(path, Exchange, on_unsealed=warnings.append) == [exchange(0), exchange(1)]
    assert "its 2 lines have no seal" in "".join(warnings)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda line: json.dumps(json.loads(line)), "line 2 was written anew by another program"),
        (lambda line: line[: len(line) // 2], "line 2 is broken or cut off"),
    ],
)
def test_why_a_line_is_refused_is_said(tmp_path: Path, change: Callable[[str], str], reason: str) -> None:
    path = tmp_path / "a.jsonl"
    append_jsonl(path, [exchange(0), exchange(1)])
    first, second = path.read_text().splitlines()
    path.write_text(f"{first}\n{change(second)}\n")
    with pytest.raises(DataError, match=reason):
        read_jsonl(path, Exchange)


def test_a_log_that_was_written_anew_whole_or_is_compressed_is_named_as_that(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    append_jsonl(path, [exchange(0), exchange(1)])
    sealed = path.read_text()

    path.write_text("".join(json.dumps(json.loads(line)) + "\n" for line in sealed.splitlines()))
    with pytest.raises(DataError, match="line 1 was written anew by another program"):
        read_jsonl(path, Exchange, on_unsealed=print)
    path.write_bytes(gzip.compress(sealed.encode()))
    with pytest.raises(DataError, match="is compressed by gzip"):
        read_jsonl(path, Exchange, on_unsealed=print)
    path.write_text("\ufeff" + sealed)
    assert read_jsonl(path, Exchange) == [exchange(0), exchange(1)]


def test_what_people_wrote_is_readable_by_its_owner_alone(tmp_path: Path) -> None:
    append_jsonl(tmp_path / "a.jsonl", [exchange(0)])
    assert (tmp_path / "a.jsonl").stat().st_mode & 0o777 == 0o600


def test_verdicts_that_were_edited_are_refused() -> None:
    verdict = Verdict(room="prove", name="n", subject="s", claim="c", value=0.5, n=3, method="m", p_value=0.4)
    written = json.loads(json.dumps(verdict_file([verdict])))
    assert verdicts_of(Path("verdicts.json"), written) == (verdict,)
    written["verdicts"][0]["p_value"] = 1e-99
    with pytest.raises(DataError, match=r"verdicts\.json: was changed since it was written"):
        verdicts_of(Path("verdicts.json"), written)
    written.pop("digest")
    with pytest.raises(DataError, match="was changed since it was written"):
        verdicts_of(Path("verdicts.json"), written)


def test_repairs_and_appends_wait_for_the_line_that_another_is_writing(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    with ThreadPoolExecutor(2) as pool, path.open("ab", buffering=0) as writer:
        with locked(writer):
            writer.write(b'{"whole": ')
            others: list[Future[Any]] = [
                pool.submit(repair_jsonl, path),
                pool.submit(append_jsonl, path, [{"next": 2}]),
            ]
            assert wait(others, timeout=0.2).done == set()
            writer.write(b"1}\n")
        assert [other.result() for other in others] == [None, None]
    assert path.read_text() == '{"whole": 1}\n{"next": 2}\n'


def test_what_was_sent_is_the_answer_unless_something_else_was() -> None:
    given = exchange(1)
    assert sent_text(given) == "Hi."
    assert sent_text(given.model_copy(update={"sent": ""})) == ""
