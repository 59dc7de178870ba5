"""Events of the stack folded into rows of the store. Pure: no clock, no database."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any, Final

import orjson

from proxy.audit.plain import plain, valid_text
from proxy.audit.records import Change, Event
from proxy.audit.redact import Redactor
from proxy.diagnosis.causes import Seen, Verdict, call_cause, classify
from proxy.diagnosis.features import answer_shape, invite_shape
from proxy.sip.flow import Flow
from proxy.sip.message import Message, Request, Response
from proxy.storage.chunks import pack
from proxy.storage.numbers import hash_number, number_of
from proxy.storage.schema import ATTEMPT_COLUMNS, CALL_COLUMNS, set_id

__all__ = ["Fold", "Operation"]

Operation = tuple[str, Sequence[object]]

_NS: Final = 1_000_000_000
_HOLD_S: Final = 2.0
_LINGER_S: Final = 35.0
_AFTER_END_S: Final = 1.0
_MAX_CALLS: Final = 100_000
_MAX_GONE: Final = 10_000
_NOTES: Final = frozenset(("refused", "limit-reached", "target-up", "target-down"))
_NOTES_PER_S: Final = 20
_SETUP_STEPS: Final = (0.5, 1, 2, 4, 8, 16, 32)


def _insert(table: str, columns: Sequence[tuple[str, str]]) -> str:
    marks = ", ".join("?" * len(columns))
    return f"INSERT OR REPLACE INTO {table} VALUES ({marks})"  # noqa: S608 - names of our own


_CALL_NAMES: Final = tuple([name for name, _ in CALL_COLUMNS])
_ATTEMPT_NAMES: Final = tuple([name for name, _ in ATTEMPT_COLUMNS])
_PUT_CALL: Final = _insert("calls", CALL_COLUMNS)
_PUT_ATTEMPT: Final = _insert("attempts", ATTEMPT_COLUMNS)
_PUT_CHUNK: Final = "INSERT INTO chunks (call, events) VALUES (?, ?)"
_PUT_SET: Final = "INSERT OR IGNORE INTO sets VALUES (?, ?)"
_LOST_NAMES: Final = ("outcome", "status", "reason", "ended_by", "detail", "setup_s", "talk_s", "duration_s", "cause")
_END_LOST: Final = (
    f"UPDATE calls SET state = 'lost', {', '.join(f'{name} = ?' for name in _LOST_NAMES)}"  # noqa: S608 - our names
    " WHERE id = ? AND state IN ('trying', 'answered')"
)
_PUT_NOTE: Final = "INSERT OR REPLACE INTO notes VALUES (?, ?, ?)"
_COUNT: Final = (
    "INSERT INTO minutes VALUES (?, ?, ?, ?, ?)"
    " ON CONFLICT (kind, minute, name, value) DO UPDATE SET count = count + excluded.count"
)


class _Call:
    """A call that is being folded."""

    __slots__ = (
        "attempts",
        "ended",
        "hits",
        "offset",
        "pending",
        "pending_since",
        "row",
        "started",
        "touched",
        "verdict",
    )

    def __init__(self, key: int, name: str, started: float, offset: float) -> None:
        self.started = started
        self.offset = offset
        self.ended = 0.0
        self.row: dict[str, object] = {"key": key, "id": name, "state": "trying", "attempts": 0, "incomplete": 0}
        self.attempts: dict[tuple[int, int], dict[str, Any]] = {}
        self.hits: set[str] = set()
        self.pending: list[dict[str, object]] = []
        self.pending_since = 0.0
        self.touched: set[tuple[int, int]] = set()
        self.verdict: Verdict | None = None

    def attempt(self, number: int) -> dict[str, Any]:
        """The row of an attempt, about to be changed."""
        place = (number, 0)
        self.touched.add(place)
        row = self.attempts.get(place)
        if row is None:
            row = self.attempts[place] = {"call": self.row["key"], "number": number, "hop": 0}
        return row


class Fold:
    """Folds events, and says what is to be written.

    Args:
        redactor: masks what is stored.
        key: of the hashes of numbers.
        tapped: whether webhooks pass through Trunkline.
    """

    def __init__(self, redactor: Redactor, key: bytes, *, tapped: bool = False) -> None:
        self._redactor = redactor
        self._key = key
        self.tapped = tapped
        self._calls: dict[str, _Call] = {}
        self._changed: dict[str, None] = {}
        self._holding: dict[str, None] = {}
        self._ended: deque[tuple[float, str]] = deque()
        self._gone: dict[str, None] = {}
        self._sets: dict[int, str] = {}
        self._operations: list[Operation] = []
        self._counts: dict[tuple[int, str, str, str], int] = {}
        self._last_key = 0
        self._note_second = (0, 0)

    @property
    def open_calls(self) -> int:
        """How many calls are remembered."""
        return len(self._calls)

    def add(self, event: Event, offset: float) -> None:
        """Fold one event; `offset` is to be added to its time for Unix time."""
        if not event.call:
            if event.kind in _NOTES:
                self._note(event, offset)
            return
        call = self._calls.get(event.call)
        if call is None:
            if event.call in self._gone:
                return
            if event.kind == "call-end" and event.fields.get("lost"):
                self._end_lost(event, offset)
                return
            call = self._begin(event, offset)
        self._changed[event.call] = None
        self._holding[event.call] = None
        self._keep(call, event)
        match event.kind:
            case "message":
                self._on_message(call, event)
            case "call-start":
                self._on_start(call, event)
            case "attempt-start":
                row = call.attempt(event.attempt)
                row.update(self._texts(event.fields, ("target", "uri", "rules", "rules_version", "call_id")))
                row["started_s"] = round(event.time - call.started, 6)
                call.row["attempts"] = max(int(str(call.row["attempts"])), event.attempt)
                call.row.update(self._texts(event.fields, ("target", "rules", "rules_version")))
            case "attempt-end":
                self._on_attempt_end(call, event)
            case "hop-failed":
                self._on_hop_failed(call, event)
            case "call-answered":
                call.row.update(state="answered", setup_s=event.fields.get("setup_s"))
            case "webhook" | "webhook-answered":
                name = "webhook_s" if event.kind == "webhook" else "accepted_s"
                call.attempt(event.attempt or int(str(call.row["attempts"])) or 1).setdefault(
                    name, round(event.time - call.started, 6)
                )
            case "call-end":
                self._on_end(call, event)

    def mark_incomplete(self, name: str) -> None:
        """Events of a call were lost."""
        call = self._calls.get(name)
        if call is not None:
            call.row["incomplete"] = 1
            self._changed[name] = None

    def take(self, now: float, *, everything: bool = False) -> list[Operation]:
        """What is to be written now; `everything` also what would wait for more of its call."""
        calls = self._calls
        for name in self._changed:
            self._write_rows(calls[name])
        self._changed.clear()
        due = [name for name in self._holding if everything or self._is_due(calls[name], now)]
        for name in due:
            call = calls[name]
            self._operations.append((_PUT_CHUNK, (call.row["key"], pack(call.pending))))
            call.pending = []
            del self._holding[name]
        while self._ended and now - self._ended[0][0] > _LINGER_S:
            self._forget(self._ended.popleft()[1])
        for place, count in self._counts.items():
            self._operations.append((_COUNT, (*place, count)))
        self._counts.clear()
        operations, self._operations = self._operations, []
        return operations

    def known_sets(self) -> list[Operation]:
        """What writes all sets again, for a store that was made anew."""
        return [(_PUT_SET, item) for item in self._sets.items()]

    def _forget(self, name: str) -> None:
        """A call is over; what still comes of it, a repeated answer perhaps, is no new call."""
        if self._calls.pop(name, None) is None:
            return
        self._changed.pop(name, None)
        self._holding.pop(name, None)
        self._go(name)

    def _go(self, name: str) -> None:
        if len(self._gone) >= _MAX_GONE:
            del self._gone[next(iter(self._gone))]
        self._gone[name] = None

    def _is_due(self, call: _Call, now: float) -> bool:
        if call.ended:
            return now - call.ended >= _AFTER_END_S
        return now - call.pending_since >= _HOLD_S

    def _write_rows(self, call: _Call) -> None:
        row = call.row
        if call.hits:
            row["rule_hits"] = self._set(tuple(sorted(call.hits)))
        self._operations.append((_PUT_CALL, [row.get(name) for name in _CALL_NAMES]))
        for place in sorted(call.touched):
            attempt = call.attempts[place]
            self._operations.append((_PUT_ATTEMPT, [attempt.get(name) for name in _ATTEMPT_NAMES]))
        call.touched.clear()

    def _begin(self, event: Event, offset: float) -> _Call:
        if len(self._calls) >= _MAX_CALLS:
            self._forget(next(iter(self._calls)))
        key = max(int((event.time + offset) * _NS), self._last_key + 1)
        self._last_key = key
        # Readers take the start from the key, so times within the call count from the very moment that it says.
        call = self._calls[event.call] = _Call(key, event.call, event.time, offset)
        call.row["incomplete"] = int(event.kind != "call-start")
        return call

    # The timeline

    def _keep(self, call: _Call, event: Event) -> None:
        """The event for the call's timeline."""
        if not call.pending:
            call.pending_since = event.time
        record: dict[str, object] = {"at": round(event.time - call.started, 6), "event": event.kind}
        if event.leg:
            record["leg"] = event.leg
        if event.attempt:
            record["attempt"] = event.attempt
        redactor = self._redactor
        for name, value in event.fields.items():
            if name == "changes" and isinstance(value, list):
                record[name] = [_packed(change, redactor) for change in value if isinstance(change, Change)]
            elif name == "flow" and isinstance(value, Flow):
                record[name] = str(value)
                if event.kind == "message":
                    record["local"] = _local(value)
            elif event.kind != "call-end" or name != "attempts":
                record[name if name not in record else f"{name}_"] = plain(name, value, redactor)
        call.pending.append(record)

    # What becomes of rows

    def _texts(self, fields: Mapping[str, object], names: Sequence[str]) -> dict[str, object]:
        """Fields as the columns of the same names, masked."""
        return {name: _sql(plain(name, fields[name], self._redactor)) for name in names if name in fields}

    def _on_start(self, call: _Call, event: Event) -> None:
        fields = event.fields
        row = call.row
        row.update(self._texts(fields, ("call_id", "uri", "trunk", "user_agent")))
        row["call_sid"] = self._texts(fields, ("twilio_call_sid",)).get("twilio_call_sid")
        for column, name in (("from", "from"), ("to", "to")):
            uri = str(fields.get(name) or "")
            row[f"{column}_uri"] = self._texts(fields, (name,)).get(name)
            row[f"{column}_hash"] = hash_number(self._key, number_of(uri))
        flow = fields.get("flow")
        if isinstance(flow, Flow):
            row["source"] = flow.remote[0]
            row["tls"], row["connection_age_s"] = _connection(flow, event.time)

    def _on_message(self, call: _Call, event: Event) -> None:
        fields = event.fields
        message = fields["message"]
        for change in fields.get("changes") or ():  # type: ignore[attr-defined]
            if change.step.startswith("rule:"):
                call.hits.add(change.step.removeprefix("rule:"))
        if not isinstance(message, Message) or call.ended:
            return
        outgoing = fields.get("direction") == "out"
        since = round(event.time - call.started, 6)
        if event.leg == "a":
            if isinstance(message, Request):
                if message.method == "INVITE" and "shape" not in call.row:
                    text = _text(message)
                    call.row.update(shape=self._set(invite_shape(text)), invite_bytes=len(text))
            elif outgoing and isinstance(message, Response) and _cseq_method(message) == "INVITE":
                name = "trying_s" if message.status == 100 else "ringing_s" if message.status < 200 else ""
                if name:
                    call.row.setdefault(name, since)
        elif event.attempt and call.row["state"] == "trying":
            self._on_leg_b(call, event, message, outgoing, since)

    def _on_leg_b(self, call: _Call, event: Event, message: Message, outgoing: bool, since: float) -> None:
        """A message of an attempt that is not answered yet."""
        if outgoing and isinstance(message, Request) and message.method == "INVITE":
            text = _text(message)
            row = call.attempt(event.attempt)
            row.update(invite_s=since, invite_bytes=len(text), shape=self._set(invite_shape(text)))
            flow = event.fields.get("flow")
            if isinstance(flow, Flow):
                row["address"] = str(flow)
                row["tls"], row["connection_age_s"] = _connection(flow, event.time)
        elif not outgoing and isinstance(message, Response) and _cseq_method(message) == "INVITE":
            row = call.attempt(event.attempt)
            took = round(since - row.get("invite_s", since), 6)
            if message.status == 100:
                row.setdefault("trying_s", took)
            elif message.status < 200:
                row.setdefault("ringing_s", took)
            else:
                row.setdefault("final_s", took)
                row.setdefault("answer_shape", self._set(answer_shape(_text(message))))

    def _on_hop_failed(self, call: _Call, event: Event) -> None:
        row = call.attempt(event.attempt)
        hop = 1 + sum(number == event.attempt and hop > 0 for number, hop in call.attempts)
        why = str(event.fields.get("why", ""))
        verdict = classify(Seen("hop", detail=why))
        failed = {
            **row,
            "hop": hop,
            "outcome": "hop",
            "status": 503 if why == "503" else None,
            "detail": self._redactor.text(why),
            "address": str(event.fields.get("flow", "")),
            "cause": verdict.cause,
            "evidence": verdict.evidence,
        }
        for name in ("invite_s", "trying_s", "final_s", "answer_shape"):
            row.pop(name, None)
        call.attempts[event.attempt, hop] = failed
        call.touched.add((event.attempt, hop))

    def _on_attempt_end(self, call: _Call, event: Event) -> None:
        fields = event.fields
        row = call.attempt(event.attempt)
        row.update(self._texts(fields, ("status", "reason", "detail", "duration_s")))
        outcome = str(fields.get("cause", ""))
        invited = float(row.get("invite_s") or 0.0)
        seen = Seen(
            outcome,
            int(str(fields.get("status", 0))),
            str(row.get("reason") or ""),
            str(row.get("detail") or ""),
            row.get("final_s"),
            "ringing_s" in row,
            None if "webhook_s" not in row else row["webhook_s"] - invited,
            None if "accepted_s" not in row else row["accepted_s"] - invited,
            self.tapped,
        )
        verdict = classify(seen)
        row.update(outcome=outcome, cause=verdict.cause, evidence=verdict.evidence)
        if "address" not in row and fields.get("flow"):
            row["address"] = str(fields["flow"])
        if verdict.cause != "answered" or call.verdict is None:
            call.verdict = verdict
        minute = int((event.time + call.offset) // 60)
        target = str(row.get("target") or "")
        self._count(minute, "attempt", target, verdict.cause)
        self._count(minute, "status", target, str(fields.get("status", 0)))

    def _on_end(self, call: _Call, event: Event) -> None:
        fields = event.fields
        row = call.row
        row.update(self._texts(fields, ("outcome", "status", "reason", "ended_by", "detail", "talk_s", "duration_s")))
        row["setup_s"] = fields.get("setup_s")
        row["state"] = "ended"
        tags = fields.get("tags")
        if tags and isinstance(tags, list | tuple):
            row["tags"] = orjson.dumps([plain("tag", str(tag), self._redactor) for tag in tags]).decode()
        call.ended = event.time
        self._ended.append((event.time, event.call))
        summaries = fields.get("attempts")
        for summary in summaries if isinstance(summaries, list) else ():
            if isinstance(summary, dict) and "next" in summary:
                number = int(summary.get("attempt", 0))
                if (number, 0) in call.attempts:
                    call.attempt(number)["next"] = self._redactor.text(str(summary["next"]))
        outcome = str(fields.get("outcome", ""))
        cause = call_cause(outcome, str(fields.get("ended_by", "")), str(fields.get("detail", "")), call.verdict)
        row["cause"] = cause
        setup = fields.get("setup_s")
        minute = int((event.time + call.offset) // 60)
        self._count(minute, "call", outcome, cause or "")
        for hit in call.hits:
            self._count(minute, "rule", hit, "")
        if isinstance(setup, int | float):
            row["added_s"] = self._added(call, float(setup))
            step = next((step for step in _SETUP_STEPS if setup <= step), None)
            self._count(minute, "setup", "inf" if step is None else str(step), "")

    def _end_lost(self, event: Event, offset: float) -> None:
        """A call of a process that died in the middle of it, which has written the row; what follows is no new call."""
        fields = event.fields
        outcome, ended_by, detail = (str(fields.get(name, "")) for name in ("outcome", "ended_by", "detail"))
        cause = call_cause(outcome, ended_by, detail, None)
        values = {**self._texts(fields, _LOST_NAMES), "setup_s": fields.get("setup_s"), "cause": cause}
        self._operations.append((_END_LOST, [*[values.get(name) for name in _LOST_NAMES], event.call]))
        self._count(int((event.time + offset) // 60), "call", outcome, cause or "")
        self._go(event.call)

    @staticmethod
    def _added(call: _Call, setup_s: float) -> float | None:
        """What of the set-up was not the target's: all but its time to answer the INVITE that it answered."""
        final = max(call.attempts, default=(0, 0))
        waited = call.attempts.get((final[0], 0), {}).get("final_s")
        return None if waited is None else round(max(setup_s - waited, 0.0), 6)

    def _note(self, event: Event, offset: float) -> None:
        moment = event.time + offset
        second, count = self._note_second
        if int(moment) != second:
            second, count = int(moment), 0
        self._note_second = (second, count + 1)
        if count >= _NOTES_PER_S:
            return
        key = max(int(moment * _NS), self._last_key + 1)
        self._last_key = key
        fields = {name: plain(name, value, self._redactor) for name, value in event.fields.items()}
        self._operations.append((_PUT_NOTE, (key, event.kind, orjson.dumps(valid_text(fields)).decode())))

    def _count(self, minute: int, kind: str, name: str, value: str) -> None:
        place = (minute, kind, _clean(name), _clean(value))
        self._counts[place] = self._counts.get(place, 0) + 1

    def _set(self, names: tuple[str, ...]) -> int:
        number, text = set_id(tuple([_clean(self._redactor.line(name)) for name in names]))
        if number not in self._sets:
            if len(self._sets) > 10_000:
                self._sets.clear()
            self._sets[number] = text
            self._operations.append((_PUT_SET, (number, text)))
        return number


def _packed(change: Change, redactor: Redactor) -> list[object]:
    before = None if change.before is None else redactor.line(change.before)
    after = None if change.after is None else redactor.line(change.after)
    return [change.step, change.part, change.index, before, after]


def _local(flow: Flow) -> str:
    """Our address: the bound one, or where that is any address, what peers know us by."""
    host, port = flow.local
    if host in ("0.0.0.0", "::"):
        return flow.advertised
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _connection(flow: Flow, now: float) -> tuple[str | None, float | None]:
    """TLS version and cipher, and the age in seconds, of the connection of a flow."""
    facts = getattr(flow.handle, "facts", None)
    if facts is None:
        return None, None
    tls, opened = facts()
    return tls or None, round(max(now - opened, 0.0), 3)


def _text(message: Message) -> str:
    return message.serialize().decode("utf-8", "backslashreplace")


def _cseq_method(message: Response) -> str:
    for line in message.serialize().partition(b"\r\n\r\n")[0].split(b"\r\n"):
        if line[:5].lower() == b"cseq:":
            return line.rpartition(b" ")[2].decode("ascii", "replace")
    return ""


def _clean(text: str) -> str:
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _sql(value: object) -> object:
    return _clean(value) if isinstance(value, str) else value
