"""What tests of transfers share: the transfer target, and the steps of a transfer."""

from __future__ import annotations

from collections.abc import Iterator

from proxy.sip.flow import Flow
from proxy.sip.message import Message, Request
from tests.support.bench import OFFER, Bench, message_text

__all__ = [
    "CALLER_ANSWER",
    "REFER_TO",
    "THIRD",
    "THIRD_ANSWER",
    "Third",
    "hears_news",
    "join",
    "news",
    "refer",
    "states",
    "transfer",
]

THIRD = ("198.18.0.7", 5060)
REFER_TO = "Refer-To: <sip:bob@198.18.0.7>"
THIRD_ANSWER = (
    "v=0\r\no=bob 7 7 IN IP4 198.18.0.7\r\ns=-\r\nc=IN IP4 198.18.0.7\r\nt=0 0\r\nm=audio 7000 RTP/AVP 0 101\r\n"
    "a=rtpmap:0 PCMU/8000\r\na=rtpmap:101 telephone-event/8000\r\na=fmtp:101 0-16\r\na=sendrecv\r\n"
)
CALLER_ANSWER = OFFER.replace("o=- 1 1", "o=- 1 2")


class Third:
    """The transfer target."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench

    def sent(self) -> Iterator[tuple[Flow, Message]]:
        for _, flow, message in self.bench.wire:
            if flow.remote == THIRD:
                yield flow, message

    @property
    def saw(self) -> list[str]:
        return self.bench.sent(message for _, message in self.sent())

    @property
    def flow(self) -> Flow:
        return [flow for flow, _ in self.sent()][-1]

    def requests(self, method: str) -> list[Request]:
        return [m for _, m in self.sent() if isinstance(m, Request) and m.method == method]

    @property
    def invite(self) -> Request:
        return self.requests("INVITE")[-1]

    def answers(
        self, status: int, *, request: Request | None = None, tag: str = "third", body: str = "", extra: str = ""
    ) -> None:
        contact = "<sip:bob@198.18.0.7:5060>"
        self.bench.respond(
            status, request=request or self.invite, flow=self.flow, tag=tag, body=body, extra=extra, contact=contact
        )

    def asks(self, method: str, cseq: int = 1, extra: str = "", body: str = "") -> None:
        """A request of its own in the dialog."""
        invite = self.invite if self.invite.to.tag is None else self.requests("INVITE")[0]
        self.bench.receive(
            message_text(
                f"{method} sip:trunkline@198.51.100.1:5060 SIP/2.0",
                [
                    f"Via: SIP/2.0/TCP 198.18.0.7:5060;branch={self.bench.branch()}",
                    "Max-Forwards: 70",
                    f"From: {invite.get('to')};tag=third",
                    f"To: {invite.get('from')}",
                    f"Call-ID: {invite.call_id}",
                    f"CSeq: {cseq} {method}",
                    *extra.splitlines(),
                ],
                body,
            ),
            self.flow,
        )


def refer(bench: Bench, extra: str = REFER_TO, cseq: int = 1) -> None:
    """The target sends the caller elsewhere."""
    bench.target_request("REFER", cseq=cseq, extra=f"{extra}\nContact: <sip:agent@203.0.113.5:5060>")


def news(bench: Bench) -> list[tuple[str, str]]:
    """What the target was told: status line and subscription state."""
    return [
        (one.body.decode().strip(), (one.get("subscription-state") or "").partition(";")[0])
        for one in bench.requests("NOTIFY")
    ]


def hears_news(bench: Bench) -> None:
    """The target answers its last NOTIFY."""
    bench.respond(200, request=bench.requests("NOTIFY")[-1])


def states(bench: Bench) -> list[tuple[object, object]]:
    """What became of REFERs: state and status of each event."""
    return [(event.fields["state"], event.fields.get("status")) for event in bench.events if event.kind == "refer"]


def transfer(bench: Bench, third: Third, extra: str = REFER_TO) -> None:
    """A transfer up to the answer of the transfer target."""
    bench.answered_call()
    refer(bench, extra)
    hears_news(bench)
    third.answers(200, body=THIRD_ANSWER)


def join(bench: Bench, body: str = CALLER_ANSWER) -> None:
    """The caller takes its new session, and the target hears of it."""
    bench.caller_answers(bench.caller_requests("INVITE")[-1], 200, body=body)
    hears_news(bench)
