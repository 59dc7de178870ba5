"""The tables of the call store, and how its file is opened.

A call's key is its start in Unix nanoseconds, made unique: rows lie in order of time, and a range of time is a range of
keys. Sets of names (the shape of an INVITE, the rules that were hit) are stored once each.
"""

from __future__ import annotations

import os
import sqlite3
from hashlib import blake2b
from pathlib import Path
from typing import Final

import orjson

__all__ = ["ATTEMPT_COLUMNS", "CALL_COLUMNS", "SCHEMA_VERSION", "WrongVersion", "open_reader", "open_writer", "set_id"]

SCHEMA_VERSION: Final = 2
_APPLICATION_ID: Final = 0x54524B4C
_BUSY_S: Final = 1.0
_PAGE_BYTES: Final = 4096
_CHECKPOINT_PAGES: Final = 4000
_CACHE_KIB: Final = 4096

CALL_COLUMNS: Final = (
    ("key", "INTEGER PRIMARY KEY"),
    ("id", "TEXT NOT NULL"),
    ("call_id", "TEXT"),
    ("call_sid", "TEXT"),
    ("from_uri", "TEXT"),
    ("to_uri", "TEXT"),
    ("uri", "TEXT"),
    ("user_agent", "TEXT"),
    ("source", "TEXT"),
    ("trunk", "TEXT"),
    ("tls", "TEXT"),
    ("connection_age_s", "REAL"),
    ("state", "TEXT NOT NULL"),
    ("outcome", "TEXT"),
    ("status", "INTEGER"),
    ("reason", "TEXT"),
    ("ended_by", "TEXT"),
    ("detail", "TEXT"),
    ("cause", "TEXT"),
    ("attempts", "INTEGER NOT NULL"),
    ("target", "TEXT"),
    ("rules", "TEXT"),
    ("rules_version", "TEXT"),
    ("tags", "TEXT"),
    ("rule_hits", "INTEGER"),
    ("shape", "INTEGER"),
    ("invite_bytes", "INTEGER"),
    ("trying_s", "REAL"),
    ("ringing_s", "REAL"),
    ("setup_s", "REAL"),
    ("added_s", "REAL"),
    ("talk_s", "REAL"),
    ("duration_s", "REAL"),
    ("incomplete", "INTEGER NOT NULL"),
)

ATTEMPT_COLUMNS: Final = (
    ("call", "INTEGER NOT NULL"),
    ("number", "INTEGER NOT NULL"),
    ("hop", "INTEGER NOT NULL"),
    ("started_s", "REAL"),
    ("target", "TEXT"),
    ("address", "TEXT"),
    ("uri", "TEXT"),
    ("rules", "TEXT"),
    ("rules_version", "TEXT"),
    ("call_id", "TEXT"),
    ("status", "INTEGER"),
    ("reason", "TEXT"),
    ("outcome", "TEXT"),
    ("detail", "TEXT"),
    ("next", "TEXT"),
    ("cause", "TEXT"),
    ("evidence", "TEXT"),
    ("invite_s", "REAL"),
    ("trying_s", "REAL"),
    ("ringing_s", "REAL"),
    ("final_s", "REAL"),
    ("webhook_s", "REAL"),
    ("accepted_s", "REAL"),
    ("duration_s", "REAL"),
    ("invite_bytes", "INTEGER"),
    ("shape", "INTEGER"),
    ("answer_shape", "INTEGER"),
    ("tls", "TEXT"),
    ("connection_age_s", "REAL"),
)


def _table(name: str, columns: tuple[tuple[str, str], ...], rest: str = "") -> str:
    return f"CREATE TABLE IF NOT EXISTS {name} ({', '.join([' '.join(column) for column in columns])}{rest})"


_SCHEMA: Final = (
    _table("calls", CALL_COLUMNS),
    "CREATE INDEX IF NOT EXISTS calls_outcome ON calls (outcome)",
    "CREATE INDEX IF NOT EXISTS calls_status ON calls (status)",
    "CREATE INDEX IF NOT EXISTS calls_cause ON calls (cause) WHERE cause IS NOT NULL",
    "CREATE INDEX IF NOT EXISTS calls_tags ON calls (key) WHERE tags IS NOT NULL",
    "CREATE INDEX IF NOT EXISTS calls_open ON calls (state) WHERE state IN ('trying', 'answered')",
    _table("attempts", ATTEMPT_COLUMNS, ", PRIMARY KEY (call, number, hop)") + " WITHOUT ROWID",
    "CREATE TABLE IF NOT EXISTS chunks (id INTEGER PRIMARY KEY, call INTEGER NOT NULL, events BLOB NOT NULL)",
    "CREATE INDEX IF NOT EXISTS chunks_call ON chunks (call)",
    "CREATE TABLE IF NOT EXISTS names (span INTEGER NOT NULL, name INTEGER NOT NULL, call INTEGER NOT NULL,"
    " PRIMARY KEY (span, name, call)) WITHOUT ROWID",
    "CREATE TABLE IF NOT EXISTS sets (id INTEGER PRIMARY KEY, items TEXT NOT NULL)",
    "CREATE TABLE IF NOT EXISTS notes (key INTEGER PRIMARY KEY, kind TEXT NOT NULL, fields TEXT NOT NULL)",
    "CREATE TABLE IF NOT EXISTS minutes (minute INTEGER NOT NULL, kind TEXT NOT NULL, name TEXT NOT NULL,"
    " value TEXT NOT NULL, count INTEGER NOT NULL, PRIMARY KEY (kind, minute, name, value)) WITHOUT ROWID",
    "CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID",
)


_OWNER: Final = ("application_id", "user_version")
_TABLES: Final = ("calls", "attempts", "chunks", "names", "sets", "notes", "meta")


class WrongVersion(Exception):
    """The file is a store of another version, or no store of ours at all."""


def open_writer(path: Path) -> sqlite3.Connection:
    """Open the store for writing; made, with its directory, where it is not there. Readable by its owner alone.

    Raises OSError or sqlite3.Error, and WrongVersion where the file belongs to something else.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        for suffix in ("-wal", "-shm"):
            path.with_name(path.name + suffix).unlink(missing_ok=True)
        os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o600))
    # For the thread that opens it alone: any other one would have to wait for the disk.
    connection = sqlite3.connect(path, timeout=_BUSY_S, isolation_level=None)
    try:
        _prepare(connection, path)
    except BaseException:
        connection.close()
        raise
    return connection


def _prepare(connection: sqlite3.Connection, path: Path) -> None:
    run = connection.execute
    version = run("PRAGMA user_version").fetchone()[0]
    owner = run("PRAGMA application_id").fetchone()[0]
    tables = run("SELECT count(*) FROM sqlite_master").fetchone()[0]
    if tables:
        _check(path, owner, version)
    if not tables:
        run(f"PRAGMA page_size={_PAGE_BYTES}")
        run("PRAGMA auto_vacuum=INCREMENTAL")
    for table in _TABLES if tables else ():
        # A look at both ends of each table: a file that is damaged is best known before it is written to.
        run(f"SELECT * FROM {table} ORDER BY 1 LIMIT 1").fetchall()  # noqa: S608 - names of our own
        run(f"SELECT * FROM {table} ORDER BY 1 DESC LIMIT 1").fetchall()  # noqa: S608
    run("PRAGMA journal_mode=WAL")
    # In WAL mode NORMAL can lose the last moments at a power cut, and never damages the file.
    run("PRAGMA synchronous=NORMAL")
    run("PRAGMA journal_size_limit=16777216")
    # Pages that every transaction writes to are copied back seldom.
    run(f"PRAGMA wal_autocheckpoint={_CHECKPOINT_PAGES}")
    run(f"PRAGMA cache_size=-{_CACHE_KIB}")
    if not tables:
        run("BEGIN IMMEDIATE")
        for statement in _SCHEMA:
            run(statement)
        run(f"PRAGMA application_id={_APPLICATION_ID}")
        run(f"PRAGMA user_version={SCHEMA_VERSION}")
        run("COMMIT")


def _check(path: Path, owner: int, version: int) -> None:
    """Raise WrongVersion where a file is not ours to use."""
    if owner != _APPLICATION_ID:
        raise WrongVersion(f"{path} is not a call store")
    if version != SCHEMA_VERSION:
        age = "an older" if version < SCHEMA_VERSION else "a newer"
        raise WrongVersion(
            f"{path} was written by {age} version of Trunkline (store version {version}, this one reads "
            f"{SCHEMA_VERSION}): move it away, or set another store.path"
        )


def open_reader(path: Path) -> sqlite3.Connection:
    """Open the store for reading alone. Raises OSError where it is not there, sqlite3.Error, or WrongVersion."""
    if not path.is_file():
        raise FileNotFoundError(f"there is no call store at {path}")
    uri = f"{path.absolute().as_uri()}?mode=ro"
    connection = sqlite3.connect(uri, uri=True, timeout=_BUSY_S, isolation_level=None, check_same_thread=False)
    try:
        owner, version = [connection.execute(f"PRAGMA {name}").fetchone()[0] for name in _OWNER]
        _check(path, owner, version)
    except BaseException:
        connection.close()
        raise
    connection.execute("PRAGMA query_only=ON")
    return connection


def set_id(names: tuple[str, ...]) -> tuple[int, str]:
    """The id of a set of names, and its text. It follows from the names, so that nobody has to look it up."""
    text = orjson.dumps(names).decode()
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "big", signed=True), text
