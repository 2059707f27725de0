"""Lines of JSONL end at line feeds, whatever their strings hold."""

import json
from pathlib import Path

import pytest

from spiritsafe.measure.data import rows
from spiritsafe.record import Message, append_jsonl, jsonl_lines, read_jsonl

SEPARATORS = ["\u2028", "\u2029", "\u0085", "\x0b", "\x0c", "\x1c", "\x1d", "\x1e"]


@pytest.mark.parametrize("separator", SEPARATORS, ids=ascii)
def test_a_string_may_hold_any_separator(separator: str, tmp_path: Path) -> None:
    text = f"one{separator}two"
    line = json.dumps({"prompt": text}, ensure_ascii=False)
    assert list(jsonl_lines(f"{line}\r\n\n{line}")) == [(1, f"{line}\r"), (3, line)]
    (tmp_path / "p.jsonl").write_text(f"\ufeff{line}\n{line}\n", encoding="utf-8")
    assert rows(str(tmp_path), "p.jsonl") == [{"prompt": text}] * 2
    append_jsonl(tmp_path / "m.jsonl", [Message(role="user", content=text)] * 2)
    assert [m.content for m in read_jsonl(tmp_path / "m.jsonl", Message)] == [text] * 2
