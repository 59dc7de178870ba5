"""Bugs that other servers had in the field, each with the shipped rules in between."""

import pytest

from proxy.sip.message import Request
from tests.b2bua.conftest import BenchMaker
from tests.support.bench import ANSWER, OFFER, Bench, message_text
from tests.support.rules import shipped


@pytest.fixture(params=["twilio-openai", "minimal"])
def bench(request: pytest.FixtureRequest, make_bench: BenchMaker) -> Bench:
    return make_bench(rules=(shipped(request.param),))


def raw_invite(bench: Bench, *lines: str, body: str = OFFER, length: str = "Content-Length: {}") -> None:
    """An INVITE whose body headers the test writes itself."""
    head = [
        "INVITE sip:+15550100001@198.51.100.1 SIP/2.0",
        "Via: SIP/2.0/UDP 192.0.2.10:5060;branch=z9hG4bKraw",
        "Max-Forwards: 70",
        "From: <sip:+15550100002@192.0.2.10>;tag=caller",
        "To: <sip:+15550100001@198.51.100.1>",
        "Call-ID: call-1",
        "CSeq: 1 INVITE",
        "Contact: <sip:+15550100002@192.0.2.10>",
        *lines,
        length.format(len(body)),
    ]
    bench.receive("\r\n".join([*head, "", body]), bench.caller_flow)


@pytest.mark.parametrize("name", ["c", "C", "content-type", "CONTENT-TYPE", "Content-Type  "])
def test_compact_content_type_gets_no_second_one_beside_it(bench: Bench, name: str) -> None:
    """OpenSIPS."""
    raw_invite(bench, f"{name}: application/sdp")
    assert bench.invites[0].get_all("content-type") == ["application/sdp"]
    bench.respond(200, "OK", body=ANSWER, content_type="", extra="c: application/sdp")
    assert bench.last_response.get_all("content-type") == ["application/sdp"]


@pytest.mark.parametrize(
    "length",
    ["Content-Length:  {}", "Content-Length :{}", "l:   {}", "L: {}", "Content-Length:\t{}", "Content-Length:\r\n  {}"],
)
def test_content_length_with_odd_spaces_is_read_and_written_once(bench: Bench, length: str) -> None:
    """Kamailio."""
    raw_invite(bench, "Content-Type: application/sdp", length=length)
    invite = bench.invites[0]
    assert invite.get_all("content-length") == [str(len(invite.body))]
    assert invite.body


def test_doubled_singletons_are_repaired(bench: Bench) -> None:
    """A published trace of a Twilio INVITE."""
    raw_invite(
        bench,
        "Content-Type: application/sdp",
        "Content-Type: application/sdp",
        f"Content-Length: {len(OFFER)}",
        "User-Agent: a",
        "User-Agent: b",
    )
    invite = bench.invites[0]
    for key in ("content-type", "content-length", "user-agent"):
        assert len(invite.get_all(key)) == 1, key


def test_folded_headers_are_matched_and_removed_like_others(bench: Bench) -> None:
    """SEMS let a folded header through its filter."""
    raw_invite(
        bench,
        "P-Asserted-Identity:\r\n <sip:+15550100002@172.16.5.5:5060>",
        "Record-Route:\r\n\t<sip:10.9.8.7;lr>",
        "P-Charging-Vector: icid-value=1;\r\n icid-generated-at=10.1.2.3",
        "Content-Type: application/sdp",
    )
    text = bench.invites[0].serialize()
    for secret in (b"172.16.5.5", b"10.9.8.7", b"10.1.2.3", b"\r\n\t", b"\r\n "):
        assert secret not in text


def test_codec_filter_that_would_leave_telephone_event_alone_refuses_with_488(bench: Bench) -> None:
    """SEMS sent such an offer on."""
    offer = OFFER.replace("RTP/AVP 0 101", "RTP/AVP 18 101").replace("rtpmap:0 PCMU", "rtpmap:18 G729")
    raw_invite(bench, "Content-Type: application/sdp", body=offer)
    assert bench.caller_saw == ["100 INVITE", "488 INVITE"]
    assert bench.last_response.reason
    assert bench.target_saw == []


@pytest.mark.parametrize("params", [";transport=tls;transport=tls", ";user=phone;User=phone"])
def test_doubled_uri_parameters_do_not_reach_the_target(bench: Bench, params: str) -> None:
    """OpenAI answers 403 to them."""
    headers = [
        "Via: SIP/2.0/UDP 192.0.2.10:5060;branch=z9hG4bKraw",
        f"From: <sip:+15550100002@192.0.2.10{params}>;tag=caller",
        f"To: <sip:+15550100001@198.51.100.1{params}>",
        "Call-ID: call-1",
        "CSeq: 1 INVITE",
        f"Contact: <sip:+15550100002@192.0.2.10{params}>",
        f"P-Asserted-Identity: <sip:+15550100002@192.0.2.10{params}>",
    ]
    start = f"INVITE sip:+15550100001@198.51.100.1{params} SIP/2.0"
    bench.receive(message_text(start, headers, OFFER), bench.caller_flow)
    text = bench.invites[0].serialize().decode().lower()
    assert "transport=tls;transport=tls" not in text
    assert "user=phone;user=phone" not in text


def test_max_forwards_is_on_every_request_that_we_make(make_bench: BenchMaker) -> None:
    """SEMS left it out of CANCEL and ACK."""
    bench = make_bench()
    branch = bench.invite()
    bench.respond(180)
    bench.caller_request("CANCEL", branch=branch)
    bench.respond(487)
    bench.invite(call_id="call-2")
    bench.respond(200, "OK", body=ANSWER)
    bench.caller_request("ACK", call_id="call-2")
    bench.caller_request("BYE", call_id="call-2")
    requests = [message for message in bench.to_target if isinstance(message, Request)]
    assert {request.method for request in requests} == {"INVITE", "CANCEL", "ACK", "BYE"}
    for request in requests:
        assert request.get("max-forwards")


def test_200_without_content_type_reaches_the_caller_complete(make_bench: BenchMaker) -> None:
    """OpenAI's; Asterisk answers it with ACK and BYE."""
    bench = make_bench(rules=(shipped(),))
    bench.invite()
    answer = ANSWER.replace("a=rtpmap:0 PCMU/8000\r\n", "").replace(
        "a=sendrecv\r\n", "a=ptime:20\r\na=rtpmap:0 PCMU/8000\r\n"
    )
    bench.respond(200, "OK", body=answer, content_type="", contact="<sip:OAI@sip.example.com:5061>")
    response = bench.last_response
    assert response.content_type == "application/sdp"
    assert b"m=audio 5000 RTP/AVP 0 101" in response.body
    assert response.get("content-length") == str(len(response.body))
