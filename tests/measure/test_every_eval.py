"""Records of the Every Eval Ever schema: the required fields of version 0.3.0, one file a model and setting."""

import json
from pathlib import Path

import pytest

from spiritsafe.measure.compare import table_verdicts
from spiritsafe.measure.every_eval import write_every_eval
from spiritsafe.measure.harness import Cell
from spiritsafe.record import Sampling

SAMPLING = {"x": Sampling(temperature=0.0, max_tokens=24)}
TOP = {
    "schema_version", "evaluation_id", "retrieved_timestamp", "source_metadata", "model_info", "eval_library",
    "evaluation_results",
}  # fmt: skip


def cell(model: str, metric: str, better: bool | None, setting: str = "off") -> Cell:
    """Three of ten."""
    return Cell(model, "x", metric, better, (1.0,) * 3 + (0.0,) * 7, (), ("",) * 10, 0, setting=setting)


def test_a_record_holds_ranked_shares_with_interval_n_and_sampling(tmp_path: Path) -> None:
    cells = [cell("org/m@v1", "unsafe", False), cell("org/m@v1", "rejected", None)]
    (path,) = write_every_eval(tmp_path, table_verdicts(cells, seed=5), SAMPLING)
    assert path.parent == tmp_path / "data/spiritsafe/org/m"
    record = json.loads(path.read_text())
    assert set(record) == TOP
    assert record["schema_version"] == "0.3.0"
    assert record["model_info"]["additional_details"]["risk_control"] == "off"
    (result,) = record["evaluation_results"]
    assert result["metric_config"]["lower_is_better"] is True
    assert result["score_details"]["score"] == pytest.approx(0.3)
    assert result["score_details"]["uncertainty"]["num_samples"] == 10
    interval = result["score_details"]["uncertainty"]["confidence_interval"]
    assert interval["lower"] < 0.3 < interval["upper"]
    assert result["generation_config"]["generation_args"]["max_tokens"] == 24
    assert result["generation_config"]["additional_details"]["seed"] == "5"


def test_every_setting_of_the_control_is_a_record_and_what_an_address_hides_is_unknown(tmp_path: Path) -> None:
    address = "openai:secret@http://host:1/v1"
    cells = [cell(address, "unsafe", False), cell(address, "unsafe", False, "both")]
    paths = write_every_eval(tmp_path, table_verdicts(cells, seed=0), SAMPLING)
    infos = [json.loads(path.read_text())["model_info"] for path in paths]
    assert [i["additional_details"]["risk_control"] for i in infos] == ["off", "both"]
    assert {i["additional_details"]["model_availability"] for i in infos} == {"unknown"}
    assert all(i["id"].startswith("unknown/openai-secret") for i in infos)
