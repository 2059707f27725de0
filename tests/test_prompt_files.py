"""Files of prompts as people have them: read as they mean it, or refused with the reason."""

import csv
import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from spiritsafe.errors import DataError
from spiritsafe.prompts import Prompt, PromptFile, read_prompt_file

ASKED = ["What is peat?", "Who cuts it?", "Why does it burn?", "Where is it found?", "How old is it?", "Is it wet?"]
ROWS = [{"prompt": text} for text in ASKED]


def read(folder: Path, name: str, data: str | bytes) -> PromptFile:
    """A file with these bytes, read."""
    path = folder / name
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return read_prompt_file(path, heldout_share=0.0)


def lines(*rows: Any) -> str:
    """JSON lines."""
    return "".join(json.dumps(row) + "\n" for row in rows)


def texts(found: PromptFile) -> list[str]:
    """What is asked last in each prompt."""
    return [p.messages[-1].content for p in found.prompts]


def only(folder: Path, row: dict[str, Any]) -> Prompt:
    """The prompt of a file with one row."""
    [prompt] = read(folder, "one.jsonl", lines(row)).prompts
    return prompt


def turns(prompt: Prompt) -> list[tuple[str, str]]:
    """Roles and contents."""
    return [(m.role, m.content) for m in prompt.messages]


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("p.jsonl", lines(*ROWS)),
        ("p.JSONL", lines(*ROWS)),
        ("p.ndjson", lines(*ROWS)),
        ("p.jsonl", "\ufeff" + lines(*ROWS)),
        ("p.jsonl", lines(*ROWS).replace("\n", "\r\n")),
        ("p.jsonl", "\n\n" + lines(*ROWS) + "\n"),
        ("p.jsonl", lines(ROWS)),
        ("p.jsonl", "".join(json.dumps(row, indent=2) + "\n" for row in ROWS)),
        ("p.jsonl", json.dumps(ROWS, indent=1)),
        ("p.json", json.dumps(ROWS)),
        ("p.json", json.dumps({"version": "1", "data": ROWS}, indent=1)),
        ("p.json", lines(*ROWS)),
        ("p.jsonl", lines(*ROWS).encode("utf-16")),
        ("p.csv", "prompt,kind\n" + "".join(f'"{text}",a\n' for text in ASKED)),
        ("p.csv", "\ufeffprompt;kind\r\n" + "".join(f'"{text}";a\r\n' for text in ASKED)),
        ("p.tsv", "prompt\tkind\n" + "".join(f"{text}\ta\n" for text in ASKED)),
        ("p.txt", "\ufeff" + "\n".join(ASKED)),
        ("p.TXT", "\r\n".join(ASKED)),
        ("p.jsonl.gz", gzip.compress(lines(*ROWS).encode(), mtime=0)),
        ("p.csv.gz", gzip.compress(("prompt\n" + "\n".join(ASKED)).encode(), mtime=0)),
    ],
)
def test_every_common_form_holds_the_same_prompts(name: str, data: str | bytes, tmp_path: Path) -> None:
    found = read(tmp_path, name, data)
    assert texts(found) == ASKED
    assert found.said.startswith(f"{name}: 6 rows as ")
    assert "6 prompts" in found.said


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("p.parquet", b"PAR1", "is Parquet, which is not read here"),
        ("p.xlsx", b"PK", r"has no ending that says its form \('\.xlsx'\); known are \.jsonl"),
        ("prompts", b"one", r"has no ending that says its form \(''\)"),
        ("p.jsonl.gz", b"no gzip", "cannot be unpacked"),
        ("p.jsonl", lines(*ROWS).encode("utf-16")[2:], "looks like UTF-16 without a mark"),
        ("p.csv", "prompt\nGrüße\n".encode("latin-1"), "is not UTF-8 .byte 0xfc; Latin-1"),
        ("p.csv", "colour,shape\nred,round\n", "line 2 has no prompt; it has colour, shape"),
        ("p.csv", 'prompt\n"never closed\n', "is broken"),
        ("p.json", '{"prompt": ', "is not JSON"),
        ("p.json", "7", "holds no array of objects"),
        ("p.json", "[" * 100_000, "is nested too deeply"),
        ("p.jsonl", lines({"messages": [{"role": "user", "content": "x"}, {"role": "tool", "content": "4"}]}), "tool"),
        ("p.jsonl", lines({"question": "Which?", "choices": ["a", "b"], "answer": 1}), "has choices to choose from"),
        ("p.jsonl", lines({"instruction": "Sum up.", "input": ["a"]}), "its input beside instruction is a list"),
        ("p.jsonl", lines({"question": "x?", "answer": {"text": "y"}}), "its answer is an object"),
        ("p.jsonl", lines({"prompt": 12}), "line 1 has no prompt: its prompt is a number"),
    ],
)
def test_the_rest_is_refused_with_the_reason(name: str, data: str | bytes, said: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=said):
        read(tmp_path, name, data)


def test_an_instruction_keeps_its_input_and_its_output_is_an_answer_apart(tmp_path: Path) -> None:
    rows = [
        {"instruction": "Translate.", "input": "good day", "output": "guten Tag"},
        {"instruction": "Translate.", "input": "thank you", "output": "danke"},
        {"instruction": "Tell a joke.", "input": "", "output": "No."},
    ]
    found = read(tmp_path, "alpaca.json", json.dumps(rows))
    assert texts(found) == ["Translate.\n\ngood day", "Translate.\n\nthank you", "Tell a joke."]
    assert found.prompts[0].options == {"given": "guten Tag"}
    assert "(instruction, input, output)" in found.said
    assert "3 with an answer of their own, kept aside" in found.said


def test_a_conversation_ends_with_what_is_asked_and_the_last_answer_is_left_off(tmp_path: Path) -> None:
    user, other = {"role": "user", "content": "What is peat?"}, {"role": "user", "content": "Who cuts it?"}
    said = {"role": "assistant", "content": "Old moss.", "weight": 1}
    sft = only(tmp_path, {"messages": [user, said]})
    assert (turns(sft), sft.options) == ([("user", "What is peat?")], {"given": "Old moss."})
    longer = only(tmp_path, {"messages": [{"role": "developer", "content": "Be brief."}, user, said, other]})
    assert [role for role, _ in turns(longer)] == ["developer", "user", "assistant", "user"]
    parts = only(tmp_path, {"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}, "b"]}]})
    assert turns(parts) == [("user", "a\nb")]
    listed = only(tmp_path, {"prompt": [user], "completion": [said]})
    assert (turns(listed), listed.options) == (turns(sft), sft.options)
    shared = {"from": "human", "value": "What is peat?"}, {"from": "gpt", "value": "Old moss."}
    sharegpt = only(tmp_path, {"system": "Be brief.", "conversations": list(shared)})
    assert turns(sharegpt) == [("system", "Be brief."), ("user", "What is peat?")]
    history = only(tmp_path, {"instruction": "And now?", "history": [["One?", "Two."]]})
    assert turns(history) == [("user", "One?"), ("assistant", "Two."), ("user", "And now?")]


@pytest.mark.parametrize(
    ("answer", "kept"),
    [("It is so.\n#### 4", "4"), (4, "4"), (2.5, "2.5"), (["4", "four"], ["4", "four"]), (None, None), (True, "True")],
)
def test_a_right_answer_of_any_type_is_checked_by(answer: Any, kept: Any, tmp_path: Path) -> None:
    prompt = only(tmp_path, {"question": "2 + 2?", "answer": answer})
    assert prompt.options.get("answer") == kept


@pytest.mark.parametrize("separator", ["\u2028", "\u2029", "\u0085", "\x0c"], ids=ascii)
def test_a_prompt_may_hold_any_separator(separator: str, tmp_path: Path) -> None:
    text = f"first{separator}second"
    found = read(tmp_path, "p.jsonl", json.dumps({"prompt": text}, ensure_ascii=False) + "\n" + lines(*ROWS))
    assert texts(found) == [text, *ASKED]


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (b'{"prompt": "half \\ud83d"}', "line 3 holds half a character"),
        (b'{"prompt": "Gr\xfc\xdfe"}', "line 3 is not UTF-8"),
        (b'{"prompt": ', "line 3 is not JSON"),
        (b'{"messages": []}', "line 3 is broken: its messages is no list of turns"),
        (b'{"messages": [{"role": "user", "content": null}]}', "line 3 is broken: the content of its turn 1 is null"),
        (b'{"messages": [{"role": "system", "content": "x"}]}', "have no user's turn at the end"),
        (b'{"prompt": null}', "line 3 has no prompt: its prompt is null"),
        (b'{"prompt": " "}', "line 3 has no prompt: its prompt is empty"),
        (b"[1]", "line 3 is no object"),
    ],
)
def test_one_bad_row_is_named_and_left_out_and_many_are_another_file(line: bytes, why: str, tmp_path: Path) -> None:
    good = lines(*ROWS).encode().splitlines(keepends=True)
    found = read(tmp_path, "p.jsonl", b"".join([*good[:2], line + b"\n", *good[2:]]))
    assert texts(found) == ASKED
    assert f"1 left out ({why}" in found.said or why in found.said
    with pytest.raises(DataError, match=r"\(2 of 8 rows cannot be read\)"):
        read(tmp_path, "p.jsonl", b"".join([*good, line + b"\n", line + b"\n"]))


def test_doubles_and_unused_columns_are_counted(tmp_path: Path) -> None:
    found = read(tmp_path, "p.jsonl", lines(*({**row, "id": 7, "family": "qa", "split": "train"} for row in ROWS * 2)))
    assert found.said == (
        "p.jsonl: 12 rows as JSON lines (prompt); 6 duplicates; 6 prompts; not used: family, id, split"
    )


def test_prompts_that_a_run_wrote_are_read_as_they_are_and_a_missing_field_is_named(tmp_path: Path) -> None:
    written = read(tmp_path, "p.jsonl", lines(*ROWS)).prompts
    again = read(tmp_path, "own.jsonl", lines(*(p.model_dump(mode="json") for p in written)))
    assert again.prompts == written
    own = written[0].model_dump(mode="json")
    with pytest.raises(DataError, match=r"line 1 is broken: source: Field required"):
        read(tmp_path, "own.jsonl", lines({k: v for k, v in own.items() if k != "source"}))
    with pytest.raises(DataError, match=r"digest: is not that of its messages"):
        read(tmp_path, "own.jsonl", lines({**own, "digest": "0" * 64}))


CASES = Path(__file__).parents[2] / "shared" / "cases" / "make" / "data"
REFUSED = {"llama-config.json", "messages-tools.jsonl"}


@pytest.mark.skipif(not CASES.is_dir(), reason="../shared/cases is not there")
def test_files_that_once_were_misread_are_read_or_refused_in_one_line() -> None:
    for path in sorted(CASES.iterdir()):
        if path.name in REFUSED:
            with pytest.raises(DataError):
                read_prompt_file(path, heldout_share=0.0)
        else:
            assert read_prompt_file(path, heldout_share=0.0).prompts


@pytest.mark.parametrize(
    ("row", "turns", "kept"),
    [
        ('{"Prompt ": "What is peat?", "Answer": 4}', ["What is peat?"], {"answer": "4"}),
        (
            '{"custom_id": "a", "body": {"messages": [{"role": "user", "content": "What is peat?"}]}}',
            ["What is peat?"],
            {},
        ),
        (
            '{"input": [{"role": "user", "content": "What is peat?"}], "ideal": "turf"}',
            ["What is peat?"],
            {"answer": "turf"},
        ),
        ('{"chosen": "\\n\\nHuman: What?\\n\\nAssistant: Turf.", "rejected": "x"}', ["What?"], {"given": "Turf."}),
        ('{"prompt": "What is peat?", "answer": NaN}', ["What is peat?"], {}),
        ('"What is peat?"', ["What is peat?"], {}),
    ],
)
def test_other_forms_are_read_as_they_are_meant(
    tmp_path: Path, row: str, turns: list[str], kept: dict[str, str]
) -> None:
    file = tmp_path / "p.jsonl"
    file.write_text(f"{row}\n")
    [prompt] = read_prompt_file(file, heldout_share=0.0).prompts
    assert [m.content for m in prompt.messages] == turns
    assert prompt.options == kept


@pytest.mark.parametrize(
    "row",
    [
        '{"text": "<s>[INST] What? [/INST] Turf. </s>"}',
        '{"text": "<|im_start|>user\\nWhat?<|im_end|>"}',
        '{"text": "### Human: What?\\n### Assistant: Turf."}',
        '{"text": "What?", "role": "prompter", "message_id": "1", "parent_id": null}',
    ],
)
def test_a_whole_conversation_in_one_text_is_refused(tmp_path: Path, row: str) -> None:
    file = tmp_path / "p.jsonl"
    file.write_text(f"{row}\n")
    with pytest.raises(DataError, match="messages"):
        read_prompt_file(file, heldout_share=0.0)


def test_a_small_table_leaves_long_fields_readable(tmp_path: Path) -> None:
    (tmp_path / "small.csv").write_text("prompt\nhello there\n")
    (tmp_path / "large.csv").write_text(f"prompt\n{'word ' * 40_000}\n")
    read_prompt_file(tmp_path / "small.csv", heldout_share=0.0)
    assert csv.field_size_limit() >= 131_072
    [prompt] = read_prompt_file(tmp_path / "large.csv", heldout_share=0.0).prompts
    assert len(prompt.messages[0].content) > 190_000


@pytest.mark.parametrize("header", ["Frage", "EINGABE", "Question Text", "prompt text", "Prompt_Text", " Question "])
@pytest.mark.parametrize("right", ["Antwort", "answer", "ANSWER"])
def test_what_spreadsheets_call_a_question_and_an_answer_is_known(header: str, right: str, tmp_path: Path) -> None:
    found = read(tmp_path, "p.csv", f"{header},{right},topic\nWhat is peat?,soil,bogs\n")
    assert texts(found) == ["What is peat?"]
    assert found.prompts[0].options == {"answer": "soil"}
    assert found.said.endswith("not used: topic")
    assert f"({header.strip()}, {right})" in found.said


def test_a_column_of_the_known_name_comes_before_what_spreadsheets_call_it(tmp_path: Path) -> None:
    found = read(tmp_path, "p.csv", "Frage,question\nWas ist Torf?,What is peat?\n")
    assert texts(found) == ["What is peat?"]
    assert found.said.endswith("not used: Frage")


@pytest.mark.parametrize("encoding", ["utf-16", "utf-8"])
def test_a_csv_with_tabs_as_spreadsheets_write_unicode_text_is_read(encoding: str, tmp_path: Path) -> None:
    table = "Frage\tAntwort\nWarum brennt Torf, wenn er trocken ist?\tKohlenstoff\n"
    found = read(tmp_path, "p.csv", table.encode(encoding))
    assert texts(found) == ["Warum brennt Torf, wenn er trocken ist?"]
    assert found.prompts[0].options == {"answer": "Kohlenstoff"}
