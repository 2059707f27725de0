"""The ledger: what a stage used, measured where it can be, else marked as an estimate."""

import time
from pathlib import Path

import pytest

from spiritsafe import ledger
from spiritsafe.ledger import Entry, metered, summary
from spiritsafe.recipe import LedgerPart

RATES = LedgerPart(usd_per_hour=3600.0, assumed_watts=20.0)


def meter(folder: Path, microjoules: int, name: str = "intel-rapl:0") -> None:
    """A processor's energy counter, as Linux shows it."""
    (folder / name).mkdir(exist_ok=True)
    (folder / name / "energy_uj").write_text(f"{microjoules}\n")


def busy(seconds: float) -> None:
    """Use the processor for a while."""
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass


def test_a_stage_is_metered_in_seconds_and_money(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger, "RAPL", tmp_path)
    with metered("s", RATES) as entry:
        busy(0.05)
        time.sleep(0.05)
    assert entry.wall_s >= 0.1
    assert 0.05 <= entry.cpu_s < entry.wall_s + 0.02
    assert entry.usd == pytest.approx(entry.wall_s)


def test_energy_without_a_meter_is_an_estimate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger, "RAPL", tmp_path)
    with metered("s", RATES) as entry:
        busy(0.03)
    assert entry.joules_kind == "estimated"
    assert entry.joules == pytest.approx(20 * entry.cpu_s)


def test_energy_with_a_meter_is_measured_each_package_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger, "RAPL", tmp_path)
    for package, core in ((1_000_000, 400_000), (4_000_000, 900_000)):
        meter(tmp_path, package)
        meter(tmp_path, core, "intel-rapl:0:0")
        if package == 1_000_000:
            context = metered("s", RATES)
            entry = context.__enter__()
    context.__exit__(None, None, None)
    assert (entry.joules, entry.joules_kind) == (3.0, "measured")


def test_a_meter_that_ran_over_is_not_trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger, "RAPL", tmp_path)
    meter(tmp_path, 5_000_000)
    with metered("s", RATES) as entry:
        meter(tmp_path, 1_000)
    assert entry.joules_kind == "estimated"


def test_tokens_add_up() -> None:
    entry = Entry(stage="s")
    entry.count(tokens_in=3, tokens_out=1)
    entry.count(tokens_out=2)
    assert (entry.tokens_in, entry.tokens_out) == (3, 3)


def test_totals_are_the_sums_of_the_stages() -> None:
    entries = [Entry(stage=s, wall_s=w, usd=w / 2, tokens_in=5).model_dump() for s, w in (("a", 1.0), ("b", 2.0))]
    total = summary(entries, RATES)
    assert total["totals"] == {"wall_s": 3, "cpu_s": 0, "tokens_in": 10, "tokens_out": 0, "joules": 0, "usd": 1.5}
    assert total["leaves_out"]


def test_one_estimate_makes_the_total_an_estimate() -> None:
    kinds = ["measured", "estimated"]
    entries = [Entry(stage="s").model_dump() | {"joules_kind": kind} for kind in kinds]
    assert [summary(part, RATES)["joules_kind"] for part in (entries[:1], entries, [])] == [
        "measured",
        "estimated",
        "estimated",
    ]


def test_a_stage_says_with_how_many_threads_it_ran(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPIRITSAFE_THREADS", "3")
    with metered("s", RATES) as entry:
        pass
    assert entry.computed["threads"] == 3
    assert "MKL_CBWR" in entry.computed
    assert Entry(stage="of an older version").computed == {}
