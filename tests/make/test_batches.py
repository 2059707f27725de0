"""Batches: positions predict their targets, and the order is a permutation an epoch whatever was resumed."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from spiritsafe.make.batches import collate, order
from spiritsafe.models.scoring import Pair

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


@given(st.integers(1, 30), st.integers(1, 4), st.integers(1, 9), st.integers(0, 2**63 - 1))
def test_every_epoch_sees_every_exchange_once(num: int, epochs: int, size: int, seed: int) -> None:
    steps = order(num, epochs=epochs, size=size, seed=seed)
    per_epoch = -(-num // size)
    assert len(steps) == epochs * per_epoch
    for epoch in range(epochs):
        seen = [i for step in steps[epoch * per_epoch : (epoch + 1) * per_epoch] for i in step]
        assert sorted(seen) == list(range(num))
    assert max(map(len, steps)) <= size


def test_the_order_depends_on_the_seed_and_each_epoch_has_its_own() -> None:
    first = order(20, epochs=2, size=20, seed=0)
    assert first == order(20, epochs=2, size=20, seed=0)
    assert order(20, epochs=1, size=20, seed=0) == first[:1]
    assert len({first[0], first[1], order(20, epochs=1, size=20, seed=1)[0]}) == 3
