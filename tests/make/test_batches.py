"""Batches: positions predict their targets, and the order is a permutation an epoch whatever was resumed."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from spiritsafe.make.batches import collate, digest_samples, order
from spiritsafe.make.samples import Sample
from spiritsafe.models.decoding.scoring import Pair
from spiritsafe.recipe import TrainPart

tokens = st.lists(st.integers(1, 99), min_size=1, max_size=6).map(tuple)


@given(st.lists(st.tuples(tokens, tokens), min_size=1, max_size=5))
def test_each_position_predicts_the_token_behind_it(pairs: list[Pair]) -> None:
    batch = collate(pairs, tuple(range(len(pairs))), pad_id=0)
    assert torch.equal(batch.ids_BT[batch.rows_N, batch.columns_N + 1], batch.targets_N)
    assert batch.targets_N.tolist() == [t for _, answer in pairs for t in answer]
    assert batch.rows_N.tolist() == [i for i, (_, answer) in enumerate(pairs) for _ in answer]


@given(st.lists(st.tuples(tokens, tokens), min_size=1, max_size=5))
def test_rows_are_the_sequences_padded_on_the_right(pairs: list[Pair]) -> None:
    batch = collate(pairs, tuple(range(len(pairs))), pad_id=0)
    for row, mask, (prompt, answer) in zip(batch.ids_BT.tolist(), batch.mask_BT.tolist(), pairs, strict=True):
        size = len(prompt) + len(answer)
        assert tuple(row[:size]) == prompt + answer
        assert mask == [1] * size + [0] * (len(row) - size)


def test_a_batch_holds_the_items_asked_for_in_their_order() -> None:
    batch = collate([((1,), (2,)), ((3,), (4, 5)), ((6,), (7,))], (2, 1), pad_id=0)
    assert batch.items == (2, 1)
    assert batch.targets_N.tolist() == [7, 4, 5]


SIZES = st.lists(st.integers(1, 12), min_size=1, max_size=30)


@given(SIZES, st.integers(1, 4), st.integers(1, 9), st.integers(0, 2**63 - 1))
def test_every_epoch_sees_every_sample_once(sizes: list[int], epochs: int, size: int, seed: int) -> None:
    steps = order(sizes, TrainPart(epochs=epochs, batch=size), seed=seed)
    per_epoch = -(-len(sizes) // size)
    assert len(steps) == epochs * per_epoch
    for epoch in range(epochs):
        seen = [i for step in steps[epoch * per_epoch : (epoch + 1) * per_epoch] for i in step]
        assert sorted(seen) == list(range(len(sizes)))
    assert max(map(len, steps)) <= size


@given(SIZES, st.integers(1, 3), st.integers(1, 40))
def test_a_step_holds_as_many_answer_tokens_as_fit(sizes: list[int], epochs: int, most: int) -> None:
    steps = order(sizes, TrainPart(epochs=epochs, tokens_per_step=most), seed=0)
    held = [sum(sizes[i] for i in step) for step in steps]
    assert sorted(i for step in steps for i in step) == sorted(list(range(len(sizes))) * epochs)
    assert all(total <= most or len(step) == 1 for total, step in zip(held, steps, strict=True))
    if epochs == 1:
        firsts = [sizes[step[0]] for step in steps[1:]]
        assert all(total + first > most for total, first in zip(held, firsts, strict=False))


def test_the_order_depends_on_the_seed_and_each_epoch_has_its_own() -> None:
    def whole(epochs: int, seed: int) -> list[tuple[int, ...]]:
        return order([1] * 20, TrainPart(epochs=epochs, batch=20), seed=seed)

    first = whole(2, 0)
    assert first == whole(2, 0)
    assert whole(1, 0) == first[:1]
    assert len({first[0], first[1], whole(1, 1)[0]}) == 3


def test_a_digest_tells_prompt_from_answer_and_sees_weights_and_teachers() -> None:
    samples = [
        Sample((1, 2), (3,)),
        Sample((1,), (2, 3)),
        Sample((1, 2), (3,), weights=(0.5,)),
        Sample((1, 2), (3,), teacher="another"),
    ]
    assert len({digest_samples([s]) for s in samples}) == 4
    assert digest_samples(samples[:2]) != digest_samples(samples[1::-1])
