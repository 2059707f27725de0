"""Axes: from values to places on the paper, and ticks at round numbers."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, floor, isfinite, log10

from spiritsafe.report.text import SUPERSCRIPTS, number


@dataclass(frozen=True)
class Axis:
    """Values `low..high` on the paper from `start` to `end`, in units of the drawing."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False


def axis_over(
    values: Sequence[float], start: float, end: float, *, log: bool = False, zero: bool = False, snug: bool = False
) -> Axis:
    """An axis over all finite values, ending at round numbers (`snug`: at the largest value) and with `zero` at 0."""
    finite = [v for v in values if isfinite(v) and (v > 0 or not log)] or [1.0]
    low, high = min(finite), max(finite)
    if log:
        bottom = floor(log10(low))
        return Axis(10.0**bottom, 10.0 ** max(ceil(log10(high)), bottom + 1), start, end, log=True)
    low, high = (min(low, 0.0), max(high, 0.0)) if zero else (low, high)
    if low == high:
        low, high = low - 0.5 * (not zero), high + 0.5
    step = _step(high - low)
    top = high if snug else ceil(high / step - 1e-9) * step
    return Axis(floor(low / step + 1e-9) * step, top, start, end)


def place(axis: Axis, value: float) -> float:
    """Where a value lies on the paper; values outside the axis lie at its end."""
    low, high = (log10(axis.low), log10(axis.high)) if axis.log else (axis.low, axis.high)
    inside = min(max(value, axis.low), axis.high)
    share = ((log10(inside) if axis.log else inside) - low) / (high - low)
    return axis.start + share * (axis.end - axis.start)


def ticks(axis: Axis) -> list[tuple[float, str]]:
    """Round values on the axis with their labels, at most seven."""
    return _log_ticks(axis) if axis.log else _linear_ticks(axis)


def _linear_ticks(axis: Axis) -> list[tuple[float, str]]:
    step = _step(axis.high - axis.low)
    places = max(0, -floor(log10(step) + 1e-9))
    count = floor((axis.high - axis.low) / step + 1e-9)
    values = [axis.low + i * step for i in range(count + 1)]
    return [(v, number(0.0 if abs(v) < step / 1e6 else v, places)) for v in values]


def _log_ticks(axis: Axis) -> list[tuple[float, str]]:
    low, high = round(log10(axis.low)), round(log10(axis.high))
    stride = ceil((high - low) / 5)
    return [(10.0**k, _power(k)) for k in range(high, low - 1, -stride)]


def _power(k: int) -> str:
    return {0: "1", -1: "0.1", 1: "10"}.get(k, "10" + str(k).translate(SUPERSCRIPTS))


def _step(span: float) -> float:
    rough = span / 5
    size = 10.0 ** floor(log10(rough))
    return next(size * m for m in (1, 2, 5, 10) if size * m >= rough * (1 - 1e-9))
