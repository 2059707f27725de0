"""Students learn: every method, through the one loop, brings a tiny student nearer to what it is pulled towards."""

from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
import torch

from spiritsafe.make.loop import head_of, hidden_states, train
from spiritsafe.make.methods.judged import Judged
from spiritsafe.make.methods.on_policy import Gkd, Ids, PolicyGradient, student
from spiritsafe.make.methods.online import Online
from spiritsafe.make.objective import Objective
from spiritsafe.make.packing import packed
from spiritsafe.make.rollout.engine import Drawn, Rollout
from spiritsafe.make.samples import Sample
from spiritsafe.models.local import load_parts
from spiritsafe.recipe import TrainPart
from tests.tiny import write_tiny

PROMPTS: list[Ids] = [(2, 5 + i, 10 + i % 5, 1, 3) for i in range(12)]
END = 1
TOKENS = 8


@pytest.fixture(scope="module")
def load(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], Any]:
    """Fresh tiny models by seed."""
    folder = tmp_path_factory.mktemp("models")

    def model(seed: int) -> Any:
        place: Path = folder / str(seed)
        return load_parts(place if place.exists() else write_tiny(place, seed=seed, layers=2, scale=1.5))[0]

    return model


def settings(**changes: Any) -> TrainPart:
    """Full training in float32, enough steps to see a change."""
    given = {"epochs": 10, "batch": 6, "learning_rate": 3e-3, "train": "all", "dtype": "float32"} | changes
    return TrainPart.model_validate(given)


def answers(model: Any, prompts: Sequence[Ids] = PROMPTS, teacher: Any = None, seed: int = 900) -> list[Drawn]:
    """Draws at temperature 1."""
    rollout = Rollout(model, [END], slots=16, capacity=32, dtype="float32", teacher=teacher)
    seeds = [seed + i for i in range(len(prompts))]
    return rollout.draw(prompts, seeds=seeds, max_tokens=TOKENS)


def reverse_kl(model: Any, teacher: Any) -> float:
    """Mean over the tokens of many answers of the student's own, in nats: exact at each token."""
    drawn = answers(model, PROMPTS * 8)
    row = packed([Sample(d.prompt_ids, d.answer_ids) for d in drawn])
    with torch.no_grad():
        own, theirs = ((hidden_states(m, row) @ head_of(m).T).log_softmax(-1) for m in (model, teacher))
    return float((own.exp() * (own - theirs)).sum(-1).mean())


@pytest.mark.parametrize("divergence", ["forward-kl", "reverse-kl", "jsd", "skew-kl", "tv"])
def test_a_student_nears_a_live_teacher_whatever_the_divergence(load: Callable[[int], Any], divergence: Any) -> None:
    model, teacher = load(0), load(1)
    data = [Sample(d.prompt_ids, d.answer_ids) for d in answers(teacher, PROMPTS * 4)]
    before = reverse_kl(model, teacher)
    train(model, Online(data, teacher, Objective(divergence), settings(), seed=0), settings(), seed=0)
    assert reverse_kl(model, teacher) < 0.7 * before


def test_a_student_nears_its_teacher_on_its_own_answers(load: Callable[[int], Any]) -> None:
    model, teacher = load(0), load(1)
    data = [Sample(p, (END,)) for p in PROMPTS]
    before = reverse_kl(model, teacher)
    write = student(Rollout(model, [END], slots=16, capacity=32, dtype="float32"), max_tokens=TOKENS)
    method = Gkd(data, write, teacher, Objective("reverse-kl"), settings(epochs=20), seed=0, own_share=1.0)
    train(model, method, settings(epochs=20), seed=0)
    assert reverse_kl(model, teacher) < 0.6 * before


def test_sampled_tokens_alone_lead_to_the_teacher(load: Callable[[int], Any]) -> None:
    model, teacher = load(0), load(1)
    before = reverse_kl(model, teacher)
    rollout = Rollout(model, [END], slots=16, capacity=32, dtype="float32", teacher=teacher)
    part = settings(epochs=40)
    method = PolicyGradient(PROMPTS, student(rollout, max_tokens=TOKENS), part, seed=0, group=4)
    train(model, method, part, seed=0)
    assert reverse_kl(model, teacher) < 0.7 * before


def test_a_student_writes_what_its_judge_likes(load: Callable[[int], Any]) -> None:
    """The judge likes one word; it sees text alone."""
    model = load(0)

    def judge(question: str, texts: Sequence[str]) -> list[float | None]:
        return [float(text.split().count("12")) / max(1, len(text.split())) for text in texts]

    def text_of(ids: Ids) -> str:
        return " ".join(map(str, ids))

    def score() -> float:
        drawn = answers(model, PROMPTS * 8)
        return fmean(s or 0.0 for s in judge("", [text_of(d.answer_ids) for d in drawn]))

    before, part = score(), settings(epochs=30, learning_rate=1e-3)
    write = student(Rollout(model, [END], slots=24, capacity=32, dtype="float32"), max_tokens=TOKENS)
    method = Judged([(str(p), p) for p in PROMPTS], write, judge, text_of, part, seed=0, group=8)
    train(model, method, part, seed=0)
    assert score() > before + 0.15
    assert method.unread == 0
