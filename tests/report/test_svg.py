"""Charts: larger is farther, intervals hold their points, labels keep apart, ticks are round."""

import xml.etree.ElementTree as ET
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markupsafe import Markup

from spiritsafe.report.svg import Cell, Group, Point, Row, Series, bar_chart, dot_chart, line_chart, matrix
from spiritsafe.report.svg.axis import axis_over, place, ticks


def parts(chart: Markup, tag: str, class_: str = "") -> list[dict[str, str]]:
    """Attributes of a chart's elements of one tag and class."""
    found = [e.attrib for e in ET.fromstring(str(chart)).iter(tag)]
    return [a for a in found if class_ in a.get("class", "").split() or not class_]


def lines(*series: Series, log_y: bool = False) -> Markup:
    """A line chart with plain labels."""
    return line_chart(series, title="t", desc="d", x_label="x", y_label="y", log_y=log_y)


def test_a_larger_value_lies_farther_right() -> None:
    rows = tuple(Row(str(v), "", (v,)) for v in (0.1, 0.5, 0.9))
    xs = [float(a["cx"]) for a in parts(dot_chart([Group("", rows)], title="t", desc="d", x_label="x"), "circle")]
    assert xs == sorted(xs)
    assert len(set(xs)) == 3


def test_an_interval_holds_its_point() -> None:
    chart = dot_chart([Group("", (Row("a", "", (0.4,), 0.3, 0.6),))], title="t", desc="d", x_label="x")
    (bar,), (dot,) = parts(chart, "line", "thick"), parts(chart, "circle")
    assert float(bar["x1"]) < float(dot["cx"]) < float(bar["x2"])


def test_a_bar_is_as_long_as_its_value() -> None:
    rows = (Row("a", "", (10.0,)), Row("b", "", (30.0,)))
    bars = parts(bar_chart([Group("", rows)], title="t", desc="d", x_label="s"), "rect", "bar")
    assert float(bars[1]["width"]) == pytest.approx(3 * float(bars[0]["width"]), rel=0.01)


def test_a_smaller_p_value_lies_lower_on_a_log_scale() -> None:
    chart = lines(Series("p", (Point(1, 0.5), Point(2, 1e-9), Point(3, 0.0))), log_y=True)
    ys = [float(a["cy"]) for a in parts(chart, "circle")]
    assert ys[-1] > ys[-2]


def test_labels_at_line_ends_keep_apart() -> None:
    series = [Series(f"s{i}", (Point(0, 0), Point(1, 1 + i / 1000)), i) for i in range(5)]
    ys = sorted(float(a["y"]) for a in parts(lines(*series), "text", "end"))
    assert min(b - a for a, b in pairwise(ys)) >= 14


def test_a_chart_has_a_title_and_a_description_and_keeps_hostile_names_as_text() -> None:
    chart = lines(Series("</text><script>1</script>\u202e", (Point(0, 1), Point(1, 2))))
    tags = {e.tag for e in ET.fromstring(str(chart)).iter()}
    assert {"title", "desc"} <= tags
    assert "script" not in tags
    assert "\u202e" not in chart


def test_nothing_to_draw_is_still_a_chart() -> None:
    assert parts(lines(Series("a", ())), "path", "line") == []
    assert parts(dot_chart([], title="t", desc="d", x_label="x"), "circle") == []


def test_a_matrix_says_in_words_what_was_found_and_what_goes_against_the_truth() -> None:
    cells = {("a", "m"): Cell(1e-9, True, True), ("b", "m"): Cell(0.5, False, True)}
    table = str(matrix(cells, rows=["a", "b"], columns=["m"], corner="", title="t"))
    assert "<small>found ✓</small>" in table
    assert "<small>not found ✗</small>" in table
    assert "against" in table


@given(st.floats(-1e6, 1e6), st.floats(1e-3, 1e6), st.booleans())
def test_ticks_are_few_in_order_and_on_the_axis(low: float, span: float, zero: bool) -> None:
    axis = axis_over([low, low + span], 0, 100, zero=zero)
    places = [place(axis, value) for value, _ in ticks(axis)]
    assert 2 <= len(places) <= 9
    assert places == sorted(places)
    assert axis.low <= low + 1e-6 * span
    assert axis.high >= low + span * (1 - 1e-6)


@given(st.floats(1e-30, 1.0), st.floats(1e-30, 1.0))
def test_a_log_axis_keeps_order(a: float, b: float) -> None:
    axis = axis_over([a, b], 0, 100, log=True)
    assert (place(axis, a) <= place(axis, b)) == (a <= b) or place(axis, a) == pytest.approx(place(axis, b))
    assert len(ticks(axis)) <= 7
