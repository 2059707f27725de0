"""A shard that was changed, cut or written by an older version is refused in one line, wherever it was touched."""

import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from spiritsafe.errors import DataError
from spiritsafe.make.signals.coder import Rows
from spiritsafe.make.signals.manifest import manifest_of
from spiritsafe.make.signals.reader import SignalCache
from spiritsafe.make.signals.sample import Keep
from spiritsafe.make.signals.shard import HEAD, RECORD, shards
from spiritsafe.make.signals.writer import Writer
from spiritsafe.record import Exchange

VOCAB = 500


def some_rows(seed: int) -> Rows:
    """Ten rows of six entries."""
    draw = np.random.default_rng(seed)
    ids = np.stack([draw.choice(VOCAB, 6, replace=False) for _ in range(10)]).astype(np.int32)
    levels, tails = draw.integers(0, 255, ids.shape).astype(np.uint8), draw.integers(0, 255, 10).astype(np.uint8)
    return Rows(np.full(10, 6, np.int32), ids, levels, tails, ids[:, 0].copy())


def write(folder: Path, answers: list[Exchange]) -> None:
    """A cache of nine exchanges in three shards, or what is missing of it."""
    manifest = manifest_of("t", "k", VOCAB, answers, Keep(num=6), seed=0)
    writer = Writer(folder, manifest, shard_tokens=30)
    for number in range(9):
        if not writer.has(f"e{number}"):
            writer.add(f"e{number}", some_rows(number))


def read(folder: Path) -> dict[str, tuple[int, ...]]:
    """Every exchange's tokens."""
    cache = SignalCache(folder)
    return {name: cache.tokens(name) for name in cache.exchanges}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, answers: list[Exchange]) -> Path:
    """The cache; restore what is changed in it."""
    folder = tmp_path_factory.mktemp("whole")
    write(folder, answers)
    assert len(shards(folder)) == 3
    assert read(folder) == {f"e{n}": tuple(some_rows(n).tokens_T.tolist()) for n in range(9)}
    return folder


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 2), st.integers(0, 1 << 20), st.integers(0, 7))
def test_a_changed_bit_anywhere_is_found(whole: Path, number: int, at: int, bit: int) -> None:
    path = shards(whole)[number]
    data = path.read_bytes()
    changed = bytearray(data)
    changed[at % len(data)] ^= 1 << bit
    path.write_bytes(changed)
    try:
        with pytest.raises(DataError, match=r"0000\d\.signals: .*(damaged|expected|is not a shard)"):
            read(whole)
    finally:
        path.write_bytes(data)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 2), st.integers(0, 1 << 20))
def test_a_cut_leaves_whole_exchanges_in_the_last_shard_and_is_found_in_others(
    whole: Path, number: int, cut: int
) -> None:
    path, everything = shards(whole)[number], read(whole)
    data = path.read_bytes()
    cut %= len(data)
    path.write_bytes(data[:cut])
    try:
        if number == 2 or cut == 0 or cut in ends(data):
            found = read(whole)
            assert found.items() < everything.items()
        else:
            with pytest.raises(DataError, match=r"ends within a record|is not a shard"):
                read(whole)
    finally:
        path.write_bytes(data)


def ends(data: bytes) -> list[int]:
    """Where the records of a shard begin and end."""
    places = [HEAD.size]
    while places[-1] < len(data):
        name, _, _, size, _, _ = RECORD.unpack_from(data, places[-1])
        places.append(places[-1] + RECORD.size + name + size)
    return places


def test_older_formats_are_refused_with_both_versions(whole: Path) -> None:
    first, manifest = shards(whole)[0], whole / "cache.json"
    data, text = first.read_bytes(), manifest.read_text()
    first.write_bytes(data[:4] + struct.pack("<I", 3) + data[8:])
    with pytest.raises(DataError, match=r"00000\.signals: has format 3, expected 4; .*delete it"):
        read(whole)
    first.write_bytes(data)
    manifest.write_text(text.replace('"format": 4', '"format": 3'))
    with pytest.raises(DataError, match=r"cache\.json: format is 3, expected 4; delete the cache and run again"):
        read(whole)
    manifest.write_text(text)


def test_lengths_that_would_not_fit_into_memory_are_damage(whole: Path) -> None:
    path = shards(whole)[2]
    data = path.read_bytes()
    name, width, _, size, checksum, own = RECORD.unpack_from(data, 24)
    path.write_bytes(data[:24] + RECORD.pack(name, width, 0xFFFFFFFF, size, checksum, own) + data[24 + RECORD.size :])
    with pytest.raises(DataError, match="record at byte 24 is damaged"):
        read(whole)
    path.write_bytes(data)


def test_a_deleted_shard_is_captured_again(whole: Path, answers: list[Exchange]) -> None:
    everything = read(whole)
    shards(whole)[1].unlink()
    assert len(read(whole)) == 6
    write(whole, answers)
    assert read(whole) == everything
