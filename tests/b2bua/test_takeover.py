"""INVITE with Replaces (RFC 3891): somebody takes the place of one side of a call, as at the end of an attended
transfer (RFC 5589 section 7)."""

from collections.abc import Iterator

import pytest

from proxy.b2bua.config import Target
from proxy.sip.flow import Flow
from proxy.sip.message import Message, Response
from proxy.sip.uri import parse_uri
from tests.b2bua.conftest import BenchMaker
from tests.support.bench import ANSWER, OFFER, OURS, Bench, message_text

NEW_OFFER = (
    "v=0\r\no=new 9 9 IN IP4 192.0.2.10\r\ns=-\r\nc=IN IP4 192.0.2.10\r\nt=0 0\r\nm=audio 9000 RTP/AVP 8 0 101\r\n"
    "a=rtpmap:0 PCMU/8000\r\na=rtpmap:101 telephone-event/8000\r\na=fmtp:101 0-16\r\na=sendrecv\r\n"
)
NEXT_ANSWER = ANSWER.replace("o=- 2 2", "o=- 2 3")


class Newcomer:
    """Who sends the INVITE with Replaces; it is at the caller's address, on another port."""

    def __init__(self, bench: Bench, host: str = "192.0.2.10") -> None:
        self.bench = bench
        self.flow = Flow("tcp", OURS, (host, 5090), f"{OURS[0]}:{OURS[1]}", listener="tcp")

    def seen(self) -> Iterator[Message]:
        return (message for _, flow, message in self.bench.wire if flow is self.flow)

    @property
    def saw(self) -> list[str]:
        return self.bench.sent(self.seen())

    @property
    def last(self) -> Response:
        return [m for m in self.seen() if isinstance(m, Response)][-1]

    def asks(self, method: str, cseq: int = 1, extra: str = "", body: str = "", branch: str = "", to: str = "") -> str:
        branch = branch or self.bench.branch()
        answered = [m for m in self.seen() if isinstance(m, Response) and m.to.tag]
        known = answered[-1].get("to") if answered and method != "CANCEL" else ""
        self.bench.receive(
            message_text(
                f"{method} sip:trunkline@198.51.100.1:5060 SIP/2.0",
                [
                    f"Via: SIP/2.0/TCP {self.flow.remote[0]}:5090;branch={branch}",
                    "Max-Forwards: 70",
                    "From: <sip:carol@192.0.2.10>;tag=new",
                    f"To: {to or known or '<sip:trunkline@198.51.100.1>'}",
                    "Call-ID: new-1",
                    f"CSeq: {cseq} {method}",
                    "Contact: <sip:carol@192.0.2.10:5090;transport=tcp>",
                    *extra.splitlines(),
                ],
                body,
            ),
            self.flow,
        )
        return branch

    def takes(self, replaces: str, body: str = NEW_OFFER, extra: str = "") -> str:
        """The INVITE."""
        lines = f"Replaces: {replaces}\nRequire: replaces"
        return self.asks("INVITE", extra=f"{lines}\n{extra}" if extra else lines, body=body)


@pytest.fixture
def bench(make_bench: BenchMaker) -> Bench:
    """A call that is up, over TCP."""
    bench = make_bench(transport="tcp", caller_transport="tcp")
    bench.answered_call()
    return bench


@pytest.fixture
def newcomer(bench: Bench) -> Newcomer:
    return Newcomer(bench)


def callers_dialog(bench: Bench) -> str:
    """The caller's dialog with us, as its Replaces names it."""
    return f"call-1;to-tag={bench.last_response.to.tag};from-tag=caller"


def answers(bench: Bench, status: int, body: str = "") -> None:
    """The target's answer to its re-INVITE."""
    bench.respond(status, request=bench.invites[-1], body=body)


def test_newcomer_takes_the_callers_place(bench: Bench, newcomer: Newcomer) -> None:
    newcomer.takes(callers_dialog(bench), extra="X-Note: 5")
    assert newcomer.saw == ["100 INVITE"]
    again = bench.invites[-1]
    assert again.to.tag == "target"
    assert again.body == NEW_OFFER.replace("o=new 9 9", "o=- 1 2").encode()
    assert again.get("x-note") == "5"
    assert again.get("replaces") is None
    assert bench.stack.calls_in_progress == 1
    answers(bench, 200, NEXT_ANSWER)
    assert bench.target_saw[-1] == "ACK"
    assert newcomer.saw == ["100 INVITE", "200 INVITE"]
    assert b"m=audio 5000 RTP/AVP 0 101" in newcomer.last.body
    assert newcomer.last.get("contact") == "<sip:trunkline@198.51.100.1:5060;transport=tcp>"
    assert bench.caller_saw[-1] == "BYE"
    assert bench.caller_requests("BYE")[0].get("reason") == 'SIP;cause=200;text="Replaced"'
    newcomer.asks("ACK")
    newcomer.asks("INFO", cseq=2)
    assert bench.target_saw[-1] == "INFO"
    bench.respond(200, request=bench.requests("INFO")[-1])
    assert newcomer.last.status == 200
    bench.target_request("BYE")
    assert newcomer.saw[-1] == "BYE"
    assert bench.stack.calls_in_progress == 0
    (event,) = [event for event in bench.events if event.kind == "takeover"]
    assert (event.leg, event.fields) == ("a", {"state": "replaced", "status": 200, "by": "c"})


def test_newcomer_takes_the_targets_place(make_bench: BenchMaker) -> None:
    bench = make_bench(transport="tcp", caller_transport="tcp")
    bench.answered_call()
    newcomer = Newcomer(bench, "203.0.113.5")
    invite = bench.invites[0]
    newcomer.takes(f"{invite.call_id};from-tag=target;to-tag={invite.from_.tag}")
    again = bench.caller_requests("INVITE")[-1]
    assert b"o=- 2 3 IN IP4 203.0.113.5" in again.body
    bench.caller_answers(again, 200, body=OFFER.replace("o=- 1 1", "o=- 1 2"))
    assert newcomer.last.status == 200
    assert bench.target_saw[-1] == "BYE"
    newcomer.asks("ACK")
    newcomer.asks("BYE", cseq=2)
    assert bench.caller_saw[-1] == "BYE"


def test_session_timer_of_the_newcomer_is_its_own(bench: Bench, newcomer: Newcomer) -> None:
    newcomer.takes(callers_dialog(bench), extra="Supported: timer\nSession-Expires: 600;refresher=uac")
    assert bench.invites[-1].get("session-expires") is None
    answers(bench, 200, NEXT_ANSWER)
    assert newcomer.last.get("session-expires") == "600;refresher=uac"
    newcomer.asks("ACK")
    bench.advance(569)
    assert newcomer.saw[-1] == bench.target_saw[-1] == "BYE"


def test_caller_that_was_replaced_may_hang_up_first(bench: Bench, newcomer: Newcomer) -> None:
    newcomer.takes(callers_dialog(bench))
    bench.caller_request("BYE")
    assert bench.last_response.status == 200
    assert "BYE" not in bench.target_saw
    answers(bench, 200, NEXT_ANSWER)
    assert newcomer.last.status == 200
    newcomer.asks("ACK")
    assert bench.caller_requests("BYE") == []
    newcomer.asks("BYE", cseq=2)
    assert bench.target_saw[-1] == "BYE"


# Failure: the old call stays


@pytest.mark.parametrize("status", [488, 403, 500])
def test_target_that_refuses_keeps_the_old_call(bench: Bench, newcomer: Newcomer, status: int) -> None:
    newcomer.takes(callers_dialog(bench))
    answers(bench, status)
    assert newcomer.last.status == status
    assert "BYE" not in bench.caller_saw
    bench.caller_request("INFO")
    assert bench.target_saw[-1] == "INFO"
    newcomer.asks("INFO", cseq=2)
    assert newcomer.last.status == 481


def test_challenge_of_the_target_is_no_challenge_for_the_newcomer(bench: Bench, newcomer: Newcomer) -> None:
    newcomer.takes(callers_dialog(bench))
    answers(bench, 401)
    assert newcomer.last.status == 403


def test_challenge_of_the_target_is_answered_where_we_can(make_bench: BenchMaker) -> None:
    target = Target("main", parse_uri("sip:agent@203.0.113.5"), username="u", password="p")
    bench = make_bench(transport="tcp", caller_transport="tcp", targets=[target])
    bench.answered_call()
    newcomer = Newcomer(bench)
    newcomer.takes(callers_dialog(bench))
    bench.respond(401, request=bench.invites[-1], extra='WWW-Authenticate: Digest realm="r", nonce="n"')
    assert bench.invites[-1].get("authorization") is not None
    answers(bench, 200, NEXT_ANSWER)
    assert newcomer.last.status == 200
    newcomer.asks("ACK")


@pytest.mark.parametrize("body", ["", "no session"])
def test_answer_that_is_none_gives_the_target_its_old_session_back(bench: Bench, newcomer: Newcomer, body: str) -> None:
    newcomer.takes(callers_dialog(bench))
    answers(bench, 200, body)
    assert newcomer.last.status == 488
    back = bench.invites[-1]
    assert back.body == OFFER.replace("o=- 1 1", "o=- 1 3").encode()
    answers(bench, 200, NEXT_ANSWER)
    bench.caller_request("INFO")
    assert bench.target_saw[-1] == "INFO"


def test_newcomer_that_cancels_leaves_the_old_call(bench: Bench, newcomer: Newcomer) -> None:
    branch = newcomer.takes(callers_dialog(bench))
    newcomer.asks("CANCEL", branch=branch)
    assert newcomer.saw == ["100 INVITE", "200 CANCEL", "487 INVITE"]
    answers(bench, 200, NEXT_ANSWER)
    assert newcomer.saw[3:] == []
    assert bench.invites[-1].body == OFFER.replace("o=- 1 1", "o=- 1 3").encode()
    answers(bench, 200, NEXT_ANSWER)
    bench.caller_request("INFO")
    assert bench.target_saw[-1] == "INFO"


def test_newcomer_that_cancels_when_nobody_else_is_left_ends_the_call(bench: Bench, newcomer: Newcomer) -> None:
    branch = newcomer.takes(callers_dialog(bench))
    bench.caller_request("BYE")
    newcomer.asks("CANCEL", branch=branch)
    answers(bench, 200, NEXT_ANSWER)
    assert bench.target_saw[-1] == "BYE"
    assert bench.stack.calls_in_progress == 0


def test_target_that_hangs_up_meanwhile_ends_both(bench: Bench, newcomer: Newcomer) -> None:
    newcomer.takes(callers_dialog(bench))
    bench.target_request("BYE")
    assert newcomer.last.status == 481
    assert bench.caller_saw[-1] == "BYE"
    answers(bench, 487)
    assert bench.stack.tables()["legs"] == 0


def test_target_whose_dialog_is_lost_ends_both(bench: Bench, newcomer: Newcomer) -> None:
    newcomer.takes(callers_dialog(bench))
    answers(bench, 481)
    assert newcomer.last.status == 481
    assert bench.caller_saw[-1] == "BYE"


def test_200_that_is_never_acknowledged_ends_the_call(bench: Bench, newcomer: Newcomer) -> None:
    newcomer.takes(callers_dialog(bench))
    answers(bench, 200, NEXT_ANSWER)
    bench.advance(32.1)
    assert newcomer.saw[-1] == bench.target_saw[-1] == "BYE"


# What is refused


@pytest.mark.parametrize(
    ("replaces", "status"),
    [
        ("call-2;to-tag={tag};from-tag=caller", 481),
        ("call-1;to-tag=x;from-tag=caller", 481),
        ("call-1;to-tag={tag};from-tag=x", 481),
        # The tags the other way round: that is how the caller sees it.
        ("call-1;to-tag=caller;from-tag={tag}", 481),
        ("call-1;to-tag={tag};from-tag=caller;early-only", 486),
        ("call-1;to-tag={tag}", 400),
        ("call-1", 400),
        ("", 400),
        ("call-1;to-tag={tag};from-tag=caller\nReplaces: call-1;to-tag=1;from-tag=2", 400),
        ("call-1;to-tag={tag};from-tag=caller\nJoin: call-1;to-tag=1;from-tag=2", 400),
    ],
)
def test_replaces_that_names_nothing_of_ours(bench: Bench, newcomer: Newcomer, replaces: str, status: int) -> None:
    newcomer.takes(replaces.replace("{tag}", bench.last_response.to.tag or ""))
    assert newcomer.last.status == status
    assert len(bench.invites) == 1
    assert bench.stack.calls_in_progress == 1


def test_dialog_that_is_not_answered_yet_can_not_be_replaced(make_bench: BenchMaker) -> None:
    bench = make_bench(transport="tcp", caller_transport="tcp")
    bench.invite()
    bench.respond(180)
    newcomer = Newcomer(bench)
    newcomer.takes(callers_dialog(bench))
    assert newcomer.last.status == 481


def test_newcomer_without_an_offer_gets_488(bench: Bench, newcomer: Newcomer) -> None:
    newcomer.takes(callers_dialog(bench), body="")
    assert newcomer.last.status == 488


def test_newcomer_from_elsewhere_gets_403(make_bench: BenchMaker) -> None:
    bench = make_bench(transport="tcp", caller_transport="tcp")
    bench.answered_call()
    invite = bench.invites[0]
    newcomer = Newcomer(bench, "192.0.2.77")
    newcomer.takes(f"{invite.call_id};from-tag=target;to-tag={invite.from_.tag}")
    assert newcomer.last.status == 403
    assert bench.caller_requests("INVITE") == []


def test_second_newcomer_is_told_to_wait(bench: Bench, newcomer: Newcomer) -> None:
    replaces = callers_dialog(bench)
    newcomer.takes(replaces)
    other = Newcomer(bench)
    other.asks("INVITE", cseq=2, extra=f"Replaces: {replaces}", body=NEW_OFFER, to="<sip:x@198.51.100.1>")
    assert other.last.status == 491
    answers(bench, 488)


def test_options_say_that_replaces_is_supported(bench: Bench) -> None:
    bench.caller_request("OPTIONS", cseq=3, call_id="outside")
    assert "replaces" in (bench.last_response.get("supported") or "")
