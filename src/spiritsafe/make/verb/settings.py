"""Settings of `spiritsafe make`, as `recipe.json` holds them: the command's options and `key=value` overrides.

Importable without torch. `[make]` has the recipe's keys, and those that other methods need.
"""

import random
from dataclasses import dataclass
from typing import Any, Literal, get_args

from pydantic import Field, model_validator

from spiritsafe.errors import RecipeError, UsageError
from spiritsafe.make.data.settings import DataSettings
from spiritsafe.make.objective import Divergence, Objective
from spiritsafe.recipe import AnyRecipe, Section, SignalsPart, TrainPart
from spiritsafe.record import seed_of

MethodName = Literal["text", "cached", "online", "gkd", "policy-gradient", "judged"]
METHODS: tuple[str, ...] = get_args(MethodName)
WHITE_BOX = ("cached", "online", "gkd", "policy-gradient")
# A training by budget goes on over the same samples: more steps than these a second are not to be expected.
STEPS_PER_S = 1000


class LossPart(Section):
    """The loss per answer token, where a teacher's distribution is known; see `make.objective`."""

    divergence: Divergence = "forward-kl"
    beta: float = 0.5
    temperature: float = 1.0
    cross_entropy: float = 0.0

    @model_validator(mode="after")
    def _exists(self) -> "LossPart":
        try:
            self.objective()
        except RecipeError as error:
            raise ValueError(str(error).removeprefix("objective.")) from None
        return self

    def objective(self) -> Objective:
        """As the loop takes it. Raises `RecipeError`."""
        return Objective(self.divergence, self.beta, self.temperature, self.cross_entropy)


class OwnPart(Section):
    """How the student writes its own answers, on-policy.

    `group` answers a prompt are compared by a judge, or learned from by policy gradient, whose advantages are
    cut at `clip`; `share` of GKD's samples are the student's own.
    """

    max_tokens: int = Field(default=128, ge=1)
    temperature: float = Field(default=1.0, gt=0)
    group: int = Field(default=4, ge=1)
    share: float = Field(default=0.5, ge=0, le=1)
    clip: float = Field(default=10.0, gt=0)
    slots: int = Field(default=64, ge=1, le=128, description="answers that grow at once")


class JudgePart(Section):
    """How a judging teacher is asked."""

    way: Literal["rating", "pairwise"] = "rating"
    max_tokens: int = Field(default=8, ge=1)


class LearnPart(TrainPart):
    """How the student is trained, by whatever method."""

    drop: Literal["measured"] | tuple[int, ...] = Field(default="measured", description="layers, for pruned:LAYERS")
    importance_prompts: int = Field(default=6, ge=1)
    signals: SignalsPart = SignalsPart()
    loss: LossPart = LossPart()
    own: OwnPart = OwnPart()
    judge: JudgePart = JudgePart()


class HeldoutPart(Section):
    """Prompts kept apart by their content, at most `most`, on which the student is compared with its start."""

    share: float = Field(default=0.1, ge=0, lt=1)
    most: int = Field(default=64, ge=1)
    bootstrap: int = Field(default=2000, ge=100)


class LengthPart(Section):
    """Where the training ends, instead of after `make.epochs`: after answer tokens or seconds of its steps."""

    tokens: int | None = Field(default=None, ge=1)
    seconds: float | None = Field(default=None, gt=0)


class MakeSettings(AnyRecipe):
    """One making, resolved: a recipe of the kind `make`."""

    kind: Literal["make"] = "make"
    prompts: str
    limit: int | None = Field(default=None, ge=1)
    method: MethodName
    student: str
    length: LengthPart = LengthPart()
    make: LearnPart = LearnPart()
    data: DataSettings = DataSettings()
    heldout: HeldoutPart = HeldoutPart()

    @model_validator(mode="before")
    @classmethod
    def _all_of_it(cls, data: Any) -> Any:
        """Only a part of its teacher has layers that need no training: any other student is trained whole."""
        if not isinstance(data, dict) or str(data.get("student", "")).startswith("pruned:"):
            return data
        part = data.get("make", {})
        if isinstance(part, LearnPart):
            given = part if "train" in part.model_fields_set else part.model_copy(update={"train": "all"})
            return {**data, "make": given}
        return {**data, "make": {"train": "all", **part}} if isinstance(part, dict) else data

    @model_validator(mode="after")
    def _learns(self) -> "MakeSettings":
        if self.student.startswith("config:") and (self.make.train != "all" or self.make.lora is not None):
            key = "make.train" if self.make.lora is None else "make.lora"
            raise ValueError(f"{key} would leave weights of a config's student at random; train all of it")
        return self

    @model_validator(mode="after")
    def _one_end(self) -> "MakeSettings":
        # A recipe that was written names every key: only another number than the default was meant.
        given = self.make.epochs != LearnPart.model_fields["epochs"].default
        if (self.length.tokens or self.length.seconds) and given:
            raise ValueError("make.epochs says where the training ends, and so does a budget; give one of them")
        return self


@dataclass(frozen=True)
class Student:
    """A student that is wanted: `pruned` (layers), a model's address, or a `config` (a file or directory)."""

    kind: Literal["pruned", "model", "config"]
    source: str

    @property
    def layers(self) -> int:
        """Of a pruned one."""
        return int(self.source)


def parse_student(text: str) -> Student:
    """`pruned:LAYERS`, `config:FILE`, or a model's address. Raises `UsageError`."""
    kind, _, rest = text.partition(":")
    if kind == "pruned":
        if not rest.isdecimal():
            raise UsageError(f"--student {text}", "is no number of layers", "e.g. pruned:20")
        return Student("pruned", rest)
    if kind == "config":
        return Student("config", rest)
    return Student("model", text)


def lasting(settings: MakeSettings, *, samples: int, tokens: int) -> TrainPart:
    """The training's settings, with as many epochs as its budget can use; `samples` have `tokens` answer tokens."""
    part, length = settings.make, settings.length
    if not (length.tokens or length.seconds):
        return part
    by_tokens = -(-(length.tokens or 0) // tokens) + 1
    by_seconds = int((length.seconds or 0) * STEPS_PER_S / max(1, samples / (part.batch or 8))) + 1
    epochs = by_seconds if length.tokens is None else by_tokens
    return part.model_copy(update={"epochs": epochs})


def picked(num: int, limit: int | None, *, seed: int) -> list[int]:
    """Which of `num` prompts are used under a limit: drawn with the seed, in their order."""
    if limit is None or limit >= num:
        return list(range(num))
    return sorted(random.Random(seed_of(seed, "limit")).sample(range(num), limit))
