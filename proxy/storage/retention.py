"""Removing old calls, a few at a time."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from typing import Final

from proxy.storage.names import SPAN_BITS

__all__ = ["Retention", "trim"]

_NS: Final = 1_000_000_000
_CALLS_A_TIME: Final = 500
_ROUNDS: Final = 8
_PAGES_A_TIME: Final = 2000


@dataclass(frozen=True, slots=True)
class Retention:
    """Calls older than `max_age_s` go, and the oldest ones while the store has more than `max_bytes`. 0: no limit."""

    max_age_s: float
    max_bytes: int


def trim(db: sqlite3.Connection, retention: Retention, now: float) -> int:
    """Remove up to 4,000 calls, in transactions of 500, and give space back. Returns how many. Raises sqlite3.Error."""
    removed = 0
    for _ in range(_ROUNDS):
        last = _last_to_go(db, retention, now)
        if last is None:
            break
        removed += _remove(db, last)
    if removed:
        # By `execute` Python would take one step of it, and with that give back one page.
        db.executescript(f"PRAGMA incremental_vacuum({_PAGES_A_TIME})")
    return removed


def _last_to_go(db: sqlite3.Connection, retention: Retention, now: float) -> int | None:
    """The key of the newest call among the oldest 500 that has to go; None when nothing has."""
    cutoff = int((now - retention.max_age_s) * _NS) if retention.max_age_s else 0
    sql = "SELECT max(key) FROM (SELECT key FROM calls WHERE key < ? ORDER BY key LIMIT ?)"
    found: int | None = db.execute(sql, (cutoff, _CALLS_A_TIME)).fetchone()[0]
    if found is None and retention.max_bytes and _used_bytes(db) > retention.max_bytes:
        found = db.execute(sql, (2**63 - 1, _CALLS_A_TIME)).fetchone()[0]
    return found


def _used_bytes(db: sqlite3.Connection) -> int:
    pages, free, size = (int(db.execute(f"PRAGMA {name}").fetchone()[0]) for name in _SIZES)
    return (pages - free) * size


_SIZES: Final = ("page_count", "freelist_count", "page_size")


def _remove(db: sqlite3.Connection, last: int) -> int:
    db.execute("BEGIN IMMEDIATE")
    try:
        db.execute("DELETE FROM chunks WHERE call IN (SELECT key FROM calls WHERE key <= ?)", (last,))
        db.execute("DELETE FROM attempts WHERE call <= ?", (last,))
        count = db.execute("DELETE FROM calls WHERE key <= ?", (last,)).rowcount
        # Those of the span that is not over yet go with the rest of it.
        db.execute("DELETE FROM names WHERE span < ?", (last >> SPAN_BITS,))
        db.execute("DELETE FROM notes WHERE key <= ?", (last,))
        for kind in ("call", "attempt", "status", "rule", "setup"):
            db.execute("DELETE FROM minutes WHERE kind = ? AND minute < ?", (kind, last // _NS // 60))
        db.execute("COMMIT")
    except BaseException:
        db.execute("ROLLBACK")
        raise
    return count
