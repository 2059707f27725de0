"""Charts of the report as one stand-alone SVG file, one below the other, in the report's colours, light and dark."""

import re
from collections.abc import Sequence
from importlib import resources

from markupsafe import Markup

WANTED = (
    ":root{",
    "@media (prefers-color-scheme:dark)",
    ".chart ",
    ".grid",
    ".line{",
    ".line.",
    ".whisker",
    ".reference",
    ".tone",
)


def page(charts: Sequence[Markup]) -> str:
    """The file's text."""
    heights = [float(found[1]) for chart in charts if (found := re.search(r'viewBox="0 0 \d+ ([\d.]+)"', chart))]
    width, top, parts = re.findall(r'viewBox="0 0 (\d+)', charts[0])[0], 8.0, []
    for chart, height in zip(charts, heights, strict=True):
        parts.append(
            str(chart).replace(
                "<svg ", f'<svg x="8" y="{top:.0f}" width="{width}" height="{height:.0f}" overflow="visible" ', 1
            )
        )
        top += height + 14
    box = f'viewBox="0 0 {int(width) + 40} {top:.0f}"'
    back = '<rect width="100%" height="100%" fill="var(--card)"/>'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {box}><style>{_style()}</style>{back}{"".join(parts)}</svg>\n'


def _style() -> str:
    css = resources.files("spiritsafe.report").joinpath("templates", "report.css").read_text(encoding="utf-8")
    rules = re.findall(r"^(?:@media[^{]*\{:root\{.*?^\}\}|[^\n{]+\{[^}]*\}.*?)$", css, re.MULTILINE | re.DOTALL)
    return "\n".join(rule for rule in rules if rule.startswith(WANTED))
