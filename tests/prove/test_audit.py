"""Audits end to end on a tiny real model: null audits are uniform, a student that learned is found."""

from collections.abc import Callable
from dataclasses import replace
from itertools import chain
from pathlib import Path

import numpy as np
import pytest

from spiritsafe.errors import DataError
from spiritsafe.evidence import uniformity_p
from spiritsafe.make.batches import samples_of
from spiritsafe.make.loop import train
from spiritsafe.make.methods import Text
from spiritsafe.make.prune import prune
from spiritsafe.models import ask, open_model, user
from spiritsafe.models.local import LocalModel
from spiritsafe.prove.audit import Pool, audit, examine, likelihoods, logged_likelihoods
from spiritsafe.prove.twins import auditable, choose, twin_requests
from spiritsafe.recipe import MakePart
from spiritsafe.record import Exchange, Sampling, seed_of
from tests.tiny import WORDS, write_tiny

PROMPTS = [user(f"{a} {b}") for a in WORDS[:5] for b in WORDS[5:8]]
SAMPLING = Sampling(max_tokens=6, seed=0)
LEARN = MakePart(num_layers=3, epochs=12, batch=8, learning_rate=3e-2)


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> LocalModel:
    folder = write_tiny(tmp_path_factory.mktemp("audit") / "tiny", scale=1.0)
    model = open_model(str(folder), batch=2048)
    assert isinstance(model, LocalModel)
    return model


@pytest.fixture(scope="module")
def student_of(teacher: LocalModel) -> Callable[[list[Exchange]], LocalModel]:
    """Trains a pruned copy of the teacher on exchanges."""

    def learn(exchanges: list[Exchange]) -> LocalModel:
        copy = prune(teacher.model, (0, 1, 3))
        samples = samples_of([teacher.pair(e) for e in exchanges])
        train(copy, Text(samples, LEARN, seed=0), LEARN, seed=0, first_trained=2)
        return LocalModel("student", "student", copy, teacher.tokenizer, batch=2048)

    return learn


def draws(teacher: LocalModel, purpose: str) -> list[Exchange]:
    return teacher.generate(ask(PROMPTS, SAMPLING, purpose=purpose))


def pool_of(teacher: LocalModel, served: list[Exchange], seed: int = 0) -> Pool:
    twins = teacher.generate(twin_requests(served, num_twins=10, seed=seed))
    return Pool("drawer", tuple(served), tuple(twins))


def halves(pool: Pool) -> tuple[tuple[Exchange, ...], tuple[Exchange, ...]]:
    return pool.served, pool.twins


def test_a_student_of_the_served_answers_is_found_and_one_of_other_draws_is_not(
    teacher: LocalModel, student_of: Callable[[list[Exchange]], LocalModel]
) -> None:
    served = draws(teacher, "served")
    pool = pool_of(teacher, served)
    thief, other = student_of(served), student_of(draws(teacher, "other"))
    tests = {("drawer", name): examine(pool, likelihoods(m, pool)) for name, m in (("thief", thief), ("other", other))}
    verdicts = audit(tests, learned={("drawer", "thief"): True, ("drawer", "other"): False}, alpha=0.01, seed=0)
    assert [v.rejected for v in verdicts] == [True, False]
    assert all(v.holds for v in verdicts)
    assert verdicts[0].claim == "The thief learned from the answers served to drawer."


@pytest.mark.slow
def test_null_audits_are_uniform(teacher: LocalModel, student_of: Callable[[list[Exchange]], LocalModel]) -> None:
    """220 audits, each of a fresh log, against students of other draws of the same prompts."""
    suspects = [student_of(draws(teacher, f"control {k}")) for k in range(4)]
    logs = [ask(PROMPTS[:10], SAMPLING, purpose=f"log {number}") for number in range(220)]
    served = teacher.generate([r for log in logs for r in log])
    twins = teacher.generate(twin_requests(served, num_twins=10, seed=0))
    found = []
    for suspect in range(4):
        mine = range(suspect, 220, 4)
        pools = [Pool("log", tuple(served[10 * k : 10 * k + 10]), tuple(twins[100 * k : 100 * k + 100])) for k in mine]
        joined = Pool("all", *(tuple(chain(*part)) for part in zip(*map(halves, pools), strict=True)))
        scores = likelihoods(suspects[suspect], joined)
        found += [examine(pool, scores[10 * k : 10 * k + 10]) for k, pool in enumerate(pools)]
    p_values, z = np.array([t.p_value for t in found]), np.array([t.z for t in found])
    assert uniformity_p(p_values.tolist()) > 0.01
    assert 0.88 < z.std() < 1.12
    assert abs(z.mean()) < 3 / np.sqrt(len(z))
    for alpha in (0.01, 0.05, 0.1):
        assert (p_values <= alpha).mean() <= alpha + 3 * np.sqrt(alpha * (1 - alpha) / len(p_values))


def test_equal_answers_tie_whatever_their_batches_rounded(teacher: LocalModel) -> None:
    served = draws(teacher, "served")[:1]
    noisy = tuple(lp - 1e-6 for lp in served[0].logprobs or ())
    twins = [served[0].model_copy(update={"logprobs": noisy, "id": str(k)}) for k in range(10)]
    pool = Pool("drawer", tuple(served), tuple(twins))
    assert np.ptp(logged_likelihoods(pool)) == 0
    found = examine(pool, likelihoods(teacher, pool))
    assert (found.mean_u, found.p_value) == (0.5, 1.0)


def test_only_sampled_answers_of_this_model_are_audited(teacher: LocalModel) -> None:
    good = draws(teacher, "good")[0]
    greedy = good.model_copy(update={"sampling": good.sampling.model_copy(update={"temperature": 0.0})})
    foreign = good.model_copy(update={"model_digest": "another"})
    stopped = good.model_copy(update={"finish_reason": "content_filter"})
    cut = good.model_copy(update={"sent": good.answer[:3]})
    assert auditable([greedy, good, foreign, stopped, cut], model_digest=teacher.digest) == [good]
    with pytest.raises(DataError, match="temperature above 0"):
        auditable([greedy, foreign], model_digest=teacher.digest)


def test_twins_have_the_logged_settings_and_seeds_of_their_own(teacher: LocalModel) -> None:
    served = draws(teacher, "served")[:3]
    requests = twin_requests(served, num_twins=10, seed=1)
    seeds = {r.sampling.seed for r in requests} | {e.sampling.seed for e in served}
    assert len(seeds) == 33
    assert all(
        replace(r, account="").messages == e.messages
        and r.sampling.model_copy(update={"seed": None}) == e.sampling.model_copy(update={"seed": None})
        for e, r in zip(np.repeat(np.array(served, dtype=object), 10), requests, strict=True)
    )


def test_the_audited_answers_are_chosen_by_the_seed_one_a_prompt(teacher: LocalModel) -> None:
    log = draws(teacher, "a") + draws(teacher, "b")
    chosen = choose(log, most=5, seed=seed_of(1))
    assert len({e.messages for e in chosen}) == 5
    assert chosen == choose(log, most=5, seed=seed_of(1))
    assert all(e in log[: len(PROMPTS)] for e in chosen)


def test_the_likelihood_stored_when_serving_is_the_teachers(teacher: LocalModel, tmp_path: Path) -> None:
    pool = pool_of(teacher, draws(teacher, "served")[:4])
    assert np.allclose(logged_likelihoods(pool), likelihoods(teacher, pool), atol=1e-4)
