"""The verbs that need no model: what they print can be read by a person and by a program."""

import io
import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from spiritsafe import __version__
from spiritsafe.cli import app, main
from spiritsafe.errors import GateError
from spiritsafe.recipe import Recipe, load_recipe
from tests.conftest import Call

Say = Callable[..., str]


@pytest.fixture
def say(call: Call) -> Say:
    """What `spiritsafe WORDS` says on stdout; it must end with exit code 0 and no word on stderr."""

    def spoken(*words: str) -> str:
        code, said, told = call(*words)
        assert (code, told) == (0, "")
        return said

    return spoken


def test_ls_lists_what_is_shipped(say: Say) -> None:
    assert "quickstart" in say("ls", "recipes").split()
    assert {"default", "heads", "strict"} <= set(say("ls", "policies").split())
    assert re.search(r"^smollm2 = pypi:", say("ls", "models"), re.M)


def test_ls_finds_runs_by_their_recipe(say: Say, tmp_path: Path) -> None:
    assert say("ls", "runs") == ""
    for name in ("cask-2", "cask-1"):
        (tmp_path / "elsewhere" / name).mkdir(parents=True)
        (tmp_path / "elsewhere" / name / "recipe.json").write_text("{}")
    (tmp_path / "elsewhere" / "no-run").mkdir()
    assert say("ls", "runs", "--runs", "elsewhere").split() == ["elsewhere/cask-1", "elsewhere/cask-2"]


def test_validate_tells_recipes_apart_by_digest(say: Say) -> None:
    lines = [say("validate", "quickstart", *more) for more in ((), ("run.seed=0",), ("run.seed=1",))]
    digests = [re.fullmatch(r"quickstart: valid, digest ([0-9a-f]{10})\n", line) for line in lines]
    found = [match[1] for match in digests if match]
    assert found[0] == found[1] != found[2]


def test_a_dry_run_prints_the_resolved_recipe_and_writes_nothing(say: Say, tmp_path: Path) -> None:
    printed = say("run", "quickstart", "make.epochs=7", "--seed", "3", "--dry-run")
    recipe = Recipe.model_validate_json(printed)
    assert recipe == load_recipe("quickstart", ["make.epochs=7", "run.seed=3"])
    assert list(tmp_path.iterdir()) == []


def test_env_says_the_same_to_a_program_and_to_a_person(say: Say) -> None:
    found = json.loads(say("env", "--json"))
    assert found["spiritsafe"] == __version__
    assert found["packages"]["pydantic"]
    lines = dict(line.split(": ", 1) for line in say("env").splitlines())
    assert lines["spiritsafe"] == __version__
    assert lines["pydantic"] == found["packages"]["pydantic"]
    assert lines["cores"] == str(found["cores"])


def test_every_verb_has_a_help_of_its_own(say: Say) -> None:
    verbs = [command.name or getattr(command.callback, "__name__", "") for command in app.registered_commands]
    overview = say("--help")
    for verb in verbs:
        assert verb in overview
        assert len(say(verb, "--help").splitlines()) > 3
    assert {"run", "serve", "watch", "report", "validate", "ls", "env"} <= set(verbs)


def test_export_writes_what_opens_again(say: Say, tmp_path: Path) -> None:
    from spiritsafe.models import open_model
    from tests.make.export.students import Student, write_student

    write_student(tmp_path / "student", Student())
    assert say("export", "student", "--to", "gguf-q8_0", "-o", "made/x.gguf") == "written: made/x.gguf\n"
    assert open_model("./made/x.gguf").digest != open_model("./student").digest
    assert say("export", "student", "-o", "made/hf") == "written: made/hf\n"
    assert open_model("./made/hf").digest == open_model("./student").digest


def test_a_new_key_is_printed_once_and_works_for_its_account(say: Say, tmp_path: Path) -> None:
    from spiritsafe.guard.keys import Keys

    key = say("serve", "fake:echo", "--home", "cellar", "--new-key", "alice").strip()
    keys = Keys(tmp_path / "cellar" / "keys.sqlite")
    assert keys.lookup(key) == "alice"
    assert [row.account for row in keys.list()] == ["alice"]


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (GateError("drift", "is 0.2, the gate 0.1"), 3, "error: drift: is 0.2, the gate 0.1"),
        (PermissionError(13, "Permission denied", "runs/x"), 1, "error: runs/x: Permission denied"),
        (ModuleNotFoundError("No module named 'gguf'", name="gguf"), 1, "error: gguf: is not installed; pip install "),
        (KeyboardInterrupt(), 130, "interrupted; the same command continues where it was"),
    ],
)
def test_whatever_ends_a_verb_is_one_line_and_an_exit_code(
    error: BaseException, code: int, line: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(*_: object) -> None:
        raise error

    monkeypatch.setattr("spiritsafe.recipe.read_recipe", fails)
    monkeypatch.setattr(sys, "argv", ["spiritsafe", "validate", "quickstart"])
    with pytest.raises(SystemExit) as end:
        main()
    said = capsys.readouterr()
    assert end.value.code == code
    assert said.out == ""
    assert said.err.startswith(line)
    assert said.err.count("\n") == 1


def test_the_command_is_what_the_package_installs(root: Path) -> None:
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    assert project["scripts"] == {"spiritsafe": "spiritsafe.cli:main"}


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("guard.policy=nope", "guard: nope: no such policy; shipped are"),
        ("guard.reviewer=nothing", "guard: nothing: is not a model address"),
        ("teacher.model=openai:x@http://127.0.0.1:1/v1", "is not a local model"),
        ("make.learning_rate=1e400", "make.learning_rate: Input should be a finite number"),
        ("measure.behaviours=none.txt", "measure.behaviours: none.txt: no such file"),
    ],
)
def test_a_recipe_that_cannot_run_is_not_valid_and_leaves_no_directory(call: Call, override: str, message: str) -> None:
    for verb in ("validate", "run"):
        code, out, err = call(verb, "quickstart", override)
        assert (code, out) == (2, "")
        assert message in err
    assert list(Path().iterdir()) == []


def test_the_version_is_printed_and_h_is_help(say: Say) -> None:
    assert say("--version") == f"spiritsafe {__version__}\n"
    assert "--new-key" in say("serve", "-h")


def test_the_package_runs_as_a_module_too() -> None:
    ran = subprocess.run([sys.executable, "-m", "spiritsafe", "--version"], capture_output=True, text=True)

    assert (ran.returncode, ran.stdout) == (0, f"spiritsafe {__version__}\n")


def test_one_talks_to_a_model_line_by_line(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("Hello\x1b[2J\nAnd you?\n\nNew\n"))

    code, said, _ = call("chat", "fake:echo")

    assert code == 0
    assert said == "Hello⟨U+001B⟩[2J\nAnd you?\nNew\n"
