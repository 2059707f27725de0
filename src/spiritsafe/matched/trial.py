"""One training of a comparison, and what a look at its student finds."""

from dataclasses import dataclass
from typing import Literal

from spiritsafe.recipe_matched import MatchedPart, MethodName
from spiritsafe.record import Record

BudgetName = Literal["tokens", "seconds", "all-seconds"]

METHODS: dict[MethodName, str] = {
    "text": "SFT",
    "cached": "cached KD",
    "online": "online KD",
    "on-policy": "on-policy KD",
}
BUDGETS: dict[BudgetName, str] = {
    "tokens": "equal tokens",
    "seconds": "equal seconds",
    "all-seconds": "equal seconds, the teacher's counted",
}

SUMS = ("kl", "agree", "bits", "accepted")


@dataclass(frozen=True)
class Trial:
    """One method, trained once for one budget; `number` counts the seeds of its order from 0."""

    budget: BudgetName
    method: MethodName
    number: int

    @property
    def name(self) -> str:
        """As its stage and its files are called."""
        return f"{self.budget}-{self.method}-{self.number}"

    @property
    def subject(self) -> str:
        """As verdicts call its student."""
        return subject_of(self.budget, self.method)


class Look(Record):
    """A student when a share of its budget was spent: what that cost so far, and how near its teacher it is.

    `before_s` are the teacher's seconds before the training began; `wall_s` and `cpu_s` the loop's own, with
    `scoring_s` of a teacher in memory and `writing_s` of the student's own answers inside. `read` counts tokens
    that a teacher read meanwhile, `written` those that the student wrote. `kl` (nats), `agree` (tokens), `bits`
    and `accepted` (tokens) are sums over each held-out answer.
    """

    version: Literal[1] = 1
    budget: BudgetName
    method: MethodName
    number: int
    share: float
    steps: int
    answer_tokens: int
    tokens: int
    wall_s: float
    cpu_s: float
    before_s: float
    scoring_s: float
    writing_s: float
    read: int
    written: int
    kl: tuple[float, ...]
    agree: tuple[float, ...]
    bits: tuple[float, ...]
    accepted: tuple[float, ...]


def subject_of(budget: BudgetName, method: MethodName) -> str:
    """As verdicts call a method's students at one budget."""
    return f"{METHODS[method]} student at {BUDGETS[budget]}"


def trials(part: MatchedPart) -> list[Trial]:
    """All trainings: the methods side by side in time, so that a slow spell of the machine meets all of them."""
    budgets: tuple[BudgetName, ...] = ("tokens", "seconds", "all-seconds") if part.budget_seconds else ("tokens",)
    return [Trial(b, m, number) for b in budgets for number in range(part.num_seeds) for m in part.methods]
