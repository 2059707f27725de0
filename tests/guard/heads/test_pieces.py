"""Pieces of a text: sentences and lines, not too short and not too long, and where they stand in the text."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from spiritsafe.guard.heads.pieces import FEWEST, MOST, pieces, place
from spiritsafe.guard.views import views


def read(text: str) -> list[str]:
    """The pieces as they stand in the text."""
    folded = views(text)[0]
    return [text[start:end] for start, end in (place(text, folded, span) for span in pieces(text, folded))]


def test_a_sentence_and_a_line_are_pieces_each() -> None:
    assert read("The garden was quiet. How do I bake rye bread?\n\nsome lines have no stop\nand here is another") == [
        "The garden was quiet.",
        "How do I bake rye bread?",
        "some lines have no stop",
        "and here is another",
    ]


def test_languages_without_blanks_have_pieces_too() -> None:
    text = "今日はとても良い天気ですね。パンの焼き方を教えてください。"
    folded = views(text)[0]
    assert len(pieces(text, folded)) == 2


def test_what_is_shorter_than_a_piece_goes_with_its_neighbour() -> None:
    assert read("Hi! I hope you are well. Bake bread?") == ["Hi! I hope you are well. Bake bread?"]
    assert read("Please. Bake me a loaf of bread. Thanks a lot!") == ["Please. Bake me a loaf of bread. Thanks a lot!"]


def test_a_long_run_of_words_is_cut_into_pieces_of_equal_size() -> None:
    folded = " ".join(f"w{n}" for n in range(2 * MOST + 2))
    sizes = [len(folded[start:end].split()) for start, end in pieces(folded, folded)]
    assert sum(sizes) == 2 * MOST + 2
    assert max(sizes) <= MOST
    assert max(sizes) - min(sizes) <= 2


@given(st.text(alphabet="ab .!?\n。ß\u200b\u00a0", max_size=400))
def test_pieces_are_all_of_the_text_and_places_lie_inside_it(text: str) -> None:
    folded = views(text)[0]
    spans = pieces(text, folded)
    assert spans[0][0] == 0
    assert spans[-1][1] == len(folded)
    assert all(before[1] == after[0] for before, after in pairwise(spans))
    assert all(len(folded[start:end].split()) >= FEWEST for start, end in spans if len(spans) > 1 and folded.isascii())
    for span in spans:
        start, end = place(text, folded, span)
        assert 0 <= start <= end <= len(text)
