"""Where a training ends: at its method's last step, or where a budget of tokens or seconds is spent.

Answer tokens are those that the student was trained on, repeated ones counted each time. Seconds are those of
the steps in this process (the method's own work with a teacher or the student's writing is inside a step), after
`before_s`, what others spent for this training; loading, checkpoints and evaluation do not count. A continued
training continues the count.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from spiritsafe.errors import DataError
from spiritsafe.make.samples import Method


@dataclass(frozen=True)
class Budget:
    """A training ends at the first step after which one of these is spent.

    By tokens it ends at the same step everywhere; by seconds that depends on the machine.
    """

    answer_tokens: int | None = None
    seconds: float | None = None
    clock: Literal["wall", "cpu"] = "wall"
    before_s: float = 0.0

    def __post_init__(self) -> None:
        if not self.answer_tokens and not self.seconds:
            raise ValueError("a budget is a number of tokens or of seconds")


@dataclass
class Spent:
    """What a training has used so far."""

    steps: int = 0
    answer_tokens: int = 0
    tokens: int = 0
    wall_s: float = 0.0
    cpu_s: float = 0.0

    def count(self, metrics: Mapping[str, float | int]) -> None:
        """Add one step's."""
        self.steps += 1
        self.answer_tokens += int(metrics["answer_tokens"])
        self.tokens += int(metrics["tokens"])
        self.wall_s += metrics["elapsed_s"]
        self.cpu_s += metrics["cpu_s"]

    def stored(self) -> dict[str, Any]:
        """As a checkpoint holds it."""
        return asdict(self)


@dataclass(frozen=True)
class Way:
    """How far a training is on its way, from 0 to 1, by its method's steps or by a budget."""

    method: Method
    budget: Budget | None

    def gone(self, spent: Spent) -> float:
        """The share of the budget that is spent, what was spent before the training included."""
        if self.budget is None:
            return spent.steps / self.method.steps
        return self._of(spent, self.budget.before_s)

    def trained(self, spent: Spent) -> float:
        """The share of the training itself that is done, on which its learning rate depends."""
        return spent.steps / self.method.steps if self.budget is None else self._of(spent, 0.0)

    def ends(self, spent: Spent, until: float) -> bool:
        """Whether to stop before the next step. Raises `DataError` where samples end before a budget does."""
        if self.gone(spent) >= until:
            return True
        if self.budget is not None and spent.steps >= self.method.steps:
            what = f"its samples end after {spent.answer_tokens:,} answer tokens, {self.gone(spent):.0%} of the budget"
            raise DataError(self.method.name, what, "allow more epochs")
        return False

    def _of(self, spent: Spent, before_s: float) -> float:
        budget = self.budget
        assert budget is not None
        shares = [spent.answer_tokens / budget.answer_tokens] if budget.answer_tokens else []
        if budget.seconds:
            seconds = spent.wall_s if budget.clock == "wall" else spent.cpu_s
            most = budget.seconds - (budget.before_s - before_s)
            shares.append((before_s + seconds) / most if most > 0 else 1.0)
        return max(shares)
