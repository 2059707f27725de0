"""A risk-control policy: TOML -> a frozen record of rules, limits, a refusal and how a reviewer is asked.

A policy may extend a shipped one: its keys win, tables are merged. What a policy does is in `stages` (what its
stages find) and `control` (what follows from it). A policy in a file is read anew when the file changes.
"""

import difflib
import logging
import tomllib
from collections.abc import Callable, Mapping
from importlib import resources
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, Field, ValidationError, field_validator, model_validator

from spiritsafe.errors import MissingExtra, UsageError
from spiritsafe.guard.heads.answers import open_answers
from spiritsafe.guard.heads.answers import stamp_of as stamp_of_answers
from spiritsafe.guard.heads.heads import Stamp, open_heads, stamp_of
from spiritsafe.guard.match import of_pattern, of_phrase
from spiritsafe.models.encoder import missing
from spiritsafe.recipe import Section

LOGGER = logging.getLogger("spiritsafe.guard")
Check = Literal["input", "output", "both"]
Side = Literal["input", "output"]
SIDES: tuple[Side, Side] = ("input", "output")
POLICIES = resources.files("spiritsafe.guard") / "policies"


class Rule(Section):
    """One category. `phrases` match whole words, `*` any letters; `patterns` are regular expressions.

    `on` says which side it reads. What it finds is noted, flagged (`decide` says what follows) or stopped. `refusal`
    is said in place of the policy's, in the language of the query; other languages get the English one.
    """

    phrases: tuple[str, ...] = ()
    patterns: tuple[str, ...] = ()
    on: Check = "input"
    action: Literal["note", "flag", "stop"] = "flag"
    refusal: dict[Literal["english", "german"], str] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _finds_something(self) -> Self:
        if not self.phrases and not self.patterns:
            raise ValueError("has neither phrases nor patterns: it would find nothing")
        if self.refusal and "english" not in self.refusal:
            raise ValueError("refusal: has no 'english' text")
        return self

    @field_validator("phrases")
    @classmethod
    def _hold_words(cls, phrases: tuple[str, ...]) -> tuple[str, ...]:
        for phrase in phrases:
            of_phrase(phrase)
        return phrases

    @field_validator("patterns")
    @classmethod
    def _are_regular(cls, patterns: tuple[str, ...]) -> tuple[str, ...]:
        for pattern in patterns:
            of_pattern(pattern)
        return patterns


class Head(Section):
    """One fitted head: from which score on it finds (`limit`, the card's where left out), where, what follows."""

    limit: float | None = None
    on: Check = "input"
    action: Literal["note", "flag", "stop"] = "flag"


class Answers(Section):
    """The fitted control of answers, which reads an answer with its question: from which scores on it finds.

    `pair` is of both, `alone` of the answer whatever was asked; the card's, by length, where they are left out. With
    `words` the rules for the input read answers as well, if they do not decline around the words.
    """

    words: bool = False
    pair: float | None = None
    alone: float | None = None
    action: Literal["note", "flag", "stop"] = "flag"


class Review(Section):
    """How the reviewer is asked, and how its reply is read.

    `{query}` and `{answer}` in the prompt stand for what was flagged: the whole if it has at most `max_chars`
    characters, else each place in its context; more than that is not shown but stopped. A reviewer that thinks gets
    `think_tokens` when `max_tokens` are not enough. `fail` says what follows if it does not answer at all.
    """

    prompt: str = Field(min_length=1)
    unsafe: tuple[str, ...] = Field(min_length=1)
    safe: tuple[str, ...] = Field(min_length=1)
    on_unclear: Literal["stop", "pass"] = "stop"
    fail: Literal["closed", "open"] = "closed"
    max_tokens: int = Field(default=12, ge=1)
    think_tokens: int = Field(default=2048, ge=1)
    max_chars: int = Field(default=4000, ge=2)

    @model_validator(mode="after")
    def _reads_one_way(self) -> Self:
        if "{query}" not in self.prompt and "{answer}" not in self.prompt:
            raise ValueError("prompt: holds neither {query} nor {answer}")
        both = {word.casefold() for word in self.unsafe} & {word.casefold() for word in self.safe}
        if both:
            raise ValueError(f"'{min(both)}' is both safe and unsafe")
        return self


class Policy(Section):
    """The external risk control as DeepSeek-R1 describes one (arXiv 2501.12948): stages flag, a reviewer decides.

    `check` says which side is read: the query, the answer or both. `reviewer` is a model address, or `self` for
    the guarded model; with `decide="stages"` whatever is flagged is stopped. `shadow` decides and stops nothing.
    A dialogue is read up to `max_chars` characters, half of them from each end; a longer one is flagged for that.
    `unreadable` is what follows from what looks encoded and says nothing that can be read.
    `heads` are those of `heads_from`, a folder that `guard fit` wrote or `shipped`; `heads_sha256` is of its weights.
    With `encoder` a sentence encoder (extra `guard`) decides what the linear heads do not clear.
    `answers` reads answers, by the weights of `answers_from`; without it, and without a rule for them, nothing does.
    """

    version: Literal[1] = 1
    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]*$")
    check: Check = "input"
    shadow: bool = False
    decide: Literal["stages", "reviewer"]
    reviewer: str = ""
    refusal: str = Field(min_length=1)
    max_chars: int = Field(default=200_000, ge=100)
    unreadable: Literal["note", "flag", "stop"] = "flag"
    review: Review | None = None
    rules: dict[str, Rule] = Field(default_factory=dict)
    heads_from: str = "shipped"
    heads_sha256: str = ""
    encoder: bool = False
    heads: dict[str, Head] = Field(default_factory=dict)
    answers_from: str = "shipped"
    answers_sha256: str = ""
    answers: Answers | None = None

    @model_validator(mode="after")
    def _can_decide(self) -> Self:
        if not self.rules and not self.heads and self.answers is None:
            raise ValueError("has neither [rules.NAME] nor [heads.NAME] nor [answers]: it would find nothing")
        if self.encoder and not self.heads:
            raise ValueError("encoder: needs [heads.NAME] tables")
        if self.decide == "reviewer" and self.review is None:
            raise ValueError("decide='reviewer' needs a [review] table")
        if self.decide == "stages" and self.reviewer:
            raise ValueError("decide='stages' asks no reviewer; leave 'reviewer' out")
        if unread := self.unread(self.check):
            raise ValueError(f"check='{self.check}', but no rule or head reads the {unread}: give one on='{unread}'")
        return self

    def unread(self, check: Check) -> Side | Literal[""]:
        """A side of `check` that no rule and no head reads; empty if there is none."""
        read = {rule.on for rule in self.rules.values()} | {head.on for head in self.heads.values()}
        if self.answers is not None:
            read.add("output")
        wanted = [side for side in SIDES if check in (side, "both")]
        return next((side for side in wanted if not read & {side, "both"}), "")


def checking(policy: Policy, check: Check, where: str) -> Policy:
    """The policy with another side. Raises `UsageError` if no rule and no head reads that side."""
    if unread := policy.unread(check):
        what = f"policy '{policy.name}' has no rule or head that reads the {unread}"
        raise UsageError(where, what, f'give it one with on = "{unread}", or check another side')
    return policy.model_copy(update={"check": check})


class PolicySource:
    """A policy by name or path; of a file always the newest valid state.

    `ready` changes a policy as its user wants it and makes its stages, before it is in force; what it raises
    keeps the last one in force.
    """

    def __init__(self, source: str, ready: Callable[[Policy], Policy] = lambda policy: policy) -> None:
        self._source = source
        self._ready = ready
        self._policy = ready(load_policy(source))
        self._seen = self._stamp()

    def current(self) -> Policy:
        """The policy as it is now. A changed file that is not valid is reported to the log, and the last one stays."""
        stamp = self._stamp()
        if stamp != self._seen:
            try:
                self._policy = self._ready(load_policy(self._source))
            except Exception as error:  # whatever is wrong with a file, the control stays in force
                LOGGER.error("the policy stays as it was: %s", error)
            self._seen = self._stamp()
        return self._policy

    def _stamp(self) -> tuple[Stamp, Stamp]:
        heads = stamp_of(self._policy.heads_from) if self._policy.heads else ()
        if self._policy.answers:
            heads += stamp_of_answers(self._policy.answers_from)
        path = Path(self._source)
        if self._source in shipped_policies() or not path.is_file():
            return (), heads
        found = path.stat()
        return ((found.st_mtime_ns, found.st_size),), heads


def load_policy(source: str) -> Policy:
    """Read a shipped policy by name, or a TOML file by path, and see which heads it has.

    Raises `UsageError` naming the key at fault, `DataError` where its heads cannot be opened, and `MissingExtra`.
    """
    data = _data(source)
    try:
        return _with_answers(source, _with_heads(source, Policy.model_validate(data)))
    except ValidationError as error:
        raise UsageError(source, "; ".join(_explain(e) for e in error.errors(include_url=False))) from None


def _with_heads(source: str, policy: Policy) -> Policy:
    """The policy with the digest of its heads' weights; one that it states must be theirs."""
    if not policy.heads:
        return policy
    heads = open_heads(policy.heads_from)
    for name in policy.heads:
        if name not in heads.names:
            raise UsageError(source, f"heads.{name}: no such head{_suggest(name, list(heads.names))}")
    if policy.encoder and heads.second is None:
        raise UsageError(
            source, f"encoder: '{policy.heads_from}' has no encoder heads", "spiritsafe guard fit --encoders"
        )
    if policy.encoder and (module := missing()):
        raise MissingExtra(module, "guard")
    if policy.heads_sha256 not in ("", heads.digest):
        raise UsageError(source, f"heads_sha256: the weights of '{policy.heads_from}' have {heads.digest}")
    return policy.model_copy(update={"heads_sha256": heads.digest})


def _with_answers(source: str, policy: Policy) -> Policy:
    """The policy with the digest of its control of answers; one that it states must be its."""
    if policy.answers is None:
        return policy
    digest = open_answers(policy.answers_from).digest
    if policy.answers_sha256 not in ("", digest):
        raise UsageError(source, f"answers_sha256: the weights of '{policy.answers_from}' have {digest}")
    return policy.model_copy(update={"answers_sha256": digest})


def shipped_policies() -> list[str]:
    """Names of the policies inside the package."""
    return sorted(f.name.removesuffix(".toml") for f in POLICIES.iterdir() if f.name.endswith(".toml"))


def _data(source: str) -> dict[str, Any]:
    try:
        data = tomllib.loads(_read(source))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(source, f"is not TOML: {error}") from None
    except RecursionError:
        raise UsageError(source, "is nested too deeply", "a policy needs three levels") from None
    parent = data.pop("extends", "")
    if not parent:
        return data
    if parent not in shipped_policies() or parent == source:
        raise UsageError(source, f"extends: no shipped policy '{parent}'{_suggest(str(parent), shipped_policies())}")
    return _merged(_data(parent), data)


def _read(source: str) -> str:
    if source in shipped_policies():
        return (POLICIES / f"{source}.toml").read_text(encoding="utf-8")
    if Path(source).is_file():
        return Path(source).read_text(encoding="utf-8-sig")
    hint = f"shipped are {', '.join(shipped_policies())}"
    raise UsageError(source or "(empty)", f"no such policy{_suggest(source, shipped_policies())}", hint)


def _merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        old = merged.get(key)
        merged[key] = _merged(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return merged


def _explain(error: Any) -> str:
    loc = [str(part) for part in error["loc"]]
    key = ".".join(loc)
    if error["type"] == "extra_forbidden":
        return f"{key}: unknown key{_suggest(loc[-1], list(_section(loc[:-1]).model_fields))}"
    if error["type"] == "missing":
        return f"{key}: is missing"
    message = error["msg"].removeprefix("Value error, ")
    return f"{key}: {message}" if key else message


def _section(loc: list[str]) -> type[BaseModel]:
    sections: dict[str, type[BaseModel]] = {"review": Review, "rules": Rule, "heads": Head, "answers": Answers}
    return sections[loc[0]] if loc else Policy


def _suggest(word: str, known: list[str]) -> str:
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    return f", did you mean '{near[0]}'?" if near else ""
