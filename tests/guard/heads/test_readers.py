"""What is read from published files: rows with what they say, equal ones once."""

import json
from pathlib import Path

import pytest

from spiritsafe.guard.heads import readers


def test_toxic_beginnings_are_abusive_texts_and_no_requests(tmp_path: Path) -> None:
    (tmp_path / "insult.txt").write_text("You silly cask\n\nYou  silly cask\nYou silly cask\n", encoding="utf-8")
    (tmp_path / "threat.txt").write_text("You silly cask\nI will\n", encoding="utf-8")
    rows = readers.toxic_beginnings([tmp_path / "insult.txt", tmp_path / "threat.txt"])
    assert [row.text for row in rows] == ["You silly cask", "You  silly cask", "I will"]
    assert all(row.says == {"abusive": True} for row in rows)


def test_of_calls_of_tools_only_what_users_ask_is_read_and_not_more_than_some(tmp_path: Path) -> None:
    turn = [{"role": "system", "content": "You are a helpful tool of many."}, {"role": "user", "content": "Go"}]
    asked = [[{"role": "user", "content": f"Book a table for {n} persons"}] for n in range(readers.MOST_CALLS + 50)]
    lines = [json.dumps({"question": question}) for question in ([turn], *([a] for a in asked), [asked[0]])]
    (tmp_path / "calls.json").write_text("\n".join(lines), encoding="utf-8")
    rows = readers.function_calls([tmp_path / "calls.json"])
    texts = [row.text for row in rows]
    assert len(texts) == len(set(texts)) == readers.MOST_CALLS
    assert all(text.startswith("Book a table") for text in texts)
    assert all(row.says == readers.HARMLESS for row in rows)
    assert [row.text for row in readers.function_calls([tmp_path / "calls.json"])] == texts


@pytest.mark.parametrize(
    ("text", "is_long"),
    [
        ("Apri la finestra in cucina", True),
        ("Apri la finestra", False),
        ("窓を開けてください、暑いから", True),
        ("窓を開けて", False),
        ("Donaudampfschifffahrt", False),
    ],
)
def test_small_talk_is_read_where_it_is_a_sentence(text: str, is_long: bool, tmp_path: Path) -> None:
    folder = tmp_path / "italian"
    folder.mkdir()
    path = folder / "talk.yml"
    path.write_text(json.dumps({"conversations": [[text]]}), encoding="utf-8")
    assert [(row.text, row.lang) for row in readers.chatterbot([path])] == [(text, "it")] * is_long
