"""The message model: header fields, lookups, views, serializing."""

import pytest

from proxy.sip.errors import SipError
from proxy.sip.message import (
    COMPACT_FORMS,
    HEADER_KEYS,
    Header,
    Request,
    Response,
    canonical_key,
    header,
    read_header,
)
from proxy.sip.parser import parse_message
from tests.sip.samples import OPENAI_200, TWILIO_INVITE


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("v", "via"),
        ("V", "via"),
        ("VIA", "via"),
        ("Call-Id", "call-id"),
        ("I", "call-id"),
        ("x-TWILIO-callsid", "x-twilio-callsid"),
        (" Subject ", "subject"),
        ("q", "q"),
        ("X", "session-expires"),
    ],
)
def test_key(name: str, key: str) -> None:
    assert canonical_key(name) == key


def test_table_of_known_names_says_what_the_rule_says() -> None:
    for name, key in HEADER_KEYS.items():
        lower = name.lower()
        assert key == COMPACT_FORMS.get(lower, lower)


@pytest.mark.parametrize(
    ("line", "name", "key", "value"),
    [
        ("Via: x", "Via", "via", "x"),
        ("v:x", "v", "via", "x"),
        ("Subject  :  x ", "Subject", "subject", "x"),
        ("TO\t:", "TO", "to", ""),
        ("X-A: b: c", "X-A", "x-a", "b: c"),
        ("To:\r\n <sip:a@h>\r\n\t;tag=x", "To", "to", "<sip:a@h> ;tag=x"),
        ("X: a\r\n \r\n b", "X", "session-expires", "a  b"),
        ("X-A: \u00a0é\udcff", "X-A", "x-a", "\u00a0é\udcff"),
        ("no colon", "", "", "no colon"),
        ("Via", "", "", "Via"),
        ("X A: b", "", "", "X A: b"),
        (": b", "", "", ": b"),
        (" X: b", "", "", " X: b"),
        ("É: b", "", "", "É: b"),
        ("l\r\n : 5", "", "", "l\r\n : 5"),
    ],
)
def test_header_line(line: str, name: str, key: str, value: str) -> None:
    item = read_header(line)
    assert (item.name, item.key, item.value, item.line) == (name, key, value, line)
    assert repr(item) == f"Header({line!r})"


def test_built_header() -> None:
    item = header("v", "SIP/2.0/UDP h")
    assert (item.name, item.key, item.value, item.line) == ("v", "via", "SIP/2.0/UDP h", "v: SIP/2.0/UDP h")
    assert header("X-Own", "").line == "X-Own: "


@pytest.mark.parametrize("value", ["a\r\nb", "a\rb", "a\nb", "a\x00b", "\n", "a\r\n b", "\\\x00"])
def test_header_value_can_not_break_the_line(value: str) -> None:
    with pytest.raises(ValueError, match="line break or NUL"):
        header("X-A", value)


@pytest.mark.parametrize("name", ["", " ", "X A", "X:", "X\r\n", "X\x00", "É", "Via ", "To\n"])
def test_header_name_is_a_token(name: str) -> None:
    with pytest.raises(ValueError, match="not a header name"):
        header(name, "x")


def test_lookups_of_a_parsed_message() -> None:
    invite = parse_message(TWILIO_INVITE)
    assert isinstance(invite, Request)
    assert invite.get("user-agent") == "Twilio Gateway"
    assert invite.get("subject") is None
    assert invite.get_all("record-route") == [
        "<sip:192.0.2.10:5061;transport=tls;r2=on;lr>",
        "<sip:192.0.2.10;r2=on;lr>",
    ]
    assert invite.lines("record-route")[1] == "Record-Route: <sip:192.0.2.10;r2=on;lr>"
    assert invite.lines("subject") == []
    assert invite.get_all("subject") == []
    assert invite.values("allow") == ["ACK", "BYE", "CANCEL", "INVITE", "OPTIONS", "REFER", "NOTIFY"]
    assert [key for key, _ in invite.repeated()] == ["record-route", "via"]
    assert len(invite.headers) == 18
    assert invite.headers is invite.headers


def test_lookups_of_a_built_message_are_the_same() -> None:
    parsed = parse_message(TWILIO_INVITE)
    assert isinstance(parsed, Request)
    built = Request(parsed.method, parsed.uri, list(parsed.headers), parsed.body)
    for key in {item.key for item in parsed.headers}:
        assert built.get(key) == parsed.get(key)
        assert built.lines(key) == parsed.lines(key)
    assert built.repeated() == parsed.repeated()
    assert built.serialize() == parsed.serialize() == TWILIO_INVITE


def test_views() -> None:
    invite = parse_message(TWILIO_INVITE)
    assert isinstance(invite, Request)
    assert invite.call_id == "fb3e6e86a53e3094ed17b4776a69af59@0.0.0.0"
    assert (invite.cseq.number, invite.cseq.method) == (29044, "INVITE")
    assert (invite.via.transport, invite.via.sent_by) == ("TLS", "192.0.2.10:5061")
    assert invite.from_.uri.user == "+15550100002"
    assert invite.to.uri.param("transport") == "tls"
    assert invite.contact is not None
    assert invite.contact.uri.host == "172.25.75.240"
    assert invite.request_uri.host == "edge.example.com"
    assert invite.content_type == "application/sdp"
    for name in ("cseq", "via", "from_", "to", "contact", "request_uri"):
        assert getattr(invite, name) is getattr(invite, name)
    assert repr(invite) == "<Request INVITE sip:+15550100001@edge.example.com;transport=tls>"


def test_answer_without_content_type() -> None:
    answer = parse_message(OPENAI_200)
    assert isinstance(answer, Response)
    assert (answer.status, answer.reason, answer.content_type) == (200, "OK", "")
    assert answer.body.startswith(b"v=0")
    assert answer.serialize() == OPENAI_200
    assert repr(answer) == "<Response 200 OK>"


@pytest.mark.parametrize("name", ["call_id", "cseq", "via", "from_", "to"])
def test_missing_header_is_named(name: str) -> None:
    empty = Request("INVITE", "sip:h", [])
    with pytest.raises(SipError, match="Missing"):
        getattr(empty, name)


def test_contact() -> None:
    def contact(value: str) -> Request:
        return Request("REGISTER", "sip:h", [header("m", value)])

    assert contact("*").contact is None
    assert Request("INVITE", "sip:h", []).contact is None
    first = contact('"a, b" <sip:a@h>, <sip:b@h>').contact
    assert first is not None
    assert first.uri.user == "a"


@pytest.mark.parametrize(
    ("value", "media_type"), [("Application/SDP", "application/sdp"), ("a/b ; c=d", "a/b"), ("", "")]
)
def test_content_type(value: str, media_type: str) -> None:
    assert Request("INVITE", "sip:h", [header("c", value)]).content_type == media_type


def test_built_start_lines() -> None:
    assert Request("BYE", "sip:h", []).serialize() == b"BYE sip:h SIP/2.0\r\n\r\n"
    assert Response(486, "Busy é", [], b"x").serialize() == "SIP/2.0 486 Busy é\r\n\r\nx".encode()


@pytest.mark.parametrize(
    ("method", "uri"), [("IN VITE", "sip:h"), ("", "sip:h"), ("BYE", "sip:h\r\n"), ("BYE", "sip:a b"), ("BYE", "a\tb")]
)
def test_request_line_can_not_be_broken(method: str, uri: str) -> None:
    with pytest.raises(ValueError, match="not a request line"):
        Request(method, uri, [])


@pytest.mark.parametrize("reason", ["OK\r\nX: y", "OK\n", "\x00"])
def test_status_line_can_not_be_broken(reason: str) -> None:
    with pytest.raises(ValueError, match="reason phrase"):
        Response(200, reason, [])


def test_any_bytes_survive() -> None:
    data = b"MESSAGE sip:h SIP/2.0\r\nX-\xc3\xa9: 1\r\nSubject: \xff\xfe\xc3\xa9\r\n\r\n\x00\xff"
    parsed = parse_message(data)
    assert parsed.get("subject") == "\udcff\udcfeé"
    assert parsed.serialize() == data
    assert [item.key for item in parsed.headers] == ["", "subject"]


def test_header_is_a_plain_value() -> None:
    item = Header("to", "To: x")
    with pytest.raises(AttributeError):
        item.other = 1  # type: ignore[attr-defined]
