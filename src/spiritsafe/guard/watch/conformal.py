"""The extraction watch: does an account draw off more than ordinary accounts do?

A conformal p-value against accounts known to be ordinary (Bates et al., arXiv 2104.08279): with
exchangeable accounts an alarm at p <= alpha is false with probability at most alpha, ties included.
"""

from collections.abc import Sequence
from statistics import median
from typing import Any

from spiritsafe.errors import UsageError
from spiritsafe.evidence import conformal_p, holm
from spiritsafe.guard.watch.features import UNITS, by_account
from spiritsafe.record import Exchange, Verdict

ASSUMPTIONS = (
    "an ordinary account is exchangeable with the calibration accounts: same period, same kinds of use",
    "the calibration accounts are ordinary",
)
LIMITS = (
    "the rate is one of each judged account, on average over calibrations; p_adjusted (Holm) is for all together",
    "volume is not intent: a heavy honest user looks the same",
    "an extractor spread over many light accounts is not seen (an alleged campaign used 25,000 accounts at about "
    "26 queries a day each)",
)


def watch(
    exchanges: Sequence[Exchange],
    *,
    judged: Sequence[str],
    calibration: Sequence[str],
    feature: str,
    alpha: float,
    seed: int,
) -> list[Verdict]:
    """A verdict for every judged account, in order: alarm where its conformal p-value is at most `alpha`.

    `seed` is the run's, for the record; nothing here is drawn. Raises `UsageError` for an unknown
    feature, an account that is not in the log or on both sides, or too few calibration accounts for `alpha`.
    """
    _check(judged, calibration, alpha)
    values = by_account(exchanges, [*judged, *calibration], feature)
    _check_least(len(calibration), alpha)
    ordinary = [values[account] for account in calibration]
    p_values = [conformal_p(values[account], ordinary) for account in judged]
    adjusted = dict(zip(judged, holm(p_values), strict=True))
    common = _common(feature, alpha, ordinary, len(judged)) | {"seed": seed}
    return [
        Verdict(
            subject=account,
            claim=f"{account} draws off {'more than' if p <= alpha else 'no more than'} ordinary accounts",
            value=values[account],
            p_value=p,
            p_adjusted=adjusted[account],
            rejected=p <= alpha,
            **common,
        )
        for account, p in zip(judged, p_values, strict=True)
    ]


def _common(feature: str, alpha: float, ordinary: Sequence[float], num_judged: int) -> dict[str, Any]:
    detail = {
        "alpha": alpha,
        "judged": num_judged,
        "calibration_median": median(ordinary),
        "calibration_max": max(ordinary),
        "least_p": 1 / (len(ordinary) + 1),
    }
    return {
        "room": "guard",
        "name": "extraction watch",
        "unit": UNITS[feature],
        "n": len(ordinary),
        "method": f"conformal p-value of {feature} over {len(ordinary)} calibration accounts, alarm at p <= {alpha:g}",
        "kind": "C",
        "assumptions": ASSUMPTIONS,
        "limits": LIMITS,
        "detail": detail,
    }


def _check(judged: Sequence[str], calibration: Sequence[str], alpha: float) -> None:
    both = set(judged) & set(calibration)
    if both:
        raise UsageError("watch", f"account '{min(both)}' is judged and calibrates", "keep the two apart")
    for account in (*judged, *calibration):
        if (*judged, *calibration).count(account) > 1:
            raise UsageError("watch", f"account '{account}' is named twice")
    if not 0 < alpha < 1:
        raise UsageError("watch.alpha", f"{alpha:g} is no false-alarm rate", "take one between 0 and 1")
    if not judged:
        raise UsageError("watch", "no account is left to judge", "name one with --judge")


def _check_least(num_ordinary: int, alpha: float) -> None:
    if alpha * (num_ordinary + 1) < 1:
        what = f"{alpha:g} is below 1/{num_ordinary + 1}, the least p-value"
        raise UsageError("watch.alpha", what, "use more calibration accounts")
