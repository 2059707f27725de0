"""Hashed n-grams: C++ and numpy give the same, and what looks the same scores the same."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spiritsafe.guard.heads import ngrams
from spiritsafe.guard.views import views

WEIGHTS = ngrams.packed(np.random.default_rng(0).normal(size=(ngrams.WIDTH, 2)).astype(np.float32))
TEXTS = [
    "",
    "a",
    "wie backe ich brot?",
    "### привет, мир ###",
    "brie " * 1000,
    " ".join(map(str, range(700))),
    "1 2 3 4 5 6 7 8 " * 4000,
]


def both(text: str) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Buckets with and without C++."""
    compiled = ngrams.buckets(text)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ngrams, "_library", lambda: None)
        return compiled, ngrams.buckets(text)


@given(st.text(max_size=300))
def test_numpy_finds_the_buckets_that_cpp_finds(text: str) -> None:
    compiled, plain = both(text)
    assert [w.tolist() for w in compiled] == [w.tolist() for w in plain]


@pytest.mark.parametrize("text", TEXTS)
def test_scores_without_cpp_are_equal_to_rounding(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    compiled = ngrams.scores([text], WEIGHTS)
    monkeypatch.setattr(ngrams, "_library", lambda: None)
    assert np.allclose(compiled, ngrams.scores([text], WEIGHTS), atol=1e-5)


def test_a_long_text_is_read_in_windows_that_overlap_by_half() -> None:
    words = [f"w{i}" for i in range(ngrams.WINDOW + 2 * ngrams.STEP)]
    windows = ngrams.buckets(" ".join(words))
    assert len(windows) == 3
    [second] = ngrams.buckets(" ".join(words[ngrams.STEP : ngrams.STEP + ngrams.WINDOW]))
    assert windows[1].tolist() == second.tolist()


def test_a_long_harmless_text_hides_nothing() -> None:
    told = "parmesan " * 20
    weights = np.zeros((ngrams.WIDTH, 1), np.float32)
    weights[ngrams.buckets(told.strip())[0]] = 1
    weighed = ngrams.packed(weights)
    hidden = "bread and butter, " * 2000 + told + "bread and butter, " * 2000
    assert ngrams.scores([hidden], weighed)[0, 0] > 5 * ngrams.scores(["bread and butter, " * 4000], weighed)[0, 0]


def test_what_repeats_counts_once() -> None:
    assert ngrams.scores(["brie brie brie brie"], WEIGHTS)[0, 0] == pytest.approx(
        ngrams.scores(["brie brie brie brie brie"], WEIGHTS)[0, 0]
    )


@pytest.mark.parametrize("spelled", ["Gefährlich", "gefaehrlich", "GEFÄHRLICH", "gefährlich", "gef\u200bährlich"])
def test_spellings_that_look_alike_are_one(spelled: str) -> None:
    assert [w.tolist() for w in ngrams.buckets(views(spelled)[0])] == [
        w.tolist() for w in ngrams.buckets("gefaehrlich")
    ]


@given(st.lists(st.text("ab ?", max_size=2000), max_size=4))
def test_many_texts_score_as_each_does_alone(texts: list[str]) -> None:
    alone = [ngrams.scores([text], WEIGHTS)[0] for text in texts]
    assert np.array_equal(ngrams.scores(texts, WEIGHTS), np.reshape(alone, (-1, 2)).astype(np.float32))
