"""lm-evaluation-harness's files become cells; written here in the form that version 0.4.13 writes."""

import json
from pathlib import Path
from typing import Any

import pytest

from spiritsafe.errors import DataError, UsageError
from spiritsafe.measure.compare import table_verdicts
from spiritsafe.measure.foreign.read import read_foreign

STAMP = "2026-11-24T22-46-21.602537"


def row(i: int, metrics: dict[str, Any], kept: str = "none") -> dict[str, Any]:
    """One line of a samples file."""
    doc = {"text": f"question {i}"}
    hashes = {"doc_hash": f"{i:064x}", "prompt_hash": "p", "target_hash": "t"}
    return (
        {"doc_id": i, "doc": doc, "target": "0", "resps": [], "filter": kept, "metrics": list(metrics)}
        | hashes
        | metrics
    )


def write(folder: Path, model: str, rows: list[dict[str, Any]] | None, task: str = "toy") -> Path:
    """A results file whose means are those of `rows`, with the samples beside it where there are any."""
    folder.mkdir(parents=True, exist_ok=True)
    means = {"acc,none": 0.75, "acc_stderr,none": 0.05, "word_perplexity,none": 12.0, "alias": task, "sample_len": 80}
    held = {
        "results": {task: means, "a_group": {"alias": "a_group", "acc,none": 0.5}},
        "configs": {task: {}},
        "n-shot": {task: 2},
        "n-samples": {task: {"original": 100, "effective": 80}},
        "higher_is_better": {task: {"acc": True, "word_perplexity": False}},
        "config": {"model": "hf"},
        "model_name": model,
        "lm_eval_version": "0.4.13",
    }
    path = folder / f"results_{STAMP}.json"
    path.write_text(json.dumps(held))
    if rows is not None:
        (folder / f"samples_{task}_{STAMP}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    return path


def test_two_models_samples_are_paired_on_the_documents_they_share(tmp_path: Path) -> None:
    right = [row(i, {"acc": 1.0}) for i in range(40)]
    wrong = [row(i, {"acc": 0.0}) for i in reversed(range(10, 50))]
    found = read_foreign([write(tmp_path / "a", "org/a", right), write(tmp_path / "b", "org/b", wrong)])
    assert [(c.model, c.task, c.metric, sum(c.outcomes)) for c in found.cells] == [
        ("org/a", "toy", "acc", 40),
        ("org/b", "toy", "acc", 0),
    ]
    (change,) = [v for v in table_verdicts(found.cells, seed=0) if "least_effect" in v.detail]
    assert (change.n, change.value, change.rejected) == (30, -1.0, True)
    assert any("lm-evaluation-harness 0.4.13, 2-shot" in limit for limit in change.limits)


def test_every_filter_of_a_metric_is_a_column_of_its_own(tmp_path: Path) -> None:
    rows = [
        row(i, {"exact_match": float(kept == "flexible-extract")}, kept)
        for i in range(3)
        for kept in ("strict", "flexible-extract")
    ]
    found = read_foreign([write(tmp_path, "m", rows)])
    assert {c.metric: sum(c.outcomes) for c in found.cells} == {
        "exact_match_strict": 0,
        "exact_match_flexible_extract": 3,
    }


def test_means_without_samples_stand_as_they_are_and_are_compared_with_nothing(tmp_path: Path) -> None:
    found = read_foreign([write(tmp_path, "m", None)])
    (mean,) = found.means
    assert mean.value == 0.75
    assert mean.n == 80
    assert mean.interval == pytest.approx((0.652, 0.848))
    assert "compared with nothing" in mean.limits[1]
    assert found.cells == []
    assert {text.split(":")[0] for text in found.left_out} == {"toy", "a_group"}


def test_scores_that_are_no_shares_are_left_out_and_said_so(tmp_path: Path) -> None:
    rows = [row(0, {"acc": 1.0, "nll": -3.2, "pair": [1, 2]}), row(1, {"acc": 0.0, "nll": -1.0, "pair": [3, 4]})]
    found = read_foreign([write(tmp_path, "m", rows)])
    assert [c.metric for c in found.cells] == ["acc"]
    assert [text.split(" ")[1] for text in found.left_out[:2]] == ["nll", "pair"]
    assert len(found.left_out) == 3  # and the group of tasks


def test_a_samples_file_alone_finds_its_model_beside_it_or_is_refused(tmp_path: Path) -> None:
    write(tmp_path, "org/a", [row(0, {"acc": 0.25})])
    samples = tmp_path / f"samples_toy_{STAMP}.jsonl"
    (cell,) = read_foreign([samples]).cells
    assert (cell.model, cell.outcomes, cell.is_share) == ("org/a", (0.25,), False)
    (tmp_path / f"results_{STAMP}.json").unlink()
    with pytest.raises(DataError, match="names no model"):
        read_foreign([samples])


def test_one_figure_twice_and_other_files_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path, "m", [row(0, {"acc": 1.0})])
    with pytest.raises(UsageError, match="acc of m on toy twice"):
        read_foreign([path, path])
    (tmp_path / "other.json").write_text("[]")
    for name in ("other.json", "missing.json"):
        with pytest.raises(DataError):
            read_foreign([tmp_path / name])


def test_half_a_character_in_a_name_is_replaced(tmp_path: Path) -> None:
    results = write(tmp_path, "a\ud800b", None)
    (mean,) = read_foreign([results]).means
    assert mean.subject == "a\ufffdb"
