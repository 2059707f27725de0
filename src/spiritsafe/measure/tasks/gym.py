"""Every reasoning-gym family (arXiv 2505.24760) whose scorer was read, as a task: `gym:FAMILY`.

Checked by the family's own verifier, or by ours if that would evaluate the answer; in a process that may do nothing.
"""

from collections.abc import Sequence
from functools import partial

from spiritsafe.checks.verify import UNSCORABLE, outcome
from spiritsafe.measure.task import Item, Task
from spiritsafe.prompts import Prompt, task_prompts
from spiritsafe.recipe import TaskPart
from spiritsafe.record import Sampling

SIZE, SEED = 500, 0


def load(family: str, where: str) -> list[Item]:
    """500 tasks of the family, the same on every machine; they are generated, so `where` says nothing."""
    prompts = task_prompts([TaskPart(family=family, num=SIZE, heldout_share=1.0)], seed=SEED)
    return _items(prompts)


def solved(item: Item, answer: str) -> bool | None:
    """Whether the verifier gives the answer its full score; None if it fails over it or does not end."""
    found = outcome(Prompt.model_validate(item.detail["prompt"]), answer)
    return None if found in UNSCORABLE else found == "correct"


def task(name: str) -> Task:
    """`gym:FAMILY`, greedy."""
    load_family = partial(load, name.removeprefix("gym:"))
    return Task(name, "accuracy", load_family, solved, Sampling(temperature=0.0, max_tokens=400))


def of_prompts(name: str, prompts: Sequence[Prompt]) -> Task:
    """A task of given verifiable prompts, e.g. a run's held-out ones, greedy."""
    return Task(name, "accuracy", lambda where: _items(prompts), solved, Sampling(temperature=0.0, max_tokens=400))


def _items(prompts: Sequence[Prompt]) -> list[Item]:
    return [Item(p.messages, p.digest, detail={"prompt": p.model_dump(mode="json")}) for p in prompts]
