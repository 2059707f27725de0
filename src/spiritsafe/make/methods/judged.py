"""A teacher that returns only text scores the student's answers, by rating or pairwise; the student learns by
policy gradient from scores compared within a prompt's group.

The kind of distillation in which an older model rates a newer one's answers. A score that cannot be read leaves
its answer out; the share of those is kept.
"""

import re
from collections.abc import Callable, Sequence
from itertools import combinations
from statistics import fmean, pstdev

from spiritsafe.errors import ModelError, RecipeError
from spiritsafe.make.batches import order
from spiritsafe.make.methods.on_policy import Ids, Write, Written, grouped
from spiritsafe.make.objective import TEXT
from spiritsafe.make.samples import Packed, Sample, Target
from spiritsafe.models.base import Model, Request, ask, user
from spiritsafe.recipe import TrainPart
from spiritsafe.record import Sampling, digest_of

Judge = Callable[[str, Sequence[str]], list[float | None]]

RATE = (
    "Rate how well the answer below serves the person who wrote the question, from 1 (useless or wrong) to 10 "
    "(correct, complete and clear). Give the number only.\n\nQuestion:\n{question}\n\nAnswer:\n{answer}\n\nRating:"
)
CHOOSE = (
    "Which answer serves the person who wrote the question better? Say A or B only.\n\nQuestion:\n{question}\n\n"
    "Answer A:\n{first}\n\nAnswer B:\n{second}\n\nBetter:"
)


class Judged:
    """Group-relative policy gradient (GRPO's advantage, arXiv 2402.03300) on a judge's scores.

    `text_of` turns token ids into text for the judge. An answer's advantage is its score less the group's mean,
    over the group's standard deviation; a group of equal scores teaches nothing. `unread` counts answers whose
    score could not be read. Raises `ModelError` where the judge's answers are mostly unreadable.
    """

    name = "judged"
    on_policy = True

    def __init__(
        self,
        prompts: Sequence[tuple[str, Ids]],
        write: Write,
        judge: Judge,
        text_of: Callable[[Ids], str],
        settings: TrainPart,
        *,
        seed: int,
        group: int = 4,
    ) -> None:
        if group < 2:
            raise RecipeError("group", f"{group} answer cannot be compared", "take 2 or more")
        self._questions, self._prompts = [q for q, _ in prompts], [ids for _, ids in prompts]
        self._write, self._judge, self._text_of, self._seed, self._group = write, judge, text_of, seed, group
        self._order = order([1] * len(prompts), settings, seed=seed)
        self.steps, self.asked, self.unread = len(self._order), 0, 0
        self.digest = digest_of([self.name, [[q, list(p)] for q, p in prompts], group])

    def samples(self, step: int) -> list[Sample]:
        """The student's answers in groups, weighted by what the judge thinks of them."""
        chosen, size = self._order[step], self._group
        written = grouped(self._write, self._prompts, chosen, size, self._seed, step)
        groups = [written[at : at + size] for at in range(0, len(written), size)]
        samples = [
            s for i, group in zip(chosen, groups, strict=True) for s in self._weighted(self._questions[i], group)
        ]
        if self.asked >= 20 and self.unread > self.asked / 2:
            what = f"{self.unread} of {self.asked} scores could not be read"
            raise ModelError("judge", what, "choose a judge that follows instructions")
        return samples

    def targets(self, packed: Packed) -> list[Target]:
        """The written tokens themselves."""
        return [Target(TEXT)]

    def _weighted(self, question: str, group: Sequence[Written]) -> list[Sample]:
        scores = self._judge(question, [self._text_of(w.answer_ids) for w in group])
        self.asked += len(scores)
        self.unread += sum(s is None for s in scores)
        return [
            Sample(w.prompt_ids, w.answer_ids, (a,) * len(w.answer_ids))
            for w, a in zip(group, advantages(scores), strict=True)
        ]


def advantages(scores: Sequence[float | None]) -> list[float]:
    """Scores less their mean, over their standard deviation; 0 for missing ones and where all are equal."""
    known = [s for s in scores if s is not None]
    spread = pstdev(known) if len(known) > 1 else 0.0
    if spread == 0:
        return [0.0] * len(scores)
    middle = fmean(known)
    return [0.0 if s is None else (s - middle) / spread for s in scores]


def rating(model: Model, *, seed: int = 0, max_tokens: int = 8) -> Judge:
    """Each answer by itself, from 1 to 10."""

    def judge(question: str, answers: Sequence[str]) -> list[float | None]:
        texts = [RATE.format(question=question, answer=a) for a in answers]
        return [read_rating(text) for text in _said(model, texts, seed=seed, max_tokens=max_tokens)]

    return judge


def pairwise(model: Model, *, seed: int = 0, max_tokens: int = 4) -> Judge:
    """Every two answers in both orders; the score is the share of comparisons won.

    Both orders, because judges prefer a place: one that always says A gives every answer the same score.
    """

    def judge(question: str, answers: Sequence[str]) -> list[float | None]:
        pairs = [p for a, b in combinations(range(len(answers)), 2) for p in ((a, b), (b, a))]
        texts = [CHOOSE.format(question=question, first=answers[a], second=answers[b]) for a, b in pairs]
        won: list[list[float]] = [[] for _ in answers]
        for (a, b), text in zip(pairs, _said(model, texts, seed=seed, max_tokens=max_tokens), strict=True):
            first = read_choice(text)
            if first is not None:
                won[a].append(float(first))
                won[b].append(float(not first))
        return [fmean(w) if w else None for w in won]

    return judge


def read_rating(text: str) -> float | None:
    """The first number of a judge's answer, if it is one from 1 to 10."""
    found = re.search(r"\d+(?:[.,]\d+)?", text)
    value = float(found[0].replace(",", ".")) if found else 0.0
    return value if 1 <= value <= 10 else None


def read_choice(text: str) -> bool | None:
    """Whether a judge's answer is A; None where it is neither A nor B."""
    found = re.search(r"\b([AB])\b", text)
    return found[1] == "A" if found else None


def _said(model: Model, texts: Sequence[str], *, seed: int, max_tokens: int) -> list[str]:
    sampling = Sampling(temperature=0.0, max_tokens=max_tokens, seed=seed)
    requests: list[Request] = ask([user(text) for text in texts], sampling, purpose="judge")
    return [exchange.answer for exchange in model.generate(requests)]
