"""The verbs of the risk control: guard check, guard fit, guard card."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from spiritsafe.cli.shared import AsJson, app

guard = typer.Typer(no_args_is_help=True, help="The risk control: try a policy, fit its heads, read their card.")
app.add_typer(guard, name="guard")
Heads = Annotated[str, typer.Argument(help="A folder that `guard fit` wrote, or shipped.")]


@guard.command()
def check(
    policy: Annotated[str, typer.Argument(help="A shipped policy or a file.")] = "default",
    texts: Annotated[list[str] | None, typer.Argument(help="Texts; default: the lines of stdin.")] = None,
    side: Annotated[str, typer.Option(help="Read them as input or output.")] = "input",
    asked: Annotated[str, typer.Option(help="The question that they answer, with --side output.")] = "",
    as_json: AsJson = False,
) -> None:
    """What a policy's stages find in texts; no model is asked."""
    from spiritsafe.guard.check import check_texts

    lines = texts or [line.rstrip("\n") for line in sys.stdin]
    for line in check_texts(policy, lines, side, as_json=as_json, asked=asked):
        typer.echo(line)


@guard.command()
def fit(
    sets: Annotated[list[str] | None, typer.Argument(help="Data sets by name; default: those of the shipped.")] = None,
    data: Annotated[str, typer.Option(help="A folder with the published files.")] = "",
    out: Annotated[Path, typer.Option("-o", "--out", help="The folder to write.")] = Path("heads"),
    encoders: Annotated[bool, typer.Option(help="Fit the second stage too (extra guard).")] = True,
    seed: Annotated[int, typer.Option(help="Seed of the intervals.")] = 0,
) -> None:
    """Fit heads on data sets whose licences permit it, and write them with a card of how often they err."""
    from spiritsafe.guard.heads.card import as_text
    from spiritsafe.guard.heads.fit import fit as fit_heads
    from spiritsafe.guard.heads.sets import default_names, measured_names
    from spiritsafe.progress import Show

    show = Show(quiet=False)
    names, measured = sets or default_names(), [] if sets else measured_names()
    found = fit_heads(names, data, out, seed=seed, say=show.say, measured=measured, encoders=encoders)
    typer.echo(as_text(found))


@guard.command()
def fit_answers(
    data: Annotated[str, typer.Option(help="A folder with the published files.")] = "",
    heads: Annotated[
        str, typer.Option(help="The request heads that read questions: a folder, or shipped.")
    ] = "shipped",
    out: Annotated[Path, typer.Option("-o", "--out", help="The folder to write.")] = Path("heads"),
    seed: Annotated[int, typer.Option(help="Seed of the intervals.")] = 0,
) -> None:
    """Fit the control of answers on labelled answers, beside request heads, and write it with a card."""
    from spiritsafe.guard.heads.answers_card import as_text
    from spiritsafe.guard.heads.answers_fit import fit_answers as fit_control
    from spiritsafe.progress import Show

    show = Show(quiet=False)
    typer.echo(as_text(fit_control(data, heads, out, seed=seed, say=show.say)))


@guard.command()
def card(
    heads: Heads = "shipped",
    answers: Annotated[bool, typer.Option(help="The card of the control of answers.")] = False,
    as_json: AsJson = False,
) -> None:
    """The card of heads: what they learnt from, what they never saw, and how often they err."""
    import json

    from spiritsafe.guard.heads import answers_card
    from spiritsafe.guard.heads.answers import open_answers
    from spiritsafe.guard.heads.card import as_text
    from spiritsafe.guard.heads.heads import open_heads

    found = open_answers(heads).card if answers else open_heads(heads).card
    text = answers_card.as_text(found) if answers else as_text(found)
    typer.echo(json.dumps(found, indent=1) if as_json else text)
