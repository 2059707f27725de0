"""What a policy's stages find in texts, as lines: no model is asked and nothing is stored."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict

from spiritsafe.errors import UsageError
from spiritsafe.guard.policy import SIDES, Side, checking, load_policy
from spiritsafe.guard.stages import Look, stages_of
from spiritsafe.guard.turns import alone


def check_texts(policy: str, texts: Sequence[str], side: str, *, as_json: bool, asked: str = "") -> Iterator[str]:
    """What follows for each text and why, a line or a JSON object each; answers are read with what was `asked`.

    Raises `UsageError` for no such side, one that the policy does not read, and a question to no answer.
    """
    read = _side(side)
    stages = stages_of(checking(load_policy(policy), read, f"--side {side}"))
    if asked and read == "input":
        raise UsageError("--asked", "is of answers", "--side output")
    question = alone(asked) if asked else ()
    for text in texts:
        look = stages.look_answers([(question, text)])[0] if read == "output" else stages.look(text, read)
        yield _json(look) if as_json else _line(look)


def _side(side: str) -> Side:
    for known in SIDES:
        if side == known:
            return known
    raise UsageError(f"--side {side}", "is not known", "input or output")


def _json(look: Look) -> str:
    return json.dumps({"action": look.action, "findings": [asdict(found) for found in look.findings]})


def _line(look: Look) -> str:
    why = [
        f"{f.stage} {f.rule} {f.score:.3g} >= {f.limit:.3g}{f' ({f.evidence})' if f.evidence else ''}"
        for f in look.findings
    ]
    return "; ".join([look.action, *why])
