"""Scratch directories: gone when their block ends, kept while another process uses them, swept after a kill."""

import multiprocessing
from pathlib import Path

from spiritsafe.cache import scratch_dir, sweep


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
