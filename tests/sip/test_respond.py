"""Responses of our own, and the marks in Via."""

import pytest

from proxy.sip.message import Request, Response
from proxy.sip.parser import MalformedMessage, check_response, parse_message
from proxy.sip.respond import REASON_PHRASES, make_response, marked_via_lines
from tests.sip.samples import TWILIO_BYE, TWILIO_INVITE, wire

HERE = ("192.0.2.10", 5061)
ELSEWHERE = ("203.0.113.9", 40_001)


def request(data: bytes) -> Request:
    found = parse_message(data)
    assert isinstance(found, Request)
    return found


def asking(via: str, *more: str) -> Request:
    lines = ["OPTIONS sip:h SIP/2.0", f"Via: {via}", "From: <sip:a@h>;tag=1", "To: <sip:b@h>", "Call-ID: c"]
    return request(wire("\n".join([*lines, "CSeq: 1 OPTIONS", *more])))


def test_response_to_an_invite() -> None:
    response = make_response(request(TWILIO_INVITE), 180, remote=HERE, to_tag="ours")
    assert response.serialize() == wire(
        """
SIP/2.0 180 Ringing
Via: SIP/2.0/TLS 192.0.2.10:5061;branch=z9hG4bK1dc3.f822d4f6a9d2c3b351d555992ddc6b78.0
Via: SIP/2.0/UDP 172.25.75.240:5060;rport=5060;branch=z9hG4bK658bbbdc-370e-4c02-862b-9f5807568f80_c3356d0b_588-1
From: <sip:+15550100002@trunk.pstn.example.net:5060>;tag=08601002_c3356d0b_658bbbdc-370e-4c02-862b-9f5807568f80
To: <sip:+15550100001@edge.example.com;transport=tls>;tag=ours
Call-ID: fb3e6e86a53e3094ed17b4776a69af59@0.0.0.0
CSeq: 29044 INVITE
Content-Length: 0
"""
    )
    check_response_but_via(response)


def check_response_but_via(response: Response) -> None:
    """A response with the Via of a whole path is none for us, but well formed else."""
    lines = [item for item in response.headers if item.key != "via"]
    check_response(Response(response.status, response.reason, [response.headers[0], *lines]))


def test_reason_headers_and_body() -> None:
    response = make_response(
        request(TWILIO_BYE), 488, "No common codec", headers=(("Warning", "305 h x"), ("Server", "t")), body=b"abc"
    )
    assert (response.status, response.reason, response.body) == (488, "No common codec", b"abc")
    assert [item.line for item in response.headers][-3:] == ["Warning: 305 h x", "Server: t", "Content-Length: 3"]
    assert make_response(request(TWILIO_BYE), 299).reason == ""
    assert REASON_PHRASES[481] == "Call/Transaction Does Not Exist"


@pytest.mark.parametrize(
    "arguments",
    [
        {"reason": "OK\r\nX: y"},
        {"headers": (("Warning", "x\r\nY: z"),)},
        {"headers": (("War ning", "x"),)},
        {"to_tag": "x\r\ny"},
        {"to_tag": "x;y"},
    ],
)
def test_nothing_can_be_injected(arguments: dict[str, str]) -> None:
    with pytest.raises(ValueError, match=r"line break|header name|tag"):
        make_response(request(TWILIO_INVITE), 400, **arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("to", "answered"),
    [
        ("<sip:b@h>", "<sip:b@h>;tag=ours"),
        ("sip:b@h", "sip:b@h;tag=ours"),
        ("<sip:b@h>;x=y", "<sip:b@h>;x=y;tag=ours"),
        ("<sip:b@h>;tag=1", "<sip:b@h>;tag=1"),
        ("<sip:b@h> ; TAG = 1", "<sip:b@h> ; TAG = 1"),
        ("<sip:b@h;tag=1>", "<sip:b@h;tag=1>;tag=ours"),
        ('"x;tag=1" <sip:b@h>', '"x;tag=1" <sip:b@h>;tag=ours'),
        ('"Bell <sip:b@h>', '"Bell <sip:b@h>'),
    ],
)
def test_tag_of_to(to: str, answered: str) -> None:
    asked = request(TWILIO_INVITE.replace(b"<sip:+15550100001@edge.example.com;transport=tls>", to.encode()))
    assert make_response(asked, 200, to_tag="ours").get("to") == answered
    assert make_response(asked, 100, to_tag="ours").get("to") == to
    assert make_response(asked, 200).get("to") == to


def test_escaped_nul_is_given_back() -> None:
    asked = request(TWILIO_INVITE.replace(b"To: <", b'To: "\\\x00" <'))
    assert make_response(asked, 501, to_tag="ours").to.display == '"\\\x00"'


def test_timestamp_is_for_a_100_only() -> None:
    asked = asking("SIP/2.0/UDP h", "Timestamp: 54", "Timestamp: 55")
    assert make_response(asked, 100).get_all("timestamp") == ["54"]
    assert make_response(asked, 200).get("timestamp") is None


def test_what_stands_twice_stands_once_in_the_response() -> None:
    asked = asking("SIP/2.0/UDP h", "i: c", "f: <sip:a@h>;tag=1", "t: <sip:b@h>", "CSeq: 1 OPTIONS")
    response = make_response(asked, 200, to_tag="ours")
    assert response.repeated() == []
    assert len(response.headers) == 6


@pytest.mark.parametrize(
    ("via", "remote", "marked"),
    [
        ("SIP/2.0/UDP 192.0.2.10:5061;branch=b", HERE, None),
        ("SIP/2.0/UDP 192.0.2.10;branch=b", HERE, None),
        (
            "SIP/2.0/UDP 192.0.2.10:5061;branch=b",
            ELSEWHERE,
            "SIP/2.0/UDP 192.0.2.10:5061;branch=b;received=203.0.113.9",
        ),
        ("SIP/2.0/UDP host.example.com", HERE, "SIP/2.0/UDP host.example.com;received=192.0.2.10"),
        (
            "SIP/2.0/UDP 192.0.2.10;rport;branch=b",
            HERE,
            "SIP/2.0/UDP 192.0.2.10;rport=5061;branch=b;received=192.0.2.10",
        ),
        ("SIP/2.0/UDP 10.0.0.1;RPORT=;b", ELSEWHERE, "SIP/2.0/UDP 10.0.0.1;RPORT=40001;b;received=203.0.113.9"),
        ("SIP/2.0/UDP 10.0.0.1;rport=9", ELSEWHERE, "SIP/2.0/UDP 10.0.0.1;rport=9;received=203.0.113.9"),
        ("SIP/2.0/UDP 10.0.0.1;received=1.2.3.4", ELSEWHERE, "SIP/2.0/UDP 10.0.0.1;received=203.0.113.9"),
        ("SIP/2.0/UDP [2001:db8::1]", ("2001:db8::1", 5060), None),
        (
            "SIP/2.0/UDP [2001:db8::1];rport",
            ("2001:db8::2", 9),
            "SIP/2.0/UDP [2001:db8::1];rport=9;received=2001:db8::2",
        ),
        (
            "SIP/2.0/UDP a;rport, SIP/2.0/TCP b;rport",
            HERE,
            "SIP/2.0/UDP a;rport=5061;received=192.0.2.10, SIP/2.0/TCP b;rport",
        ),
        ("SIP/2.0/UDP a;;", HERE, None),
        ("SIP/3.0/UDP a", HERE, None),
    ],
)
def test_marks_of_via(via: str, remote: tuple[str, int], marked: str | None) -> None:
    asked = asking(via, "v: SIP/2.0/UDP 10.0.0.9;rport")
    lines = marked_via_lines(asked, remote)
    assert [item.value for item in lines] == [marked or via, "SIP/2.0/UDP 10.0.0.9;rport"]
    assert make_response(asked, 200, remote=remote).get_all("via") == [item.value for item in lines]
    assert make_response(asked, 200).get_all("via") == asked.get_all("via")
    assert lines[1].line == "v: SIP/2.0/UDP 10.0.0.9;rport"


def test_request_without_anything() -> None:
    bare = Request("OPTIONS", "sip:h", [])
    assert marked_via_lines(bare, HERE) == []
    assert make_response(bare, 400, remote=HERE, to_tag="ours").serialize() == wire(
        "SIP/2.0 400 Bad Request\nContent-Length: 0"
    )


def test_answer_to_a_malformed_message() -> None:
    with pytest.raises(MalformedMessage) as caught:
        parse_message(TWILIO_INVITE.replace(b"INVITE sip", b"INVITE  sip"))
    assert caught.value.partial is not None
    response = make_response(caught.value.partial, caught.value.status, caught.value.reason, remote=HERE, to_tag="ours")
    assert (response.status, response.reason) == (400, "Malformed request line")
    assert response.to.tag == "ours"
    assert len(response.get_all("via")) == 2
