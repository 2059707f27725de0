"""Text and numbers as people read them; the same functions feed the page, the card and the terminal.

A value is printed to two significant digits of its interval's half width. A unit that begins with `share`
(`share of tokens`) is printed in per cent.
"""

import re
from math import floor, inf, isfinite, log10

from spiritsafe.errors import printable
from spiritsafe.record import Verdict

SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def shorten(text: str, length: int = 160) -> str:
    """The text on one line, cut to `length` characters, hidden ones spelled out."""
    flat = re.sub(r"\s+", " ", text).strip()
    return printable(flat if len(flat) <= length else flat[: length - 1] + "…")


def number(value: float, decimals: int | None = None) -> str:
    """A number with thousands separators and a true minus; three significant digits unless told otherwise."""
    if not isfinite(value):
        return "not known" if value != value else ("∞" if value > 0 else "−∞")
    if decimals is None and value and not 1e-4 <= abs(value) < 1e9:
        return power_of_ten(value)
    text = f"{value:,.{_places(value) if decimals is None else decimals}f}"
    return text.replace("-", "−") if re.search("[1-9]", text) else text.lstrip("-")


def power_of_ten(value: float) -> str:
    """A number as mantissa and power of ten, e.g. 3.6 × 10⁻¹⁵."""
    mantissa, exponent = f"{value:.1e}".split("e")
    return f"{mantissa}\u00a0×\u00a010{str(int(exponent)).translate(SUPERSCRIPTS)}".replace("-", "−")


def p_text(value: float) -> str:
    """A p-value: two significant digits, never rounded to zero."""
    if value < 0.001:
        return power_of_ten(value) if value > 0 else "0"
    return f"{value:.2g}" if value < 0.995 else "1.0"


def value_text(verdict: Verdict) -> str:
    """The verdict's value with its unit."""
    return f"{figure_text(verdict)} {unit_text(verdict)}".strip()


def figure_text(verdict: Verdict) -> str:
    """The verdict's value without its unit, as precise as its interval allows; a share in per cent."""
    places = _shared_places(verdict.value, verdict.interval, verdict.unit)
    return number(verdict.value * scale_of(verdict.unit), places) + ("\u00a0%" if is_share(verdict.unit) else "")


def unit_text(verdict: Verdict) -> str:
    """The unit, "" for a share, whose figure is in per cent."""
    return "" if is_share(verdict.unit) else printable(verdict.unit)


def is_share(unit: str) -> bool:
    """Whether values of this unit lie in [0, 1] and are shown in per cent."""
    return unit.split(" ")[0] == "share"


def scale_of(unit: str) -> float:
    """By what a value of this unit is multiplied before it is shown."""
    return 100.0 if is_share(unit) else 1.0


def interval_text(verdict: Verdict) -> str:
    """The verdict's interval, as `low to high`; the confidence is named where it is not 95 %."""
    if verdict.interval is None:
        return "–"
    scale, places = scale_of(verdict.unit), _shared_places(verdict.value, verdict.interval, verdict.unit)
    low, high = (number(end * scale, places) for end in verdict.interval)
    unit = "\u00a0%" if is_share(verdict.unit) else ""
    named = "" if verdict.confidence == 0.95 else f" ({verdict.confidence:.3g} level)"
    return f"{low} to {high}{unit}{named}"


def plain_p_text(value: float) -> str:
    """A p-value as programs write it, for narrow columns: the same digits as `p_text`."""
    return f"{value:.1e}" if 0 < value < 0.001 else p_text(value)


def duration(seconds: float) -> str:
    """Seconds as people say them: `12.4 s`, `3 min 05 s`, `2 h 10 min`."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def mark(holds: bool | None) -> str:
    """Whether a verdict agrees with the run's ground truth, in a sign and words."""
    return {True: "✓ holds", False: "✗ does not hold", None: "· not known"}[holds]


def titled(name: str) -> str:
    """A verdict's name as a heading: `kl to teacher` becomes `KL to teacher`."""
    return f"KL{name[2:]}" if name.startswith("kl ") else name[:1].upper() + name[1:]


def _shared_places(value: float, interval: tuple[float, float] | None, unit: str) -> int | None:
    low, high = interval or (value, value)
    half = (high - low) / 2 * scale_of(unit)
    if not isfinite(half) or half <= 0:
        return None
    places = max(0, 1 - floor(log10(half)))
    return places if places <= 6 else None


def _places(value: float) -> int:
    if value == round(value):
        return 0
    size = floor(log10(abs(value))) if value else -inf
    return int(max(0, min(6, 2 - size)))
