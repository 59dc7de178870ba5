"""Events of the stack folded into rows of the store. Pure: no clock, no database."""

from __future__ import annotations

from collections import deque
from typing import Final

import orjson

from proxy.audit.plain import plain, valid_text
from proxy.audit.records import Event
from proxy.audit.redact import Redactor
from proxy.diagnosis.causes import Seen, Verdict, call_cause, classify
from proxy.sip.flow import Flow
from proxy.sip.message import Message, Request, Response
from proxy.storage.chunks import Packer
from proxy.storage.names import SPAN_BITS, NumberNames, name_of_id, name_of_text
from proxy.storage.rows import AttemptRecord, Batch, CallRecord, attempt_values, call_values
from proxy.storage.shapes import Sets
from proxy.storage.timeline import Timeline, message_lines

__all__ = ["HOLD_S", "Fold"]

HOLD_S: Final = 1.0
"""How long after an event its call is written: what came of the call until then is written with it."""

_NS: Final = 1_000_000_000
_LINGER_S: Final = 35.0
_MAX_CALLS: Final = 100_000
_MAX_GONE: Final = 20_000
_NOTES: Final = frozenset(("refused", "limit-reached", "target-up", "target-down"))
_NOTES_PER_S: Final = 20
_MAX_HITS: Final = 4096
_ROW_BYTES: Final = 1024
_SETUP_STEPS: Final = (0.5, 1, 2, 4, 8, 16, 32)


class _Call:
    """A call that is being folded."""

    __slots__ = (
        "attempts",
        "ended",
        "held",
        "hits",
        "late",
        "names",
        "offset",
        "row",
        "started",
        "timeline",
        "touched",
        "verdict",
    )

    def __init__(self, row: CallRecord, started: float, offset: float) -> None:
        self.row = row
        self.started = started
        self.offset = offset
        self.ended = False
        self.late = False
        self.held = False
        self.timeline: Timeline | None = None
        self.attempts: list[AttemptRecord] = []
        self.touched: list[AttemptRecord] = []
        self.hits: tuple[str, ...] = ()
        self.names: list[int] = []
        self.verdict: Verdict | None = None

    def attempt(self, number: int) -> AttemptRecord:
        """The row of an attempt, about to be changed."""
        for row in reversed(self.attempts):
            if row.number == number and not row.hop:
                break
        else:
            row = AttemptRecord(self.row.key, number)
            self.attempts.append(row)
        if row not in self.touched:
            self.touched.append(row)
        return row

    @property
    def settled(self) -> bool:
        """Whether the call and all its attempts are over."""
        return self.ended and not [row for row in self.attempts if row.outcome is None]


class Fold:
    """Folds events, and says what is to be written.

    A call is written `HOLD_S` after the first event that is not written yet: one that is over by then is written once.

    Args:
        redactor: masks what is stored.
        key: of the hashes of numbers.
        tapped: whether webhooks pass through Trunkline.
    """

    def __init__(self, redactor: Redactor, key: bytes, *, tapped: bool = False) -> None:
        self._redactor = redactor
        self._number_names = NumberNames(key)
        self._tapped = tapped
        self._packer = Packer()
        self._sets = Sets(redactor)
        self._hits: dict[tuple[str, ...], tuple[str, ...]] = {}
        self._calls: dict[str, _Call] = {}
        self._holding: deque[tuple[float, _Call]] = deque()
        self._lingering: deque[tuple[float, str]] = deque()
        # Key and start of calls that are over; without a key, of calls that another process began.
        self._gone: dict[str, tuple[int, float]] = {}
        self._batch = Batch()
        self._last_key = 0
        self._note_second = 0
        self._note_count = 0

    @property
    def waiting(self) -> bool:
        """Whether there is anything that was not taken yet."""
        return bool(self._holding) or self.ready

    @property
    def ready(self) -> bool:
        """Whether there is anything in the batch."""
        batch = self._batch
        return bool(batch.calls or batch.chunks or batch.notes or batch.counts or batch.lost)

    def add(self, event: Event, offset: float) -> None:
        """Fold one event; `offset` is to be added to its time for Unix time."""
        if not event.call:
            if event.kind in _NOTES:
                self._note(event, offset)
            return
        call = self._calls.get(event.call)
        if call is None:
            if event.kind == "call-end" and event.fields.get("lost"):
                self._end_lost(event, offset)
                return
            if event.call in self._gone and not self._gone[event.call][0]:
                return
            call = self._begin(event, offset)
        self._hold(call, event.time)
        timeline = call.timeline
        if timeline is None:
            timeline = call.timeline = Timeline(self._redactor)
        at = int((event.time - call.started) * 1e6 + 0.5)
        kind = event.kind
        message = event.fields.get("message") if kind == "message" else None
        if isinstance(message, Message):
            lines = message_lines(message)
            timeline.add_message(event, at, lines)
            if not call.ended and not call.late:
                self._on_message(call, event, message, lines, at / 1e6)
            return
        fields = timeline.add(event, at, "attempts" if kind == "call-end" else "")
        if not call.late:
            self._on_event(call, event, timeline, fields, at / 1e6)

    def mark_incomplete(self, name: str, now: float) -> None:
        """Events of a call were lost."""
        call = self._calls.get(name)
        if call is not None and not call.row.incomplete:
            call.row.incomplete = 1
            self._hold(call, now)

    def settle(self, now: float, most: int) -> bool:
        """Put up to so many calls whose time has come into the batch; True when there are more."""
        holding = self._holding
        while holding and now - holding[0][0] >= HOLD_S:
            if most <= 0:
                return True
            most -= 1
            self._write(holding.popleft()[1])
        while self._lingering and now - self._lingering[0][0] > _LINGER_S:
            self._forget(self._lingering.popleft()[1])
        return False

    def settle_all(self) -> None:
        """Put everything into the batch, also what would wait for more of its call."""
        while self._holding:
            self._write(self._holding.popleft()[1])

    def take(self) -> Batch:
        """The batch; a new one is begun."""
        batch, self._batch = self._batch, Batch()
        batch.sets, self._sets.new = self._sets.new, {}
        return batch

    def _hold(self, call: _Call, since: float) -> None:
        if not call.held:
            call.held = True
            self._holding.append((since, call))

    def _begin(self, event: Event, offset: float) -> _Call:
        gone = self._gone.get(event.call)
        if gone is not None:
            # A repeated answer perhaps: its row is finished, and gone with all that was known of it.
            call = _Call(CallRecord(gone[0], event.call), gone[1], offset)
            call.late = True
            self._lingering.append((event.time, event.call))
        else:
            key = max(int((event.time + offset) * _NS), self._last_key + 1)
            self._last_key = key
            call = _Call(CallRecord(key, event.call), event.time, offset)
            call.row.incomplete = 0 if event.kind == "call-start" else 1
            call.names.append(name_of_id(event.call))
        if len(self._calls) >= _MAX_CALLS:
            self._forget(next(iter(self._calls)))
        self._calls[event.call] = call
        return call

    def _forget(self, name: str) -> None:
        """A call is over; what still comes of it is no new call."""
        call = self._calls.pop(name, None)
        if call is not None:
            self._go(name, call.row.key, call.started)

    def _go(self, name: str, key: int, started: float) -> None:
        if len(self._gone) >= _MAX_GONE:
            del self._gone[next(iter(self._gone))]
        self._gone[name] = (key, started)

    def _write(self, call: _Call) -> None:
        """Put what is new of a call into the batch."""
        call.held = False
        batch, row, timeline = self._batch, call.row, call.timeline
        batch.size += _ROW_BYTES
        if timeline is not None:
            call.timeline = None
            blob = self._packer.pack(timeline.events, timeline.texts)
            batch.size += len(blob)
            batch.chunks.append((row.key, blob))
        if call.late:
            return
        if timeline is not None:
            self._add_hits(call, timeline)
        batch.calls.append(call_values(row))
        if call.touched:
            batch.attempts.extend([attempt_values(attempt) for attempt in call.touched])
            call.touched.clear()
        if call.names:
            span = row.key >> SPAN_BITS
            batch.names.extend([(span, name, row.key) for name in call.names])
            call.names.clear()
        if call.ended:
            if call.settled:
                self._forget(row.id)
            else:
                self._lingering.append((call.started + (row.duration_s or 0.0), row.id))

    def _add_hits(self, call: _Call, timeline: Timeline) -> None:
        """Note the rules that changed something."""
        hits = timeline.rules()
        if hits:
            # Calls of one kind share it: it is kept for as long as the call goes on.
            merged = tuple(sorted({*call.hits, *hits}))
            call.hits = self._hits.setdefault(merged, merged)
            call.row.rule_hits = self._sets.of(call.hits)
            if len(self._hits) > _MAX_HITS:
                self._hits.clear()

    # What becomes of rows

    def _on_event(self, call: _Call, event: Event, timeline: Timeline, kept: dict[str, object], since: float) -> None:
        """Any event but a message; `kept` are its fields in the timeline."""
        kind = event.kind
        if kind == "call-start":
            self._on_start(call, event, timeline, kept)
        elif kind == "attempt-start":
            self._on_attempt_start(call, event, timeline, kept, since)
        elif kind == "attempt-end":
            self._on_attempt_end(call, event, timeline, kept)
        elif kind == "call-answered":
            call.row.state = "answered"
            call.row.setup_s = _seconds(kept.get("setup_s"))
        elif kind == "call-end":
            self._on_end(call, event, timeline, kept)
        elif kind == "hop-failed":
            self._on_hop_failed(call, event)
        elif kind in ("webhook", "webhook-answered"):
            row = call.attempt(event.attempt or call.row.attempts or 1)
            if kind == "webhook":
                row.webhook_s = since if row.webhook_s is None else row.webhook_s
            else:
                row.accepted_s = since if row.accepted_s is None else row.accepted_s

    def _on_start(self, call: _Call, event: Event, timeline: Timeline, kept: dict[str, object]) -> None:
        fields = event.fields
        row = call.row
        row.call_id = timeline.text(kept.get("call_id"))
        row.call_sid = timeline.text(kept.get("twilio_call_sid"))
        row.uri = timeline.text(kept.get("uri"))
        row.trunk = timeline.text(kept.get("trunk"))
        row.user_agent = timeline.text(kept.get("user_agent"))
        row.from_uri = timeline.text(kept.get("from"))
        row.to_uri = timeline.text(kept.get("to"))
        for field in ("from", "to"):
            name = self._number_names.of(str(fields.get(field) or ""))
            if name is not None:
                call.names.append(name)
        for text in (row.call_id, row.call_sid):
            if text is not None:
                call.names.append(name_of_text(text))
        flow = fields.get("flow")
        if isinstance(flow, Flow):
            row.source = flow.remote[0]
            row.tls, row.connection_age_s = _connection(flow, event.time)

    def _on_attempt_start(
        self, call: _Call, event: Event, timeline: Timeline, kept: dict[str, object], since: float
    ) -> None:
        row = call.attempt(event.attempt)
        call.row.target = row.target = timeline.text(kept.get("target"))
        call.row.rules = row.rules = timeline.text(kept.get("rules"))
        call.row.rules_version = row.rules_version = timeline.text(kept.get("rules_version"))
        row.uri = timeline.text(kept.get("uri"))
        row.call_id = timeline.text(kept.get("call_id"))
        row.started_s = since
        call.row.attempts = max(call.row.attempts, event.attempt)
        if row.call_id is not None:
            call.names.append(name_of_text(row.call_id))

    def _on_message(self, call: _Call, event: Event, message: Message, lines: list[str], since: float) -> None:
        row = call.row
        if event.leg == "a":
            if isinstance(message, Request):
                if row.shape is None and message.method == "INVITE":
                    row.shape = self._sets.of_invite(lines)
                    row.invite_bytes = len("\r\n".join(lines))
            elif isinstance(message, Response) and message.status < 200 and event.fields.get("direction") == "out":
                if message.status == 100:
                    if row.trying_s is None and _answers_invite(lines):
                        row.trying_s = since
                elif row.ringing_s is None and _answers_invite(lines):
                    row.ringing_s = since
        elif event.attempt and row.state == "trying":
            self._on_leg_b(call, event, message, lines, since)

    def _on_leg_b(self, call: _Call, event: Event, message: Message, lines: list[str], since: float) -> None:
        """A message of an attempt that is not answered yet."""
        outgoing = event.fields.get("direction") == "out"
        if outgoing and isinstance(message, Request) and message.method == "INVITE":
            row = call.attempt(event.attempt)
            row.invite_s = since
            row.invite_bytes = len("\r\n".join(lines))
            row.shape = self._sets.of_invite(lines)
            flow = event.fields.get("flow")
            if isinstance(flow, Flow):
                row.address = str(flow)
                row.tls, row.connection_age_s = _connection(flow, event.time)
        elif not outgoing and isinstance(message, Response) and _answers_invite(lines):
            row = call.attempt(event.attempt)
            took = 0.0 if row.invite_s is None else round(since - row.invite_s, 6)
            if message.status == 100:
                row.trying_s = took if row.trying_s is None else row.trying_s
            elif message.status < 200:
                row.ringing_s = took if row.ringing_s is None else row.ringing_s
            else:
                row.final_s = took if row.final_s is None else row.final_s
                if row.answer_shape is None:
                    row.answer_shape = self._sets.of_answer(lines)

    def _on_hop_failed(self, call: _Call, event: Event) -> None:
        row = call.attempt(event.attempt)
        hops = len([other for other in call.attempts if other.number == event.attempt and other.hop])
        why = str(event.fields.get("why", ""))
        verdict = classify(Seen("hop", detail=why))
        failed = row.failed_hop(hops + 1)
        failed.status = 503 if why == "503" else None
        failed.detail = self._redactor.text(why)
        failed.address = str(event.fields.get("flow", ""))
        failed.cause, failed.evidence = verdict.cause, verdict.evidence
        call.attempts.append(failed)
        call.touched.append(failed)

    def _on_attempt_end(self, call: _Call, event: Event, timeline: Timeline, kept: dict[str, object]) -> None:
        fields = event.fields
        row = call.attempt(event.attempt)
        row.status = _whole(fields.get("status"))
        row.reason = timeline.text(kept.get("reason"))
        row.detail = timeline.text(kept.get("detail"))
        row.duration_s = _seconds(fields.get("duration_s"))
        outcome = str(fields.get("cause", ""))
        invited = row.invite_s or 0.0
        seen = Seen(
            outcome,
            row.status or 0,
            row.reason or "",
            row.detail or "",
            row.final_s,
            row.ringing_s is not None,
            None if row.webhook_s is None else row.webhook_s - invited,
            None if row.accepted_s is None else row.accepted_s - invited,
            self._tapped,
        )
        verdict = classify(seen)
        row.outcome, row.cause, row.evidence = outcome, verdict.cause, verdict.evidence
        if row.address is None and fields.get("flow"):
            row.address = str(fields["flow"])
        if verdict.cause != "answered" or call.verdict is None:
            call.verdict = verdict
        minute = int((event.time + call.offset) // 60)
        target = row.target or ""
        self._count(minute, "attempt", target, verdict.cause)
        self._count(minute, "status", target, str(row.status or 0))

    def _on_end(self, call: _Call, event: Event, timeline: Timeline, kept: dict[str, object]) -> None:
        fields = event.fields
        row = call.row
        row.outcome = timeline.text(kept.get("outcome"))
        row.status = _whole(fields.get("status"))
        row.reason = timeline.text(kept.get("reason"))
        row.ended_by = timeline.text(kept.get("ended_by"))
        row.detail = timeline.text(kept.get("detail"))
        row.talk_s = _seconds(fields.get("talk_s"))
        row.duration_s = _seconds(fields.get("duration_s"))
        row.setup_s = _seconds(fields.get("setup_s"))
        row.state = "ended"
        call.ended = True
        tags = fields.get("tags")
        if isinstance(tags, (list, tuple)) and tags:
            row.tags = orjson.dumps([plain("tag", str(tag), self._redactor) for tag in tags]).decode()
        self._note_nexts(call, fields.get("attempts"))
        outcome = row.outcome or ""
        cause = call_cause(outcome, row.ended_by or "", str(fields.get("detail") or ""), call.verdict)
        row.cause = cause
        self._add_hits(call, timeline)
        minute = int((event.time + call.offset) // 60)
        self._count(minute, "call", outcome, cause or "")
        for hit in call.hits:
            self._count(minute, "rule", hit, "")
        if row.setup_s is not None:
            row.added_s = self._added(call, row.setup_s)
            step = next((step for step in _SETUP_STEPS if row.setup_s <= step), None)
            self._count(minute, "setup", "inf" if step is None else str(step), "")

    def _note_nexts(self, call: _Call, summaries: object) -> None:
        """What followed each attempt: its retry, or why none did."""
        for summary in summaries if isinstance(summaries, list) else ():
            if isinstance(summary, dict) and "next" in summary:
                number = summary.get("attempt", 0)
                if [row for row in call.attempts if row.number == number]:
                    call.attempt(number).next = self._redactor.text(str(summary["next"]))

    def _end_lost(self, event: Event, offset: float) -> None:
        """A call of a process that died in the middle of it, which has written the row; what follows is no new call."""
        timeline = Timeline(self._redactor)
        kept = timeline.add(event, 0)
        outcome = timeline.text(kept.get("outcome")) or ""
        ended_by, detail = timeline.text(kept.get("ended_by")), str(event.fields.get("detail") or "")
        cause = call_cause(outcome, ended_by or "", detail, None)
        texts = [timeline.text(kept.get(name)) for name in ("reason", "ended_by", "detail")]
        times = [_seconds(kept.get(name)) for name in ("setup_s", "talk_s", "duration_s")]
        self._batch.lost.append((outcome, _whole(kept.get("status")), *texts, *times, cause, event.call))
        self._count(int((event.time + offset) // 60), "call", outcome, cause or "")
        self._go(event.call, 0, event.time)

    @staticmethod
    def _added(call: _Call, setup_s: float) -> float | None:
        """What of the set-up was not the target's: all but its time to answer the INVITE that it answered."""
        last = max([row.number for row in call.attempts], default=0)
        waited = [row.final_s for row in call.attempts if row.number == last and not row.hop]
        return None if not waited or waited[0] is None else round(max(setup_s - waited[0], 0.0), 6)

    def _note(self, event: Event, offset: float) -> None:
        moment = event.time + offset
        if int(moment) != self._note_second:
            self._note_second, self._note_count = int(moment), 0
        self._note_count += 1
        if self._note_count > _NOTES_PER_S:
            return
        key = max(int(moment * _NS), self._last_key + 1)
        self._last_key = key
        fields = {name: plain(name, value, self._redactor) for name, value in event.fields.items()}
        self._batch.notes.append((key, event.kind, orjson.dumps(valid_text(fields)).decode()))

    def _count(self, minute: int, kind: str, name: str, value: str) -> None:
        counts = self._batch.counts
        place = (minute, kind, name, value)
        counts[place] = counts.get(place, 0) + 1


def _connection(flow: Flow, now: float) -> tuple[str | None, float | None]:
    """TLS version and cipher, and the age in seconds, of the connection of a flow."""
    facts = getattr(flow.handle, "facts", None)
    if facts is None:
        return None, None
    tls, opened = facts()
    return tls or None, round(max(now - opened, 0.0), 3)


def _answers_invite(lines: list[str]) -> bool:
    """Whether a response is one to an INVITE, by its CSeq."""
    for line in lines:
        if line[:5].lower() == "cseq:":
            return line.rpartition(" ")[2] == "INVITE"
    return False


def _whole(value: object) -> int | None:
    return value if isinstance(value, int) else None


def _seconds(value: object) -> float | None:
    return float(value) if isinstance(value, (int, float)) else None
