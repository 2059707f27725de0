"""A table of p-values, shaded by how small they are, in words as well as in colour."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import log10

from markupsafe import Markup, escape

from spiritsafe.errors import printable
from spiritsafe.report.svg.draw import element
from spiritsafe.report.text import p_text


@dataclass(frozen=True)
class Cell:
    """One test: its p-value, whether it rejects, whether it should (`None`: not known)."""

    p_value: float
    rejected: bool
    should_reject: bool | None


def matrix(
    cells: Mapping[tuple[str, str], Cell], *, rows: Sequence[str], columns: Sequence[str], corner: str, title: str
) -> Markup:
    """Rows by columns; a cell that should reject has a heavy frame, one that goes against the truth says so."""
    head = [element("th", printable(corner), scope="col")] + [element("th", printable(c), scope="col") for c in columns]
    body = [_row(name, [cells.get((name, c)) for c in columns]) for name in rows]
    caption = element("caption", printable(title), class_="unseen")
    inside = caption + element("thead", element("tr", _joined(head))) + element("tbody", _joined(body))
    return element("div", element("table", inside, class_="matrix"), class_="scroll", tabindex="0", role="group")


def _row(name: str, cells: Sequence[Cell | None]) -> Markup:
    return element("tr", element("th", printable(name), scope="row") + _joined([_cell(c) for c in cells]))


def _cell(cell: Cell | None) -> Markup:
    if cell is None:
        return element("td", "–")
    against = cell.should_reject is not None and cell.rejected != cell.should_reject
    classes = f"heat-{_heat(cell.p_value)}" + (" due" if cell.should_reject else "") + (" against" if against else "")
    says = ("found" if cell.rejected else "not found") + (
        " ✗" if against else "" if cell.should_reject is None else " ✓"
    )
    return element("td", element("b", p_text(cell.p_value)) + element("small", says), class_=classes)


def _heat(p_value: float) -> int:
    """0 to 4: one step for each two powers of ten below 0.1."""
    return max(0, min(4, int(-log10(max(p_value, 1e-300)) / 2 + 0.5)))


def _joined(parts: Sequence[Markup]) -> Markup:
    return Markup("").join(escape(p) for p in parts)
