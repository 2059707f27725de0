"""Slots: what one holds of a prompt is copied, not read again, and the steps after it have the same bits."""

from collections.abc import Sequence

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from spiritsafe.models.decoding.llama import Packed, Steps, common
from tests.models.decoding.architectures import tiny

SHOTS = tuple(range(2, 42))
TOKENS = st.lists(st.integers(0, 2), max_size=12).map(tuple)
Wanted = Sequence[tuple[int, tuple[int, ...]]]


@given(TOKENS, TOKENS)
def test_what_two_sequences_begin_with_in_common_is_counted(first: tuple[int, ...], second: tuple[int, ...]) -> None:
    differing = [i for i, (a, b) in enumerate(zip(first, second, strict=False)) if a != b]
    assert common(first, second) == min([*differing, len(first), len(second)])


@pytest.fixture
def packed() -> Packed:
    """A tiny model's weights."""
    return Packed(tiny("llama"), half=False)


def logits(packed: Packed, prefix: tuple[int, ...], token: int) -> torch.Tensor:
    """After a prefix that a slot of its own has read, and a token."""
    steps = Steps(packed, slots=1, capacity=64)
    steps.seat([(0, prefix)])
    return steps.forward([token], [0], [len(prefix)], [0])[0].clone()


def read(steps: Steps, wanted: Wanted, monkeypatch: pytest.MonkeyPatch) -> int:
    """How many tokens are read to seat these."""
    rows: list[int] = []
    whole = Steps.forward

    def counted(self: Steps, tokens: Sequence[int], *rest: Sequence[int]) -> torch.Tensor:
        rows.append(len(tokens))
        return whole(self, tokens, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(Steps, "forward", counted)
        steps.seat(wanted)
    return sum(rows)


def check(packed: Packed, steps: Steps, wanted: Wanted) -> None:
    """Every slot goes on as one that has read its prefix alone."""
    for slot, prefix in wanted:
        assert torch.equal(steps.forward([5], [slot], [len(prefix)], [0])[0], logits(packed, prefix, 5))


def test_prompts_that_begin_alike_read_their_beginning_once(packed: Packed, monkeypatch: pytest.MonkeyPatch) -> None:
    steps = Steps(packed, slots=4, capacity=64)
    wanted = [(slot, (*SHOTS, 50 + slot, 7)) for slot in range(4)]
    assert read(steps, wanted, monkeypatch) == len(SHOTS) + 4 * 2
    check(packed, steps, wanted)


def test_a_slot_that_is_free_again_takes_what_others_hold(packed: Packed, monkeypatch: pytest.MonkeyPatch) -> None:
    steps = Steps(packed, slots=3, capacity=64)
    steps.seat([(0, (*SHOTS, 50)), (1, (3, 4, 5)), (2, ())])
    steps.forward([8], [0], [len(SHOTS) + 1], [])  # slot 0 writes on
    wanted = [(1, (*SHOTS, 51, 52)), (2, (*SHOTS[:30], 9))]
    assert read(steps, wanted, monkeypatch) == 2 + 1
    check(packed, steps, [(0, (*SHOTS, 50)), *wanted])


def test_what_a_slot_held_itself_stays_and_what_is_overwritten_meanwhile_is_not_taken(
    packed: Packed, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = Steps(packed, slots=2, capacity=64)
    steps.seat([(0, (*SHOTS, 50)), (1, (60, *SHOTS))])
    wanted = [(0, (60, *SHOTS)), (1, (*SHOTS, 50))]  # each is what the other slot held
    read(steps, wanted, monkeypatch)
    check(packed, steps, wanted)
    assert read(steps, wanted, monkeypatch) == 0


def test_more_room_keeps_what_is_there(packed: Packed) -> None:
    steps = Steps(packed, slots=2, capacity=48)
    wanted = [(0, SHOTS), (1, (9, *SHOTS[:-3]))]
    steps.seat(wanted)
    steps.resize(200)
    assert steps.capacity >= 200
    check(packed, steps, wanted)
    check(packed, steps, wanted)


def test_new_weights_forget_what_slots_held(packed: Packed) -> None:
    steps = Steps(packed, slots=1, capacity=64)
    steps.seat([(0, SHOTS)])
    with torch.no_grad():
        for weight in packed.model.parameters():
            weight.mul_(1.1)
    steps.refresh()
    steps.seat([(0, SHOTS)])
    check(packed, steps, [(0, SHOTS)])
