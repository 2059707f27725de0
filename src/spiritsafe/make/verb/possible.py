"""What a teacher can give, which methods that allows, and why the others are impossible.

weights              a model in this process: its whole distribution, and layers to copy
log-probabilities    a server that tells them, which only a probe finds out
text                 any model
"""

from dataclasses import dataclass
from typing import Any, Literal

from spiritsafe.errors import UsageError
from spiritsafe.make.verb.settings import METHODS, MakeSettings, parse_student
from spiritsafe.models.address import parse_address

Gives = Literal["weights", "server", "text"]
LOCAL = ("pypi", "gguf", "dir", "hf")
IN_MEMORY = ("online", "gkd", "policy-gradient")
HINT = {"server": "take text, cached or judged", "text": "take text or judged"}


@dataclass(frozen=True)
class Probed:
    """What a teacher gives: for each method "" or why not, and what a server told of itself."""

    teacher: str
    gives: Gives
    methods: dict[str, str]
    pruned: str
    told: dict[str, Any]


def gives(address: str) -> Gives:
    """By the form of its address. Raises `UsageError` where it is none."""
    scheme = parse_address(address).scheme
    return "weights" if scheme in LOCAL else "server" if scheme == "openai" else "text"


def why_not(method: str, kind: Gives, refusal: str = "") -> str:
    """Why a method cannot learn from such a teacher; "" where it can. `refusal` is what a probe found."""
    if method in IN_MEMORY and kind != "weights":
        where = "a server" if kind == "server" else "a model that gives text only"
        return f"needs the teacher's weights in this process at every step, and the teacher is {where}"
    if method == "cached" and kind == "text":
        return "needs log-probabilities, and the teacher gives text only"
    return refusal if method == "cached" else ""


def why_not_pruned(kind: Gives) -> str:
    """Why the student cannot be a part of the teacher; "" where it can."""
    return "" if kind == "weights" else "copies the teacher's layers, and the teacher's weights are not at hand"


def check(settings: MakeSettings) -> Gives:
    """What the teacher gives. Raises `UsageError` with the reason where method or student ask for more."""
    kind = gives(settings.teacher.model)
    if reason := why_not(settings.method, kind):
        raise UsageError(f"--method {settings.method}", reason, HINT[kind])
    student = parse_student(settings.student)
    if student.kind == "pruned" and (reason := why_not_pruned(kind)):
        raise UsageError(f"--student {settings.student}", reason, "name a student's address or config:FILE")
    if student.kind == "model" and gives(student.source) != "weights":
        what = "is no model whose weights can be trained here"
        raise UsageError(f"--student {student.source}", what, "pruned:LAYERS, a local model's address or config:FILE")
    if settings.method == "judged" and settings.make.own.group < 2:
        raise UsageError("make.own.group", "one answer cannot be compared with others", "take 2 or more")
    if kind == "server" and settings.method == "cached" and settings.make.signals.kind != "head":
        raise UsageError("make.signals.kind", "a server tells no tail to draw tokens from", "take 'head'")
    return kind


def probe_teacher(address: str, student: str) -> Probed:
    """Open a teacher and find out what it gives; a server is asked about 20 small questions.

    `student` may be "": then nobody knows whether a server's tokens are the student's. Raises as `open_model`.
    """
    from spiritsafe.models import open_model

    kind, told, refusal = gives(address), dict[str, Any](), ""
    pruned = why_not_pruned(kind)
    model: Any = open_model(address)
    if kind == "weights":
        from spiritsafe.make.depth import why_no_layers
        from spiritsafe.models.logits import text_config

        config = text_config(model.model)
        told = {"vocabulary": config.vocab_size, "layers": config.num_hidden_layers, "digest": model.digest}
        pruned = (reason := why_no_layers(model.model)) and f"copies the teacher's layers, and {reason}"
    elif kind == "server":
        from spiritsafe.make.signals.probe import probe

        found = probe(model, _tokens(student))
        told, refusal = found.model_dump(mode="json"), found.refusal
    methods = {method: why_not(method, kind, refusal) for method in METHODS}
    return Probed(address, kind, methods, pruned, told)


def _tokens(student: str) -> Any:
    """The student's tokens, where one is named that has its own."""
    from spiritsafe.make.signals.token_map import TokenMap
    from spiritsafe.make.verb.start import own_tokenizer

    if not student or parse_student(student).kind == "pruned":
        return None
    return TokenMap(*own_tokenizer(parse_student(student)))
