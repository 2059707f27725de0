"""A synthetic run directory: the shape of a real one, with numbers made up from a formula."""

from collections.abc import Callable
from math import exp
from pathlib import Path
from typing import Any

import pytest

from spiritsafe.record import Exchange, Message, Sampling, Verdict, append_jsonl, verdict_file, write_json

MODELS = ("student", "own student", "control", "pruned start")
ACCOUNTS = ("drawer", "ordinary-1", "ordinary-2")
WriteRun = Callable[..., Path]


def measured(name: str, subject: str, value: float, half: float, **more: Any) -> Verdict:
    """A verdict of the measuring room."""
    given: dict[str, Any] = {
        "room": "measure",
        "claim": f"{name} of {subject}",
        "interval": (max(0.0, value - half), value + half),
        "n": 32,
        "seed": 0,
        "method": "mean over held-out prompts, bootstrap-t interval over prompts",
        "assumptions": ("prompts are drawn independently",),
        "limits": ("prompts are the teacher's own",),
    }
    return Verdict(name=name, subject=subject, value=value, **{**given, **more})


def twin(account: str, model: str) -> Verdict:
    """A verdict of the twin-sample test; the drawer's answers are found in the two students that saw them."""
    learned = account == "drawer" and model in MODELS[:2]
    p_value = 3.6e-15 if learned else 0.21 + 0.07 * ACCOUNTS.index(account)
    return Verdict(
        room="prove",
        name="twin-sample test",
        subject=f"{account} x {model}",
        claim=f"{model} {'learned' if learned else 'did not learn'} from answers served to {account}",
        value=0.94 if learned else 0.52,
        unit="mean rank of the served answer",
        interval=(0.9, 0.98) if learned else (0.44, 0.6),
        n=64,
        seed=0,
        method="Monte-Carlo rank of the served answer among 10 twins",
        kind="E",
        assumptions=("temperature above 0",),
        limits=("does not show who trained the model",),
        p_value=p_value,
        p_adjusted=min(1.0, 3 * p_value),
        e_value=8.1e9 if learned else 0.7,
        rejected=learned,
        expected="reject" if learned else "keep",
        holds=True,
        detail={"account": account, "model": model, "z": 7.9 if learned else 0.6, "mean_u": 0.94},
    )


def watched(account: str) -> Verdict:
    """A verdict of the extraction watch."""
    draws = account == "drawer"
    return Verdict(
        room="guard",
        name="extraction watch",
        subject=account,
        claim=f"{account} draws off {'more' if draws else 'no more'} than ordinary accounts",
        value=3021.0 if draws else 212.0,
        unit="tokens",
        n=19,
        seed=0,
        method="conformal p-value over 19 calibration accounts",
        kind="C",
        p_value=0.05 if draws else 0.4,
        rejected=draws,
        holds=True,
    )


def all_verdicts() -> list[Verdict]:
    """Verdicts of all rooms, as a run leaves them."""
    kl = {"student": 0.41, "own student": 0.33, "control": 0.42, "pruned start": 1.93, "teacher": 0.0}
    agreement = {"student": 0.62, "own student": 0.66, "control": 0.61, "pruned start": 0.38, "teacher": 1.0}
    found = [measured("kl to teacher", s, v, 0.06 * bool(v), unit="nats/token") for s, v in kl.items()]
    found += [measured("top-1 agreement", s, v, 0.03 * (v < 1), unit="share of tokens") for s, v in agreement.items()]
    found += [measured("bits per byte", s, 0.9 + v / 3, 0.08) for s, v in kl.items()]
    for name, harmful in (("refused, control off", 0.31), ("refused, control on", 0.87), ("stopped, control on", 0.8)):
        found.append(measured(name, "student on harmful", harmful, 0.09, unit="share of prompts", n=60))
        found.append(measured(name, "student on harmless", harmful / 12, 0.02, unit="share of prompts", n=60))
    gap = measured("task accuracy difference", "student vs teacher", -0.12, 0.1, interval=(-0.22, -0.02), p_value=0.039)
    return [*found, gap, *map(watched, ACCOUNTS), *(twin(a, m) for a in ACCOUNTS for m in MODELS)]


def exchange(account: str, prompt: str, answer: str) -> Exchange:
    """An exchange of one turn."""
    message = Message(role="user", content=prompt)
    sampling = Sampling()
    return Exchange(
        id="1", account=account, model="m", model_digest="d", messages=(message,), sampling=sampling, answer=answer
    )


def metrics() -> list[dict[str, Any]]:
    """Sixty steps of three students."""
    shape = {"tokens": 1024, "lr": 1e-4, "grad_norm": 1.0, "elapsed_s": 1.0}
    levels = {"student": 2.1, "own-student": 1.4, "control": 2.15}
    return [
        {"student": name, "step": i, "loss": level + 1.6 * exp(-i / 12) + (i * 37 % 11 - 5) / 25, **shape}
        for name, level in levels.items()
        for i in range(1, 61)
    ]


def plots() -> dict[str, Any]:
    """Power at four sizes of the log, and scores of the watch."""
    rates = {"student": 8.0, "own student": 14.0, "control": 500.0}
    power = [
        {"model": m, "account": "drawer", "num_logged": n, "alpha": 0.01, "share_rejected": 1 - exp(-n / r)}
        | {"median_p": exp(-n / r), "low_p": exp(-1.6 * n / r), "high_p": exp(-0.5 * n / r)}
        for m, r in rates.items()
        for n in (4, 8, 16, 32, 64)
    ]
    watch: list[dict[str, Any]] = [{"account": "drawer", "role": "draws", "value": 3021.0, "p_value": 0.05}]
    watch += [{"account": a, "role": "ordinary", "value": 212.0, "p_value": 0.4} for a in ACCOUNTS[1:]]
    watch += [{"account": f"c-{i}", "role": "calibration", "value": 90.0 + i * i, "p_value": None} for i in range(19)]
    return {"power": power, "watch": watch}


def ledger() -> dict[str, Any]:
    """Four stages of equal cost."""
    costs = {"wall_s": 62.5, "cpu_s": 118.0, "tokens_in": 5200, "tokens_out": 9100, "joules": 1770.0, "usd": 0.00174}
    stages = [
        {"stage": name, **costs, "joules_kind": "estimated"}
        | {"inputs": {"recipe.json": "a" * 64}, "outputs": {f"{name}.jsonl": "b" * 64}}
        for name in ("gateway", "make", "measure", "prove")
    ]
    totals = {key: 4 * value for key, value in costs.items()}
    rates = {"joules_kind": "estimated", "assumed_watts": 15.0, "usd_per_hour": 0.1}
    return {"stages": stages, "totals": totals, **rates, "leaves_out": ["training of the teacher itself"]}


ENVIRONMENT = {
    "python": "3.11.9",
    "platform": "Linux-6.1",
    "machine": "x86_64",
    "cpu": "a processor",
    "cores": 2,
    "packages": {"pydantic": "2.14.3"},
    "git": None,
    "started_at": "2026-11-22T03:00:00Z",
    "seed": 0,
}


@pytest.fixture
def verdicts() -> list[Verdict]:
    """Verdicts of all rooms."""
    return all_verdicts()


@pytest.fixture
def write_run(tmp_path: Path, small_recipe: dict[str, Any]) -> WriteRun:
    """Writes a whole run directory; verdicts, exchanges, watch scores and the environment can be given."""

    def write(
        *,
        verdicts: list[Verdict] | None = None,
        exchanges: list[Exchange] | None = None,
        watch: list[dict[str, Any]] | None = None,
        environment: dict[str, Any] | None = None,
    ) -> Path:
        run = tmp_path / "small-0123456789"
        shown = exchanges or [exchange("drawer", "What is copper?", "A metal.")]
        claimed = all_verdicts() if verdicts is None else verdicts
        write_json(run / "recipe.json", {"digest": "c" * 64, "recipe": small_recipe})
        write_json(run / "environment.json", ENVIRONMENT | (environment or {}))
        write_json(run / "verdicts.json", verdict_file(claimed))
        write_json(run / "plots.json", plots() | ({"watch": watch} if watch else {}))
        write_json(run / "ledger.json", ledger())
        append_jsonl(run / "metrics.jsonl", metrics())
        append_jsonl(run / "exchanges" / "gateway.jsonl", shown)
        return run

    return write


@pytest.fixture
def drawn() -> Callable[[str, str], Exchange]:
    """An exchange of the account that drew off, from prompt and answer."""
    return lambda prompt, answer: exchange("drawer", prompt, answer)
