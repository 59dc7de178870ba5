"""Whole messages: what parses, what is refused and with which answer, and the checks of requests and responses."""

import pytest

from proxy.sip.errors import SipError
from proxy.sip.message import Request, Response
from proxy.sip.parser import MAX_HEAD_BYTES, MalformedMessage, check_request, check_response, parse_message
from tests.sip.samples import ANSWER, CANCEL, OFFER, OPENAI_200, TWILIO_BYE, TWILIO_INVITE, wire


def parse_request(data: bytes) -> Request:
    found = parse_message(data)
    assert isinstance(found, Request)
    return found


def parse_response(data: bytes) -> Response:
    found = parse_message(data)
    assert isinstance(found, Response)
    return found


def edited(data: bytes, before: str, after: str) -> bytes:
    assert before.encode() in data
    return data.replace(before.encode(), after.encode("utf-8", "surrogateescape"), 1)


OPTIONS = wire(
    """
OPTIONS sip:h SIP/2.0
Via: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bK1
From: <sip:a@h>;tag=1
To: <sip:b@h>
Call-ID: c
CSeq: 1 OPTIONS
"""
)


@pytest.mark.parametrize("data", [TWILIO_INVITE, TWILIO_BYE, CANCEL, OPTIONS])
def test_real_requests_pass(data: bytes) -> None:
    found = parse_request(data)
    check_request(found)
    assert found.serialize() == data


def test_real_response_passes() -> None:
    found = parse_response(OPENAI_200)
    check_response(found)
    assert found.body == ANSWER


def test_second_content_type_and_length_of_the_same_value_pass() -> None:
    """One published trace of Twilio has both twice."""
    double = f"Content-Type: application/sdp\r\nl: {len(OFFER):04}\r\nContent-Type: application/sdp\r\n"
    data = edited(TWILIO_INVITE, "Content-Type: application/sdp\r\n", double)
    found = parse_request(data)
    check_request(found)
    assert found.body == OFFER
    assert found.serialize() == data


@pytest.mark.parametrize(
    "line",
    [
        "Call-ID: fb3e6e86a53e3094ed17b4776a69af59@0.0.0.0",
        "i: fb3e6e86a53e3094ed17b4776a69af59@0.0.0.0",
        "CSeq: 29044 INVITE",
        "Max-Forwards: 60",
    ],
)
def test_equal_copy_of_a_single_header_passes(line: str) -> None:
    check_request(parse_request(edited(TWILIO_INVITE, "Allow:", f"{line}\r\nAllow:")))


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("Call-ID: other", "Call-ID"),
        ("I : other", "I"),
        ("CSeq: 29045 INVITE", "CSeq"),
        ("Max-Forwards: 61", "Max-Forwards"),
        ("f: <sip:x@h>;tag=1", "f"),
        ("TO: <sip:x@h>", "TO"),
    ],
)
def test_second_other_value_of_a_single_header_is_refused(line: str, name: str) -> None:
    found = parse_request(edited(TWILIO_INVITE, "Allow:", f"{line}\r\nAllow:"))
    with pytest.raises(SipError, match=f"400 More than one {name} header"):
        check_request(found)


def test_odd_spelling() -> None:
    data = wire(
        """
MESSAGE sip:h SIP/2.0
v:SIP/2.0/UDP 192.0.2.1;branch=z9hG4bK1,
\tSIP/2.0/UDP 192.0.2.2
F  : "A \\"q\\" B"
 <sip:a@h>
 ;tag=1
TO :<sip:b@h>
i: c
CSEQ:  1
\tMESSAGE
Subject  :  x
Content-Length:  {length}
X-Äh: kept
""",
        b"hello",
    )
    found = parse_request(data)
    check_request(found)
    assert found.values("via") == ["SIP/2.0/UDP 192.0.2.1;branch=z9hG4bK1", "SIP/2.0/UDP 192.0.2.2"]
    assert (found.from_.display, found.from_.tag) == ('"A \\"q\\" B"', "1")
    assert (found.to.uri.user, str(found.cseq), found.get("subject")) == ("b", "1 MESSAGE", "x")
    assert [item.name for item in found.headers][:3] == ["v", "F", "TO"]
    assert found.headers[-1].key == ""
    assert found.serialize() == data


def test_without_content_length_the_rest_is_the_body() -> None:
    assert parse_message(edited(OPENAI_200, f"Content-Length: {len(ANSWER)}\r\n", "")).body == ANSWER


def test_bytes_past_content_length_are_dropped() -> None:
    found = parse_message(OPENAI_200 + b"INVITE sip:evil SIP/2.0\r\n\r\n")
    assert found.serialize() == OPENAI_200


@pytest.mark.parametrize("data", [TWILIO_INVITE, OPENAI_200, OPTIONS])
def test_line_feeds_alone(data: bytes) -> None:
    """The head is taken, with CRLF put in; the body stays as it is, a blank line in it or not."""
    head, _, body = data.partition(b"\r\n\r\n")
    found = parse_message(head.replace(b"\r\n", b"\n") + b"\n\n" + body)
    assert found.serialize() == data
    tail = b"\r\n\r\nx\n\n"
    longer = parse_message(
        head.replace(b"\r\n", b"\n").replace(b"Content-Length: ", b"X-Length: ") + b"\n\n" + body + tail
    )
    assert longer.body == body + tail


def test_folded_line_with_line_feeds_alone() -> None:
    found = parse_message(b"OPTIONS sip:h SIP/2.0\nSubject: a\n b\n\n")
    assert found.get("subject") == "a b"


def test_empty_lines_before_the_message_are_skipped() -> None:
    assert parse_message(b"\r\n\r\n\r\n" + OPTIONS).serialize() == OPTIONS
    assert parse_message(b"\n\n" + OPTIONS.replace(b"\r\n", b"\n")).serialize() == OPTIONS


def test_missing_empty_line_after_the_head() -> None:
    assert parse_message(OPTIONS[:-2]).serialize() == OPTIONS
    assert parse_message(OPTIONS[:-2].replace(b"\r\n", b"\n")).serialize() == OPTIONS
    with pytest.raises(MalformedMessage, match="ends inside its head"):
        parse_message(OPTIONS[:-4])


@pytest.mark.parametrize(
    ("line", "status", "reason"),
    [
        ("SIP/2.0 100 ", 100, ""),
        ("SIP/2.0 100", 100, ""),
        ("sip/2.0 699 a  b ", 699, "a  b "),
    ],
)
def test_status_line(line: str, status: int, reason: str) -> None:
    data = OPENAI_200.replace(b"SIP/2.0 200 OK", line.encode(), 1)
    found = parse_response(data)
    assert (found.status, found.reason) == (status, reason)
    assert found.serialize() == data


@pytest.mark.parametrize(
    "line",
    [
        "",
        "SIP/2.0",
        "SIP/2.0 OK",
        "SIP/2.0 20 OK",
        "SIP/2.0 2000 OK",
        "SIP/2.0 099 OK",
        "SIP/2.0 700 OK",
        "SIP/2.0 ²00 OK",
        "SIP/2.0  200 OK",
        "SIP/3.0 200 OK",
        "SIP/2.0200 OK",
        "INVITE",
        "INVITE sip:h",
        "INVITE sip:h HTTP/1.1",
        "GET / HTTP/1.1",
        "IN(VITE sip:h SIP/2.0",
        "Via: SIP/2.0/UDP h",
        " INVITE",
    ],
)
def test_start_line_that_can_not_be_answered(line: str) -> None:
    head = OPTIONS.partition(b"\r\n")[2]
    with pytest.raises(MalformedMessage) as caught:
        parse_message(line.encode() + b"\r\n" + head)
    assert caught.value.status == 400
    assert caught.value.partial is None


@pytest.mark.parametrize(
    ("line", "status"),
    [
        ("OPTIONS  sip:h SIP/2.0", 400),
        ("OPTIONS sip:h  SIP/2.0", 400),
        ("OPTIONS sip:h SIP/2.0 ", 400),
        (" OPTIONS sip:h SIP/2.0", 400),
        ("OPTIONS\tsip:h\tSIP/2.0", 400),
        ("OPTIONS sip:a b SIP/2.0", 400),
        ("OPTIONS sip:h SIP/2.1", 505),
        ("OPTIONS sip:h sip/3.0", 505),
    ],
)
def test_bad_request_line_can_be_answered(line: str, status: int) -> None:
    with pytest.raises(MalformedMessage) as caught:
        parse_message(edited(OPTIONS, "OPTIONS sip:h SIP/2.0", line))
    assert caught.value.status == status
    assert caught.value.partial is not None
    assert (caught.value.partial.method, caught.value.partial.call_id) == ("OPTIONS", "c")


def test_version_is_compared_in_any_case() -> None:
    data = edited(OPTIONS, "SIP/2.0", "sip/2.0")
    found = parse_request(data)
    check_request(found)
    assert found.serialize() == data


@pytest.mark.parametrize(
    "length", ["", "-1", "+1", "0x1", "1 1", "five", "1.0", "٣", "²", "1_0", "5000000000", "9" * 4000, "0, 0"]
)
def test_content_length_that_is_no_number(length: str) -> None:
    with pytest.raises(MalformedMessage, match="Malformed Content-Length") as caught:
        parse_message(edited(OPTIONS, "Call-ID: c\r\n", f"Call-ID: c\r\nContent-Length: {length}\r\n"))
    assert caught.value.partial is not None


@pytest.mark.parametrize(
    "lines",
    [
        "Content-Length: 0\r\nContent-Length: 1",
        "Content-Length: 0\r\nl: 1",
        "L: 0\r\nX: y\r\ncontent-LENGTH :\r\n 1",
        "Content-Length: 0\r\nContent-Length: x",
    ],
)
def test_content_lengths_that_differ(lines: str) -> None:
    with pytest.raises(MalformedMessage, match="Conflicting Content-Length"):
        parse_message(edited(OPTIONS, "Call-ID: c\r\n", f"Call-ID: c\r\n{lines}\r\n") + b"x")


def test_content_length_larger_than_the_message() -> None:
    with pytest.raises(MalformedMessage, match="larger than the message"):
        parse_message(TWILIO_INVITE[:-1])


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("Call-ID: c\r\n", "Call-ID: c\n"),
        ("Call-ID: c\r\n", "Call-ID: c\r"),
        ("Call-ID: c\r\n", "Call-ID: c\n\nX: y\r\n"),
        ("Call-ID: c", "Call-ID: c\rX: y"),
        ("Call-ID: c", "Call-ID: c\nX: y"),
        ("Call-ID: c", "Call-ID: c\x00"),
        ("Via: SIP/2.0/UDP 192.0.2.1", "Via: SIP/2.0/UDP 192.0.2.1\x00"),
        ("<sip:b@h>", '"\\\x00\x00" <sip:b@h>'),
    ],
)
def test_bare_line_ends_and_nul_are_refused_and_not_given_back(before: str, after: str) -> None:
    with pytest.raises(MalformedMessage) as caught:
        parse_message(edited(OPTIONS, before, after))
    assert caught.value.status == 400
    partial = caught.value.partial
    assert partial is not None
    for item in partial.headers:
        assert not {"\r", "\n", "\x00"} & set(item.line)


@pytest.mark.parametrize("data", [b"", b"\r\n", b"\r\n\r\n", b"\x00", b"jaK", b"\n", b"A\rB\n", b"A\rB\n\n", b"\r\r\n"])
def test_what_is_no_message(data: bytes) -> None:
    with pytest.raises(MalformedMessage) as caught:
        parse_message(data)
    assert caught.value.partial is None


def test_escaped_nul_is_read_and_not_passed_on() -> None:
    found = parse_request(edited(OPTIONS, "<sip:b@h>", '"\\\x00" <sip:b@h>'))
    assert found.holds_nul
    assert found.to.uri.user == "b"
    with pytest.raises(SipError, match="NUL"):
        check_request(found)
    answer = parse_response(edited(OPENAI_200, "From: ", 'From: "\\\x00" '))
    with pytest.raises(SipError, match="NUL"):
        check_response(answer)


def test_too_many_header_fields() -> None:
    lines = "".join([f"X-{number}: y\r\n" for number in range(251)])
    check_request(parse_request(edited(OPTIONS, "Call-ID", f"{lines}Call-ID")))
    with pytest.raises(MalformedMessage) as caught:
        parse_message(edited(OPTIONS, "Call-ID", f"{lines}X: y\r\nCall-ID"))
    assert caught.value.status == 513
    assert caught.value.partial is not None
    folded = "X: y\r\n" + " z\r\n" * 5000
    assert len(parse_message(edited(OPTIONS, "Call-ID", f"{folded}Call-ID")).headers) == 6
    assert parse_message(OPTIONS, max_headers=5).call_id == "c"
    with pytest.raises(MalformedMessage):
        parse_message(OPTIONS, max_headers=4)


def test_head_too_large() -> None:
    filler = "x" * (MAX_HEAD_BYTES - len(OPTIONS) + 4)
    check_request(parse_request(edited(OPTIONS, "Call-ID: c", f"Call-ID: c{filler}")))
    with pytest.raises(MalformedMessage) as caught:
        parse_message(edited(OPTIONS, "Call-ID: c", f"Call-ID: cx{filler}"))
    assert (caught.value.status, caught.value.partial) == (513, None)


def test_line_that_is_no_header_field_is_kept_apart() -> None:
    data = edited(OPTIONS, "Call-ID: c\r\n", "Call-ID: c\r\ngarbage\r\nVia\r\nX Y: z\r\n")
    found = parse_request(data)
    check_request(found)
    assert [item.line for item in found.headers if not item.key] == ["garbage", "Via", "X Y: z"]
    assert len(found.values("via")) == 1
    assert found.serialize() == data


def test_continuation_without_a_line_to_continue() -> None:
    found = parse_message(b"OPTIONS sip:h SIP/2.0\r\n Via: x\r\n y\r\n\r\n")
    assert [(item.key, item.line) for item in found.headers] == [("", " Via: x\r\n y")]


@pytest.mark.parametrize(
    ("before", "after", "status", "reason"),
    [
        ("INVITE sip", "FOO sip", 501, "Not Implemented"),
        ("INVITE sip", "invite sip", 501, "Not Implemented"),
        ("29044 INVITE", "29044 BYE", 400, "CSeq method"),
        ("29044 INVITE", "29044", 400, "Malformed CSeq"),
        ("CSeq", "X", 400, "Missing CSeq"),
        ("Call-ID", "X", 400, "Missing Call-ID"),
        ("fb3e6e86a53e3094ed17b4776a69af59@0.0.0.0", "", 400, "Empty Call-ID"),
        ("From", "X", 400, "Missing From"),
        ("To: ", "X-To: ", 400, "Missing To"),
        ("Via: SIP/2.0/TLS", "Via: SIP/2.0/TLS;", 400, "Malformed Via"),
        ("Via: SIP/2.0/TLS", "Via: SIP/3.0/TLS", 505, "Version"),
        ("z9hG4bK1dc3.f822d4f6a9d2c3b351d555992ddc6b78.0", "Z9HG4BK", 400, "branch"),
        ("INVITE sip:", "INVITE mailto:", 416, "Scheme"),
        ("INVITE sip:", "INVITE ", 400, "Malformed URI"),
        ("INVITE sip:+15550100001@edge.example.com;transport=tls", "INVITE sip:h?x=y", 400, "Headers in"),
        ("INVITE sip:+15550100001@edge.example.com;transport=tls", "INVITE ", 400, "Malformed URI"),
        ("To: <sip:", "To: <sip:@", 400, "Empty user"),
        ("To: <", "To: Doe, John <", 400, "display name"),
        (";tag=08601002", ";tag=;x=", 400, "Empty tag"),
        ("From: <sip:", "From: <", 400, "Malformed URI"),
        ("Contact: <", "Contact: ", 400, "Malformed address"),
        ("Contact: <sip:", "Contact: <sip:@", 400, "Empty user"),
        ("Max-Forwards: 60", "Max-Forwards: 256", 400, "Max-Forwards"),
        ("Max-Forwards: 60", "Max-Forwards: -1", 400, "Max-Forwards"),
        ("Max-Forwards: 60", "Max-Forwards:", 400, "Max-Forwards"),
        ("Max-Forwards: 60", "Max-Forwards: 99999999999999999999", 400, "Max-Forwards"),
        ("Max-Forwards: 60", "Max-Forwards: ٣", 400, "Max-Forwards"),
    ],
)
def test_request_is_refused(before: str, after: str, status: int, reason: str) -> None:
    found = parse_request(edited(TWILIO_INVITE, before, after))
    with pytest.raises(SipError, match=reason) as caught:
        check_request(found)
    assert caught.value.status == status


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("Max-Forwards: 60", "Max-Forwards: 0"),
        ("Max-Forwards: 60", "Max-Forwards: 000255"),
        ("Max-Forwards: 60\r\n", ""),
        (";tag=08601002_c3356d0b_658bbbdc-370e-4c02-862b-9f5807568f80", ""),
        (";branch=z9hG4bK1dc3.f822d4f6a9d2c3b351d555992ddc6b78.0", ""),
        ("Contact: <sip:+15550100002@172.25.75.240:5060;transport=udp>\r\n", ""),
        ("Contact: <sip:+15550100002@172.25.75.240:5060;transport=udp>", "Contact: *"),
        ("INVITE sip:+15550100001@edge.example.com;transport=tls", "INVITE tel:+15550100001"),
        ("INVITE sip:", "INVITE sips:"),
        ("From: <sip:+15550100002@trunk.pstn.example.net:5060>", "From: <tel:+15550100002>"),
        ("From: <", "From: Jörg (Büro) <"),
    ],
)
def test_request_passes(before: str, after: str) -> None:
    check_request(parse_request(edited(TWILIO_INVITE, before, after)))


def test_not_implemented_names_what_is() -> None:
    found = parse_request(edited(TWILIO_INVITE, "INVITE sip", "FOO sip"))
    with pytest.raises(SipError) as caught:
        check_request(found, allow="INVITE, ACK")
    assert caught.value.headers == (("Allow", "INVITE, ACK"),)
    with pytest.raises(SipError) as caught:
        check_request(found)
    assert caught.value.headers == ()


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("Via: ", "Via: SIP/2.0/UDP h, "),
        ("From: ", "Via: SIP/2.0/UDP h\r\nFrom: "),
        ("Via: ", "X-Via: "),
        ("Via: SIP/2.0/TLS ", "Via: "),
        ("CSeq: 27205", "CSeq: 99999999999"),
        ("Call-ID: ", "X: "),
        ("184be81a-9b5e-4755-9753-22d52b83e37d", ""),
        ("From: <", "From: "),
        ("To: <", 'To: "<'),
        ("From: ", "Call-ID: other\r\nFrom: "),
    ],
)
def test_response_is_refused(before: str, after: str) -> None:
    found = parse_response(edited(OPENAI_200, before, after))
    with pytest.raises(SipError):
        check_response(found)


def test_broken_contact_is_no_reason_to_drop_a_response() -> None:
    check_response(parse_response(edited(OPENAI_200, "Contact: <sip:OAI", "Contact: <sip:")))


def test_errors_are_of_one_kind() -> None:
    error = MalformedMessage(400, "Bad")
    assert isinstance(error, SipError)
    assert (str(error), error.status, error.reason, error.headers) == ("400 Bad", 400, "Bad", ())
