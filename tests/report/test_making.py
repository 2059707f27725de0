"""The page of a making: says what is shown, or that nothing was compared, and escapes what is hostile."""

from pathlib import Path

import pytest

from spiritsafe.measure.output import write_results
from spiritsafe.record import Verdict, append_jsonl, verdict_file, write_json
from spiritsafe.report.html import write_report
from tests.report.conftest import ENVIRONMENT, ledger
from tests.report.test_html import HOSTILE, PAYLOADS

RECIPE = {
    "kind": "make",
    "run": {"name": "text-student"},
    "teacher": {"model": "smollm2"},
    "prompts": "p.txt",
    "method": "text",
    "student": "pruned:3",
}


def change(low: float, high: float) -> Verdict:
    """A student's change against its start."""
    return Verdict(
        room="measure", name="change in kl", subject="student vs start", claim="c", value=(low + high) / 2,
        unit="nats/token", interval=(low, high), n=20, method="paired",
    )  # fmt: skip


def page(folder: Path, verdicts: list[Verdict], teacher: str = "smollm2") -> str:
    """The page of a making with these verdicts."""
    recipe = RECIPE | {"teacher": {"model": teacher}}
    write_json(folder / "recipe.json", {"digest": "c" * 64, "recipe": recipe})
    write_json(folder / "environment.json", ENVIRONMENT)
    write_json(folder / "verdicts.json", verdict_file(verdicts))
    write_json(folder / "ledger.json", ledger())
    append_jsonl(folder / "metrics.jsonl", [{"step": 1, "loss": 2.0, "grad_norm": 1.0}, {"step": 2, "loss": 1.5}])
    return write_report(folder).read_text()


@pytest.mark.parametrize(
    ("interval", "told"),
    [((-0.4, -0.2), "is shown to have moved from its start"), ((-0.4, 0.2), "is not shown to differ from its start")],
)
def test_the_headline_says_only_what_the_interval_shows(
    tmp_path: Path, interval: tuple[float, float], told: str
) -> None:
    assert told in page(tmp_path, [change(*interval)])


def test_a_making_without_a_comparison_says_so(tmp_path: Path) -> None:
    assert "were not compared" in page(tmp_path, [])


def test_hostile_names_are_escaped(tmp_path: Path) -> None:
    text = page(tmp_path, [change(-1, 1).model_copy(update={"name": HOSTILE})], HOSTILE)
    assert "&lt;script" in text
    assert not any(payload in text for payload in PAYLOADS[:4])


def test_a_measurement_s_directory_has_a_report_too(tmp_path: Path) -> None:
    write_results(tmp_path, [change(-1, 1)], [])
    assert write_report(tmp_path).is_file()
