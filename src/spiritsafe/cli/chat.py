"""The verb that talks to a model: chat."""

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from spiritsafe.cli.shared import KeyEnv, app, bind_keys

if TYPE_CHECKING:
    from spiritsafe.models.base import Model, Request
    from spiritsafe.record import Exchange


@app.command()
def chat(
    model: Annotated[str, typer.Argument(help="Any model's address, e.g. made/student or guarded:strict+smollm2.")],
    system: Annotated[str, typer.Option(help="A system message before the conversation.")] = "",
    max_tokens: Annotated[int, typer.Option(min=1, help="An answer's tokens, at most.")] = 512,
    temperature: Annotated[float, typer.Option(min=0.0, help="0 takes the likeliest token each time.")] = 0.7,
    seed: Annotated[int, typer.Option(help="The seed of all there is to draw.")] = 0,
    key_env: KeyEnv = None,
) -> None:
    """Talk to a model: a line a turn; an empty line begins anew, Ctrl-D ends. Nothing is kept."""
    from spiritsafe.errors import printable
    from spiritsafe.models import open_model
    from spiritsafe.models.base import Request
    from spiritsafe.progress import Show
    from spiritsafe.record import Message, Sampling, seed_of

    bind_keys(key_env, [model])
    Show().say(printable(f"opening {model}"))
    opened = open_model(model)
    begin = [Message(role="system", content=system)] if system else []
    turns = list(begin)
    is_talk = sys.stdin.isatty()
    while (line := _line(is_talk)) is not None:
        if not line.strip():
            turns = list(begin)
            continue
        turns.append(Message(role="user", content=line))
        # Turn by turn another seed, the same each time the same is said.
        drawn = seed_of(seed, len(turns))
        sampling = Sampling(temperature=temperature, max_tokens=max_tokens, seed=drawn)
        exchange = _answered(opened, Request(messages=tuple(turns), sampling=sampling))
        if exchange.error_kind:
            typer.echo(printable(f"error: {exchange.error}"), err=True)
            turns.pop()
            continue
        turns.append(Message(role="assistant", content=_given(exchange)))


def _answered(opened: "Model", request: "Request") -> "Exchange":
    """One answer, printed as it grows."""
    from spiritsafe.errors import printable

    pieces: list[str] = []

    def show(_number: int, piece: str) -> None:
        pieces.append(piece)
        typer.echo(printable(piece), nl=False)

    (exchange,) = opened.generate([request], on_text=show)
    if not pieces:
        typer.echo(printable(_given(exchange)), nl=False)
    typer.echo(" [cut]" if exchange.finish_reason == "length" else "")
    return exchange


def _given(exchange: "Exchange") -> str:
    return exchange.answer if exchange.sent is None else exchange.sent


def _line(is_talk: bool) -> str | None:
    """What a person says next; None at the end."""
    if is_talk:
        typer.echo("> ", nl=False, err=True)
    line = sys.stdin.readline()
    return line.rstrip("\n") if line else None
