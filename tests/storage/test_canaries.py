"""No secret and no whole number in the store or in anything that is made of it, with default settings."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from proxy.cli import app
from proxy.rehearsal import WALL_OFFSET
from proxy.storage.chunks import unpack
from proxy.storage.queries import StoreReader
from proxy.storage.schema import open_reader
from proxy.storage.sink import StoreSettings, StoreSink
from tests.storage.conftest import Tape
from tests.support.bench import ANSWER, Bench

NUMBERS = ("+15557654321", "15557654321", "+15551234567", "+4915155512345", "+442071838750")
SECRETS = (
    "c2VjcmV0LWNhbmFyeS1rZXktb2YtMzAtYnl0ZXMtbG9uZw",
    "canary-token-93b1",
    "canary-digest-77aa",
    "canary-ice-pwd",
)
OFFER = (
    "v=0\r\no=- 1 1 IN IP4 192.0.2.10\r\ns=-\r\nc=IN IP4 192.0.2.10\r\nt=0 0\r\nm=audio 4000 RTP/SAVP 0 101\r\n"
    f"a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:{SECRETS[0]}\r\n"
    "a=rtpmap:0 PCMU/8000\r\na=rtpmap:101 telephone-event/8000\r\na=fmtp:101 0-16\r\na=ice-pwd:canary-ice-pwd\r\n"
)
EXTRA = "\n".join(
    [
        f'P-Asserted-Identity: "Ann {NUMBERS[1]}" <sip:{NUMBERS[0]}@192.0.2.10;user=phone>',
        f"Diversion: <sip:{NUMBERS[2]}@192.0.2.10>;reason=unconditional",
        f"X-Caller-Number: {NUMBERS[3]}",
        f"Remote-Party-ID: <tel:{NUMBERS[4]}>",
        f"X-Api-Key: {SECRETS[1]}",
        f'Authorization: Digest username="u", realm="r", nonce="n", uri="sip:x", response="{SECRETS[2]}"',
        "X-Twilio-CallSid: CA0123456789abcdef0123456789abcdef",
    ]
)


@pytest.fixture
def planted(tmp_path: Path) -> Path:
    """A store with calls full of canaries: one answered, one refused with a number in the reason phrase, one refused
    before it was a call."""
    bench = Bench()
    bench.invite(OFFER, EXTRA, call_id="call-1")
    bench.respond(
        200,
        "OK",
        body=ANSWER.replace("RTP/AVP", "RTP/SAVP").replace(
            "a=send", f"a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:{SECRETS[0]}\r\na=send"
        ),
    )
    bench.caller_request("ACK")
    bench.advance(5.0)
    bench.caller_request("BYE")
    bench.invite(OFFER, EXTRA, call_id="call-2", tag="second")
    bench.respond(404, f"No {NUMBERS[0]} here")
    bench.advance(40.0)
    bench.invite(OFFER, f"{EXTRA}\nRequire: {NUMBERS[0]}", call_id="call-3", tag="third")
    assert {event.kind for event in bench.events} >= {"call-end", "refused"}
    path = tmp_path / "calls.db"
    sink = StoreSink(StoreSettings(path), wall_offset=WALL_OFFSET)
    for event in bench.events:
        sink.emit(event)
    assert sink.flush()
    sink.close()
    return path


def leaks(text: str) -> list[str]:
    found = [canary for canary in (*NUMBERS, *SECRETS, "+15550100002", "+15550100001") if canary in text]
    return found + re.findall(r"(?<![0-9A-Za-z])(?:\+|%2B)[0-9]{10,}", text)


def contents(path: Path) -> str:
    """Everything in the store, packed texts unpacked."""
    database = open_reader(path)
    parts: list[str] = []
    for (table,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
        for row in database.execute(f"SELECT * FROM {table}"):  # noqa: S608
            parts += [str(unpack(value)) if isinstance(value, bytes) else str(value) for value in row]
    database.close()
    return "\n".join(parts)


def test_nothing_in_the_store(planted: Path) -> None:
    text = contents(planted)
    assert "****" in text
    assert "+1555*****" in text
    assert leaks(text) == []
    for file in planted.parent.iterdir():
        raw = file.read_bytes()
        assert not [canary for canary in (*NUMBERS, *SECRETS) if canary.encode() in raw], file


@pytest.mark.parametrize(
    "command",
    [
        ["calls", "list"],
        ["calls", "list", "--json"],
        ["calls", "show", "{call}"],
        ["calls", "show", "{call}", "--json"],
        ["calls", "ladder", "{call}", "--changes"],
        ["calls", "diff", "{call}"],
        ["calls", "export", "{call}", "-f", "pcap"],
        ["calls", "export", "{call}", "-f", "sip"],
        ["calls", "export", "{call}", "-f", "mermaid"],
        ["calls", "export", "{call}", "-f", "json"],
        ["bundle", "{call}"],
        ["diagnose", "--since", "2020-01-01"],
        ["diagnose", "--since", "2020-01-01", "--json"],
        ["experiment", "report"],
    ],
    ids=" ".join,
)
def test_nothing_in_what_commands_write(planted: Path, command: list[str]) -> None:
    with StoreReader(planted) as reader:
        for call in reader.calls():
            words = [word.replace("{call}", call.id) for word in command]
            result = CliRunner().invoke(app, [*words, "--store", str(planted)])
            assert result.exit_code == 0, result.output
            assert result.stdout_bytes
            assert leaks(result.stdout_bytes.decode("utf-8", "replace")) == []


def test_masking_can_be_switched_off(tape: Tape, tmp_path: Path) -> None:
    """So that the search of the tests above is known to find what there is."""
    from proxy.audit.redact import Redaction

    path = tmp_path / "calls.db"
    sink = StoreSink(StoreSettings(path, redaction=Redaction(False, False)), wall_offset=WALL_OFFSET)
    for event in tape.events[:200]:
        sink.emit(event)
    assert sink.flush()
    sink.close()
    assert leaks(contents(path)) != []
