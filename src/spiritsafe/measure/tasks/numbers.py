"""The last number of an answer, in English or continental notation."""

import re
from decimal import Decimal

from spiritsafe.measure.task import Item

NUMBER = re.compile(r"-?\d+(?:[.,]\d+)*")
GROUPED = re.compile(r"-?\d{1,3}(?:([.,])\d{3})(?:\1\d{3})*")


def same_number(item: Item, answer: str) -> bool:
    """Whether the answer's last number is the target. Digits grouped by three are read as one number."""
    found = NUMBER.findall(answer)
    return bool(found) and number(found[-1]) == number(item.target)


def number(text: str) -> Decimal:
    """The value of a numeral: `1,000`, `1.000` and `1000` are equal, so are `2.50` and `2,5`."""
    if GROUPED.fullmatch(text):
        return Decimal(re.sub("[.,]", "", text))
    last = max(text.rfind("."), text.rfind(","))
    if last < 0:
        return Decimal(text)
    return Decimal(re.sub("[.,]", "", text[:last]) + "." + text[last + 1 :])
