"""The recipe of a photocopy of a photocopy: every generation learns from the answers of the one before.

All generations begin from one start, a pruned copy of the teacher (`drop = []`: the whole teacher), and learn with
equal steps from answers to the same prompts. In the mixed branch, a share of the answers is the teacher's own.
"""

from typing import Literal

from pydantic import Field

from spiritsafe.recipe import AnyRecipe, PromptsPart, Section, TrainPart
from spiritsafe.record import Sampling


class StartPart(TrainPart):
    """The common start of all generations, and how they are trained."""

    num_layers: int = Field(ge=1)
    drop: Literal["measured"] | tuple[int, ...] = "measured"
    importance_prompts: int = Field(default=6, ge=1)


class CopiesPart(Section):
    """How many generations there are, how the answers they learn from are drawn, and the mixed branch.

    `real_share` of the mixed branch's training answers are the original teacher's, from generation 2 on.
    """

    generations: int = Field(default=3, ge=2)
    answers_per_prompt: int = Field(default=1, ge=1)
    sampling: Sampling = Sampling(max_tokens=24)
    real_share: float = Field(default=0.5, gt=0, lt=1)


class MarginsPart(Section):
    """How far two models may differ and still be called alike: margins of the equivalence tests, two-sided."""

    kl_nats: float = Field(default=0.1, gt=0, description="KL to the teacher, per token")
    entropy_nats: float = Field(default=0.15, gt=0, description="semantic entropy")
    fraction: float = Field(default=0.05, gt=0, description="acceptance, distinct-2, tail coverage, and the like")
    share: float = Field(default=0.1, gt=0, description="yes/no outcomes: solved, rejected, refused")


class DriftPart(Section):
    """What is measured of every generation.

    `samples` answers are drawn to each held-out prompt, at temperature 1. `tasks` are named as for the verb measure;
    those that need published files take them from `data` and are left out without it. `guard` is the setting of the
    risk control that stands beside `off`.
    """

    heldout_prompts: int = Field(default=32, ge=2)
    heldout_tokens: int = Field(default=24, ge=1)
    samples: int = Field(default=5, ge=2)
    rare: int = Field(default=1, ge=1, description="a word said at most so often by the teacher is rare")
    tasks: tuple[str, ...] = ("harmbench", "truthfulqa-mc2", "xstest-safe")
    data: str = ""
    limit: int = Field(default=40, ge=2, description="items a task")
    answer_tokens: int = Field(default=16, ge=1)
    guard: str = "strict@input"
    bootstrap: int = Field(default=2000, ge=100)
    alpha: float = Field(default=0.05, gt=0, lt=1)
    margins: MarginsPart = MarginsPart()


class PhotocopyRecipe(AnyRecipe):
    """A chain of copies and its mixed branch, resolved."""

    kind: Literal["photocopy"] = "photocopy"
    prompts: PromptsPart
    make: StartPart
    copies: CopiesPart = CopiesPart()
    measure: DriftPart = DriftPart()
