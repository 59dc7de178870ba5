"""REFER that is relayed or refused (RFC 3515): what the other leg's peer is told, and what the referrer hears."""

import pytest

from proxy.audit.records import Change
from proxy.sip.message import Request, Response
from tests.b2bua.conftest import BenchMaker
from tests.support.bench import ANSWER, CALLER, Bench, message_text

TRYING = "SIP/2.0 100 Trying\r\n"
DONE = "SIP/2.0 200 OK\r\n"


def refer_to(bench: Bench) -> str | None:
    """Where the caller is told to go."""
    return bench.caller_requests("REFER")[-1].get("refer-to")


def refer_events(bench: Bench) -> list[dict[str, object]]:
    return [event.fields for event in bench.events if event.kind == "refer"]


def refer_changes(bench: Bench, step: str) -> list[Change]:
    for event in bench.events:
        message = event.fields.get("message")
        if isinstance(message, Request) and message.method == "REFER" and event.fields["direction"] == "out":
            changes = event.fields["changes"]
            assert isinstance(changes, list)
            return [change for change in changes if change.step == step]
    raise AssertionError("no REFER went out")


def second_call(bench: Bench) -> Request:
    """Another call, from the caller's side too, that the target answers; the INVITE that it got."""
    bench.invite(call_id="call-2", tag="other", contact="<sip:second@192.0.2.10:5070>")
    bench.respond(200, "OK", body=ANSWER, tag="target-2")
    bench.receive(
        message_text(
            "ACK sip:trunkline@198.51.100.1:5060 SIP/2.0",
            [
                f"Via: SIP/2.0/UDP 192.0.2.10:5060;branch={bench.branch()}",
                "Max-Forwards: 70",
                "From: <sip:+15550100002@192.0.2.10>;tag=other",
                f"To: {bench.last_response.get('to')}",
                "Call-ID: call-2",
                "CSeq: 1 ACK",
            ],
        ),
        bench.caller_flow,
    )
    return bench.invites[-1]


def first_request(bench: Bench, method: str, **rest: str) -> None:
    """A request of the target in the first of two calls."""
    invite = bench.invites[0]
    bench.receive(
        message_text(
            f"{method} sip:trunkline@198.51.100.1:5060 SIP/2.0",
            [
                f"Via: SIP/2.0/UDP 203.0.113.5:5060;branch={bench.branch()}",
                "Max-Forwards: 70",
                f"From: {invite.get('to')};tag=target",
                f"To: {invite.get('from')}",
                f"Call-ID: {invite.call_id}",
                f"CSeq: 1 {method}",
                *rest.get("extra", "").splitlines(),
            ],
        ),
        bench.target_flow,
    )


def test_refer_of_the_target_crosses_and_its_202_comes_back(bench: Bench) -> None:
    bench.answered_call()
    bench.target_request("REFER", extra="Refer-To: <sip:+15550100009@pstn.example>\nContact: <sip:a@203.0.113.5>")
    refer = bench.caller_requests("REFER")[-1]
    assert refer.get("refer-to") == "<sip:+15550100009@pstn.example>"
    assert refer.uri == "sip:+15550100002@192.0.2.10:5060"
    assert refer.get("contact") == "<sip:trunkline@198.51.100.1:5060>"
    bench.caller_answers(refer, 202)
    assert bench.last_to_target.status == 202
    assert [event["state"] for event in refer_events(bench)] == ["received", "accepted"]
    assert refer_events(bench)[0]["refer_to"] == "<sip:+15550100009@pstn.example>"


def test_refer_of_the_caller_crosses_too(bench: Bench) -> None:
    bench.answered_call()
    bench.caller_request("REFER", extra="Refer-To: <sip:bob@elsewhere.example>")
    refer = bench.requests("REFER")[-1]
    assert refer.get("refer-to") == "<sip:bob@elsewhere.example>"
    bench.respond(603, "Decline", request=refer)
    assert (bench.last_response.status, bench.last_response.reason) == (603, "Decline")
    assert refer_events(bench)[-1]["state"] == "refused"
    assert refer_events(bench)[-1]["status"] == 603


@pytest.mark.parametrize(
    ("written", "told"),
    [
        # Our address is what the target knows the caller's side by; there it is the caller's own host.
        ("<sip:+15550100009@198.51.100.1>", "<sip:+15550100009@192.0.2.10>"),
        ("Desk <sip:+15550100009@198.51.100.1:5060;transport=udp;user=phone>;x=1",
         'Desk <sip:+15550100009@192.0.2.10;user=phone>;x=1'),
        ("sip:+15550100009@198.51.100.1", "<sip:+15550100009@192.0.2.10>"),
        # What does not name us stays as it is, header part and all.
        ("<sip:bob@[2001:db8::1]:5080;transport=tls?X-Queue=a%20b&Subject=c>",
         "<sip:bob@[2001:db8::1]:5080;transport=tls?X-Queue=a%20b&Subject=c>"),
        ("<sip:198.51.100.10>", "<sip:198.51.100.10>"),
        # Another port of our host is somebody else.
        ("<sip:bob@198.51.100.1:5080>", "<sip:bob@198.51.100.1:5080>"),
        ("<tel:+1-555-010-0009;ext=1>", "<tel:+1-555-010-0009;ext=1>"),
        ("<mailto:bob@198.51.100.1>", "<mailto:bob@198.51.100.1>"),
        # A dialog that is none of ours is the peer's own affair.
        ("<sip:bob@elsewhere.example?Replaces=x%40y%3Bto-tag%3D1%3Bfrom-tag%3D2>",
         "<sip:bob@elsewhere.example?Replaces=x%40y%3Bto-tag%3D1%3Bfrom-tag%3D2>"),
    ],
)  # fmt: skip
def test_refer_to_is_put_into_the_terms_of_the_other_leg(bench: Bench, written: str, told: str) -> None:
    bench.answered_call()
    bench.target_request("REFER", extra=f"Refer-To: {written}")
    assert refer_to(bench) == told


def test_refer_to_of_the_caller_with_our_host_names_the_targets(bench: Bench) -> None:
    bench.answered_call()
    bench.caller_request("REFER", extra="r: <sip:sales@198.51.100.1>")
    assert bench.requests("REFER")[-1].lines("refer-to") == ["r: <sip:sales@203.0.113.5>"]


def test_tel_target_becomes_a_sip_uri_when_a_host_for_it_is_set(make_bench: BenchMaker) -> None:
    bench = make_bench(refer_tel_host="trunk.pstn.example")
    bench.answered_call()
    bench.target_request("REFER", extra="Refer-To: <tel:+1-(555)-010.0009>")
    assert refer_to(bench) == "<sip:+15550100009@trunk.pstn.example>"
    (change,) = refer_changes(bench, "builtin:refer-to")
    assert change.before == "Refer-To: <tel:+1-(555)-010.0009>"
    assert change.after == "Refer-To: <sip:+15550100009@trunk.pstn.example>"


def test_replaces_names_the_other_leg_of_the_same_call(bench: Bench) -> None:
    """An attended transfer: the target has two calls with us and joins their callers (RFC 5589 section 7)."""
    bench.answered_call()
    invite = second_call(bench)
    theirs = f"{invite.call_id}%3Bto-tag%3D{invite.from_.tag}%3Bfrom-tag%3Dtarget-2"
    ours = next(
        one.to.tag for one in bench.to_caller if isinstance(one, Response) and one.to.tag and one.call_id == "call-2"
    )
    first_request(bench, "REFER", extra=f"Refer-To: <sip:trunkline@198.51.100.1:5060?Replaces={theirs}&X-A=1>")
    assert refer_to(bench) == f"<sip:second@192.0.2.10:5070?Replaces=call-2%3Bto-tag%3Dother%3Bfrom-tag%3D{ours}&X-A=1>"
    bench.caller_answers(bench.caller_requests("REFER")[-1], 202)


def test_replaces_keeps_early_only(bench: Bench) -> None:
    bench.answered_call()
    invite = second_call(bench)
    theirs = f"{invite.call_id}%3Bfrom-tag%3Dtarget-2%3Bto-tag%3D{invite.from_.tag}%3Bearly-only"
    first_request(bench, "REFER", extra=f"Refer-To: <sip:x@198.51.100.1?rePlaces={theirs}>")
    assert (refer_to(bench) or "").endswith("%3Bearly-only>")


def test_referred_by_crosses_with_our_host(bench: Bench) -> None:
    bench.answered_call()
    referred = "Referred-By: Agent <sip:agent@10.0.0.5:5070;transport=tls>"
    bench.target_request("REFER", extra=f"Refer-To: <sip:bob@elsewhere.example>\n{referred}")
    assert bench.caller_requests("REFER")[-1].get("referred-by") == "Agent <sip:agent@198.51.100.1>"


def test_referred_by_that_nobody_understands_does_not_cross(bench: Bench) -> None:
    bench.answered_call()
    bench.target_request("REFER", extra="Refer-To: <sip:bob@elsewhere.example>\nReferred-By: <sip:a@b")
    assert bench.caller_requests("REFER")[-1].get("referred-by") is None


@pytest.mark.parametrize(
    "lines",
    [
        "X-Nothing: 1",
        "Refer-To: <sip:bob@a.example>, <sip:carol@b.example>",
        "Refer-To: <sip:bob@a b>",
        "Refer-To: nothing",
        "Refer-To: <sip:bob@a.example?Replaces=1>",
    ],
)
def test_refer_without_exactly_one_good_refer_to_gets_400(bench: Bench, lines: str) -> None:
    bench.answered_call()
    bench.target_request("REFER", extra=lines)
    assert bench.last_to_target.status == 400
    assert bench.caller_requests("REFER") == []


def test_notify_comes_back_with_the_id_of_the_refer_as_it_came(bench: Bench) -> None:
    bench.answered_call()
    bench.target_request("REFER", cseq=7, extra="Refer-To: <sip:bob@elsewhere.example>")
    refer = bench.caller_requests("REFER")[-1]
    bench.caller_answers(refer, 202)
    bench.target_request("REFER", cseq=8, extra="Refer-To: <sip:carol@elsewhere.example>")
    second = bench.caller_requests("REFER")[-1]
    bench.caller_answers(second, 202)
    for number, sent in ((2, refer), (3, second)):
        extra = f"Event: refer;x=1;id={sent.cseq.number}\nSubscription-State: active;expires=60"
        bench.caller_request("NOTIFY", cseq=number, extra=extra, body=TRYING, content_type="message/sipfrag")
    notifies = bench.requests("NOTIFY")
    assert [notify.get("event") for notify in notifies] == ["refer;x=1;id=7", "refer;x=1;id=8"]
    assert notifies[0].body == TRYING.encode()
    bench.respond(200, request=notifies[0])
    assert bench.last_response.status == 200


def test_notify_without_id_or_of_another_package_crosses_as_it_is(bench: Bench) -> None:
    bench.answered_call()
    bench.target_request("REFER", cseq=7, extra="Refer-To: <sip:bob@elsewhere.example>")
    bench.caller_answers(bench.caller_requests("REFER")[-1], 202)
    bench.caller_request("NOTIFY", cseq=2, extra="o: refer\nSubscription-State: active")
    bench.caller_request("NOTIFY", cseq=3, extra="Event: talk;id=1\nSubscription-State: active")
    assert [notify.lines("event") for notify in bench.requests("NOTIFY")] == [["o: refer"], ["Event: talk;id=1"]]


def test_what_became_of_a_refer_is_on_the_record(bench: Bench) -> None:
    bench.answered_call()
    bench.target_request("REFER", extra="Refer-To: <sip:bob@elsewhere.example>")
    bench.caller_answers(bench.caller_requests("REFER")[-1], 202)
    for number, state, body in ((2, "active", TRYING), (3, "terminated;reason=noresource", DONE)):
        extra = f"Event: refer\nSubscription-State: {state}"
        bench.caller_request("NOTIFY", cseq=number, extra=extra, body=body, content_type="message/sipfrag")
    seen = [(fields["state"], fields.get("status")) for fields in refer_events(bench)]
    assert seen == [("received", None), ("accepted", 202), ("progress", 100), ("done", 200)]


def test_relayed_refer_leaves_the_call_up(bench: Bench) -> None:
    bench.answered_call()
    bench.target_request("REFER", extra="Refer-To: <sip:bob@elsewhere.example>")
    bench.caller_answers(bench.caller_requests("REFER")[-1], 202)
    assert bench.stack.calls_in_progress == 1
    bench.caller_request("BYE", cseq=5)
    assert bench.target_saw[-1] == "BYE"


def test_refer_before_the_call_is_up_is_told_to_wait(bench: Bench) -> None:
    bench.invite()
    bench.respond(180)
    bench.caller_request("REFER", extra="Refer-To: <sip:bob@elsewhere.example>")
    assert bench.last_response.status == 500
    assert bench.last_response.get("retry-after") == "1"


def test_refused_refer_gets_405_and_allow_does_not_name_it(make_bench: BenchMaker) -> None:
    bench = make_bench(refer="refuse")
    bench.answered_call()
    bench.target_request("REFER", extra="Refer-To: <sip:bob@elsewhere.example>")
    assert bench.last_to_target.status == 405
    assert "REFER" not in (bench.last_to_target.get("allow") or "")
    assert bench.caller_requests("REFER") == []
    assert "REFER" not in (bench.invites[0].get("allow") or "REFER")
    (event,) = [event for event in bench.events if event.kind == "refer"]
    assert (event.leg, event.fields["state"], event.fields["status"]) == ("b", "refused", 405)


@pytest.mark.parametrize("refer", ["relay", "execute"])
def test_allow_names_refer_where_it_is_served(make_bench: BenchMaker, refer: str) -> None:
    bench = make_bench(refer=refer)
    bench.answered_call()
    for message in (bench.invites[0], bench.last_response):
        assert "REFER" in [part.strip() for part in (message.get("allow") or "").split(",")]


def test_refer_outside_a_dialog_gets_405_that_does_not_promise_it(bench: Bench) -> None:
    host, port = CALLER
    bench.receive(
        message_text(
            "REFER sip:198.51.100.1 SIP/2.0",
            [
                f"Via: SIP/2.0/UDP {host}:{port};branch={bench.branch()}",
                "Max-Forwards: 70",
                "From: <sip:a@192.0.2.10>;tag=x",
                "To: <sip:198.51.100.1>",
                "Call-ID: outside",
                "CSeq: 1 REFER",
                "Refer-To: <sip:bob@elsewhere.example>",
            ],
        ),
        bench.caller_flow,
    )
    assert bench.last_response.status == 405
    assert "REFER" not in (bench.last_response.get("allow") or "")
