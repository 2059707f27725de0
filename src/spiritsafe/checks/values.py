"""Whether an answer has a reference's value, by math-verify; as words if the reference is no maths."""

import re
from typing import Any

from spiritsafe.checks.expressions import parse, symbolic
from spiritsafe.checks.families import OWN, open_family, score
from spiritsafe.checks.words import tokens
from spiritsafe.prompts import Prompt

# What our own scorers raise for what cannot be read as an answer.
UNREADABLE = (ValueError, TypeError, KeyError, IndexError, RecursionError, OverflowError)
NUMBER = re.compile(r"-?\d+(?:\.\d+)?")


def references(prompt: Prompt) -> list[str]:
    """The right answers that a prompt brings, each as text; [] if it brings none."""
    given = prompt.options.get("answer")
    return [str(one) for one in (given if isinstance(given, list | tuple) else [] if given is None else [given])]


def right(prompt: Prompt, answer: str) -> bool:
    """Whether the answer has the value of one of the prompt's references."""
    return any(same_value(answer, reference) for reference in references(prompt))


def without_thought(answer: str) -> str:
    """What follows a thinking part, which is no answer."""
    return answer.rpartition("</think>")[2]


def solves(prompt: Prompt, data: Any, entry: Any, answer: str) -> bool:
    """Whether an answer's whole text, or its last number, earns the full score of the prompt's family.

    What the family's own scorer raises is raised if nothing else is right.
    """
    numbers = NUMBER.findall(answer.replace(",", ""))
    failed: Exception | None = None
    for attempt in (answer.strip(), *numbers[-1:]):
        try:
            if score(prompt.family, data, entry, attempt) >= 1.0:
                return True
        except Exception as error:
            failed = None if prompt.family in OWN and isinstance(error, UNREADABLE) else error
    if failed:
        raise failed
    return False


def task_of(prompt: Prompt) -> tuple[Any, Any]:
    """The data set and the task that a prompt of a family was made of. Raises `ValueError` if it is another by now."""
    options = {k: v for k, v in prompt.options.items() if k not in ("seed", "size")}
    data = open_family(prompt.family, options, size=prompt.options["size"], seed=prompt.options["seed"])
    entry = data[prompt.index]
    if entry["question"] != prompt.messages[-1].content:
        raise ValueError("the family makes another task of the same seed")
    return data, entry


def same_value(answer: str, reference: str) -> bool:
    """Whether the answer's final value equals the reference. The last \\boxed{} is final if there is one."""
    import math_verify as maths

    _, boxed, rest = answer.rpartition("\\boxed")
    expected = maths.parse(reference, parsing_timeout=None)
    if expected:
        # math-verify's own time limits need the main thread and cannot interrupt one long multiplication.
        found = maths.parse(boxed + rest, parsing_timeout=None)
        return bool(maths.verify(expected, found, timeout_seconds=None))
    last = re.sub(r"^[\s{]*|\}.*$", "", rest, flags=re.DOTALL) if boxed else answer
    return tokens(reference, symbols=True) in (tokens(last, symbols=True), tokens(last.rstrip(" .\n"), symbols=True))


def replace_reader() -> None:
    """Put our own reader in the place of sympy's, which evaluates; math-verify reads every number with it."""
    import sympy.parsing.sympy_parser  # type: ignore[import-untyped]
    from math_verify import parser

    sympy.parsing.sympy_parser.parse_expr = read
    parser.parse_expr = read
    parser.parse_expr_cached.cache_clear()


def read(text: str, *_: Any, **__: Any) -> Any:
    """An expression as sympy would read it, a decimal number as a float. Raises `ValueError`."""
    import sympy

    tree = parse(text)
    if tree.kind == "number" and "." in tree.name:
        return sympy.Float(tree.name)
    return symbolic(tree)
