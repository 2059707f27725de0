"""API keys: shown once, stored hashed, revocable, private to their owner."""

import sqlite3
import stat
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from spiritsafe.errors import DataError, RunError
from spiritsafe.guard.keys import Keys


def test_a_key_finds_its_account_until_it_is_revoked(tmp_path: Path) -> None:
    keys = Keys(tmp_path / "keys.db")
    first, second, other = keys.create("alice"), keys.create("alice"), keys.create("bob")
    assert first.startswith("ss-")
    assert [keys.lookup(key) for key in (first, second, other, "ss-guess")] == ["alice", "alice", "bob", None]
    assert keys.revoke("alice") == 2
    assert [keys.lookup(key) for key in (first, second, other)] == [None, None, "bob"]
    assert [(row.account, row.revoked_at_s is None) for row in keys.list()] == [
        ("alice", False),
        ("alice", False),
        ("bob", True),
    ]


def test_keys_outlive_the_process_but_are_nowhere_in_the_file(tmp_path: Path) -> None:
    key = Keys(tmp_path / "keys.db").create("alice")
    assert Keys(tmp_path / "keys.db").lookup(key) == "alice"
    for file in tmp_path.iterdir():
        data = file.read_bytes()
        assert key.encode() not in data
        assert key.removeprefix("ss-").encode() not in data


def test_only_the_owner_may_read_the_file(tmp_path: Path) -> None:
    path = tmp_path / "new" / "keys.db"
    Keys(path).create("alice")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_threads_share_the_file(tmp_path: Path) -> None:
    keys = Keys(tmp_path / "keys.db")
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(keys.create, [f"account-{k}" for k in range(32)]))
        found = list(pool.map(keys.lookup, made))
    assert found == [f"account-{k}" for k in range(32)]


def test_many_at_once_leave_nothing_beside_the_file(tmp_path: Path) -> None:
    keys = Keys(tmp_path / "keys.db")
    key = keys.create("alice")
    with ThreadPoolExecutor(8) as pool:
        for _ in range(300):
            assert list(pool.map(keys.lookup, [key] * 8)) == ["alice"] * 8
            assert [file.name for file in tmp_path.iterdir()] == ["keys.db"]


def test_a_file_that_kept_a_log_beside_it_is_made_one_again(tmp_path: Path) -> None:
    key = Keys(tmp_path / "keys.db").create("alice")
    with closing(sqlite3.connect(tmp_path / "keys.db")) as db:
        assert db.execute("PRAGMA journal_mode=WAL").fetchone() == ("wal",)
    keys = Keys(tmp_path / "keys.db")
    with closing(sqlite3.connect(tmp_path / "keys.db")) as db:
        assert db.execute("PRAGMA journal_mode").fetchone() == ("delete",)
    assert keys.lookup(key) == "alice"


def test_a_file_of_another_kind_is_named(tmp_path: Path) -> None:
    (tmp_path / "keys.db").write_text("not a database, whatever its name says " * 50)
    with pytest.raises(DataError, match=r"keys\.db: file is not a database"):
        Keys(tmp_path / "keys.db")


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match=r"keys\.db"):
        Keys(tmp_path / "file" / "keys.db")


@pytest.mark.parametrize("name", ["", "  ", "bad\nname", " alice", "bell\x07", "x" * 101, "rtl\u202e"])
def test_an_account_needs_a_name_that_can_be_shown(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match="needs a name" if not name.strip() else "is no account's name"):
        Keys(tmp_path / "keys.db").create(name)


def test_a_file_that_is_deleted_is_not_made_again_for_all_to_read(tmp_path: Path) -> None:
    keys = Keys(tmp_path / "keys.db")
    key = keys.create("alice")
    keys.path.unlink()
    with pytest.raises(RunError, match=r"keys\.db: unable to open"):
        keys.lookup(key)
    assert not keys.path.exists()


def test_a_renewed_key_ends_the_old_one(tmp_path: Path) -> None:
    keys = Keys(tmp_path / "keys.sqlite")
    old = keys.create("anna")
    new = keys.renew("anna")
    assert (keys.lookup(old), keys.lookup(new)) == (None, "anna")
