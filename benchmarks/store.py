"""The call store: what it costs a call, and how long queries take with a million calls in it.

`python -m benchmarks.store cost` and `python -m benchmarks.store queries [--calls 1000000] [--directory DIR]`. Numbers
depend on the machine: run both on a quiet one.
"""

from __future__ import annotations

import argparse
import gc
import random
import sqlite3
import statistics
import tempfile
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

from benchmarks.callpath import RULES, Driver
from proxy.audit.records import Event
from proxy.audit.redact import Redaction, Redactor
from proxy.b2bua.effects import Effect
from proxy.b2bua.stack import Stack
from proxy.diagnosis.report import diagnose
from proxy.rehearsal import WALL_OFFSET, Causes, Rehearsal, RehearsalOptions
from proxy.rewrite.engine import RuleSet
from proxy.rulefiles import load_directory_or_files, load_file
from proxy.settings.loading import shipped_rules
from proxy.sip.flow import Flow
from proxy.sip.message import Message
from proxy.storage.fold import Fold
from proxy.storage.names import SPAN_BITS, name_of_id, name_of_text
from proxy.storage.queries import CallFilter, StoreReader
from proxy.storage.rows import Batch
from proxy.storage.schema import CALL_COLUMNS, open_writer
from proxy.storage.sink import StoreSettings, StoreSink
from proxy.storage.writer import write_batch

SEED_CALLS = 1000
MONTH_S = 30 * 86_400


class Tape:
    """Keeps events."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def emit(self, event: Event) -> None:
        """Keep one."""
        self.events.append(event)

    def close(self) -> None:
        """Nothing to do."""


def record(calls: int, causes: Causes) -> list[Event]:
    """The events of some calls."""
    tape = Tape()
    rules = load_directory_or_files([shipped_rules()])
    options = RehearsalOptions(calls=calls, span_s=7.2 * calls, seed=1, causes=causes)
    Rehearsal(options, rules, "twilio-openai", [tape]).run()
    return tape.events


def _short_calls(calls: int) -> list[Event]:
    """The events of calls of a quarter of a second, 400 a second: each one is written once."""
    driver = _Various(load_file(RULES / "twilio-openai.yaml"), rate=400.0)
    for _ in range(calls):
        driver.call()
    return driver.records


class _Various(Driver):
    """Places calls that differ in their numbers, ids, sessions and ports, as those of life do."""

    def __init__(self, rules: RuleSet, rate: float) -> None:
        super().__init__(rules, rate)
        self.records: list[Event] = []
        take, records = self.stack.take_effects, self.records

        def taken() -> list[Effect]:
            effects = take()
            records.extend([effect for effect in effects if isinstance(effect, Event)])
            return effects

        self.stack = _Taking(self.stack, taken)  # type: ignore[assignment]
        self._placed = 0

    def _receive(self, label: str, data: bytes, flow: Flow) -> None:
        self._placed += label == "INVITE"
        number = self._placed * 7919
        for before, after in (
            (b"+15550100002", b"+1555%07d" % (number % 10**7)),
            (b"\r\nX-Twilio-CallSid: CA", b"\r\nX-Twilio-CallSid: CA%024x" % number**5),
            (b"root 1311022221 1311022221", b"root %010d %010d" % (number, number)),
            (b"- 2113971860 2113971862", b"- %010d %010d" % (number, number)),
            (b"audio 12692", b"audio %05d" % (10_000 + number % 50_000)),
            (b"audio 43955", b"audio %05d" % (10_000 + number % 50_000)),
        ):
            data = data.replace(before, after)
        super()._receive(label, data, flow)


class _Taking:
    """A stack whose effects are looked at."""

    def __init__(self, stack: Stack, take: Callable[[], list[Effect]]) -> None:
        self._stack = stack
        self.take_effects = take

    def __getattr__(self, name: str) -> object:
        return getattr(self._stack, name)


def cost(directory: Path, calls: int) -> None:
    """Microseconds for each call, in the event loop and in the writer's thread, and bytes; the best of some rounds."""
    quiet, refusing = Causes(), Causes(address="203.0.113.22")
    for title, events, offset in (
        ("short calls, written once", _short_calls(calls), 0.0),
        ("calls of 20 s", record(calls, quiet), WALL_OFFSET),
        ("calls of 20 s, an address refuses", record(calls, refusing), WALL_OFFSET),
    ):
        gc.collect()
        gc.disable()
        rounds = [_one_round(directory, events, offset) for _ in range(7)]
        gc.enable()
        emitting, folding, writing = (
            min(times) / calls * 1e6 for times in zip(*[item[:3] for item in rounds], strict=True)
        )
        size, writes = rounds[0][3] / calls, rounds[0][4] / calls
        messages = [event.fields["message"] for event in events if event.kind == "message"]
        raw = sum(len(message.serialize()) for message in messages if isinstance(message, Message))
        print(f"{title}: {len(events) / calls:.1f} events, {raw / calls:.0f} bytes of SIP, {writes:.1f} writes each")
        print(f"  emit                {emitting:7.1f} us a call")
        print(f"  mask, fold and pack {folding:7.1f} us")
        print(f"  SQLite              {writing:7.1f} us, in the writer's thread")
        print(f"  on disk             {size:7.0f} bytes, indexes included")


def _one_round(directory: Path, events: list[Event], offset: float) -> tuple[float, float, float, int, int]:
    """Seconds of emitting, folding and writing all events, bytes on disk, and how many rows of calls were written."""
    queue: deque[Event] = deque()
    began = time.process_time()
    for event in events:
        queue.append(event)
    emitting = time.process_time() - began
    fold = Fold(Redactor(Redaction()), b"k" * 32)
    batches: list[Batch] = []
    began = time.process_time()
    batch_from = events[0].time
    for number, event in enumerate(events):
        fold.add(event, offset)
        if number % 64 == 63:
            fold.settle(event.time, 8)
        if event.time - batch_from >= 0.5:
            fold.settle(event.time, 10**9)
            batch_from = event.time
            if fold.ready:
                batches.append(fold.take())
    fold.settle_all()
    batches.append(fold.take())
    folding = time.process_time() - began
    path = directory / "cost.db"
    database = open_writer(path)
    began = time.process_time()
    for batch in batches:
        write_batch(database, batch)
    writing = time.process_time() - began
    database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    database.close()
    size = path.stat().st_size
    for file in directory.glob("cost.db*"):
        file.unlink()
    return emitting, folding, writing, size, sum(len(batch.calls) for batch in batches)


def fill(path: Path, calls: int, every: int) -> None:
    """A store with many calls over 30 days: copies of some, each with ids and a time of its own.

    Every so many of them have their messages: those make up most of the file, and no query but that of one call reads
    them.
    """
    events = record(SEED_CALLS, Causes("Diversion", "203.0.113.22", (1000.0, 2000.0)))
    sink = StoreSink(StoreSettings(path, max_queue_bytes=2**40), wall_offset=WALL_OFFSET)
    for event in events:
        sink.emit(event)
    sink.flush(600)
    sink.close()
    database = open_writer(path)
    run = database.execute
    run("PRAGMA synchronous=OFF")
    run("PRAGMA cache_size=-400000")
    first, last = run("SELECT min(key), max(key) FROM calls").fetchone()
    copies = calls // SEED_CALLS
    # Copies lie one after the other, each with its part of the month.
    length = MONTH_S * 1_000_000_000 // copies
    names = [name for name, _ in CALL_COLUMNS]
    shrink = min(1.0, 0.9 * length / (last - first))
    key = f"CAST({first} + (key - {first}) * {shrink} AS INTEGER) + ?"
    changed = {
        "key": key,
        "id": "? || substr(id, 7)",
        "call_id": "call_id || ?",
        "call_sid": "substr(call_sid, 1, 28) || ?",
    }
    columns = ", ".join([changed.get(name, name) for name in names])
    run("CREATE TEMP TABLE seed AS SELECT * FROM calls")
    run("CREATE TEMP TABLE seed_attempts AS SELECT * FROM attempts")
    run("CREATE TEMP TABLE seed_chunks AS SELECT * FROM chunks")
    run("CREATE TEMP TABLE seed_minutes AS SELECT * FROM minutes")
    _seed_numbers(database)
    indexes = run("SELECT name, sql FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL").fetchall()
    for name, _ in indexes:
        run(f"DROP INDEX {name}")
    call = key.replace("key", "call")
    rest = ", ".join([row[1] for row in run("PRAGMA table_info(attempts)")][1:]).replace("call_id", "call_id || ?")
    for copy in range(1, copies):
        shift = copy * length
        mark = f"{copy:06x}"
        run("BEGIN")
        run(f"INSERT INTO calls SELECT {columns} FROM seed", (shift, mark, mark, mark[-4:]))  # noqa: S608
        run(f"INSERT INTO attempts SELECT {call}, {rest} FROM seed_attempts", (shift, mark))  # noqa: S608
        _name_copy(database, first + shift, call, shift, copy)
        if copy % every == 0:
            run(f"INSERT INTO chunks (call, events) SELECT {call}, events FROM seed_chunks", (shift,))  # noqa: S608
        run(
            "INSERT INTO minutes SELECT minute + ?, kind, name, value, count FROM seed_minutes WHERE true"
            " ON CONFLICT (kind, minute, name, value) DO UPDATE SET count = count + excluded.count",
            (shift // 60_000_000_000,),
        )
        run("COMMIT")
    for _, sql in indexes:
        run(sql)
    run("PRAGMA wal_checkpoint(TRUNCATE)")
    database.close()


def _seed_numbers(database: sqlite3.Connection) -> None:
    """The names of the seed's phone numbers, and whether several calls have them."""
    run = database.execute
    database.create_function("id_name", 1, name_of_id, deterministic=True)
    database.create_function("text_name", 1, name_of_text, deterministic=True)
    run(
        "CREATE TEMP TABLE seed_numbers AS SELECT call, name, count(*) OVER (PARTITION BY name) > 1 AS shared"
        " FROM names WHERE name NOT IN (SELECT id_name(id) FROM calls UNION SELECT text_name(call_id) FROM calls"
        " UNION SELECT text_name(call_sid) FROM calls UNION SELECT text_name(call_id) FROM attempts)"
    )


def _name_copy(database: sqlite3.Connection, since: int, call: str, shift: int, copy: int) -> None:
    """What the newest copy of the seed is found by."""
    run = database.execute
    insert = f"INSERT OR IGNORE INTO names SELECT key >> {SPAN_BITS}, "
    for name, table, key in (
        ("id_name(id)", "calls", "key"),
        ("text_name(call_id)", "calls", "key"),
        ("text_name(call_sid)", "calls", "key"),
        ("text_name(call_id)", "attempts", "call"),
    ):
        run(f"{insert.replace('key', key)} {name}, {key} FROM {table} WHERE {key} >= ?", (since,))
    sql = f"SELECT {call} >> {SPAN_BITS}, name + CASE WHEN shared THEN 0 ELSE ? END, {call} FROM seed_numbers"  # noqa: S608
    run(f"INSERT OR IGNORE INTO names {sql}", (shift, copy, shift))


def queries(path: Path) -> None:
    """Times of what dashboard and commands ask."""
    with StoreReader(path) as reader:
        status = reader.status()
        newest = reader.calls(limit=1)[0]
        oldest = status.oldest or 0.0
        size = status.file_bytes
        print(f"{status.calls} calls, {size / 1e9:.2f} GB, {size / status.calls:.0f} bytes a call")
        end = newest.started
        some = reader.calls(CallFilter(until=oldest + 0.37 * (end - oldest)), 200)
        picked = random.Random(1).sample(some, 20)
        asked: list[tuple[str, Callable[[int], object]]] = [
            ("newest 50 calls", lambda at: reader.calls(limit=50)),
            ("50 failed calls", lambda at: reader.calls(CallFilter(outcome="failed"))),
            ("50 calls of a cause", lambda at: reader.calls(CallFilter(cause="target-slow"))),
            ("50 calls with a status", lambda at: reader.calls(CallFilter(status=400))),
            ("50 calls of a target", lambda at: reader.calls(CallFilter(target="openai"))),
            ("50 calls that a rule changed", lambda at: reader.calls(CallFilter(rule="minimal/pcmu-alone"))),
            ("a tag that no call has", lambda at: reader.calls(CallFilter(tag="none"))),
            ("by our id", lambda at: reader.find(picked[at].id)),
            ("by Call-ID", lambda at: reader.find(picked[at].call_id or "")),
            ("by CallSid", lambda at: reader.find(picked[at].call_sid or "")),
            ("by the beginning of our id", lambda at: reader.find(picked[at].id[:7])),
            ("by caller's number", lambda at: reader.calls(CallFilter(number=f"+1555010{at:04d}"))),
            ("one call's page", lambda at: (reader.timeline(picked[at].key), reader.attempts(picked[at].key))),
            ("count of failed calls (to 10,000)", lambda at: reader.count(CallFilter(outcome="failed"))),
            ("totals of a day", lambda at: reader.totals(end - 86_400)),
            ("totals of 30 days", lambda at: reader.totals(oldest)),
            ("causes of 30 days", lambda at: reader.causes(oldest)),
            ("calls over a day, by 10 minutes", lambda at: reader.over_time("call", end - 86_400, step_s=600)),
            ("calls over 30 days, by 6 hours", lambda at: reader.over_time("call", oldest, step_s=21_600)),
            ("targets of a day", lambda at: reader.targets(end - 86_400)),
            ("rule hits of a day", lambda at: reader.rule_hits(end - 86_400)),
            ("rule hits of 30 days", lambda at: reader.rule_hits(oldest)),
            ("status of the store", lambda at: reader.status()),
        ]
        for title, ask in asked:
            times = []
            for at in range(20):
                began = time.perf_counter()
                ask(at)
                times.append(time.perf_counter() - began)
                if sum(times) > 10:
                    break
            print(f"  {title:<36} first {times[0] * 1e3:9.1f} ms   median {statistics.median(times) * 1e3:9.1f} ms")
        began = time.perf_counter()
        facts = list(reader.facts(end - 86_400))
        read = time.perf_counter() - began
        began = time.perf_counter()
        diagnose(facts)
        compared = time.perf_counter() - began
        print(f"  diagnosis of a day: {len(facts)} attempts, read {read:.2f} s, compared {compared:.2f} s")


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("cost", "queries"))
    parser.add_argument("--calls", type=int, help="default: 1,000 to find what they cost, 1,000,000 to query")
    parser.add_argument("--every", type=int, default=1, help="one call of so many has messages")
    parser.add_argument("--directory", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=given.directory) as temporary:
        directory = Path(temporary)
        if given.what == "cost":
            cost(directory, given.calls or 1000)
            return
        path = directory / "calls.db"
        began = time.perf_counter()
        fill(path, given.calls or 1_000_000, given.every)
        print(f"filled in {time.perf_counter() - began:.0f} s")
        queries(path)


if __name__ == "__main__":
    main()
