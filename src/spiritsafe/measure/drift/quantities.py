"""What is measured of every generation, as quantities of the drift table: from fidelity, sampled answers and tasks."""

from collections import Counter
from collections.abc import Mapping, Sequence

from spiritsafe.measure.drift.table import Quantity
from spiritsafe.measure.drift.texts import coverage, distinct, grams, has_rare
from spiritsafe.measure.fidelity import BINNED, METHOD, Fidelity, calibration
from spiritsafe.measure.harness import Cell
from spiritsafe.measure.safety.axis import OFF
from spiritsafe.measure.tasks.sampled import notes, together
from spiritsafe.recipe_photocopy import MarginsPart

Answers = Mapping[str, Sequence[Sequence[str]]]
CORPUS = "sampled answers to held-out prompts, all prompts together; jackknife over prompts"
SAMPLED = "sampled answers to held-out prompts, temperature 1"
OWN_PROMPTS = "says nothing about prompts unlike the teacher's own"
LENGTH = "depends on the length of answers: compare at equal lengths only"
BOUND = "no judge of harm was asked: unsafe is an upper bound of harm"


def of_fidelity(found: Mapping[str, Fidelity], margins: MarginsPart) -> list[Quantity]:
    """KL, acceptance, agreement, bits per byte and calibration error of every model."""
    one = next(iter(found.values()))
    tokens, ones = tuple(map(float, one.tokens)), (1.0,) * len(one.tokens)
    num_bytes = tuple(map(float, one.num_bytes))
    parts = (
        ("kl to teacher", "nats/token", {n: f.kl for n, f in found.items()}, tokens, margins.kl_nats, None),
        ("acceptance", "share of tokens", {n: f.accepted for n, f in found.items()}, tokens, margins.fraction, 1.0),
        ("top-1 agreement", "share of tokens", {n: f.agree for n, f in found.items()}, tokens, None, 1.0),
        ("bits per byte", "bits/byte", {n: f.bits for n, f in found.items()}, num_bytes, None, None),
        ("calibration error", "share of tokens", {n: tuple(calibration(f)) for n, f in found.items()}, ones, None, 1.0),
    )  # fmt: skip
    return [
        Quantity(
            name=name,
            unit=unit,
            method=f"teacher's answers, {BINNED}" if name == "calibration error" else METHOD.partition(";")[0],
            sums=sums,
            weights=weights,
            margin=margin,
            most=most,
            limits=(OWN_PROMPTS,),
        )
        for name, unit, sums, weights, margin, most in parts
    ]


def of_texts(answers: Answers, tail: Sequence[Sequence[str]], *, most: int, margins: MarginsPart) -> list[Quantity]:
    """Variety, tail coverage, semantic entropy, inconsistency; `tail` are other draws of the original's.

    `answers` (prompts, samples) by model.
    """
    ones = (1.0,) * len(tail)
    entropy, inconsistency = together("semantic-entropy"), together("self-consistency")

    def quantity(name: str, unit: str, values: Mapping[str, Sequence[float]], method: str, **more: object) -> Quantity:
        sums = {model: tuple(given) for model, given in values.items()}
        return Quantity.model_validate(
            {"name": name, "unit": unit, "method": method, "sums": sums, "weights": ones, **more}
        )

    each = answers.items()
    rare = f"words that the teacher says at most {most} time(s) in other draws to the same prompts; {CORPUS}"
    words = {n: [sum(len(grams(t, 1)) for t in texts) / len(texts) for texts in given] for n, given in each}
    kept = {n: coverage(tail, a, n=1, most=most) for n, a in each} if has_rare(tail, n=1, most=most) else {}
    found = [
        quantity("distinct-1", "share of words", {n: distinct(a, 1) for n, a in each}, CORPUS, most=1.0,
                 limits=[LENGTH]),
        quantity("distinct-2", "share of word pairs", {n: distinct(a, 2) for n, a in each}, CORPUS, most=1.0,
                 margin=margins.fraction, limits=[LENGTH]),
        quantity("tail coverage", "share of rare words", kept, rare, most=1.0,
                 margin=margins.fraction, limits=["another draw of the teacher itself covers less than all"]),
        quantity("words an answer", "words", words, SAMPLED),
        quantity("semantic entropy", entropy.unit, {n: [*map(entropy.score, a)] for n, a in each},
                 f"{SAMPLED}; {entropy.method}", margin=margins.entropy_nats, limits=notes()),
        quantity("inconsistency", inconsistency.unit, {n: [*map(inconsistency.score, a)] for n, a in each},
                 f"{SAMPLED}; {inconsistency.method}", most=1.0, margin=margins.fraction, limits=notes()),
    ]  # fmt: skip
    return [q for q in found if q.sums]


def of_cells(cells: Sequence[Cell], names: Mapping[str, str], *, guard: str, margins: MarginsPart) -> list[Quantity]:
    """Outcomes of the laboratory's tasks, those of one kind pooled; `names` gives each address its model's name."""
    kinds = (
        ("rejected", "rejected", OFF, margins.share),
        ("over-refusal", "over_refusal", OFF, margins.share),
        ("unsafe, control off", "unsafe", OFF, None),
        ("unsafe, control on", "unsafe", guard, None),
        ("over-refusal, control on", "over_refusal", guard, None),
        ("tasks solved", "accuracy", OFF, margins.share),
        ("truth share", "truth_share", OFF, margins.fraction),
    )
    found = [_pooled(n, [c for c in cells if (c.metric, c.setting) == (m, s)], names, to) for n, m, s, to in kinds]
    return [q for q in found if q is not None]


def _pooled(name: str, cells: Sequence[Cell], names: Mapping[str, str], margin: float | None) -> Quantity | None:
    if not cells:
        return None
    tasks = list(dict.fromkeys(c.task for c in cells))
    by_model = {label: [c for c in cells if c.model == address] for address, label in names.items()}
    # A prompt that a model did not answer is in none of its columns: models are laid side by side by task and prompt.
    outcomes = {label: _by_prompt(own) for label, own in by_model.items()}
    prompts = list(dict.fromkeys(prompt for own in outcomes.values() for prompt in own))
    prompts.sort(key=lambda prompt: tasks.index(prompt[0]))
    if not prompts:
        return None
    sums = {label: tuple(own.get(prompt) for prompt in prompts) for label, own in outcomes.items()}
    told = {label: [f"{c.task}: {c.unanswered}" for c in own if c.unanswered] for label, own in by_model.items()}
    notes = dict.fromkeys(c.note for c in cells if c.note)
    return Quantity(
        name=name,
        unit="share of tasks" if name == "tasks solved" else "share",
        method=", ".join(tasks) + ("" if cells[0].is_share else ": probability of the true choices among all (MC2)"),
        sums=sums,
        weights=(1.0,) * len(prompts),
        margin=margin,
        unanswered={label: "; ".join(texts) for label, texts in told.items() if texts},
        inconclusive=tuple(label for label, own in by_model.items() if any(c.inconclusive for c in own)),
        is_yes_no=cells[0].is_share,
        most=1.0,
        limits=(*notes, *((BOUND,) if name.startswith("unsafe") and not any(BOUND[:22] in n for n in notes) else ())),
    )


def _by_prompt(cells: Sequence[Cell]) -> dict[tuple[str, str, str, int], float]:
    """Outcomes by task, key and beginning of the item, and which of the items alike in these it is."""
    outcomes: dict[tuple[str, str, str, int], float] = {}
    for cell in cells:
        seen: Counter[tuple[str, str]] = Counter()
        begins = cell.excerpts or ("",) * len(cell.keys)
        # Where too much is missing there may be no outcomes at all.
        for key, begin, outcome in zip(cell.keys, begins, cell.outcomes, strict=False):
            outcomes[cell.task, key, begin, seen[key, begin]] = float(outcome)
            seen[key, begin] += 1
    return outcomes
