"""The templates of page and card in one Jinja environment: what is undefined is an error, texts are escaped.

Each form says in `finalize` how a text is made harmless in it.
"""

from collections.abc import Callable
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from spiritsafe.report.text import (
    duration,
    figure_text,
    interval_text,
    mark,
    number,
    p_text,
    shorten,
    titled,
    value_text,
)

FORMATS = (duration, figure_text, interval_text, mark, number, p_text, shorten, titled, value_text)


def render(
    template: str, finalize: Callable[[Any], Any], filters: dict[str, Callable[[Any], Any]], **values: Any
) -> str:
    """A template with its values. `filters` are those of this form, beside the formats of `report.text`."""
    environment = Environment(
        loader=PackageLoader("spiritsafe.report"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=finalize,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update({function.__name__: function for function in FORMATS})
    environment.filters.update(filters)
    return environment.get_template(template).render(**values)
