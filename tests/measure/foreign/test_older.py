"""Logs of older, cut-off or broken harnesses: imported with what is missing named, or refused in one line."""

import json
from pathlib import Path
from typing import Any

import pytest

from spiritsafe.errors import DataError
from spiritsafe.measure.foreign.imported import Imported
from spiritsafe.measure.foreign.read import read_foreign

EVAL = {"task": "arith", "model": "openai/x"}
RESULTS = {
    "results": {"t": {"exact_match,strict-match": 0.5, "alias": "t"}},
    "configs": {"t": {}},
    "n-samples": {"t": {"effective": 4}},
    "higher_is_better": {"t": {"exact_match": True}},
    "config": {"model": "hf"},
    "model_name": "org/a",
}
Json = dict[str, Any]


def sample(number: int, score: Any) -> Json:
    """One sample as lm-evaluation-harness writes it today."""
    row = {"doc_id": number, "doc_hash": f"h{number}", "filter": "none", "metrics": ["exact_match"]}
    return row | {"exact_match": score, "text": "a\u2028b\u0085c"}


def lm_eval(folder: Path, lines: list[str], results: Json | None = None) -> Imported:
    """A results file and samples beside it, imported."""
    (folder / "results_1.json").write_text(json.dumps(results or RESULTS))
    (folder / "samples_t_1.jsonl").write_text("\n".join(lines))
    return read_foreign([folder / "results_1.json"])


def inspect(folder: Path, **parts: Any) -> Imported:
    """An inspect log, imported; with a byte order mark, as Windows writes it."""
    log = {"version": 2, "status": "success", "eval": EVAL, "plan": {}} | parts
    (folder / "log.json").write_text(json.dumps(log), encoding="utf-8-sig")
    return read_foreign([folder / "log.json"])


def scores(*values: Any) -> list[Json]:
    """Samples of an inspect log."""
    return [{"id": number, "epoch": 1, "scores": {"match": {"value": value}}} for number, value in enumerate(values)]


def test_line_separators_inside_a_sample_end_no_line(tmp_path: Path) -> None:
    imported = lm_eval(tmp_path, [json.dumps(sample(n, 1.0), ensure_ascii=False) for n in range(4)])
    assert [len(cell.outcomes) for cell in imported.cells] == [4]
    assert imported.left_out == []


def test_a_last_line_that_was_cut_off_is_named_and_the_others_count(tmp_path: Path) -> None:
    imported = lm_eval(tmp_path, [*(json.dumps(sample(n, 1.0)) for n in range(4)), '{"doc_id": 4, "doc'])
    assert [len(cell.outcomes) for cell in imported.cells] == [4]
    assert imported.left_out == ["samples_t_1.jsonl: line 5 cannot be read (was the run cut off?)"]


def test_samples_before_metrics_were_named_take_them_from_the_results(tmp_path: Path) -> None:
    lines = [json.dumps({"doc_id": n, "exact_match": float(n % 2)}) for n in range(4)]
    (cell,) = lm_eval(tmp_path, lines).cells
    assert (cell.metric, cell.outcomes) == ("exact_match_strict_match", (0.0, 1.0, 0.0, 1.0))


@pytest.mark.parametrize("score", [float("nan"), None, "none"])
def test_one_sample_without_a_score_costs_that_sample_alone(tmp_path: Path, score: Any) -> None:
    imported = lm_eval(tmp_path, [json.dumps(sample(n, score if n == 2 else 1.0)) for n in range(12)])
    (cell,) = imported.cells
    assert len(cell.outcomes) == 11
    assert "1 samples without a score are left out" in cell.note
    assert imported.left_out == ["samples_t_1.jsonl: exact_match: 1 samples without a score"]


def test_a_metric_that_too_many_samples_lack_is_left_out_and_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="exact_match: 2 of 4 samples have no score, too many"):
        lm_eval(tmp_path, [json.dumps(sample(n, None if n < 2 else 1.0)) for n in range(4)])


def test_results_without_numbers_of_samples_say_so_instead_of_an_empty_table(tmp_path: Path) -> None:
    path = tmp_path / "results_0.json"
    path.write_text(json.dumps({key: value for key, value in RESULTS.items() if key != "n-samples"}))
    with pytest.raises(DataError, match="t: its number of samples is not known"):
        read_foreign([path])


def test_the_first_version_of_inspect_logs_is_read(tmp_path: Path) -> None:
    samples = [{"id": n, "epoch": 1, "score": {"value": "C"}} for n in range(3)]
    (cell,) = inspect(tmp_path, version=1, results={"scorer": {"name": "match"}}, samples=samples).cells
    assert (cell.metric, cell.outcomes) == ("match", (1.0, 1.0, 1.0))


def test_scores_as_text_are_numbers_and_those_that_are_none_are_named(tmp_path: Path) -> None:
    imported = inspect(tmp_path, samples=scores("1", "0.5", True, "I", float("nan")))
    (cell,) = imported.cells
    assert cell.outcomes == (1.0, 0.5, 1.0, 0.0)
    assert imported.left_out == ["arith: match: 1 samples without a score"]


def test_grouped_metrics_are_read_under_their_group(tmp_path: Path) -> None:
    score = {"name": "match", "metrics": {"grp": [{"accuracy": {"value": 0.5}}]}}
    (mean,) = inspect(tmp_path, results={"scores": [score], "completed_samples": 4}).means
    assert (mean.name, mean.value, mean.n) == ("arith: match_grp", 0.5, 4)


def test_a_sample_that_stands_twice_in_an_epoch_is_named(tmp_path: Path) -> None:
    assert "stand twice" in inspect(tmp_path, samples=[*scores("C", "I"), *scores("I")]).left_out[0]


@pytest.mark.parametrize(
    ("parts", "told"),
    [
        ({"eval": {"task": "arith"}, "samples": scores("C")}, "names no model"),
        ({"samples": [{"id": 1, "scores": {"match": 3, "x": []}}, "text"]}, "is not as its harness writes it"),
        ({"results": {"scores": [{"name": "match"}]}}, "is not as its harness writes it"),
    ],
)
def test_a_log_of_another_form_is_one_line(tmp_path: Path, parts: Json, told: str) -> None:
    with pytest.raises(DataError, match=told):
        inspect(tmp_path, **parts)
