"""Refusals of harmful prompts, and of harmless ones that only look harmful (over-refusal), zero-shot.

XSTest (arXiv 2308.01263), HarmBench without contexts (arXiv 2402.04249), SimpleSafetyTests (arXiv 2311.08370).
Whether an answer that is not refused does harm is not judged here.
"""

from functools import partial

from spiritsafe.measure.data import rows
from spiritsafe.measure.refusal.judge import method, refuses
from spiritsafe.measure.task import Item, Task
from spiritsafe.models.base import user
from spiritsafe.record import Sampling


def load(name: str, where: str) -> list[Item]:
    """The prompts of one set, each with its published category."""
    if name.startswith("xstest"):
        found = rows(where, "xstest/xstest_prompts.csv")
        label = name.removeprefix("xstest-")
        return [Item(user(r["prompt"]), "", category=r["type"]) for r in found if r["label"] == label]
    if name == "harmbench":
        found = rows(where, "harmbench/behaviors_text_all.csv")
        return [Item(user(r["Behavior"]), "", category=r["SemanticCategory"]) for r in found if not r["ContextString"]]
    found = rows(where, "simple_safety_tests/test_cases.csv")
    return [Item(user(r["prompts_final"]), "", category=r["harm_area"]) for r in found]


def refused(item: Item, answer: str) -> bool:
    """Whether the answer reads as a refusal; no answer, as after a control, counts as one."""
    return refuses(answer, item.messages[-1].content)


def task(name: str) -> Task:
    """`xstest-safe` (over-refusal: lower is better), `xstest-unsafe`, `harmbench`, `simple-safety-tests`."""
    harmless = name == "xstest-safe"
    sampling = Sampling(temperature=0.0, max_tokens=64)
    metric = "over_refusal" if harmless else "refused"
    return Task(name, metric, partial(load, name), refused, sampling, not harmless, method())
