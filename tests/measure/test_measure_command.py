"""`spiritsafe measure` from the command line: table, files, gate and its exit code."""

import json
import sys
from pathlib import Path

import pytest

from spiritsafe.cli import main
from spiritsafe.guard.app import create_app
from spiritsafe.guard.keys import Keys
from spiritsafe.guard.server import serving
from spiritsafe.models import open_model


@pytest.fixture
def data(tmp_path: Path) -> str:
    """Twenty questions, all of them answered by 7, which an echo says to the one that holds it."""
    rows = [{"question": f"Vat {i}?", "answer": "#### 7"} for i in range(20)]
    (tmp_path / "gsm8k").mkdir()
    (tmp_path / "gsm8k" / "test.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    return str(tmp_path)


def run(monkeypatch: pytest.MonkeyPatch, *words: str) -> object:
    """The exit code of `spiritsafe measure WORDS`."""
    monkeypatch.setattr(sys, "argv", ["spiritsafe", "measure", *words])
    with pytest.raises(SystemExit) as end:
        main()
    return end.value.code


def test_it_measures_two_models_and_gates(
    data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    words = ("fake:echo", "fake:fixed=7", "--task", "gsm8k", "--data", data, "-o", str(out), "--json")
    assert run(monkeypatch, *words) == 0
    printed = json.loads(capsys.readouterr().out)["verdicts"]
    assert printed == json.loads((out / "verdicts.json").read_text())["verdicts"]
    assert [v["value"] for v in printed] == [0.05, 1.0, 0.95]
    assert run(monkeypatch, *words, "--gate", "accuracy>=0.5") == 3
    assert "missed: fake:echo" in capsys.readouterr().err
    assert 'failures="1"' in (out / "junit.xml").read_text()


@pytest.mark.parametrize("edited", ["verdicts.json", "exchanges/", "evidence.json"])
def test_a_report_of_edited_evidence_is_refused(
    data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], edited: str
) -> None:
    out = tmp_path / "out"
    assert run(monkeypatch, "fake:echo", "--task", "gsm8k", "--data", data, "-o", str(out)) == 0
    monkeypatch.setattr(sys, "argv", ["spiritsafe", "report", str(out)])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 0
    capsys.readouterr()
    path = next((out / edited).glob("*.jsonl")) if edited.endswith("/") else out / edited
    path.write_text(path.read_text().replace('"answer":"', '"answer":"X', 1).replace("1", "2", 1))

    with pytest.raises(SystemExit) as end:
        main()

    assert end.value.code == 1
    assert "was changed since" in capsys.readouterr().err


def test_no_task_is_a_usage_error(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(monkeypatch, "fake:echo") == 2
    assert "no task is named" in capsys.readouterr().err


def test_a_spent_budget_leaves_a_partial_report_and_fails(
    data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    words = ("fake:echo", "fake:fixed=7", "--task", "gsm8k", "--data", data, "-o", str(out), "--max-tokens", "30")
    assert run(monkeypatch, *words, "--gate", "accuracy>=0.01") == 1
    assert "is not whole: --max-tokens" in capsys.readouterr().err
    assert "not whole" in (out / "report.html").read_text()
    assert run(monkeypatch, *words[:-2]) == 0
    assert "not whole" not in (out / "report.html").read_text()


def test_other_harnesses_files_stand_in_the_same_table_as_a_model(
    data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    log = {
        "status": "success",
        "eval": {"task": "toy", "model": "org/a"},
        "plan": {},
        "samples": [{"id": i, "scores": {"match": {"value": "C"}}} for i in range(9)],
    }
    (tmp_path / "log.json").write_text(json.dumps(log))
    words = ("--import", str(tmp_path / "log.json"), "-o", str(tmp_path / "out"), "--json")
    assert run(monkeypatch, *words, "--every-eval", str(tmp_path / "eee")) == 0
    assert [v["subject"] for v in json.loads(capsys.readouterr().out)["verdicts"]] == ["org/a"]
    assert run(monkeypatch, "fake:echo", "--task", "gsm8k", "--data", data, *words, "--every-eval", str(tmp_path)) == 0
    found = json.loads(capsys.readouterr().out)["verdicts"]
    assert [(v["subject"], v["name"]) for v in found] == [("fake:echo", "gsm8k: accuracy"), ("org/a", "toy: match")]
    assert [p.parent.name for p in tmp_path.glob("data/spiritsafe/*/*/*.json")] == ["fake-echo"]
    assert not (tmp_path / "eee").exists()


def test_nothing_to_measure_is_a_usage_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "--suite", "nature") == 2
    assert "no model is named" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--max-usd", "1"), "--max-usd: the price of openai:m@http://127.0.0.1:"),
        (("--max-usd", "1", "--usd-per-mtok", "1"), "--usd-per-mtok 1: is not IN,OUT; e.g. 0.15,0.60"),
        (("--key-env", "NO_SUCH_KEY"), "--key-env NO_SUCH_KEY: NO_SUCH_KEY is not set"),
    ],
)
def test_an_option_that_cannot_be_heeded_is_a_usage_error(
    data: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    options: tuple[str, ...],
    said: str,
) -> None:
    app = create_app(open_model("fake:echo"), keys=(keys := Keys(tmp_path / "k")), log=tmp_path / "l.jsonl", name="m")
    monkeypatch.setenv("SPIRITSAFE_API_KEY", keys.create("alice"))
    with serving(app) as url:
        words = (f"openai:m@{url}/v1", "--task", "gsm8k", "--data", data, "-o", str(tmp_path / "out"), *options)
        assert run(monkeypatch, *words) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "l.jsonl").exists()


def test_results_that_another_measurement_replaces_are_named(
    data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("fake:echo", "--data", data, "-o", str(tmp_path / "out"))
    (tmp_path / "prompts.txt").write_text("Hello?\nWho?\n")
    assert run(monkeypatch, *words, "--task", "gsm8k") == 0
    assert "replaced" not in capsys.readouterr().err
    assert run(monkeypatch, *words, "--task", f"self-consistency:{tmp_path / 'prompts.txt'}") == 0
    assert "results of gsm8k are replaced by these; their answers are kept" in capsys.readouterr().err
