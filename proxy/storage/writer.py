"""The thread that writes batches to the call store, and keeps its file: opened, repaired, not too large."""

from __future__ import annotations

import errno
import fcntl
import os
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import structlog

from proxy.audit.redact import Redaction
from proxy.storage.numbers import key_path, load_key
from proxy.storage.retention import Retention, trim
from proxy.storage.rows import Batch
from proxy.storage.schema import ATTEMPT_COLUMNS, CALL_COLUMNS, WrongVersion

__all__ = ["StoreSettings", "StoreWriter", "write_batch"]

_RETRY_S: Final = (0.5, 1.0, 2.0, 5.0)
_TRIM_S: Final = 5.0
_LOG_S: Final = 30.0
_MAX_SETS: Final = 10_000


@dataclass(frozen=True, slots=True)
class StoreSettings:
    """How the store is kept.

    Attributes:
        path: the SQLite file. Beside it lie its `-wal`, its `-shm` and the key of its hashes (`.key`).
        max_age_s, max_bytes: calls older than this, and the oldest ones when the file is larger, are removed. 0: never.
        max_queue_bytes: what may wait to be written, roughly; events beyond it are dropped.
        tapped: whether webhooks pass through Trunkline.
    """

    path: Path
    max_age_s: float = 30 * 86_400.0
    max_bytes: int = 2 * 1024**3
    redaction: Redaction = field(default_factory=Redaction)
    max_queue_bytes: int = 32 * 1024**2
    tapped: bool = False


class StoreWriter:
    """Writes batches, a transaction each, from a thread of its own.

    When the store can't be written to, it tries again with growing pauses (at most 5 s), and batches wait: a file that
    was deleted is made anew, a damaged one is moved aside (`.damaged-<time>`) and a new one begun.

    Args:
        settings: how the store is kept.
        waiting: tells how many events wait to be written, and how many were dropped.
        simulated: whether only batches know how late it is.
        open_store: opens the file.

    Attributes:
        key: of the hashes of numbers; None until the thread has read it.
        error: why the last write failed, or "".
        written: how many events were written.
    """

    def __init__(
        self,
        settings: StoreSettings,
        waiting: Callable[[], tuple[int, int]],
        *,
        simulated: bool,
        open_store: Callable[[Path], sqlite3.Connection],
    ) -> None:
        self.settings = settings
        self._waiting = waiting
        self.key: bytes | None = None
        self.error = ""
        self.written = 0
        self._simulated = simulated
        self._open_store = open_store
        self._batches: deque[Batch] = deque()
        self._in_bytes = 0
        self._out_bytes = 0
        self._put = 0
        self._done = 0
        self._db: sqlite3.Connection | None = None
        self._inode = 0
        self._claimed: int | None = None
        self._ours = False
        self._started_ns = 0 if simulated else time.time_ns()
        self._sets: dict[int, str] = {}
        self._moment = 0.0
        self._failures = 0
        self._last_log = float("-inf")
        self._last_trim = 0.0
        self._wake = threading.Event()
        self._idle = threading.Condition()
        self._closing = False
        self._thread: threading.Thread | None = None
        self._log = structlog.get_logger(__name__)

    # For the thread that has the events

    def start(self) -> None:
        """Begin: open the store, so that what is wrong with it is in the log before the first call."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="call-store", daemon=True)
            self._thread.start()

    @property
    def backlog(self) -> int:
        """Bytes that wait to be written, roughly."""
        return self._in_bytes - self._out_bytes

    @property
    def idle(self) -> bool:
        """Whether all that was put is written."""
        return self._done == self._put

    def put(self, batch: Batch) -> None:
        """Have a batch written."""
        self._in_bytes += batch.size
        self._put += 1
        self._batches.append(batch)
        self._wake.set()

    def wait(self, timeout_s: float) -> None:
        """Wait for the end of a round, but not longer than so many seconds."""
        with self._idle:
            if self.key is None or not self.idle:
                self._idle.wait(timeout_s)

    def hurry(self) -> None:
        """Do not wait for the time of the next try."""
        self._wake.set()

    def close(self, timeout_s: float) -> bool:
        """Write what is left, for up to so many seconds, and end. False when something is left."""
        self._closing = True
        self._wake.set()
        if self._thread is not None:
            self._thread.join(timeout_s)
            return self.idle and not self._thread.is_alive()
        return self.idle

    # On the thread

    def _run(self) -> None:
        while True:
            self._wake.wait(self._pause())
            closing = self._closing
            self._wake.clear()
            try:
                self._round()
            except Exception:  # a fault of ours must not end the record of all later calls
                self._drop_first()
                self._log.exception("store-fault")
            with self._idle:
                self._idle.notify_all()
            if closing:
                self._close_store()
                if self._claimed is not None:
                    os.close(self._claimed)
                return

    def _pause(self) -> float:
        if self._db is None and not self._failures:
            return 0.0
        return _RETRY_S[min(self._failures, len(_RETRY_S)) - 1] if self._failures else _TRIM_S

    def _round(self) -> None:
        """Write all batches that wait."""
        try:
            db = self._ensure_open()
            while self._batches:
                write_batch(db, self._batches[0])
                self._remember(self._batches[0])
                self._drop_first()
                db = self._ensure_open()
        except (sqlite3.Error, OSError, WrongVersion) as error:
            self._failed(error)
            return
        if self.error:
            self._log.info("store-recovered", path=str(self.settings.path), dropped=self._waiting()[1])
        self.error, self._failures = "", 0
        self._keep_house()

    def _drop_first(self) -> None:
        """A batch is done with."""
        if self._batches:
            batch = self._batches.popleft()
            self._out_bytes += batch.size
            self.written += batch.events
            self._done += 1

    def _remember(self, batch: Batch) -> None:
        """Keep what a store that is made anew will need again."""
        self._moment = batch.moment
        self._sets.update(batch.sets)
        while len(self._sets) > _MAX_SETS:
            del self._sets[next(iter(self._sets))]

    def _ensure_open(self) -> sqlite3.Connection:
        """The store, opened again when its file was deleted or replaced."""
        path = self.settings.path
        if self._db is not None:
            try:
                if path.stat().st_ino == self._inode:
                    return self._db
            except FileNotFoundError:
                pass
            self._log.warning("store-deleted", path=str(path), advice="a new one is begun")
            self._close_store()
        if self.key is None:
            self._ours = key_path(path).exists() or not path.exists()
            self.key = load_key(path)
        self._db = db = self._open_store(path)
        self._inode = path.stat().st_ino
        if self._sets:
            _insert(db, "sets", self._sets.items())
        if self._claim():
            # Calls that began before this process and did not end: theirs went away in the middle of them.
            sql = "UPDATE calls SET state = 'lost' WHERE state IN ('trying', 'answered') AND key < ?"
            db.execute(sql, (self._started_ns,))
        self._ours = True
        return db

    def _claim(self) -> bool:
        """Whether no other process writes to this store now. Each holds a shared lock on the key's file."""
        if self._claimed is None:
            self._claimed = os.open(key_path(self.settings.path), os.O_RDONLY)
        try:
            fcntl.flock(self._claimed, fcntl.LOCK_EX | fcntl.LOCK_NB)
            alone = True
        except BlockingIOError:
            alone = False
        with suppress(BlockingIOError):
            fcntl.flock(self._claimed, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return alone

    def _close_store(self) -> None:
        if self._db is not None:
            with suppress(sqlite3.Error):
                self._db.close()
            self._db = None

    def _failed(self, error: Exception) -> None:
        """Writing failed: say so, now and then, and make ready for another try."""
        path = self.settings.path
        self._failures += 1
        text = " ".join(str(error).split())
        if self._db is not None:
            with suppress(sqlite3.Error):
                self._db.execute("ROLLBACK")
        if _is_damaged(error) and self._ours:
            self._close_store()
            text = f"damaged ({text}); {self._set_aside(path)}"
            self._last_log = float("-inf")
        elif not _is_busy(error):
            # A connection that failed half-way is not worth keeping; opening is cheap.
            self._close_store()
        now = time.monotonic()
        if not self.error or now - self._last_log >= _LOG_S:
            self._last_log = now
            waiting, dropped = self._waiting()
            self._log.error(
                "store-failed", path=str(path), reason=text, waiting=waiting, dropped=dropped, advice=_advice(error)
            )
        self.error = text

    def _set_aside(self, path: Path) -> str:
        """Move a damaged store out of the way; says what was done."""
        stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
        aside = path.with_name(f"{path.name}.damaged-{stamp}")
        try:
            os.replace(path, aside)
            for suffix in ("-wal", "-shm"):
                side = path.with_name(path.name + suffix)
                if side.exists():
                    os.replace(side, aside.with_name(aside.name + suffix))
        except OSError as error:
            return f"it can't be moved aside: {error.strerror}"
        return f"moved to {aside.name}, a new one is begun"

    def _keep_house(self) -> None:
        """Remove what is too old or too much, a little at a time."""
        now = time.monotonic()
        if self._db is None or now - self._last_trim < _TRIM_S:
            return
        self._last_trim = now
        settings = self.settings
        moment = self._moment if self._simulated else time.time()
        try:
            trim(self._db, Retention(settings.max_age_s, settings.max_bytes), moment)
        except sqlite3.Error as error:
            self._failed(error)


# Statements. Each gives up the interpreter and has to get it back, so one of them writes many rows.

_AT_ONCE: Final = (16, 4, 1)
_COLUMNS: Final = {
    "calls": len(CALL_COLUMNS),
    "attempts": len(ATTEMPT_COLUMNS),
    "chunks": 2,
    "names": 3,
    "sets": 2,
    "notes": 3,
    "minutes": 5,
}
_HOW: Final = {
    "chunks": ("INSERT INTO chunks (call, events)", ""),
    "names": ("INSERT OR IGNORE INTO names", ""),
    "sets": ("INSERT OR IGNORE INTO sets", ""),
    "minutes": (
        "INSERT INTO minutes",
        " ON CONFLICT (kind, minute, name, value) DO UPDATE SET count = count + excluded.count",
    ),
}


def _statement(table: str, rows: int) -> str:
    before, after = _HOW.get(table, (f"INSERT OR REPLACE INTO {table}", ""))
    marks = f"({', '.join('?' * _COLUMNS[table])})"
    return f"{before} VALUES {', '.join([marks] * rows)}{after}"


_STATEMENTS: Final = {(table, rows): _statement(table, rows) for table in _COLUMNS for rows in _AT_ONCE}
_END_LOST: Final = (
    "UPDATE calls SET state = 'lost', outcome = ?, status = ?, reason = ?, ended_by = ?, detail = ?, setup_s = ?,"
    " talk_s = ?, duration_s = ?, cause = ? WHERE id = ? AND state IN ('trying', 'answered')"
)
_DROPPED_SQL: Final = (
    "INSERT INTO meta VALUES ('dropped', ?) ON CONFLICT (name) DO UPDATE SET value = value + excluded.value"
)


def _insert(db: sqlite3.Connection, table: str, rows: Iterable[Sequence[Any]]) -> None:
    left = list(rows)
    at = 0
    for many in _AT_ONCE:
        sql = _STATEMENTS[table, many]
        while len(left) - at >= many:
            db.execute(sql, [value for row in left[at : at + many] for value in row])
            at += many


def write_batch(db: sqlite3.Connection, batch: Batch) -> None:
    """Write a batch in one transaction. Raises sqlite3.Error, and nothing is written then."""
    db.execute("BEGIN IMMEDIATE")
    _insert(db, "calls", batch.calls)
    _insert(db, "attempts", batch.attempts)
    _insert(db, "chunks", batch.chunks)
    _insert(db, "names", sorted(batch.names))
    _insert(db, "sets", batch.sets.items())
    _insert(db, "notes", batch.notes)
    _insert(db, "minutes", [(*place, count) for place, count in batch.counts.items()])
    for end in batch.lost:
        db.execute(_END_LOST, end)
    if batch.dropped:
        db.execute(_DROPPED_SQL, (str(batch.dropped),))
    db.execute("COMMIT")


# What an error means


def _is_busy(error: Exception) -> bool:
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    return code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


def _is_damaged(error: Exception) -> bool:
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    return code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def _advice(error: Exception) -> str:
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    number = getattr(error, "errno", 0)
    if code == sqlite3.SQLITE_FULL or number == errno.ENOSPC:
        return "the disk is full: make room, or set store.max_mb lower; calls go on"
    if code in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM) or number in (
        errno.EACCES,
        errno.EROFS,
        errno.EPERM,
    ):
        return "the file or its directory can't be written to: set store.path; calls go on"
    if _is_busy(error):
        return "another program holds the store locked; calls go on"
    return "calls go on without a record"
