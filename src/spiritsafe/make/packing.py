"""Samples -> packed rows of about equal length, with as little left over as first-fit decreasing leaves.

Nothing is padded and no sample is cut: one that is longer than a row has a row of its own. Suffixes as in
`make.samples`: T all tokens of a row, N its answer tokens.
"""

from collections.abc import Sequence

import torch

from spiritsafe.make.samples import Packed, Sample


def pack(samples: Sequence[Sample], *, tokens_per_row: int) -> list[Packed]:
    """All samples in rows of at most `tokens_per_row` tokens, fullest rows first.

    First-fit decreasing needs at most 11/9 of the fewest possible rows, and one (Dosa 2007). Samples of one
    prompt stay together where a row holds them, since what they share can be computed once. Equal samples give
    equal rows whatever machine packs them.
    """
    rows: list[list[int]] = []
    left: list[int] = []
    for part in sorted(_parts(samples, tokens_per_row), key=lambda part: -_tokens(samples, part)):
        size = _tokens(samples, part)
        place = next((row for row, room in enumerate(left) if room >= size), len(rows))
        if place == len(rows):
            rows.append([])
            left.append(tokens_per_row)
        rows[place] += part
        left[place] -= size
    return [packed([samples[i] for i in row]) for row in sorted(rows, key=lambda row: -_tokens(samples, row))]


def _parts(samples: Sequence[Sample], most: int) -> list[list[int]]:
    """Samples of one prompt, or single ones where all of those do not fit into a row."""
    families: dict[tuple[int, ...], list[int]] = {}
    for i, sample in enumerate(samples):
        families.setdefault(sample.prompt_ids, []).append(i)
    return [
        part
        for all_ in families.values()
        for part in ([all_] if _tokens(samples, all_) <= most else [[i] for i in all_])
    ]


def _tokens(samples: Sequence[Sample], some: Sequence[int]) -> int:
    return sum(samples[i].tokens for i in some)


def packed(samples: Sequence[Sample]) -> Packed:
    """These samples in this order as one row."""
    ids: list[int] = []
    positions: list[int] = []
    rows: list[int] = []
    weights: list[float] = []
    borders = [0]
    for sample in samples:
        begin, size = borders[-1], sample.tokens
        ids += sample.prompt_ids + sample.answer_ids
        positions += range(size)
        rows += range(begin + len(sample.prompt_ids) - 1, begin + size - 1)
        weights += sample.weights or (1.0,) * len(sample.answer_ids)
        borders.append(begin + size)
    return Packed(
        samples=tuple(samples),
        ids_T=torch.tensor(ids),
        positions_T=torch.tensor(positions),
        borders=tuple(borders),
        rows_N=torch.tensor(rows),
        tokens_N=torch.tensor([t for s in samples for t in s.answer_ids]),
        weights_N=torch.tensor(weights),
    )


def on_device(row: Packed, device: torch.device) -> Packed:
    """The row with its tensors on `device`; itself where it is there already."""
    if row.ids_T.device == device:
        return row
    return Packed(
        row.samples,
        row.ids_T.to(device),
        row.positions_T.to(device),
        row.borders,
        row.rows_N.to(device),
        row.tokens_N.to(device),
        row.weights_N.to(device),
    )
