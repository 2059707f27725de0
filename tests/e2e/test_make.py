"""`spiritsafe make` as a user types it: every method makes a better student; what cannot be is refused, and why."""

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from spiritsafe.cli import main
from spiritsafe.guard.app import create_app
from spiritsafe.guard.keys import Keys
from spiritsafe.guard.server import serving
from spiritsafe.models.local import LocalModel, directory_digest
from spiritsafe.record import Exchange, read_json, read_jsonl
from tests.said import without_progress
from tests.tiny import WORDS, write_tiny

Json = dict[str, Any]
Make = Callable[..., Json]
SHORT = ("data.collect.sampling.max_tokens=12", "data.keep.finished=false", "make.own.max_tokens=12")
LEARN = (*SHORT, "make.epochs=8", "make.learning_rate=3e-3", "make.dtype=float32", "heldout.share=0.2")
PROMPTS = [" ".join((WORDS * 9)[i * j % 23 : i * j % 23 + 1 + i % 4]) for i in range(1, 24) for j in range(1, 6)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny teacher, a student of its tokens, one of others, a config, and prompts in several forms."""
    here = tmp_path_factory.mktemp("make")
    write_tiny(here / "tiny", scale=1.5)
    write_tiny(here / "small", seed=1, layers=2)
    config = json.loads((here / "tiny" / "config.json").read_text()) | {"num_hidden_layers": 2}
    (here / "config.json").write_text(json.dumps(config))
    (here / "wide.json").write_text(json.dumps(config | {"vocab_size": 64}))
    (here / "p.jsonl").write_text("".join(json.dumps({"prompt": text}) + "\n" for text in PROMPTS))
    (here / "p.txt").write_text("\n".join(PROMPTS[:9]) + "\n")
    return here


@pytest.fixture
def say(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Any]:
    """(exit code, stdout, stderr) of `spiritsafe make WORDS`."""
    monkeypatch.chdir(folder)

    def spoken(*words: str) -> tuple[object, str, str]:
        monkeypatch.setattr(sys, "argv", ["spiritsafe", "make", *words])
        with pytest.raises(SystemExit) as end:
            main()
        said = capsys.readouterr()
        return end.value.code, said.out, without_progress(said.err)

    return spoken


@pytest.fixture
def make(say: Callable[..., Any], tmp_path: Path) -> Make:
    """What `spiritsafe make WORDS -o DIR --json` says; nothing may be said on stderr."""

    def made(*words: str) -> Json:
        code, out, err = say(*words, "-o", str(tmp_path / "made"), "--json")
        assert (code, err) == (0, ""), err
        found: Json = json.loads(out)
        return found

    return made


def change(made: Json) -> Json:
    """The verdict that compares the student with its start."""
    found: Json = made["verdicts"][-1]
    assert found["subject"] == "student vs start"
    return found


@pytest.mark.parametrize(
    "method",
    ["text", "cached", "gkd", *(pytest.param(m, marks=pytest.mark.slow) for m in ("online", "policy-gradient"))],
)
def test_a_pruned_student_ends_nearer_to_its_teacher(make: Make, tmp_path: Path, method: str) -> None:
    made = make("./tiny", "--prompts", "p.jsonl", "--method", method, "--student", "pruned:2", *LEARN)
    found, here = change(made), tmp_path / "made"
    assert found["name"] == "kl change"
    assert found["interval"][1] < 0 or (method == "text" and found["value"] < 0)
    card = (here / "student" / "README.md").read_text()
    assert "2 of its 4 layers" in card
    assert f"{found['value']:.2f}".lstrip("-") in card
    steps = [json.loads(line)["step"] for line in (here / "metrics.jsonl").read_text().splitlines()]
    assert steps == [*range(1, made["steps"] + 1)]
    stages = [stage["stage"] for stage in read_json(here / "ledger.json")["stages"]]
    between = {"cached": ["data", "start", "signals"], "policy-gradient": ["start"]}.get(method, ["data", "start"])
    assert stages == ["teacher", "prompts", *between, "student", "compare"]


@pytest.mark.parametrize("student", ["./small", "config:config.json"])
def test_any_student_of_the_teacher_s_tokens_learns_from_its_log_probabilities(make: Make, student: str) -> None:
    found = change(make("./tiny", "--prompts", "p.jsonl", "--method", "cached", "--student", student, *LEARN))
    assert found["interval"][1] < 0


def test_a_budget_of_tokens_ends_the_training_and_a_limit_takes_fewer_prompts(make: Make, tmp_path: Path) -> None:
    words = ("./tiny", "--prompts", "p.txt", "--method", "online", "--student", "pruned:3")
    made = make(*words, *SHORT, "--tokens", "500", "--limit", "5", "heldout.share=0", "data.near.threshold=0.99")
    assert 500 <= made["answer_tokens"] < 500 + 5 * 12
    assert len(read_jsonl(tmp_path / "made" / "exchanges" / "all.jsonl", Exchange)) == 5
    assert made["verdicts"] == []
    assert made["no_verdict"] == "no prompt was held out to compare on (heldout.share=0)"
    assert made["answers"].startswith("answers: 5 wanted, 5 collected, ")


def test_a_teacher_writes_its_own_prompts(make: Make, tmp_path: Path) -> None:
    words = ("./tiny", "--prompts", "self:8", "--method", "online", "--student", "pruned:3", *SHORT, "make.epochs=1")
    assert make(*words)["steps"] == 1
    assert len((tmp_path / "made" / "prompts.jsonl").read_text().splitlines()) == 8


def test_a_silent_teacher_is_not_learnt_from_and_the_hint_fits_the_reason(
    say: Callable[..., Any], tmp_path: Path
) -> None:
    words = ("--prompts", "p.txt", "--method", "text", "--student", "./small", *SHORT)
    code, _, err = say("fake:fixed=", *words, "-o", str(tmp_path / "made"))
    assert code == 1
    assert "no answer was kept of 9 (empty 9); the teacher ends at once" in err


def test_what_a_failure_without_an_answer_leaves_does_not_bar_the_next_making(
    say: Callable[..., Any], tmp_path: Path
) -> None:
    words = ("--prompts", "p.txt", "--method", "text", "--student", "./small", "data.collect.tries=1", *SHORT)
    code, _, err = say("openai:m@http://127.0.0.1:9/v1", *words, "-o", str(tmp_path / "made"))
    assert (code, (tmp_path / "made").exists()) == (1, False), err


def test_prompts_that_were_edited_since_are_named_at_once(say: Callable[..., Any], tmp_path: Path) -> None:
    prompts = tmp_path / "p.jsonl"
    prompts.write_text('{"instruction": "one two", "input": "red cat"}\n{"instruction": "one two", "input": "a dog"}\n')
    words = ("fake:echo", "--prompts", str(prompts), "--method", "text", "--student", "./small", *SHORT)
    code, out, err = say(*words, "make.epochs=1", "data.near.threshold=0.99", "-o", str(tmp_path / "made"))
    assert code == 0, err
    assert "answers: 2 wanted, 2 collected, 2 kept; none dropped\nno verdict: " in out
    prompts.write_text('{"prompt": "another"}\n')
    code, _, err = say(*words, "make.epochs=1", "data.near.threshold=0.99", "-o", str(tmp_path / "made"))
    assert code == 1
    assert "p.jsonl was edited since this making read it; put the old file back" in err


def test_answers_that_are_wrong_are_not_learned_from(say: Callable[..., Any], tmp_path: Path) -> None:
    words = ("--prompts", "task:chain_sum:6", "--method", "text", "--student", "pruned:3", *SHORT)
    code, _, err = say("./tiny", *words, "-o", str(tmp_path / "made"))
    assert code == 1
    assert "no answer was kept of" in err
    assert "(wrong " in err


class Rater:
    """A judge behind HTTP who likes one word, and counts what it is asked."""

    def __init__(self, liked: str) -> None:
        self.liked, self.asked = liked, 0

    def app(self) -> Starlette:
        """The routes."""
        listed = JSONResponse({"data": [{"id": "m"}]})
        return Starlette(
            routes=[
                Route("/v1/models", lambda _: listed),
                Route("/v1/chat/completions", self.rate, methods=["POST"]),
            ]
        )

    async def rate(self, request: Request) -> Response:
        """The more of the word, the better."""
        self.asked += 1
        text = (await request.json())["messages"][-1]["content"].partition("Answer:\n")[2]
        answer = text.partition("\n\nRating:")[0].split()
        message = {"role": "assistant", "content": str(1 + min(9, answer.count(self.liked)))}
        return JSONResponse({"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]})


@pytest.fixture
def rater() -> Iterator[tuple[str, Rater]]:
    """A judge's address."""
    judge = Rater("red")
    with serving(judge.app()) as url:
        yield f"openai:m@{url}/v1", judge


def test_a_judged_student_ends_with_what_its_judge_likes(make: Make, tmp_path: Path, rater: tuple[str, Rater]) -> None:
    address, judge = rater
    words = (address, "--prompts", "p.jsonl", "--method", "judged", "--student", "./tiny", *LEARN)
    found = change(make(*words, "--limit", "40", "heldout.share=0.4", "make.learning_rate=1e-2"))
    assert found["name"] == "judge's score change"
    assert found["interval"][0] > 0
    kept = read_jsonl(tmp_path / "made" / "exchanges" / "judge.jsonl", Exchange)
    assert len({e.id for e in kept}) == len(kept) == judge.asked
    asked = judge.asked
    make(*words, "--limit", "40", "heldout.share=0.4", "make.learning_rate=1e-2")
    assert judge.asked == asked


@pytest.fixture
def gateway(tiny: LocalModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int], str]]:
    """Our own gateway over the tiny model, telling so many log-probabilities: its model's address."""
    keys = Keys(tmp_path / "keys.db")
    monkeypatch.setenv("SPIRITSAFE_API_KEY", keys.create("alice"))
    running = []

    def started(num: int) -> str:
        app = create_app(tiny, keys=keys, log=tmp_path / "log.jsonl", name="m", logprobs=num)
        running.append(serving(app))
        return f"openai:m@{running[-1].__enter__()}/v1"

    yield started
    for server in running:
        server.__exit__(None, None, None)


def losses(folder: Path) -> list[float]:
    """The loss of every step."""
    return [json.loads(line)["loss"] for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("method", ["text", "cached"])
def test_a_student_learns_from_a_server(make: Make, tmp_path: Path, gateway: Callable[[int], str], method: str) -> None:
    words = ("--prompts", "p.jsonl", "--limit", "30", "--method", method, "--student", "./small", *LEARN)
    make(gateway(20), *words)
    told = losses(tmp_path / "made")
    assert sum(told[-3:]) < 0.8 * sum(told[:3])
    assert (tmp_path / "made" / "signals").is_dir() == (method == "cached")


def test_the_probe_says_what_a_server_tells_and_what_that_allows(
    say: Callable[..., Any], gateway: Callable[[int], str]
) -> None:
    code, out, err = say(gateway(20), "--student", "./small", "--probe", "--json")
    found = json.loads(out)
    assert (code, err) == (0, "")
    assert (found["gives"], found["told"]["top"], found["told"]["unmapped"]) == ("server", 20, 0.0)
    assert [name for name, why in found["methods"].items() if not why] == ["text", "cached", "judged"]
    assert found["pruned"].startswith("copies the teacher's layers")
    code, out, _ = say(gateway(0), "--probe")
    assert code == 0
    assert "method text: possible" in out
    assert "method cached: no: " in out
    assert "switch log-probabilities on at the server" in out


def test_the_probe_of_a_local_teacher_allows_everything(say: Callable[..., Any]) -> None:
    _, out, _ = say("./tiny", "--probe", "--json")
    found = json.loads(out)
    assert (found["gives"], found["told"]["layers"], found["told"]["vocabulary"]) == ("weights", 4, len(WORDS) + 5)
    assert set(found["methods"].values()) == {found["pruned"]} == {""}


def test_a_server_without_log_probabilities_is_refused_for_cached(
    say: Callable[..., Any], gateway: Callable[[int], str], tmp_path: Path
) -> None:
    words = ("--prompts", "p.txt", "--method", "cached", "--student", "./small", "-o", str(tmp_path / "made"))
    code, out, err = say(gateway(0), *words)
    assert (code, out) == (2, "")
    assert err.startswith("error: --method cached: ")
    assert "log-probabilities" in err
    assert not (tmp_path / "made").exists()


SERVER = "openai:m@http://127.0.0.1:9/v1"
BASE = {"--prompts": "p.txt", "--method": "text", "--student": "pruned:2"}


@pytest.mark.parametrize(
    ("teacher", "changed", "more", "line"),
    [
        (SERVER, {"--method": "gkd"}, (), "--method gkd: needs the teacher's weights in this process at every step"),
        (
            "fake:echo",
            {"--method": "cached"},
            (),
            "--method cached: needs log-probabilities, and the teacher gives text",
        ),
        (SERVER, {}, (), "--student pruned:2: copies the teacher's layers, and the teacher's weights are not at hand"),
        ("./tiny", {"--student": "fake:echo"}, (), "--student fake:echo: is no model whose weights can be trained"),
        ("./tiny", {"--student": "pruned:4"}, (), "--student pruned:4: is no part of a teacher of 4 layers; pruned:2"),
        ("./tiny", {"--student": "pruned:x"}, (), "--student pruned:x: is no number of layers; e.g. pruned:20"),
        (
            "./tiny",
            {"--student": "config:wide.json", "--method": "online"},
            (),
            "--student: has its teacher's tokens, but 64 rows for them where the teacher has 27",
        ),
        ("./tiny", {"--method": "sft"}, (), "--method sft: is not known; text, cached, online, gkd, policy-gradient"),
        ("./tiny", {"--method": ""}, (), "--method: is missing; --probe says which methods a teacher allows"),
        ("./tiny", {"--prompts": "none.txt"}, (), "--prompts none.txt: no such file; a FILE (.jsonl, .ndjson, "),
        (SERVER, {"--prompts": "self:9", "--student": "./small"}, (), "--prompts self:9: leaves the user's turn open"),
        ("./tiny", {}, ("make.epoch=3",), "make: make.epoch: unknown key, did you mean 'epochs'?"),
        (
            "./tiny",
            {},
            ("make.epochs=3", "--tokens", "9"),
            "make: make.epochs says where the training ends, and so does a",
        ),
        ("./tiny", {}, ("make.loss.divergence=jsd", "make.loss.beta=1"), "make: make.loss: beta: 1.0 is not inside"),
        ("./tiny", {"--method": "judged"}, ("make.own.group=1",), "make.own.group: one answer cannot be compared"),
    ],
)
def test_what_cannot_be_is_refused_with_the_reason(
    say: Callable[..., Any], tmp_path: Path, teacher: str, changed: dict[str, str], more: tuple[str, ...], line: str
) -> None:
    words = [word for pair in (BASE | changed).items() for word in pair]
    code, out, err = say(teacher, *words, *more, "-o", str(tmp_path / "made"))
    assert (code, out) == (2, ""), err
    assert err.startswith(f"error: {line}"), err
    assert not (tmp_path / "made").exists()


def test_a_dry_run_prints_the_resolved_settings_and_asks_nobody(say: Callable[..., Any], tmp_path: Path) -> None:
    words = ("--prompts", "p.txt", "--method", "text", "--student", "./small", "make.epochs=7", "--seed", "4")
    code, out, err = say(SERVER, *words, "--dry-run", "-o", str(tmp_path / "made"))
    found = json.loads(out)
    assert (code, err) == (0, "")
    assert (found["make"]["epochs"], found["run"]["seed"], found["teacher"]["model"]) == (7, 4, SERVER)
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize(
    ("name", "data", "line"),
    [
        ("p.txt", "", "p.txt: holds no prompt"),
        ("p.jsonl", '{"prompt": ', "p.jsonl: line 1 is not JSON"),
        ("p.csv", "colour,shape\nred,round\n", "p.csv: line 2 has no prompt; it has colour, shape"),
    ],
)
def test_a_dry_run_refuses_prompts_that_cannot_be_used(
    say: Callable[..., Any], folder: Path, tmp_path: Path, name: str, data: str, line: str
) -> None:
    (tmp_path / name).write_text(data)
    words = ("--prompts", str(tmp_path / name), "--method", "text", "--student", "./small", "--dry-run")
    code, out, err = say(SERVER, *words)
    assert (code, out) == (1, "")
    assert line in err


def test_a_dry_run_says_how_a_file_is_read_and_a_making_what_it_loads(
    make: Make, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--prompts", "p.jsonl", "--method", "text", "--student", "./small"]
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", ["spiritsafe", "make", SERVER, *words, "--dry-run"])
    with pytest.raises(SystemExit):
        main()
    assert f" p.jsonl: {len(PROMPTS)} rows as JSON lines (prompt); " in capsys.readouterr().err
    monkeypatch.setattr(sys, "argv", ["spiritsafe", "make", "./lost", *words, "-o", "lost-made"])
    with pytest.raises(SystemExit):
        main()
    assert " loading ./lost\n" in capsys.readouterr().err


RECIPE = """
kind = "make"
prompts = "p.txt"
method = "online"
student = "pruned:3"
run = { name = "by-recipe" }
teacher = { model = "./tiny" }
make = { epochs = 1, own = { max_tokens = 12 } }
data = { collect = { sampling = { max_tokens = 12 } }, keep = { finished = false } }
"""


def test_a_recipe_of_this_kind_makes_the_same_student(
    make: Make, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    make("./tiny", "--prompts", "p.txt", "--method", "online", "--student", "pruned:3", *SHORT, "make.epochs=1")
    (tmp_path / "m.toml").write_text(RECIPE)
    monkeypatch.setattr(sys, "argv", ["spiritsafe", "run", str(tmp_path / "m.toml"), "--runs", str(tmp_path / "runs")])
    with pytest.raises(SystemExit) as end:
        main()
    assert (end.value.code, without_progress(capsys.readouterr().err)) == (0, "")
    (run,) = (tmp_path / "runs").iterdir()
    assert directory_digest(run / "student") == directory_digest(tmp_path / "made" / "student")


def test_another_making_in_the_same_directory_names_the_keys_that_differ(
    say: Callable[..., Any], make: Make, tmp_path: Path
) -> None:
    words = ("./tiny", "--prompts", "p.txt", "--method", "online", "--student", "pruned:3", *SHORT)
    make(*words, "make.epochs=1")
    before = directory_digest(tmp_path / "made" / "student")
    code, _, err = say(*words, "make.epochs=2", "-o", str(tmp_path / "made"))
    assert code == 1
    assert "another recipe; these keys differ: make.epochs; use -o DIR" in err
    code, _, err = say(*words, "make.epochs=1", "--resume", str(tmp_path / "none"))
    assert (code, "is not a run directory" in err) == (1, True)
    assert directory_digest(tmp_path / "made" / "student") == before
