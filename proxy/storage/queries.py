"""Reading the call store: calls, their attempts and messages, counts over time, what diagnosis needs.

A `StoreReader` has a connection of its own and reads while the proxy writes. It may be used from one thread at a time.
All times are Unix seconds, all durations seconds. With masking on (the default) every text in here is masked.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Final

import orjson

from proxy.audit.plain import timestamp
from proxy.diagnosis.facts import AttemptFacts
from proxy.storage.chunks import unpack
from proxy.storage.names import SPAN_BITS, name_of_id, name_of_text, names_of_prefix
from proxy.storage.numbers import hash_number, load_key
from proxy.storage.schema import open_reader

__all__ = [
    "AttemptRow",
    "CallFilter",
    "CallRow",
    "Note",
    "Point",
    "StoreReader",
    "StoreStatus",
    "TargetHealth",
    "Totals",
]

_NS: Final = 1_000_000_000
_EVER: Final = (0, 2**62)
"""All spans of names."""


@dataclass(frozen=True, slots=True)
class CallFilter:
    """Which calls are meant; what is None does not matter.

    Attributes:
        since, until: when the call began, Unix seconds, the latter excluded.
        number: a whole phone number, of the caller or the one that was called, in any notation.
        text: an id: ours, a Call-ID of either leg, or X-Twilio-CallSid.
        outcome: `answered`, `failed`, `cancelled`, or `open` for calls in progress.
        status: the final status that the caller got. cause: see docs/diagnosis.md. target, rules: of the last attempt.
        rule: `<set>/<rule id>` that changed something. tag: one of the call's tags.
        source: address that the call came from.
    """

    since: float | None = None
    until: float | None = None
    number: str | None = None
    text: str | None = None
    outcome: str | None = None
    status: int | None = None
    cause: str | None = None
    target: str | None = None
    rules: str | None = None
    rule: str | None = None
    tag: str | None = None
    source: str | None = None


@dataclass(frozen=True, slots=True)
class CallRow:
    """A call. `state` is `trying`, `answered`, `ended`, or `lost` when the proxy went away in the middle of it.

    `outcome`, `status`, `reason`, `ended_by` and `detail` are those of `call-end` in docs/events.md. Seconds:
    `trying_s`, `ringing_s`, `setup_s` from the caller's INVITE to our 100, 18x and 200; `added_s` is what of the set-up
    was ours (work, connecting, waiting between attempts); `talk_s` from 200 to BYE. `attempts` is how many there were,
    `cause` that of the last one that failed. `incomplete`: events of it were dropped.
    """

    key: int
    id: str
    call_id: str | None
    call_sid: str | None
    from_uri: str | None
    to_uri: str | None
    uri: str | None
    user_agent: str | None
    source: str | None
    trunk: str | None
    tls: str | None
    connection_age_s: float | None
    state: str
    outcome: str | None
    status: int | None
    reason: str | None
    ended_by: str | None
    detail: str | None
    cause: str | None
    attempts: int
    target: str | None
    rules: str | None
    rules_version: str | None
    tags: tuple[str, ...]
    invite_bytes: int | None
    trying_s: float | None
    ringing_s: float | None
    setup_s: float | None
    added_s: float | None
    talk_s: float | None
    duration_s: float | None
    incomplete: bool

    @property
    def started(self) -> float:
        """When the caller's INVITE came, Unix seconds."""
        return self.key / _NS


@dataclass(frozen=True, slots=True)
class AttemptRow:
    """One attempt, or one address of a target that failed within it (`final` False).

    `outcome` is the `cause` of `attempt-end` in docs/events.md; `cause` and `evidence` are the verdict of diagnosis.
    Seconds since the call's start: `started_s`, `invite_s`, `webhook_s`, `accepted_s`; since the INVITE left:
    `trying_s`, `ringing_s`, `final_s`.
    """

    call: int
    number: int
    hop: int
    started_s: float | None
    target: str | None
    address: str | None
    uri: str | None
    rules: str | None
    rules_version: str | None
    call_id: str | None
    status: int | None
    reason: str | None
    outcome: str | None
    detail: str | None
    next: str | None
    cause: str | None
    evidence: str | None
    invite_s: float | None
    trying_s: float | None
    ringing_s: float | None
    final_s: float | None
    webhook_s: float | None
    accepted_s: float | None
    duration_s: float | None
    invite_bytes: int | None
    tls: str | None
    connection_age_s: float | None

    @property
    def final(self) -> bool:
        """Whether this is the attempt's outcome."""
        return self.outcome != "hop"


@dataclass(frozen=True, slots=True)
class Point:
    """How often something happened in one step of time that begins at `time`."""

    time: float
    name: str
    value: str
    count: int


@dataclass(frozen=True, slots=True)
class Note:
    """An event that belongs to no call: `refused`, `limit-reached`, `target-up`, `target-down`."""

    time: float
    kind: str
    fields: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Totals:
    """Calls that ended in a range of time, by outcome, and those in progress now."""

    answered: int
    failed: int
    cancelled: int
    in_progress: int

    @property
    def success_rate(self) -> float | None:
        """Answered calls as a share of answered and failed ones; None without any."""
        whole = self.answered + self.failed
        return self.answered / whole if whole else None


@dataclass(frozen=True, slots=True)
class TargetHealth:
    """Attempts at a target in a range of time."""

    target: str
    attempts: int
    answered: int
    causes: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class StoreStatus:
    """What the store itself says: events dropped since it exists, and its size."""

    dropped: int
    last_error: str
    calls: int
    file_bytes: int
    oldest: float | None


_CALL_NAMES: Final = tuple([field.name for field in fields(CallRow)])
_CALL_SQL: Final = f"SELECT {', '.join(_CALL_NAMES)} FROM calls"  # noqa: S608 - names of our own
_ATTEMPT_NAMES: Final = tuple([field.name for field in fields(AttemptRow)])
_ATTEMPT_SQL: Final = f"SELECT {', '.join(_ATTEMPT_NAMES)} FROM attempts"  # noqa: S608
_BY_NAME: Final = """
    WITH RECURSIVE spans(span) AS (
        SELECT min(span) FROM names WHERE span >= ?
        UNION ALL
        SELECT (SELECT min(span) FROM names WHERE span > spans.span) FROM spans WHERE spans.span IS NOT NULL
    )
    SELECT call FROM spans CROSS JOIN names ON names.span = spans.span
    WHERE spans.span <= ? AND names.name BETWEEN ? AND ?
"""
"""The calls that a name, or one of a range of names, stands for."""

_FACTS_SQL: Final = """
    SELECT c.id, c.key, a.number, a.hop, a.started_s, a.outcome, a.status, a.reason, a.cause, a.target, a.address,
        a.rules, a.rules_version, a.final_s, a.connection_age_s, c.source, c.user_agent, c.invite_bytes, c.tls, c.tags,
        c.outcome, c.connection_age_s, a.tls, c.shape, a.shape, a.answer_shape
    FROM calls c JOIN attempts a ON a.call = c.key
    WHERE c.key >= ? AND c.key < ? AND NOT c.incomplete
    ORDER BY c.key, a.number, a.hop
"""


class StoreReader:
    """Reads a store. Use it as a context manager, or `close` it.

    Raises FileNotFoundError, sqlite3.Error or `proxy.storage.schema.WrongVersion` when it can't be opened.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._db = open_reader(path)
        self._key = load_key(path, make=False)

    def __enter__(self) -> StoreReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self._db.close()

    # Calls

    def calls(self, wanted: CallFilter = CallFilter(), limit: int = 50, before: int | None = None) -> list[CallRow]:
        """Calls, the newest first; `before` (a key) goes on where the last page ended."""
        where, values = self._where(wanted)
        if before is not None:
            where.append("key < ?")
            values.append(before)
        sql = f"{_CALL_SQL}{_and(where)} ORDER BY key DESC LIMIT ?"
        return [_call(row) for row in self._db.execute(sql, [*values, limit])]

    def count(self, wanted: CallFilter = CallFilter(), limit: int = 10_000) -> int:
        """How many calls there are; counting stops at `limit`."""
        where, values = self._where(wanted)
        sql = f"SELECT count(*) FROM (SELECT 1 FROM calls{_and(where)} LIMIT ?)"  # noqa: S608
        return int(self._db.execute(sql, [*values, limit]).fetchone()[0])

    def call(self, key: int) -> CallRow | None:
        """One call by its key."""
        row = self._db.execute(f"{_CALL_SQL} WHERE key = ?", (key,)).fetchone()
        return None if row is None else _call(row)

    def find(self, text: str, limit: int = 10) -> list[CallRow]:
        """Calls by our id (its first letters do), a Call-ID of either leg, X-Twilio-CallSid, or a whole number."""
        found = self.calls(CallFilter(text=text), limit)
        if not found and len(text) >= 4:
            sql = f"{_CALL_SQL} WHERE id >= ? AND id < ? AND key IN ({_BY_NAME}) ORDER BY key DESC LIMIT ?"
            names = names_of_prefix(text)
            found = [_call(row) for row in self._db.execute(sql, (text, f"{text}\x7f", *_EVER, *names, limit))]
        if not found and sum(char.isdigit() for char in text) >= 7:
            found = self.calls(CallFilter(number=text), limit)
        return found

    def attempts(self, key: int) -> list[AttemptRow]:
        """The attempts of a call, in order, with the addresses that failed within each."""
        sql = f"{_ATTEMPT_SQL} WHERE call = ? ORDER BY number, hop"
        return [AttemptRow(*row) for row in self._db.execute(sql, (key,))]

    def rule_hits_of(self, key: int) -> tuple[str, ...]:
        """The rules (`<set>/<rule id>`) that changed something in a call."""
        sql = "SELECT items FROM sets WHERE id = (SELECT rule_hits FROM calls WHERE key = ?)"
        row = self._db.execute(sql, (key,)).fetchone()
        return () if row is None else tuple(orjson.loads(row[0]))

    def timeline(self, key: int) -> list[dict[str, Any]]:
        """All events of a call in order, in the form of the log's JSON lines (docs/events.md), with changes.

        In addition each message has `local`, our own address, as `address:port`.
        """
        row = self._db.execute("SELECT id FROM calls WHERE key = ?", (key,)).fetchone()
        if row is None:
            return []
        start = key / _NS
        events: list[dict[str, Any]] = []
        for (blob,) in self._db.execute("SELECT events FROM chunks WHERE call = ? ORDER BY id", (key,)):
            for event in unpack(blob):
                offset = event.pop("at")
                events.append({"time": timestamp(start + offset), "call": row[0], **event})
        return events

    def _where(self, wanted: CallFilter) -> tuple[list[str], list[object]]:
        where: list[str] = []
        values: list[object] = []

        def add(sql: str, *items: object) -> None:
            where.append(sql)
            values.extend(items)

        if wanted.since is not None:
            add("key >= ?", int(wanted.since * _NS))
        if wanted.until is not None:
            add("key < ?", int(wanted.until * _NS))
        if wanted.outcome == "open":
            add("state IN ('trying', 'answered')")
        elif wanted.outcome is not None:
            add("outcome = ?", wanted.outcome)
        for name in ("status", "cause", "target", "rules", "source"):
            value = getattr(wanted, name)
            if value is not None:
                add(f"{name} = ?", value)
        if wanted.tag is not None:
            add("tags IS NOT NULL AND EXISTS (SELECT 1 FROM json_each(tags) AS tag WHERE tag.value = ?)", wanted.tag)
        if wanted.rule is not None:
            name = wanted.rule.removeprefix("rule:")
            add("rule_hits IN (SELECT sets.id FROM sets, json_each(sets.items) AS name WHERE name.value = ?)", name)
        spans = (
            _EVER[0] if wanted.since is None else int(wanted.since * _NS) >> SPAN_BITS,
            _EVER[1] if wanted.until is None else int(wanted.until * _NS) >> SPAN_BITS,
        )
        if wanted.text is not None:
            text, ours = name_of_text(wanted.text), name_of_id(wanted.text)
            ours_sql = f"SELECT key FROM calls WHERE id = ? AND key IN ({_BY_NAME})"  # noqa: S608
            sql = f"key IN (SELECT * FROM ({_BY_NAME}) UNION {ours_sql})"  # noqa: S608
            add(sql, *spans, text, text, wanted.text, *spans, ours, ours)
        if wanted.number is not None:
            number = hash_number(self._key, wanted.number)
            add(f"key IN ({_BY_NAME})", *spans, number, number)
        return where, values

    # Counts

    def totals(self, since: float, until: float | None = None) -> Totals:
        """Calls that ended in a range of time, in whole minutes, and those in progress."""
        counts = {point.name: point.count for point in self._minutes("call", since, until, None, "name, ''")}
        open_calls = self._db.execute("SELECT count(*) FROM calls WHERE state IN ('trying', 'answered')").fetchone()[0]
        return Totals(counts.get("answered", 0), counts.get("failed", 0), counts.get("cancelled", 0), open_calls)

    def over_time(self, kind: str, since: float, until: float | None = None, step_s: float = 60.0) -> list[Point]:
        """Counts by step of time (whole minutes). `kind`, and what `name` and `value` are then:

        `call`: outcome and cause of ended calls. `attempt`: target and cause (`answered` for success).
        `status`: target and final status of attempts. `rule`: `<set>/<rule id>` and "", a count per call.
        `setup`: upper end of the set-up time in seconds (`0.5`, `1`, `2`, `4`, `8`, `16`, `32`, `inf`) and "".
        """
        return self._minutes(kind, since, until, step_s, "name, value")

    def causes(self, since: float, until: float | None = None) -> dict[str, int]:
        """Failed calls by cause."""
        points = self._minutes("call", since, until, None, "name, value")
        return {point.value: point.count for point in points if point.name == "failed"}

    def rule_hits(self, since: float, until: float | None = None) -> dict[str, int]:
        """In how many calls each rule changed something, the most frequent first."""
        points = self._minutes("rule", since, until, None, "name, ''")
        return {point.name: point.count for point in sorted(points, key=lambda point: -point.count)}

    def targets(self, since: float, until: float | None = None) -> list[TargetHealth]:
        """How attempts at each target went."""
        found: dict[str, dict[str, int]] = {}
        for point in self._minutes("attempt", since, until, None, "name, value"):
            found.setdefault(point.name, {})[point.value] = point.count
        return [
            TargetHealth(
                name,
                sum(counts.values()),
                counts.get("answered", 0),
                {cause: count for cause, count in counts.items() if cause != "answered"},
            )
            for name, counts in sorted(found.items())
        ]

    def _minutes(self, kind: str, since: float, until: float | None, step_s: float | None, names: str) -> list[Point]:
        step = max(int((step_s or 60.0) // 60), 1)
        time = f"minute / {step} * {step}" if step_s is not None else "0"
        sql = (
            f"SELECT {time} AS at, {names}, sum(count) FROM minutes"  # noqa: S608
            " WHERE kind = ? AND minute >= ? AND minute < ? GROUP BY 1, 2, 3 ORDER BY 1, 2, 3"
        )
        last = 2**53 if until is None else -int(-until // 60)
        rows = self._db.execute(sql, (kind, int(since // 60), last))
        return [Point(at * 60.0, name, value, count) for at, name, value, count in rows]

    # The rest

    def notes(self, since: float, kinds: Sequence[str] = (), limit: int = 100) -> list[Note]:
        """Events that belong to no call, the newest first."""
        marks = ", ".join("?" * len(kinds))
        only = f" AND kind IN ({marks})" if kinds else ""
        sql = f"SELECT key, kind, fields FROM notes WHERE key >= ?{only} ORDER BY key DESC LIMIT ?"  # noqa: S608
        rows = self._db.execute(sql, (int(since * _NS), *kinds, limit))
        return [Note(key / _NS, kind, orjson.loads(text)) for key, kind, text in rows]

    def facts(self, since: float | None = None, until: float | None = None) -> Iterator[AttemptFacts]:
        """What diagnosis compares: every attempt (and every address that failed within one), oldest first."""
        rows = self._db.execute("SELECT id, items FROM sets")
        sets: dict[int | None, tuple[str, ...]] = {number: tuple(orjson.loads(text)) for number, text in rows}
        first = 0 if since is None else int(since * _NS)
        last = 2**63 - 1 if until is None else int(until * _NS)
        for row in self._db.execute(_FACTS_SQL, (first, last)):
            tags = tuple(orjson.loads(row[19])) if row[19] else ()
            shapes = [sets.get(number, ()) for number in row[23:]]
            time = row[1] / _NS + (row[4] or 0.0)
            yield AttemptFacts._make([row[0], time, *row[2:4], *row[5:19], tags, *row[20:23], *shapes])

    def status(self) -> StoreStatus:
        """What the store says about itself."""
        meta = dict(self._db.execute("SELECT name, value FROM meta"))
        oldest = self._db.execute("SELECT min(key) FROM calls").fetchone()[0]
        size = sum(
            path.stat().st_size for path in (self.path, self.path.with_name(self.path.name + "-wal")) if path.exists()
        )
        count = self._db.execute("SELECT count(*) FROM calls").fetchone()[0]
        return StoreStatus(
            int(meta.get("dropped", "0")), meta.get("last_error", ""), count, size, oldest / _NS if oldest else None
        )


def _and(where: list[str]) -> str:
    return f" WHERE {' AND '.join(where)}" if where else ""


def _call(row: Sequence[Any]) -> CallRow:
    values = dict(zip(_CALL_NAMES, row, strict=True))
    values["tags"] = tuple(orjson.loads(values["tags"])) if values["tags"] else ()
    values["incomplete"] = bool(values["incomplete"])
    return CallRow(**values)
