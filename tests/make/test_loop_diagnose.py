"""What a glance shows: a perfect copy overlaps wholly, a stranger hardly, dense and sparse teachers agree."""

import pytest
import torch
from torch import Tensor

from spiritsafe.make.loop.diagnose import NUM, TOP, diagnose
from spiritsafe.make.objective import TEXT, Objective
from spiritsafe.make.samples import Target
from spiritsafe.make.signals.kinds import DenseSignal, SparseSignal

N, D, V = 40, 8, 64


def model(seed: int) -> tuple[Tensor, Tensor]:
    """Hidden states (N, D) and a head (V, D)."""
    source = torch.Generator().manual_seed(seed)
    return torch.randn(N, D, generator=source), torch.randn(V, D, generator=source)


def sparse(hidden_ND: Tensor, head_VD: Tensor, k: int) -> SparseSignal:
    """The k likeliest tokens of a dense teacher."""
    top = (hidden_ND @ head_VD.T).softmax(-1).topk(k)
    return SparseSignal(top.indices, top.values, 1 - top.values.sum(-1))


def test_a_perfect_copy_overlaps_wholly_and_has_the_teachers_mass_and_entropy() -> None:
    hidden, head = model(0)
    found = diagnose(hidden, head, [Target(Objective(), DenseSignal(hidden, head))])
    assert found["overlap"] == 1
    assert found["student_mass"] == pytest.approx(found["teacher_mass"], rel=1e-5)
    assert found["student_entropy"] == pytest.approx(found["teacher_entropy"], rel=1e-5)


def test_a_stranger_overlaps_as_chance_does() -> None:
    found = diagnose(*model(1), [Target(Objective(), DenseSignal(*model(0)))])
    assert found["overlap"] == pytest.approx(TOP / V, abs=0.1)
    assert found["student_mass"] < found["teacher_mass"]


def test_a_sparse_teacher_shows_what_the_dense_one_shows_and_bounds_its_entropy_from_below() -> None:
    student, teacher = model(1), model(0)
    dense = diagnose(*student, [Target(Objective(), DenseSignal(*teacher))])
    found = diagnose(*student, [Target(Objective(), sparse(*teacher, 24))])
    for name in ("overlap", "teacher_mass", "student_mass", "student_entropy"):
        assert found[name] == pytest.approx(dense[name], rel=1e-5)
    assert found["teacher_entropy"] < dense["teacher_entropy"]


def test_places_that_a_row_does_not_fill_count_for_nothing() -> None:
    hidden, head = model(0)
    short = sparse(hidden, head, 4)
    filled = SparseSignal(
        torch.nn.functional.pad(short.ids_NK, (0, 3), value=-1),
        torch.nn.functional.pad(short.probs_NK, (0, 3)),
        short.tail_N,
    )
    found, wanted = (diagnose(hidden, head, [Target(Objective(), s)]) for s in (filled, short))
    assert found["student_mass"] == pytest.approx(wanted["student_mass"])
    assert found["teacher_entropy"] == pytest.approx(wanted["teacher_entropy"])


def test_text_alone_shows_the_students_entropy_and_only_the_chosen_rows_count() -> None:
    hidden, head = model(0)
    flat = torch.cat([hidden, torch.zeros(3, D)])
    found = diagnose(flat, head, [Target(TEXT, rows=torch.tensor([N, N + 1]))])
    assert found == {"student_entropy": pytest.approx(torch.log(torch.tensor(V)).item(), rel=1e-5)}


def test_no_more_than_a_few_tokens_are_looked_at() -> None:
    hidden, head = model(0)
    many = hidden.repeat(10, 1)
    signal = DenseSignal(torch.cat([many[:NUM], torch.full_like(many[NUM:], torch.nan)]), head)
    assert diagnose(many, head, [Target(Objective(), signal)])["overlap"] == 1
