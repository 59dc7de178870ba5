"""The tools around rules: explain, replay, lint, schema, fmt."""

from __future__ import annotations

import json
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import dpkt
import jsonschema
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner, Result

from proxy.cli import app
from proxy.lint import lint_message
from proxy.recordings import from_text, read_recording
from proxy.rewrite.compiler import json_schema
from proxy.rewrite.draft import Draft
from proxy.rewrite.engine import RuleReject
from proxy.rewrite.explain import trace
from proxy.rulefiles import RuleFileError, load_text
from proxy.ruleformat import format_rules
from proxy.settings import shipped_rules
from proxy.sip.parser import MalformedMessage, parse_message
from tests.rewrite.snippets import context, message, rules
from tests.rules.field import CANDIDATES, INVITE, OK, SDP, whole
from tests.rules.test_shipped import DEFAULT, MINIMAL, RICH

TORTURE = sorted((Path(__file__).resolve().parents[1] / "sip" / "torture").glob("*.sip"))
INVITE_FILE = Path(__file__).resolve().parents[1] / "e2e" / "data" / "twilio_invite.sip"


def run(*arguments: object, text: str | None = None) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments], input=text, env={"COLUMNS": "200"})


# explain


def test_explain_twilios_invite() -> None:
    result = run("rules", "explain", INVITE_FILE)
    assert result.exit_code == 0
    for text in (
        "twilio-openai/identity-hosts",
        "twilio-openai.yaml:",
        "- P-Asserted-Identity: <sip:+15550100002@198.51.100.12:5060>",
        "+ P-Asserted-Identity: <sip:+15550100002@198.51.100.77>",
        "Webhook consumers read who calls",
        "content-type-of-sdp does not hold: header: {name: Content-Type, absent: true}",
        "unfold-headers found nothing to change",
    ):
        assert text in result.output


def test_explain_a_snippet_from_standard_input_with_rules_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(
        "version: 1\nname: mine\nrules:\n"
        "  - {id: gone, why: Because., when: {attempt: 2}, do: [{remove: X-A}, {tag: t}, {note: n}]}\n"
        "  - {id: other, why: Because., when: {attempt: 1}, do: [{remove: X-A}]}\n"
        "  - {id: off, why: Because., enabled: false, do: [{remove: X-A}]}\n"
        "  - {id: no, why: Because., do: [{reject: {status: 403}}]}\n"
        "  - {id: last, why: Because., do: [{remove: X-A}]}\n"
    )
    result = run("rules", "explain", "-", "--rules", path, "--attempt", 2, text="X-A: 1\n")
    assert result.exit_code == 0
    for one in (
        "mine/gone",
        "- X-A: 1",
        "mine/other does not hold: attempt: 1",
        "mine/off disabled",
        "refuses the message: 403 Forbidden",
        "mine/last not reached",
        "Tags: t",
        "Note of mine/gone: n",
    ):
        assert one in result.output


def test_explain_what_can_not_be_explained(tmp_path: Path) -> None:
    assert run("rules", "explain", tmp_path / "none").exit_code == 2
    assert "did you mean minimal" in run("rules", "explain", INVITE_FILE, "--rules", "minimall").stderr
    assert run("rules", "explain", INVITE_FILE, "--direction", "up").exit_code == 2
    broken = tmp_path / "broken.sip"
    broken.write_text("SIP/2.0 abc Broken\n\n")
    assert run("rules", "explain", broken).exit_code == 1


INCLUDING = """
- {id: head, why: w, do: [{set: {header: X-1, value: '{header.X-A|default:none}'}}]}
- {id: stop, why: w, when: {header: {name: X-Stop, present: true}}, do: [{stop: true}]}
- {id: reject, why: w, when: {header: {name: X-No, present: true}}, do: [{reject: {status: 403}}]}
- {id: sdp, why: w, do: [{sdp: {codecs: PCMU}}]}
- {id: t, why: w, when: {header: {name: X-A, matches: '(?P<d>.)'}}, do: [{add: {header: X-2, value: '{capture.d}'}}]}
"""


@settings(deadline=None)
@given(
    st.sampled_from([DEFAULT, MINIMAL, rules(INCLUDING)]),
    st.lists(st.sampled_from([*CANDIDATES, "X-A: 1", "X-A: x", "X-Stop: 1", "X-No: 1"]), max_size=6),
    st.sampled_from(["", SDP, RICH, "v=0\nbroken"]),
    st.booleans(),
)
def test_explaining_does_what_applying_does(rule_set: Any, extra: list[str], sdp: str, is_request: bool) -> None:
    head = "\n".join([INVITE if is_request else OK.partition("\n\n")[0], *extra])
    try:
        whole_message = parse_message(whole(head, sdp))
    except MalformedMessage:
        return
    direction = "a-to-b" if is_request else "b-to-a"
    applied, traced = Draft(whole_message), Draft(whole_message)
    refused = ""
    try:
        rule_set.apply(applied, context(direction))
    except RuleReject as reject:
        refused = f"{reject.status} {reject.reason}"
    traces = trace(rule_set, traced, context(direction))
    assert [repr(change) for change in traced.changes] == [repr(change) for change in applied.changes]
    assert [one.reason for one in traces if one.state == "refused"] == ([refused] if refused else [])
    assert [change for one in traces for change in one.changes] == traced.changes
    assert [one.rule for one in traces] == list(rule_set.all_rules)


# Recordings


def pcap(path: Path, messages: list[tuple[str, str, bytes]], tcp: bool = False) -> Path:
    """A capture of messages between addresses; over TCP each is cut into two segments, the second one first."""
    sequence: dict[tuple[str, str], int] = {}
    with path.open("wb") as file:
        writer = dpkt.pcap.Writer(file)
        for sender, receiver, data in messages:
            source, target = ip_address(sender).packed, ip_address(receiver).packed
            segments = [data]
            if tcp:
                segments = [data[50:], data[:50]] if (sender, receiver) in sequence else [data[:50], data[50:]]
            start = sequence.setdefault((sender, receiver), 1000)
            for segment in segments:
                inner: Any
                if tcp:
                    inner = dpkt.tcp.TCP(sport=5060, dport=5060, seq=start + data.find(segment), data=segment)
                else:
                    inner = dpkt.udp.UDP(sport=5060, dport=5060, data=segment)
                    inner.ulen = len(inner)
                proto = dpkt.ip.IP_PROTO_TCP if tcp else dpkt.ip.IP_PROTO_UDP
                packet = dpkt.ip.IP(src=source, dst=target, p=proto, data=inner)
                packet.len = len(packet)
                writer.writepkt(bytes(dpkt.ethernet.Ethernet(data=packet)))
            sequence[sender, receiver] += len(data)
    return path


CALLER, OURS, TARGET = "192.0.2.10", "198.51.100.77", "203.0.113.5"
FULL = from_text(whole(INVITE + "\nContent-Length: 0", SDP))
ANSWER = from_text(whole(OK.partition("\n\n")[0] + "\nContent-Length: 0", OK.partition("\n\n")[2]))


@pytest.mark.parametrize("tcp", [False, True], ids=["udp", "tcp"])
def test_packet_capture(tmp_path: Path, tcp: bool) -> None:
    path = pcap(tmp_path / "call.pcap", [(CALLER, OURS, FULL), (OURS, CALLER, ANSWER), (CALLER, OURS, FULL)], tcp)
    recorded = list(read_recording(str(path)))
    assert [one.data for one in recorded] == [FULL, ANSWER, FULL]
    assert recorded[0].sender == f"{CALLER}:5060"
    assert recorded[0].transport == ("tcp" if tcp else "udp")


def test_directions_in_a_capture(tmp_path: Path) -> None:
    leg_b = FULL.replace(b"fb3e6e86", b"leg-b-00")
    answer_b = ANSWER.replace(b"184be81a-9b5e-4755-9753-22d52b83e37d", b"leg-b-00a53e3094ed17b4776a69af59@0.0.0.0")
    path = pcap(tmp_path / "call.pcap", [(CALLER, OURS, FULL), (OURS, TARGET, leg_b), (TARGET, OURS, answer_b)])
    result = run("rules", "explain", path, "--ours", OURS)
    assert "packet 1: INVITE" in result.output
    assert "packet 2" not in result.output
    assert "packet 3: SIP/2.0 200 OK   (b-to-a" in result.output


def test_events_as_a_recording(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    event = {
        "event": "message",
        "direction": "in",
        "leg": "a",
        "call": "c1",
        "flow": "tls:192.0.2.10:5061",
        "attempt": 2,
    }
    lines = [{**event, "message": FULL.decode()}, {**event, "direction": "out", "message": "x"}, {"event": "call-end"}]
    path.write_text("\n".join([json.dumps(line) for line in lines]))
    (one,) = read_recording(str(path))
    assert (one.data, one.direction, one.call, one.sender) == (FULL, "a-to-b", "c1", "192.0.2.10:5061")
    assert (one.transport, one.attempt) == ("tls", 2)


def test_no_capture(tmp_path: Path) -> None:
    path = tmp_path / "cut.pcap"
    path.write_bytes(b"\xd4\xc3\xb2\xa1\x02\x00")
    assert run("lint", path).exit_code == 2


# replay


def test_replay(tmp_path: Path) -> None:
    new = tmp_path / "new.yaml"
    text = (shipped_rules() / "twilio-openai.yaml").read_text().replace("name: twilio-openai", "name: new")
    new.write_text(text + "  - {id: no-diversion, why: w, when: {method: INVITE}, do: [{remove: Diversion}]}\n")
    path = pcap(tmp_path / "call.pcap", [(CALLER, OURS, FULL), (OURS, CALLER, ANSWER), (CALLER, OURS, FULL)])
    result = run("rules", "replay", path, "--rules", new)
    assert result.exit_code == 0
    for told in (
        "3 messages: 2 come out differently",
        "what comes out differently: 2 INVITE",
        "refused by the new rules alone: 0; by the old ones: 0",
        "-Diversion: <sip:+15550100001@198.51.100.77>;reason=unconditional",
    ):
        assert told in result.output
    assert "new/no-diversion" in result.output
    same = run("rules", "replay", path, "--rules", "twilio-openai")
    assert "3 messages: 0 come out differently" in same.output
    refusing = tmp_path / "refusing.yaml"
    refusing.write_text("version: 1\nname: no\nrules: [{id: no, why: w, do: [{reject: {status: 403}}]}]\n")
    assert "refused by the new rules alone: 2" in run("rules", "replay", path, "--rules", refusing).output


# lint


@pytest.mark.parametrize(
    ("snippet", "where", "what", "source"),
    [
        ("Contact: <sip:a@h;transport=tls;transport=tls>", "Contact", "transport twice", "RFC 3261 section 19.1.1"),
        ("Contact: <sip:a@h;transport=tls;transport=tls>", "Contact", "403 Forbidden", "trouble 3"),
        ("SIP/2.0 400 Bad Request", "status", "webhook service is slow", "trouble 1"),
        ("SIP/2.0 400 Invalid SDP offer", "status", "plainer offer", "trouble 2"),
        ("SIP/2.0 200 OK\n\nm=audio 4 RTP/AVP 0", "Content-Type", "OpenAI's 200 OK lacks it", "trouble 4"),
        ("SIP/2.0 200 OK\n\nm=audio 4 RTP/AVP 0", "Content-Type", "is missing", "RFC 3261 section 20.15"),
        ("SIP/2.0 400 Bad\nContent-Type: text/plain\n\nerror code: 504", "status", "webhook did arrive", "trouble 5"),
        ("CANCEL sip:a@h SIP/2.0", "CANCEL", "late 200", "trouble 6"),
        ("REFER sip:a@h SIP/2.0\nRefer-To: <tel:+15550100009>", "Refer-To", "tel: URI", "trouble 7"),
        ("BYE sip:a@h SIP/2.0", "Reason", "why the call ended", "trouble 8"),
        ("Content-Type: application/sdp\n\nm=audio 4 RTP/AVP 0", "m=audio", "SRTP with SDES", "trouble 9"),
        ("Content-Type: application/sdp\n\nm=audio 4 RTP/AVP 0\na=recvonly", "m=audio", "wait for ever", "trouble 10"),
        (
            "Content-Type: application/sdp\nContent-Type: application/sdp",
            "Content-Type",
            "2 times",
            "RFC 3261 section 7",
        ),
        ("From: <sip:a@h>", "From", "no tag", "RFC 3261 section 8.1.1.3"),
        ("CSeq: 1 BYE", "CSeq", "names BYE", "RFC 3261 section 8.1.1.5"),
        ("Max-Forwards: 0", "Max-Forwards", "483", "RFC 3261 section 16.3"),
        ("Via: SIP/2.0/UDP h;branch=1", "Via", "z9hG4bK", "RFC 3261 section 8.1.1.7"),
        ("X-A: 1\n folded", "X-A", "folded", "RFC 3261 section 7.3.1"),
        ("garbage", "garbage", "no header field", "RFC 3261 section 7.3.1"),
        ("Diversion: <sip:a", "Diversion", "malformed", "RFC 5806"),
        (
            "Content-Type: application/sdp\n\nm=audio 4 RTP/AVP 96",
            "m=audio",
            "without a=rtpmap",
            "RFC 8866 section 6.6",
        ),
        ("Content-Type: application/sdp\n\nm=audio 4 RTP/SAVP 0", "m=audio", "without a=crypto", "RFC 4568"),
        (
            "Content-Type: application/sdp\n\nm=audio 4 RTP/AVP 101\na=rtpmap:101 telephone-event/8000",
            "m=audio",
            "voice",
            "RFC 4733",
        ),
        ("Content-Type: application/sdp\n\nv=0\ns=-\nm=audio 4 RTP/AVP 0", "o=", "is missing", "RFC 8866 section 5.2"),
    ],
)
def test_lint(snippet: str, where: str, what: str, source: str) -> None:
    found = [(one.where, one.what, one.source) for one in lint_message(message(snippet).serialize())]
    assert [one for one in found if one[0] == where and what in one[1] and one[2].startswith(source)], found


@pytest.mark.parametrize("missing", ["Via", "From", "To", "Call-ID", "CSeq", "Max-Forwards", "Contact"])
def test_lint_misses(missing: str) -> None:
    lines = [
        line for line in message("X: 1").serialize().split(b"\r\n") if not line.startswith(missing.encode() + b":")
    ]
    assert ("error", missing, "is missing") in [
        (one.level, one.where, one.what) for one in lint_message(b"\r\n".join(lines))
    ]


def test_lint_of_what_is_right() -> None:
    right = f"Content-Type: application/sdp\nContent-Length: 0\n\n{SDP.replace('172.18.165.214', '203.0.113.1')}"
    assert lint_message(from_text(message(right).serialize())) == []


@pytest.mark.parametrize("path", TORTURE, ids=lambda path: path.stem)
def test_lint_never_fails(path: Path) -> None:
    for data in (path.read_bytes(), from_text(path.read_bytes())):
        assert all(one.source.startswith(("RFC", "trouble", "what", "draft")) for one in lint_message(data))


def test_lint_command() -> None:
    result = run("lint", INVITE_FILE)
    assert result.exit_code == 0
    assert "o= has an address of an inner network, 172.18.165.214 [RFC 8866 section 5.2]" in result.output
    assert run("lint", "-", text="INVITE sip:a@h SIP/2.0\nFrom: <sip:a@h>\n\n").exit_code == 1


# schema


@pytest.mark.parametrize("path", sorted(shipped_rules().glob("*.yaml")), ids=lambda path: path.stem)
def test_shipped_files_fit_the_schema(path: Path) -> None:
    jsonschema.Draft202012Validator.check_schema(json_schema())
    jsonschema.validate(yaml.safe_load(path.read_text()), json_schema(), cls=jsonschema.Draft202012Validator)


@pytest.mark.parametrize(
    "rule",
    [
        "{id: a, why: w, do: [{remov: X-A}]}",
        "{id: a, why: w, do: [{remove: Via}]}",
        "{id: a, why: w, do: [{remove: X-A, add: {header: X, value: y}}]}",
        "{id: A B, why: w, do: [{remove: X-A}]}",
        "{id: a, do: [{remove: X-A}]}",
        "{id: a, why: w}",
        "{id: a, why: w, when: {metod: INVITE}, do: [{remove: X-A}]}",
        "{id: a, why: w, when: {method: INVTE}, do: [{remove: X-A}]}",
        "{id: a, why: w, when: {not: {any: [{metod: INVITE}]}}, do: [{remove: X-A}]}",
        "{id: a, why: w, when: {header: {name: X}}, do: [{remove: X-A}]}",
        "{id: a, why: w, when: {status: 4x}, do: [{remove: X-A}]}",
        "{id: a, why: w, do: [{sdp: {codcs: safe}}]}",
        "{id: a, why: w, do: [{set: {header: From, value: x}}]}",
        "{id: a, why: w, do: [{reject: {status: 200}}]}",
        "{id: a, why: w, do: [{remove: X-A}], cases: [{in: 'X: 1'}]}",
    ],
)
def test_schema_and_compiler_refuse_the_same(rule: str) -> None:
    text = f"version: 1\nname: mine\nrules:\n  - {rule}\n"
    with pytest.raises(RuleFileError):
        load_text(text, "mine.yaml")
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(yaml.safe_load(text), json_schema(), cls=jsonschema.Draft202012Validator)


def test_schema_command_and_completion() -> None:
    printed = json.loads(run("rules", "schema").output)
    assert printed == json_schema()
    assert "Whether the body is SDP." in printed["$defs"]["when"]["properties"]["has-sdp"]["description"]
    names = [next(iter(action["properties"])) for action in printed["$defs"]["action"]["oneOf"]]
    assert {"remove", "sdp", "reject", "include"} <= set(names)
    assert all(
        next(iter(action["properties"].values()))["description"] for action in printed["$defs"]["action"]["oneOf"]
    )


# fmt


UGLY = """# mine
name:   my-trunk
version: 1
rules:
- why:   Because.   # why not
  do:
  - remove:   X-A
  id: one
  cases:
  - out: 'X-B: 2'
    in: |
      X-A: 1
      X-B: 2
- {id: two, why: w, do: [{remove: X-C}]}
"""
PRETTY = """# mine
version: 1
name: my-trunk
rules:
  - id: one
    why: Because.   # why not
    do:
      - remove: X-A
    cases:
      - in: |
          X-A: 1
          X-B: 2
        out: 'X-B: 2'

  - {id: two, why: w, do: [{remove: X-C}]}
"""


def test_format() -> None:
    assert format_rules(UGLY, "x") == PRETTY
    assert format_rules(PRETTY, "x") == PRETTY


@pytest.mark.parametrize("path", sorted(shipped_rules().glob("*.yaml")), ids=lambda path: path.stem)
def test_shipped_files_are_formatted(path: Path) -> None:
    assert format_rules(path.read_text(), str(path)) == path.read_text()


def test_format_command(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(UGLY)
    assert run("rules", "fmt", "--check", path).exit_code == 1
    assert path.read_text() == UGLY
    assert run("rules", "fmt", path).exit_code == 0
    assert path.read_text() == PRETTY
    assert run("rules", "fmt", "--check", path).exit_code == 0
    path.write_text("a: [")
    assert run("rules", "fmt", path).exit_code == 2
