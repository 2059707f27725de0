"""The student's model card: `README.md` with YAML front matter, as the Hugging Face hub reads it.

Every text is made harmless: in the front matter as a double-quoted YAML scalar, in the body as escaped Markdown.
"""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from spiritsafe.recipe import Recipe
from spiritsafe.record import Verdict, write_atomic
from spiritsafe.report.text import interval_text, p_text, value_text, visible

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
TAGS = ("distillation", "pruned", "spiritsafe")
SPECIAL = re.compile(r"(^[-+#]|[\\`*_{}\[\]()!|~$])")
SCHEME = re.compile(r"(https?|ftp|mailto|xmpp|javascript):", re.IGNORECASE)


def write_card(
    student_dir: Path,
    *,
    recipe: Recipe,
    verdicts: Sequence[Verdict],
    teacher: dict[str, str],
    data: dict[str, str | int],
    licence: str,
) -> Path:
    """Write the card of a student, atomically.

    `teacher` has at least `address` and `digest`; with `hub_id`, or where the address is one, the card
    names it as the base model. `data` is what the student learned from, by name.
    """
    path = student_dir / "README.md"
    template = _environment().get_template("card.md.jinja")
    text = template.render(
        name=f"{recipe.run.name} student",
        recipe=recipe,
        settings={key: str(value) for key, value in recipe.make},
        verdicts=student_verdicts(verdicts),
        limits=list(dict.fromkeys(limit for v in student_verdicts(verdicts) for limit in v.limits)),
        teacher=teacher,
        base_model=base_model(teacher),
        data=data,
        licence=licence.lower(),
        tags=TAGS,
    )
    write_atomic(path, text)
    return path


def base_model(teacher: dict[str, str]) -> str:
    """The teacher's id on the hub, without its revision; "" where it has none."""
    name = teacher.get("hub_id", teacher["address"]).partition("@")[0]
    return name if HUB_ID.fullmatch(name) and not name.startswith(".") else ""


def student_verdicts(verdicts: Sequence[Verdict]) -> list[Verdict]:
    """The verdicts about the student itself."""
    own = [v for v in verdicts if v.subject.partition(" ")[0] == "student" or v.detail.get("model") == "student"]
    return [v for v in own if v.room != "guard"]


def yaml_text(text: str) -> Markup:
    """A text as a double-quoted YAML scalar that it cannot leave."""
    return Markup(json.dumps(visible(text), ensure_ascii=False))


def markdown_text(text: str) -> Markup:
    """A text on one line as Markdown that shows it as it is: no markup, no links, no HTML."""
    flat = re.sub(r"\s+", " ", visible(text)).strip()
    escaped = SPECIAL.sub(r"\\\1", flat.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;"))
    return Markup(SCHEME.sub(r"\1&#58;", escaped).replace("@", "&#64;").replace("www.", "www&#46;"))


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("spiritsafe.report"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_finalize,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update(yaml=yaml_text, value_text=value_text, interval_text=interval_text, p_text=p_text)
    return environment


def _finalize(value: Any) -> Any:
    return markdown_text(value) if isinstance(value, str) and not hasattr(value, "__html__") else value
