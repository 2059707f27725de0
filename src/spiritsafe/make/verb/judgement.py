"""What the judge thinks of the student's answers to held-out prompts, beside those of its start."""

from collections.abc import Sequence
from typing import Any

from spiritsafe.evidence import clustered_mean
from spiritsafe.make.methods.judged import Judge
from spiritsafe.make.rollout.engine import Rollout
from spiritsafe.make.verb.settings import MakeSettings
from spiritsafe.models import Request
from spiritsafe.models.local import LocalModel
from spiritsafe.prompts import Prompt
from spiritsafe.record import Sampling, Verdict, seed_of

METHODS = {
    "rating": "each answer rated from 1 to 10",
    "pairwise": "both answers side by side, in both orders; 1 where the student's wins, -1 where it loses",
}


def judge_verdicts(
    settings: MakeSettings, judge: Judge, start: LocalModel, student: LocalModel, prompts: Sequence[Prompt]
) -> list[Verdict]:
    """How much better the student's answers are than its start's, paired by prompt; [] with fewer than two scores.

    A prompt that one of them cannot read counts as unread, as one whose scores the judge does not say does.
    """
    models = start, student
    read = [p for p in prompts if not any(model.check(Request(p.messages, Sampling())) for model in models)]
    answers = [_answers(settings, model, read) for model in models] if read else [[], []]
    scores = [judge(p.messages[-1].content, pair) for p, *pair in zip(read, *answers, strict=True)]
    gains = [after - before for before, after in scores if before is not None and after is not None]
    if len(gains) < 2:
        return []
    seed, resamples = settings.run.seed, settings.heldout.bootstrap
    found = clustered_mean(gains, [1.0] * len(gains), seed=seed, resamples=resamples)
    said = "likes better" if found.low > 0 else "likes less" if found.high < 0 else "does not provably like better"
    verdict = Verdict(
        room="make",
        name="judge's score change",
        subject="student vs start",
        claim=f"The judge {said} what the student answers than what its start did.",
        value=found.value,
        unit="points",
        interval=(found.low, found.high),
        n=found.n,
        seed=seed,
        method=f"{METHODS[settings.make.judge.way]}; held-out prompts, one answer each; bootstrap-t over prompts",
        assumptions=("prompts are independent draws",),
        limits=("the judge that is pleased is the one that was trained for, whatever else got worse",),
        detail={"unread": len(prompts) - len(gains)},
    )
    return [verdict]


def _answers(settings: MakeSettings, model: LocalModel, prompts: Sequence[Prompt]) -> list[str]:
    own = settings.make.own
    ids: list[Any] = [model.render(Request(p.messages, Sampling())) for p in prompts]
    seeds = [seed_of(settings.run.seed, "heldout", p.digest) for p in prompts]
    rollout = Rollout(model.model, model.end_ids, slots=own.slots, capacity=max(map(len, ids)) + own.max_tokens)
    drawn = rollout.draw(ids, seeds=seeds, max_tokens=own.max_tokens, temperature=own.temperature)
    return [model.text_of(d.answer_ids) for d in drawn]
