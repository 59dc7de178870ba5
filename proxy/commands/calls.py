"""`trunkline calls …`: what the store knows of calls, for the terminal and for other tools."""

from __future__ import annotations

import re
import sqlite3
import sys
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import orjson
from rich.console import Console
from rich.table import Table
from rich.text import Text

from proxy.audit.plain import timestamp
from proxy.diagnosis.causes import CAUSES
from proxy.ladder import call_ladder, change_lines
from proxy.storage.paths import default_store
from proxy.storage.pcap import pcap_of
from proxy.storage.queries import AttemptRow, CallFilter, CallRow, StoreReader
from proxy.storage.schema import WrongVersion
from proxy.storage.texts import mermaid_of, sip_text

__all__ = [
    "CallsError", "export_calls", "find_call", "ladder_text", "open_store", "print_call", "print_diff", "print_ladder",
    "print_list", "print_report", "when", "write_out",
]  # fmt: skip

_SPAN: Final = re.compile(r"(\d+(?:\.\d+)?)\s*([smhdw])\Z")
_UNITS: Final = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0, "w": 604_800.0}
_COLUMNS: Final = ("time (UTC)", "call", "from", "to", "outcome", "tries", "target", "set-up", "talk", "cause")
_WIDE_ONLY: Final = frozenset(("to", "target", "talk"))
_WIDE: Final = 110
_SHORT_ID, _LONG_ID = 8, 12
_STYLES: Final = {"answered": "green", "failed": "red", "cancelled": "yellow"}


class CallsError(Exception):
    """What was asked for can't be had; the text says why."""


@contextmanager
def open_store(store: Path | None, config: Path | None) -> Iterator[StoreReader]:
    """The store that is meant. Raises CallsError for one that can't be read, also while it is being read."""
    path = store or _configured(config) or default_store()
    try:
        with StoreReader(path) as reader:
            yield reader
    except FileNotFoundError:
        raise CallsError(
            f"there is no call store at {path}: `trunkline run` makes it; give another one by --store"
        ) from None
    except WrongVersion as error:
        raise CallsError(str(error)) from None
    except BrokenPipeError:
        raise
    except (sqlite3.Error, OSError) as error:
        raise CallsError(f"{path} can't be read: {error}") from None


def _configured(config: Path | None) -> Path | None:
    """The store that the settings name, without asking for the rest of them to be complete."""
    from proxy.settings.model import Settings
    from proxy.settings.sources import EnvironmentSource, FileSource, SettingsError

    try:
        environment = EnvironmentSource(Settings)()
        file = config or environment.get("config")
        for source in (environment, FileSource(Settings, Path(file) if file else None)()):
            section = source.get("store")
            if isinstance(section, Mapping) and section.get("path"):
                return Path(str(section["path"]))
    except SettingsError as error:
        raise CallsError("; ".join(error.problems)) from None
    return None


def when(text: str | None) -> float | None:
    """A moment as Unix time: a span back from now (`30m`), or a date and time in UTC. Raises CallsError."""
    if text is None:
        return None
    now = datetime.now(UTC)
    span = _SPAN.match(text.strip().lower())
    if span is not None:
        return (now - timedelta(seconds=float(span[1]) * _UNITS[span[2]])).timestamp()
    try:
        moment = datetime.fromisoformat(text.strip())
    except ValueError:
        raise CallsError(f"{text} is no time: give 30m, 24h, 7d, 2026-11-23 or 2026-11-23T14:00") from None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def find_call(reader: StoreReader, text: str) -> CallRow:
    """The call that is meant; of several the newest. Raises CallsError without any, or for an ambiguous id."""
    found = reader.find(text)
    if not found:
        raise CallsError(f"there is no call {text}")
    if len(found) > 1 and all(call.id.startswith(text) for call in found):
        raise CallsError(f"{text} is the beginning of {len(found)} calls: {', '.join([call.id for call in found])}")
    return found[0]


def write_out(data: str | bytes, out: Path | None) -> None:
    """Write to a file, or to standard output. Raises CallsError."""
    raw = data.encode("utf-8", "replace") if isinstance(data, str) else data
    try:
        if out is None:
            sys.stdout.buffer.write(raw)
            sys.stdout.buffer.flush()
        else:
            out.write_bytes(raw)
    except OSError as error:
        raise CallsError(f"{out or 'standard output'}: {(error.strerror or str(error)).lower()}") from None


# list, show


def print_list(reader: StoreReader, wanted: CallFilter, limit: int, *, as_json: bool) -> None:
    """Print calls as a table, or as a JSON object a line. Raises CallsError for a cause that there is not."""
    if wanted.cause is not None and wanted.cause not in CAUSES:
        raise CallsError(f"{wanted.cause} is no cause (allowed: {', '.join(CAUSES)})")
    calls = reader.calls(wanted, limit)
    if as_json:
        write_out(
            b"".join([orjson.dumps(_call_fields(call), option=orjson.OPT_APPEND_NEWLINE) for call in calls]), None
        )
        return
    console = _console()
    columns = [column for column in _COLUMNS if console.width >= _WIDE or column not in _WIDE_ONLY]
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in columns:
        table.add_column(name, no_wrap=True, justify="right" if name in ("tries", "set-up", "talk") else "left")
    for call in calls:
        cells = _cells(call, short=console.width < _WIDE)
        table.add_row(*[cells[name] for name in columns])
    console.print(table)
    if not calls:
        console.print("No calls.")
    elif len(calls) == limit and reader.count(wanted, limit + 1) > limit:
        console.print(f"The newest {limit}; --limit shows more.", style="dim")
    dropped = reader.status().dropped
    if dropped:
        console.print(f"{dropped} events could not be stored; calls may be missing or cut.", style="yellow")


def _cells(call: CallRow, *, short: bool) -> dict[str, str | Text]:
    """What stands in a line of the list; `short` for a terminal of 80 columns."""
    outcome = call.outcome or call.state
    status = f" {call.status}" if call.status and call.outcome != "answered" else ""
    when = timestamp(call.started).replace("T", " ")[:19]
    return {
        "time (UTC)": when[5:] if short else when,
        "call": call.id[: _SHORT_ID if short else _LONG_ID],
        "from": _user(call.from_uri),
        "to": _user(call.to_uri),
        "outcome": Text(f"{outcome}{status}", style=_STYLES.get(outcome, "")),
        "tries": str(call.attempts),
        "target": call.target or "",
        "set-up": _seconds(call.setup_s),
        "talk": _seconds(call.talk_s),
        "cause": call.cause or "",
    }


def print_call(reader: StoreReader, text: str, *, as_json: bool) -> None:
    """Print one call with its attempts."""
    call = find_call(reader, text)
    attempts = reader.attempts(call.key)
    if as_json:
        fields = {
            **_call_fields(call),
            "rule_hits": reader.rule_hits_of(call.key),
            "attempts": [asdict(attempt) for attempt in attempts],
        }
        write_out(orjson.dumps(fields, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE), None)
        return
    console = _console()
    table = Table(box=None, show_header=False, pad_edge=False)
    for name, value in _facts_of(reader, call):
        table.add_row(Text(name, style="dim"), Text(value))
    console.print(table)
    table = Table(box=None, show_header=False, pad_edge=False)
    for attempt in attempts:
        name = f"attempt {attempt.number}" + ("" if attempt.final else f", address {attempt.hop}")
        table.add_row(Text(name, style="bold"), _attempt_text(attempt))
    console.print(table)


def _facts_of(reader: StoreReader, call: CallRow) -> Iterator[tuple[str, str]]:
    outcome = f"{call.outcome or call.state} {call.status or ''} {call.reason or ''}".strip()
    ended = f", ended by {call.ended_by}" if call.ended_by else ""
    detail = f": {call.detail}" if call.detail else ""
    yield "call", call.id
    yield "began", timestamp(call.started)
    yield "outcome", f"{outcome}{ended}{detail}"
    if call.cause:
        yield "cause", call.cause
    yield "from, to", f"{call.from_uri or '-'}, {call.to_uri or '-'}"
    yield "Call-ID", call.call_id or "-"
    yield "Twilio's CallSid", call.call_sid or "-"
    yield "source", f"{call.source or '-'} {call.tls or ''} {call.trunk or ''}".strip()
    yield "rules", f"{call.rules or '-'} {call.rules_version or ''}".strip()
    hits = reader.rule_hits_of(call.key)
    if hits:
        yield "changed by", ", ".join(hits)
    if call.tags:
        yield "tags", ", ".join(call.tags)
    times = (("100", call.trying_s), ("18x", call.ringing_s), ("200", call.setup_s), ("added by us", call.added_s))
    yield "times", ", ".join([f"{name} {_seconds(value)}" for name, value in times if value is not None]) or "-"
    if call.talk_s is not None:
        yield "talk", _seconds(call.talk_s)
    if call.incomplete:
        yield "note", "events of this call were dropped"


def _attempt_text(attempt: AttemptRow) -> Text:
    good = attempt.cause == "answered"
    text = Text(f"{attempt.target} {attempt.address or ''}, rules {attempt.rules}\n", style="dim")
    text.append(attempt.evidence or "under way", style="not dim green" if good else "not dim red")
    if not good and attempt.cause:
        text.append(f" ({attempt.cause})", style="not dim")
    if attempt.next:
        text.append(f"; {attempt.next}")
    return text


def print_report(lines: Iterable[str]) -> None:
    """Print lines of a report; on a terminal what is too long for it goes on below, indented."""
    console = Console(highlight=False, markup=False)
    for line in lines:
        indent = " " * (len(line) - len(line.lstrip()) + 3)
        width = console.width if console.is_terminal else len(line) + 1
        parts = textwrap.wrap(line, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)
        console.print("\n".join(parts), soft_wrap=True)


# ladder, diff


def print_ladder(reader: StoreReader, text: str, *, changes: bool) -> None:
    """Draw one call."""
    call = find_call(reader, text)
    events = reader.timeline(call.key)
    console = _console()
    lines = iter(call_ladder(events))
    console.print(next(lines), no_wrap=True, overflow="ignore", crop=False)
    shown = [event for event in events if event["event"] == "message" or _is_noted(event)]
    for event, line in zip(shown, lines, strict=False):
        console.print(line, no_wrap=True, overflow="ignore", crop=False)
        if changes and event.get("changes"):
            for change in change_lines(event):
                console.print(Text("           ").append_text(change), no_wrap=True, overflow="ignore", crop=False)


def _is_noted(event: Mapping[str, Any]) -> bool:
    """Whether `call_ladder` has a line for an event that is no message."""
    return len(call_ladder([event])) > 1


def ladder_text(events: Sequence[Mapping[str, Any]]) -> str:
    """The ladder without colours."""
    return "\n".join([line.plain.rstrip() for line in call_ladder(events)])


def print_diff(reader: StoreReader, text: str, attempt: int | None) -> None:
    """Print the changes of the INVITE of each attempt. Raises CallsError when there is none."""
    call = find_call(reader, text)
    console = _console()
    shown = 0
    for event in reader.timeline(call.key):
        if (
            event["event"] != "message"
            or event.get("leg") != "b"
            or event.get("direction") != "out"
            or "changes" not in event
            or not str(event["message"]).startswith("INVITE ")
            or (attempt is not None and event.get("attempt") != attempt)
        ):
            continue
        shown += 1
        console.print(f"[bold underline]INVITE of attempt {event.get('attempt')}[/bold underline]")
        last = ""
        for change in event["changes"]:
            if change["step"] != last:
                last = change["step"]
                console.print(Text(last, style="bold"))
            for sign, line, style in (("-", change["before"], "red"), ("+", change["after"], "green")):
                for part in (line or "").splitlines() if line is not None else ():
                    console.print(Text(f"  {sign} {part}", style=style), soft_wrap=True)
    if not shown:
        raise CallsError(f"no INVITE of {'this attempt' if attempt else 'this call'} went out")


# export


def export_calls(reader: StoreReader, names: Sequence[str], form: str, out: Path | None) -> None:
    """Export calls, in order of time for captures and SIP text."""
    if form == "pcap" and out is None and sys.stdout.isatty():
        raise CallsError("a capture is no text: give a file by --out, or pipe it")
    calls = [find_call(reader, name) for name in names]
    timelines = {call.key: reader.timeline(call.key) for call in calls}
    together = sorted([event for events in timelines.values() for event in events], key=lambda event: event["time"])
    match form:
        case "pcap":
            write_out(pcap_of(together), out)
        case "sip":
            write_out(sip_text(together), out)
        case "mermaid":
            write_out("\n".join([mermaid_of(events) for events in timelines.values()]), out)
        case _:
            found = [
                {
                    **_call_fields(call),
                    "rule_hits": reader.rule_hits_of(call.key),
                    "attempts": [asdict(attempt) for attempt in reader.attempts(call.key)],
                    "events": timelines[call.key],
                }
                for call in calls
            ]
            write_out(orjson.dumps(found, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE), out)


def _call_fields(call: CallRow) -> dict[str, object]:
    fields = asdict(call)
    del fields["key"]
    return {"started": timestamp(call.started), **fields}


def _console() -> Console:
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=240)
    return console


def _user(uri: str | None) -> str:
    return "" if uri is None else uri.partition(":")[2].partition("@")[0] or uri


def _seconds(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value * 1000:.0f} ms" if value < 1 else f"{value:.1f} s"
