"""One side of a dialog, as far as the simulators need it (RFC 3261 sections 12 and 13)."""

from __future__ import annotations

from collections.abc import Callable

from proxy.sim.endpoint import Endpoint
from proxy.sip.flow import Flow
from proxy.sip.headers import parse_name_addr
from proxy.sip.message import Header, Message, Request, Response, header
from proxy.sip.respond import marked_via_lines
from proxy.transaction.server import ServerTransaction

__all__ = ["OkUntilAck", "SimDialog", "make_ok", "top_via"]


class SimDialog:
    """One side of a dialog.

    Attributes:
        call_id, local_tag, remote_tag: its identifiers.
        local, remote: the From and To values of our requests, tags included.
        target: the peer's Contact URI.
        routes: Route values in the order of sending.
        local_seq, remote_seq: CSeq numbers; `remote_seq` is -1 before the peer's first request.
    """

    __slots__ = ("call_id", "local", "local_seq", "local_tag", "remote", "remote_seq", "remote_tag", "routes", "target")

    def __init__(
        self, call_id: str, local: str, remote: str, target: str, routes: list[str], local_seq: int, remote_seq: int
    ) -> None:
        self.call_id = call_id
        self.local = local
        self.remote = remote
        self.target = target
        self.routes = routes
        self.local_seq = local_seq
        self.remote_seq = remote_seq
        self.local_tag = parse_name_addr(local).tag or ""
        self.remote_tag = parse_name_addr(remote).tag or ""

    @classmethod
    def as_uas(cls, request: Request, local_tag: str) -> SimDialog:
        """The dialog that a request begins. Raises SipError."""
        contact = request.contact
        return cls(
            request.call_id,
            f"{request.get('to')};tag={local_tag}",
            request.get("from") or "",
            contact.uri_text if contact is not None else request.from_.uri_text,
            request.values("record-route"),
            0,
            request.cseq.number,
        )

    @classmethod
    def as_uac(cls, request: Request, response: Response) -> SimDialog:
        """The dialog that a 2xx to our INVITE begins. Raises SipError."""
        contact = response.contact
        return cls(
            request.call_id,
            request.get("from") or "",
            response.get("to") or "",
            contact.uri_text if contact is not None else request.uri,
            response.values("record-route")[::-1],
            request.cseq.number,
            -1,
        )

    def refresh(self, message: Message) -> None:
        """Take the target from a target refresh request or its 2xx. Raises SipError."""
        contact = message.contact
        if contact is not None:
            self.target = contact.uri_text

    def next_seq(self) -> int:
        """The CSeq number of our next request."""
        self.local_seq += 1
        return self.local_seq

    def request(
        self, method: str, seq: int, vias: list[Header], extra: tuple[tuple[str, str], ...] = (), body: bytes = b""
    ) -> Request:
        """Build a request of ours in this dialog, by loose routing."""
        lines = [
            *vias,
            header("Max-Forwards", "70"),
            *[header("Route", route) for route in self.routes],
            header("From", self.local),
            header("To", self.remote),
            header("Call-ID", self.call_id),
            header("CSeq", f"{seq} {method}"),
            *[header(name, value) for name, value in extra],
            header("Content-Length", str(len(body))),
        ]
        return Request(method, self.target, lines, body)


def make_ok(
    request: Request, flow: Flow, local_tag: str, extra: tuple[tuple[str, str], ...] = (), body: bytes = b""
) -> Response:
    """Build a 200 in the order of lines that OpenAI's has: Via, From, To, Call-ID, CSeq, Content-Length, the rest.

    Record-Route is copied where the request has it (RFC 3261 section 12.1.1).
    """
    lines = marked_via_lines(request, flow.remote)
    to = request.get("to") or ""
    lines.extend([item for item in request.headers if item.key == "record-route"])
    lines.append(header("From", request.get("from") or ""))
    lines.append(header("To", to if request.to.tag else f"{to};tag={local_tag}"))
    lines.append(header("Call-ID", request.call_id))
    lines.append(header("CSeq", request.get("cseq") or ""))
    lines.append(header("Content-Length", str(len(body))))
    lines.extend([header(name, value) for name, value in extra])
    return Response(200, "OK", lines, body)


def top_via(flow: Flow, branch: str) -> Header:
    """The Via of a request of ours over a flow."""
    return header("Via", f"SIP/2.0/{flow.transport.upper()} {flow.advertised};rport;branch=z9hG4bK{branch}")


class OkUntilAck:
    """Repeats a 2xx to an INVITE until its ACK comes: after T1, doubling up to T2, for 64*T1 in all.

    The repetition belongs to the transaction's user, over reliable transports too (RFC 3261 section 13.3.1.4).
    `give_up(now)` is called when no ACK came.
    """

    __slots__ = ("_endpoint", "_give_up", "_interval_s", "_response", "_timers", "_transaction")

    def __init__(
        self,
        endpoint: Endpoint,
        transaction: ServerTransaction,
        response: Response,
        give_up: Callable[[float], None],
    ) -> None:
        self._endpoint = endpoint
        self._transaction = transaction
        self._response = response
        self._give_up = give_up
        self._interval_s = endpoint.settings.t1_s
        endpoint.respond(transaction, response)
        self._timers = [
            endpoint.after(self._interval_s, self._again),
            endpoint.after(64 * endpoint.settings.t1_s, self._end),
        ]

    def matches(self, ack: Request) -> bool:
        """Whether an ACK of the same dialog is for this 2xx (RFC 3261 section 13.2.2.4)."""
        return ack.cseq.number == self._transaction.request.cseq.number

    def stop(self) -> None:
        """The ACK came, or it no longer matters."""
        for timer in self._timers:
            timer.cancel()

    def _again(self, now: float) -> None:
        self._endpoint.respond(self._transaction, self._response)
        self._interval_s = min(2 * self._interval_s, self._endpoint.settings.t2_s)
        self._timers[0] = self._endpoint.after(self._interval_s, self._again)

    def _end(self, now: float) -> None:
        self.stop()
        self._give_up(now)
