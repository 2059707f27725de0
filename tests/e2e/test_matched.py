"""A comparison at equal budget with one command: equal is equal, costs add up, a killed run ends the same."""

import json
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest

from spiritsafe.matched.trial import Look
from spiritsafe.record import Verdict, read_jsonl, verdict_file, write_json
from spiritsafe.report.html import write_report
from tests.e2e.workspace import Workspace, assert_same, ended, exchanges, leftovers, verdicts, wait_for
from tests.report.test_html import HOSTILE, PAYLOADS, Page

pytestmark = pytest.mark.slow

METHODS = ("text", "cached", "online", "on-policy")
BUDGETS = ("tokens", "seconds", "all-seconds")
TOKENS, SECONDS, MOST_PER_STEP = 800, 0.3, 4 * 12


@pytest.fixture(scope="module")
def recipe(workspace: Workspace) -> str:
    """The small recipe, put into the workspace."""
    return Path(shutil.copy(Path(__file__).parent / "tiny-matched.toml", workspace.folder)).name


@pytest.fixture(scope="module")
def compared(workspace: Workspace, recipe: str) -> Path:
    """The directory of a finished comparison; not to be changed."""
    done = workspace.call("run", recipe, "--runs", "matched")
    assert (done.code, done.err) == (0, "")
    return workspace.only("matched")


def looks(run: Path, budget: str) -> list[Look]:
    """All looks at students of one budget."""
    files = [run / "looks" / f"{budget}-{method}-{number}.jsonl" for method in METHODS for number in (0, 1)]
    return [look for file in files for look in read_jsonl(file, Look)]


def steps(run: Path, look: Look) -> list[dict[str, Any]]:
    """The steps of the training at which a look was taken; none where the teacher had used up its budget."""
    file = run / "metrics" / f"{look.budget}-{look.method}-{look.number}.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()] if look.steps else []


def costs(run: Path) -> dict[str, Any]:
    """What a comparison says that it cost."""
    found: dict[str, Any] = json.loads((run / "costs.json").read_text())
    return found


def of_tokens(run: Path) -> list[dict[str, Any]]:
    """The verdicts that depend on no clock."""
    return [v for v in verdicts(run) if v["detail"].get("budget", "tokens") == "tokens"]


def test_every_method_spends_the_same_tokens_to_within_one_step(compared: Path) -> None:
    found = looks(compared, "tokens")
    assert len(found) == len(METHODS) * 2 * 2
    for look in found:
        assert look.share * TOKENS <= look.answer_tokens < look.share * TOKENS + MOST_PER_STEP
        last = steps(compared, look)[look.steps - 1]["answer_tokens"]
        assert look.answer_tokens - last < look.share * TOKENS


def test_methods_on_the_same_answers_take_the_same_steps_in_the_same_order(compared: Path) -> None:
    for number in (0, 1):
        first, *others = [
            [x for x in looks(compared, "tokens") if (x.method, x.number) == (m, number)] for m in METHODS
        ]
        for other in others[:2]:
            assert [(x.steps, x.answer_tokens, x.tokens) for x in other] == [
                (x.steps, x.answer_tokens, x.tokens) for x in first
            ]
    orders = {tuple(s["tokens"] for s in steps(compared, x)) for x in looks(compared, "tokens") if x.method == "text"}
    assert len(orders) == 2, "another seed is another order"


@pytest.mark.parametrize("budget", ["seconds", "all-seconds"])
def test_a_budget_of_seconds_ends_at_the_first_step_after_it(compared: Path, budget: str) -> None:
    for look in [x for x in looks(compared, budget) if x.share == 1]:
        before = look.before_s if budget == "all-seconds" else 0.0
        spent = [s["elapsed_s"] for s in steps(compared, look)]
        assert look.wall_s == pytest.approx(sum(spent))
        assert before + sum(spent) >= SECONDS
        assert not spent or before + sum(spent[:-1]) < SECONDS


def test_the_parts_of_the_costs_add_up_to_the_ledger(compared: Path) -> None:
    totals = json.loads((compared / "ledger.json").read_text())["totals"]
    for key in ("wall_s", "cpu_s", "usd"):
        assert sum(part[key] for part in costs(compared)["parts"]) == pytest.approx(totals[key], rel=1e-9)
        assert all(part[key] >= 0 for part in costs(compared)["parts"])


def test_each_method_bears_its_teachers_part(compared: Path) -> None:
    stages = {s["stage"]: s for s in json.loads((compared / "ledger.json").read_text())["stages"]}
    written = sum(len(ids or ()) for _, ids in exchanges(compared)["answers.jsonl"].values())
    each = {e["method"]: e for e in costs(compared)["each"] if e["budget"] == "tokens"}
    parts = ("answers_s", "signals_s", "scoring_s", "writing_s", "learning_s")
    for e in each.values():
        assert e["answers_s"] == pytest.approx(stages["answers"]["wall_s"])
        assert e["total_s"] == pytest.approx(sum(e[part] for part in parts))
        assert e["teacher_wrote"] == written
    assert {m for m, e in each.items() if e["signals_s"]} == {"cached"}
    assert {m for m, e in each.items() if e["scoring_s"]} == {"online", "on-policy"}
    assert {m for m, e in each.items() if e["writing_s"]} == {"on-policy"}
    assert {m for m, e in each.items() if e["teacher_read"]} == {"cached", "online", "on-policy"}
    online = [x.tokens for x in looks(compared, "tokens") if x.method == "online" and x.share == 1]
    assert each["online"]["teacher_read"] == pytest.approx(sum(online) / len(online))


def test_every_two_methods_are_compared_on_the_same_prompts(compared: Path) -> None:
    pairs = [v for v in verdicts(compared) if v["name"] == "kl difference"]
    assert len(pairs) == 6 * len(BUDGETS)
    values = {v["subject"]: v["value"] for v in verdicts(compared) if v["name"] == "kl to teacher"}
    for v in pairs:
        (first, rest), budget = v["subject"].split(" vs "), v["subject"].partition(" at ")[2]
        second = rest.partition(" at ")[0]
        difference = values[f"{first} student at {budget}"] - values[f"{second} student at {budget}"]
        assert v["value"] == pytest.approx(difference)
        assert v["p_adjusted"] >= v["p_value"]
        assert v["n"] == 6


def test_what_is_learned_comes_nearer_the_teacher(compared: Path) -> None:
    values = {v["subject"]: v["value"] for v in of_tokens(compared) if v["name"] == "kl to teacher"}
    for label in ("cached KD", "online KD", "on-policy KD"):
        assert values[f"{label} student at equal tokens"] < values["pruned start"]


def test_the_report_has_a_table_and_a_plot_for_each_budget_and_asks_for_nothing(compared: Path) -> None:
    page = Page((compared / "report.html").read_text())
    tags = [tag for tag, _ in page.elements]
    assert tags.count("svg") == len(BUDGETS) + 1  # and the cut
    assert {"tokens", "seconds", "all-seconds", "costs"} <= {given.get("id") for _, given in page.elements}
    assert tags.count("table") >= 2 * len(BUDGETS) + 3
    assert not {"script", "img", "iframe", "link", "object"} & set(tags)
    for name in ("SFT", "cached KD", "online KD", "on-policy KD", "What this cannot show"):
        assert name in page.text


def test_the_report_can_be_written_anew_and_escapes_what_is_hostile(workspace: Workspace, compared: Path) -> None:
    plain = (compared / "report.html").read_text()
    folder = workspace.copy("matched", "hostile")
    assert workspace.call("report", str(folder)).code == 0
    assert (folder / "report.html").read_text() == plain
    found = json.loads((folder / "verdicts.json").read_text())
    for v in found["verdicts"]:
        v |= {"claim": HOSTILE, "limits": [HOSTILE]} | ({"subject": HOSTILE} if v["name"] == "kl difference" else {})
        v["detail"] |= {"closer_in_seeds": HOSTILE} if v["name"] == "kl difference" else {}
    write_json(folder / "verdicts.json", verdict_file(Verdict.model_validate(v) for v in found["verdicts"]))
    environment = json.loads((folder / "environment.json").read_text())
    write_json(folder / "environment.json", environment | {"cpu": HOSTILE, "platform": HOSTILE, "git": HOSTILE})
    told = costs(folder)
    for part in (*told["parts"], *told["each"]):
        part |= {"part": HOSTILE} if "part" in part else {"label": HOSTILE}
    write_json(folder / "costs.json", told)
    refused = workspace.call("report", str(folder))
    assert refused.code == 1
    assert "is of none of the run's stages" in refused.err
    write_report(folder)
    page, before = Page((folder / "report.html").read_text()), Page(plain)
    assert {tag for tag, _ in page.elements} <= {tag for tag, _ in before.elements}
    names = {name for _, given in before.elements for name in given}
    assert {name for _, given in page.elements for name in given} <= names
    assert all(payload in page.text for payload in PAYLOADS[:-1])
    assert not set("\u202e\u2066\u200b\x1b\x00") & set(page.text)


def test_the_same_command_again_trains_nothing(workspace: Workspace, compared: Path) -> None:
    def state() -> dict[str, int]:
        files = [f for part in ("looks", "exchanges", "stages", "models") for f in (compared / part).rglob("*")]
        return {str(f): f.stat().st_mtime_ns for f in files}

    before, said = state(), verdicts(compared)
    again = workspace.call("run", "tiny-matched.toml", "--runs", "matched", "--json")
    assert (again.code, again.err) == (0, "")
    assert json.loads(again.out)["verdicts"] == verdicts(compared) == said
    assert state() == before


def test_a_comparison_killed_again_and_again_ends_with_the_same_verdicts(workspace: Workspace, compared: Path) -> None:
    command = ("run", "tiny-matched.toml", "matched.budget_seconds=0", "--runs", "killed")
    for file in ("exchanges/answers.jsonl", "metrics/tokens-text-0.jsonl", "metrics/tokens-on-policy-1.jsonl"):
        process = workspace.start(*command)
        wait_for(lambda file=file: any(workspace.path("killed").glob(f"*/{file}")), process)  # type: ignore[misc]
        process.send_signal(signal.SIGKILL)
        assert ended(process).code == -signal.SIGKILL
    kept = workspace.only("killed") / "stages" / "tokens-text-0.json"
    written = kept.stat().st_mtime_ns
    assert workspace.call(*command).code == 0
    folder = workspace.only("killed")
    assert kept.stat().st_mtime_ns == written, "what was finished is not done again"
    assert exchanges(folder)["answers.jsonl"] == exchanges(compared)["answers.jsonl"]
    assert_same(of_tokens(folder), of_tokens(compared))
    assert leftovers(folder) == []


def test_where_the_teacher_used_all_the_seconds_the_student_is_its_start(workspace: Workspace, recipe: str) -> None:
    settings = ("matched.budget_seconds=0.0001", "matched.num_seeds=1", "matched.methods=['text', 'cached']")
    done = workspace.call("run", recipe, "--runs", "short", *settings, "matched.shares=[1.0]")
    assert (done.code, done.err) == (0, "")
    found = {v["subject"]: v["value"] for v in verdicts(workspace.only("short")) if v["name"] == "kl to teacher"}
    assert found["cached KD student at equal seconds, the teacher's counted"] == found["pruned start"]
    assert found["cached KD student at equal seconds"] != found["pruned start"]
