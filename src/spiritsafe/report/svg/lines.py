"""Line charts: several series over a number, with interval bars, a legend and labels at the lines' ends."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite

from markupsafe import Markup

from spiritsafe.report.svg.axis import Axis, axis_over, place, ticks
from spiritsafe.report.svg.draw import WIDTH, drawing, element, fit, marker, path, rule, tone_of, width_of, words

LEFT, RIGHT, HEIGHT, ROW = 46.0, 96.0, 190.0, 18.0


@dataclass(frozen=True)
class Point:
    """A value `y` at `x`, with its interval where it has one."""

    x: float
    y: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Series:
    """A named line. `tone` picks colour, dash and mark; a `faint` one is background without name or marks."""

    name: str
    points: tuple[Point, ...]
    tone: int = 0
    faint: bool = False


def line_chart(
    series: Sequence[Series],
    *,
    title: str,
    desc: str,
    x_label: str,
    y_label: str,
    log_y: bool = False,
    zero: bool = False,
    reference: tuple[float, str] | None = None,
) -> Markup:
    """All series on one pair of axes; `reference` is a horizontal line with its name."""
    series = [_drawable(s, log_y) for s in series]
    named = [s for s in series if not s.faint and s.points]
    legend, top = _legend(named)
    top += 26
    points = [p for s in series for p in s.points]
    heights = [v for p in points for v in (p.y, p.low, p.high) if v is not None]
    x = axis_over([p.x for p in points], LEFT, WIDTH - RIGHT, zero=True, snug=True)
    level = [reference[0]] if reference else []
    y = axis_over(heights + level, top + HEIGHT, top, log=log_y, zero=zero)
    parts = [*legend, *_frame(x, y, x_label, y_label)]
    parts += _reference(x, y, reference) if reference else []
    parts += [shape for s in series if s.points for shape in _line(s, x, y)]
    parts += _end_labels(named, x, y)
    return drawing(parts, top + HEIGHT + 42, title=title, desc=desc)


def _drawable(series: Series, log: bool) -> Series:
    kept = tuple(p for p in series.points if isfinite(p.x) and isfinite(p.y) and (p.y > 0 or not log))
    return Series(series.name, kept, series.tone, series.faint)


def _legend(series: Sequence[Series]) -> tuple[list[Markup], float]:
    parts: list[Markup] = []
    x, y = 4.0, 12.0
    for s in series:
        name = fit(s.name, WIDTH - 50)
        if x > 4 and x + 34 + width_of(name) > WIDTH:
            x, y = 4.0, y + ROW
        parts += [path([(x, y - 4), (x + 24, y - 4)], tone=s.tone, class_="line"), marker(x + 12, y - 4, tone=s.tone)]
        parts.append(words(name, x + 30, y))
        x += 44 + width_of(name)
    return parts, y


def _frame(x: Axis, y: Axis, x_label: str, y_label: str) -> list[Markup]:
    parts = [words(y_label, 4, y.end - 10, class_="axis")]
    for value, label in ticks(y):
        parts.append(rule(x.start, place(y, value), x.end, place(y, value), class_="grid"))
        parts.append(words(label, x.start - 6, place(y, value) + 4, anchor="end", class_="tick"))
    for value, label in ticks(x):
        parts.append(words(label, place(x, value), y.start + 16, anchor="middle", class_="tick"))
    parts.append(words(x_label, (x.start + x.end) / 2, y.start + 36, anchor="middle", class_="axis"))
    return parts


def _reference(x: Axis, y: Axis, reference: tuple[float, str]) -> list[Markup]:
    at = place(y, reference[0])
    line = rule(x.start, at, x.end, at, class_="reference")
    return [line, words(reference[1], x.start + 4, at - 5, class_="tick")]


def _line(series: Series, x: Axis, y: Axis) -> list[Markup]:
    points = [(place(x, p.x), place(y, p.y)) for p in series.points]
    parts = [path(points, tone=series.tone, class_="line faint" if series.faint else "line")]
    for p in series.points:
        if p.low is not None and p.high is not None and not series.faint:
            at = place(x, p.x)
            whisker = rule(at, place(y, p.low), at, place(y, p.high), class_=f"whisker {tone_of(series.tone)}")
            parts.append(whisker)
    few = points if len(points) <= 12 else points[-1:]
    return parts + [marker(a, b, tone=series.tone, size=3.6) for a, b in few if not series.faint]


def _end_labels(series: Sequence[Series], x: Axis, y: Axis) -> list[Markup]:
    wanted = sorted(((place(y, s.points[-1].y), s) for s in series), key=lambda pair: pair[0])
    spots: list[float] = []
    for at, _ in wanted:
        spots.append(max(at, spots[-1] + 15) if spots else at)
    excess = max(0.0, spots[-1] - y.start) if spots else 0.0
    return [
        element(
            "text",
            fit(s.name, RIGHT - 12),
            x=place(x, s.points[-1].x) + 9,
            y=at - excess + 4,
            class_=f"end {tone_of(s.tone)}",
        )
        for at, (_, s) in zip(spots, wanted, strict=True)
    ]
