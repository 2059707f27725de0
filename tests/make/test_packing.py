"""Packing: every token is there once, rows keep their size, and answers are predicted from the place before."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from spiritsafe.make.packing import pack, packed
from spiritsafe.make.samples import Sample

IDS = st.lists(st.integers(0, 99), min_size=1, max_size=12).map(tuple)
SAMPLES = st.lists(st.builds(Sample, IDS, IDS), min_size=1, max_size=12)


@given(SAMPLES, st.integers(4, 40))
def test_every_sample_is_in_one_row_and_no_row_is_too_long(samples: list[Sample], size: int) -> None:
    rows = pack(samples, tokens_per_row=size)
    assert sorted(map(repr, samples)) == sorted(repr(s) for row in rows for s in row.samples)
    for row in rows:
        assert len(row.ids_T) <= size or len(row.samples) == 1


@given(SAMPLES, st.integers(24, 60))
def test_no_two_rows_would_fit_into_one(samples: list[Sample], size: int) -> None:
    filled = sorted(len(row.ids_T) for row in pack(samples, tokens_per_row=size))
    assert len(filled) < 2 or filled[0] + filled[1] > size


@given(SAMPLES, st.integers(4, 40))
def test_samples_of_one_prompt_stay_together_where_a_row_holds_them(samples: list[Sample], size: int) -> None:
    rows = pack(samples, tokens_per_row=size)
    for prompt in {s.prompt_ids for s in samples}:
        places = [i for i, row in enumerate(rows) if any(s.prompt_ids == prompt for s in row.samples)]
        assert len(places) == 1 or sum(s.tokens for s in samples if s.prompt_ids == prompt) > size


@given(SAMPLES)
def test_each_answer_token_is_predicted_from_the_place_before_it(samples: list[Sample]) -> None:
    row = packed(samples)
    assert row.ids_T[row.rows_N + 1].equal(row.tokens_N)
    assert row.tokens_N.tolist() == [token for s in samples for token in s.answer_ids]
    for sample, begin, end in zip(samples, row.borders, row.borders[1:], strict=False):
        assert tuple(row.ids_T[begin:end].tolist()) == sample.prompt_ids + sample.answer_ids
        assert row.positions_T[begin:end].tolist() == list(range(sample.tokens))


def test_weights_go_with_their_tokens_and_are_1_where_nothing_is_said() -> None:
    row = packed([Sample((1,), (2, 3)), Sample((4, 5), (6, 7), weights=(0.5, 0.0))])
    assert row.weights_N.tolist() == [1.0, 1.0, 0.5, 0.0]
    assert row.weights_N.dtype == torch.float32
