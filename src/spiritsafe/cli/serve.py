"""The verbs of serving: serve, watch."""

from pathlib import Path
from typing import Annotated

import typer

from spiritsafe.cli.shared import AsJson, KeyEnv, app, bind_keys, print_verdicts


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
    home: Annotated[Path, typer.Option(help="Where keys and the exchange log live.")] = Path("gateway"),
    new_key: Annotated[str, typer.Option("--new-key", help="Create a key for this account, print it, stop.")] = "",
    key_env: KeyEnv = None,
) -> None:
    """Serve a model through the OpenAI-compatible gateway; every exchange is logged with its account."""
    from spiritsafe.guard.keys import Keys

    if new_key:
        typer.echo(Keys(home / "keys.sqlite").create(new_key))
        return
    from spiritsafe.guard.app import create_app
    from spiritsafe.guard.server import serve_forever
    from spiritsafe.models import open_model
    from spiritsafe.progress import Show, warn
    from spiritsafe.record import repair_jsonl

    bind_keys(key_env, [model])
    address, batch = _served(model, policy)
    opened_model = open_model(address, batch=batch)
    keys, log = Keys(home / "keys.sqlite"), home / "exchanges.jsonl"
    if warning := repair_jsonl(log):
        warn(warning)
    if not keys.list():
        warn(f"no account has a key yet; create one: spiritsafe serve {model} --home {home} --new-key NAME")
    served = name or address.rpartition("+")[2].rpartition("/")[2]
    Show().say(f"serving {served} at http://{host}:{port}/v1, log {log}")
    serve_forever(create_app(opened_model, keys=keys, log=log, name=served, logprobs=logprobs), host, port)


@app.command()
def watch(
    exchanges: Annotated[Path, typer.Argument(help="A log of exchanges (JSONL).")],
    calibration: Annotated[list[str], typer.Option("--calibrate", help="An ordinary account, repeat for each.")],
    judged: Annotated[list[str] | None, typer.Option("--judge", help="Accounts to judge; default: all others.")] = None,
    feature: Annotated[str, typer.Option(help="answer_tokens or distinct_prompts.")] = "answer_tokens",
    alpha: Annotated[float, typer.Option(help="False-alarm rate per judged account.")] = 0.05,
    as_json: AsJson = False,
) -> None:
    """Judge the accounts in a log, calibrated on ordinary accounts other than those judged."""
    from spiritsafe.errors import DataError
    from spiritsafe.guard.watch import watch as watch_accounts
    from spiritsafe.progress import warn
    from spiritsafe.record import Exchange, read_jsonl

    if not exchanges.is_file():
        raise DataError(str(exchanges), "no such file")
    log = read_jsonl(exchanges, Exchange, on_torn=warn)
    others = [a for a in dict.fromkeys(e.account for e in log) if a not in calibration]
    found = watch_accounts(log, judged=judged or others, calibration=calibration, feature=feature, alpha=alpha, seed=0)
    print_verdicts(found, as_json=as_json)


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
