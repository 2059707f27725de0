"""inspect's logs become cells; written here in the form of its version 2 logs."""

import json
import zipfile
from pathlib import Path
from typing import Any

import pytest

from spiritsafe.errors import DataError
from spiritsafe.measure.foreign.read import read_foreign

SCORES = [("C", 0.5), ("I", 0.25), ("P", 1.0)]


def log(*, samples: bool = True, status: str = "success", epochs: int = 1) -> dict[str, Any]:
    """A log of three samples with a scorer of letters, one of numbers and one that gives no score."""
    held: dict[str, Any] = {
        "version": 2,
        "status": status,
        "eval": {"task": "toy", "model": "mockllm/model", "packages": {"inspect_ai": "0.3.285"}},
        "plan": {"steps": []},
        "results": {
            "completed_samples": 3,
            "scores": [
                {"name": "match", "metrics": {"accuracy": {"value": 0.5}, "stderr": {"value": 0.1}}},
                {"name": "length", "metrics": {"mean": {"value": 31.0}}},
            ],
        },
    }
    if samples:
        held["samples"] = [
            {
                "id": i,
                "epoch": epoch,
                "scores": {"match": {"value": letter}, "parts": {"value": {"a": share, "b": "?"}}},
            }
            for i, (letter, share) in enumerate(SCORES)
            for epoch in range(1, epochs + 1)
        ]
    return held


def write(path: Path, held: dict[str, Any]) -> Path:
    """A log as JSON."""
    path.write_text(json.dumps(held))
    return path


def archive(path: Path, held: dict[str, Any], *, method: int = zipfile.ZIP_DEFLATED) -> Path:
    """A log as an archive of a header and a file for each sample."""
    samples = held.pop("samples")
    with zipfile.ZipFile(path, "w", method) as file:
        for sample in samples:
            file.writestr(f"samples/{sample['id']}_epoch_{sample['epoch']}.json", json.dumps(sample))
        file.writestr("header.json", json.dumps(held))
    return path


def test_letters_are_ranked_and_numbers_are_told(tmp_path: Path) -> None:
    found = read_foreign([write(tmp_path / "log.json", log())])
    assert [(c.metric, c.higher_is_better, c.outcomes) for c in found.cells] == [
        ("match", True, (1.0, 0.0, 0.5)),
        ("parts_a", None, (0.5, 0.25, 1.0)),
    ]
    assert found.cells[0].note == "imported from inspect 0.3.285"
    assert found.left_out == ["toy: parts_b is no score between 0 and 1"]


def test_an_archive_is_the_log(tmp_path: Path) -> None:
    whole = read_foreign([write(tmp_path / "log.json", log())])
    assert read_foreign([archive(tmp_path / "log.eval", log())]) == whole


def test_an_archive_packed_with_zstandard_is_the_log(tmp_path: Path) -> None:
    zstandard = pytest.importorskip("zstandard")
    path = archive(tmp_path / "log.eval", log(), method=zipfile.ZIP_STORED)
    packed = tmp_path / "packed.eval"
    repack(path, packed, zstandard.ZstdCompressor().compress)
    assert read_foreign([packed]) == read_foreign([path])


def test_epochs_of_a_sample_are_one_mean(tmp_path: Path) -> None:
    held = log(epochs=2)
    held["samples"][0]["scores"]["match"]["value"] = "I"
    cell = read_foreign([write(tmp_path / "log.json", held)]).cells[0]
    assert (cell.keys, cell.outcomes, cell.is_share) == (("0", "1", "2"), (0.5, 0.0, 0.5), False)


def test_without_samples_its_means_stand(tmp_path: Path) -> None:
    found = read_foreign([write(tmp_path / "log.json", log(samples=False))])
    assert [(v.name, v.value, v.n) for v in found.means] == [("toy: match", 0.5, 3)]
    assert found.left_out == ["toy: length is no score between 0 and 1"]


def test_a_run_that_failed_says_so_and_one_cut_off_is_refused(tmp_path: Path) -> None:
    assert "its run ended in error" in read_foreign([write(tmp_path / "a.json", log(status="error"))]).cells[0].note
    empty = log(samples=False, status="error")
    del empty["results"]
    with pytest.raises(DataError, match="holds no scores"):
        read_foreign([write(tmp_path / "b.json", empty)])
    with zipfile.ZipFile(tmp_path / "c.eval", "w") as file:
        file.writestr("_journal/start.json", "{}")
    (tmp_path / "d.eval").write_text("no archive")
    for name in ("c.eval", "d.eval"):
        with pytest.raises(DataError):
            read_foreign([tmp_path / name])


def repack(source: Path, target: Path, pack: Any) -> None:
    """Rewrite an archive with every member packed by Zstandard, which `zipfile` cannot write before Python 3.14."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as new:
        for name in old.namelist():
            new.writestr(name, pack(old.read(name)))
        for info in new.infolist():
            info.compress_type = 93
