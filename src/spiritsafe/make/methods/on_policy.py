"""On-policy distillation: the student writes, a local teacher says what it would have said.

`Gkd` takes the whole divergence at every token, `PolicyGradient` the sampled token alone.
"""

from collections.abc import Sequence
from typing import Any, Protocol

from spiritsafe.errors import RecipeError
from spiritsafe.make.batches import digest_samples, order
from spiritsafe.make.methods.online import dense
from spiritsafe.make.objective import TEXT, Objective
from spiritsafe.make.rollout.engine import Rollout
from spiritsafe.make.samples import Packed, Sample, Target
from spiritsafe.recipe import TrainPart
from spiritsafe.record import digest_of, seed_of

Ids = tuple[int, ...]


class Written(Protocol):
    """One answer that the student wrote; log-probabilities in nats, one for each token."""

    @property
    def prompt_ids(self) -> Ids:
        """The prompt."""
        ...

    @property
    def answer_ids(self) -> Ids:
        """The answer, never empty."""
        ...

    @property
    def logprobs(self) -> tuple[float, ...]:
        """Under the student that wrote it."""
        ...

    @property
    def teacher_logprobs(self) -> tuple[float, ...] | None:
        """Under the teacher, where one was asked."""
        ...


class Write(Protocol):
    """The student as it is now, writing one answer for each prompt, each with its own seed."""

    def __call__(self, prompts: Sequence[Ids], *, seeds: Sequence[int]) -> Sequence[Written]:
        """Answers in the prompts' order."""
        ...


def student(rollout: Rollout, *, max_tokens: int, temperature: float = 1.0) -> Write:
    """The rollout's model with its weights of the moment."""

    def write(prompts: Sequence[Ids], *, seeds: Sequence[int]) -> Sequence[Written]:
        if not prompts:
            return []
        rollout.refresh()
        return rollout.draw(prompts, seeds=seeds, max_tokens=max_tokens, temperature=temperature)

    return write


class Gkd:
    """Generalised knowledge distillation (Agarwal et al., arXiv 2306.13649).

    Each sample is the student's own with probability `own_share` (the paper's lambda), else the given one; the
    teacher scores every token. `own_share=1` is on-policy distillation, 0 the supervised kind.
    """

    name = "gkd"
    on_policy = True

    def __init__(
        self,
        samples: Sequence[Sample],
        write: Write,
        teacher: Any,
        objective: Objective,
        settings: TrainPart,
        *,
        seed: int,
        own_share: float = 0.5,
    ) -> None:
        if not 0 <= own_share <= 1:
            raise RecipeError("own_share", f"{own_share} is not a share")
        self._samples, self._write, self._teacher, self._objective = tuple(samples), write, teacher, objective
        self._seed, self._own_share = seed, own_share
        self._order = order([len(s.answer_ids) for s in samples], settings, seed=seed)
        self.steps = len(self._order)
        self.digest = digest_of([self.name, digest_samples(samples), repr(objective), own_share])

    def samples(self, step: int) -> list[Sample]:
        """Given samples, some of them with an answer that the student writes now."""
        chosen = self._order[step]
        given = [self._samples[i] for i in chosen]
        own = [k for k, i in enumerate(chosen) if self._is_own(step, i)]
        seeds = [seed_of(self._seed, "write", step, chosen[k]) for k in own]
        for k, written in zip(own, self._write([given[k].prompt_ids for k in own], seeds=seeds), strict=True):
            given[k] = Sample(given[k].prompt_ids, written.answer_ids)
        return given

    def targets(self, packed: Packed) -> list[Target]:
        """The teacher reads the same row."""
        return [Target(self._objective, dense(self._teacher, packed))]

    def _is_own(self, step: int, i: int) -> bool:
        return seed_of(self._seed, "own", step, i) % 2**20 < self._own_share * 2**20


class PolicyGradient:
    """Policy gradient of the reverse KL on sampled tokens (MiniLLM's single-step part, arXiv 2306.08543).

    The advantage of a token is log p(teacher) - log q(student), clipped: one sample's estimate of the negative
    divergence at its place. Its gradient is that of the reverse KL of each next token given what came before;
    what a token does to later ones does not count. `write` must ask the teacher.
    """

    name = "policy gradient"
    on_policy = True

    def __init__(
        self,
        prompts: Sequence[Ids],
        write: Write,
        settings: TrainPart,
        *,
        seed: int,
        group: int = 1,
        clip: float = 10.0,
    ) -> None:
        self._prompts, self._write, self._seed, self._group, self._clip = tuple(prompts), write, seed, group, clip
        self._order = order([1] * len(prompts), settings, seed=seed)
        self.steps = len(self._order)
        self.digest = digest_of([self.name, [list(p) for p in prompts], group, clip])

    def samples(self, step: int) -> list[Sample]:
        """The student's answers, `group` to each prompt of the step, every token weighted by its advantage."""
        return [
            self._sample(w)
            for w in grouped(self._write, self._prompts, self._order[step], self._group, self._seed, step)
        ]

    def targets(self, packed: Packed) -> list[Target]:
        """The written tokens themselves."""
        return [Target(TEXT)]

    def _sample(self, written: Written) -> Sample:
        assert written.teacher_logprobs is not None, "the rollout needs a teacher"
        pairs = zip(written.teacher_logprobs, written.logprobs, strict=True)
        weights = tuple(max(-self._clip, min(self._clip, theirs - own)) for theirs, own in pairs)
        return Sample(written.prompt_ids, written.answer_ids, weights)


def grouped(
    write: Write, prompts: Sequence[Ids], chosen: Sequence[int], group: int, seed: int, step: int
) -> list[Written]:
    """`group` answers to each chosen prompt, one group behind the other."""
    wanted = [(i, k) for i in chosen for k in range(group)]
    seeds = [seed_of(seed, "write", step, i, k) for i, k in wanted]
    return list(write([prompts[i] for i, _ in wanted], seeds=seeds))
