"""The rules of the house: who may import whom, what stays small, what is typed and described."""

import ast
import json
import re
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import pytest

from bench._schema import Row
from bench.startup import torch_modules
from spiritsafe.recipe import read_recipe, shipped_recipes

ROOT = Path(__file__).parent.parent
SRC = ROOT / "src" / "spiritsafe"
FILES = sorted(SRC.rglob("*.py"))
FLOORS = (
    ("errors", "record", "seal", "cache", "locks", "threads"),
    (
        *("evidence", "recipe", "recipe_matched", "recipe_photocopy", "run", "ledger"),
        *("prompts", "progress", "accounts", "stage", "native", "checks", "prompt_files", "prompt_rows"),
    ),
    ("models",),
    ("make", "measure", "guard", "prove"),
    ("report",),
    ("house", "distil", "pipeline", "laboratory", "matched", "photocopy", "making"),
    ("cli", "__main__"),
)
FLOOR = {name: number for number, names in enumerate(FLOORS) for name in names}
ROOMS = FLOORS[3]


def imported_parts(file: Path) -> set[str]:
    """The parts of spiritsafe (`record`, `make`, ...) that a file imports, wherever in it."""
    modules: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{file.name}: relative import"
            modules |= {f"{node.module}.{alias.name}" for alias in node.names}
    parts = {module.split(".")[1] for module in modules if module.startswith("spiritsafe.")}
    return parts - {"__version__"}


@pytest.mark.parametrize("file", FILES, ids=lambda f: str(f.relative_to(SRC)))
def test_a_part_imports_only_from_its_own_floor_or_below_and_no_other_room(file: Path) -> None:
    part = file.relative_to(SRC).parts[0].removesuffix(".py")
    if part == "__init__":
        return
    assert part in FLOOR, f"{part} has no place in the import rule"
    for other in imported_parts(file):
        assert FLOOR[other] <= FLOOR[part], f"{part} imports {other}, which stands above it"
        assert other == part or not {other, part} <= set(ROOMS), f"room {part} imports room {other}"


def test_help_and_shipped_recipes_import_no_torch() -> None:
    assert torch_modules() == []


def test_every_shipped_recipe_is_valid() -> None:
    assert "quickstart" in shipped_recipes()
    for name in shipped_recipes():
        assert read_recipe(name).run.name == name


def public_definitions(
    body: list[ast.stmt], prefix: str
) -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef]]:
    """Public functions and classes of a module's body, and the public methods of those classes."""
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            yield f"{prefix}{node.name}", node
            if isinstance(node, ast.ClassDef):
                yield from public_definitions(node.body, f"{prefix}{node.name}.")


@pytest.mark.parametrize("file", FILES, ids=lambda f: str(f.relative_to(SRC)))
def test_every_public_name_has_a_docstring_and_a_typed_signature(file: Path) -> None:
    wrong = [
        f"{name}: {fault}"
        for name, node in public_definitions(ast.parse(file.read_text()).body, "")
        if (fault := fault_of(node))
    ]
    assert wrong == []


def fault_of(node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) -> str:
    """What a definition lacks; empty if nothing."""
    if not ast.get_docstring(node):
        return "no docstring"
    if isinstance(node, ast.ClassDef):
        return ""
    given = node.args
    named = [*given.posonlyargs, *given.args, *given.kwonlyargs, given.vararg, given.kwarg]
    untyped = [arg.arg for arg in named if arg and arg.annotation is None and arg.arg not in ("self", "cls")]
    if node.returns is None:
        untyped.append("its return")
    return f"untyped {', '.join(untyped)}" if untyped else ""


@pytest.mark.parametrize("file", FILES, ids=lambda f: str(f.relative_to(SRC)))
def test_files_and_functions_stay_small(file: Path) -> None:
    text = file.read_text()
    assert text.count("\n") <= 400
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            assert length <= 60, f"{node.name} has {length} lines"


@pytest.mark.parametrize("file", [f for f in FILES if f.stat().st_size], ids=lambda f: str(f.relative_to(SRC)))
def test_every_file_says_what_it_does(file: Path) -> None:
    assert ast.get_docstring(ast.parse(file.read_text()))


def test_every_dependency_is_pinned(root: Path) -> None:
    pins = [line for line in (root / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    assert all(line.count("==") == 1 for line in pins)
    assert {"torch", "transformers", "hatchling", "pytest", "numpy"} <= {line.partition("==")[0] for line in pins}


def test_every_lock_has_a_hash_for_each_file_at_the_versions_of_the_constraints(root: Path) -> None:
    pins = [line for line in (root / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    versions = dict(pin.split("==") for pin in pins)
    locks = {path.stem: path.read_text() for path in (root / "requirements").glob("*.txt")}
    assert set(locks) == {"torch", "dev", "docs", "guard"}
    for text in locks.values():
        for part in re.split(r"^(?=[^\s#])", text, flags=re.MULTILINE)[1:]:
            name, _, version = part.split()[0].partition("==")
            assert versions[name.partition("[")[0]] == version
            assert "--hash=sha256:" in part
    assert "hatchling==" in locks["dev"]
    assert "\ntorch==" not in "".join(locks.values())


@pytest.mark.parametrize("file", sorted((ROOT / "bench" / "results").glob("*.json")), ids=lambda f: f.stem)
def test_bench_results_fit_the_schema(file: Path) -> None:
    result = json.loads(file.read_text())
    assert set(result) == {"bench", "machine", "seed", "rows"}
    assert result["bench"] == file.stem
    for row in result["rows"]:
        assert set(row) == {field.name for field in fields(Row)}
        assert (row["peer"] is None) == (row["theirs"] is None) == (row["ratio"] is None)


def test_every_page_of_the_documentation_is_in_its_navigation() -> None:
    listed = (ROOT / "zensical.toml").read_text()
    pages = [path.relative_to(ROOT / "docs").as_posix() for path in sorted((ROOT / "docs").rglob("*.md"))]
    assert [page for page in pages if f'"{page}"' not in listed] == []
