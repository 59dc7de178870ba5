"""What goes into the store comes out of it again, masked."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from proxy.audit.records import Change, replay
from proxy.ladder import call_ladder
from proxy.rehearsal import START, WALL_OFFSET
from proxy.sip.message import Message, Request
from proxy.storage.queries import CallFilter, CallRow, StoreReader
from proxy.storage.schema import WrongVersion
from tests.storage.conftest import CALLS, Tape

SINCE = START + WALL_OFFSET - 1


def number_in(uri: object) -> str:
    return str(uri).partition(":")[2].partition("@")[0]


def test_every_call_is_there_with_its_outcome(reader: StoreReader, tape: Tape) -> None:
    calls = {call.id: call for call in reader.calls(limit=1000)}
    ends = tape.of("call-end")
    assert len(ends) == len(calls) == CALLS
    for end in ends:
        call = calls[end.call]
        fields = end.fields
        assert (call.outcome, call.status, call.reason) == (fields["outcome"], fields["status"], fields["reason"])
        assert (call.call_id, call.call_sid) == (fields["call_id"], fields["twilio_call_sid"])
        assert call.setup_s == fields["setup_s"]
        assert call.talk_s == fields["talk_s"]
        attempts = fields["attempts"]
        assert isinstance(attempts, list)
        assert call.attempts == len(attempts)
        assert call.state == "ended"
        assert not call.incomplete
        assert (call.cause is None) == (call.outcome == "answered")
        stored = [attempt for attempt in reader.attempts(call.key) if attempt.final]
        assert [item.status for item in stored] == [item["status"] for item in attempts]
        assert [item.call_id for item in stored] == [item["call_id"] for item in attempts]
        assert [item.next for item in stored] == [item.get("next") for item in attempts]


def test_times_are_those_of_the_messages(reader: StoreReader, tape: Tape) -> None:
    start = {event.call: event.time for event in tape.of("call-start")}
    for call in reader.calls(limit=1000):
        assert call.started == pytest.approx(start[call.id] + WALL_OFFSET, abs=1e-5)
        assert call.trying_s == 0.0
        if call.outcome == "answered":
            assert call.setup_s is not None
            last = [attempt for attempt in reader.attempts(call.key) if attempt.final][-1]
            assert last.final_s is not None
            assert call.added_s == pytest.approx(call.setup_s - last.final_s, abs=1e-5)
            assert last.connection_age_s is not None
            assert last.tls == "TLSv1.3 TLS_AES_256_GCM_SHA384"


def test_timeline_has_every_event_in_order(reader: StoreReader, tape: Tape) -> None:
    for call in reader.calls(limit=1000):
        events = reader.timeline(call.key)
        assert [event["event"] for event in events] == [item.kind for item in tape.events if item.call == call.id]
        times = [event["time"] for event in events]
        assert times == sorted(times)
        assert len(call_ladder(events)) > 5


def test_messages_are_whole_and_changes_still_replay(reader: StoreReader, tape: Tape) -> None:
    """Masking works on lines, on both sides of a change alike."""
    replayed = 0
    for call in reader.calls(limit=1000):
        events = [event for event in reader.timeline(call.key) if event["event"] == "message"]
        sent = [item.fields["message"] for item in tape.events if item.call == call.id and item.kind == "message"]
        original = events[0]["message"]
        assert original.startswith("INVITE ")
        for event, message in zip(events, sent, strict=True):
            assert isinstance(message, Message)
            assert len(event["message"].split("\r\n")) == len(message.serialize().decode().split("\r\n"))
            if isinstance(message, Request) and message.method == "INVITE" and "changes" in event:
                changes = [Change(**change) for change in event["changes"]]
                head, _, body = original.partition("\r\n\r\n")
                first, *lines = head.replace("\r\n ", "\n ").replace("\r\n\t", "\n\t").split("\r\n")
                lines = [line.replace("\n", "\r\n") for line in lines]
                start, headers, rest = replay(first, lines, body.encode(), changes)
                assert "\r\n".join([start, *headers, "", rest.decode()]) == event["message"]
                replayed += 1
    assert replayed > CALLS


def first_call(reader: StoreReader) -> CallRow:
    return reader.calls(limit=1000)[7]


def test_search_by_number_finds_masked_calls(reader: StoreReader, tape: Tape) -> None:
    for start in tape.of("call-start")[:5]:
        number = number_in(start.fields["from"])
        assert len(number) == 12
        for text in (number, number[1:], f"({number[1:5]}) {number[5:8]}-{number[8:]}"):
            found = reader.calls(CallFilter(number=text))
            assert start.call in [call.id for call in found]
            assert len(found) < CALLS
        assert reader.find(number)
    called = number_in(tape.of("call-start")[0].fields["to"])
    assert len(reader.calls(CallFilter(number=called))) == CALLS
    assert reader.calls(CallFilter(number="+15559999999")) == []


def test_search_by_ids(reader: StoreReader) -> None:
    call = first_call(reader)
    leg = reader.attempts(call.key)[-1].call_id
    for text in (call.id, call.id[:8], call.call_id, call.call_sid, leg):
        assert text is not None
        assert [found.id for found in reader.find(text)] == [call.id]
    assert reader.find("no-such-call") == []


def test_filters(reader: StoreReader) -> None:
    everything = reader.calls(limit=1000)
    assert [call.key for call in everything] == sorted([call.key for call in everything], reverse=True)
    failed = reader.calls(CallFilter(outcome="failed"), 1000)
    assert 0 < len(failed) < CALLS
    assert {call.outcome for call in failed} == {"failed"}
    for name in ("status", "cause", "source", "rules", "target"):
        value = getattr(failed[0], name)
        found = reader.calls(CallFilter(**{name: value}), 1000)
        assert {call.id for call in found} == {call.id for call in everything if getattr(call, name) == value}
    middle = everything[20].started
    older = reader.calls(CallFilter(until=middle), 1000)
    assert len(older) + len(reader.calls(CallFilter(since=middle), 1000)) == CALLS
    assert reader.count(CallFilter(outcome="failed")) == len(failed)
    assert reader.count(limit=7) == 7
    assert reader.calls(CallFilter(outcome="open")) == []
    assert reader.calls(CallFilter(tag="none such")) == []


def test_pages(reader: StoreReader) -> None:
    whole = [call.id for call in reader.calls(limit=1000)]
    pages: list[str] = []
    before = None
    while page := reader.calls(limit=7, before=before):
        pages += [call.id for call in page]
        before = page[-1].key
    assert pages == whole


def test_search_by_rule(reader: StoreReader) -> None:
    counts = reader.rule_hits(SINCE)
    assert counts
    assert list(counts.values()) == sorted(counts.values(), reverse=True)
    for name, count in counts.items():
        found = reader.calls(CallFilter(rule=name), 1000)
        assert len(found) == count
        assert all(name in reader.rule_hits_of(call.key) for call in found)


def test_counts_over_time_are_those_of_the_calls(reader: StoreReader) -> None:
    calls = reader.calls(limit=1000)
    answered = sum(call.outcome == "answered" for call in calls)
    totals = reader.totals(SINCE)
    assert (totals.answered, totals.failed, totals.in_progress) == (answered, CALLS - answered, 0)
    assert totals.success_rate == pytest.approx(answered / CALLS)
    points = reader.over_time("call", SINCE, step_s=120)
    assert sum(point.count for point in points) == CALLS
    assert len({point.time for point in points}) > 1
    assert all(point.time % 120 == 0 for point in points)
    assert sum(reader.causes(SINCE).values()) == CALLS - answered
    assert sum(point.count for point in reader.over_time("setup", SINCE)) == answered
    health = {target.target: target for target in reader.targets(SINCE)}["openai"]
    finals = [attempt for call in calls for attempt in reader.attempts(call.key) if attempt.final]
    assert (health.attempts, health.answered) == (len(finals), answered)
    assert sum(health.causes.values()) == len(finals) - answered
    assert sum(point.count for point in reader.over_time("status", SINCE)) == len(finals)


def test_facts_are_every_attempt(reader: StoreReader) -> None:
    facts = list(reader.facts())
    assert len(facts) == sum(len(reader.attempts(call.key)) for call in reader.calls(limit=1000))
    assert [fact.time for fact in facts if fact.number == 1] == sorted(fact.time for fact in facts if fact.number == 1)
    assert all("header:from" in fact.shape and "header:x-trunkline-attempt" in fact.sent for fact in facts)
    assert any("header:contact" in fact.answer for fact in facts)


def test_status_of_the_store(reader: StoreReader, store: Path) -> None:
    status = reader.status()
    assert (status.calls, status.dropped) == (CALLS, 0)
    assert status.oldest == pytest.approx(START + WALL_OFFSET, abs=8)
    assert status.file_bytes >= store.stat().st_size


def test_files_are_for_their_owner_alone(store: Path) -> None:
    for path in (store, store.with_name("calls.db.key")):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_reader_cannot_write(reader: StoreReader) -> None:
    with pytest.raises(Exception, match="readonly"):
        reader._db.execute("DELETE FROM calls")


def test_what_is_no_store_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="there is no call store at"):
        StoreReader(tmp_path / "none.db")
    other = tmp_path / "empty.db"
    other.touch()
    with pytest.raises(WrongVersion, match="not a call store"):
        StoreReader(other)
