"""The verbs of serving: serve, keys, watch."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from spiritsafe.cli.shared import AsJson, KeyEnv, app, bind_keys, print_verdicts

if TYPE_CHECKING:
    from spiritsafe.record import Exchange

Home = Annotated[Path, typer.Option(help="Where keys and the exchange log live.")]
KEY_FILE = "keys.sqlite"


@app.command()
def serve(
    model: Annotated[
        str, typer.Argument(help="A recipe, to serve its teacher guarded as it says; or a model address.")
    ],
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.")] = 8000,
    name: Annotated[str, typer.Option(help="The model's name towards clients.")] = "",
    policy: Annotated[str, typer.Option(help="Put a risk-control policy before the model.")] = "",
    logprobs: Annotated[
        int, typer.Option(min=0, max=254, help="Candidates a token that clients may have with log-probabilities.")
    ] = 0,
    home: Home = Path("gateway"),
    new_key: Annotated[
        str | None, typer.Option("--new-key", help="Create a key for this account, print it, stop.")
    ] = None,
    key_env: KeyEnv = None,
    max_tokens: Annotated[int, typer.Option(min=1, max=32768, help="An answer's tokens if a client names none.")] = 256,
    max_body: Annotated[int, typer.Option(min=1024, help="A request's body in bytes, at most.")] = 1 << 20,
    idle: Annotated[int, typer.Option(min=1, help="Seconds after which an idle connection is closed.")] = 75,
    cors: Annotated[
        list[str] | None, typer.Option(help="An origin whose pages may ask from a browser; repeat for more.")
    ] = None,
) -> None:
    """Serve a model through the OpenAI-compatible gateway; every exchange is logged with its account."""
    from spiritsafe.guard.keys import Keys, check_account

    if new_key is not None:
        check_account(new_key, "--new-key")
        typer.echo(Keys(home / KEY_FILE).create(new_key))
        return
    from spiritsafe.errors import printable
    from spiritsafe.guard.app import create_app
    from spiritsafe.guard.server import check_address, serve_forever
    from spiritsafe.locks import claimed
    from spiritsafe.models import open_model
    from spiritsafe.progress import Show, warn
    from spiritsafe.record import repair_jsonl

    bind_keys(key_env, [model])
    with claimed(home, "one gateway serves a home: stop that one, or choose another --home"):
        address, batch = _served(model, policy)
        check_address(host, port)
        Show().say(printable(f"loading {address}"))
        opened_model = open_model(address, batch=batch)
        keys, log = Keys(home / KEY_FILE), home / "exchanges.jsonl"
        if warning := repair_jsonl(log):
            warn(warning)
        if not keys.list():
            warn(f"no account has a key yet; create one: spiritsafe serve {model} --home {home} --new-key NAME")
        if not _is_loopback(host):
            warn(f"{host} is open to others without TLS: keys and texts can be read on the way; put a proxy before it")
        served = name or address.rpartition("+")[2].rpartition("/")[2]
        app = create_app(
            opened_model, keys=keys, log=log, name=served, logprobs=logprobs, max_tokens=max_tokens,
            max_body_bytes=max_body, origins=cors or (),
        )  # fmt: skip
        Show().say(printable(f"serving {served} at http://{host}:{port}/v1, log {log}"))
        serve_forever(app, host, port, idle_s=idle)


keys = typer.Typer(no_args_is_help=True, help="The keys of a gateway; `serve --new-key NAME` creates one.")
app.add_typer(keys, name="keys")


@keys.command(name="list")
def list_keys(home: Home = Path("gateway"), as_json: AsJson = False) -> None:
    """All keys, oldest first: whose, since when, and until when. The keys themselves are nowhere."""
    import json
    from datetime import UTC, datetime

    from spiritsafe.errors import printable

    rows = _keys(home).list()
    if as_json:
        typer.echo(json.dumps([vars(row) for row in rows], indent=1))
        return
    for row in rows:
        since, until = (
            datetime.fromtimestamp(time_s, UTC).isoformat(timespec="seconds") if time_s else ""
            for time_s in (row.created_at_s, row.revoked_at_s)
        )
        typer.echo(printable(f"{row.account}  since {since}{f', revoked {until}' if until else ''}"))


@keys.command(name="revoke")
def revoke_keys(
    account: Annotated[str, typer.Argument(help="The account whose keys end at once.")], home: Home = Path("gateway")
) -> None:
    """Revoke all keys of an account, also of a gateway that runs."""
    from spiritsafe.errors import DataError

    num = _keys(home).revoke(account)
    if not num:
        raise DataError(str(home), f"account {account!r} has no valid key", "spiritsafe keys list shows all")
    typer.echo(f"revoked: {num}")


@app.command()
def watch(
    exchanges: Annotated[Path, typer.Argument(help="A log of exchanges (JSONL).")],
    calibration: Annotated[
        list[str] | None,
        typer.Option(
            "--calibrate", help="An ordinary account, repeat for each; without: the log's accounts are listed."
        ),
    ] = None,
    judged: Annotated[list[str] | None, typer.Option("--judge", help="Accounts to judge; default: all others.")] = None,
    feature: Annotated[str, typer.Option(help="answer_tokens or distinct_prompts.")] = "answer_tokens",
    alpha: Annotated[float, typer.Option(help="False-alarm rate per judged account.")] = 0.05,
    as_json: AsJson = False,
) -> None:
    """Judge the accounts in a log, calibrated on ordinary accounts other than those judged."""
    from spiritsafe.errors import DataError
    from spiritsafe.guard.watch import watch as watch_accounts
    from spiritsafe.guard.watch.log import each_once
    from spiritsafe.progress import warn
    from spiritsafe.record import Exchange, read_jsonl

    if not exchanges.is_file():
        raise DataError(str(exchanges), "no such file")
    log = each_once(read_jsonl(exchanges, Exchange, on_torn=warn, on_unsealed=warn), exchanges, warn)
    if not log:
        raise DataError(str(exchanges), "holds no exchange", "a gateway's log is exchanges.jsonl in its --home")
    if not calibration:
        _list_accounts(exchanges, log, alpha, as_json=as_json)
        return
    others = [a for a in dict.fromkeys(e.account for e in log) if a not in calibration]
    found = watch_accounts(log, judged=judged or others, calibration=calibration, feature=feature, alpha=alpha, seed=0)
    print_verdicts(found, as_json=as_json)


def _list_accounts(path: Path, log: "Sequence[Exchange]", alpha: float, *, as_json: bool) -> None:
    """The accounts of a log of which none was named as ordinary, and what to type next."""
    import json
    from shlex import quote

    from spiritsafe.errors import UsageError
    from spiritsafe.guard.watch import fewest_ordinary, listing, uses_of

    if not 0 < alpha < 1:
        raise UsageError("--alpha", f"{alpha:g} is no false-alarm rate", "take one between 0 and 1")
    uses = uses_of(log)
    typer.echo(json.dumps([vars(use) for use in uses], indent=1) if as_json else listing(uses))
    needed = f"{fewest_ordinary(alpha)} or more at --alpha {alpha:g}"
    following = f"spiritsafe watch {quote(str(path))} --calibrate NAME --calibrate NAME ..."
    typer.echo(f"to judge them, name ordinary accounts, {needed}: {following}", err=True)


def _keys(home: Path) -> Any:
    from spiritsafe.errors import DataError
    from spiritsafe.guard.keys import Keys

    if not (home / KEY_FILE).is_file():
        raise DataError(str(home / KEY_FILE), "no such file", "name the gateway's folder with --home")
    return Keys(home / KEY_FILE)


def _is_loopback(host: str) -> bool:
    from ipaddress import ip_address

    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _served(model: str, policy: str) -> tuple[str, int]:
    """The address and batch that `serve` opens: a recipe's teacher behind its policy, or a model."""
    from spiritsafe.recipe import load_recipe, shipped_recipes

    if not model.endswith(".toml") and model not in shipped_recipes():
        return (f"guarded:{policy}+{model}" if policy else model), 64
    from spiritsafe.guard.policy import load_policy

    recipe = load_recipe(model)
    named = policy or recipe.guard.policy
    reviewer = f"~{recipe.guard.reviewer}" if load_policy(named).decide == "reviewer" else ""
    return f"guarded:{named}{reviewer}+{recipe.teacher.model}", recipe.teacher.batch
