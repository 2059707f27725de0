"""The recipe of a comparison of ways to learn, from one start and at an equal budget."""

from itertools import pairwise
from typing import Literal

from pydantic import Field, model_validator

from spiritsafe.recipe import AnyRecipe, MakePart, PromptsPart, Section

MethodName = Literal["text", "cached", "online", "on-policy"]


class MatchedPart(Section):
    """What is compared. Budgets are those of one training: answer tokens learned from, and seconds.

    Every method is trained `num_seeds` times for each budget, and looked at when these `shares` of it are spent.
    A budget of seconds is spent twice: on the training alone, and with the teacher's seconds counted in it; 0
    leaves both out. `own_share` is that of the on-policy method's samples which the student writes itself.
    """

    methods: tuple[MethodName, ...] = ("text", "cached", "online", "on-policy")
    num_seeds: int = Field(default=3, ge=1, description="seeds of the training's order, the first to the last")
    answer_tokens: int = Field(default=32, ge=2, description="of the teacher's answers, at most")
    budget_tokens: int = Field(ge=1)
    budget_seconds: float = Field(default=0.0, ge=0)
    shares: tuple[float, ...] = (0.25, 0.5, 1.0)
    own_share: float = Field(default=0.5, gt=0, le=1)
    divergence: Literal["forward-kl", "reverse-kl", "jsd"] = "forward-kl"

    @model_validator(mode="after")
    def _comparable(self) -> "MatchedPart":
        if len(set(self.methods)) != len(self.methods) or len(self.methods) < 2:
            raise ValueError("methods: two different ones at least, each once")
        rises = all(a < b for a, b in pairwise((0.0, *self.shares)))
        if not rises or not self.shares or self.shares[-1] != 1:
            raise ValueError("shares: must rise from above 0 to 1, where the budget is spent")
        return self


class MatchedMeasure(Section):
    """What is measured on held-out prompts, all methods on the same ones."""

    heldout_prompts: int = Field(default=32, ge=2)
    heldout_tokens: int = Field(default=32, ge=1)
    task_tokens: int = Field(default=24, ge=1)
    bootstrap: int = Field(default=2000, ge=100)


class MatchedRecipe(AnyRecipe):
    """A comparison at equal budget, resolved; `make.epochs` only bounds how often a prompt may come."""

    kind: Literal["matched"]
    prompts: PromptsPart
    make: MakePart
    measure: MatchedMeasure = MatchedMeasure()
    matched: MatchedPart

    @model_validator(mode="after")
    def _possible(self) -> "MatchedRecipe":
        if self.make.average:
            raise ValueError("make.average: students are looked at on the way, where no average is made")
        return self
