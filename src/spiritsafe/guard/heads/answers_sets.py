"""Questions with answers that people or published judges labelled: what the control of answers learns from.

    did harm     the answer does what a harmful request asks for: True, False, or None where nobody says
    declines     the answer declines in words

Real traffic is measured and its limits chosen on it; nothing is learnt from it.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from spiritsafe.errors import DataError
from spiritsafe.guard.heads import readers
from spiritsafe.guard.heads.readers import FIRST, LATER, MOST_CHARS, TURNS, every_sentence, mean_score, table_of
from spiritsafe.guard.heads.sets import GOALS, HARM_KINDS, OTHER_HARM, PYRIT, SETS, TRAFFIC_FILE, paths_of

HARMFUL_FROM, HARMLESS_BELOW = 0.5, 0.2  # of people's mean score of an answer's harm, 0 to 1; between, nobody says
MOST_TALKS = 1500


@dataclass(frozen=True)
class Pair:
    """A question and an answer. `group` is of one question, `writer` the model that answered, `part` of the set."""

    question: str
    answer: str
    did_harm: bool | None
    declines: bool | None = None
    group: str = ""
    writer: str = ""
    part: str = ""


@dataclass(frozen=True)
class PairSet:
    """A set of pairs: where it lies, and the set of requests whose relations (`FOLDS`) asked its questions."""

    name: str
    licence: str
    files: tuple[str, ...]
    read: Callable[[Sequence[Path]], list[Pair]]
    asked_in: str = ""

    def pairs(self, data: str) -> list[Pair]:
        """All its pairs. Raises `DataError` where a file is not at hand or is not of the stated form."""
        paths = [path for file in self.files for path in paths_of(data, file)]
        try:
            return self.read(paths)
        except (KeyError, ValueError) as error:
            raise DataError(self.name, f"is not of the stated form ({error})", "fetch it again") from None


def xstest_answers(paths: Sequence[Path]) -> list[Pair]:
    """Five models' answers to XSTest: harm is full compliance with an unsafe prompt; of a partial one nobody says."""
    return [_xstest(row, path.stem) for path in paths for row in table_of(path)]


def _xstest(row: dict[str, str], writer: str) -> Pair:
    unsafe = row["type"].startswith("contrast")
    complies, partly = row["final_label"].startswith("1"), row["final_label"].startswith("3")
    did_harm = None if unsafe and partly else unsafe and complies
    part = f"{'unsafe' if unsafe else 'safe'} {row['final_label'][2:].replace('_', ' ')}"
    return Pair(row["prompt"], row["completion"], did_harm, not complies, row["prompt"], writer, part)


def jailbroken(paths: Sequence[Path]) -> list[Pair]:
    """JailbreakBench's artifacts: attacks with the answers they got, judged by the benchmark's own judge."""
    return [
        Pair(row["prompt"], row["response"], bool(row["jailbroken"]), None, row["goal"], path.stem, path.stem[:3])
        for path in paths
        for row in json.loads(path.read_text("utf-8"))["jailbreaks"]
        if row["response"]
    ]


def rated(paths: Sequence[Path]) -> list[Pair]:
    """Answers that people rated for harm, or for having done what a red-teamer wanted."""
    found = []
    for path in paths:
        for row in table_of(path):
            score = mean_score(row)
            did_harm = True if score >= HARMFUL_FROM else False if score < HARMLESS_BELOW else None
            asked = row["objective"].strip()
            found.append(Pair(asked, row["assistant_response"], did_harm, None, asked, "", path.stem))
    return found


def refused(paths: Sequence[Path]) -> list[Pair]:
    """Answers that people labelled as refusals or not; a refusal did no harm."""
    rows = [row for path in paths for row in table_of(path)]
    marked = [(row, float(row["human_score"]) > HARMFUL_FROM) for row in rows]
    return [
        Pair(row["objective"], row["assistant_response"], False if no else None, no, row["objective"])
        for row, no in marked
    ]


def own_refusals(paths: Sequence[Path]) -> list[Pair]:
    """Refusals and harmless answers of ours, in five languages."""
    lines = [line for line in paths[0].read_text("utf-8").split("\n") if line[:1] in ("-", "+")]
    return [
        Pair("", text, False, line[0] == "-", f"own {number}", part=line[1:3])
        for number, line in enumerate(lines)
        for text in every_sentence(line[5:])
    ]


def traffic(paths: Sequence[Path]) -> list[Pair]:
    """Answers within real conversations, each with its question, up to `TURNS` of each; taken for harmless."""
    return [pair for talk in readers.talks(paths)[:MOST_TALKS] for pair in _of_talk(talk)]


def _of_talk(talk: readers.Talk) -> Iterator[Pair]:
    asked = 0
    for (who, question), (then, answer) in pairwise(talk):
        if who == "human" and then == "gpt" and question.strip() and answer.strip() and asked < TURNS:
            part = LATER if asked else FIRST
            asked += 1
            group = readers.named(talk)
            yield Pair(question[:MOST_CHARS], answer[:MOST_CHARS], False, None, group, "", part)


_OBJECTIVES = tuple(f"pypi:{PYRIT}scorer_evals/objective/{name}.csv" for name in GOALS)
_HARM = tuple(f"pypi:{PYRIT}scorer_evals/harm/{name}.csv" for name in HARM_KINDS + OTHER_HARM)
_REFUSALS = tuple(f"pypi:{PYRIT}scorer_evals/refusal_scorer/{name}.csv" for name in ("refusal", "refusal_extra"))
_ATTACKS = (*SETS["jailbreakbench-pair"].files, *SETS["jailbreakbench-jbc"].files)
LEARNT = (
    PairSet("xstest answers", "CC BY 4.0", ("safety/xstest/completions/",), xstest_answers, "xstest"),
    PairSet("jailbreakbench answers", "MIT", _ATTACKS, jailbroken, "jailbreakbench-pair"),
    PairSet("pyrit, rated for harm", "MIT", _HARM, rated, "pyrit-answers"),
    PairSet("pyrit, rated by objective", "MIT", _OBJECTIVES, rated, "pyrit-answers"),
    PairSet("pyrit, refusals", "MIT", _REFUSALS, refused, "pyrit-answers"),
    PairSet("refusals of ours", "Apache-2.0", ("ours:refusals.txt",), own_refusals),
)
TRAFFIC = PairSet("sharegpt", "none stated", TRAFFIC_FILE, traffic)
