"""Training: what is frozen stays, a killed run ends as one that was not, and a student comes closer."""

from pathlib import Path
from typing import Any

import pytest
import torch

from spiritsafe.errors import DataError
from spiritsafe.make.loop import compute_dtype, learning_rate, train, trained_weights
from spiritsafe.make.methods import BlackBox, Method, WhiteBox
from spiritsafe.make.prune import prune
from spiritsafe.make.signals import capture, load_signals
from spiritsafe.models.local import LocalModel
from spiritsafe.models.scoring import Pair, answer_logprobs
from spiritsafe.recipe import MakePart
from spiritsafe.record import Exchange

PART = MakePart(num_layers=3, epochs=4, batch=4, learning_rate=3e-3, checkpoint_every=2, dtype="float32")
KEEP, FIRST = (0, 2, 3), 1


class Killed(Exception):
    """A kill in the middle."""


@pytest.fixture
def student(teacher: LocalModel) -> Any:
    """The pruned start."""
    return prune(teacher.model, KEEP)


@pytest.fixture
def white_box(teacher: LocalModel, answers: list[Exchange], tmp_path: Path) -> WhiteBox:
    """Learning from cached log-probabilities."""
    capture(teacher, answers, tmp_path / "s.safetensors", top_k=8)
    return WhiteBox(load_signals(tmp_path / "s.safetensors", teacher_digest=teacher.digest, exchanges=answers))


def fit(model: Any, pairs: list[Pair], method: Method | None = None, part: MakePart = PART, **options: Any) -> Any:
    """Train the model as a student pruned at layer `FIRST`."""
    train(model, pairs, method or BlackBox(), part, **{"seed": 5, "pad_id": 1, "first_trained": FIRST, **options})
    return model


def weights(model: Any) -> list[torch.Tensor]:
    """A copy of all weights."""
    return [w.detach().clone() for w in model.parameters()]


def divergence(teacher: LocalModel, model: Any, pairs: list[Pair]) -> float:
    """KL(teacher || model) per token of the answers."""
    with torch.inference_mode():
        p = torch.cat(list(answer_logprobs(teacher.model, pairs, pad_id=1)))
        q = torch.cat(list(answer_logprobs(model, pairs, pad_id=1)))
    return float((p.exp() * (p - q)).sum(-1).mean())


def test_what_lies_below_the_cut_does_not_change(student: Any, pairs: list[Pair]) -> None:
    before = {name: w.detach().clone() for name, w in student.named_parameters()}
    fit(student, pairs)
    changed = {name for name, w in student.named_parameters() if not torch.equal(w, before[name])}
    above = {name for name in before if name.startswith(("model.layers.1.", "model.layers.2.", "model.norm"))}
    assert changed == above


def test_all_weights_are_trained_where_the_recipe_says_so(student: Any) -> None:
    assert len(trained_weights(student, "all", FIRST)) == len(list(student.parameters()))
    assert len(trained_weights(student, "above-cut", 0)) == len(list(student.parameters())) - 1


@pytest.mark.parametrize("stop", [1, 2, 5, 7])
def test_a_killed_run_continues_to_the_same_bits(
    teacher: LocalModel, student: Any, pairs: list[Pair], tmp_path: Path, stop: int
) -> None:
    told: list[int] = []

    def kill(metrics: dict[str, float | int]) -> None:
        if metrics["step"] == stop:
            raise Killed

    whole = weights(fit(student, pairs))
    with pytest.raises(Killed):
        fit(prune(teacher.model, KEEP), pairs, checkpoint=tmp_path / "c.pt", on_step=kill)
    resumed = fit(
        prune(teacher.model, KEEP),
        pairs,
        checkpoint=tmp_path / "c.pt",
        on_step=lambda metrics: told.append(int(metrics["step"])),
    )
    assert all(torch.equal(a, b) for a, b in zip(whole, weights(resumed), strict=True))
    assert told == list(range(stop // 2 * 2 + 1, 13))


@pytest.mark.parametrize(
    "other", [{"seed": 6}, {"first_trained": 2}, {"part": PART.model_copy(update={"learning_rate": 1e-3})}]
)
def test_a_checkpoint_of_other_settings_is_refused(
    teacher: LocalModel, student: Any, pairs: list[Pair], tmp_path: Path, other: dict[str, Any]
) -> None:
    fit(student, pairs, checkpoint=tmp_path / "c.pt")
    assert (tmp_path / "c.pt").exists()
    with pytest.raises(DataError, match=r"c\.pt: belongs to other settings or data; delete it and run again"):
        fit(prune(teacher.model, KEEP), pairs, checkpoint=tmp_path / "c.pt", **other)


def test_a_checkpoint_of_other_data_or_another_method_is_refused(
    teacher: LocalModel, student: Any, pairs: list[Pair], white_box: WhiteBox, tmp_path: Path
) -> None:
    fit(student, pairs, checkpoint=tmp_path / "c.pt")
    for others, method in ((pairs[::-1], BlackBox()), (pairs, white_box)):
        with pytest.raises(DataError, match="belongs to other settings or data"):
            fit(prune(teacher.model, KEEP), others, method, checkpoint=tmp_path / "c.pt")


def test_a_broken_checkpoint_is_one_line(student: Any, pairs: list[Pair], tmp_path: Path) -> None:
    (tmp_path / "c.pt").write_bytes(b"not a checkpoint")
    with pytest.raises(DataError, match=r"c\.pt: cannot be read") as caught:
        fit(student, pairs, checkpoint=tmp_path / "c.pt")
    assert "\n" not in str(caught.value)


def test_both_methods_bring_the_student_closer(
    teacher: LocalModel, student: Any, pairs: list[Pair], white_box: WhiteBox
) -> None:
    before = divergence(teacher, student, pairs)
    part = PART.model_copy(update={"epochs": 12})
    text = divergence(teacher, fit(student, pairs, part=part), pairs)
    cached = divergence(teacher, fit(prune(teacher.model, KEEP), pairs, white_box, part), pairs)
    assert cached < text
    assert cached < 0.7 * before


def test_the_teacher_itself_has_nothing_to_learn_from_its_own_signals(
    teacher: LocalModel, pairs: list[Pair], white_box: WhiteBox
) -> None:
    losses: list[float] = []
    part = PART.model_copy(update={"learning_rate": 1e-9})
    fit(prune(teacher.model, range(4)), pairs, white_box, part, on_step=lambda m: losses.append(m["loss"]))
    assert max(map(abs, losses)) < 1e-4


def test_every_step_is_told_with_its_figures(student: Any, pairs: list[Pair]) -> None:
    told: list[dict[str, float | int]] = []
    fit(student, pairs, on_step=told.append)
    assert [m["step"] for m in told] == list(range(1, 13))
    assert sum(m["tokens"] for m in told) == PART.epochs * sum(len(answer) for _, answer in pairs)
    assert all({"step", "steps", "loss", "tokens", "lr", "grad_norm", "elapsed_s"} == set(m) for m in told)
    assert told[-1]["loss"] < told[0]["loss"]


def test_the_first_step_of_training_in_bfloat16_is_near_that_in_float32(teacher: LocalModel, pairs: list[Pair]) -> None:
    found = []
    for dtype in ("float32", "bfloat16"):
        told: list[dict[str, float | int]] = []
        part = PART.model_copy(update={"dtype": dtype})
        fit(prune(teacher.model, KEEP), pairs, part=part, on_step=told.append)
        found.append(told[0]["loss"])
    assert found[1] == pytest.approx(found[0], rel=0.02)
    assert compute_dtype("bfloat16") == torch.bfloat16
    assert compute_dtype("auto") in (torch.bfloat16, torch.float32)


def test_the_rate_warms_up_and_decays_to_a_tenth() -> None:
    rates = [learning_rate(step, 100, PART) for step in range(100)]
    top = rates.index(max(rates))
    assert max(rates) == pytest.approx(PART.learning_rate)
    assert rates[: top + 1] == sorted(rates[: top + 1])
    assert rates[top:] == sorted(rates[top:], reverse=True)
    assert 0.1 * PART.learning_rate <= rates[-1] <= 0.12 * PART.learning_rate
    assert min(rates) > 0
