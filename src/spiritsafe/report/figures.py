"""The report's figures: which verdicts and points go into which chart. An empty chart is empty markup."""

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from spiritsafe.record import Verdict
from spiritsafe.report.load import CutTrial, PowerPoint, RunData, Stage, Step, WatchScore
from spiritsafe.report.svg import Cell, Group, Point, Row, Series, bar_chart, dot_chart, line_chart, matrix
from spiritsafe.report.text import duration, figure_text, interval_text, is_share, number, p_text, scale_of, titled

TONES = {"student": 0, "own student": 1, "own-student": 1, "control": 2, "pruned start": 3, "teacher": 4}
RISK = ("refused, control off", "refused, control on", "stopped, control on")
ROLES = {"draws": "drew off", "ordinary": "ordinary", "calibration": "calibration"}


@dataclass(frozen=True)
class Figure:
    """A chart with its heading and the sentence that says how to read it."""

    heading: str
    caption: str
    chart: Markup


def loss_figure(metrics: Sequence[Step]) -> Figure:
    """Training loss over steps: each step faint, the mean over a window of a fifteenth of the steps strong."""
    names = list(dict.fromkeys(m.student for m in metrics))
    series: list[Series] = []
    for index, name in enumerate(names):
        points = [Point(m.step, m.loss) for m in metrics if m.student == name]
        tone = TONES.get(name, index)
        series += [Series(name, tuple(points), tone, faint=True), Series(name, _smooth(points), tone)]
    chart = line_chart(
        series,
        title="Training loss over steps",
        desc="; ".join(f"{s.name} ends at {number(s.points[-1].y)} nats" for s in series if not s.faint and s.points),
        x_label="training step",
        y_label="loss, nats per token",
    )
    caption = (
        "Strong: mean over a window of a fifteenth of the steps; faint: each step. The own student's loss is "
        "measured against the teacher's probabilities, so its level is not comparable with the others'."
    )
    return Figure("Training loss", caption, chart if metrics else Markup())


def cut_figure(trials: Sequence[CutTrial]) -> Figure:
    """What leaving out each block of layers costs, untrained."""
    if not trials:
        return Figure("", "", Markup())
    best = min(trials, key=lambda trial: trial.kl)
    points = tuple(Point(t.start, t.kl) for t in trials)
    chart = line_chart(
        [Series("untrained", points, TONES["pruned start"])],
        title="KL to the teacher without a block of layers, by the block's first layer",
        desc=f"least at layer {best.start} with {number(best.kl)} nats per token",
        x_label="first layer left out",
        y_label="KL, nats per token",
        log_y=True,
    )
    caption = f"Before any training. The block that begins at layer {best.start} costs least and was left out."
    return Figure("Which layers can go", caption, chart)


def fidelity_figure(verdicts: Sequence[Verdict], name: str, caption: str) -> Figure:
    """One dot with its interval for each subject of the verdicts called `name`."""
    found = [v for v in verdicts if v.name == name]
    rows = tuple(_row(v, v.subject, TONES.get(v.subject, 0)) for v in found)
    unit = found[0].unit.replace("share", "per cent", 1) if found else ""
    chart = dot_chart(
        [Group("", rows)],
        title=name,
        desc=_read_out(rows),
        x_label=unit or name,
        bounds=(0.0, 100.0) if found and is_share(found[0].unit) else None,
        zero=True,
    )
    return Figure(titled(name), caption, chart if found else Markup())


def risk_figure(verdicts: Sequence[Verdict]) -> Figure:
    """Refused and stopped shares, control off and on, grouped by subject."""
    found = [v for v in verdicts if v.name in RISK]
    groups = [
        Group(subject, tuple(_row(v, v.name, RISK.index(v.name)) for v in found if v.subject == subject))
        for subject in dict.fromkeys(v.subject for v in found)
    ]
    chart = dot_chart(
        groups,
        title="Risk control off and on",
        desc="; ".join(f"{g.heading}: {_read_out(g.rows)}" for g in groups),
        x_label="per cent of prompts",
        bounds=(0.0, 100.0),
    )
    caption = "Circle: refused, control off; square: refused, control on; triangle: stopped by the control. Wilson."
    return Figure("Risk control off and on", caption, chart if found else Markup())


def twin_figure(verdicts: Sequence[Verdict]) -> Figure:
    """Adjusted p-values of the twin-sample test, accounts by models."""
    found = {_pair(v): v for v in verdicts if v.name == "twin-sample test"}
    cells = {pair: _cell(v) for pair, v in found.items()}
    chart = matrix(
        cells,
        rows=list(dict.fromkeys(account for account, _ in found)),
        columns=list(dict.fromkeys(model for _, model in found)),
        corner="account",
        title="p-values of the twin-sample test, accounts by models",
    )
    caption = (
        "p-value of each test, Holm-adjusted over accounts: the deeper the colour, the smaller. Heavy frame: a model "
        "that did learn from that account's answers, so the test should find it. ✓ as it should be, ✗ not."
    )
    return Figure("Whose answers did each model learn from?", caption, chart if found else Markup())


def power_figures(points: Sequence[PowerPoint]) -> list[Figure]:
    """Median p-value and share of rejections against the number of logged answers."""
    if not points:
        return []
    alpha = points[0].alpha
    medians, shares = _power_series(points, "median"), _power_series(points, "share")
    chart = line_chart(
        medians,
        title="p-value against the number of logged answers",
        desc=f"Bars span the 10 % to the 90 % quantile over subsets; the dashed line is alpha = {alpha:g}.",
        x_label="logged answers",
        y_label="median p-value, log scale",
        log_y=True,
        reference=(alpha, f"alpha = {alpha:g}"),
    )
    rejected = line_chart(
        shares,
        title="Share of subsets that reject against the number of logged answers",
        desc=f"A subset rejects where its p-value is at most {alpha:g}.",
        x_label="logged answers",
        y_label="share of subsets that reject, per cent",
        zero=True,
    )
    caption = (
        "Random subsets of one log; bars from the 10 % to the 90 % quantile. Subsets overlap: points are dependent."
    )
    return [
        Figure("How many answers a proof needs", caption, chart),
        Figure("Power of the twin-sample test", f"At alpha = {alpha:g}, not adjusted for several accounts.", rejected),
    ]


def watch_figure(scores: Sequence[WatchScore], feature: str) -> Figure:
    """The watch's score of each judged account above the calibration accounts."""
    order = [s for role in ("draws", "ordinary") for s in scores if s.role == role]
    calibration = tuple(s.value for s in scores if s.role == "calibration")
    rows = [Row(f"{s.account} ({ROLES[s.role]})", _score(s), (s.value,), tone=int(s.role == "ordinary")) for s in order]
    if calibration:
        rows.append(Row("calibration accounts", f"n = {len(calibration)}", calibration, tone=4))
    chart = dot_chart(
        [Group("", tuple(rows))],
        title="Watch scores by account",
        desc=_read_out(rows),
        x_label=feature.replace("_", " "),
        zero=True,
    )
    caption = (
        "Each judged account beside the ordinary accounts that calibrate the watch (strokes), which it never judges."
    )
    return Figure("What the watch saw", caption, chart if scores else Markup())


def stages_figure(stages: Sequence[Stage]) -> Figure:
    """Wall time of each stage."""
    rows = tuple(Row(s.stage, duration(s.wall_s), (s.wall_s,)) for s in stages)
    chart = bar_chart([Group("", rows)], title="Wall time by stage", desc=_read_out(rows), x_label="seconds")
    return Figure("Where the time went", "Wall time of each stage.", chart if rows else Markup())


def figures(run: RunData) -> dict[str, list[Figure]]:
    """All figures of a run by the section they stand in; those without data are left out."""
    v = run.verdicts
    kl = "Lower is closer to the teacher; bars are 95 % intervals over held-out prompts."
    agreement = "Higher is closer: how often the model's most likely next token is the teacher's."
    bits = "Bits per byte of the held-out answers; lower is better, comparable across tokenizers."
    tasks = "Share of verifiable tasks solved; Wilson intervals."
    sections = {
        "make": [loss_figure(run.metrics), cut_figure(run.plots.cut)],
        "measure": [
            fidelity_figure(v, "kl to teacher", kl),
            fidelity_figure(v, "top-1 agreement", agreement),
            fidelity_figure(v, "bits per byte", bits),
            fidelity_figure(v, "task accuracy", tasks),
            risk_figure(v),
        ],
        "guard": [watch_figure(run.plots.watch, run.recipe.watch.feature)],
        "prove": [twin_figure(v), *power_figures(run.plots.power)],
        "ledger": [stages_figure(run.ledger.stages)],
    }
    return {name: [f for f in found if f.chart] for name, found in sections.items()}


def should_reject(verdict: Verdict) -> bool | None:
    """Whether the run's ground truth asks for a rejection, where it is known."""
    if verdict.holds is None or verdict.rejected is None:
        return None
    return verdict.rejected == verdict.holds


def _smooth(points: Sequence[Point]) -> tuple[Point, ...]:
    half = max(1, len(points) // 30)
    windows = [(p, points[max(0, i - half) : i + half + 1]) for i, p in enumerate(points)]
    return tuple(Point(p.x, sum(q.y for q in window) / len(window)) for p, window in windows)


def _row(verdict: Verdict, name: str, tone: int) -> Row:
    scale = scale_of(verdict.unit)
    low, high = (end * scale for end in verdict.interval) if verdict.interval else (None, None)
    around = f" ({interval_text(verdict)})" if verdict.interval else ""
    return Row(name, figure_text(verdict) + around, (verdict.value * scale,), low, high, tone)


def _read_out(rows: Sequence[Row]) -> str:
    return "; ".join(f"{r.name}: {r.note}" for r in rows)


def _pair(verdict: Verdict) -> tuple[str, str]:
    account, _, model = verdict.subject.partition(" x ")
    return str(verdict.detail.get("account", account)), str(verdict.detail.get("model", model))


def _cell(verdict: Verdict) -> Cell:
    p_value = verdict.p_value if verdict.p_adjusted is None else verdict.p_adjusted
    return Cell(1.0 if p_value is None else p_value, bool(verdict.rejected), should_reject(verdict))


def _score(score: WatchScore) -> str:
    return number(score.value) + ("" if score.p_value is None else f", p = {p_text(score.p_value)}")


def _power_series(points: Sequence[PowerPoint], what: str) -> list[Series]:
    pairs = list(dict.fromkeys((p.model, p.account) for p in points))
    several = len({account for _, account in pairs}) > 1
    series = []
    for index, (model, account) in enumerate(pairs):
        own = sorted((p for p in points if (p.model, p.account) == (model, account)), key=lambda p: p.num_logged)
        line = tuple(
            Point(p.num_logged, p.median_p, p.low_p, p.high_p)
            if what == "median"
            else Point(p.num_logged, 100 * p.share_rejected)
            for p in own
        )
        series.append(Series(f"{model} / {account}" if several else model, line, TONES.get(model, index)))
    return series
