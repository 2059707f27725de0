"""Training: what is frozen stays, batches add up, checkpoints are refused or continued, a student comes closer."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from spiritsafe.errors import DataError
from spiritsafe.make.batches import samples_of
from spiritsafe.make.head import tiles
from spiritsafe.make.loop import layers, train
from spiritsafe.make.loop.learner import Learner
from spiritsafe.make.loop.schedule import learning_rate
from spiritsafe.make.loop.weights import Weights, compute_dtype, rows_added, trained_weights
from spiritsafe.make.methods import Cached, Text, from_cache
from spiritsafe.make.objective import TEXT
from spiritsafe.make.packing import pack
from spiritsafe.make.prune import prune
from spiritsafe.make.samples import Sample, Target
from spiritsafe.make.signals import Keep, SignalCache, fill
from spiritsafe.models.decoding.scoring import Pair, answer_logprobs
from spiritsafe.models.local import LocalModel
from spiritsafe.models.logits import logit_form
from spiritsafe.recipe import TrainPart
from spiritsafe.record import Exchange
from tests.make.trains import data

PART = TrainPart(epochs=4, batch=4, learning_rate=3e-3, checkpoint_every=2, dtype="float32")
KEEP, FIRST = (0, 2, 3), 1


@pytest.fixture
def student(teacher: LocalModel) -> Any:
    """The pruned start."""
    return prune(teacher.model, KEEP)


@pytest.fixture
def samples(pairs: list[Pair]) -> list[Sample]:
    """The teacher's answers."""
    return samples_of(pairs)


@pytest.fixture
def cached(teacher: LocalModel, answers: list[Exchange], samples: list[Sample], tmp_path: Path) -> Cached:
    """Learning from cached log-probabilities."""
    fill(teacher, answers, tmp_path / "cache", keep=Keep(num=8))
    return from_cache(SignalCache(tmp_path / "cache"), [e.id for e in answers], samples, PART, seed=5)


def fit(model: Any, samples: list[Sample], method: Any = None, part: TrainPart = PART, **options: Any) -> Any:
    """Train the model as a student pruned at layer `FIRST`."""
    train(model, method or Text(samples, part, seed=5), part, **{"seed": 5, "first_trained": FIRST, **options})
    return model


def told(model: Any, samples: list[Sample], **options: Any) -> list[dict[str, float | int]]:
    """The metrics of a training."""
    found: list[dict[str, float | int]] = []
    fit(model, samples, on_step=found.append, **options)
    return found


def test_a_loss_that_is_no_number_ends_the_training_with_its_step(student: Any, samples: list[Sample]) -> None:
    wild = PART.model_copy(update={"learning_rate": 1e30, "warmup": 0.0})
    with pytest.raises(DataError, match=r"text: the loss of step \d+ is nan"):
        fit(student, samples, part=wild)


def gradients(model: Any, *, size: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """The gradient of all weights over one step, rows of `size` tokens."""
    trained, rows = trained_weights(model, TrainPart(train="all"), 0), pack(data(), tokens_per_row=size)
    total = sum(len(row.tokens_N) for row in rows)
    learner = Learner(model, 0, logit_form(model))
    with rows_added(model.get_input_embeddings()), Weights(model, trained, dtype, first=0):
        for row in rows:
            torch.autograd.backward(learner(row, [Target(TEXT)], scale=1 / total)[0])
        assert all(w.grad is not None and w.grad.dtype == torch.float32 for w in trained)
        return torch.cat([w.grad.flatten() for w in trained if w.grad is not None])


def plain_gradients(model: Any) -> Tensor:
    """The same through transformers' own forward pass and torch's own loss, one sample at a time."""
    embedding = model.get_input_embeddings()
    model.requires_grad_(True)
    embedding.padding_idx, padding = None, embedding.padding_idx
    losses = []
    for s in data():
        logits = model(torch.tensor([s.prompt_ids + s.answer_ids])).logits[0, len(s.prompt_ids) - 1 : -1]
        wanted = torch.tensor(s.answer_ids)
        losses.append(torch.nn.functional.cross_entropy(logits.float(), wanted, reduction="sum"))
    torch.autograd.backward(torch.stack(losses).sum() / sum(len(s.answer_ids) for s in data()))
    found = torch.cat([w.grad.flatten() for w in model.parameters()])
    embedding.padding_idx = padding
    model.zero_grad()
    return found


def flat(model: Any) -> Tensor:
    """A copy of all weights."""
    return torch.cat([w.detach().flatten() for w in model.parameters()])


def apart(found: Tensor, wanted: Tensor) -> float:
    """The relative distance of two vectors."""
    return float((found - wanted).norm() / wanted.norm())


def divergence(teacher: LocalModel, model: Any, pairs: list[Pair]) -> float:
    """KL(teacher || model) per token of the answers."""
    with torch.inference_mode():
        p = torch.cat(list(answer_logprobs(teacher.model, pairs, pad_id=1)))
        q = torch.cat(list(answer_logprobs(model, pairs, pad_id=1)))
    return float((p.exp() * (p - q)).sum(-1).mean())


@pytest.mark.parametrize("size", [16, 48, 200])
def test_one_big_batch_equals_many_small_ones(student: Any, monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    """As nearly as the head rounds, which multiplies small rows of a tile in bfloat16; without those, to 1e-6."""
    assert apart(gradients(student, size=size), gradients(student, size=10_000)) < 2.4e-4
    monkeypatch.setattr(tiles, "SHARE_IN_BF16", 0.0)
    assert apart(gradients(student, size=size), gradients(student, size=10_000)) < 1e-6


def test_the_gradient_is_that_of_the_whole_model_without_packing(student: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiles, "SHARE_IN_BF16", 0.0)
    assert apart(gradients(student, size=10_000), plain_gradients(student)) < 1e-5


@pytest.mark.parametrize(("own", "most"), [(True, 1.02), (False, 1.3)])
def test_in_bfloat16_the_gradient_is_as_exact_as_autocasts_or_nearly_in_transformers_own_layers(
    student: Any, monkeypatch: pytest.MonkeyPatch, own: bool, most: float
) -> None:
    exact = gradients(student, size=10_000)
    with torch.autocast("cpu", torch.bfloat16):
        theirs = apart(plain_gradients(student), exact)
    if not own:
        monkeypatch.setattr(layers, "runs", lambda *_: False)
    found = apart(gradients(student, size=10_000, dtype=torch.bfloat16), exact)
    assert 0 < found < 0.05
    assert found < most * theirs


def test_a_frequent_tokens_gradient_is_not_lost_in_bfloat16(student: Any) -> None:
    """Five hundred equal small gradients of one token, which bfloat16 stops adding at 256 of them."""
    embedding = student.get_input_embeddings()
    with rows_added(embedding), Weights(student, [embedding.weight], torch.bfloat16, first=0):
        torch.autograd.backward(embedding(torch.full((1, 500), 3)).sum())
        assert embedding.weight.grad[3].tolist() == [500.0] * embedding.weight.shape[1]


def test_what_lies_below_the_cut_does_not_change(student: Any, samples: list[Sample]) -> None:
    before = {name: w.detach().clone() for name, w in student.named_parameters()}
    fit(student, samples, part=PART.model_copy(update={"dtype": "bfloat16"}))
    changed = {name for name, w in student.named_parameters() if not torch.equal(w, before[name])}
    above = {name for name in before if name.startswith(("model.layers.1.", "model.layers.2.", "model.norm"))}
    assert changed == above
    assert {w.dtype for w in student.parameters()} == {torch.float32}


def test_frozen_layers_run_once_whatever_the_number_of_epochs(teacher: LocalModel, samples: list[Sample]) -> None:
    def runs(epochs: int) -> tuple[int, int]:
        model, seen = prune(teacher.model, KEEP), [0, 0]
        for number in (0, 2):
            model.model.layers[number].register_forward_hook(lambda *_, k=number // 2: seen.__setitem__(k, seen[k] + 1))
        fit(model, samples, part=PART.model_copy(update={"epochs": epochs}))
        return seen[0], seen[1]

    (once, above_once), (four, above_four) = runs(1), runs(4)
    assert once == four
    assert above_four - above_once == 3 * len(samples) / 4


def test_above_the_cut_is_all_there_is_to_train_where_nothing_else_has_a_gradient(
    teacher: LocalModel, samples: list[Sample]
) -> None:
    """With the cut at layer 0 and the embedding frozen, cached states are the embeddings: the first losses agree."""
    first = told(prune(teacher.model, KEEP), samples, first_trained=0)
    cut = told(prune(teacher.model, KEEP), samples, first_trained=2)
    whole = told(prune(teacher.model, KEEP), samples, part=PART.model_copy(update={"train": "all"}))
    assert first[0]["loss"] == pytest.approx(whole[0]["loss"], rel=1e-5)
    assert cut[0]["loss"] == pytest.approx(whole[0]["loss"], rel=1e-5)
    assert first[0]["grad_norm"] > cut[0]["grad_norm"]


@pytest.mark.parametrize(
    ("named", "other"),
    [
        ("run.seed", {"seed": 6}),
        ("run.first_trained", {"first_trained": 2}),
        ("settings.learning_rate", {"part": PART.model_copy(update={"learning_rate": 1e-3})}),
        ("settings.tokens_per_row", {"part": PART.model_copy(update={"tokens_per_row": 64})}),
    ],
)
def test_a_checkpoint_of_other_settings_is_refused_by_name(
    teacher: LocalModel, student: Any, samples: list[Sample], tmp_path: Path, named: str, other: dict[str, Any]
) -> None:
    fit(student, samples, checkpoint=tmp_path / "c.pt")
    assert (tmp_path / "c.pt").exists()
    with pytest.raises(DataError, match=rf"c\.pt: belongs to other settings or data: {named} differ; delete it"):
        fit(prune(teacher.model, KEEP), samples, checkpoint=tmp_path / "c.pt", **other)


def test_a_checkpoint_of_other_data_another_method_or_another_start_is_refused(
    teacher: LocalModel, student: Any, samples: list[Sample], cached: Cached, tmp_path: Path
) -> None:
    fit(student, samples, checkpoint=tmp_path / "c.pt")
    for others, method, start, named in (
        (samples[::-1], None, KEEP, "data.digest"),
        (samples, cached, KEEP, "data.digest, data.method"),
        (samples, None, (0, 1, 3), "run.start"),
    ):
        with pytest.raises(DataError, match=f"other settings or data: {named} differ"):
            fit(prune(teacher.model, start), others, method, checkpoint=tmp_path / "c.pt")


def test_what_only_decides_how_fast_it_goes_does_not_refuse_a_checkpoint(
    teacher: LocalModel, student: Any, samples: list[Sample], tmp_path: Path
) -> None:
    whole = fit(student, samples, checkpoint=tmp_path / "c.pt")
    part = PART.model_copy(update={"checkpoint_every": 3, "diagnose_every": 1})
    resumed = fit(prune(teacher.model, KEEP), samples, part=part, checkpoint=tmp_path / "c.pt")
    assert all(a.equal(b) for a, b in zip(whole.parameters(), resumed.parameters(), strict=True))


def test_a_broken_checkpoint_is_one_line(student: Any, samples: list[Sample], tmp_path: Path) -> None:
    (tmp_path / "c.pt").write_bytes(b"not a checkpoint")
    with pytest.raises(DataError, match=r"c\.pt: cannot be read") as caught:
        fit(student, samples, checkpoint=tmp_path / "c.pt")
    assert "\n" not in str(caught.value)


def test_both_methods_bring_the_student_closer(
    teacher: LocalModel, student: Any, pairs: list[Pair], samples: list[Sample], tmp_path: Path, answers: list[Exchange]
) -> None:
    before, part = divergence(teacher, student, pairs), PART.model_copy(update={"epochs": 12})
    fill(teacher, answers, tmp_path / "cache", keep=Keep(num=8))
    cached = from_cache(SignalCache(tmp_path / "cache"), [e.id for e in answers], samples, part, seed=5)
    text = divergence(teacher, fit(student, samples, part=part), pairs)
    white = divergence(teacher, fit(prune(teacher.model, KEEP), samples, cached, part), pairs)
    assert white < text
    assert white < 0.7 * before


def test_the_teacher_itself_has_nothing_to_learn_from_its_own_signals(
    teacher: LocalModel, samples: list[Sample], cached: Cached
) -> None:
    part = PART.model_copy(update={"learning_rate": 1e-9, "diagnose_every": 1})
    found = told(prune(teacher.model, range(4)), samples, method=cached, part=part)
    assert max(abs(m["loss"]) for m in found) < 1e-4
    for m in found:
        assert m["overlap"] == 1
        assert m["student_mass"] == pytest.approx(m["teacher_mass"], abs=2e-3)  # as finely as the cache keeps it


def test_every_step_is_told_with_its_figures(student: Any, samples: list[Sample]) -> None:
    found = told(student, samples, part=PART.model_copy(update={"diagnose_every": 0}))
    assert [m["step"] for m in found] == list(range(1, 13))
    assert sum(m["answer_tokens"] for m in found) == PART.epochs * sum(len(s.answer_ids) for s in samples)
    assert sum(m["tokens"] for m in found) == PART.epochs * sum(s.tokens for s in samples)
    names = {
        "step",
        "steps",
        "loss",
        "tokens",
        "answer_tokens",
        "lr",
        "grad_norm",
        "elapsed_s",
        "cpu_s",
        "tokens_per_s",
    }
    assert all(set(m) == names for m in found)
    assert found[-1]["loss"] < found[0]["loss"]


def test_an_average_of_nearly_1_stays_at_the_start_and_none_moves_away(
    teacher: LocalModel, student: Any, samples: list[Sample]
) -> None:
    start = flat(student)
    moves = flat(fit(student, samples)) - start
    part = PART.model_copy(update={"average": 0.9999})
    stays = flat(fit(prune(teacher.model, KEEP), samples, part=part)) - start
    assert 0 < stays.abs().max() < 0.01 * moves.abs().max()


def test_a_token_of_weight_0_teaches_nothing(student: Any) -> None:
    part = PART.model_copy(update={"epochs": 1, "weight_decay": 0.0})
    silent = [Sample(s.prompt_ids, s.answer_ids, (0.0,) * len(s.answer_ids)) for s in data()]
    assert {m["grad_norm"] for m in told(student, silent, part=part)} == {0.0}


def test_the_dtype_follows_the_recipe() -> None:
    here = torch.device("cpu")
    assert compute_dtype("bfloat16", here) == torch.bfloat16
    assert compute_dtype("auto", here) in (torch.bfloat16, torch.float32)


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_the_rate_warms_up_and_decays_to_a_tenth(schedule: str) -> None:
    part = PART.model_copy(update={"schedule": schedule})
    rates = [learning_rate(step, 100, part) for step in range(100)]
    top = rates.index(max(rates))
    assert max(rates) == pytest.approx(PART.learning_rate)
    assert rates[: top + 1] == sorted(rates[: top + 1])
    assert rates[top:] == sorted(rates[top:], reverse=True)
    assert 0.1 * PART.learning_rate <= rates[-1] <= 0.12 * PART.learning_rate


def test_a_constant_rate_only_warms_up() -> None:
    part = PART.model_copy(update={"schedule": "constant"})
    assert {learning_rate(step, 100, part) for step in range(10, 100)} == {PART.learning_rate}
