"""The model card: valid front matter, figures with intervals, and no way out for hostile texts."""

from pathlib import Path
from typing import Any

import pytest
from markdown_it import MarkdownIt
from markdown_it.token import Token

from spiritsafe.make.objective import TEXT, Objective
from spiritsafe.recipe import parse_recipe
from spiritsafe.record import Verdict
from spiritsafe.report.card import base_model, objective_text, write_card
from spiritsafe.report.text import interval_text

yaml = pytest.importorskip("yaml")
HOSTILE = (
    'x"\n---\nlicense: mit\n# <script>1</script> [a](javascript:1) ![b](http://e.x/i.png) `c` https://e.x | {{ 1 }}'
)


def card(
    folder: Path, recipe: dict[str, Any], verdicts: list[Verdict], *, text: str = "smollm2", licence: str = "Apache-2.0"
) -> tuple[dict[str, Any], str]:
    """A written card, as front matter and body."""
    teacher = {"address": text, "digest": "d" * 64, "hub_id": "org/teacher"}
    data: dict[str, str | int] = {"prompts": text, "answers": 120}
    given = {"teacher": teacher, "method": {"method": text}, "data": data, "licence": licence}
    settings = {key: str(value) for key, value in parse_recipe(recipe).make}
    path = write_card(folder, name="small student", seed=0, settings=settings, verdicts=verdicts, **given)  # type: ignore[arg-type]
    _, front, body = path.read_text(encoding="utf-8").split("---\n", 2)
    return yaml.safe_load(front), body


def tokens(body: str) -> list[Token]:
    """All Markdown tokens of a body, inline ones too, with bare links recognised as GitHub does."""
    parsed = MarkdownIt("commonmark", {"html": True}).enable("table").parse(body)
    return [t for block in parsed for t in (block, *(block.children or []))]


def test_the_front_matter_names_licence_base_model_and_tags(
    tmp_path: Path, small_recipe: dict[str, Any], verdicts: list[Verdict]
) -> None:
    front, body = card(tmp_path, small_recipe, verdicts)
    assert (front["license"], front["base_model"]) == ("apache-2.0", "org/teacher")
    assert "distillation" in front["tags"]
    assert "d" * 64 in body


def test_the_card_shows_the_students_figures_with_intervals_and_no_other_models(
    tmp_path: Path, small_recipe: dict[str, Any], verdicts: list[Verdict]
) -> None:
    _, body = card(tmp_path, small_recipe, verdicts)
    assert f"| kl to teacher | student | 0.410 nats/token | {interval_text(verdicts[0])} | 32 |" in body
    assert "own student |" not in body
    assert 'from_pretrained(".")' in body


def test_hostile_texts_break_out_of_neither_front_matter_nor_markdown(
    tmp_path: Path, small_recipe: dict[str, Any], verdicts: list[Verdict]
) -> None:
    bad = [v.model_copy(update={"name": HOSTILE, "unit": HOSTILE, "limits": (HOSTILE,)}) for v in verdicts]
    front, body = card(tmp_path, small_recipe, bad, text=HOSTILE, licence=HOSTILE)
    assert set(front) == {"license", "library_name", "pipeline_tag", "base_model", "tags"}
    assert front["license"] == HOSTILE.lower()
    kinds = {t.type for t in tokens(body)}
    assert not kinds & {"html_block", "html_inline", "link_open", "image", "code_inline"}
    assert "https://" not in body


def test_only_an_id_on_the_hub_becomes_the_base_model() -> None:
    assert base_model({"address": "org/name@main", "digest": ""}) == "org/name"
    for address in ("pypi:a==1/b.gguf", "./dir", "openai:m@http://h/v1", "fake:teacher", "/abs/dir", "a/b/c"):
        assert base_model({"address": address, "digest": ""}) == ""


def test_a_loss_is_said_in_words() -> None:
    assert objective_text(TEXT) == "cross-entropy with the text"
    assert objective_text(Objective()) == "forward-kl to the teacher"
    mixed = Objective("skew-kl", beta=0.1, temperature=2.0, cross_entropy=0.25)
    assert objective_text(mixed) == (
        "0.75 x skew-kl to the teacher (beta 0.1, temperature 2) + 0.25 x cross-entropy with the text"
    )
