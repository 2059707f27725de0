"""Is the twin-sample test exact on the real model? Null audits of a finished run's control student.

Each audit draws a log of its own: for 10 of the run's training prompts a served answer and 10 twins, all
fresh, against the control, which learned from other draws of the same prompts: the hardest null there is.
`uniformity_p` is Kolmogorov-Smirnov's over the audits' p-values, `z_sd` should be 1, `mean_u` 0.5,
`share_below_5%` at most 0.05. Needs a run directory: `make demo` makes one, the newest in runs/ is taken.
Not covered: other models and temperatures; small models are in the tests.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from bench import _schema
from bench._schema import Row, note
from spiritsafe.errors import RunError
from spiritsafe.evidence import uniformity_p
from spiritsafe.models import Model, ask, open_model
from spiritsafe.prompts import Prompt
from spiritsafe.prove.audit import Pool, examine, likelihoods
from spiritsafe.prove.twin_test import TwinTest
from spiritsafe.prove.twins import twin_requests
from spiritsafe.recipe import parse_recipe
from spiritsafe.record import Message, Sampling, read_json, read_jsonl

AUDITS, PROMPTS, TWINS, TOKENS = 24, 10, 10, 12


def measure(seed: int) -> list[Row]:
    """All rows, from `AUDITS` audits."""
    found = audits(newest_run(Path("runs")), seed)
    z = np.array([t.z for t in found])
    p_values = [t.p_value for t in found]
    u = np.array([t.mean_u for t in found])
    half = 1.96 * u.std(ddof=1) / np.sqrt(len(u))
    case = f"SmolLM2 control, {AUDITS} fresh logs of {PROMPTS} answers, {TWINS} twins"
    return [
        Row(case, "uniformity_p", uniformity_p(p_values), n=len(z)),
        Row(case, "z_sd", float(z.std(ddof=1)), n=len(z), spread=_sd_interval(z)),
        Row(case, "mean_u", float(u.mean()), n=len(z), spread=(float(u.mean() - half), float(u.mean() + half))),
        Row(case, "share_below_5%", float(np.mean(np.array(p_values) <= 0.05)), n=len(z)),
    ]


def audits(run: Path, seed: int) -> list[TwinTest]:
    """One test per fresh log."""
    recipe = parse_recipe(read_json(run / "recipe.json")["recipe"])
    teacher = open_model(recipe.teacher.model, batch=TWINS * PROMPTS)
    control = open_model(str((run / "models" / "control").resolve()), batch=TWINS * PROMPTS)
    prompts = [p.messages for p in read_jsonl(run / "prompts.jsonl", Prompt) if p.split == "train"]
    generator = np.random.Generator(np.random.Philox(seed))
    found = []
    for number in range(AUDITS):
        picks = generator.choice(len(prompts), PROMPTS, replace=False).tolist()
        pool = fresh_pool(teacher, [prompts[i] for i in picks], seed, number)
        found.append(examine(pool, likelihoods(control, pool)))
        note(f"audit {number + 1} of {AUDITS}: p {found[-1].p_value:.3f}, z {found[-1].z:.2f}")
    return found


def fresh_pool(teacher: Model, prompts: Sequence[tuple[Message, ...]], seed: int, number: int) -> Pool:
    """A served answer and its twins for each prompt, drawn together."""
    served = ask(prompts, Sampling(max_tokens=TOKENS, seed=seed), purpose=f"null log {number}")
    answers = teacher.generate(served)
    return Pool("null", tuple(answers), tuple(teacher.generate(twin_requests(answers, num_twins=TWINS, seed=seed))))


def newest_run(root: Path) -> Path:
    """The newest finished run below `root`. Raises `RunError` where there is none."""
    runs = sorted(root.glob("*/verdicts.json"), key=lambda path: path.stat().st_mtime)
    if not runs:
        raise RunError(str(root), "holds no finished run", "make demo")
    return runs[-1].parent


def _sd_interval(z: np.ndarray[tuple[int], np.dtype[np.float64]]) -> tuple[float, float]:
    from scipy.stats import chi2

    ends = chi2.ppf([0.975, 0.025], len(z) - 1)
    return tuple(float(x) for x in np.sqrt((len(z) - 1) * z.var(ddof=1) / ends))  # type: ignore[return-value]


if __name__ == "__main__":
    _schema.main("twin_null", measure)
