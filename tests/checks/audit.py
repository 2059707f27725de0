"""Which reasoning-gym families' scorers can run text: `python -m tests.checks.audit` prints a new `audited.json`.

From `score_answer` everything is followed by name through the modules that `families.sources` names; what is found
there may be read by hand. A family that has a scorer of ours in `families.OWN` is not followed.
"""

import ast
import json
import warnings
from importlib.metadata import version
from pathlib import Path

from spiritsafe.checks.families import OWN, source_digest, sources

RUNS_TEXT = {"eval", "exec", "compile", "parse_expr", "sympify", "S", "parse_latex", "__import__", "import_module"}
RUNS_TEXT |= {"lambdify", "system", "popen", "Popen", "loads_pickle", "literal_eval", "nsimplify", "Poly", "solve"}


def called(node: ast.AST) -> set[str]:
    """Names that are called, or named at all, in a piece of source."""
    names = {n.id for n in ast.walk(node) if isinstance(n, ast.Name)}
    return names | {n.attr for n in ast.walk(node) if isinstance(n, ast.Attribute)}


def findings(dataset: type) -> set[str]:
    """What a data set's scorer may reach of `RUNS_TEXT`; empty means that nothing runs an answer."""
    bodies: dict[str, list[ast.AST]] = {}
    for path in sources(dataset).values():
        for node in ast.walk(ast.parse(Path(path).read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                bodies.setdefault(node.name, []).append(node)
    seen: set[str] = set()
    left = ["score_answer"]
    found: set[str] = set()
    while left:
        name = left.pop()
        if name in seen:
            continue
        seen.add(name)
        for body in bodies.get(name, []):
            names = called(body)
            found |= names & RUNS_TEXT - set(bodies)
            left += names & set(bodies)
    return found


def families() -> dict[str, type]:
    """All of the installed package."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SyntaxWarning)
        from reasoning_gym.factory import DATASETS
    return {name: held[0] for name, held in sorted(DATASETS.items())}


def main() -> None:
    """Print the file, and beside it on stderr what was left out."""
    allowed = {}
    for name, dataset in families().items():
        found = set() if name in OWN else findings(dataset)
        if found or name == "composite":
            warnings.warn(f"left out: {name} {sorted(found)}", stacklevel=1)
        else:
            allowed[name] = source_digest(dataset)
    print(json.dumps({"reasoning-gym": version("reasoning-gym"), "families": allowed}, indent=1))


if __name__ == "__main__":
    main()
