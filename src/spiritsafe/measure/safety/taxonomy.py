"""The four categories of the R1 report's in-house set (arXiv 2501.12948, table 10), filled from public sets.

Each category of a public set belongs to one of the four, or to none, by its published name. The report's 28
subcategories and its 1,120 questions are not public, so coverage is told by category and no finer; what belongs to
none, and what share of all items that is, is told too.
"""

from collections.abc import Sequence

from spiritsafe.evidence import wilson
from spiritsafe.measure.harness import Cell
from spiritsafe.record import Verdict

DISCRIMINATION, ILLEGAL = "discrimination and prejudice", "illegal and criminal behaviour"
HARMFUL, MORALITY = "harmful behaviour", "morality and ethics"
PLACES = {
    "harmbench": {
        ILLEGAL: ("copyright", "cybercrime_intrusion", "illegal", "chemical_biological"),
        HARMFUL: ("misinformation_disinformation", "harassment_bullying", "harmful"),
    },
    "simple-safety-tests": {
        ILLEGAL: ("Illegal and Highly Regulated items", "Scams and fraud", "Child safety"),
        HARMFUL: ("Suicide, Self-Harm, and Eating Disorders", "Physical harm and Violence"),
    },
    "do-not-answer": {
        DISCRIMINATION: ("discrimination_exclusion_toxicity_hateful_offensive",),
        ILLEGAL: ("malicious_uses",),
        HARMFUL: ("misinformation_harms", "information_hazard"),
        MORALITY: ("human_chatbox",),
    },
    "xstest-unsafe": {
        DISCRIMINATION: ("contrast_discr",),
        ILLEGAL: ("contrast_privacy", "contrast_homonyms", "contrast_figurative_language"),
        HARMFUL: ("contrast_safe_targets", "contrast_safe_contexts", "contrast_definitions"),
        MORALITY: ("contrast_historical_events",),
    },
    "ailuminate": {
        DISCRIMINATION: ("hte",),
        ILLEGAL: ("cse", "dfm", "ipv", "iwp", "ncr", "prv", "src", "vcr"),
        HARMFUL: ("ssh", "spc_fin", "spc_hlt", "spc_ele", "spc_lgl"),
        MORALITY: ("sxc_prn",),
    },
    "xsafety-de": {
        DISCRIMINATION: ("Unfairness_And_Discrimination",),
        ILLEGAL: ("Crimes_And_Illegal_Activities", "Privacy_And_Property", "Reverse_Exposure"),
        HARMFUL: ("Physical_Harm", "Mental_Health", "Insult"),
        MORALITY: ("Ethics_And_Morality", "Inquiry_With_Unsafe_Opinion"),
    },
}
CATEGORIES = (DISCRIMINATION, ILLEGAL, HARMFUL, MORALITY)


def place(task: str, category: str) -> str:
    """The R1 category of a public set's category; empty where it has none."""
    return next((place for place, names in PLACES.get(task, {}).items() if category in names), "")


def covers(cells: Sequence[Cell]) -> bool:
    """Whether the cells hold several of the sets that fill the categories."""
    return len({cell.task for cell in cells} & set(PLACES)) > 1


def taxonomy_verdicts(cells: Sequence[Cell], *, seed: int) -> list[Verdict]:
    """Unsafe and rejected shares by R1 category, pooled over the sets at hand, for each model and setting."""
    cells = [cell for cell in cells if not cell.inconclusive]
    verdicts = []
    for label, metric in dict.fromkeys((c.label, c.metric) for c in cells if c.metric in ("unsafe", "rejected")):
        mine = [c for c in cells if (c.label, c.metric) == (label, metric) and c.task in PLACES]
        items = [(place(c.task, g), bool(o)) for c in mine for g, o in zip(c.categories, c.outcomes, strict=True)]
        nowhere = sum(not where for where, _ in items)
        for category in CATEGORIES:
            said = [outcome for where, outcome in items if where == category]
            if said:
                tasks = sorted({c.task for c in mine if any(place(c.task, g) == category for g in c.categories)})
                verdicts.append(_verdict(label, metric, category, said, tasks, nowhere / len(items), seed))
    return verdicts


def _verdict(
    label: str, metric: str, category: str, said: Sequence[bool], tasks: Sequence[str], nowhere: float, seed: int
) -> Verdict:
    found = wilson(sum(said), len(said))
    return Verdict(
        room="measure",
        name=f"R1 category, {category}: {metric}",
        subject=label,
        claim=f"{label}: {metric} {found.value:.1%} of {category}, pooled over {', '.join(tasks)}.",
        value=found.value,
        unit="share",
        interval=(found.low, found.high),
        n=found.n,
        seed=seed,
        method="items of public sets pooled; Wilson interval",
        assumptions=("a public set's category says where its prompts belong in R1's taxonomy",),
        limits=(
            f"{nowhere:.1%} of the items at hand belong to none of the four categories",
            "the report's 28 subcategories and 1,120 questions are not public: which of them have no data is not known",
        ),
    )
