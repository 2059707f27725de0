"""The risk control as an axis: off, shadow, input, output, both; of the shipped policies or of a file.

    off                    the model alone
    input                  the default policy on queries; so shadow, output, both
    strict@input           another policy; ./my.toml@both a file's
    default~ADDRESS@input  another reviewer

A side that no rule and no head of the policy reads is refused: it would be the model alone under another name.

Every setting reads the same stored answers: the guarded model is opened by its address, as anyone would open it,
and its inner model and its reviewer are put behind the store. So settings are exactly paired, and a new one
generates nothing but reviews not yet made.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from spiritsafe.errors import UsageError
from spiritsafe.measure.store import Stored
from spiritsafe.models import Model, open_model
from spiritsafe.models.base import Request
from spiritsafe.models.budget import Meter, check_priced
from spiritsafe.record import Exchange

OFF = "off"
SIDES = ("shadow", "input", "output", "both")
STAND_IN = "fake:echo"


@dataclass(frozen=True)
class Controlled:
    """A model's answers under one setting, and what its control did; times in milliseconds."""

    setting: str
    exchanges: tuple[Exchange, ...]
    stages: dict[str, Any]


def parse_settings(text: str) -> tuple[str, ...]:
    """Settings off a comma-separated list, each once.

    Raises `UsageError` for one that is none, or whose policy does not read the side that it names.
    """
    found = tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    for setting in found:
        if setting not in (OFF, *SIDES) and setting.rpartition("@")[2] not in SIDES:
            raise UsageError(f"--guard {setting}", "is no setting", f"off, {', '.join(SIDES)} or POLICY@SIDE")
        if setting != OFF:
            _see_that_it_reads(setting)
    return found or (OFF,)


def _see_that_it_reads(setting: str) -> None:
    """Raises `UsageError` if its policy cannot be opened for its side; a reviewer that it names is not opened yet."""
    policy, _, side = setting.rpartition("@")
    name, tilde, _ = (policy or "default").partition("~")
    open_model(f"guarded:{name}@{side}{f'~{STAND_IN}' if tilde else ''}+{STAND_IN}")


def controlled(setting: str, model: Stored, requests: Sequence[Request], folder: Any, meter: Meter) -> Controlled:
    """The stored answers as the setting lets them through. Raises `UsageError` for an unknown policy."""
    before = model.generate(requests)
    if setting == OFF:
        return Controlled(setting, tuple(before), {})
    guarded: Any = open_model(f"guarded:{_head(setting)}+{STAND_IN}")
    own = guarded.reviewer is guarded.inner
    guarded.inner = model
    reviewer = None
    if guarded.reviewer is not None:
        check_priced(model.address if own else guarded.reviewer.address, meter.budget)
        reviewer = Stored(folder, model.inner if own else guarded.reviewer, meter)
        guarded.reviewer = reviewer
    after = _guarded(guarded, requests)
    return Controlled(setting, tuple(after), _stages(before, after, reviewer))


def _head(setting: str) -> str:
    policy, _, side = setting.rpartition("@")
    name, tilde, reviewer = (policy or "default").partition("~")
    return f"{name}@{side}{tilde}{reviewer}"


def _guarded(guarded: Model, requests: Sequence[Request]) -> list[Exchange]:
    return guarded.generate(requests)


def _stages(before: Sequence[Exchange], after: Sequence[Exchange], reviewer: Stored | None) -> dict[str, Any]:
    """Share settled by each stage, and what the control itself took: stages timed here, reviews as stored."""
    settled = [_settled(e.flags) for e in after]
    took_ms = [1000 * _took_s(a.elapsed_s, b.elapsed_s) for a, b in zip(before, after, strict=True)]
    alone = [t for t, by in zip(took_ms, settled, strict=True) if by[0] != "reviewer"]
    reviews = [] if reviewer is None else reviewer.given
    return {
        "settled": {f"{by}, {done}": settled.count((by, done)) for by, done in dict.fromkeys(settled)},
        "prompts": len(after),
        "stages_p50_ms": float(np.median(alone)) if alone else None,
        "stages_p99_ms": float(np.quantile(alone, 0.99)) if alone else None,
        "reviews": len(reviews),
        "review_p50_ms": 1000 * float(np.median([e.elapsed_s for e in reviews])) if reviews else None,
        "review_tokens": sum(e.usage.prompt_tokens + e.usage.completion_tokens for e in reviews),
        "review_cost_usd": sum(e.cost_usd for e in reviews),
    }


def _took_s(alone_s: float, guarded_s: float) -> float:
    """What the control took: all of it where the model was not asked, else what came on top of the model's time."""
    return guarded_s if guarded_s < alone_s else guarded_s - alone_s


def _settled(flags: Sequence[str]) -> tuple[str, str]:
    """By what, and how it ended: passed, stopped, or would have been (shadow)."""
    done = next((word for word in ("retracted", "stopped", "shadow") if word in flags), "passed")
    reviewed = any(flag.startswith("reviewed:") for flag in flags)
    by = "reviewer" if reviewed else "stages" if done != "passed" else "nothing flagged"
    return by, {"shadow": "would be stopped"}.get(done, done)
