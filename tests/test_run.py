"""The run directory: resumed by digest, one process at a time, nothing half-written left behind."""

import json
import multiprocessing
import resource
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from spiritsafe.errors import DataError, RunError, SpiritsafeError
from spiritsafe.recipe import Recipe, parse_recipe
from spiritsafe.record import append_jsonl, file_digest, write_atomic, write_json
from spiritsafe.run import environment, opened, outputs_of, recipe_digest, run_folder


@pytest.fixture
def recipe(small_recipe: dict[str, Any]) -> Recipe:
    """A small recipe."""
    return parse_recipe(small_recipe)


@pytest.fixture
def other(small_recipe: dict[str, Any]) -> Recipe:
    """The same recipe, two keys changed."""
    small_recipe["make"]["epochs"] = 9
    small_recipe["prove"]["num_twins"] = 3
    return parse_recipe(small_recipe)


def open_once(recipe: Recipe, root: Path, resume: Path | None = None) -> list[str]:
    """Open a run, close it again; returns its warnings."""
    with opened(recipe, root, resume=resume) as (_, warnings):
        return warnings


def error_of_another_process(recipe: Recipe, root: Path) -> str:
    """What a second process is told."""
    try:
        return f"opened, {len(open_once(recipe, root))} warnings"
    except SpiritsafeError as error:
        return str(error)


def test_a_run_holds_its_recipe_and_its_environment(recipe: Recipe, tmp_path: Path) -> None:
    with opened(recipe, tmp_path) as (run, warnings):
        assert warnings == []
        assert run.folder == run_folder(recipe, tmp_path)
        assert run.folder.name == f"small-{run.digest[:10]}"
        stored = json.loads(run.path("recipe.json").read_text())
        assert parse_recipe(stored["recipe"]) == recipe
        assert stored["digest"] == recipe_digest(recipe)
        environment = json.loads(run.path("environment.json").read_text())
    assert environment["seed"] == 0
    assert "numpy" in environment["packages"]


def test_the_same_recipe_continues_its_run_and_another_gets_its_own(
    recipe: Recipe, other: Recipe, tmp_path: Path
) -> None:
    for each in (recipe, recipe, other):
        open_once(each, tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(run_folder(r, tmp_path).name for r in (recipe, other))


def test_resuming_with_another_recipe_names_the_keys_that_differ(recipe: Recipe, other: Recipe, tmp_path: Path) -> None:
    open_once(recipe, tmp_path)
    with pytest.raises(RunError, match=r"another recipe; these keys differ: make\.epochs, prove\.num_twins;"):
        open_once(other, tmp_path, run_folder(recipe, tmp_path))


def test_a_directory_that_is_no_run_is_not_resumed_and_not_touched(recipe: Recipe, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    for folder in (tmp_path / "mine", tmp_path / "none"):
        with pytest.raises(RunError, match="is not a run directory"):
            open_once(recipe, tmp_path, folder)
    assert [*(tmp_path / "mine").iterdir()] == []
    assert not (tmp_path / "none").exists()


def test_a_run_is_open_once(recipe: Recipe, tmp_path: Path) -> None:
    with opened(recipe, tmp_path), pytest.raises(RunError, match="is in use by another process"):
        open_once(recipe, tmp_path)
    open_once(recipe, tmp_path)


def test_a_second_process_is_told_and_the_first_one_s_end_frees_the_run(recipe: Recipe, tmp_path: Path) -> None:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        with opened(recipe, tmp_path):
            assert "is in use" in pool.apply(error_of_another_process, (recipe, tmp_path))
        assert pool.apply(error_of_another_process, (recipe, tmp_path)) == "opened, 0 warnings"


def test_an_error_inside_frees_the_run(recipe: Recipe, tmp_path: Path) -> None:
    with pytest.raises(DataError), opened(recipe, tmp_path):
        raise DataError("here", "broken")
    open_once(recipe, tmp_path)


@pytest.mark.parametrize("below", [".", "new"])
def test_a_run_that_fails_before_anything_is_made_leaves_no_directory(
    recipe: Recipe, tmp_path: Path, below: str
) -> None:
    with pytest.raises(DataError), opened(recipe, tmp_path / below):
        raise DataError("here", "broken")
    assert list(tmp_path.iterdir()) == []


def _failing_stage(folder: Path) -> DataError:
    append_jsonl(folder / "prompts.jsonl", [])
    return DataError("here", "broken")


def test_a_run_that_fails_later_keeps_what_it_made(recipe: Recipe, tmp_path: Path) -> None:
    folder = run_folder(recipe, tmp_path)
    with pytest.raises(DataError), opened(recipe, tmp_path):
        raise _failing_stage(folder)
    assert (folder / "prompts.jsonl").exists()
    open_once(recipe, tmp_path / "old")
    with pytest.raises(DataError), opened(recipe, tmp_path / "old"):
        raise DataError("here", "broken")
    assert run_folder(recipe, tmp_path / "old").is_dir()


def test_broken_tails_are_cut_wherever_they_are_and_said(recipe: Recipe, tmp_path: Path) -> None:
    folder = run_folder(recipe, tmp_path)
    open_once(recipe, tmp_path)
    for name in ("exchanges/a.jsonl", "metrics/b.jsonl"):
        append_jsonl(folder / name, [{"whole": 1}])
        with (folder / name).open("a") as file:
            file.write('{"half')
    warnings = open_once(recipe, tmp_path)
    assert ["a.jsonl" in w or "b.jsonl" in w for w in warnings] == [True, True]
    assert (folder / "exchanges" / "a.jsonl").read_text() == '{"whole": 1}\n'
    assert open_once(recipe, tmp_path) == []


def test_what_a_killed_process_left_half_written_is_removed(recipe: Recipe, tmp_path: Path) -> None:
    folder = run_folder(recipe, tmp_path)
    open_once(recipe, tmp_path)
    (folder / ".report.html.ab12cd34.tmp").write_text("half")
    (folder / "checkpoints").mkdir()
    (folder / "checkpoints" / ".student.pt.x8_d7k2a.tmp").write_bytes(b"half")
    (folder / ".student.q1w2e3r4.tmp").mkdir()
    (folder / ".student.q1w2e3r4.tmp" / "config.json").write_text("{}")
    open_once(recipe, tmp_path)
    assert sorted(p.name for p in folder.rglob("*")) == [".lock", "checkpoints", "environment.json", "recipe.json"]


def test_a_place_that_cannot_be_a_directory_is_one_line(recipe: Recipe, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match=r"file/small-\w{10}: Not a directory$"):
        open_once(recipe, tmp_path / "file")


def test_a_directory_that_may_not_be_written_is_one_line_with_advice(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(RunError, match="Permission denied; choose a directory you may write") as caught:
        open_once(recipe, tmp_path)
    assert "\n" not in str(caught.value)


def test_a_full_disk_is_one_line_with_advice() -> None:
    with pytest.raises(RunError, match="/dev/full: No space left on device; free some disk space"):
        append_jsonl(Path("/dev/full"), [{"a": 1}])


@contextmanager
def small_files() -> Iterator[None]:
    """No file of this process may grow above 4096 bytes, as on a full disk; ended before pytest writes on."""
    before, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


def test_a_file_that_does_not_fit_leaves_the_old_one_and_no_half(tmp_path: Path) -> None:
    write_atomic(tmp_path / "a", "old")
    with pytest.raises(RunError, match="a: File too large"), small_files():
        write_atomic(tmp_path / "a", "x" * 100_000)
    assert [p.name for p in tmp_path.iterdir()] == ["a"]
    assert (tmp_path / "a").read_text() == "old"


def test_a_broken_recipe_file_is_named(recipe: Recipe, tmp_path: Path) -> None:
    open_once(recipe, tmp_path)
    path = run_folder(recipe, tmp_path) / "recipe.json"
    path.write_text("{")
    with pytest.raises(DataError, match=r"recipe\.json: is not JSON"):
        open_once(recipe, tmp_path)


def test_outputs_are_all_files_below_by_sha256(recipe: Recipe, tmp_path: Path) -> None:
    with opened(recipe, tmp_path) as (run, _):
        write_atomic(run.path("student", "config.json"), "{}")
        write_atomic(run.path("student", "deep", "weights"), b"\x00" * 10)
        write_atomic(run.path("log.jsonl"), "")
        found = outputs_of(run, [run.path("student"), run.path("log.jsonl"), run.path("none")])
        assert found == {name: file_digest(run.path(name)) for name in found}
    assert list(found) == ["student/config.json", "student/deep/weights", "log.jsonl"]


def test_a_machine_without_git_and_without_affinity_has_an_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.delattr("os.sched_getaffinity", raising=False)
    found = environment(3)
    assert found["git"] is None
    assert found["cores"] >= 1


def test_the_commit_of_an_enclosing_repository_is_not_ours(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    monkeypatch.setattr("spiritsafe.run.__file__", str(tmp_path / "venv" / "lib" / "spiritsafe" / "run.py"))
    assert environment()["git"] is None


def test_a_run_that_goes_on_with_other_threads_says_so_in_a_line(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = []
    for number in ("1", "1", "2"):
        monkeypatch.setenv("SPIRITSAFE_THREADS", number)
        with opened(recipe, tmp_path) as (run, warnings):
            told.append(warnings)
            write_json(run.path("stages", "kept.json"), {})
    changed = "was begun with other settings: threads 1 then, 2 now; its ledger has each stage's"
    assert told == [[], [], [f"{run.folder} {changed}"]]
