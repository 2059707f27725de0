"""The process that checks answers, one JSON line in, one out; `verify` starts it with an empty environment.

Answers are hostile by nature: `10**10**10` would take all time and memory there is. Each is checked in a fork that
has no descriptor, no network, no right to write, and limits that the kernel enforces, whatever it is stuck in.
"""

import json
import logging
import os
import signal
import sys
import warnings
from contextlib import suppress
from functools import cache, partial
from typing import Any, NoReturn

from spiritsafe.checks import sandbox
from spiritsafe.errors import MissingExtra, RecipeError
from spiritsafe.prompts import Prompt

# Wall time a check may take for each second of processor time: the machine may be busy.
PATIENCE = 8
OUTCOMES = {0: "correct", 1: "wrong", 2: "error"}
# Pairs of references and answers that need most of what math-verify imports late.
PAIRS = (
    ("$\\frac{1}{2}$", "0.5"),
    ("$x^2 + 2x + 1$", "$(x + 1)^2$"),
    ("$\\{1, 2\\}$", "$\\{2, 1\\}$"),
    ("$[0, 1)$", "$[0, 2)$"),
    ("$\\sqrt{8} < x$", "$x > 2\\sqrt{2}$"),
    ("$\\pi / 2$", "1.5707963"),
    ("$1.5 \\times 10^3$", "1500"),
)


def main() -> None:
    """Say which layers hold, then check line by line until the input ends: imports are paid once."""
    logging.disable()
    warnings.simplefilter("ignore")
    layers = [sandbox.NO_NETWORK] if sandbox.leave_network() else []
    layers += [sandbox.SYSTEM_CALLS] if sandbox.can_filter() else []
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no answer
    print(json.dumps({"layers": [*sandbox.ALWAYS, *layers]}), file=out, flush=True)
    for line in sys.stdin.buffer:
        print(json.dumps(_answered(json.loads(line))), file=out, flush=True)


@cache
def warm(family: str) -> None:
    """Import what a check needs, outside of its time and while imports may run. Raises `MissingExtra`."""
    from spiritsafe.checks.families import open_family, score
    from spiritsafe.checks.values import same_value

    try:
        if family:
            data = open_family(family, {}, size=1, seed=0)
            entry = data[0]
            with suppress(Exception):  # this family may be asked with other options only
                score(family, data, entry, str(entry["answer"]))
        else:
            for reference, answer in PAIRS:
                same_value(answer, reference)
    except ModuleNotFoundError as error:
        raise MissingExtra(error.name or family, "torch") from None


def _answered(asked: dict[str, Any]) -> dict[str, Any]:
    try:
        return _checked(asked) if "prompt" in asked else {"questions": _questions(**asked)}
    except MissingExtra as error:
        return {"missing": error.where}
    except RecipeError as error:
        return {"refused": error.what, "hint": error.hint}


def _questions(family: str, options: dict[str, Any], size: int, seed: int) -> list[str]:
    from spiritsafe.checks.families import open_family

    data = open_family(family, options, size=size, seed=seed)
    return [data[index]["question"] for index in range(size)]


def _checked(asked: dict[str, Any]) -> dict[str, str]:
    prompt = Prompt.model_validate(asked["prompt"])
    warm(prompt.family)
    child = os.fork()
    if not child:
        _check(prompt, asked["answer"], asked["limit_s"])
    signal.signal(signal.SIGALRM, lambda *_: os.kill(child, signal.SIGKILL))
    signal.setitimer(signal.ITIMER_REAL, PATIENCE * asked["limit_s"])
    ended = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    signal.setitimer(signal.ITIMER_REAL, 0)
    return {"outcome": OUTCOMES.get(ended, "stopped")}


def _check(prompt: Prompt, answer: str, limit_s: float) -> NoReturn:
    """In the fork: give up every right, make the task again, and only then look at the answer."""
    from spiritsafe.checks.values import replace_reader, right, solves, task_of, without_thought

    try:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        can_filter = sandbox.can_filter()
        sandbox.close_all()
        signal.setitimer(signal.ITIMER_PROF, limit_s)
        sandbox.limit(limit_s)
        if can_filter:
            sandbox.filter_calls()
        solved = partial(solves, prompt, *task_of(prompt)) if prompt.family else partial(right, prompt)
        replace_reader()
        sandbox.refuse_evaluation()
        os._exit(0 if solved(without_thought(answer)) else 1)
    except BaseException:  # whatever the verifier could not digest
        os._exit(2)
