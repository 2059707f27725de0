"""reasoning-gym's families (arXiv 2505.24760) whose scorers were read: none of them runs what a model answers.

`audited.json` holds a digest of each one's source. A family that is not in it, or whose source is another than the
one that was read, is refused. Families whose own scorer evaluates the answer, or its own reference, have one here.
"""

import ast
import hashlib
import importlib.util
import json
import warnings
from collections.abc import Callable
from fractions import Fraction
from functools import cache
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spiritsafe.checks.expressions import numbers, parse, polynomial, rational, symbolic
from spiritsafe.errors import MissingExtra, RecipeError

if TYPE_CHECKING:
    from reasoning_gym.dataset import ProceduralDataset

PACKAGE = "reasoning_gym"
Entry = dict[str, Any]
# They describe data sets to a trainer, or hold word lists; no scorer calls them.
APART = ("reasoning_gym.coaching", "reasoning_gym.data", "reasoning_gym.composite")


def open_family(family: str, options: dict[str, Any], *, size: int, seed: int) -> "ProceduralDataset":
    """A family's tasks. Raises `RecipeError` for an unknown family or option, and for a scorer that nobody read."""
    try:
        with warnings.catch_warnings():
            # Python says so when it first compiles a package that reasoning-gym needs; users cannot mend it.
            warnings.simplefilter("ignore", SyntaxWarning)
            from reasoning_gym import create_dataset
            from reasoning_gym.factory import DATASETS
    except ModuleNotFoundError:
        raise MissingExtra("reasoning-gym", "torch") from None
    if family in DATASETS and family not in audited():
        what = f"{family}: this family's scorer was not read, and might run what a model answers"
        raise RecipeError("prompts.tasks", what, "take another family")
    if family in DATASETS and source_digest(DATASETS[family][0]) != audited()[family]:
        what = f"{family}: its scorer is another than the one that was read for code that runs answers"
        raise RecipeError("prompts.tasks", what, "install the reasoning-gym that constraints.txt names")
    try:
        return create_dataset(family, seed=seed, size=size, **options)
    except (ValueError, TypeError, AssertionError) as error:
        raise RecipeError("prompts.tasks", f"{family}: {error}", "see reasoning-gym's families") from None


def score(family: str, data: "ProceduralDataset", entry: Entry, answer: str) -> float:
    """An answer's score for a task of a family, 1 for a right one; by our scorer where there is one."""
    if family in OWN:
        return float(OWN[family](answer, entry))
    return float(data.score_answer(answer, entry))


@cache
def audited() -> dict[str, str]:
    """The digest of each family's source as it was read."""
    text = (resources.files("spiritsafe.checks") / "audited.json").read_text(encoding="utf-8")
    found: dict[str, str] = json.loads(text)["families"]
    return found


@cache
def source_digest(dataset: type) -> str:
    """sha256 over a data set's module, what it imports of the package, and what its scorer inherits from."""
    whole = hashlib.sha256()
    for name, path in sorted(sources(dataset).items()):
        whole.update(f"{name}\n".encode() + path.read_bytes())
    return whole.hexdigest()


def sources(dataset: type) -> dict[str, Path]:
    """The package's modules that a data set's scorer may reach, by name."""
    found: dict[str, Path] = {}
    left = [base.__module__ for base in dataset.__mro__ if base.__module__.startswith(PACKAGE)]
    while left:
        name = left.pop()
        apart = name in found or any(f"{name}.".startswith(f"{other}.") for other in APART)
        spec = None if apart else importlib.util.find_spec(name)
        if spec and spec.origin and name != PACKAGE:
            found[name] = Path(spec.origin)
            left += _imported(name, found[name])
    return found


def _imported(name: str, path: Path) -> list[str]:
    """The package's modules that one imports, wherever in it."""
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            base = importlib.util.resolve_name("." * node.level + (node.module or ""), package)
            found += [base, *(f"{base}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
    return [module for module in found if module.startswith(f"{PACKAGE}.") and _is_module(module)]


def _is_module(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:  # a name inside a module
        return False


def _same(answer: str, entry: Entry) -> bool:
    return answer.strip() == str(entry["answer"]).strip()


def _queens(answer: str, entry: Entry) -> bool:
    return bool(answer in entry["metadata"]["valid_answers"])


def _reaches(answer: str, entry: Entry, target: int) -> bool:
    """Whether an expression has the target's value and uses the given numbers, each once."""
    tree = parse(answer)
    return rational(tree) == target and sorted(numbers(tree)) == sorted(map(Fraction, entry["metadata"]["numbers"]))


def _countdown(answer: str, entry: Entry) -> bool:
    return _reaches(answer, entry, entry["metadata"]["target"])


def _puzzle24(answer: str, entry: Entry) -> bool:
    return _reaches(answer, entry, 24)


def _polynomial(answer: str, entry: Entry) -> bool:
    return polynomial(parse(answer)) == polynomial(parse(entry["answer"]))


def _integral(answer: str, entry: Entry) -> bool:
    """Whether its derivative is the integrand."""
    import sympy  # type: ignore[import-untyped]

    variable = sympy.Symbol(entry["metadata"]["variable"])
    integrand = symbolic(parse(entry["metadata"]["integrand"]))
    return bool(sympy.simplify(sympy.diff(symbolic(parse(answer)), variable) - integrand) == 0)


def _whole_number(answer: str, entry: Entry) -> bool:
    return int(answer, 0) == int(entry["answer"], 0)


def _sorted_numbers(answer: str, entry: Entry) -> bool:
    """Whether a list is in order and no number of it further off than 1, as in the family's own scorer."""
    given, expected = (json.loads(text.replace("'", '"')) for text in (answer, entry["answer"]))
    if not isinstance(given, list) or len(given) != len(expected):
        return False
    values = [float(number) for number in given]
    ordered = sorted(values, reverse=entry["metadata"]["direction"] != "ascending")
    return values == ordered and all(abs(a - float(b)) <= 1 for a, b in zip(values, expected, strict=True))


# What can be read as no answer at all raises `ValueError`, which the checker takes as wrong.
OWN: dict[str, Callable[[str, Entry], bool]] = {
    "binary_matrix": _same,
    "bitwise_arithmetic": _whole_number,
    "countdown": _countdown,
    "intermediate_integration": _integral,
    "n_queens": _queens,
    "number_sorting": _sorted_numbers,
    "polynomial_multiplication": _polynomial,
    "puzzle24": _puzzle24,
    "simple_integration": _integral,
    "spiral_matrix": _same,
    "string_insertion": _same,
}
