"""A text in pieces that are read each by itself: sentences and lines, so that what stands beside harm does not hide it.

A piece has `FEWEST` words at least (a shorter sentence goes with the next, the last with the one before) and `MOST`
at most (a longer one is cut). Pieces are told by where they begin and end in the folded text; `place` says which
characters of the text as it came that is.
"""

import re
from bisect import bisect_right
from itertools import accumulate, pairwise

FEWEST, MOST = 4, 48
FEWEST_BYTES = 24  # where a language writes no blanks: eight of its letters
COUNTS = (1, 9, 33)  # pieces from which on a limit holds
# After a sentence's end and what closes it; Chinese and Japanese write no blank there.
_END = re.compile(r"[.!?;…][\"')\]»”]*(?= )|[。!?…](?=[\u3040-\u30ff\u3400-\u9fff])")
_WORD = re.compile(r"\S+")
Span = tuple[int, int]


def pieces(text: str, folded: str) -> list[Span]:
    """Where the pieces of a text begin and end in its folded form, in order; one at least, and together all of it."""
    cuts = {found.end() for found in _END.finditer(folded)}
    if "\n" in text:
        cuts |= _line_ends(text, folded)
    if not cuts and folded.count(" ") < MOST:
        return [(0, len(folded))]
    parts = [part for span in pairwise(sorted({0, *cuts, len(folded)})) for part in _short_enough(folded, *span)]
    return _long_enough(folded, parts)


def place(text: str, folded: str, span: Span) -> Span:
    """Which characters of a text as it came a span of its folded form is: from word to word, as far as they agree."""
    ours = [found.span() for found in _WORD.finditer(text)]
    theirs = [found.start() for found in _WORD.finditer(folded)]
    if not ours or not theirs:
        return 0, len(text)
    start = span[0] + (folded[span[0] : span[0] + 1] == " ")
    first = max(0, bisect_right(theirs, start) - 1)
    last = max(first, bisect_right(theirs, max(start, span[1] - 1)) - 1)
    if len(ours) != len(theirs):  # what folding joined or parted moves the words: then as far along as they are here
        first = first * len(ours) // len(theirs)
        last = min(len(ours) - 1, -(-(last + 1) * len(ours) // len(theirs)))
    return ours[first][0], ours[last][1]


def _line_ends(text: str, folded: str) -> set[int]:
    """Where lines end in the folded text; nowhere if folding joined or parted words."""
    ends = [found.end() for found in _WORD.finditer(folded)]
    counts = [len(line.split()) for line in text.splitlines()]
    if sum(counts) != len(ends):
        return set()
    return {ends[number - 1] for number in accumulate(counts) if number}


def _short_enough(folded: str, start: int, end: int) -> list[Span]:
    if folded.count(" ", start, end) < MOST:
        return [(start, end)]
    words = [found.start() + start for found in _WORD.finditer(folded[start:end])]
    size = -(-len(words) // -(-len(words) // MOST))  # of equal size, as few as they can be
    return list(pairwise([start, *words[size::size], end]))


def _long_enough(folded: str, parts: list[Span]) -> list[Span]:
    found: list[Span] = []
    begin = 0
    for _, end in parts:
        part = folded[begin:end]
        if (
            part.count(" ") > FEWEST
            or len(part.split()) >= FEWEST
            or (not part.isascii() and len(part.encode()) >= FEWEST_BYTES)
        ):
            found.append((begin, end))
            begin = end
    if begin == len(folded) and found:
        return found
    begin = found.pop()[0] if found else begin
    return [*found, (begin, len(folded))]
