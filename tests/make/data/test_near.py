"""Near-duplicates: the stated recall, no false one, the same in every language and every run."""

import random
import subprocess
import sys

from hypothesis import given
from hypothesis import strategies as st

from spiritsafe.checks.words import tokens
from spiritsafe.make.data.near import bands_for, near_duplicates

PAIRS = 3000


def pair(draw: random.Random, common: int, own: int) -> tuple[str, str]:
    """Two texts of `common + own` different words of which `common` are shared."""
    words = [f"w{draw.getrandbits(60)}" for _ in range(common + 2 * own)]
    first, second = words[: common + own], words[:common] + words[common + own :]
    draw.shuffle(first)
    draw.shuffle(second)
    return " ".join(first), " ".join(second)


def test_at_the_threshold_the_stated_recall_is_reached() -> None:
    draw = random.Random(0)
    texts = [text for _ in range(PAIRS) for text in pair(draw, 40, 5)]
    found = near_duplicates(texts, threshold=0.8, ngram=1, recall=0.999)
    assert {d.jaccard for d in found} == {0.8}
    assert all(d.index == d.of + 1 and d.of % 2 == 0 for d in found)
    # 3 misses are expected; 12 or more have a probability below 1e-4.
    assert len(found) > PAIRS - 12


def test_the_banding_formula_agrees_with_simulation_below_the_threshold() -> None:
    """Candidates at J = 0.5 are not duplicates at 0.8; at threshold 0.5 exactly, recall is as computed."""
    draw, bands = random.Random(1), bands_for(0.5, 0.9)
    texts = [text for _ in range(PAIRS) for text in pair(draw, 20, 10)]
    assert near_duplicates(texts, threshold=0.8, ngram=1) == []
    share = len(near_duplicates(texts, threshold=0.5, ngram=1, recall=0.9)) / PAIRS
    assert abs(share - bands.recall(0.5)) < 4 * (bands.recall(0.5) * (1 - bands.recall(0.5)) / PAIRS) ** 0.5


def test_bands_keep_their_recall_and_grow_more_selective_with_the_threshold() -> None:
    for threshold in (0.5, 0.7, 0.8, 0.9):
        bands = bands_for(threshold, 0.999)
        assert bands.recall(threshold) >= 0.999
        assert bands.num * bands.rows <= 128
    assert bands_for(0.9, 0.999).recall(0.5) < bands_for(0.7, 0.999).recall(0.5)


def test_the_first_is_kept_and_doubles_of_doubles_are_measured_against_what_is_kept() -> None:
    words = [f"word{i}" for i in range(40)]
    chain = [" ".join(words[i:] + [f"new{k}" for k in range(i)]) for i in (0, 3, 6, 20)]
    found = near_duplicates(chain, threshold=0.8, ngram=1)
    assert [(d.index, d.of) for d in found] == [(1, 0)]


def test_german_chinese_and_code_are_compared_alike() -> None:
    texts = [
        "Die Straße führt über den großen Fluss und endet dann am alten Markt der Stadt.",
        "DIE STRASSE FÜHRT ÜBER DEN GROSSEN FLUSS UND ENDET DANN AM ALTEN MARKT DER STADT.",
        "请用一句话解释为什么天空在白天看起来是蓝色的而在傍晚是红色的",
        "请用一句话解释为什么天空在白天看起来是蓝色的而在傍晚是红色的吗",
        "def area(r):\n    return 3.14 * r ** 2\n",
        "def area(r): return 3.140 * r**2",
        "def area(r): return 2 + r",
        "",
        "  \n",
    ]
    assert [(d.index, d.of) for d in near_duplicates(texts)] == [(1, 0), (3, 2), (5, 4), (8, 7)]


@given(st.lists(st.lists(st.sampled_from("abcde"), max_size=8).map(" ".join), max_size=8))
def test_only_exact_similarity_makes_a_double(texts: list[str]) -> None:
    def similarity(a: str, b: str) -> float:
        first, second = set(tokens(a)), set(tokens(b))
        return len(first & second) / len(first | second) if first | second else 1.0

    found = near_duplicates(texts, threshold=0.6, ngram=1, recall=0.999999)
    assert all(similarity(texts[d.index], texts[d.of]) == d.jaccard >= 0.6 for d in found)
    dropped = {d.index for d in found}
    assert all(d.of < d.index and d.of not in dropped for d in found)


def test_another_process_with_another_hash_seed_finds_the_same() -> None:
    code = (
        "import random; from spiritsafe.make.data.near import near_duplicates; d = random.Random(2);"
        "print(near_duplicates([' '.join(d.choices('abcdefgh', k=9)) for _ in range(300)], threshold=0.5, ngram=1))"
    )
    runs = {
        subprocess.run(
            [sys.executable, "-c", code], env={"PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True
        ).stdout
        for seed in ("1", "2")
    }
    assert len(runs) == 1
    assert "Double(" in runs.pop()
