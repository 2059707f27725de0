"""The entry point: errors become one line on stderr and an exit code."""

import sys

import typer

from spiritsafe import threads
from spiritsafe.cli.shared import app
from spiritsafe.errors import SpiritsafeError, missing_module, printable


def main() -> None:
    """Entry point: errors become one line on stderr and an exit code."""
    try:
        threads.number()
        app(standalone_mode=True)
    except SpiritsafeError as error:
        typer.echo(printable(f"error: {error}"), err=True)
        sys.exit(error.exit_code)
    except ModuleNotFoundError as error:
        typer.echo(printable(f"error: {missing_module(error)}"), err=True)
        sys.exit(1)
    except SystemExit as end:
        if end.code == 130:  # typer's answer to Ctrl-C
            typer.echo("interrupted; the same command continues where it was", err=True)
        raise
    except OSError as error:
        typer.echo(printable(f"error: {error.filename or 'system'}: {error.strerror or error}"), err=True)
        sys.exit(1)
