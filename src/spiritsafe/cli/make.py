"""The verbs of making: make, export."""

from pathlib import Path
from typing import Annotated

import typer

from spiritsafe.cli.shared import AsJson, KeyEnv, Overrides, app, bind_keys, print_verdicts

PROMPTS = "A file (.jsonl, .ndjson, .json, .csv, .tsv, .txt, each also as .gz), self:NUM or task:FAMILY:NUM."


@app.command()
def make(
    teacher: Annotated[str, typer.Argument(help="The teacher's address, e.g. smollm2 or openai:NAME@URL.")],
    overrides: Overrides = None,
    prompts: Annotated[str, typer.Option(help=PROMPTS)] = "",
    method: Annotated[str, typer.Option(help="text, cached, online, gkd, policy-gradient or judged.")] = "",
    student: Annotated[str, typer.Option(help="pruned:LAYERS, a local model's address, or config:FILE.")] = "",
    out: Annotated[Path, typer.Option("-o", "--out", help="The directory to make it in.")] = Path("made"),
    tokens: Annotated[int | None, typer.Option(help="Train on so many answer tokens instead of epochs.")] = None,
    seconds: Annotated[float | None, typer.Option(help="Train for so many seconds instead of epochs.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Prompts, picked by the seed.")] = None,
    seed: Annotated[int, typer.Option(help="The seed of all there is to draw.")] = 0,
    resume: Annotated[Path | None, typer.Option(help="Continue this directory.")] = None,
    probe: Annotated[bool, typer.Option("--probe", help="Say what the teacher can give, and stop.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check the prompts, print the resolved settings, stop.")
    ] = False,
    key_env: KeyEnv = None,
    as_json: AsJson = False,
) -> None:
    """Make a small student from a teacher; the same command continues a killed one.

    KEY=VALUE sets what has no option, e.g. make.learning_rate=3e-4, data.collect.sampling.max_tokens=256.
    """
    from spiritsafe import making

    bind_keys(key_env, [teacher, student, *(overrides or ())])
    if probe:
        making.print_probe(teacher, student, as_json=as_json)
        return
    options = making.Options(prompts, method, student, limit, seed, tokens, seconds)
    settings = making.settings_of(teacher, options, overrides or [])
    if dry_run:
        making.check_prompts_of(settings)
        typer.echo(settings.model_dump_json(indent=1))
        return
    made = making.make_student(settings, resume or out, resume=resume is not None)
    if made.verdicts and not as_json:
        print_verdicts(made.verdicts, as_json=False)
    typer.echo(making.told(made, as_json=as_json))


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
