"""What the verbs share: the application, options that mean the same everywhere, and how verdicts are printed."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from spiritsafe.record import Verdict

app = typer.Typer(
    name="spiritsafe",
    no_args_is_help=True,
    add_completion=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

RecipeArgument = Annotated[str, typer.Argument(help="A recipe file, or a shipped recipe's name.")]
Overrides = Annotated[list[str] | None, typer.Argument(help="KEY=VALUE overrides, e.g. make.epochs=3")]
Runs = Annotated[Path, typer.Option("--runs", help="Where run directories live.")]
KeyEnv = Annotated[
    list[str] | None,
    typer.Option("--key-env", help="[HOST=]NAME: the variable with a server's key; repeat for more hosts."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Machine-readable output.")]


def _print_version(is_wanted: bool) -> None:
    if is_wanted:
        from spiritsafe import __version__

        typer.echo(f"spiritsafe {__version__}")
        raise typer.Exit


@app.callback(help="Distil, measure, guard and trace language models; every claim carries its evidence.")
def root(
    _version: Annotated[
        bool, typer.Option("--version", help="Print the version and stop.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """What the command takes before any verb."""


def print_verdicts(verdicts: "Sequence[Verdict]", *, as_json: bool) -> None:
    """Verdicts on stdout: a table for a person, JSON for a program."""
    from spiritsafe.report.table import natural_width, verdict_table, verdicts_json

    if as_json:
        typer.echo(verdicts_json(verdicts))
        return
    from rich.console import Console

    table, console = verdict_table(verdicts), Console()
    if not sys.stdout.isatty():  # as wide as it is: nothing wraps in a file
        console.width = natural_width(table)
    console.print(table)


def bind_keys(names: list[str] | None, addresses: Sequence[str]) -> None:
    """Take `--key-env` for the hosts of these addresses, or for the hosts that it names itself."""
    from spiritsafe.models.keys import bind, urls_in

    for name in names or ():
        bind(name, urls_in(addresses))
