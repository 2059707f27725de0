"""Who asks what at the gateway: every account's requests, derived from the recipe and its seed alone."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from spiritsafe.prompts import Prompt
from spiritsafe.recipe import AccountPart, Recipe
from spiritsafe.record import Message, Sampling, seed_of


@dataclass(frozen=True)
class Wanted:
    """One request an account will send."""

    account: str
    role: Literal["draws", "ordinary", "calibration"]
    messages: tuple[Message, ...]
    sampling: Sampling


def plan(recipe: Recipe, prompts: Sequence[Prompt]) -> list[Wanted]:
    """All requests of all accounts. The drawing account asks every training prompt once; the others ask
    prompts from the rest, without repeating themselves."""
    pools = {
        "draws": [p for p in prompts if p.split == "train"],
        "other": [p for p in prompts if p.split == "heldout"],
    }
    wanted: list[Wanted] = []
    for part in recipe.guard.accounts:
        for number in range(part.num):
            name = part.name if part.num == 1 else f"{part.name}-{number + 1:02d}"
            wanted += _of_account(name, part, pools["draws" if part.role == "draws" else "other"], recipe.run.seed)
    return wanted


def names(wanted: Sequence[Wanted], *roles: str) -> list[str]:
    """Accounts of the given roles, in the order of the recipe."""
    return list(dict.fromkeys(w.account for w in wanted if w.role in roles))


def _of_account(name: str, part: AccountPart, pool: Sequence[Prompt], seed: int) -> list[Wanted]:
    generator = np.random.Generator(np.random.Philox(seed_of(seed, "account", name)))
    least, most = part.exchanges if isinstance(part.exchanges, tuple) else (part.exchanges, part.exchanges)
    count = min(int(generator.integers(least, most + 1)), len(pool))
    picks = sorted(generator.choice(len(pool), count, replace=False).tolist())
    return [
        Wanted(
            name,
            part.role,
            pool[i].messages,
            part.sampling.model_copy(update={"seed": seed_of(seed, "served", name, pool[i].digest)}),
        )
        for i in picks
    ]
