"""Where a REFER that Trunkline carries out leads: the addresses of the transfer target, and who may be called."""

import pytest

from proxy.b2bua.config import Reach, Route, Target
from proxy.sip.flow import Flow, Hop
from proxy.sip.message import Request, Response
from proxy.sip.uri import parse_uri
from tests.b2bua.conftest import BenchMaker
from tests.b2bua.transferring import REFER_TO, THIRD, THIRD_ANSWER, Third, hears_news, join, news, refer, states
from tests.support.bench import ANSWER, OFFER, Bench, message_text, network


@pytest.fixture
def bench(make_bench: BenchMaker) -> Bench:
    """Over TCP, so that no retransmissions stand between the events."""
    return make_bench(refer="execute", transport="tcp", caller_transport="tcp")


@pytest.fixture
def third(bench: Bench) -> Third:
    return Third(bench)


# The way to the transfer target


def two_addresses(bench: Bench) -> None:
    """The transfer target has two addresses; a call is up, and a REFER has come."""
    bench.hops["pool.example"] = [Hop(bench.transport, "198.18.0.6", 5060), Hop(bench.transport, *THIRD)]
    bench.answered_call()
    refer(bench, "Refer-To: <sip:bob@pool.example>")
    hears_news(bench)


def sent_to_first(bench: Bench) -> list[Request]:
    return [m for _, flow, m in bench.wire if flow.remote[0] == "198.18.0.6" and isinstance(m, Request)]


def test_address_that_refuses_the_connection_is_followed_by_the_next_one(bench: Bench, third: Third) -> None:
    bench.refusing.add("198.18.0.6")
    two_addresses(bench)
    third.answers(200, body=THIRD_ANSWER)
    join(bench)
    assert states(bench)[-1] == ("joined", 200)


def test_503_of_one_address_leads_to_the_next_one_with_the_same_invite(bench: Bench, third: Third) -> None:
    two_addresses(bench)
    (first,) = sent_to_first(bench)
    bench.respond(503, request=first, flow=bench.wire[-1][1], extra="Retry-After: 60")
    second = third.invite
    assert (second.uri, second.call_id, second.from_.tag) == (first.uri, first.call_id, first.from_.tag)
    assert second.body == first.body
    assert second.get("via") != first.get("via")
    (failed,) = [event for event in bench.events if event.kind == "hop-failed"]
    assert (failed.leg, failed.fields["why"], failed.fields["left"]) == ("c", "503", 1)
    assert len(news(bench)) == 1
    third.answers(200, body=THIRD_ANSWER)
    join(bench)


def test_silence_of_one_address_leads_to_the_next_one_and_its_late_answer_is_ended(bench: Bench, third: Third) -> None:
    two_addresses(bench)
    (first,) = sent_to_first(bench)
    flow = bench.wire[-1][1]
    bench.advance(2.6)
    third.answers(180)
    bench.respond(200, request=first, flow=flow, body=THIRD_ANSWER, tag="late")
    assert [one.method for one in sent_to_first(bench)] == ["INVITE", "ACK", "BYE"]
    assert {event.leg for event in bench.events if event.kind == "message"} == {"a", "b", "c"}
    hears_news(bench)
    third.answers(200, body=THIRD_ANSWER)
    join(bench)
    assert states(bench)[-1] == ("joined", 200)


def test_connection_that_breaks_before_any_answer_leads_to_the_next_address(bench: Bench, third: Third) -> None:
    two_addresses(bench)
    bench.close(bench.wire[-1][1])
    third.answers(200, body=THIRD_ANSWER)
    join(bench)


def test_target_that_rings_keeps_the_transfer_whatever_comes_then(bench: Bench, third: Third) -> None:
    two_addresses(bench)
    (first,) = sent_to_first(bench)
    flow = bench.wire[-1][1]
    bench.respond(180, request=first, flow=flow)
    hears_news(bench)
    bench.respond(503, request=first, flow=flow)
    assert third.saw == []
    assert news(bench)[-1] == ("SIP/2.0 503 Phrase", "terminated")


def test_failure_of_every_address_is_told_once(bench: Bench, third: Third) -> None:
    two_addresses(bench)
    bench.respond(503, request=sent_to_first(bench)[0], flow=bench.wire[-1][1])
    third.answers(503)
    assert news(bench)[1:] == [("SIP/2.0 503 Phrase", "terminated")]
    assert bench.stack.calls_in_progress == 1


def test_caller_that_hangs_up_between_two_addresses_ends_the_search(bench: Bench, third: Third) -> None:
    two_addresses(bench)
    bench.hold_flows = True
    bench.respond(503, request=sent_to_first(bench)[0], flow=bench.wire[-1][1])
    bench.caller_request("BYE")
    bench.release()
    assert third.saw == []


def test_large_invite_of_a_transfer_goes_by_tcp_where_that_is_taken(make_bench: BenchMaker) -> None:
    bench = make_bench(refer="execute")
    bench.answered_call()
    refer(bench, f"{REFER_TO}\nX-Long: {'x' * 1300}")
    assert Third(bench).flow.transport == "tcp"
    assert [event.fields["by"] for event in bench.events if event.kind == "large-message"] == ["tcp"]


# Where to


@pytest.mark.parametrize(
    ("written", "uri"),
    [
        ("<sip:bob@198.18.0.7;user=phone;method=INVITE>", "sip:bob@198.18.0.7;user=phone"),
        ("<sip:198.18.0.7>", "sip:198.18.0.7"),
        ('"Bob" <sip:bob@198.18.0.7?Subject=x>', "sip:bob@198.18.0.7"),
    ],
)
def test_request_uri_is_what_refer_to_names_without_header_part_and_method(
    bench: Bench, third: Third, written: str, uri: str
) -> None:
    bench.answered_call()
    refer(bench, f"Refer-To: {written}")
    assert third.invite.uri == uri


def test_header_part_may_add_what_does_no_harm(bench: Bench, third: Third) -> None:
    bench.answered_call()
    refer(bench, "Refer-To: <sip:bob@198.18.0.7?X-Queue=a%20b&Subject=Help&From=evil&Route=%3Csip:x%3E&body=z>")
    invite = third.invite
    assert (invite.get("x-queue"), invite.get("subject")) == ("a b", "Help")
    assert "evil" not in (invite.get("from") or "")
    assert invite.get("route") is None
    assert invite.body == OFFER.encode()


@pytest.mark.parametrize("part", ["X-A=1%0D%0AInjected:%201", "X-A=%00"])
def test_header_part_with_a_line_break_is_refused(bench: Bench, third: Third, part: str) -> None:
    bench.answered_call()
    refer(bench, f"Refer-To: <sip:bob@198.18.0.7?{part}>")
    assert bench.last_to_target.status == 400
    assert third.saw == []


@pytest.mark.parametrize(
    ("line", "status"),
    [
        ("Refer-To: <sip:bob@198.18.0.7;method=BYE>", 403),
        ("Refer-To: <mailto:bob@198.18.0.7>", 416),
        ("Refer-To: <tel:+15550100009>", 404),
        ("Refer-To: <tel:+1555%0d%0aX>", 404),
        ("Refer-To: <sip:%d9%a3@198.51.100.1>", 404),
        ("Refer-To: <sip:198.51.100.1>", 404),
        ("X: y", 400),
        ("Refer-To: <sip:bob@198.18.0.7?Replaces=x>", 400),
    ],
)
def test_what_can_not_be_done_is_refused(bench: Bench, third: Third, line: str, status: int) -> None:
    bench.answered_call()
    refer(bench, line)
    assert bench.last_to_target.status == status
    assert third.saw == []
    assert bench.requests("NOTIFY") == []
    assert states(bench)[-1] == ("refused", status)


def test_second_refer_during_a_transfer_gets_491(bench: Bench, third: Third) -> None:
    bench.answered_call()
    refer(bench)
    refer(bench, cseq=2)
    assert bench.last_to_target.status == 491
    bench.caller_request("REFER", cseq=2, extra=REFER_TO)
    assert bench.last_response.status == 491
    assert third.saw == ["INVITE"]


@pytest.mark.parametrize(
    "line",
    [
        "<tel:+1-555-010-0009>",
        "<tel:+1(555)010.0009;ext=77;phone-context=example.com>",
        "<TEL:+15550100009>",
        "tel:+15550100009",
        "<sip:+15550100009@198.51.100.1>",
        "<sip:%2B1-555-010-0009;ext=77@198.51.100.1;user=phone>",
    ],
)
def test_number_goes_to_the_host_that_is_set_for_numbers(make_bench: BenchMaker, line: str) -> None:
    bench = make_bench(refer="execute", transport="tcp", refer_tel_host="198.18.0.7")
    bench.answered_call()
    refer(bench, f"Refer-To: {line}")
    assert Third(bench).invite.uri == "sip:+15550100009@198.18.0.7"


def test_service_code_is_a_number_too(make_bench: BenchMaker) -> None:
    bench = make_bench(refer="execute", transport="tcp", refer_tel_host="198.18.0.7")
    bench.answered_call()
    refer(bench, "Refer-To: <sip:*72%23@198.51.100.1>")
    assert Third(bench).invite.uri == "sip:*72%23@198.18.0.7"


def test_number_goes_by_the_route_that_is_for_it(make_bench: BenchMaker) -> None:
    targets = [
        Target("main", parse_uri("sip:agent@203.0.113.5")),
        Target("any", parse_uri("sip:198.18.0.8")),
        Target("carrier", parse_uri("sip:198.18.0.7"), username="u", password="p"),
    ]
    routes = (
        Route(("main",), dialed="+15550100001"),
        Route(("any",), dialed="*", trunk="another"),
        Route(("any",), dialed="*", header="x-kind"),
        Route(("carrier",), dialed="+1555*"),
        Route(("any",), dialed="*"),
    )
    bench = make_bench(refer="execute", transport="tcp", targets=targets, routes=routes)
    third = Third(bench)
    bench.answered_call()
    refer(bench, "Refer-To: <tel:+15550100009>")
    assert third.invite.uri == "sip:+15550100009@198.18.0.7"
    third.answers(401, extra='WWW-Authenticate: Digest realm="r", nonce="n"')
    assert third.invite.get("authorization") is not None


def test_number_without_a_route_goes_to_the_first_target_that_takes_any(make_bench: BenchMaker) -> None:
    targets = [
        Target("main", parse_uri("sip:agent@203.0.113.5")),
        Target("any", parse_uri("sip:198.18.0.7"), priority=2),
        Target("other", parse_uri("sip:198.18.0.8"), priority=3),
    ]
    bench = make_bench(refer="execute", transport="tcp", targets=targets)
    bench.answered_call()
    refer(bench, "Refer-To: <tel:+15550100009>")
    assert Third(bench).invite.uri == "sip:+15550100009@198.18.0.7"


def test_target_at_the_same_host_lends_its_credentials(make_bench: BenchMaker) -> None:
    targets = [
        Target("main", parse_uri("sip:agent@203.0.113.5")),
        Target("carrier", parse_uri("sip:trunk@198.18.0.7"), priority=1, username="u", password="p"),
    ]
    bench = make_bench(refer="execute", transport="tcp", targets=targets)
    third = Third(bench)
    bench.answered_call()
    refer(bench)
    third.answers(407, extra='Proxy-Authenticate: Digest realm="r", nonce="n"')
    assert third.invite.cseq.number == 2
    assert third.invite.get("proxy-authorization") is not None
    assert third.invite.body == OFFER.encode()
    third.answers(200, body=THIRD_ANSWER)
    assert third.requests("ACK")[-1].get("proxy-authorization") is not None


def test_foreign_replaces_is_carried_in_the_invite(bench: Bench, third: Third) -> None:
    bench.answered_call()
    refer(bench, "Refer-To: <sip:bob@198.18.0.7?Replaces=x%40y%3Bfrom-tag%3D2%3Bto-tag%3D1>")
    assert third.invite.get("replaces") == "x@y;to-tag=1;from-tag=2"
    assert third.invite.get("require") == "replaces"


def test_replaces_of_another_call_of_ours_goes_to_its_other_end(bench: Bench) -> None:
    """The target has two callers, and has them talk with each other."""
    bench.answered_call()
    first = bench.invites[0]
    second = Flow("tcp", ("198.51.100.1", 5060), THIRD, "198.51.100.1:5060", listener="tcp")
    bench.invite(call_id="call-2", tag="other", contact="<sip:bob@198.18.0.7:5070>", flow=second)
    bench.respond(200, body=ANSWER, tag="target-2")
    invite = bench.invites[-1]
    third = Third(bench)
    answer = next(m for _, m in third.sent() if isinstance(m, Response) and m.status == 200)
    replaces = f"{invite.call_id}%3Bto-tag%3D{invite.from_.tag}%3Bfrom-tag%3Dtarget-2"
    for method, call, tag, extra in (
        ("ACK", answer, "other", ""),
        ("REFER", first, "target", f"Refer-To: <sip:trunkline@198.51.100.1?Replaces={replaces}>"),
    ):
        ours = call is first
        bench.receive(
            message_text(
                f"{method} sip:trunkline@198.51.100.1:5060 SIP/2.0",
                [
                    f"Via: SIP/2.0/TCP 192.0.2.10:5060;branch={bench.branch()}",
                    "Max-Forwards: 70",
                    f"From: {call.get('to')};tag={tag}" if ours else f"From: {call.get('from')}",
                    f"To: {call.get('from' if ours else 'to')}",
                    f"Call-ID: {call.call_id}",
                    f"CSeq: 1 {method}",
                    *extra.splitlines(),
                ],
            ),
            bench.target_flow if ours else second,
        )
    assert third.flow is second
    assert third.invite.uri == "sip:bob@198.18.0.7:5070"
    assert third.invite.get("replaces") == f"call-2;to-tag=other;from-tag={answer.to.tag}"
    assert third.invite.get("require") == "replaces"
    third.answers(486)


def test_replaces_of_the_very_same_call_is_refused(bench: Bench) -> None:
    bench.answered_call()
    invite = bench.invites[0]
    replaces = f"{invite.call_id}%3Bto-tag%3D{invite.from_.tag}%3Bfrom-tag%3Dtarget"
    refer(bench, f"Refer-To: <sip:trunkline@198.51.100.1?Replaces={replaces}>")
    assert bench.last_to_target.status == 400


# Whom a REFER may have us call

REACH = Reach(
    hosts=(("198.18.0.7", 5090), ("*.carrier.example", 0), ("exact.example", 0)),
    networks=(network("198.18.1.0", "198.18.1.255"),),
)


@pytest.mark.parametrize(
    "uri",
    [
        "sip:bob@198.18.0.7",
        "sip:bob@198.18.0.7:5060",
        "sips:bob@198.18.0.7:5061",
        "sip:bob@198.18.0.7:5090;transport=tcp",
        "sip:bob@EU.Carrier.Example.",
        "sip:bob@a.b.carrier.example",
        "sip:bob@exact.example;maddr=198.18.1.9",
        "sip:bob@198.18.1.255",
        "sip:bob@exact.example?Replaces=x%40y%3Bfrom-tag%3D2%3Bto-tag%3D1",
        "sip:+15550100009@198.51.100.1",
    ],
)
def test_refer_to_a_host_that_may_be_reached(make_bench: BenchMaker, uri: str) -> None:
    bench = make_bench(refer="execute", transport="tcp", refer_reach=REACH, target="sip:203.0.113.5")
    bench.answered_call()
    refer(bench, f"Refer-To: <{uri}>")
    assert bench.last_to_target.status == 202


@pytest.mark.parametrize(
    ("uri", "host"),
    [
        ("sip:bob@evil.example", "evil.example"),
        ("sip:bob@carrier.example", "carrier.example"),
        ("sip:bob@carrier.example.evil.example", "carrier.example.evil.example"),
        ("sip:bob@198.18.0.7:22;transport=tcp", "198.18.0.7"),
        ("sip:bob@eu.carrier.example:5090", "eu.carrier.example"),
        ("sip:bob@198.18.2.0", "198.18.2.0"),
        ("sip:bob@[2001:db8::1]", "[2001:db8::1]"),
        ("sip:bob@exact.example;maddr=127.0.0.1", "127.0.0.1"),
        ("sip:bob@evil.example?Replaces=x%40y%3Bfrom-tag%3D2%3Bto-tag%3D1", "evil.example"),
        ("sip:exact.example@evil.example", "evil.example"),
        ("sip:bob@198.51.100.1:5070", "198.51.100.1"),
    ],
)
@pytest.mark.parametrize("by", ["caller", "target"])
def test_refer_to_any_other_host_is_refused_with_its_name(make_bench: BenchMaker, uri: str, host: str, by: str) -> None:
    bench = make_bench(refer="execute", transport="tcp", caller_transport="tcp", refer_reach=REACH)
    bench.answered_call()
    if by == "target":
        refer(bench, f"Refer-To: <{uri}>")
        answer = bench.last_to_target
    else:
        bench.caller_request("REFER", cseq=2, extra=f"Refer-To: <{uri}>")
        answer = bench.last_response
    assert (answer.status, answer.reason) == (403, f"Refer-To host {host} not allowed")
    assert bench.resolves == bench.resolves[:1]
    assert states(bench)[-1] == ("refused", 403)
    assert bench.stack.calls_in_progress == 1
