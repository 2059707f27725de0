"""The student's model card: `README.md` with YAML front matter, as the Hugging Face hub reads it.

Every text is made harmless: in the front matter as a double-quoted YAML scalar, in the body as escaped Markdown.
"""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from spiritsafe.errors import printable
from spiritsafe.make.objective import Objective
from spiritsafe.record import Verdict, write_atomic
from spiritsafe.report.render import render

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
TAGS = ("distillation", "pruned", "spiritsafe")
SPECIAL = re.compile(r"(^[-+#]|[\\`*_{}\[\]()!|~$])")
SCHEME = re.compile(r"(https?|ftp|mailto|xmpp|javascript):", re.IGNORECASE)


def write_card(
    student_dir: Path,
    *,
    name: str,
    seed: int,
    settings: Mapping[str, str],
    verdicts: Sequence[Verdict],
    teacher: dict[str, str],
    method: dict[str, str | int],
    data: dict[str, str | int],
    licence: str,
) -> Path:
    """Write the card of a student, atomically; `settings` are those of its training.

    `teacher` has at least `address` and `digest`; with `hub_id`, or where the address is one, the card
    names it as the base model. `method` says by name how the student learned: its start, method and loss.
    `data` is what it learned from, by name: number, digests, how drawn.
    """
    path = student_dir / "README.md"
    text = render(
        "card.md.jinja",
        _finalize,
        {"yaml": yaml_text},
        name=name,
        seed=seed,
        settings=settings,
        verdicts=student_verdicts(verdicts),
        limits=list(dict.fromkeys(limit for v in student_verdicts(verdicts) for limit in v.limits)),
        teacher=teacher,
        base_model=base_model(teacher),
        method=method,
        data=data,
        licence=licence.lower(),
        tags=TAGS,
    )
    write_atomic(path, text)
    return path


def objective_text(objective: Objective) -> str:
    """A loss in words, e.g. `0.7 x skew-kl to the teacher (beta 0.1) + 0.3 x cross-entropy with the text`."""
    text, share = "cross-entropy with the text", objective.cross_entropy
    if objective.divergence is None:
        return text
    settings = [f"beta {objective.beta:g}"] if objective.divergence in ("jsd", "skew-kl") else []
    settings += [f"temperature {objective.temperature:g}"] if objective.temperature != 1 else []
    said = f"{objective.divergence} to the teacher" + (f" ({', '.join(settings)})" if settings else "")
    return said if share == 0 else f"{1 - share:g} x {said} + {share:g} x {text}"


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
    return Markup(json.dumps(printable(text), ensure_ascii=False))


def markdown_text(text: str) -> Markup:
    """A text on one line as Markdown that shows it as it is: no markup, no links, no HTML."""
    flat = re.sub(r"\s+", " ", printable(text)).strip()
    escaped = SPECIAL.sub(r"\\\1", flat.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;"))
    return Markup(SCHEME.sub(r"\1&#58;", escaped).replace("@", "&#64;").replace("www.", "www&#46;"))


def _finalize(value: Any) -> Any:
    return markdown_text(value) if isinstance(value, str) and not hasattr(value, "__html__") else value
