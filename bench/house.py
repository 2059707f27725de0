"""The house in figures: what a newcomer has to read, and how it is written. No times, so one run is enough.

    python -m bench.house --json

Names that are participles or pronouns say nothing of what they hold: `found`, `kept`, `own`; they are counted among the
names assigned to. A tuple-packed assignment is `a, b = 1, 2`. Concrete models are the classes named in `MODELS`.
"""

import ast
import io
import tokenize
from collections.abc import Iterator, Sequence
from pathlib import Path

from bench._schema import Row, main

ROOT = Path(__file__).parent.parent
SRC = ROOT / "src" / "spiritsafe"
MODELS = {"LocalModel", "EndpointModel", "FakeModel", "ReplayModel", "GuardedModel", "Fan"}
SAYS_NOTHING = {
    *("found", "told", "said", "asked", "held", "given", "kept", "own", "theirs", "mine", "ours", "taken", "drawn"),
    *("read", "seen", "known", "done", "wanted", "chosen", "picked", "left", "shown", "looked", "made", "put", "sent"),
}
LONG = 100
THOUSAND = 1000


def measure(seed: int) -> Sequence[Row]:
    """All figures; the seed is of no use here."""
    del seed
    files = sorted(SRC.rglob("*.py"))
    texts = {file: file.read_text() for file in files}
    trees = {file: ast.parse(text) for file, text in texts.items()}
    native = [file for file in SRC.rglob("*") if file.suffix in (".cpp", ".h")]
    lines = [line for text in texts.values() for line in text.splitlines()]
    comments = sum(num_comments(text) for text in texts.values())
    code = sum(bool(line.strip()) for line in lines) - comments
    nodes = [node for tree in trees.values() for node in ast.walk(tree)]
    names = [name for node in nodes for name in assigned(node)]
    rows = {
        ("modules at the package's top", "files"): len(list(SRC.glob("*.py"))),
        ("folders at the package's top", "folders"): sum(
            1 for path in SRC.iterdir() if (path / "__init__.py").exists()
        ),
        ("lines of Python without comments and blank lines", "lines"): code,
        ("lines of C++", "lines"): sum(len(file.read_text().splitlines()) for file in native),
        ("comment lines", "share of lines"): comments / (code + comments),
        ("lines above 100 characters", "share of lines"): sum(len(line) > LONG for line in lines) / len(lines),
        ("tuple-packed assignments", "per 1,000 lines"): THOUSAND * sum(map(is_packed, nodes)) / code,
        ("comprehensions", "per 1,000 lines"): THOUSAND * sum(map(is_comprehension, nodes)) / code,
        ("names that say nothing", "share of assigned names"): sum(n in SAYS_NOTHING for n in names) / len(names),
        ("Any", "uses"): sum(isinstance(node, ast.Name) and node.id == "Any" for node in nodes),
        ("isinstance on concrete models", "calls"): sum(map(asks_for_a_model, nodes)),
        ("README", "words"): len((ROOT / "README.md").read_text().split()),
    }
    return [Row(case, metric, round(value, 4)) for (case, metric), value in rows.items()]


def num_comments(text: str) -> int:
    """Comments that stand on a line of their own or behind code, without marks for tools (`noqa`, `type: ignore`)."""
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    comments = (token.string for token in tokens if token.type == tokenize.COMMENT)
    return sum(not comment.startswith(("# noqa", "# type:", "# fmt:", "# isort:", "#!")) for comment in comments)


def assigned(node: ast.AST) -> Iterator[str]:
    """The names that a node assigns to."""
    if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
        yield node.id


def is_packed(node: ast.AST) -> bool:
    """Whether it is an assignment of several values to several names at once."""
    return (
        isinstance(node, ast.Assign)
        and isinstance(node.value, ast.Tuple)
        and any(isinstance(target, ast.Tuple) for target in node.targets)
    )


def is_comprehension(node: ast.AST) -> bool:
    """Whether it is a comprehension or a generator."""
    return isinstance(node, ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp)


def asks_for_a_model(node: ast.AST) -> bool:
    """Whether it is `isinstance(x, SomeModel)`."""
    if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "isinstance"):
        return False
    kinds = {each.id for each in ast.walk(node.args[1]) if isinstance(each, ast.Name)}
    return bool(kinds & MODELS)


if __name__ == "__main__":
    main("house", measure)
