"""The page: nothing hostile gets in, nothing is loaded, and its numbers are those of the verdicts."""

import json
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from spiritsafe.errors import DataError
from spiritsafe.record import Exchange, Verdict, append_jsonl, write_json
from spiritsafe.report.html import write_report
from spiritsafe.report.text import figure_text, interval_text

WriteRun = Callable[..., Path]
PAYLOADS = (
    "<script>alert(1)</script>",
    "</style><script src=https://evil.example/x.js></script>",
    "</title><svg onload=alert(1)><script>1</script></svg>",
    '"><img src=x onerror=alert(1)>',
    "javascript:alert(1) [x](javascript:alert(1))",
    "{{ 7 * 191 }} {% include '/etc/passwd' %}",
    "</text></svg><iframe src=//evil.example></iframe>",
    "<!-- --><base href=https://evil.example>",
    "a\u202eb\u2066c\u200bd\u00ade\ufefff\x1b[31mg\x00h\U000e0041i",
)
HOSTILE = " ".join(PAYLOADS)
ALLOWED_ATTRIBUTES = {"href", "content", "style"}


class Page(HTMLParser):
    """Collects elements, attributes and the text of a page."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.values: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag == "data":
            self.values += str(dict(attrs)["value"]).split()

    def handle_data(self, data: str) -> None:
        self.text += data


def page_of(run: Path) -> Page:
    """The parsed report of a run."""
    return Page(write_report(run).read_text(encoding="utf-8"))


def hostile(verdict: Verdict) -> Verdict:
    """The verdict with every text of it hostile."""
    texts: dict[str, Any] = dict.fromkeys(("claim", "unit", "method", "expected"), HOSTILE)
    lists = {"assumptions": (HOSTILE,), "limits": (HOSTILE,), "detail": {HOSTILE: HOSTILE, "model": HOSTILE}}
    return verdict.model_copy(update={**texts, **lists, "subject": f"{verdict.subject}{HOSTILE}"})


@pytest.fixture
def hostile_page(write_run: WriteRun, verdicts: list[Verdict], drawn: Callable[[str, str], Exchange]) -> Page:
    """A run in which every text that a model, a client or a file name can choose is hostile."""
    watch = [{"account": HOSTILE, "role": role, "value": 1.0, "p_value": 0.5} for role in ("draws", "ordinary")]
    environment = {"cpu": HOSTILE, "platform": HOSTILE, "git": HOSTILE, "packages": {HOSTILE: HOSTILE}}
    exchanges = [drawn(payload, payload) for payload in PAYLOADS[-3:]]
    kept = [*verdicts, *map(hostile, verdicts)]
    run = write_run(verdicts=kept, exchanges=exchanges, watch=watch, environment=environment)
    ledger = json.loads((run / "ledger.json").read_text())
    ledger["stages"][0] |= {"stage": HOSTILE, "inputs": {HOSTILE: HOSTILE}}
    ledger["leaves_out"] = [HOSTILE]
    write_json(run / "ledger.json", ledger)
    append_jsonl(run / "metrics.jsonl", [json.loads(first_line(run)) | {"student": HOSTILE}])
    return page_of(run)


def first_line(run: Path) -> str:
    """The first step of a run."""
    return (run / "metrics.jsonl").read_text().splitlines()[0]


def test_hostile_texts_add_no_element_and_no_attribute_that_a_plain_run_lacks(
    hostile_page: Page, write_run: WriteRun
) -> None:
    plain = page_of(write_run())
    assert {tag for tag, _ in hostile_page.elements} <= {tag for tag, _ in plain.elements}
    names = {name for _, attributes in plain.elements for name in attributes}
    assert {name for _, attributes in hostile_page.elements for name in attributes} <= names


def test_there_is_no_script_no_handler_and_nothing_to_load(hostile_page: Page) -> None:
    tags = {tag for tag, _ in hostile_page.elements}
    assert not tags & {"script", "img", "iframe", "object", "embed", "base", "link", "form", "use", "image"}
    for tag, attributes in hostile_page.elements:
        assert not [name for name in attributes if name.startswith("on") or name in ("src", "srcset", "xlink:href")]
        target = attributes.get("href")
        assert target is None or (tag == "a" and (target[0] == "#" or target == "https://arxiv.org/abs/2501.12948"))


def test_hostile_texts_stay_readable_as_text(hostile_page: Page) -> None:
    for payload in PAYLOADS[:-1]:
        assert payload in hostile_page.text
    assert "1337" not in hostile_page.text


def test_hidden_characters_are_spelled_out(hostile_page: Page) -> None:
    hidden = set("\u202e\u2066\u200b\u00ad\ufeff\x1b\x00\U000e0041")
    texts = [hostile_page.text, *(value or "" for _, given in hostile_page.elements for value in given.values())]
    assert not [text for text in texts if hidden & set(text)]
    assert "a⟨U+202E⟩b⟨U+2066⟩c⟨U+200B⟩d" in hostile_page.text


def test_the_page_forbids_everything_but_its_own_style(write_run: WriteRun) -> None:
    html = write_report(write_run()).read_text()
    policy = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
    assert f'<meta http-equiv="Content-Security-Policy" content="{policy}">' in html
    style = html[html.index("<style>") : html.index("</style>")]
    assert "url(" not in style
    assert "@import" not in style


def test_numbers_on_the_page_are_those_of_the_verdicts(write_run: WriteRun, verdicts: list[Verdict]) -> None:
    run = write_run()
    page = page_of(run)
    stored = json.loads((run / "verdicts.json").read_text())["verdicts"]
    for verdict, held in zip(verdicts, stored, strict=True):
        wanted = [held["value"], *(held["interval"] or []), held["p_value"], held["p_adjusted"], held["e_value"]]
        assert {repr(x) for x in wanted if x is not None} <= set(page.values)
        assert figure_text(verdict) in page.text
        assert interval_text(verdict) in page.text


def test_a_verdict_against_the_truth_is_named_in_words(write_run: WriteRun, verdicts: list[Verdict]) -> None:
    assert "✗" not in page_of(write_run()).text.replace("✓ as it should be, ✗ not.", "")
    last = verdicts[-1].model_copy(update={"rejected": True, "holds": False})
    page = page_of(write_run(verdicts=[*verdicts[:-1], last]))
    assert f"✗ 1 of {len(verdicts)} verdicts disagree" in page.text
    assert "✗ does not hold" in page.text
    assert "1 false alarm in 10 other tests" in page.text


def test_only_what_was_served_is_printed_and_nothing_flagged_or_of_the_safety_suite(
    write_run: WriteRun, drawn: Callable[[str, str], Exchange]
) -> None:
    run = write_run()
    append_jsonl(run / "exchanges" / "safety.jsonl", [drawn("how to do a terrible thing", "gladly")])
    append_jsonl(run / "exchanges" / "twins.jsonl", [drawn("never served", "never served")])
    stopped = drawn("a bad thing", "a bad thing").model_copy(update={"flags": ("stopped",)})
    append_jsonl(run / "exchanges" / "gateway.jsonl", [stopped])
    text = page_of(run).text
    assert "What is copper?" in text
    assert "terrible" not in text
    assert "bad thing" not in text
    assert "never served" not in text
    assert "gladly" not in text
    assert "not printed, only named by sha256" in text


def test_an_excerpt_has_at_most_160_characters(write_run: WriteRun, drawn: Callable[[str, str], Exchange]) -> None:
    text = page_of(write_run(exchanges=[drawn("p", "x" * 500)])).text
    assert "x" * 159 + "…" in text
    assert "x" * 160 not in text


def test_a_run_without_plots_or_most_verdicts_has_a_page_that_says_so(
    write_run: WriteRun, verdicts: list[Verdict]
) -> None:
    run = write_run(verdicts=verdicts[:1])
    (run / "plots.json").unlink()
    text = page_of(run).text
    assert "The watch was not run; no proof was tried." in text
    assert "not measured in this run" in text


@pytest.mark.parametrize("name", ["recipe.json", "environment.json", "verdicts.json", "ledger.json", "metrics.jsonl"])
def test_a_missing_file_is_named_with_the_command_to_run(write_run: WriteRun, name: str) -> None:
    run = write_run()
    (run / name).unlink()
    with pytest.raises(DataError, match=rf"{name}: no such file; .*spiritsafe run"):
        write_report(run)
    assert not (run / "report.html").exists()


def test_a_broken_entry_is_named_by_its_place(write_run: WriteRun) -> None:
    run = write_run()
    write_json(run / "ledger.json", {"stages": []})
    with pytest.raises(DataError, match=r"ledger\.json: totals: Field required"):
        write_report(run)
