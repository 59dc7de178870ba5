"""Nothing that a peer writes becomes a line of its own in what the other one gets: CR, LF and NUL, raw and escaped."""

import re
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from proxy.rewrite.engine import RuleSet
from proxy.rulefiles import load_file
from proxy.sip.message import Message, Request
from proxy.sip.parser import MalformedMessage, parse_message
from tests.b2bua.conftest import finish
from tests.support.bench import ANSWER, OFFER, Bench, message_text

RULES = """
version: 1
name: copies
rules:
  - id: values
    why: Every value that a rule can copy, into headers of its own.
    do:
      - set: {header: X-From, value: "{from.user}|{from.display-name}|{from.host}"}
      - set: {header: X-To, value: "{to.user}|{to.display-name}|{to.host}"}
      - set: {header: X-Copy, value: "{header.X-Given}"}
      - set: {header: X-Subject, value: "<{header.Subject}> {call.id} {attempt} {method} {source} {transport}"}
      - replace: {header: X-Given, pattern: "^(.*)$", with: "[\\\\1]"}
"""

EVIL = "X-Injected: 1"
# What an attacker would try, and anything else.
SHARP = st.sampled_from(
    [
        "%0d%0a" + EVIL.replace(" ", "%20"),
        "%0D%0A",
        "%00",
        "%250d%250a",
        "\\\r\n" + EVIL,
        "\r\n" + EVIL,
        "\n" + EVIL,
        "\r" + EVIL,
        "\x00",
        "\u2028" + EVIL,
        "\x85" + EVIL,
        "\x0b" + EVIL,
        "\r\n " + EVIL,
        '"',
        "\\",
        ">",
        ";",
        "",
    ]
)
TEXT = st.lists(st.one_of(SHARP, st.text(max_size=8)), max_size=4).map("".join)


@pytest.fixture(scope="module")
def copies(tmp_path_factory: pytest.TempPathFactory) -> RuleSet:
    path: Path = tmp_path_factory.mktemp("rules") / "copies.yaml"
    path.write_text(RULES)
    return load_file(path)


def invite(user: str, display: str, value: str, sdp: str) -> bytes:
    headers = [
        "Via: SIP/2.0/UDP 192.0.2.10:5060;branch=z9hG4bKx",
        "Max-Forwards: 70",
        f'From: "{display}" <sip:{user}@192.0.2.10>;tag=caller',
        f"To: {display} <sip:{user}@198.51.100.1>",
        "Call-ID: call-1",
        "CSeq: 1 INVITE",
        "Contact: <sip:c@192.0.2.10>",
        f"X-Given: {value}",
        f"Subject: {value}",
    ]
    text = message_text(f"INVITE sip:{user}@198.51.100.1 SIP/2.0", headers, OFFER.replace("s=-", f"s={sdp}"))
    return text.encode("utf-8", "surrogatepass")


def names(message: Message) -> list[str]:
    return [item.name.lower() for item in message.headers]


def check_sent(bench: Bench, *sources: bytes) -> None:
    """What left is one message each, whose lines are those that its parts say, and nothing is called `X-Injected` that
    was no header field of what came in."""
    came = set[str]()
    for source in sources:
        try:
            came |= set(names(parse_message(source)))
        except MalformedMessage:
            pass
    for _, _, message in bench.wire:
        data = message.serialize()
        head, _, _ = data.partition(b"\r\n\r\n")
        # An escaped one is given back in the refusal of what held it (RFC 4475 section 3.1.1.2).
        assert b"\x00" not in head.replace(b"\\\x00", b"")
        assert not re.search(rb"\r(?!\n)|(?<!\r)\n", head)
        assert parse_message(data).serialize() == data
        assert "x-injected" in came or "x-injected" not in names(message)


@given(TEXT, TEXT, TEXT, TEXT)
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@example("a%0d%0aX-Injected:%201", "b", "c", "d")
@example("a", '\\"\r\n X-Injected: 1', "c\r\n X-Injected: 1", "d")
def test_no_value_of_a_caller_becomes_a_line(copies: RuleSet, user: str, display: str, value: str, sdp: str) -> None:
    bench = Bench(rules=(copies,))
    data = invite(user, display, value, sdp)
    bench.receive(data, bench.caller_flow)
    if bench.invites:
        bench.respond(180)
        bench.respond(200, body=ANSWER)
    check_sent(bench, data)
    finish(bench)


@given(TEXT, TEXT, TEXT, TEXT)
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_value_of_a_target_becomes_a_line(copies: RuleSet, reason: str, tag: str, value: str, user: str) -> None:
    bench = Bench(rules=(copies,))
    bench.invite()
    sent = bench.invites[0]
    for status in (183, 200, 500):
        headers = [
            *sent.lines("via"),
            f"From: {sent.get('from')}",
            f"To: {sent.get('to')};tag=t{tag}",
            f"Call-ID: {sent.call_id}",
            f"CSeq: {sent.get('cseq')}",
            f"Contact: <sip:{user}@203.0.113.5>",
            f"X-Given: {value}",
            f"Warning: 399 x {value}",
            f"Reason: SIP;cause=200;text={value}",
            f"Record-Route: <sip:203.0.113.6;lr;x={value}>",
        ]
        text = message_text(f"SIP/2.0 {status} {reason}", headers, ANSWER if status < 300 else "")
        data = text.encode("utf-8", "surrogatepass")
        before = len(bench.wire)
        bench.receive(data, bench.target_flow)
        wire, bench.wire = bench.wire, bench.wire[before:]
        check_sent(bench, data)
        bench.wire = wire
    finish(bench)


def test_escaped_line_ends_stay_escaped(copies: RuleSet) -> None:
    bench = Bench(rules=(copies,))
    bench.receive(invite("a%0d%0ab%00", "x", "y", "z"), bench.caller_flow)
    (sent,) = bench.invites
    assert sent.from_.uri.user == "a%0d%0ab%00"
    assert (sent.get("x-from") or "").startswith("a%0d%0ab%00|")
    assert sent.request_uri.user == "agent"
    assert isinstance(sent, Request)
