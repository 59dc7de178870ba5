"""RFC 4475 and RFC 5118 at the parser, its checks, the framer and the replies."""

import hashlib
import re

import pytest

from proxy.sip.errors import SipError
from proxy.sip.headers import parse_name_addr
from proxy.sip.message import Request, Response
from proxy.sip.parser import MalformedMessage, StreamFramer, check_request, check_response, parse_message
from proxy.sip.respond import make_response
from proxy.sip.uri import unescape
from tests.sip.torture.table import CASES, DROPPED, HERE, PASSES, RECOUNTED, Case

REMOTE = ("203.0.113.9", 40_001)


def name_of(case: Case) -> str:
    return case.name


def message(name: str) -> Request | Response:
    (case,) = [case for case in CASES if case.name == name]
    return parse_message(case.data)


def request(name: str) -> Request:
    found = message(name)
    assert isinstance(found, Request)
    return found


def outcome(data: bytes) -> tuple[int, Request | None]:
    """What the core makes of a datagram, and the request that can be answered."""
    try:
        found = parse_message(data)
    except MalformedMessage as error:
        return (DROPPED, None) if error.partial is None else (error.status, error.partial)
    try:
        if isinstance(found, Response):
            check_response(found)
            return PASSES, None
        check_request(found)
    except SipError as error:
        return (error.status, found) if isinstance(found, Request) else (DROPPED, None)
    return PASSES, found


def test_table_and_files_agree() -> None:
    assert sorted(f"{case.name}.sip" for case in CASES) == sorted(path.name for path in HERE.glob("*.sip"))
    assert [case.rfc for case in CASES].count(4475) == 49
    assert [case.rfc for case in CASES].count(5118) == 12


def test_files_are_those_of_the_archive() -> None:
    """Nothing has touched a byte: an editor, a line end conversion."""
    digest = hashlib.sha256(b"".join([case.data for case in sorted(CASES, key=name_of) if case.rfc == 4475]))
    assert digest.hexdigest() == "c130abdedde20f53b7f1c70181dc8fc115afd568a12977d7db3d597f39a21378"


@pytest.mark.parametrize("case", [case for case in CASES if case.rfc == 5118], ids=name_of)
def test_messages_with_ipv6_have_the_line_ends_and_lengths_of_sip(case: Case) -> None:
    head, _, body = case.data.partition(b"\r\n\r\n")
    assert case.data.count(b"\n") == case.data.count(b"\r\n")
    assert f"Content-Length: {len(body)}".encode() in head.split(b"\r\n")
    assert (case.name in RECOUNTED) == bool(body)


@pytest.mark.parametrize("case", CASES, ids=name_of)
def test_core_does_what_the_rfc_says(case: Case) -> None:
    status, partial = outcome(case.data)
    assert status == case.core
    assert partial is not None or status == DROPPED or isinstance(parse_message(case.data), Response)


@pytest.mark.parametrize("case", [case for case in CASES if case.core == PASSES], ids=name_of)
def test_message_is_kept_to_the_byte(case: Case) -> None:
    sent = case.data if case.name != "dblreq" else case.data.partition(b"\r\nINVITE")[0]
    assert parse_message(case.data).serialize() == sent


@pytest.mark.parametrize("case", CASES, ids=name_of)
def test_every_request_can_be_answered(case: Case) -> None:
    """The reply is well formed where the request is, and never breaks its own lines."""
    status, partial = outcome(case.data)
    if partial is None:
        return
    sent = make_response(partial, status or 200, remote=REMOTE, to_tag="t4g").serialize()
    reply = parse_message(sent)
    assert isinstance(reply, Response)
    assert (reply.status, reply.body) == (status or 200, b"")
    for key in ("from", "to", "call-id", "cseq"):
        assert reply.get_all(key)[1:] == []
    if status == PASSES:
        check_response_for(reply, partial)


def check_response_for(reply: Response, asked: Request) -> None:
    assert reply.call_id == asked.call_id
    assert str(reply.cseq) == str(asked.cseq)
    assert reply.from_.tag == asked.from_.tag
    assert reply.to.tag == (asked.to.tag or "t4g")
    assert reply.via.branch == asked.via.branch
    assert reply.via.param("received") == REMOTE[0]
    assert len(reply.values("via")) == len(asked.values("via"))


@pytest.mark.parametrize("case", CASES, ids=name_of)
def test_stream_gives_the_same_whole_and_byte_by_byte(case: Case) -> None:
    whole, single = StreamFramer(), StreamFramer()
    assert feed(whole, [case.data]) == feed(single, [bytes((byte,)) for byte in case.data])


def feed(framer: StreamFramer, chunks: list[bytes]) -> tuple[list[bytes], str]:
    """The messages of a stream and its error; halves of a ping count as one (see `StreamFramer`)."""
    got: list[bytes] = []
    try:
        for chunk in chunks:
            got.extend(framer.feed(chunk))
        got.extend(framer.feed(b""))
    except MalformedMessage as error:
        return got, f"{error} {error.partial}"
    return got, f"{framer.pending_bytes} bytes left"


@pytest.mark.parametrize(("name", "status"), [("ncl", 400), ("mcl01", 400)])
def test_stream_without_a_usable_length_ends_with_an_answer(name: str, status: int) -> None:
    (case,) = [case for case in CASES if case.name == name]
    with pytest.raises(MalformedMessage) as caught:
        StreamFramer().feed(case.data)
    assert caught.value.status == status
    assert caught.value.partial is not None
    assert caught.value.partial.call_id.startswith(name)


def test_stream_waits_for_a_body_that_does_not_come() -> None:
    (case,) = [case for case in CASES if case.name == "clerr"]
    framer = StreamFramer()
    assert framer.feed(case.data) == []
    assert framer.pending_bytes == len(case.data)


# What the sections say of single messages


def test_short_tortuous_invite() -> None:
    found = request("wsinv")
    assert found.request_uri.param("unknownparam") == ""
    assert (found.to.uri.user, found.to.tag) == ("vivekg", "1918181833n")
    assert (found.from_.display, found.from_.tag) == ('"J Rosenberg \\\\\\""', "98asjd8")
    assert str(found.cseq) == "9 INVITE"
    assert found.get("subject") == ""
    assert found.get("max-forwards") == "0068"
    assert found.get("newfangledheader") == "newfangled value continued newfangled value"
    assert found.get("unknownheaderwithunusualvalue") == ";;,,;;,;"
    assert found.get_all("route") == ["<sip:services.example.com;lr;unknownwith=value;unknown-no-value>"]
    assert (found.via.transport, found.via.sent_by, found.via.branch) == ("UDP", "192.0.2.2", "390skdjuw")
    assert len(found.values("via")) == 3
    contact = found.contact
    assert contact is not None
    assert contact.display == r'"Quoted string \"\""'
    assert contact.params == (("newparam", "newvalue"), ("secondparam", None), ("q", "0.33"))
    assert len(found.body) == 150


def test_wide_range_of_valid_characters() -> None:
    found = request("intmeth")
    uri = found.request_uri
    assert uri.user == "1_unusual.URI~(to-be!sure)&isn't+it$/crazy?,/;;*"
    assert uri.password == "&it+has=1,weird!*pas$wo~d_too.(doesn't-it)"
    assert (uri.host, uri.headers) == ("example.com", None)
    assert found.to.display == '"BEL:\\\x07 NUL:\\\x00 DEL:\\\x7f"'
    assert found.to.uri.user == uri.user
    assert found.from_.display == "token1~` token2'+_ token3*%!.-"
    assert found.from_.param("fromparam''~+*_!.-%") == '"работающий"'
    assert found.from_.tag == "_token~1'+`*%!-."
    assert found.call_id == "intmeth.word%ZK-!.*_+'@word`~)(><:\\/\"][?}{"
    assert found.get("extensionheader-!.%*+_`'~") == "\ufeff大停電"
    with pytest.raises(SipError) as caught:
        check_request(found, allow="INVITE, ACK")
    assert caught.value.headers == (("Allow", "INVITE, ACK"),)


def test_escapes_are_resolved_once_and_where_they_are_escapes() -> None:
    found = request("esc01")
    assert unescape(found.request_uri.user or "") == "sips:user@example.com"
    assert unescape(found.to.uri.user or "") == "user"
    assert unescape(found.from_.uri.user or "") == "I have spaces"
    contact = found.contact
    assert contact is not None
    assert [(unescape(name), unescape(value or "")) for name, value in contact.uri.params] == [
        ("lr", ""),
        ("name", "value%41"),
    ]
    found = request("escnull")
    assert unescape(found.to.uri.user or "") == "null-\x00-null"
    first, second = [parse_name_addr(value).uri.user or "" for value in found.values("contact")]
    assert (unescape(first), unescape(second)) == ("\x00", "\x00\x00")
    found = request("esc02")
    assert found.method == "RE%47IST%45R"
    assert found.to.display == '"%Z%45"'
    assert unescape("%Z%45") == "%ZE"
    assert len(found.values("contact")) == 2


def test_display_name_without_space() -> None:
    found = request("lwsdisp")
    assert (found.from_.display, found.from_.uri_text) == ("caller", "sip:caller@example.com")


def test_long_values() -> None:
    found = request("longreq")
    assert len(found.values("via")) == 34
    assert found.via.sent_by == "sip33.example.com"
    assert found.from_.tag == f"12{'982' * 50}424"
    assert found.to.uri.port == 6000
    assert found.to.uri.params[-1] == (f"very{'long' * 25}ParameterNameWithNoValue", None)
    assert found.get(f"unknown-{'long' * 20}-name") is not None
    assert found.body.startswith(b"v=0")


def test_trailing_octets() -> None:
    found = request("dblreq")
    assert (found.method, found.body) == ("REGISTER", b"")


def test_parameters_in_the_user_part() -> None:
    uri = request("semiuri").request_uri
    assert (unescape(uri.user or ""), uri.host, uri.params) == ("user;par=u@example.net", "example.com", ())


def test_transports() -> None:
    found = request("transports")
    assert [value.split()[0][8:] for value in found.values("via")] == ["UDP", "SCTP", "TLS", "UNKNOWN", "TCP"]


def test_multipart() -> None:
    found = request("mpart01")
    assert len(found.body) == 553
    assert found.content_type == "multipart/mixed"
    assert b"\x00" in found.body


def test_reason_phrases() -> None:
    unusual, empty = message("unreason"), message("noreason")
    assert isinstance(unusual, Response)
    assert isinstance(empty, Response)
    assert unusual.reason.startswith("= 2**3 * 5**2 но сто девяносто")
    assert (empty.status, empty.reason) == (100, "")


def test_contact_parameters() -> None:
    header_parameter, uri_parameter, escaped = (
        request("cparam01").contact,
        request("cparam02").contact,
        request("regescrt").contact,
    )
    assert header_parameter is not None
    assert uri_parameter is not None
    assert escaped is not None
    assert (header_parameter.params, header_parameter.uri.params) == ((("unknownparam", None),), ())
    assert (uri_parameter.params, uri_parameter.uri.params) == ((), (("unknownparam", None),))
    assert escaped.uri.headers == "Route=%3Csip:sip.example.com%3E"


def test_rfc_2543_invite() -> None:
    found = request("inv2543")
    assert (found.from_.tag, found.via.branch, found.get("max-forwards")) == (None, "", None)
    assert found.body.endswith(b"m=audio 49217 RTP/AVP 0\r\n")


def test_ports_of_ipv6_references() -> None:
    ambiguous, plain = request("port-ambiguous").request_uri, request("port-unambiguous").request_uri
    assert (ambiguous.host, ambiguous.port) == ("[2001:db8::10:5070]", None)
    assert (plain.host, plain.port) == ("[2001:db8::10]", 5070)


def test_received_with_and_without_brackets() -> None:
    assert request("via-received-param-with-delim").via.param("received") == "[2001:db8::9:255]"
    assert request("via-received-param-no-delim").via.param("received") == "2001:db8::9:255"
    reply = make_response(request("via-received-param-with-delim"), 481, remote=("2001:db8::9:255", 5060))
    assert re.findall(r"received=[^;]*", reply.lines("via")[0]) == ["received=2001:db8::9:255"]
