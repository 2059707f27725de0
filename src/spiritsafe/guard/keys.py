"""API keys in SQLite. A key is shown once, at its creation; the file holds only its sha256.

A plain hash is enough: a key is 256 random bits, so there is nothing to guess that salt or a slow hash
would protect. The file is readable by its owner only. Times are seconds since the epoch.
"""

import hashlib
import os
import secrets
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from spiritsafe.errors import DataError, RunError, writing

MOST_NAME = 100
SCHEMA = """
CREATE TABLE IF NOT EXISTS keys (
    hash TEXT PRIMARY KEY, account TEXT NOT NULL, created_at_s REAL NOT NULL, revoked_at_s REAL
) WITHOUT ROWID
"""


@dataclass(frozen=True)
class KeyRow:
    """One key as it may be shown: whose it is, since when, and until when."""

    account: str
    created_at_s: float
    revoked_at_s: float | None


class Keys:
    """The key file. Raises `DataError` where it is no key file, `RunError` where it cannot be opened or written."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
            path.chmod(0o600)
        with self._connection() as db:
            db.execute("PRAGMA journal_mode=DELETE")  # a write-ahead log stays behind where two connections end at once
            db.execute(SCHEMA)

    def create(self, account: str) -> str:
        """A new key for an account, which may have several; it cannot be read again."""
        check_account(account, str(self.path))
        key = f"ss-{secrets.token_urlsafe(32)}"
        with self._connection() as db:
            db.execute("INSERT INTO keys VALUES (?, ?, ?, NULL)", (_hash(key), account, time.time()))
        return key

    def renew(self, account: str) -> str:
        """A new key for an account; its old ones are revoked."""
        self.revoke(account)
        return self.create(account)

    def lookup(self, key: str) -> str | None:
        """The account of a valid key, else None."""
        with self._connection() as db:
            row = db.execute(
                "SELECT account FROM keys WHERE hash = ? AND revoked_at_s IS NULL", (_hash(key),)
            ).fetchone()
        return str(row[0]) if row else None

    def revoke(self, account: str) -> int:
        """Revoke all keys of an account; returns how many were valid."""
        with self._connection() as db:
            revoke = "UPDATE keys SET revoked_at_s = ? WHERE account = ? AND revoked_at_s IS NULL"
            return db.execute(revoke, (time.time(), account)).rowcount

    def list(self) -> list[KeyRow]:
        """All keys, oldest first, without the keys themselves."""
        with self._connection() as db:
            rows = db.execute("SELECT account, created_at_s, revoked_at_s FROM keys ORDER BY created_at_s").fetchall()
        return [KeyRow(*row) for row in rows]

    @contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        try:
            # `rw`: a file that was deleted is not made again, which anybody could read then.
            address = f"{self.path.absolute().as_uri()}?mode=rw"
            with closing(sqlite3.connect(address, timeout=10, uri=True)) as db, db:
                yield db
        except sqlite3.OperationalError as error:
            raise RunError(str(self.path), str(error), "check that you may write this file and its directory") from None
        except sqlite3.DatabaseError as error:
            raise DataError(str(self.path), str(error), "move it away and create new keys") from None


def check_account(name: str, where: str) -> None:
    """Raises `DataError` for a name that a list or a log could not show: empty, with blanks around, with controls."""
    if not name.strip():
        raise DataError(where, "an account needs a name")
    if name != name.strip() or not name.isprintable() or len(name) > MOST_NAME:
        raise DataError(
            where, f"{name[:MOST_NAME]!r} is no account's name", "printable, no blanks around, 100 characters"
        )


def _hash(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()
