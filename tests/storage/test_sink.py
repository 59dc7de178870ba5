"""Retention, restarts, times, and calls that are still going on."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from proxy.audit.records import Event
from proxy.rehearsal import START, WALL_OFFSET
from proxy.sip.flow import Flow
from proxy.storage.chunks import Packer, unpack
from proxy.storage.numbers import hash_number, load_key, number_of
from proxy.storage.paths import default_store
from proxy.storage.queries import CallFilter, StoreReader
from proxy.storage.retention import Retention, trim
from proxy.storage.schema import open_writer
from proxy.storage.sink import StoreSettings, StoreSink
from tests.storage.conftest import CALLS, Tape

END = START + WALL_OFFSET + 400


def stored(path: Path, events: list[Event]) -> StoreSink:
    sink = StoreSink(StoreSettings(path), wall_offset=WALL_OFFSET)
    for event in events:
        sink.emit(event)
    assert sink.flush()
    return sink


def rows(path: Path, table: str) -> int:
    database = open_writer(path)
    count = int(database.execute(f"SELECT count(*) FROM {table}").fetchone()[0])  # noqa: S608
    database.close()
    return count


def test_old_calls_go_with_all_that_is_theirs(tape: Tape, tmp_path: Path) -> None:
    path = tmp_path / "calls.db"
    stored(path, tape.events).close()
    with StoreReader(path) as reader:
        starts = sorted(call.started for call in reader.calls(limit=1000))
    database = open_writer(path)
    cutoff = starts[10] + 0.001
    assert trim(database, Retention(END - cutoff, 0), END) == 11
    assert trim(database, Retention(END - cutoff, 0), END) == 0
    database.close()
    with StoreReader(path) as reader:
        left = reader.calls(limit=1000)
        assert len(left) == CALLS - 11
        assert min(call.started for call in left) > cutoff
        assert all(reader.timeline(call.key) for call in left)
    database = open_writer(path)
    orphans = "SELECT count(*) FROM {} WHERE call NOT IN (SELECT key FROM calls)"
    assert [database.execute(orphans.format(name)).fetchone()[0] for name in ("chunks", "attempts")] == [0, 0]
    assert trim(database, Retention(1.0, 0), END + 86_400) == CALLS - 11
    database.close()
    assert rows(path, "chunks") == rows(path, "attempts") == rows(path, "calls") == 0


def test_the_oldest_go_when_the_file_is_too_large(tape: Tape, tmp_path: Path) -> None:
    path = tmp_path / "calls.db"
    stored(path, tape.events).close()
    database = open_writer(path)
    assert trim(database, Retention(0, 10**9), END) == 0
    assert trim(database, Retention(0, 1000), END) == CALLS
    free = database.execute("PRAGMA freelist_count").fetchone()[0]
    database.close()
    assert free == 0, "the space goes back to the disk"


def test_the_sink_trims_by_itself(tape: Tape, tmp_path: Path) -> None:
    path = tmp_path / "calls.db"
    sink = StoreSink(StoreSettings(path, max_age_s=30.0), wall_offset=WALL_OFFSET)
    for event in tape.events:
        sink.emit(event)
    assert sink.flush()
    sink._writer._last_trim = 0.0
    sink.emit(Event("target-up", START + 10_000, "", "", 0, {"target": "openai", "why": "ping"}))
    assert sink.flush()
    sink.close()
    with StoreReader(path) as reader:
        assert reader.calls() == []


def test_a_call_in_progress_is_seen(tape: Tape, tmp_path: Path) -> None:
    path = tmp_path / "calls.db"
    name = tape.of("call-answered")[0].call
    events = [event for event in tape.events if event.call == name]
    middle = next(at for at, event in enumerate(events) if event.kind == "call-answered") + 1
    sink = stored(path, events[:middle])
    with StoreReader(path) as reader:
        call = reader.calls(CallFilter(outcome="open"))[0]
        assert (call.state, call.outcome, call.id) == ("answered", None, name)
        assert reader.totals(START).in_progress == 1
    for event in events[middle:]:
        sink.emit(event)
    sink.close()
    with StoreReader(path) as reader:
        call = reader.calls()[0]
        assert (call.state, call.outcome) == ("ended", "answered")
        assert [event["event"] for event in reader.timeline(call.key)] == [event.kind for event in events]


async def test_a_call_in_progress_is_seen_soon_while_an_event_loop_runs(tmp_path: Path) -> None:
    path = tmp_path / "calls.db"
    flow = Flow("udp", ("127.0.0.1", 5060), ("127.0.0.1", 5080), "127.0.0.1:5060")
    sink = StoreSink(StoreSettings(path))
    kinds = ["call-start", *["note"] * 200]
    for kind in kinds:
        sink.emit(Event(kind, time.monotonic(), "one", "a", 0, {"flow": flow, "from": "sip:a@b"}))
    began = time.monotonic()
    while sink.state().written < len(kinds):
        assert time.monotonic() - began < 20, sink.state()
        await asyncio.sleep(0.05)
    with StoreReader(path) as reader:
        (call,) = reader.calls()
        assert call.state == "trying"
        assert [event["event"] for event in reader.timeline(call.key)] == kinds
    sink.close()


def test_calls_of_a_process_that_is_gone_are_lost(tmp_path: Path) -> None:
    path = tmp_path / "calls.db"
    flow = Flow("udp", ("127.0.0.1", 5060), ("127.0.0.1", 5080), "127.0.0.1:5060")
    for number, state in ((1, "trying"), (2, "lost")):
        sink = StoreSink(StoreSettings(path))
        if number == 1:
            sink.emit(Event("call-start", time.monotonic(), "one", "a", 0, {"flow": flow, "from": "sip:a@b"}))
        else:
            time.sleep(0.01)
            sink.start()
        assert sink.flush()
        sink.emit(Event("target-up", time.monotonic(), "", "", 0, {"target": "x"}))
        assert sink.flush()
        with StoreReader(path) as reader:
            assert [call.state for call in reader.calls()] == [state]
            assert abs(reader.calls()[0].started - time.time()) < 5
        sink.close()


def test_a_call_that_another_process_ends_keeps_its_row(tmp_path: Path) -> None:
    path = tmp_path / "calls.db"
    flow = Flow("udp", ("127.0.0.1", 5060), ("127.0.0.1", 5080), "127.0.0.1:5060")
    died, successor = StoreSink(StoreSettings(path)), StoreSink(StoreSettings(path))
    now = time.monotonic()
    died.emit(Event("call-start", now, "one", "a", 0, {"flow": flow, "from": "sip:a@b"}))
    died.emit(Event("call-answered", now + 1, "one", "a", 1, {"setup_s": 1.0}))
    assert died.flush()
    end = {"outcome": "answered", "status": 200, "ended_by": "trunkline", "detail": "Process died", "talk_s": 9.0}
    successor.emit(Event("call-end", now + 10, "one", "", 0, {**end, "setup_s": 1.0, "lost": True}))
    successor.emit(Event("no-answer", now + 42, "one", "a", 0, {"method": "BYE"}))
    assert successor.flush()
    with StoreReader(path) as reader:
        calls = reader.calls()
        assert [(call.state, call.outcome, call.detail, call.talk_s, call.setup_s) for call in calls] == [
            ("lost", "answered", "Process died", 9.0, 1.0)
        ]
        assert reader.totals(0).in_progress == 0
    for sink in (died, successor):
        sink.close()


def test_calls_of_another_process_that_lives_are_not(tmp_path: Path) -> None:
    """Several processes may write to one store: workers, or an old one that drains while a new one has begun."""
    path = tmp_path / "calls.db"
    flow = Flow("udp", ("127.0.0.1", 5060), ("127.0.0.1", 5080), "127.0.0.1:5060")
    sinks = []
    for name in ("one", "two", "three"):
        sink = StoreSink(StoreSettings(path))
        sinks.append(sink)
        time.sleep(0.01)
        sink.emit(Event("call-start", time.monotonic(), name, "a", 0, {"flow": flow, "from": "sip:a@b"}))
        assert sink.flush()
    with StoreReader(path) as reader:
        assert [(call.id, call.state) for call in reader.calls()] == [(n, "trying") for n in ("three", "two", "one")]
    for sink in sinks:
        sink.close()


def test_a_repeated_answer_after_the_end_is_no_new_call(tape: Tape, tmp_path: Path) -> None:
    path = tmp_path / "calls.db"
    sink = stored(path, tape.events)
    late = Event("no-answer", START + 5000, "", "", 0, {"method": "BYE"})
    sink.emit(Event("no-answer", START + 4000, tape.events[0].call, "a", 0, {"method": "BYE"}))
    sink.emit(late)
    sink.close()
    assert rows(path, "calls") == CALLS


def test_events_of_no_call_are_notes(tmp_path: Path) -> None:
    path = tmp_path / "calls.db"
    fields: dict[str, object] = {"status": 403, "reason": "Forbidden", "method": "INVITE", "from": "+15557654321"}
    events = [Event("refused", START + at / 100, "", "", 0, fields) for at in range(300)]
    stored(path, [*events, Event("target-down", START + 9, "", "", 0, {"target": "openai", "why": "silence"})]).close()
    with StoreReader(path) as reader:
        notes = reader.notes(START, ("refused",), 1000)
        assert len(notes) == 3 * 20, "a flood is cut to 20 a second"
        assert notes[0].fields["from"] == "+1555*****21"
        assert [note.kind for note in reader.notes(START, limit=1)] == ["target-down"]


def test_tags_and_webhooks(tape: Tape, tmp_path: Path) -> None:
    path = tmp_path / "calls.db"
    name = tape.of("call-answered")[0].call
    events = []
    for event in tape.events:
        if event.call == name:
            if event.kind == "attempt-end":
                for kind, at in (("webhook", -0.2), ("webhook-answered", -0.1)):
                    events.append(Event(kind, event.time + at, name, "b", event.attempt, {"webhook_id": "w"}))
            fields = {**event.fields, "tags": ["vip", "experiment:x=1"]} if event.kind == "call-end" else event.fields
            events.append(Event(event.kind, event.time, event.call, event.leg, event.attempt, fields))
    stored(path, events).close()
    with StoreReader(path) as reader:
        call = reader.calls(CallFilter(tag="vip"))[0]
        assert call.tags == ("vip", "experiment:x=1")
        assert reader.calls(CallFilter(tag="vi")) == []
        attempt = reader.attempts(call.key)[0]
        assert attempt.webhook_s is not None
        assert attempt.accepted_s == pytest.approx(attempt.webhook_s + 0.1)
        assert all(fact.tags == call.tags for fact in reader.facts())


def test_numbers_in_any_notation_have_one_hash(tmp_path: Path) -> None:
    key = load_key(tmp_path / "a.db")
    assert load_key(tmp_path / "a.db") == key != load_key(tmp_path / "b.db")
    same = {hash_number(key, text) for text in ("+15550100002", "1 (555) 010-0002", "15550100002")}
    assert len(same) == 1
    assert None not in same
    assert hash_number(load_key(tmp_path / "b.db"), "+15550100002") not in same
    assert hash_number(key, "12") is None
    assert hash_number(b"", "+15550100002") is None
    assert load_key(tmp_path / "none.db", make=False) == b""
    assert number_of("sip:+15550100002@example.com") == "+15550100002"
    assert number_of("tel:+15550100002") == "+15550100002"
    assert number_of("nonsense") == ""


def test_packed_events() -> None:
    events = [[500_000, "a", 1, 1, 0, 1, [2, 3, 3], [[4], [2], [3], [-1], [5]]], [600_000, "", 0, "x", {"big": 2**70}]]
    texts = ["udp:192.0.2.1:5060", "192.0.2.2:5060", "a\udc80b", "", "rule:x/y", "a=b"]
    message, other = unpack(Packer().pack(events, texts))
    assert message["message"] == "a\\x80b\r\n\r\n"
    assert message["changes"] == [{"step": "rule:x/y", "part": "sdp", "index": 3, "before": None, "after": "a=b"}]
    assert (message["at"], message["direction"], message["local"]) == (0.5, "out", "192.0.2.2:5060")
    assert other == {"at": 0.6, "event": "x", "big": str(2**70)}
    for damaged in (b"\xff\xff\xff", Packer().pack([[1]], []), Packer().pack([[1, "", 0, 1, 7, 7, [9]]], ["a"])):
        with pytest.raises(ValueError, match="damaged"):
            unpack(damaged)


def test_default_place(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert default_store() == tmp_path / "trunkline" / "calls.db"
    monkeypatch.setenv("STATE_DIRECTORY", "/var/lib/trunkline:/var/lib/other")
    assert default_store() == Path("/var/lib/trunkline/calls.db")
    monkeypatch.delenv("STATE_DIRECTORY")
    monkeypatch.setenv("XDG_STATE_HOME", "relative")
    monkeypatch.setenv("HOME", "/home/someone")
    assert default_store() == Path("/home/someone/.local/state/trunkline/calls.db")
