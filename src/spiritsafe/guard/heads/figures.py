"""What heads are worth on rows they never saw: recall, false alarms, F1, each with n and a 95 % interval.

harm        `harmful` or `abusive` flags      injection   `injection` flags      any   any of them does
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from spiritsafe.evidence import wilson
from spiritsafe.guard.heads.corpus import Bools, Corpus, Ints

TARGETS = {"harm": ("harmful", "abusive"), "injection": ("injection",), "any": ("harmful", "abusive", "injection")}
DRAWS = 2000
LANGUAGES = {
    "de": "German", "en": "English", "es": "Spanish", "fa": "Persian", "fr": "French", "it": "Italian",
    "ja": "Japanese", "ko": "Korean", "nl": "Dutch", "pt": "Portuguese", "ru": "Russian", "uk": "Ukrainian",
    "zh": "Chinese",
}  # fmt: skip
FEW = 20  # harmless rows of a language that are no figure
LOOK_ALIKES = (
    "xstest",
    "openai-moderation",
    "hatecheck-de",
    "orbench-en",
    "orbench-de",
    "orbench-fr",
    "bbq",
)  # harmless rows made or picked to look harmful


@dataclass(frozen=True)
class Figure:
    """One figure: `case` is a set, or harmless rows of a language."""

    case: str
    target: str
    metric: str
    value: float
    low: float
    high: float
    n: int


def figures(corpus: Corpus, flags: Mapping[str, Bools], rows: Bools, *, seed: int) -> list[Figure]:
    """Figures of every set with such rows, and of harmless rows by language."""
    found = []
    for name in dict.fromkeys(corpus.source[rows].tolist()):
        own = rows & (corpus.source == name)
        for target in ("harm", "injection"):
            if not set(TARGETS[target]) & set(flags):
                continue
            found += _of(name, target, corpus, flags, own, seed)
    harmless = np.logical_and.reduce([corpus.says(head) == 0 for head in TARGETS["any"]])
    for lang, title in LANGUAGES.items():
        own = rows & harmless & (corpus.lang == lang) & ~np.isin(corpus.source, LOOK_ALIKES)
        if own.sum() >= FEW:
            found.append(_share(f"{title} harmless", "any", "flagged", _flagged("any", flags)[own]))
    plain = rows & harmless & (corpus.lang == "de") & np.isin(corpus.source, ("frr-multilingual", "mgsm"))
    if plain.any():
        found.append(_share("German harmless, frr and mgsm", "any", "flagged", _flagged("any", flags)[plain]))
    return found


def as_json(found: Sequence[Figure]) -> list[dict[str, Any]]:
    """Figures as they stand in a card."""
    return [{k: round(v, 4) if isinstance(v, float) else v for k, v in asdict(each).items()} for each in found]


def _of(name: str, target: str, corpus: Corpus, flags: Mapping[str, Bools], own: Bools, seed: int) -> list[Figure]:
    says = _says(corpus, target)
    yes, no, flagged = own & (says == 1), own & (says == 0), _flagged(target, flags)
    found = []
    if yes.any():
        found.append(_share(name, target, "recall", flagged[yes]))
    if no.any():
        found.append(_share(name, target, "flagged", flagged[no]))
    if yes.any() and no.any():
        found.append(_f1(name, target, flagged[yes | no], says[yes | no] == 1, seed))
    return found


def _says(corpus: Corpus, target: str) -> Ints:
    """1 where a head of the target should flag, 0 where none should, -1 where that is not known."""
    each = np.array([corpus.says(head) for head in TARGETS[target]])
    found: Ints = np.where((each == 1).any(0), 1, np.where((each == 0).all(0), 0, -1))
    return found


def _flagged(target: str, flags: Mapping[str, Bools]) -> Bools:
    found: Bools = np.logical_or.reduce([flags[head] for head in TARGETS[target] if head in flags])
    return found


def _share(case: str, target: str, metric: str, hits: Bools) -> Figure:
    share = wilson(float(hits.sum()), len(hits))
    return Figure(case, target, metric, share.value, share.low, share.high, share.n)


def _f1(case: str, target: str, flagged: Bools, truth: Bools, seed: int) -> Figure:
    """F1 with a bootstrap interval over rows."""
    picks = np.random.default_rng(seed).integers(0, len(truth), (DRAWS, len(truth)))
    hits, wrong = flagged & truth, flagged != truth
    value = 2 * hits.sum() / max(1, 2 * hits.sum() + wrong.sum())
    drawn = 2 * hits[picks].sum(1) / np.maximum(1, 2 * hits[picks].sum(1) + wrong[picks].sum(1))
    low, high = np.quantile(drawn, [0.025, 0.975])
    return Figure(case, target, "f1", float(value), float(low), float(high), len(truth))
