"""What there is and where it runs: ls, env."""

from pathlib import Path
from typing import Annotated, Any

import typer

from spiritsafe.cli.shared import AsJson, Runs, app
from spiritsafe.errors import UsageError


@app.command(name="ls")
def list_things(
    what: Annotated[str, typer.Argument(help="recipes, models, tasks, policies or runs.")], runs: Runs = Path("runs")
) -> None:
    """List shipped recipes, model addresses, tasks, risk-control policies, or runs."""
    for line in _listing(what, runs):
        typer.echo(line)


@app.command()
def env(as_json: AsJson = False) -> None:
    """Versions, machine and cache: what to put in a bug report."""
    import json

    from spiritsafe import __version__
    from spiritsafe.cache import cache_dir
    from spiritsafe.run import environment

    files = (path for path in cache_dir().rglob("*") if path.is_file() and not path.is_symlink())
    size_mb = round(sum(path.stat().st_size for path in files) / 1e6)
    found: dict[str, Any] = {
        "spiritsafe": __version__,
        **environment(),
        "cache": str(cache_dir()),
        "cache_mb": size_mb,
    }
    if as_json:
        typer.echo(json.dumps(found, indent=1))
        return
    for key in ("spiritsafe", "python", "platform", "cpu", "cores", "git", "cache"):
        typer.echo(f"{key}: {found[key]}" + (f" ({size_mb:,} MB)" if key == "cache" else ""))
    for package in ("torch", "transformers", "tokenizers", "pydantic", "starlette", "openai"):
        typer.echo(f"{package}: {found['packages'].get(package, 'not installed')}")


def _listing(what: str, runs: Path) -> list[str]:
    from spiritsafe.models.address import ALIASES
    from spiritsafe.recipe import shipped_recipes

    if what == "recipes":
        return shipped_recipes()
    if what == "models":
        return [f"{alias} = {address}" for alias, address in ALIASES.items()]
    if what == "tasks":
        from spiritsafe.measure.registry import task_names

        return task_names()
    if what == "policies":
        from spiritsafe.guard.policy import shipped_policies

        return list(shipped_policies())
    if what == "runs":
        return sorted(str(p.parent) for p in runs.glob("*/recipe.json"))
    raise UsageError(f"ls {what}", "is not known", "recipes, models, tasks, policies or runs")
