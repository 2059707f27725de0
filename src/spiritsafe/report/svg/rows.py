"""Horizontal charts: every row has its name and its figure above, and its marks across the full width."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import isfinite

from markupsafe import Markup

from spiritsafe.report.svg.axis import Axis, axis_over, place, ticks
from spiritsafe.report.svg.draw import WIDTH, drawing, element, fit, marker, rule, tone_of, width_of, words

PAD, ROW, HEAD = 8.0, 40.0, 26.0


@dataclass(frozen=True)
class Row:
    """A named value, or several (`values`), its interval where it has one, and `note`, its figure in words."""

    name: str
    note: str
    values: tuple[float, ...]
    low: float | None = None
    high: float | None = None
    tone: int = 0


@dataclass(frozen=True)
class Group:
    """Rows under one heading ("" for none)."""

    heading: str
    rows: tuple[Row, ...]


Marks = Callable[[Row, Axis, float], list[Markup]]


def dot_chart(
    groups: Sequence[Group],
    *,
    title: str,
    desc: str,
    x_label: str,
    bounds: tuple[float, float] | None = None,
    zero: bool = False,
) -> Markup:
    """A dot for a value, with its interval as a bar, strokes for several; `bounds` fixes the axis."""
    axis = _axis(groups, zero=zero) if bounds is None else Axis(*bounds, PAD, WIDTH - PAD)
    return _chart(groups, axis, _dots, title=title, desc=desc, x_label=x_label)


def bar_chart(groups: Sequence[Group], *, title: str, desc: str, x_label: str) -> Markup:
    """A bar from zero for each row's first value."""
    return _chart(groups, _axis(groups, zero=True), _bar, title=title, desc=desc, x_label=x_label)


def _axis(groups: Sequence[Group], *, zero: bool) -> Axis:
    values = [v for g in groups for r in g.rows for v in (*r.values, r.low, r.high) if v is not None]
    return axis_over(values, PAD, WIDTH - PAD, zero=zero)


def _chart(groups: Sequence[Group], axis: Axis, marks: Marks, *, title: str, desc: str, x_label: str) -> Markup:
    body: list[Markup] = []
    y = 0.0
    for group in groups:
        if group.heading:
            body.append(words(fit(group.heading, WIDTH, 13), 0, y + 17, class_="heading"))
            y += HEAD
        for row in group.rows:
            body += [*_caption(row, y + 14), *marks(row, axis, y + 27)]
            y += ROW
    return drawing([*_grid(axis, y, x_label), *body], y + 40, title=title, desc=desc)


def _grid(axis: Axis, bottom: float, label: str) -> list[Markup]:
    parts = [rule(axis.start, bottom, axis.end, bottom, class_="grid strong")]
    shown = ticks(axis)
    for index, (value, text) in enumerate(shown):
        at = place(axis, value)
        anchor = "start" if index == 0 else "end" if index == len(shown) - 1 else "middle"
        edge = at + (0 if anchor == "middle" else -PAD if anchor == "start" else PAD)
        parts.append(rule(at, bottom, at, bottom + 5, class_="grid strong"))
        parts.append(words(text, edge, bottom + 17, anchor=anchor, class_="tick"))
    return [*parts, words(label, WIDTH / 2, bottom + 35, anchor="middle", class_="axis")]


def _caption(row: Row, y: float) -> list[Markup]:
    note = fit(row.note, WIDTH * 0.66)
    name = fit(row.name, WIDTH - width_of(note) - 10)
    return [words(name, 0, y, class_="name"), words(note, WIDTH, y, anchor="end", class_="note")]


def _dots(row: Row, axis: Axis, y: float) -> list[Markup]:
    parts = [rule(axis.start, y, axis.end, y, class_="grid")]
    if row.low is not None and row.high is not None:
        low, high = place(axis, row.low), place(axis, row.high)
        class_ = f"whisker {tone_of(row.tone)}"
        parts.append(rule(low, y, high, y, class_=class_ + " thick"))
        parts += [rule(end, y - 5, end, y + 5, class_=class_) for end in (low, high)]
    spots = [place(axis, v) for v in row.values if isfinite(v)]
    if len(spots) == 1:
        return [*parts, marker(spots[0], y, tone=row.tone, size=5)]
    return parts + [rule(x, y - 6, x, y + 6, class_=f"whisker {tone_of(row.tone)}") for x in spots]


def _bar(row: Row, axis: Axis, y: float) -> list[Markup]:
    start, end = place(axis, 0), place(axis, row.values[0])
    class_ = f"bar {tone_of(row.tone)}"
    track = element("rect", x=axis.start, y=y - 5, width=axis.end - axis.start, height=9, rx=2, class_="track")
    return [track, element("rect", x=start, y=y - 5, width=max(end - start, 1.0), height=9, rx=2, class_=class_)]
