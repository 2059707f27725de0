"""Rows of signals come back from their bytes, by either implementation, and damage never passes for data."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spiritsafe.make.signals.coder import SAMPLE, NativeCoder, PlainCoder, Rows, open_coder

VOCABS = st.sampled_from((1, 2, 3, 30, 49152)) | st.integers(1, 300_000)


def some_rows(num: int, width: int, vocab: int, seed: int) -> Rows:
    """Random rows of up to `width` entries, some of them samples; a few tokens are common, as in language."""
    draw = np.random.default_rng(seed)
    counts = draw.integers(0, min(width, vocab) + 1, num).astype(np.int32)
    ids, levels = np.full((num, width), -1, np.int32), np.zeros((num, width), np.uint8)
    for t, n in enumerate(counts):
        common = draw.permutation(min(vocab, 3 * width))[:n]
        ids[t, :n] = np.where(draw.random() < 0.5, common, draw.choice(vocab, n, replace=False))
        levels[t, :n] = np.where(draw.random(n) < 0.2, SAMPLE, draw.integers(0, 255, n))
    tails, tokens = draw.integers(0, 255, num).astype(np.uint8), draw.integers(0, vocab, num).astype(np.int32)
    return Rows(counts, ids, levels, tails, tokens)


def contents(rows: Rows) -> list[object]:
    """What rows say, whatever the order of their entries."""
    return [
        (dict(zip(ids[:n].tolist(), levels[:n].tolist(), strict=True)), int(tail), int(token))
        for n, ids, levels, tail, token in zip(*rows.parts(), strict=True)
    ]


@settings(max_examples=25, deadline=None)
@given(VOCABS, st.integers(0, 12), st.integers(1, 40), st.integers(0, 1000))
def test_rows_come_back_and_both_implementations_write_the_same_bytes(
    vocab: int, num: int, width: int, seed: int
) -> None:
    parts = [some_rows(num, width, vocab, seed + i) for i in range(3)]
    writer, plain = open_coder(vocab), PlainCoder(vocab)
    coded = [writer.encode(rows) for rows in parts]
    assert coded == [plain.encode(rows) for rows in parts]
    for reader in (open_coder(vocab), PlainCoder(vocab)):
        for rows, data in zip(parts, coded, strict=True):
            found = reader.decode(data, num, width)
            assert contents(found) == contents(rows)


def test_the_machine_s_compiler_builds_the_coder_unless_it_is_switched_off(monkeypatch: pytest.MonkeyPatch) -> None:
    from spiritsafe.native import native

    assert isinstance(open_coder(30), NativeCoder)
    native.cache_clear()
    monkeypatch.setenv("SPIRITSAFE_NATIVE", "0")
    assert isinstance(open_coder(30), PlainCoder)
    native.cache_clear()


@pytest.mark.parametrize("kind", [open_coder, PlainCoder])
def test_bytes_that_end_too_early_are_refused(kind: type[PlainCoder]) -> None:
    rows = some_rows(10, 20, 30000, 0)
    data = open_coder(30000).encode(rows)
    with pytest.raises(ValueError, match="not such rows"):
        kind(30000).decode(data[: len(data) // 2], 10, 20)


def outcomes(vocab: int, data: bytes, num: int, width: int) -> list[list[object]]:
    """What either implementation makes of the bytes."""
    found: list[list[object]] = []
    for coder in (open_coder(vocab), PlainCoder(vocab)):
        try:
            rows = coder.decode(data, num, width)
            assert rows.ids_TK.max(initial=-1) < vocab
            assert rows.tokens_T.max(initial=-1) < vocab
            found.append(contents(rows))
        except ValueError as error:
            found.append([str(error)])
    return found


@settings(max_examples=60, deadline=None)
@given(VOCABS, st.binary(max_size=400), st.integers(0, 20), st.integers(1, 60))
def test_any_bytes_are_refused_or_are_rows_of_the_vocabulary_by_both_implementations(
    vocab: int, data: bytes, num: int, width: int
) -> None:
    compiled, plain = outcomes(vocab, data, num, width)
    assert compiled == plain


def test_a_changed_bit_does_the_same_to_both_implementations() -> None:
    data = open_coder(30000).encode(some_rows(6, 20, 30000, 1))
    refused = 0
    for at in range(0, 8 * len(data), 7):
        changed = bytearray(data)
        changed[at // 8] ^= 1 << at % 8
        compiled, plain = outcomes(30000, bytes(changed), 6, 20)
        assert compiled == plain
        refused += compiled == ["the bytes are not such rows"]
    assert refused > len(data) / 2


@pytest.mark.parametrize("kind", [open_coder, PlainCoder])
def test_ids_that_are_repeated_or_unknown_are_refused(kind: type[PlainCoder]) -> None:
    rows = some_rows(1, 1, 30, 0)
    for wrong in ([4, 4], [4, 30], [4, -1]):
        ids, levels = np.array([wrong], np.int32), np.zeros((1, 2), np.uint8)
        with pytest.raises(ValueError, match="repeated or outside"):
            kind(30).encode(Rows(np.array([2], np.int32), ids, levels, rows.tails_T, rows.tokens_T))
    with pytest.raises(ValueError, match="repeated or outside"):
        kind(30).encode(Rows(np.array([0], np.int32), ids, levels, rows.tails_T, np.array([30], np.int32)))


def test_what_repeats_costs_less_than_what_is_new() -> None:
    rows = some_rows(1, 40, 49152, 3)
    coder = open_coder(49152)
    sizes = [len(coder.encode(rows)) for _ in range(8)]
    assert sizes[-1] < sizes[0] / 4
