"""Charts as markup: pure functions from numbers to inline SVG (a table for the matrix).

Colours are CSS classes `tone-1` to `tone-5`, so that charts follow light and dark; shapes and dashes
repeat what colour says. Charts are drawn 380 units wide, so that a phone shows them at about 1:1.
"""

from spiritsafe.report.svg.lines import Point, Series, line_chart
from spiritsafe.report.svg.matrix import Cell, matrix
from spiritsafe.report.svg.rows import Group, Row, bar_chart, dot_chart

__all__ = ["Cell", "Group", "Point", "Row", "Series", "bar_chart", "dot_chart", "line_chart", "matrix"]
