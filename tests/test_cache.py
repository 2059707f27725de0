"""What is kept is this user's own, or not taken; scratch directories go with their block or their process."""

import multiprocessing
import os
from pathlib import Path

import pytest

from spiritsafe.cache import is_kept, keep, private_dir, scratch_dir, sweep
from spiritsafe.errors import DataError

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can stand for two users")
NOBODY = 65534


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of the test's own."""
    monkeypatch.setenv("SPIRITSAFE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def kept_file(text: str = "tables") -> Path:
    """A file that was kept."""
    made, target = private_dir("native") / "made", private_dir("native") / "a.so"
    made.write_text(text)
    keep(made, target)
    return target


def test_what_is_kept_is_for_its_owner_alone(cache: Path) -> None:
    path = kept_file()
    assert is_kept(path)
    assert [p.stat().st_mode & 0o777 for p in (cache, path.parent, path)] == [0o700, 0o700, 0o600]
    assert not is_kept(path.with_name("b.so"))


def test_an_altered_file_is_not_taken(cache: Path) -> None:
    path = kept_file()
    path.write_text("others")
    assert not is_kept(path)
    assert is_kept(kept_file())


def test_a_file_that_others_can_write_to_is_not_taken(cache: Path) -> None:
    path = kept_file()
    for mode in (0o620, 0o602):
        path.chmod(mode)
        assert not is_kept(path)


def test_a_link_is_not_taken(cache: Path) -> None:
    path = kept_file()
    path.rename(path.with_name("elsewhere"))
    path.symlink_to("elsewhere")
    assert not is_kept(path)


def test_folders_that_others_can_write_to_are_closed(cache: Path) -> None:
    (cache / "native").mkdir(parents=True)
    for folder in (cache, cache / "native"):
        folder.chmod(0o777)
    private_dir("native")
    assert [folder.stat().st_mode & 0o777 for folder in (cache, cache / "native")] == [0o755, 0o755]


def test_a_shared_folder_as_tmp_stays_as_it_is(cache: Path) -> None:
    cache.mkdir()
    cache.chmod(0o1777)
    assert private_dir("native").stat().st_mode & 0o777 == 0o700
    assert cache.stat().st_mode & 0o7777 == 0o1777


@as_root
@pytest.mark.parametrize("planted", ["", "native"])
def test_another_user_s_folder_is_refused(cache: Path, planted: str) -> None:
    (cache / "native").mkdir(parents=True)
    os.chown(cache / planted, NOBODY, NOBODY)
    with pytest.raises(DataError, match=r"belongs to another user \(65534\).*set SPIRITSAFE_CACHE"):
        private_dir("native")


@as_root
def test_another_user_s_file_is_not_taken(cache: Path) -> None:
    path = kept_file()
    os.chown(path, NOBODY, NOBODY)
    assert not is_kept(path)


def sweep_all(folder: Path) -> list[str]:
    """What is left after a sweep."""
    sweep(folder, ".making-")
    return sorted(p.name for p in folder.iterdir())


def test_a_scratch_directory_ends_with_its_block_unless_it_was_renamed(tmp_path: Path) -> None:
    with scratch_dir(tmp_path / "a", ".making-") as scratch:
        (scratch / "half").write_text("x")
    assert list((tmp_path / "a").iterdir()) == []
    with scratch_dir(tmp_path / "a", ".making-") as scratch:
        (scratch / "whole").write_text("x")
        scratch.rename(tmp_path / "a" / "made")
    assert [p.name for p in (tmp_path / "a").iterdir()] == ["made"]


def test_what_a_killed_process_left_is_swept_and_what_is_in_use_is_not(tmp_path: Path) -> None:
    (tmp_path / ".making-old").mkdir()
    (tmp_path / ".making-old" / "half").write_text("x")
    (tmp_path / "made").mkdir()
    with multiprocessing.get_context("spawn").Pool(1) as pool, scratch_dir(tmp_path, ".making-") as scratch:
        assert pool.apply(sweep_all, (tmp_path,)) == [scratch.name, "made"]
        assert sweep_all(tmp_path) == [scratch.name, "made"]
    assert sweep_all(tmp_path) == ["made"]


def test_a_sweep_of_nothing_is_nothing(tmp_path: Path) -> None:
    sweep(tmp_path / "none", ".making-")
    assert not (tmp_path / "none").exists()
