"""The verbs of recipes and runs: run, validate, report."""

from pathlib import Path
from typing import Annotated

import typer

from spiritsafe.cli.shared import AsJson, Overrides, RecipeArgument, Runs, app, print_verdicts


@app.command()
def run(
    recipe: RecipeArgument,
    overrides: Overrides = None,
    runs: Runs = Path("runs"),
    seed: Annotated[int | None, typer.Option(help="Overrides run.seed.")] = None,
    resume: Annotated[Path | None, typer.Option(help="Continue this run directory.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the resolved recipe and stop.")] = False,
    as_json: AsJson = False,
) -> None:
    """Run a recipe: all four rooms, from the teacher to the report; the same command continues a killed run."""
    from spiritsafe.recipe import read_recipe
    from spiritsafe.run import opened

    resolved = read_recipe(recipe, [*(overrides or []), *([f"run.seed={seed}"] if seed is not None else [])])
    if dry_run:
        typer.echo(resolved.model_dump_json(indent=1))
        return
    from spiritsafe.pipeline import check_recipe, run_any
    from spiritsafe.progress import Show, warn

    check_recipe(resolved)
    with opened(resolved, runs, resume=resume) as (open_run, warnings):
        for text in warnings:
            warn(text)
        show = Show()
        show.say(f"run directory: {open_run.folder}")
        verdicts = run_any(open_run, show)
        print_verdicts(verdicts, as_json=as_json)
        if not as_json and open_run.path("report.html").is_file():
            typer.echo(f"report: {open_run.path('report.html')}")


@app.command()
def validate(recipe: RecipeArgument, overrides: Overrides = None) -> None:
    """Check a recipe without running it: its keys, its policy, its addresses."""
    from spiritsafe.pipeline import check_recipe
    from spiritsafe.recipe import read_recipe
    from spiritsafe.run import recipe_digest

    resolved = read_recipe(recipe, overrides or [])
    check_recipe(resolved)
    typer.echo(f"{recipe}: valid, digest {recipe_digest(resolved)[:10]}")


@app.command()
def report(runs: Annotated[list[Path], typer.Argument(help="Run directories.")], as_json: AsJson = False) -> None:
    """Write report.html anew from what a run directory holds, and print its verdicts."""
    from spiritsafe.measure.output import check_measurement
    from spiritsafe.report.html import write_report
    from spiritsafe.report.load import read_verdicts
    from spiritsafe.run import check_evidence

    for folder in runs:
        verdicts = read_verdicts(folder)
        if (folder / "recipe.json").is_file():
            check_evidence(folder, verdicts)
        else:
            check_measurement(folder)
        path = write_report(folder)
        print_verdicts(verdicts, as_json=as_json)
        if not as_json:
            typer.echo(f"report: {path}")
