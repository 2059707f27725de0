"""What a checking process may not do, tried from inside it, and answers that would do it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from spiritsafe.checks.families import OWN, audited, open_family
from spiritsafe.checks.process import warm
from spiritsafe.checks.sandbox import SYSTEM_CALLS, can_filter
from spiritsafe.checks.verify import Checkers, layers, outcome
from spiritsafe.errors import RecipeError
from spiritsafe.models import user
from spiritsafe.prompts import Prompt, task_prompts
from spiritsafe.recipe import TaskPart
from spiritsafe.record import prompt_digest
from tests.checks.audit import families, findings

EVALUATED = (
    *("spiral_matrix", "string_insertion", "binary_matrix", "n_queens", "puzzle24", "countdown"),
    *("polynomial_multiplication", "simple_integration", "intermediate_integration"),
)
# A verifier that is hostile itself: all it has are the layers that this names.
INSIDE = """
import os, sys, json
from spiritsafe.checks import sandbox
result = os.dup(1)
layer, deed = sys.argv[1], sys.argv[2]
import socket, subprocess, time
sandbox.limit(0.5)
if layer == "calls": sandbox.filter_calls()
if layer == "evaluation": sandbox.refuse_evaluation()
deeds = {
    "write": lambda: open("PWNED", "w"), "append": lambda: open("there", "a"), "folder": lambda: os.mkdir("PWNED"),
    "remove": lambda: os.remove("there"), "socket": lambda: socket.socket(),
    "program": lambda: subprocess.run(["true"]), "fork": lambda: os.fork(), "kill": lambda: os.kill(os.getppid(), 0),
    "evaluate": lambda: eval("1 + " + "1"),
    "memory": lambda: bytearray(8 << 30), "read": lambda: open("there").read(),
}
def forever():
    while True: pass
deeds["forever"] = forever
try:
    deeds[deed]()
    os._exit(3)
except (PermissionError, OSError, MemoryError):
    os._exit(4)
"""


def tried(layer: str, deed: str, folder: Path) -> int:
    """How a process ends that tries something under one layer: 3 if it could, 4 if it was refused, else by a signal."""
    (folder / "there").write_text("precious")
    return subprocess.run([sys.executable, "-c", INSIDE, layer, deed], cwd=folder, timeout=600, check=False).returncode


@pytest.mark.parametrize("deed", ["write", "append", "folder", "remove", "socket", "program", "fork", "kill"])
@pytest.mark.parametrize("layer", ["calls", "evaluation"])
def test_under_either_layer_nothing_is_written_sent_started_or_ended(layer: str, deed: str, tmp_path: Path) -> None:
    if layer == "calls" and not can_filter():
        pytest.skip("system calls cannot be filtered here")
    assert tried(layer, deed, tmp_path) == 4
    assert sorted(os.listdir(tmp_path)) == ["there"]
    assert tried(layer, "read", tmp_path) == 3


def test_text_is_not_evaluated_memory_and_time_have_an_end(tmp_path: Path) -> None:
    assert tried("evaluation", "evaluate", tmp_path) == 4
    assert tried("none", "evaluate", tmp_path) == 3
    assert tried("none", "memory", tmp_path) == 4
    assert tried("none", "forever", tmp_path) < 0


def test_a_checking_process_has_no_environment_of_ours_and_says_its_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "a-secret")
    with Checkers(workers=1) as checkers:
        said = checkers.layers()
        process = checkers._free.get()
        assert process._process is not None
        held = Path(f"/proc/{process._process.pid}/environ")
        if held.is_file():
            assert b"a-secret" not in held.read_bytes()
        checkers._free.put(process)
    assert said[:2] == ("no evaluation", "limits")
    assert (SYSTEM_CALLS in said) == can_filter()
    assert said == layers()


@pytest.mark.slow
@pytest.mark.parametrize("family", EVALUATED)
def test_an_answer_is_data_to_every_family_and_the_right_one_is_still_right(family: str, tmp_path: Path) -> None:
    (task, *_) = task_prompts([TaskPart(family=family, num=2)], seed=0)
    target = tmp_path / "PWNED"
    for answer in (
        f"[open({str(target)!r}, 'w').write('x')]",
        f"__import__('pathlib').Path({str(target)!r}).write_text('x')",
        f"sin(open({str(target)!r}, 'w').write('x'))",
    ):
        assert outcome(task, answer) == "wrong"
    assert not target.exists()
    assert outcome(task, gold(task)) == "correct"
    assert outcome(task, f"({gold(task)}) + 2*x*y*z") == "wrong"
    assert outcome(task, "7") == outcome(task, "no idea") == "wrong"


def gold(prompt: Prompt) -> str:
    """The family's own answer, of a process whose sets have the order that the checker's have."""
    code = (
        "import sys, json; from spiritsafe.prompts import Prompt; from spiritsafe.checks.values import task_of;"
        "print(json.dumps(task_of(Prompt.model_validate_json(sys.stdin.read()))[1]['answer']))"
    )
    given = {**os.environ, "PYTHONHASHSEED": "0"}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        input=prompt.model_dump_json().encode(),
        env=given,
        stdout=subprocess.PIPE,
        check=True,
    )
    return str(json.loads(done.stdout))


def test_a_check_that_does_not_end_is_unscorable_and_the_next_one_is_as_if_nothing_had_been() -> None:
    task = task_prompts([TaskPart(family="coin_flip", num=1)], seed=0)[0]
    with Checkers(limit_s=2.0, workers=1) as checkers:
        assert checkers.check(task, "no idea") == "wrong"
        assert checkers.check(task, "1e999999999") == "stopped"
        assert checkers.check(task, "no idea") == "wrong"


def test_a_process_that_was_ended_costs_one_answer() -> None:
    messages = user("How much?")
    task = Prompt(
        digest=prompt_digest(messages), messages=messages, split="train", source="test", options={"answer": "42"}
    )
    with Checkers(workers=1) as checkers:
        assert checkers.check(task, "no idea") == "wrong"
        process = checkers._free.get()
        assert process._process is not None
        process._process.kill()
        process._process.wait()
        checkers._free.put(process)
        assert checkers.check(task, "no idea") == "stopped"
        assert checkers.check(task, "no idea") == "wrong"


@pytest.mark.slow
def test_every_family_that_is_allowed_was_read_and_none_of_them_runs_an_answer() -> None:
    installed = families()
    assert set(audited()) <= set(installed)
    assert set(OWN) <= set(audited())
    runs = {name: findings(installed[name]) for name in audited() if name not in OWN}
    assert {name: found for name, found in runs.items() if found} == {}
    assert all(findings(installed[name]) for name in ("spiral_matrix", "countdown", "n_queens")), "the audit is blind"


def test_a_family_that_nobody_read_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RecipeError, match=r"composite: this family's scorer was not read"):
        open_family("composite", {}, size=1, seed=0)
    monkeypatch.setitem(audited(), "chain_sum", "0" * 64)
    with pytest.raises(RecipeError, match=r"chain_sum: its scorer is another than the one that was read"):
        warm("chain_sum")
