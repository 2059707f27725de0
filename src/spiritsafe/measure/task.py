"""A task: its prompts, how to ask, and how to score. One file each in `tasks/`; none imports torch.

Scores are in [0, 1] per item; a yes/no task gives 0 or 1. Items of one `cluster` are not independent. Where several
sampled answers are scored together, the scores have a unit and a most of their own.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from spiritsafe.errors import DataError
from spiritsafe.record import Message, Sampling, digest_of


@dataclass(frozen=True)
class Item:
    """One prompt with what a right answer is compared with; `cluster` names its template or behaviour.

    `pair` is the key of the item of another task that this one is a variant of.
    """

    messages: tuple[Message, ...]
    target: str
    category: str = ""
    cluster: str = ""
    detail: dict[str, Any] = field(default_factory=dict)
    pair: str = ""

    @property
    def key(self) -> str:
        """The item's identity: equal prompts and targets are the same item."""
        return digest_of([[m.model_dump() for m in self.messages], self.target])[:16]


# None: this answer could not be scored.
Score = Callable[[Item, str], bool | None]
Weigh = Callable[[Item, Sequence[float]], float]


@dataclass(frozen=True)
class Together:
    """How the K answers sampled for one prompt are scored together: in `unit`, from 0 to `most(K)`, by `method`."""

    score: Callable[[Sequence[str]], float]
    unit: str
    most: Callable[[int], float]
    method: str


@dataclass(frozen=True)
class Task:
    """A named task. `load(where)` reads its items from a data folder; `higher_is_better` turns the table's sense.

    `note` is a limit that every claim from it states. A `kind` other than "" asks for three outcomes instead of
    `score` (`safety.outcomes`): what is asked should not be answered (harmful), or should be (harmless).
    `also` names further shares of the same answers, told and not ranked.
    `weigh` scores instead of `score` by the log-likelihoods in nats of the item's `detail["choices"]`; `together` by
    several answers sampled for each item.
    `paired_with` names the task whose items its own are variants of. `is_english` says that the refusal judge's
    error rates are known for its answers.
    """

    name: str
    metric: str
    load: Callable[[str], list[Item]]
    score: Score
    sampling: Sampling
    higher_is_better: bool | None = True
    note: str = ""
    also: tuple[tuple[str, Score], ...] = ()
    kind: Literal["", "harmful", "harmless"] = ""
    is_english: bool = True
    paired_with: str = ""
    weigh: Weigh | None = None
    together: Together | None = None


def items_of(task: Task, data: str) -> list[Item]:
    """A task's items. Raises `DataError` naming what its file lacks, if it is not of the published form."""
    try:
        return task.load(data)
    except KeyError as error:
        what = f"its file has no column {error}"
    except (TypeError, AttributeError, IndexError, ValueError) as error:
        what = f"its file is not of the published form ({error})"
    raise DataError(task.name, what, "name the published file, or the folder that holds it")
