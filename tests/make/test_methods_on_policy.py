"""Methods with a live teacher: what they ask for, and that its gradient is the one the papers name."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from spiritsafe.errors import DataError, ModelError, RecipeError
from spiritsafe.make.head import head_loss, tiles
from spiritsafe.make.loop.trunk import head_of, hidden_states
from spiritsafe.make.methods.judged import Judged, advantages, pairwise, rating, read_choice, read_rating
from spiritsafe.make.methods.on_policy import Gkd, Ids, PolicyGradient
from spiritsafe.make.methods.online import Online, Teachers
from spiritsafe.make.objective import TEXT, Objective
from spiritsafe.make.packing import packed
from spiritsafe.make.samples import Method, Sample
from spiritsafe.make.signals import DenseSignal
from spiritsafe.models import open_model
from spiritsafe.models.local import load_parts
from spiritsafe.recipe import TrainPart
from tests.tiny import write_tiny


def settings(epochs: int = 1, batch: int = 2) -> TrainPart:
    """So many samples a step."""
    return TrainPart(epochs=epochs, batch=batch)


DATA = [Sample((2, 5 + i), (6 + i, 7, 1), teacher="ab"[i % 2]) for i in range(6)]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], Any]:
    """Tiny models by seed."""
    folder = tmp_path_factory.mktemp("models")

    def load(seed: int) -> Any:
        place: Path = folder / str(seed)
        return load_parts(place if place.exists() else write_tiny(place, seed=seed, layers=2))[0]

    return load


@dataclass(frozen=True)
class Answer:
    """An answer as a rollout returns it."""

    prompt_ids: Ids
    answer_ids: Ids
    logprobs: tuple[float, ...]
    teacher_logprobs: tuple[float, ...] | None


def write(prompts: Sequence[Ids], *, seeds: Sequence[int]) -> list[Answer]:
    """Two tokens that depend on the seed."""
    return [Answer(p, (5 + s % 7, 1), (-1.0, -2.0), (-3.0, -30.0)) for p, s in zip(prompts, seeds, strict=True)]


def gradient(student: Any, method: Method, samples: Sequence[Sample]) -> Tensor:
    """The head's gradient of the summed loss."""
    student.zero_grad()
    row = packed(samples)
    hidden_ND = hidden_states(student, row)
    for target in method.targets(row):
        rows = slice(None) if target.rows is None else target.rows
        loss = head_loss(
            hidden_ND[rows],
            head_of(student),
            row.tokens_N[rows],
            target.objective,
            signal=target.signal,
            weights_N=row.weights_N[rows],
            scale=target.weight,
        )
        torch.autograd.backward(loss.total, retain_graph=True)
    return grad_of(student).clone()


def grad_of(student: Any) -> Tensor:
    """The head's gradient."""
    found = head_of(student).grad
    assert found is not None
    return found


def test_a_teacher_that_is_the_student_teaches_nothing(tiny: Callable[[int], Any]) -> None:
    method = Online(DATA, tiny(0), Objective(), settings(), seed=0)
    assert gradient(tiny(0), method, DATA).abs().max() < 1e-5
    assert gradient(tiny(1), method, DATA).abs().max() > 1e-3


def test_a_mixture_pulls_towards_the_mixed_distribution(tiny: Callable[[int], Any]) -> None:
    student, first, second = tiny(0), tiny(1), tiny(2)
    shares = {"a": 0.3, "b": 0.7}
    method = Teachers(DATA, {"a": first, "b": second}, Objective(), settings(), seed=0, shares=shares)
    found_VD = gradient(student, method, DATA)
    row = packed(DATA)
    student.zero_grad()
    logits = {n: hidden_states(m, row) @ head_of(m).T for n, m in (("a", first), ("b", second), ("s", student))}
    mixed_NV = sum(w * logits[n].softmax(-1) for n, w in shares.items())
    torch.autograd.backward(-(torch.as_tensor(mixed_NV).detach() * logits["s"].log_softmax(-1)).sum())
    assert torch.allclose(found_VD, grad_of(student), atol=1e-4)


def test_each_teacher_teaches_its_own_samples(tiny: Callable[[int], Any]) -> None:
    student, models = tiny(0), {"a": tiny(1), "b": tiny(2)}
    together = gradient(student, Teachers(DATA, models, Objective(), settings(), seed=0), DATA)
    apart = [
        gradient(student, Online(DATA, models[n], Objective(), settings(), seed=0), [s for s in DATA if s.teacher == n])
        for n in "ab"
    ]
    assert torch.allclose(together, apart[0] + apart[1], atol=1e-4)


def test_teachers_that_do_not_fit_are_refused(tiny: Callable[[int], Any]) -> None:
    with pytest.raises(DataError, match="'b' is none of"):
        Teachers(DATA, {"a": tiny(1)}, Objective(), settings(), seed=0)
    with pytest.raises(RecipeError, match="do not share out"):
        Teachers(DATA, {"a": tiny(1)}, Objective(), settings(), seed=0, shares={"a": 0.5})


def test_every_sample_is_seen_once_an_epoch_in_an_order_of_its_own() -> None:
    method = Online(DATA, None, Objective(), settings(3, 4), seed=1)
    epochs = [[s for step in (2 * e, 2 * e + 1) for s in method.samples(step)] for e in range(3)]
    assert method.steps == 6
    assert all(sorted(e, key=str) == sorted(DATA, key=str) for e in epochs)
    assert epochs[0] != epochs[1]


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_gkd_mixes_given_and_own_answers(share: float) -> None:
    data = [Sample((2, 5), (20, 21, 22))] * 200
    method = Gkd(data, write, None, Objective("jsd"), settings(batch=200), seed=3, own_share=share)
    own = sum(s.answer_ids != (20, 21, 22) for s in method.samples(0)) / 200
    assert own == share if share in (0, 1) else 0.36 < own < 0.64
    assert method.samples(0) == method.samples(0)


def test_advantages_of_tokens_are_clipped_differences() -> None:
    method = PolicyGradient([(2, 5), (2, 6)], write, settings(3), seed=0, group=2)
    samples = method.samples(2)
    assert len(samples) == 4
    assert len({s.answer_ids for s in samples}) > 1
    assert all(s.weights == (-2.0, -10.0) for s in samples)


def test_the_policy_gradient_is_the_gradient_of_reverse_kl_in_expectation(monkeypatch: pytest.MonkeyPatch) -> None:
    """Summed over all tokens with the student's probabilities, not sampled; with products all in float32."""
    monkeypatch.setattr(tiles, "SHARE_IN_BF16", 0.0)
    g = torch.Generator().manual_seed(0)
    hidden_1D, theirs_1D = torch.randn(1, 8, generator=g), torch.randn(1, 8, generator=g)
    head_VD, teacher_VD = (torch.randn(30, 8, generator=g).requires_grad_() for _ in range(2))
    logq_V = (hidden_1D @ head_VD.T).log_softmax(-1)[0].detach()
    logp_V = (theirs_1D @ teacher_VD.T).log_softmax(-1)[0].detach()
    weights_V = logq_V.exp() * (logp_V - logq_V)
    sampled = head_loss(hidden_1D.expand(30, 8), head_VD, torch.arange(30), TEXT, weights_N=weights_V)
    torch.autograd.backward(sampled.total)
    found_VD, head_VD.grad = head_VD.grad, None
    signal = DenseSignal(theirs_1D, teacher_VD.detach())
    torch.autograd.backward(
        head_loss(hidden_1D, head_VD, torch.tensor([0]), Objective("reverse-kl"), signal=signal).total
    )
    assert found_VD is not None
    assert head_VD.grad is not None
    assert torch.allclose(found_VD, head_VD.grad, atol=1e-5)


def judged(judge: Any, group: int = 4, batch: int = 2) -> Judged:
    prompts = [("one", (2, 5)), ("two", (2, 6)), ("three", (2, 7))]
    return Judged(prompts, write, judge, str, settings(9, batch), seed=0, group=group)


def test_better_answers_get_higher_weights() -> None:
    method = judged(lambda question, answers: [float(len(set(a)) + ord(a[1])) for a in answers])
    samples = method.samples(0)
    assert len(samples) == 8
    for group in (samples[:4], samples[4:]):
        weights = [s.weights[0] for s in group if s.weights]
        assert sum(weights) == pytest.approx(0, abs=1e-6)
    assert advantages([1.0, 3.0, None]) == [-1.0, 1.0, 0.0]
    assert advantages([5.0, 5.0]) == [0.0, 0.0]


def test_a_judge_that_always_says_a_moves_nothing() -> None:
    scores = pairwise(open_model("fake:fixed=A"))("question", ["x", "y", "z"])
    assert scores == [0.5, 0.5, 0.5]


def test_ratings_are_read_and_nonsense_is_left_out() -> None:
    assert rating(open_model("fake:fixed=Rating: 7/10"))("question", ["x"]) == [7.0]
    texts = {"8": 8.0, "I say 9.5": 9.5, "7,5": 7.5, "0": None, "11": None, "good": None}
    assert {t: read_rating(t) for t in texts} == texts
    assert [read_choice(t) for t in ("A", "Answer B.", "Neither", "Bad")] == [True, False, None, None]


def test_an_unreadable_judge_is_refused() -> None:
    method = judged(rating(open_model("fake:fixed=very good")), group=10, batch=3)
    with pytest.raises(ModelError, match="30 of 30 scores could not be read"):
        method.samples(0)


def test_one_answer_cannot_be_compared() -> None:
    with pytest.raises(RecipeError, match="cannot be compared"):
        judged(None, group=1)
