"""INVITEs in Twilio's shape."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.sdp.session import Session
from proxy.sim.shape import (
    PROBLEMS,
    make_caller,
    make_identity,
    make_invite,
    make_origin,
    make_vias,
    record_routes,
)
from proxy.sip.flow import Flow
from proxy.sip.message import Request
from proxy.sip.parser import check_request, parse_message

EDGE = "192.0.2.10:5061"
URI = "sip:+15550100001@edge.example.com;transport=tls"


def invite(problem: str | None, seed: int = 0, *, srtp: bool = True, uri: str = URI, cancel: bool = False) -> Request:
    source = random.Random(seed)
    flow = Flow("tls", ("127.0.0.1", 5061), ("127.0.0.1", 5061), "127.0.0.1:5061")
    caller = make_caller(0, source, problem, cancel)
    identity = make_identity(source)
    vias = make_vias(flow, EDGE, source, identity.gateway_branch)
    return make_invite(caller, identity, uri, vias, record_routes(flow, EDGE), make_origin(source), srtp)


def sdp(request: Request) -> list[str]:
    return request.body.decode().split("\r\n")[:-1]


def test_headers_come_in_the_order_of_the_capture() -> None:
    request = invite(None)
    assert [item.name for item in request.headers] == [
        "Record-Route",
        "Record-Route",
        "From",
        "To",
        "CSeq",
        "Max-Forwards",
        "P-Asserted-Identity",
        "Diversion",
        "Call-ID",
        "Via",
        "Via",
        "Contact",
        "Allow",
        "X-Twilio-AccountSid",
        "User-Agent",
        "Content-Type",
        "X-Twilio-CallSid",
        "Content-Length",
    ]


def test_values_have_the_shape_of_the_capture() -> None:
    request = invite(None)
    assert request.get_all("record-route") == [
        "<sip:192.0.2.10:5061;transport=tls;r2=on;lr>",
        "<sip:192.0.2.10;r2=on;lr>",
    ]
    number = request.from_.uri.user
    assert request.get("contact") == f"<sip:{number}@172.25.75.240:5060;transport=udp>"
    assert request.get("p-asserted-identity") == f"<sip:{number}@198.51.100.12:5060>"
    assert request.get("to") == f"<{URI}>"
    assert [value.split(";")[0] for value in request.get_all("via")] == [
        "SIP/2.0/TLS 192.0.2.10:5061",
        "SIP/2.0/UDP 172.25.75.240:5060",
    ]
    media = sdp(request)
    assert media[1].startswith("o=root ")
    assert media[1].endswith(" IN IP4 172.18.165.214")
    assert media[2:5] == ["s=Twilio Media Gateway", "c=IN IP4 203.0.113.121", "t=0 0"]
    assert media[5].endswith(" RTP/SAVP 0 8 101")
    assert media[6].startswith("a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:")
    assert media[7:] == [
        "a=rtpmap:0 PCMU/8000",
        "a=rtpmap:8 PCMA/8000",
        "a=rtpmap:101 telephone-event/8000",
        "a=fmtp:101 0-16",
        "a=ptime:20",
        "a=maxptime:20",
        "a=sendrecv",
    ]


def test_without_secure_trunking_there_is_no_crypto() -> None:
    media = sdp(invite(None, srtp=False))
    assert media[5].endswith(" RTP/AVP 0 8 101")
    assert not [line for line in media if line.startswith("a=crypto")]


@pytest.mark.parametrize(
    ("problem", "expected"),
    [
        ("duplicate-content-type", ["Content-Type: application/sdp", "Content-Type: application/sdp"]),
        ("session-timer", ["Supported: timer", "Min-SE: 120"]),
        ("privacy", ["Privacy: none"]),
    ],
)
def test_header_problems_are_there(problem: str, expected: list[str]) -> None:
    names = {line.partition(":")[0] for line in expected}
    assert [item.line for item in invite(problem).headers if item.name in names] == expected


def test_folded_headers_unfold_to_the_same_values() -> None:
    plain, folded = invite(None), invite("folded-headers")
    assert sum("\r\n" in item.line for item in folded.headers) == 2
    parsed = parse_message(folded.serialize())
    for key in ("p-asserted-identity", "diversion"):
        assert (parsed.get(key) or "").replace(" ;", ";") == plain.get(key)


def test_uri_parameters_stand_twice_in_all_three_places() -> None:
    request = invite("duplicate-uri-params")
    assert request.uri == f"{URI};transport=tls"
    assert request.get("to") == f"<{request.uri}>"
    assert (request.get("contact") or "").endswith(";transport=udp;transport=udp>")
    assert invite("duplicate-uri-params", uri="sip:a@b").uri == "sip:a@b;transport=udp;transport=udp"


def test_sdp_problems_are_there() -> None:
    assert sdp(invite("maxptime-first"))[7] == "a=maxptime:20"
    assert " 107 0 8 101" in sdp(invite("opus-107"))[5]
    assert sdp(invite("dangling-rtpmap")).count("a=rtpmap:0 PCMU/8000") == 2
    assert "a=rtpmap:18 G729/8000" in sdp(invite("dangling-rtpmap"))
    assert sdp(invite("private-origin"))[1].endswith(" IN IP4 10.0.0.5")
    assert "a=setup:actpass" in sdp(invite("webrtc-attributes"))


def test_names_are_odd() -> None:
    assert {"v", "f", "t", "i", "m", "c", "l"} <= {item.name for item in invite("compact-names").headers}
    assert {"from", "TO", "call-id", "X-TWILIO-ACCOUNTSID"} <= {item.name for item in invite("odd-casing").headers}


@given(problem=st.sampled_from((None, *PROBLEMS)), seed=st.integers(0, 2**32))
def test_every_kind_is_a_valid_request_with_the_same_meaning(problem: str | None, seed: int) -> None:
    """Odd as they are, RFC 3261 and RFC 8866 let all of them be understood."""
    request = parse_message(invite(problem, seed).serialize())
    assert isinstance(request, Request)
    check_request(request)
    assert len(request.values("via")) == 2
    assert Session.parse(request.body).media[0].codecs
    assert (request.from_.uri.user or "").startswith("+1555010")
    assert len(request.from_.uri.user or "") == 12
