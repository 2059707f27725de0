"""The elements that charts are drawn with. Texts are escaped here and nowhere else."""

from collections.abc import Iterable

from markupsafe import Markup, escape

from spiritsafe.errors import printable

WIDTH = 380
NUM_TONES = 5
DASHES = ("none", "7 3", "2 3", "9 3 2 3", "1 4")


def element(tag: str, inside: Markup | str = "", **attributes: str | float) -> Markup:
    """One element; attribute names lose a trailing `_` and turn other ones into `-`; all values are escaped."""
    pairs = (f' {k.rstrip("_").replace("_", "-")}="{escape(_plain(v))}"' for k, v in attributes.items())
    return Markup(f"<{tag}{''.join(pairs)}>{escape(inside)}</{tag}>")


def drawing(parts: Iterable[Markup], height: float, *, title: str, desc: str) -> Markup:
    """A whole picture with its accessible title and description."""
    named = element("title", printable(title)) + element("desc", printable(desc))
    box = f"0 0 {WIDTH} {_plain(height)}"
    return element("svg", named + Markup("").join(parts), viewBox=box, role="img", class_="chart")


def words(text: str, x: float, y: float, *, anchor: str = "start", class_: str = "") -> Markup:
    """A line of text."""
    return element("text", printable(text), x=x, y=y, text_anchor=anchor, class_=class_)


def rule(x1: float, y1: float, x2: float, y2: float, *, class_: str) -> Markup:
    """A straight line."""
    return element("line", x1=x1, y1=y1, x2=x2, y2=y2, class_=class_)


def path(points: Iterable[tuple[float, float]], *, tone: int, class_: str) -> Markup:
    """A line through points."""
    d = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
    return element("path", d=d, class_=f"{class_} {tone_of(tone)}", stroke_dasharray=DASHES[tone % NUM_TONES])


def marker(x: float, y: float, *, tone: int, size: float = 4.5) -> Markup:
    """A mark whose shape differs by tone: circle, square, triangle, diamond, ring."""
    class_, s = f"mark {tone_of(tone)}", size
    if tone % NUM_TONES in (0, 4):
        return element("circle", cx=x, cy=y, r=s, class_=class_ + (" hollow" if tone % NUM_TONES else ""))
    corners = {
        1: [(-s, -s), (s, -s), (s, s), (-s, s)],
        2: [(0, -s * 1.2), (s * 1.2, s), (-s * 1.2, s)],
        3: [(0, -s * 1.3), (s * 1.3, 0), (0, s * 1.3), (-s * 1.3, 0)],
    }[tone % NUM_TONES]
    return element("polygon", points=" ".join(f"{x + dx:.1f},{y + dy:.1f}" for dx, dy in corners), class_=class_)


def tone_of(tone: int) -> str:
    """The CSS class of a series' colour."""
    return f"tone-{tone % NUM_TONES + 1}"


def fit(text: str, width: float, size: float = 12) -> str:
    """The text, cut so that it is at most about `width` units wide at font size `size`."""
    most = max(1, int(width / (0.56 * size)))
    shown = printable(text)
    return shown if len(shown) <= most else shown[: most - 1] + "…"


def width_of(text: str, size: float = 12) -> float:
    """A text's width, estimated generously."""
    return 0.56 * size * len(text)


def _plain(value: str | float) -> str:
    return value if isinstance(value, str) else f"{value:.2f}".rstrip("0").rstrip(".")
