"""The process that checks answers: `python -m spiritsafe.make.data.checking`, one JSON line in, one out.

Answers are hostile by nature: `10**10**10` would take all time and memory there is. Every check has processor
time, wall time and memory that the kernel itself enforces, whatever it is stuck in. This is no sandbox: some
of reasoning-gym's scorers evaluate expressions.
"""

import json
import logging
import os
import re
import resource
import signal
import sys
import warnings
from functools import cache
from typing import NoReturn

from spiritsafe.errors import MissingExtra
from spiritsafe.make.data.ngrams import tokens
from spiritsafe.prompts import Prompt, check_task

MEMORY = 4 << 30
# Wall time a check may take for each second of processor time: the machine may be busy.
PATIENCE = 8
OUTCOMES = {0: "correct", 1: "wrong", 2: "error"}


def right(prompt: Prompt, answer: str) -> bool:
    """Whether the answer solves the prompt's task: a reasoning-gym item, or a reference answer's value."""
    answer = answer.rpartition("</think>")[2]
    return check_task(prompt, answer) if prompt.family else same_value(answer, str(prompt.options["answer"]))


def same_value(answer: str, reference: str) -> bool:
    """Whether the answer's final value equals the reference, by math-verify; as words where the reference is no maths.

    The last \\boxed{} is final where there is one.
    """
    from math_verify import parse, verify

    _, boxed, rest = answer.rpartition("\\boxed")
    expected = parse(reference, parsing_timeout=None)
    if expected:
        # math-verify's own time limits need the main thread and cannot interrupt one long multiplication.
        return bool(verify(expected, parse(boxed + rest, parsing_timeout=None), timeout_seconds=None))
    last = re.sub(r"^[\s{]*|\}.*$", "", rest, flags=re.DOTALL) if boxed else answer
    return tokens(reference, symbols=True) in (tokens(last, symbols=True), tokens(last.rstrip(" .\n"), symbols=True))


@cache
def warm(kind: str) -> None:
    """Import what a check needs and build math-verify's parser, outside of its time. Raises `MissingExtra`."""
    try:
        if kind == "gym":
            import reasoning_gym  # noqa: F401
        else:
            same_value("$\\frac{1}{2}$", "0.5")
    except ModuleNotFoundError as error:
        raise MissingExtra(error.name or kind, "torch") from None


def main() -> None:
    """Check line by line until the input ends, each answer in a fork: imports are paid once, nothing is left behind."""
    logging.disable()
    warnings.simplefilter("ignore")
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no answer
    for line in sys.stdin.buffer:
        asked = json.loads(line)
        prompt = Prompt.model_validate(asked["prompt"])
        try:
            warm("gym" if prompt.family else "maths")
        except MissingExtra as error:
            print(json.dumps({"missing": error.where}), file=out, flush=True)
            continue
        child = os.fork()
        if not child:
            _bound(asked["limit_s"])
            _end_with(prompt, asked["answer"])
        ended = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        print(json.dumps({"outcome": OUTCOMES.get(ended, "stopped")}), file=out, flush=True)


def _bound(limit_s: float) -> None:
    """From here on the kernel ends this process at its limits; it writes no file."""
    signal.setitimer(signal.ITIMER_PROF, limit_s)
    signal.setitimer(signal.ITIMER_REAL, PATIENCE * limit_s)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _end_with(prompt: Prompt, answer: str) -> NoReturn:
    try:
        os._exit(0 if right(prompt, answer) else 1)
    except BaseException:  # whatever the verifier could not digest
        os._exit(2)


if __name__ == "__main__":
    main()
