"""The watch's verdicts, and that its false-alarm rate is what it says."""

import random
from collections.abc import Sequence
from math import sqrt

import pytest

from spiritsafe.errors import UsageError
from spiritsafe.evidence import conformal_p
from spiritsafe.guard.watch import watch
from spiritsafe.record import Exchange, Sampling, Usage, Verdict

CALIBRATION = [f"c{k}" for k in range(19)]


def log(tokens: dict[str, int]) -> list[Exchange]:
    """One exchange for each account, of so many tokens."""
    common = {"model": "m", "model_digest": "d", "messages": (), "sampling": Sampling(), "answer": ""}
    return [
        Exchange.model_validate({"id": a, "account": a, "usage": Usage(completion_tokens=t)} | common)
        for a, t in tokens.items()
    ]


def judge(tokens: dict[str, int], judged: Sequence[str], alpha: float = 0.05) -> list[Verdict]:
    """Verdicts by answer tokens, against the 19 calibration accounts."""
    return watch(log(tokens), judged=judged, calibration=CALIBRATION, feature="answer_tokens", alpha=alpha, seed=0)


def test_an_account_above_all_ordinary_ones_is_reported_and_one_among_them_is_not() -> None:
    tokens = {name: 10 + k for k, name in enumerate(CALIBRATION)}
    heavy, light = judge(tokens | {"heavy": 500, "light": 15}, ["heavy", "light"])
    assert (heavy.subject, heavy.value, heavy.p_value, heavy.rejected) == ("heavy", 500.0, 0.05, True)
    assert (light.p_value, light.rejected) == (15 / 20, False)
    assert heavy.p_adjusted == pytest.approx(0.1)
    assert (heavy.kind, heavy.n, heavy.room) == ("C", 19, "guard")
    assert any("25,000 accounts" in limit for limit in heavy.limits)


def test_a_tie_with_the_heaviest_ordinary_account_is_no_alarm() -> None:
    tokens = dict.fromkeys(CALIBRATION, 10)
    [verdict] = judge(tokens | {"same": 10}, ["same"])
    assert (verdict.p_value, verdict.rejected) == (1.0, False)


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("alpha", [0.05, 0.1, 0.33])
def test_exchangeable_accounts_raise_false_alarms_no_more_often_than_alpha(alpha: float, ties: bool) -> None:
    draw, num = random.Random(7), 4000
    alarms = 0
    for _ in range(num):
        period = draw.random()
        values = [draw.gammavariate(0.5 + period, 100) for _ in range(20)]
        values = [float(value // 100) for value in values] if ties else values
        alarms += conformal_p(values[0], values[1:]) <= alpha
    assert alarms / num <= alpha + 3 * sqrt(alpha * (1 - alpha) / num)


def test_the_watch_itself_keeps_its_rate_over_whole_logs() -> None:
    draw, num, alarms = random.Random(3), 2000, 0
    for _ in range(num):
        tokens = {name: int(draw.expovariate(0.05)) for name in [*CALIBRATION, "judged"]}
        alarms += bool(judge(tokens, ["judged"])[0].rejected)
    assert alarms / num <= 0.05 + 3 * sqrt(0.05 * 0.95 / num)
    assert alarms > 0


def test_an_account_cannot_judge_itself() -> None:
    with pytest.raises(UsageError, match="'c0' is judged and calibrates"):
        judge({}, ["c0"])
    with pytest.raises(UsageError, match="'a' is named twice"):
        judge({}, ["a", "a"])


def test_an_alpha_that_cannot_be_reached_is_an_error() -> None:
    with pytest.raises(UsageError, match="1/20, the least p-value"):
        judge(dict.fromkeys([*CALIBRATION, "a"], 10), ["a"], alpha=0.01)


@pytest.mark.parametrize("side", ["judged", "calibration"])
def test_an_account_that_is_not_in_the_log_is_an_error_and_never_a_zero(side: str) -> None:
    tokens = {name: 10 + k for k, name in enumerate(CALIBRATION)} | {"heavy": 500}
    names = {"judged": ["heavy"], "calibration": list(CALIBRATION)}
    names[side] = [*names[side], f"{CALIBRATION[0]}x"]
    with pytest.raises(UsageError, match="has no exchange in the log; did you mean 'c"):
        watch(log(tokens), **names, feature="answer_tokens", alpha=0.05, seed=0)


@pytest.mark.parametrize("alpha", [0.0, 1.0, 2.0, -0.1])
def test_a_false_alarm_rate_lies_between_0_and_1(alpha: float) -> None:
    tokens = dict.fromkeys(CALIBRATION, 10) | {"heavy": 500}
    with pytest.raises(UsageError, match="is no false-alarm rate"):
        judge(tokens, ["heavy"], alpha)
