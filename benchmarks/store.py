"""The call store: what it costs a call, and how long queries take with a million calls in it.

`python -m benchmarks.store cost` and `python -m benchmarks.store queries [--calls 1000000] [--directory DIR]`. Numbers
depend on the machine: run both on a quiet one.
"""

from __future__ import annotations

import argparse
import random
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from proxy.audit.records import Event
from proxy.audit.redact import Redaction, Redactor
from proxy.diagnosis.report import diagnose
from proxy.rehearsal import WALL_OFFSET, Causes, Rehearsal, RehearsalOptions
from proxy.rulefiles import load_directory_or_files
from proxy.settings.loading import shipped_rules
from proxy.sip.message import Message
from proxy.storage.fold import Fold
from proxy.storage.queries import CallFilter, StoreReader
from proxy.storage.schema import CALL_COLUMNS, open_writer
from proxy.storage.sink import StoreSettings, StoreSink

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


def cost(directory: Path) -> None:
    """Microseconds on the call path, of the writer, and bytes, for each call."""
    for title, causes in (("calls without trouble", Causes()), ("an address refuses", Causes(address="203.0.113.22"))):
        events = record(300, causes)
        per_call = len(events) / 300
        path = directory / "cost.db"
        sink = StoreSink(StoreSettings(path, max_queue_bytes=2**40), wall_offset=WALL_OFFSET, open_store=_never)
        began = time.thread_time()
        for event in events:
            sink.emit(event)
        emitting = time.thread_time() - began
        fold = Fold(Redactor(Redaction()), b"k" * 32)
        began = time.process_time()
        operations = []
        for number, event in enumerate(events):
            fold.add(event, WALL_OFFSET)
            if number % 50 == 49:
                operations += fold.take(event.time)
        operations += fold.take(1e12, everything=True)
        folding = time.process_time() - began
        database = open_writer(path)
        began = time.process_time()
        for start in range(0, len(operations), 200):
            database.execute("BEGIN")
            for sql, values in operations[start : start + 200]:
                database.execute(sql, values)
            database.execute("COMMIT")
        writing = time.process_time() - began
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        database.close()
        size = path.stat().st_size
        for file in directory.glob("cost.db*"):
            file.unlink()
        messages = [event.fields["message"] for event in events if event.kind == "message"]
        raw = sum(len(message.serialize()) for message in messages if isinstance(message, Message))
        print(f"{title}: {per_call:.1f} events, {raw / 300:.0f} bytes of SIP each")
        print(
            f"  on the call path {emitting / 300 * 1e6:8.1f} us a call ({emitting / len(events) * 1e9:.0f} ns an event)"
        )
        print(f"  writer's thread  {folding / 300 * 1e6:8.1f} us masking, packing; {writing / 300 * 1e6:.1f} us SQLite")
        print(f"  on disk          {size / 300:8.0f} bytes a call, indexes included")


def _never(path: Path) -> sqlite3.Connection:
    raise sqlite3.OperationalError("not in this measurement")


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
        "id": "substr(id, 1, 14) || ?",
        "call_id": "call_id || ?",
        "call_sid": "substr(call_sid, 1, 28) || ?",
        "from_hash": "from_hash + ?",
    }
    columns = ", ".join([changed.get(name, name) for name in names])
    run("CREATE TEMP TABLE seed AS SELECT * FROM calls")
    run("CREATE TEMP TABLE seed_attempts AS SELECT * FROM attempts")
    run("CREATE TEMP TABLE seed_chunks AS SELECT * FROM chunks")
    run("CREATE TEMP TABLE seed_minutes AS SELECT * FROM minutes")
    indexes = run("SELECT name, sql FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL").fetchall()
    for name, _ in indexes:
        run(f"DROP INDEX {name}")
    call = key.replace("key", "call")
    rest = ", ".join([row[1] for row in run("PRAGMA table_info(attempts)")][1:])
    for copy in range(1, copies):
        shift = copy * length
        mark = f"{copy:06x}"
        run("BEGIN")
        run(f"INSERT INTO calls SELECT {columns} FROM seed", (shift, mark, mark, mark[-4:], copy))  # noqa: S608
        run(f"INSERT INTO attempts SELECT {call}, {rest} FROM seed_attempts", (shift,))  # noqa: S608
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
    parser.add_argument("--calls", type=int, default=1_000_000)
    parser.add_argument("--every", type=int, default=1, help="one call of so many has messages")
    parser.add_argument("--directory", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=given.directory) as temporary:
        directory = Path(temporary)
        if given.what == "cost":
            cost(directory)
            return
        path = directory / "calls.db"
        began = time.perf_counter()
        fill(path, given.calls, given.every)
        print(f"filled in {time.perf_counter() - began:.0f} s")
        queries(path)


if __name__ == "__main__":
    main()
