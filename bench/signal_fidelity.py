"""What storing a teacher's signals in few bytes does to a student's loss and gradient, on real SmolLM2 answers.

Ways: the cache's head and its unbiased samples, and the top K renormalised to 1 (raw fp16 and u16), which is not what
the teacher said. The student is the teacher without 6 of its 30 layers. Bytes are the coder's on these few answers
from an empty model, so a little above those of a large cache (`signal_cache`). The run also draws
docs/images/signal-fidelity.svg. Case names are `WAY K`; metrics: see `spiritsafe.make.signals.fidelity`.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from bench import _schema
from bench._answers import Answers, answers
from bench._plot import page
from bench._real_states import KEEP
from bench._schema import Row, note
from spiritsafe.evidence import Estimate
from spiritsafe.make.prune import prune
from spiritsafe.make.signals.fidelity import Fidelity, Scene, Way, fidelity
from spiritsafe.make.signals.kinds import DenseSignal
from spiritsafe.make.signals.sample import Keep
from spiritsafe.models import open_model
from spiritsafe.models.decoding.scoring import answer_hidden
from spiritsafe.report.svg import Point, Series, line_chart

PLOT = Path(__file__).parents[1] / "docs" / "images" / "signal-fidelity.svg"
EVERY, DRAWS, SIZES = 13, 8, (8, 16, 32, 50, 100)
NAMES = ("head", "unbiased", "renormalised")


def measure(seed: int) -> list[Row]:
    """Seven figures a way and size."""
    said = answers(seed)
    scene = scene_of(said)
    ways = [way_of(name, size) for name in NAMES for size in SIZES]
    found = fidelity(scene, ways, seed=seed, draws=DRAWS, tick=lambda: note("."))
    PLOT.write_text(drawn(found), encoding="utf-8")
    return [row for f in found for row in rows_of(f, len(scene.tokens_N))]


def scene_of(said: Answers) -> Scene:
    """Every 13th answer as the teacher and the student see it."""
    local: Any = open_model("smollm2")
    student = prune(local.model, KEEP)
    pairs, theirs = said.pairs[::EVERY], said.hidden[::EVERY]
    with torch.inference_mode():
        ours = [answer_hidden(student, [pair], pad_id=local.pad_id)[0].clone() for pair in pairs]
    tokens = torch.tensor([token for _, answer in pairs for token in answer])
    lengths = tuple(len(answer) for _, answer in pairs)
    return Scene(DenseSignal(torch.cat(theirs), said.head_VE), torch.cat(ours), said.head_VE, tokens, lengths)


def way_of(name: str, size: int) -> Way:
    """A way of storing `size` entries."""
    if name == "unbiased":
        return Way(f"{name} {size}", Keep("unbiased", size))
    return Way(f"{name} {size}", Keep("head", size), "renormalised" if name == "renormalised" else "")


def rows_of(found: Fidelity, num: int) -> list[Row]:
    """A way's figures; spreads are 95 % intervals over answers."""
    whole = {"total_variation": found.total_variation, "loss_bias": found.loss_bias, "cosine": found.cosine}
    plain = {
        "bytes_per_token": found.bytes_per_token,
        "loss_noise": found.loss_noise,
        "cosine_head": found.cosine_head,
        "bias_head": found.bias_head,
        "noise_head": found.noise_head,
    }
    return [
        *(Row(found.name, name, value, n=num) for name, value in plain.items()),
        *(Row(found.name, name, e.value, n=num, spread=(e.low, e.high)) for name, e in whole.items()),
    ]


def drawn(found: Sequence[Fidelity]) -> str:
    """Two charts over bytes a token: how far the stored target is off, and how far an answer's gradient turns."""
    series = {name: [f for f in found if f.name.split()[0] == name] for name in NAMES}
    charts = [
        line_chart(
            [
                Series(name, tuple(_point(f, e) for f in ways if (e := value(f))), tone=tone)
                for tone, (name, ways) in enumerate(series.items())
            ],
            title=title,
            desc=f"{title}, for {', '.join(f.name for f in found)}; numbers in bench/results/signal_fidelity.json",
            x_label="bytes a token",
            y_label=title,
            log_y=True,
        )
        for title, value in (
            ("total variation from the teacher's target", lambda f: f.total_variation),
            ("1 - cosine with the full gradient of an answer", _turned),
        )
    ]
    return page(charts)


def _turned(found: Fidelity) -> Estimate:
    e = found.cosine
    return Estimate(1 - e.value, 1 - e.high, 1 - e.low, e.n)


def _point(found: Fidelity, e: Estimate) -> Point:
    return Point(found.bytes_per_token, e.value, e.low, e.high)


if __name__ == "__main__":
    _schema.main("signal_fidelity", measure)
