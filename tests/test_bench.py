"""The benches' schema: one JSON object on stdout, a dated line in the log, peers null until measured."""

import json
from pathlib import Path

import pytest

from bench import _schema, encoder
from bench._schema import Row
from tests.weights import at_hand

ROWS = [Row("spiritsafe --help", "help_s", 0.3, limit=0.02, n=10, spread=(0.2, 0.4))]


def run_bench(monkeypatch: pytest.MonkeyPatch, *options: str) -> None:
    """Run a bench that gives `ROWS` with these options, and whose peer writes to stdout."""

    def measure(seed: int) -> list[Row]:
        print(f"a peer's own line, {seed}")
        return ROWS

    monkeypatch.setattr("sys.argv", ["bench", *options])
    _schema.main("startup", measure)


def test_json_is_one_object_and_nothing_else(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run_bench(monkeypatch, "--json", "--seed", "3")
    result = json.loads(capsys.readouterr().out)
    assert (result["bench"], result["seed"]) == ("startup", 3)
    assert result["rows"][0]["spread"] == [0.2, 0.4]
    assert result["rows"][0]["peer"] is None
    assert result["machine"]["cores"] >= 1


def test_the_table_holds_each_metric_and_its_n(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run_bench(monkeypatch)
    assert capsys.readouterr().out.split() == ["help_s", "0.3", "n=10", "spiritsafe", "--help"]


def test_the_log_gets_one_dated_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(_schema, "LOG", tmp_path / "LOG.md")
    run_bench(monkeypatch, "--log")
    run_bench(monkeypatch, "--log")
    lines = (tmp_path / "LOG.md").read_text().splitlines()
    assert len(lines) == 2
    assert lines[0].endswith("`startup`: spiritsafe --help help_s 0.3 (0.2 to 0.4, n=10)")
    capsys.readouterr()


@pytest.mark.skipif(not at_hand(), reason="the encoder's weights are not at hand")
def test_the_encoders_peer_reads_the_same_pinned_weights() -> None:
    pytest.importorskip("onnxruntime")
    theirs, text = encoder._onnx(), "How do I bake bread?"
    assert float(encoder._english(text) @ theirs(text)) > 0.99
