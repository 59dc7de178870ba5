"""The simulated Twilio side: what it refuses to do, and what it notices in a peer that misbehaves."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import Any

import pytest

from proxy.sdp.session import Session
from proxy.sim.certificates import Certificate
from proxy.sim.dialog import SimDialog, make_ok
from proxy.sim.media import Origin, make_answer
from proxy.sim.openai import OpenAiSim
from proxy.sim.report import Percentiles, Report
from proxy.sim.twilio import PublicTarget, TwilioConfig, place_calls
from proxy.sip.flow import Flow
from proxy.sip.message import Header, Message, Request, Response, header
from proxy.sip.parser import parse_message
from proxy.sip.respond import make_response
from proxy.transaction.timers import TimerSettings

StartSim = Callable[..., Awaitable[OpenAiSim]]
Place = Callable[..., Awaitable[Report]]

QUICK = TimerSettings(t1_s=0.01, t2_s=0.04, t4_s=0.04)
Handler = Callable[[Request | Response], Iterable[Message]]


class Callee(asyncio.DatagramProtocol):
    """A raw UDP callee: answers each message with what a test's handler says."""

    def __init__(self) -> None:
        self.handle: Handler = lambda message: ()
        self.seen: list[Request | Response] = []
        self.copies: Counter[bytes] = Counter()
        self.address = ""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        host, port = transport.get_extra_info("sockname")[:2]
        self.address = f"{host}:{port}"

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        message = parse_message(data)
        self.copies[data] += 1
        self.seen.append(message)
        for reply in self.handle(message):
            self.transport.sendto(reply.serialize(), addr)  # type: ignore[attr-defined]

    def ok(self, invite: Request, tag: str = "callee", body: bytes | None = None) -> Response:
        """A good 200."""
        flow = Flow("udp", ("127.0.0.1", 1), ("127.0.0.1", 2), self.address)
        if body is None:
            origin = Origin(1, 1, "127.0.0.1", 4000, "a" * 40)
            body = make_answer(Session.parse(invite.body), origin, ("PCMU",))
        extra = (("Contact", f"<sip:callee@{self.address}>"), ("Content-Type", "application/sdp"))
        return make_ok(invite, flow, tag, extra, body)

    def without(self, response: Response, *keys: str) -> Response:
        lines = [item for item in response.headers if item.key not in keys]
        return Response(response.status, response.reason, lines, response.body)

    def via(self, branch: str) -> Header:
        return header("Via", f"SIP/2.0/UDP {self.address};branch=z9hG4bK{branch}")


@pytest.fixture
async def callee() -> AsyncIterator[Callee]:
    loop = asyncio.get_running_loop()
    transport, made = await loop.create_datagram_endpoint(Callee, local_addr=("127.0.0.1", 0))
    yield made
    transport.close()


async def call(
    callee: Callee, handle: Callable[[Request], Iterable[Message]], answer_from: int = 1, **values: Any
) -> Report:
    """One call to a callee; `handle` answers copy `answer_from` of each request other than ACK and BYE."""

    def answer(message: Request | Response) -> Iterable[Message]:
        copies = callee.copies[message.serialize()]
        if isinstance(message, Response) or message.method == "ACK":
            return ()
        if message.method in ("BYE", "CANCEL"):
            return (make_response(message, 200, remote=("127.0.0.1", 1)),)
        return handle(message) if copies == answer_from else ()

    callee.handle = answer
    quick: dict[str, Any] = {"hold_ms": 15, "settle_s": 0.01, "media_security": "rtp"}
    return await place_calls(TwilioConfig(target=f"sip:{callee.address}", **{**quick, **values}))


async def test_a_good_callee_is_fine(callee: Callee) -> None:
    report = await call(callee, lambda invite: (callee.ok(invite),))
    assert report.ok, report.to_dict()
    assert report.answers_without_content_type == 0
    assert [message.method for message in callee.seen if isinstance(message, Request)] == ["INVITE", "ACK", "BYE"]


async def test_requests_go_through_the_route_set(callee: Callee) -> None:
    """The callee's proxy stands in Record-Route above ours; ours are gone when the request leaves the edge."""

    def answer(invite: Request) -> Iterable[Message]:
        ok = callee.ok(invite)
        routes = [header("Record-Route", f"<sip:{callee.address};lr;p=2>, <sip:192.0.2.77;lr;p=1>")]
        return (Response(200, "OK", routes + ok.headers, ok.body),)

    await call(callee, answer)
    requests = [message for message in callee.seen if isinstance(message, Request)]
    assert [request.method for request in requests[:1]] == ["INVITE"]
    # The first route is where requests go, and that is a documentation address here: they take the flow instead.
    ack = requests[1]
    assert ack.values("route") == ["<sip:192.0.2.77;lr;p=1>", f"<sip:{callee.address};lr;p=2>"]
    assert ack.uri == f"sip:callee@{callee.address}"


@pytest.mark.parametrize(
    ("keys", "notice"),
    [
        (("record-route",), "200 without our Record-Route"),
        (("contact",), "200 without Contact"),
    ],
)
async def test_what_a_200_lacks_is_noticed(callee: Callee, keys: tuple[str, ...], notice: str) -> None:
    report = await call(callee, lambda invite: (callee.without(callee.ok(invite), *keys),))
    assert notice in report.unexpected
    assert not report.ok


async def test_a_200_without_content_type_is_counted(callee: Callee) -> None:
    report = await call(callee, lambda invite: (callee.without(callee.ok(invite), "content-type"),))
    assert (report.answers_without_content_type, report.ok) == (1, True)


@pytest.mark.parametrize("body", [b"", b"nonsense", b"v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\n"])
async def test_an_answer_that_does_not_fit_is_noticed(callee: Callee, body: bytes) -> None:
    report = await call(callee, lambda invite: (callee.ok(invite, body=body),))
    assert (report.answers_incomplete, report.ok) == (1, False)
    assert report.incomplete_because.total() >= 1


async def test_a_response_with_another_via_is_noticed(callee: Callee) -> None:
    def answer(invite: Request) -> Iterable[Message]:
        ok = callee.ok(invite)
        del ok.headers[1]  # the second Via
        return (ok,)

    report = await call(callee, answer)
    assert report.unexpected["200 without our Vias"] == 1


async def test_a_repeated_200_gets_its_ack_again(callee: Callee) -> None:
    report = await call(callee, lambda invite: (callee.ok(invite),) * 3)
    acks = [message for message in callee.seen if isinstance(message, Request) and message.method == "ACK"]
    assert (len(acks), report.ok, report.traffic["retransmissions_received"]) == (3, True, 2)


async def test_a_second_200_of_another_fork_is_ended(callee: Callee) -> None:
    report = await call(callee, lambda invite: (callee.ok(invite), callee.ok(invite, "other")))
    assert report.unexpected == {"a second 200 with another To tag": 1}
    byes = [message for message in callee.seen if isinstance(message, Request) and message.method == "BYE"]
    assert [bye.to.tag for bye in byes] == ["other", "callee"]
    assert report.answered == 1


async def test_stray_responses_are_noticed(callee: Callee) -> None:
    def answer(invite: Request) -> Iterable[Message]:
        stray = callee.without(callee.ok(invite), "via")
        stray.headers.insert(0, header("Via", f"SIP/2.0/UDP {callee.address};branch=z9hG4bKnone"))
        return (stray, callee.ok(invite))

    assert (await call(callee, answer)).unexpected == {"stray 200 to INVITE": 1}


@pytest.mark.parametrize(
    ("method", "uri", "routed", "notice", "status"),
    [
        ("BYE", None, True, None, 200),
        ("BYE", "sip:other@127.0.0.1", True, "BYE to another URI than our Contact", 200),
        ("BYE", None, False, "BYE without our route set", 200),
        ("UPDATE", None, True, "UPDATE in the dialog", 405),
        ("OPTIONS", None, True, None, 200),
    ],
)
async def test_requests_of_the_callee_are_checked(
    callee: Callee, method: str, uri: str | None, routed: bool, notice: str | None, status: int
) -> None:
    def answer(invite: Request) -> Iterable[Message]:
        ok = callee.ok(invite)
        dialog = SimDialog.as_uas(invite, "callee")
        dialog.target = uri or dialog.target
        dialog.routes = dialog.routes if routed else []
        return (ok, dialog.request(method, 1, [callee.via("own")]))

    report = await call(callee, answer)
    assert dict(report.unexpected) == ({notice: 1} if notice else {})
    assert [message.status for message in callee.seen if isinstance(message, Response)] == [status]
    assert report.answered == 1


async def test_requests_outside_of_any_dialog(callee: Callee) -> None:
    def answer(invite: Request) -> Iterable[Message]:
        dialog = SimDialog.as_uas(invite, "callee")
        dialog.call_id = "another"
        bye = dialog.request("BYE", 1, [callee.via("one")])
        return (callee.ok(invite), bye, dialog.request("OPTIONS", 2, [callee.via("two")]))

    report = await call(callee, answer)
    assert report.unexpected == {"BYE outside of any dialog": 1}
    assert [message.status for message in callee.seen if isinstance(message, Response)] == [481, 200]


async def test_a_callee_that_never_hangs_up_is_noticed(callee: Callee) -> None:
    report = await call(callee, lambda invite: (callee.ok(invite),), hang_up="callee", hold_ms=5, timers=QUICK)
    assert report.unexpected == {"the callee never hung up": 1}
    assert report.results[0].ended_by == "caller"


async def test_a_cancel_without_effect(callee: Callee) -> None:
    def answer(request: Request) -> Iterable[Message]:
        return (make_response(request, 180, remote=("127.0.0.1", 1)),)

    report = await call(callee, answer, cancel_share=1.0, cancel_after_ms=1, timers=QUICK)
    assert dict(report.outcomes) == {"no final response after CANCEL": 1}


async def test_a_planned_cancel_waits_for_a_provisional_response(callee: Callee) -> None:
    """RFC 3261 section 9.1. The callee answers the third copy of the INVITE."""

    def answer(invite: Request) -> Iterable[Message]:
        return (make_response(invite, 180, remote=("127.0.0.1", 1), to_tag="callee"),)

    report = await call(callee, answer, 3, cancel_share=1.0, cancel_after_ms=1, timers=QUICK)
    methods = [message.method for message in callee.seen if isinstance(message, Request)]
    assert methods.index("CANCEL") == methods.count("INVITE") >= 3
    assert dict(report.outcomes) == {"no final response after CANCEL": 1}


async def test_a_malformed_200_fails_the_call(callee: Callee) -> None:
    def answer(invite: Request) -> Iterable[Message]:
        ok = callee.without(callee.ok(invite), "contact")
        return (Response(200, "OK", [*ok.headers, header("Contact", '"open <sip:a@b>')], ok.body),)

    report = await call(callee, answer)
    assert report.failed == 1
    assert dict(report.outcomes) == {"unusable 200": 1}


@pytest.mark.parametrize("target", ["sip:10.0.0.1", "sip:sip.api.openai.com;transport=tls", "sip:[2001:db8::1]"])
async def test_public_targets_are_refused(target: str) -> None:
    with pytest.raises(PublicTarget, match="not a loopback address"):
        await place_calls(TwilioConfig(target=target))
    with pytest.raises(PublicTarget, match=r"192\.0\.2\.1 is not"):
        await place_calls(TwilioConfig(target="sip:localhost", next_hop="192.0.2.1:5060"))


async def test_no_connection_is_one_clear_error() -> None:
    with pytest.raises(OSError, match=r"no connection to tcp:127\.0\.0\.1:9"):
        await place_calls(TwilioConfig(target="sip:127.0.0.1:9;transport=tcp"))


async def test_a_certificate_of_another_name_is_refused(
    start_openai: StartSim, place: Place, certificate: Certificate
) -> None:
    sim = await start_openai()
    with pytest.raises(OSError, match="no connection to tls"):
        await place(sim, "tls", server_name="sip.example.com")
    with pytest.raises(OSError, match="no connection to tls"):
        await place(sim, "tls", ca_file=None)
    assert (await place(sim, "tls", ca_file=None, verify=False)).ok


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"target": "tel:+1"}, "sip: URI"),
        ({"target": "sip:a b"}, "Malformed URI"),
        ({"target": "sip:a;transport=sctp"}, "udp, tcp, tls"),
        ({"transport": "sctp"}, "udp, tcp, tls"),
        ({"hang_up": "nobody"}, "caller, callee"),
        ({"media_security": "zrtp"}, "rtp, srtp"),
        ({"problems": ("none",)}, "duplicate-content-type"),
        ({"problem_share": 2}, "problem_share"),
        ({"rate": 0}, "rate"),
        ({"next_hop": "localhost:x"}, "Malformed port"),
    ],
)
async def test_impossible_settings_are_refused(values: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        await place_calls(TwilioConfig(**{"target": "sip:127.0.0.1:9", **values}))


def test_percentiles_are_nearest_rank() -> None:
    values = [float(value) for value in range(100, 0, -1)]
    assert Percentiles.of(values) == Percentiles(100, 50.5, 50.0, 95.0, 99.0, 100.0)
    assert Percentiles.of([7.0]) == Percentiles(1, 7.0, 7.0, 7.0, 7.0, 7.0)
    assert Percentiles.of([]) == Percentiles()
