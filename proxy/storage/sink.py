"""The sink that fills the call store, from a thread of its own: nothing that happens to the store delays a call."""

from __future__ import annotations

import errno
import fcntl
import os
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import structlog

from proxy.audit.records import Event
from proxy.audit.redact import Redaction, Redactor
from proxy.sip.message import Message
from proxy.storage.fold import Fold, Operation
from proxy.storage.numbers import key_path, load_key
from proxy.storage.retention import Retention, trim
from proxy.storage.schema import WrongVersion, open_writer

__all__ = ["StoreSettings", "StoreSink", "StoreState"]

_BATCH_S: Final = 0.2
_SLICE: Final = 500
_TURN_S: Final = 0.001
_EVENT_BYTES: Final = 1024
_RETRY_S: Final = (0.5, 1.0, 2.0, 5.0)
_CLOSE_S: Final = 2.0
_TRIM_S: Final = 5.0
_LOG_S: Final = 30.0
_MAX_LOST_CALLS: Final = 4096
_UNUSED: Final = frozenset(("dropped",))


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


@dataclass(frozen=True, slots=True)
class StoreState:
    """How the store is doing.

    Attributes:
        ok: whether the last write succeeded. error: why not, or "".
        waiting: events that wait to be written. written, dropped: events since the start.
    """

    ok: bool
    error: str
    waiting: int
    written: int
    dropped: int


class StoreSink:
    """Takes events and writes them to the store, a transaction about every 200 ms.

    `emit` puts an event into a queue and does nothing else. Messages are turned into text, masked and packed by the
    writer's thread, in slices, so that the event loop gets its turn. When the store can't be written to, the writer
    tries again with growing pauses (at most 5 s): a file that was deleted is made anew, a damaged one is moved aside
    (`.damaged-<time>`) and a new one begun. Meanwhile events wait up to `max_queue_bytes`; what goes beyond is dropped,
    counted, logged, and noted in the store once that works again.

    Args:
        settings: how the store is kept.
        wall_offset: seconds to add to an event's time for the Unix time; None follows the system's clock.
        open_store: opens the file; tests may give their own.
    """

    def __init__(
        self,
        settings: StoreSettings,
        *,
        wall_offset: float | None = None,
        open_store: Callable[[Path], sqlite3.Connection] = open_writer,
    ) -> None:
        self.settings = settings
        self.dropped = 0
        self._queue: deque[tuple[Event, int]] = deque()
        self._in_bytes = 0
        self._out_bytes = 0
        self._written = 0
        self._wall_offset = wall_offset
        self._open_store = open_store
        self._db: sqlite3.Connection | None = None
        self._inode = 0
        self._claimed: int | None = None
        self._ours = False
        self._started_ns = time.time_ns() if wall_offset is None else 0
        self._fold: Fold | None = None
        self._operations: list[Operation] = []
        self._lost_calls: dict[str, None] = {}
        self._dropped_noted = 0
        self._error = ""
        self._failures = 0
        self._last_log = float("-inf")
        self._last_time = 0.0
        self._last_trim = 0.0
        self._wake = threading.Event()
        self._idle = threading.Condition()
        self._closing = False
        self._thread: threading.Thread | None = None
        self._log = structlog.get_logger(__name__)

    # On the event loop's thread

    def emit(self, event: Event) -> None:
        """Take one event. Never raises and never waits."""
        message = event.fields.get("message")
        size = _EVENT_BYTES + len(message.body) if isinstance(message, Message) else _EVENT_BYTES
        if self._in_bytes - self._out_bytes + size > self.settings.max_queue_bytes:
            self.dropped += 1
            if event.call and len(self._lost_calls) < _MAX_LOST_CALLS:
                self._lost_calls[event.call] = None
            return
        if event.kind in _UNUSED:
            return
        self._in_bytes += size
        self._queue.append((event, size))
        if self._thread is None:
            self._start()

    def start(self) -> None:
        """Open the store now, so that what is wrong with it is in the log before the first call."""
        if self._thread is None:
            self._start()

    def _start(self) -> None:
        self._thread = threading.Thread(target=self._run, name="call-store", daemon=True)
        self._thread.start()

    def state(self) -> StoreState:
        """How the store is doing."""
        return StoreState(not self._error, self._error, len(self._queue), self._written, self.dropped)

    def flush(self, timeout_s: float = 10.0) -> bool:
        """Wait until everything that was emitted is in the file; for tests and simulations. False when time is over."""
        deadline = time.monotonic() + timeout_s
        wanted = self._in_bytes
        with self._idle:
            while self._out_bytes < wanted or self._operations:
                self._wake.set()
                left = deadline - time.monotonic()
                if left <= 0:
                    return False
                self._idle.wait(min(left, 0.05))
        return True

    def close(self) -> None:
        """Write what is left, for up to two seconds, and end."""
        if self._closing:
            return
        self._closing = True
        self._wake.set()
        if self._thread is not None:
            self._thread.join(_CLOSE_S)
            if self._thread.is_alive() or self._operations:
                reason = self._error or "there was no time to write everything"
                path = str(self.settings.path)
                self._log.error(
                    "store-failed", path=path, reason=reason, waiting=len(self._queue), dropped=self.dropped
                )

    # On the writer's thread

    def _run(self) -> None:
        while True:
            self._wake.wait(self._pause())
            closing = self._closing
            self._wake.clear()
            try:
                self._work(closing)
            except Exception:  # a fault of ours must not end the record of all later calls
                self._operations.clear()
                self._log.exception("store-fault")
            with self._idle:
                self._idle.notify_all()
            if closing:
                self._close_store()
                if self._claimed is not None:
                    os.close(self._claimed)
                return

    def _pause(self) -> float:
        return _RETRY_S[min(self._failures, len(_RETRY_S)) - 1] if self._failures else _BATCH_S

    def _work(self, closing: bool) -> None:
        """One round: fold what came, and write it. In slices, since other threads wait for the interpreter."""
        while True:
            if not self._write():
                return
            more = self._fold_some(closing)
            if not self._operations:
                self._keep_house()
                return
            if not more:
                if self._write():
                    self._keep_house()
                return

    def _fold_some(self, closing: bool) -> bool:
        """Fold up to a slice of events; True when there are more."""
        fold = self._fold
        if fold is None:
            return False
        offset = self._wall_offset if self._wall_offset is not None else time.time() - time.monotonic()
        queue = self._queue
        count = 0
        since = time.perf_counter()
        while queue and count < _SLICE:
            event, size = queue.popleft()
            self._last_time = max(self._last_time, event.time)
            try:
                fold.add(event, offset)
            except Exception:
                self._log.exception("store-fault", kind=event.kind)
            self._out_bytes += size
            count += 1
            if time.perf_counter() - since > _TURN_S:
                # Gives up the interpreter: an event loop that waits has its turn now, and not after 5 ms.
                time.sleep(0)
                since = time.perf_counter()
        self._written += count
        while self._lost_calls:
            fold.mark_incomplete(self._lost_calls.popitem()[0])
        # In simulated time only the events know how late it is.
        now = time.monotonic() if self._wall_offset is None else self._last_time
        self._operations = fold.take(now, everything=closing and not queue)
        return bool(queue)

    def _write(self) -> bool:
        """Write what was folded, in one transaction; False when that fails, and everything stays for the next time."""
        try:
            db = self._ensure_open()
            if self._operations or self.dropped != self._dropped_noted:
                dropped = self.dropped
                db.execute("BEGIN IMMEDIATE")
                for sql, values in self._operations:
                    db.execute(sql, values)
                if dropped != self._dropped_noted:
                    self._note_drops(db, dropped - self._dropped_noted)
                db.execute("COMMIT")
                self._dropped_noted = dropped
                self._operations = []
        except (sqlite3.Error, OSError, WrongVersion) as error:
            self._failed(error)
            return False
        if self._error:
            self._log.info("store-recovered", path=str(self.settings.path), dropped=self.dropped)
        self._error, self._failures = "", 0
        return True

    @staticmethod
    def _note_drops(db: sqlite3.Connection, count: int) -> None:
        sql = "INSERT INTO meta VALUES ('dropped', ?) ON CONFLICT (name) DO UPDATE SET value = value + excluded.value"
        db.execute(sql, (str(count),))

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
        if self._fold is None:
            self._ours = key_path(path).exists() or not path.exists()
            redactor = Redactor(self.settings.redaction)
            self._fold = Fold(redactor, load_key(path), tapped=self.settings.tapped)
        self._operations = [*self._fold.known_sets(), *self._operations]
        self._db = db = self._open_store(path)
        self._inode = path.stat().st_ino
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
        if not self._error or now - self._last_log >= _LOG_S:
            self._last_log = now
            self._log.error(
                "store-failed", path=str(path), reason=text, waiting=len(self._queue), dropped=self.dropped,
                advice=_advice(error),
            )  # fmt: skip
        self._error = text

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
        moment = time.time() if self._wall_offset is None else self._last_time + self._wall_offset
        try:
            trim(self._db, Retention(settings.max_age_s, settings.max_bytes), moment)
        except sqlite3.Error as error:
            self._failed(error)


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
        return "the disk is full: make room, or set store.max_bytes lower; calls go on"
    if code in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM) or number in (
        errno.EACCES,
        errno.EROFS,
        errno.EPERM,
    ):
        return "the file or its directory can't be written to: set store.path; calls go on"
    if _is_busy(error):
        return "another program holds the store locked; calls go on"
    return "calls go on without a record"
