"""What is refused, answered without a call, or dropped."""

import pytest

from proxy.audit.records import Event
from proxy.b2bua.admission import RejectionCache, admits, parse_address
from proxy.sip.errors import SipError
from proxy.sip.flow import Flow
from proxy.sip.message import Response
from proxy.sip.parser import MalformedMessage, parse_message
from tests.b2bua.conftest import BenchMaker
from tests.support.bench import CALLER, OURS, TARGET, Bench, message_text, network

STRANGER = Flow("udp", OURS, ("198.18.0.66", 5060), f"{OURS[0]}:{OURS[1]}", listener="udp")


def outside(bench: Bench, method: str, *extra: str, flow: Flow | None = None, to_tag: str = "") -> None:
    """A request of the caller outside a dialog, or in one that does not exist."""
    headers = [
        f"Via: SIP/2.0/UDP 192.0.2.10:5060;branch={bench.branch()}",
        "From: <sip:a@192.0.2.10>;tag=f",
        f"To: <sip:b@198.51.100.1>{to_tag}",
        f"Call-ID: {bench.branch()}",
        f"CSeq: 1 {method}",
        *extra,
    ]
    bench.receive(message_text(f"{method} sip:b@198.51.100.1 SIP/2.0", headers), flow or bench.caller_flow)


def dropped(bench: Bench) -> list[Event]:
    return [event for event in bench.events if event.kind == "dropped"]


# Hops and loops


def test_invite_at_its_last_hop_gets_483(bench: Bench) -> None:
    bench.invite(extra="Max-Forwards: 0")
    assert bench.caller_saw == ["483 INVITE"]
    assert bench.target_saw == []


@pytest.mark.parametrize(("came", "goes"), [("1", "0"), ("70", "69"), ("255", "254"), (None, "70")])
def test_max_forwards_goes_down_by_one(bench: Bench, came: str | None, goes: str) -> None:
    headers = [
        "Via: SIP/2.0/UDP 192.0.2.10:5060;branch=z9hG4bKm",
        *([f"Max-Forwards: {came}"] if came else []),
        "From: <sip:a@192.0.2.10>;tag=f",
        "To: <sip:b@198.51.100.1>",
        "Call-ID: m",
        "CSeq: 1 INVITE",
        "Contact: <sip:a@192.0.2.10>",
    ]
    bench.receive(message_text("INVITE sip:b@198.51.100.1 SIP/2.0", headers), bench.caller_flow)
    assert bench.invites[0].get("max-forwards") == goes


@pytest.mark.parametrize("value", ["-1", "256", "x", "", "1000", "7 0"])
def test_malformed_max_forwards_gets_400(bench: Bench, value: str) -> None:
    bench.invite(extra=f"Max-Forwards: {value}")
    assert bench.caller_saw == ["400 INVITE"]


def test_the_same_request_on_another_way_is_merged_and_gets_482(bench: Bench) -> None:
    bench.invite()
    bench.invite()
    assert bench.caller_saw == ["100 INVITE", "482 INVITE"]
    assert len(bench.invites) == 1
    bench.respond(180)
    assert bench.caller_saw[-1] == "180 INVITE"


# Dialogs that are not there


@pytest.mark.parametrize("method", ["BYE", "INFO", "UPDATE", "NOTIFY", "PRACK", "INVITE", "OPTIONS", "MESSAGE"])
def test_request_in_an_unknown_dialog_gets_481(bench: Bench, method: str) -> None:
    outside(bench, method, to_tag=";tag=nobody")
    assert bench.caller_saw == [f"481 {method}"]


def test_request_with_another_from_tag_gets_481(bench: Bench) -> None:
    bench.answered_call()
    to = bench.last_response.get("to")
    headers = [
        "Via: SIP/2.0/UDP 192.0.2.10:5060;branch=z9hG4bKother",
        "From: <sip:+15550100002@192.0.2.10>;tag=forged",
        f"To: {to}",
        "Call-ID: call-1",
        "CSeq: 2 BYE",
    ]
    bench.receive(message_text("BYE sip:trunkline@198.51.100.1 SIP/2.0", headers), bench.caller_flow)
    assert bench.last_response.status == 481
    assert bench.stack.calls_in_progress == 1


def test_ack_for_nothing_is_never_answered(bench: Bench) -> None:
    outside(bench, "ACK", to_tag=";tag=nobody")
    outside(bench, "ACK")
    assert bench.wire == []


# Methods


@pytest.mark.parametrize("method", ["REGISTER", "SUBSCRIBE", "PUBLISH", "REFER", "MESSAGE"])
def test_known_method_outside_a_dialog_gets_405_with_an_allow_that_is_true(bench: Bench, method: str) -> None:
    outside(bench, method)
    assert bench.caller_saw == [f"405 {method}"]
    allowed = [name.strip() for name in (bench.last_response.get("allow") or "").split(",")]
    assert "INVITE" in allowed
    assert method not in allowed


@pytest.mark.parametrize("method", ["FOO", "invite", "BYEBYE"])
def test_unknown_method_gets_501_with_allow(bench: Bench, method: str) -> None:
    outside(bench, method)
    assert bench.caller_saw == [f"501 {method}"]
    assert "INVITE" in (bench.last_response.get("allow") or "")


def test_every_method_in_allow_is_taken_inside_a_dialog(make_bench: BenchMaker) -> None:
    """LiveKit advertised methods that it then refused."""
    probe = make_bench()
    outside(probe, "OPTIONS")
    allowed = [name.strip() for name in (probe.last_response.get("allow") or "").split(",")]
    assert {"INVITE", "ACK", "BYE", "CANCEL", "OPTIONS"} <= set(allowed)
    for method in allowed:
        if method in ("ACK", "CANCEL"):
            continue
        bench = make_bench()
        bench.answered_call()
        bench.caller_request(method, extra="Refer-To: <sip:c@192.0.2.9>\nEvent: x")
        assert bench.last_response.status not in (405, 501), method


def test_options_is_answered_with_what_we_take(bench: Bench) -> None:
    outside(bench, "OPTIONS", "Max-Forwards: 0")
    response = bench.last_response
    assert response.status == 200
    assert response.to.tag
    assert response.get("accept") == "application/sdp"
    assert response.get("server") == "Trunkline"


def test_options_gets_503_with_retry_after_while_draining(bench: Bench) -> None:
    bench.stack.set_draining(True)
    outside(bench, "OPTIONS")
    assert bench.last_response.status == 503
    assert bench.last_response.get("retry-after") == "5"


# What an INVITE demands


def test_required_extension_that_is_unknown_gets_420_with_its_name(bench: Bench) -> None:
    bench.invite(extra="Require: timer, precondition\nRequire: foo")
    assert bench.caller_saw == ["420 INVITE"]
    assert bench.last_response.get("unsupported") == "precondition, foo"


@pytest.mark.parametrize(
    ("extra", "key", "value"),
    [
        ("Content-Type: text/plain", "accept", "application/sdp"),
        ("Content-Type: multipart/mixed;boundary=x", "accept", "application/sdp"),
        ("Content-Type: application/sdp\nContent-Encoding: gzip", "accept-encoding", "identity"),
    ],
)
def test_body_that_is_no_plain_sdp_gets_415(bench: Bench, extra: str, key: str, value: str) -> None:
    headers = [
        "Via: SIP/2.0/UDP 192.0.2.10:5060;branch=z9hG4bKm",
        "From: <sip:a@192.0.2.10>;tag=f",
        "To: <sip:b@198.51.100.1>",
        "Call-ID: m",
        "CSeq: 1 INVITE",
        "Contact: <sip:a@192.0.2.10>",
        *extra.splitlines(),
    ]
    bench.receive(message_text("INVITE sip:b@198.51.100.1 SIP/2.0", headers, "x", ""), bench.caller_flow)
    assert bench.caller_saw == ["415 INVITE"]
    assert bench.last_response.get(key) == value


def test_broken_offer_gets_488_and_never_reaches_the_target(bench: Bench) -> None:
    bench.invite(body="v=0\r\nm=audio")
    assert bench.caller_saw == ["100 INVITE", "488 INVITE"]
    assert bench.target_saw == []


@pytest.mark.parametrize(("options", "drain"), [({"max_calls": 0}, False), ({}, True), ({"retry_after_s": 30}, True)])
def test_full_or_draining_gets_503_with_retry_after(
    make_bench: BenchMaker, options: dict[str, int], drain: bool
) -> None:
    bench = make_bench(**options)
    bench.stack.set_draining(drain)
    bench.invite()
    assert bench.caller_saw == ["503 INVITE"]
    assert bench.last_response.get("retry-after") == str(options.get("retry_after_s", 5))
    assert bench.target_saw == []


def test_limit_counts_calls_in_progress_and_draining_lets_them_go_on(make_bench: BenchMaker) -> None:
    bench = make_bench(max_calls=1)
    bench.answered_call()
    bench.invite(call_id="call-2")
    assert bench.last_response.status == 503
    bench.stack.set_draining(True)
    bench.caller_request("BYE")
    assert bench.requests("BYE")
    bench.stack.set_draining(False)
    bench.invite(call_id="call-3")
    assert bench.caller_saw[-1] == "100 INVITE"


def test_refusal_is_repeated_until_the_ack_and_absorbs_copies(make_bench: BenchMaker) -> None:
    bench = make_bench(max_calls=0)
    branch = bench.invite()
    bench.invite(branch=branch)
    bench.advance(0.6)
    assert bench.caller_saw == ["503 INVITE"] * 3
    assert len({message.serialize() for message in bench.to_caller}) == 1
    bench.caller_request("ACK", branch=branch)
    bench.advance(60)
    assert len(bench.caller_saw) == 3


# The cache of rejections


@pytest.mark.parametrize("cseq", [1, 2, 77])
def test_the_same_invite_again_gets_the_same_rejection_without_another_attempt(bench: Bench, cseq: int) -> None:
    bench.invite()
    bench.respond(486, "Busy Now")
    first = bench.last_response
    bench.invite(cseq=cseq)
    again = bench.last_response
    assert (again.status, again.reason, again.get("reason")) == (486, "Busy Now", first.get("reason"))
    assert len(bench.invites) == 1
    assert again.via.branch != first.via.branch


def test_rejection_is_forgotten_after_a_minute_and_counts_for_its_tag_alone(bench: Bench) -> None:
    bench.invite()
    bench.respond(486)
    bench.invite(tag="another")
    assert len(bench.invites) == 2
    bench.advance(61)
    bench.invite(cseq=2)
    assert bench.invites[-1].call_id not in {invite.call_id for invite in bench.invites[:2]}


def test_487_is_not_remembered(bench: Bench) -> None:
    branch = bench.invite()
    bench.caller_request("CANCEL", branch=branch)
    bench.invite(cseq=2)
    assert bench.caller_saw[-1] == "100 INVITE"


def test_cache_of_rejections_keeps_to_its_size_and_time() -> None:
    cache = RejectionCache(lifetime_s=10.0, capacity=3)
    for number in range(5):
        cache.remember((f"call-{number}", "t"), (486, "Busy"), float(number))
    assert len(cache) == 3
    assert cache.find(("call-1", "t"), 4.0) is None
    assert cache.find(("call-2", "t"), 11.9) == (486, "Busy")
    assert cache.find(("call-2", "t"), 12.0) is None
    cache.remember(("call-9", "t"), (603, "No"), 100.0)
    assert len(cache) == 1
    cache.remember(("call-9", "t"), (480, "No"), 101.0)
    assert cache.find(("call-9", "t"), 110.5) == (480, "No")


# Malformed


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\r\n\r\n",
        b"\x00" * 40,
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"INVITE\r\n\r\n",
        b"SIP/2.0 999 No\r\n\r\n",
        b"SIP/2.0 200 OK\r\nVia: nonsense\r\n\r\n",
        b"SIP/2.0 200 OK\r\nVia: SIP/2.0/UDP a;branch=z9hG4bKx\r\nCSeq: x\r\n\r\n",
        b"INVITE sip:a@b SIP/2.0\r\nFrom: x\r\n\r\n",
        b"INVITE sip:a@b SIP/2.0\r\nFrom: x\r\nContent-Length: 9\r\n\r\n",
    ],
)
def test_datagram_that_allows_no_reply_is_dropped_and_counted(bench: Bench, data: bytes) -> None:
    bench.receive(data, bench.caller_flow)
    assert bench.wire == []
    assert bench.stack.dropped == len(dropped(bench)) == 1


BROKEN = {
    "no To": ("To: <sip:b@c>\r\n", ""),
    "no From": ("From: <sip:a@b>;tag=t\r\n", ""),
    "no Call-ID": ("Call-ID: 1\r\n", ""),
    "no CSeq": ("CSeq: 1 INVITE\r\n", ""),
    "two Call-IDs": ("Call-ID: 1\r\n", "Call-ID: 1\r\nCall-ID: 2\r\n"),
    "CSeq of another method": ("CSeq: 1 INVITE", "CSeq: 1 BYE"),
    "huge CSeq": ("CSeq: 1 ", "CSeq: 99999999999 "),
    "broken From": ("From: <sip:a@b>;tag=t", 'From: "x <sip:a@b>;tag=t'),
    "broken To": ("To: <sip:b@c>", "To: <sip:b@c"),
    "broken Contact": ("Contact: <sip:a@b>", "Contact: <sip:a@b"),
    "broken Record-Route": ("Contact: <sip:a@b>", 'Contact: <sip:a@b>\r\nRecord-Route: <sip:x;lr>, "'),
    "empty Record-Route": ("Contact: <sip:a@b>", "Contact: <sip:a@b>\r\nRecord-Route: <>"),
    "broken Request-URI": ("INVITE sip:b@c", "INVITE sip:b@"),
    "broken Require": ("Contact: <sip:a@b>", 'Contact: <sip:a@b>\r\nRequire: a, "'),
    "huge Content-Length": ("Content-Length: 0", "Content-Length: 99999999999999999999"),
    "Content-Length that lies": ("Content-Length: 0", "Content-Length: 12"),
    "two Content-Lengths": ("Content-Length: 0", "Content-Length: 0\r\nContent-Length: 5"),
    "negative Content-Length": ("Content-Length: 0", "Content-Length: -1"),
    "NUL": ("Contact: <sip:a@b>", "Contact: <sip:a@b>\r\nSubject: \x00"),
    "escaped NUL": ("From: <sip:a@b>", 'From: "\\\x00" <sip:a@b>'),
    "bare LF": ("Contact: <sip:a@b>", "Contact: <sip:a@b>\r\nSubject: a\nX-Injected: b"),
    "bare CR in From": ("From: <sip:a@b>;tag=t", "From: <sip:a@b>;tag=t\rX-Injected: b"),
}
SOUND = (
    "INVITE sip:b@c SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.10;branch=z9hG4bKb\r\nFrom: <sip:a@b>;tag=t\r\n"
    "To: <sip:b@c>\r\nCall-ID: 1\r\nCSeq: 1 INVITE\r\nContact: <sip:a@b>\r\nContent-Length: 0\r\n\r\n"
)


@pytest.mark.parametrize("name", BROKEN)
def test_malformed_invite_gets_400_and_makes_no_call(bench: Bench, name: str) -> None:
    before, after = BROKEN[name]
    assert before in SOUND
    bench.receive(SOUND.replace(before, after), bench.caller_flow)
    assert bench.stack.calls_in_progress == 0
    assert bench.target_saw == []
    assert len(bench.to_caller) <= 1
    for message in bench.to_caller:
        assert isinstance(message, Response)
        assert message.status == 400
        assert b"X-Injected: b" not in message.serialize().split(b"\r\n")
    if "in From" not in name and name != "bare LF":
        assert bench.to_caller, "an answer was possible"


def test_sound_one_of_those_makes_a_call(bench: Bench) -> None:
    bench.receive(SOUND, bench.caller_flow)
    assert bench.caller_saw == ["100 INVITE"]


def test_malformed_ack_is_never_answered(bench: Bench) -> None:
    for before, after in BROKEN.values():
        text = SOUND.replace(before, after).replace("INVITE sip", "ACK sip").replace("1 INVITE", "1 ACK")
        bench.receive(text, bench.caller_flow)
    assert bench.wire == []


def test_broken_response_changes_nothing(bench: Bench) -> None:
    bench.invite()
    good = bench.invites[0]
    for line in ("CSeq: 1", "Via: x", "To: <", "Call-ID:", 'From: "', "Via: SIP/2.0/UDP a;branch=b, SIP/2.0/UDP c"):
        name = line.partition(":")[0]
        headers = [item.line for item in good.headers if item.name != name]
        bench.receive(message_text("SIP/2.0 200 OK", [*headers, line]), bench.target_flow)
    assert bench.caller_saw == ["100 INVITE"]
    assert bench.stack.calls_in_progress == 1


def test_broken_stream_gets_an_answer_where_one_is_possible_and_is_closed(make_bench: BenchMaker) -> None:
    for answer in (True, False):
        bench = make_bench(caller_transport="tcp")
        error: SipError = SipError(400, "Stray bytes between messages")
        if answer:
            with pytest.raises(MalformedMessage) as caught:
                parse_message(SOUND.replace("Content-Length: 0", "Content-Length: x").encode())
            error = caught.value
        bench.stack.stream_error(bench.caller_flow, error, bench.now)
        bench.perform()
        assert bench.caller_saw == (["400 INVITE"] if answer else [])
        assert bench.closed == [bench.caller_flow]
        assert bench.stack.dropped == 1


def test_calls_in_progress_are_not_harmed_by_anothers_bad_messages(bench: Bench) -> None:
    bench.answered_call()
    for before, after in BROKEN.values():
        bench.receive(SOUND.replace(before, after), bench.caller_flow)
    bench.receive(b"\xff" * 100, bench.caller_flow)
    bench.caller_request("INFO", body="x", content_type="text/plain")
    assert bench.requests("INFO")


# Strangers


def test_stranger_gets_silence(make_bench: BenchMaker) -> None:
    bench = make_bench(allow=(network(CALLER[0]),))
    for method in ("INVITE", "OPTIONS", "REGISTER", "BYE", "CANCEL", "ACK"):
        outside(bench, method, flow=STRANGER)
    bench.receive(b"garbage", STRANGER)
    bench.receive(SOUND.replace("Call-ID: 1\r\n", ""), STRANGER)
    assert bench.wire == []
    assert len(dropped(bench)) == 8
    assert bench.stack.dropped == 8


def test_stranger_gets_403_by_setting(make_bench: BenchMaker) -> None:
    bench = make_bench(allow=(network(CALLER[0]),), refuse_strangers=True)
    for method in ("INVITE", "OPTIONS", "ACK"):
        outside(bench, method, flow=STRANGER)
    assert bench.sent(message for _, _, message in bench.wire) == ["403 INVITE", "403 OPTIONS"]
    assert bench.stack.tables()["server_transactions"] == 0


@pytest.mark.parametrize("refuse", [False, True])
@pytest.mark.parametrize("side", ["caller", "target"])
def test_forged_bye_of_a_stranger_ends_nothing(make_bench: BenchMaker, refuse: bool, side: str) -> None:
    bench = make_bench(allow=(network(CALLER[0]),), refuse_strangers=refuse)
    bench.answered_call()
    bench.forget()
    if side == "caller":
        # It knows everything but the address.
        bench.to_caller.extend(message for _, flow, message in bench.wire if flow is bench.caller_flow)
        bench.caller_request("BYE", flow=STRANGER)
    else:
        bench.to_target.extend(message for _, flow, message in bench.wire if flow is bench.target_flow)
        bench.target_request("BYE", flow=STRANGER)
    answers = bench.sent(message for _, flow, message in bench.wire if flow is STRANGER)
    assert answers == (["403 BYE"] if refuse else [])
    assert bench.stack.calls_in_progress == 1


def test_forged_bye_from_another_address_of_the_allow_list_that_is_not_the_targets_is_refused(bench: Bench) -> None:
    bench.answered_call()
    bench.target_request("BYE", flow=STRANGER)
    assert bench.sent(message for _, flow, message in bench.wire if flow is STRANGER) == ["403 BYE"]
    assert bench.stack.calls_in_progress == 1


def test_target_outside_the_allow_list_is_heard_in_its_calls_only(make_bench: BenchMaker) -> None:
    bench = make_bench(allow=(network(CALLER[0]),))
    outside(bench, "OPTIONS", flow=bench.target_flow)
    assert bench.to_target == []
    bench.answered_call()
    branch = bench.target_request("BYE")
    assert bench.target_saw[-1] == "200 BYE"
    bench.forget()
    bench.to_target.append(bench.wire[1][2])
    bench.receive(
        message_text(
            "BYE sip:trunkline@198.51.100.1:5060 SIP/2.0",
            [
                f"Via: SIP/2.0/UDP {TARGET[0]}:5060;branch={branch}",
                "From: <sip:x@y>;tag=target",
                "To: <sip:y@z>;tag=id",
                "Call-ID: other",
                "CSeq: 1 BYE",
            ],
        ),
        bench.target_flow,
    )
    assert bench.sent(bench.to_target[1:]) == ["200 BYE"], "a copy of its BYE must get our 200 again"


def test_requests_on_a_connection_that_we_opened_are_heard(make_bench: BenchMaker) -> None:
    bench = make_bench(allow=(network(CALLER[0]),), transport="tls")
    outside(bench, "OPTIONS", flow=bench.target_flow)
    assert bench.target_saw == ["200 OPTIONS"]


# Addresses


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0.0.0.0", (4, 0)),
        ("192.0.2.10", (4, 0xC000020A)),
        ("255.255.255.255", (4, 2**32 - 1)),
        ("::", (6, 0)),
        ("::1", (6, 1)),
        ("2001:db8::1", (6, 0x20010DB8 << 96 | 1)),
        ("1:2:3:4:5:6:7:8", (6, 0x00010002000300040005000600070008)),
        ("fe80::1%eth0", (6, 0xFE80 << 112 | 1)),
        ("::ffff:192.0.2.10", (4, 0xC000020A)),
        ("64:ff9b::192.0.2.10", (6, 0x64FF9B << 96 | 0xC000020A)),
    ],
)
def test_address_literals(text: str, expected: tuple[int, int]) -> None:
    assert parse_address(text) == expected


@pytest.mark.parametrize(
    "text", ["", "1.2.3", "1.2.3.4.5", "256.1.1.1", "a.b.c.d", "1:2", ":::", "1:2:3:4:5:6:7:8:9", "g::1"]
)
def test_what_is_no_address_is_refused_and_not_admitted(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_address(text)
    assert not admits((network("0.0.0.0", "255.255.255.255"),), text)


def test_range_is_inclusive_and_of_its_version() -> None:
    nets = (network("192.0.2.10", "192.0.2.20"),)
    assert [admits(nets, f"192.0.2.{last}") for last in (9, 10, 20, 21)] == [False, True, True, False]
    assert not admits(nets, "::c000:20a")
    assert admits(nets, "::ffff:192.0.2.15")
    assert not admits((), "192.0.2.10")
