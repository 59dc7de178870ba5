"""Exports: independent tools read them and see the ladder that we draw."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from proxy.ladder import call_ladder
from proxy.sip.message import Message
from proxy.sip.parser import parse_message
from proxy.storage.pcap import message_ends, pcap_of, whole_text
from proxy.storage.queries import StoreReader
from proxy.storage.texts import bundle, mermaid_of, sip_text

_Tool = Callable[[str], str]


@pytest.fixture
def events(reader: StoreReader) -> list[dict[str, Any]]:
    """A call with several attempts."""
    call = max(reader.calls(limit=1000), key=lambda call: (call.outcome == "answered", call.attempts))
    assert call.attempts > 1
    return reader.timeline(call.key)


def messages(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [event for event in events if event["event"] == "message"]


def first_line(event: dict[str, Any]) -> str:
    return str(event["message"]).partition("\r\n")[0]


def tshark(tool: str, capture: Path, *fields: str) -> list[list[str]]:
    """Fields of each packet."""
    command = [tool, "-r", str(capture), "-T", "fields", *(part for field in fields for part in ("-e", field))]
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return [line.split("\t") for line in out.splitlines()]


def test_tshark_shows_the_same_ladder(events: list[dict[str, Any]], tmp_path: Path, require_tool: _Tool) -> None:
    capture = tmp_path / "call.pcap"
    capture.write_bytes(pcap_of(events))
    names = ("ip.src", "ip.dst", "sip.Request-Line", "sip.Status-Line", "sip.Call-ID", "_ws.expert.severity")
    packets = tshark(require_tool("tshark"), capture, *names, "frame.time_epoch")
    wanted = messages(events)
    assert len(packets) == len(wanted)
    for packet, event in zip(packets, wanted, strict=True):
        source, target = message_ends(event)
        assert packet[:2] == [source[0], target[0]]
        assert packet[2] or packet[3] == first_line(event)
        assert (packet[2] or packet[3]).strip() == first_line(event).strip()
        assert packet[4] in event["message"]
        assert "8388608" not in packet[5].split(","), "the dissector found an error"
    arrows = [line.plain for line in call_ladder(events) if "▶" in line.plain or "◀" in line.plain]
    assert len(arrows) == len(packets)
    for arrow, packet in zip(arrows, packets, strict=True):
        word = packet[2].split(" ")[0] if packet[2] else packet[3].split(" ")[1]
        assert f" {word} " in arrow


def test_sngrep_reads_every_packet(events: list[dict[str, Any]], tmp_path: Path, require_tool: _Tool) -> None:
    """sngrep parses the capture as SIP and writes the packets that it took for SIP to another one."""
    capture, copy = tmp_path / "call.pcap", tmp_path / "copy.pcap"
    capture.write_bytes(pcap_of(events))
    subprocess.run([require_tool("sngrep"), "-N", "-q", "-I", capture, "-O", copy], check=True, timeout=30)
    lines = tshark(require_tool("tshark"), copy, "sip.Request-Line", "sip.Status-Line")
    assert [(line[0] or line[1]).strip() for line in lines] == [first_line(event).strip() for event in messages(events)]


def test_ipv6_names_and_large_messages(tmp_path: Path, require_tool: _Tool) -> None:
    text = (
        "OPTIONS sip:a@example.com SIP/2.0\r\nVia: SIP/2.0/UDP h;branch=z9hG4bKa\r\nContent-Length: 70000\r\n\r\n"
        + "x" * 70000
    )
    base = {"event": "message", "time": "2026-11-23T12:00:00.000001Z", "message": text}
    ends = (
        {"flow": "tls:[2001:db8::1]:5061", "local": "[2001:db8::2]:5061", "direction": "in"},
        {"flow": "udp:192.0.2.1:5060", "local": "sip.example.com:5060", "direction": "out"},
        {"flow": "tcp:192.0.2.1:5060", "local": "[2001:db8::2]:5060", "direction": "in"},
    )
    capture = tmp_path / "odd.pcap"
    capture.write_bytes(pcap_of([{**base, **end} for end in ends]))
    fields = ("ipv6.src", "ip.src", "udp.srcport", "sip.Method", "udp.checksum.status")
    packets = tshark(require_tool("tshark"), capture, *fields)
    assert [packet[:4] for packet in packets] == [
        ["2001:db8::1", "", "5060", "OPTIONS"],
        ["", "0.0.0.0", "5060", "OPTIONS"],
        ["::ffff:192.0.2.1", "", "5060", "OPTIONS"],
    ]


def test_a_masked_key_is_no_damage(tmp_path: Path, require_tool: _Tool) -> None:
    sdp = (
        "v=0\r\no=- 1 1 IN IP4 192.0.2.1\r\ns=-\r\nc=IN IP4 192.0.2.1\r\nt=0 0\r\nm=audio 4000 RTP/SAVP 0\r\n"
        "a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:****\r\na=rtpmap:0 PCMU/8000\r\n"
    )
    head = (
        "INVITE sip:a@example.com SIP/2.0\r\nVia: SIP/2.0/TLS h;branch=z9hG4bKa\r\nFrom: <sip:a@h>;tag=1\r\n"
        "To: <sip:b@h>\r\nCall-ID: 1\r\nCSeq: 1 INVITE\r\nMax-Forwards: 70\r\nContact: <sip:a@h>\r\n"
        "Content-Type: application/sdp\r\nContent-Length: 1\r\n\r\n"
    )
    ends = {"flow": "tls:192.0.2.1:5061", "local": "192.0.2.2:5061", "direction": "in"}
    capture = tmp_path / "call.pcap"
    capture.write_bytes(pcap_of([{"event": "message", "time": "2026-11-23T12:00:00Z", "message": head + sdp, **ends}]))
    fields = ("_ws.malformed", "sdp.crypto.crypto_suite", "sdp.crypto.master_key")
    packets = tshark(require_tool("tshark"), capture, *fields)
    assert packets[0][:2] == ["", "AES_CM_128_HMAC_SHA1_80"]
    assert set(packets[0][2]) == {"0"}


def test_content_length_fits_again() -> None:
    assert (
        whole_text("BYE sip:a SIP/2.0\r\nl : 99\r\nX: 1\r\n\r\nabc") == "BYE sip:a SIP/2.0\r\nl : 3\r\nX: 1\r\n\r\nabc"
    )


def test_sip_text_holds_every_message(events: list[dict[str, Any]]) -> None:
    text = sip_text(events)
    assert text.count(" -> ") == len(messages(events))
    assert all(first_line(event) in text for event in messages(events))


def test_exported_messages_parse(events: list[dict[str, Any]]) -> None:
    for event in messages(events):
        assert isinstance(parse_message(whole_text(event["message"]).encode()), Message)


def test_mermaid(events: list[dict[str, Any]]) -> None:
    lines = mermaid_of(events).splitlines()
    assert lines[0] == "sequenceDiagram"
    arrows = [line for line in lines if "->>" in line]
    assert len(arrows) == len(messages(events))
    assert not any(char in line.partition(":")[2] for line in lines for char in '#;{}<>"')
    assert "    A->>T: INVITE (SDP)" in lines


def test_bundle_has_what_the_support_desks_ask_for(reader: StoreReader, events: list[dict[str, Any]]) -> None:
    call = reader.find(events[0]["call"])[0]
    attempts = reader.attempts(call.key)
    text = bundle(call, attempts, events, "the ladder")
    assert call.call_sid is not None
    assert call.call_id is not None
    for wanted in (call.call_sid, "AC0000", call.call_id, call.id, "the ladder", "UTC"):
        assert wanted in text
    for attempt in attempts:
        assert attempt.call_id is not None
        assert attempt.call_id in text
        if attempt.cause != "answered":
            assert attempt.evidence is not None
            assert attempt.evidence in text
    assert text.count("```sip") == len(messages(events))
    assert text.count("```") % 2 == 0
