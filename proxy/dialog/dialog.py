"""Dialog state of one leg (RFC 3261 section 12)."""

from __future__ import annotations

from proxy.sip.errors import SipError
from proxy.sip.headers import NameAddr, parse_name_addr
from proxy.sip.message import Header, Message, Request, Response, header
from proxy.sip.uri import Uri, parse_uri

__all__ = ["Dialog"]


class Dialog:
    """One side's view of a dialog.

    Attributes:
        call_id, local_tag, remote_tag: the dialog's identifiers; `remote_tag` is "" for a peer of RFC 2543.
        local, remote: the From and To values for requests that we send, tags included.
        local_seq: CSeq number of our latest request.
        remote_seq: CSeq number of the peer's latest request; -1 before the first one.
        route_set: Route values in the order in which they go into a request.
        remote_target: the peer's Contact URI.
    """

    __slots__ = (
        "_hop",
        "call_id",
        "local",
        "local_seq",
        "local_tag",
        "remote",
        "remote_seq",
        "remote_tag",
        "remote_target",
        "route_set",
    )

    def __init__(
        self,
        call_id: str,
        local: str,
        local_tag: str,
        remote: str,
        remote_tag: str,
        local_seq: int,
        remote_seq: int,
        route_set: list[str],
        remote_target: str,
    ) -> None:
        self.call_id = call_id
        self.local = local
        self.local_tag = local_tag
        self.remote = remote
        self.remote_tag = remote_tag
        self.local_seq = local_seq
        self.remote_seq = remote_seq
        self.route_set = route_set
        self.remote_target = remote_target
        self._hop: Uri | None = None

    @classmethod
    def as_uas(cls, request: Request, local_tag: str) -> Dialog:
        """The dialog that a request from the peer begins (RFC 3261 section 12.1.1).

        A request without Contact (RFC 2543 allowed that) is answered at its From URI. Raises SipError 400, also for a
        route set that no request could follow.
        """
        contact = request.contact
        dialog = cls(
            call_id=request.call_id,
            local=_tagged(request.get("to") or "", local_tag),
            local_tag=local_tag,
            remote=request.get("from") or "",
            remote_tag=request.from_.tag or "",
            local_seq=0,
            remote_seq=request.cseq.number,
            route_set=request.values("record-route"),
            remote_target=contact.uri_text if contact is not None else request.from_.uri_text,
        )
        dialog.find_hop(contact)
        return dialog

    @classmethod
    def as_uac(cls, request: Request, response: Response) -> Dialog:
        """The dialog that a response to our request begins (RFC 3261 section 12.1.2); the route set is turned round.

        Raises SipError 400, also for a Contact or a route set that no request could follow.
        """
        contact = response.contact
        if contact is not None:
            _ = contact.uri
        dialog = cls(
            call_id=request.call_id,
            local=request.get("from") or "",
            local_tag=request.from_.tag or "",
            remote=response.get("to") or "",
            remote_tag=response.to.tag or "",
            local_seq=request.cseq.number,
            remote_seq=-1,
            route_set=response.values("record-route")[::-1],
            remote_target=contact.uri_text if contact is not None else request.uri,
        )
        dialog.find_hop(contact)
        return dialog

    def retag(self, tag: str) -> None:
        """Take another tag on our side."""
        self.local = _tagged(self.local, tag)
        self.local_tag = tag

    def confirm(self, response: Response) -> None:
        """Take the route set and target anew from the 2xx, as RFC 3261 section 13.2.2.4 demands of a UAC."""
        self.route_set = response.values("record-route")[::-1]
        self._hop = None
        self.refresh_target(response)

    def refresh_target(self, message: Message) -> None:
        """Take the remote target from a target refresh request or its 2xx (RFC 3261 section 12.2).

        A Contact that can't be understood changes nothing: the target that is known serves on.
        """
        try:
            contact = message.contact
            if contact is not None:
                _ = contact.uri
                self.remote_target = contact.uri_text
                self.find_hop(contact)
        except SipError:
            return

    def accept(self, request: Request) -> None:
        """Check and take the CSeq of a request from the peer (RFC 3261 section 12.2.2).

        Raises SipError 500 for a number that is lower than, or for another request the same as, one seen before.
        """
        number = request.cseq.number
        if self.remote_seq >= 0 and number <= self.remote_seq:
            raise SipError(500, "CSeq out of order")
        self.remote_seq = number

    def next_seq(self) -> int:
        """The CSeq number for our next request."""
        self.local_seq += 1
        return self.local_seq

    def request_lines(self) -> tuple[str, list[Header]]:
        """The Request-URI and the Route header fields of a request in this dialog (RFC 3261 section 12.2.1.1).

        A first route without `lr` is a strict router: it becomes the Request-URI, and the remote target the last Route.
        """
        if not self.route_set:
            return self.remote_target, []
        first = parse_name_addr(self.route_set[0])
        if first.uri.param("lr") is not None:
            return self.remote_target, [header("Route", route) for route in self.route_set]
        rest = [*self.route_set[1:], f"<{self.remote_target}>"]
        return first.uri_text, [header("Route", route) for route in rest]

    def next_hop(self) -> Uri:
        """Where a request of this dialog goes by the book: the first route, or the remote target. Raises SipError."""
        hop = self._hop
        if hop is None:
            hop = parse_name_addr(self.route_set[0]).uri if self.route_set else parse_uri(self.remote_target)
            self._hop = hop
        return hop

    def find_hop(self, contact: NameAddr | None) -> None:
        """Find `next_hop`; `contact` is the peer's Contact where that gave the remote target. Raises SipError."""
        if not self.route_set:
            self._hop = None if contact is None else contact.uri
        self.next_hop()

    def request(
        self, method: str, seq: int, top: list[Header], extra: tuple[Header, ...] = (), body: bytes = b""
    ) -> Request:
        """Build a request of our own in this dialog.

        `top` holds Via and Max-Forwards, `extra` what follows the identity headers (Contact, Reason …).
        """
        uri, routes = self.request_lines()
        headers = [
            *top,
            *routes,
            *self.identity(seq, method),
            *extra,
            Header("content-length", f"Content-Length: {len(body)}"),
        ]
        return Request(method, uri, headers, body)

    def identity(self, seq: int, method: str) -> list[Header]:
        """From, To, Call-ID and CSeq of a request that we send."""
        return [
            header("From", self.local),
            header("To", self.remote),
            header("Call-ID", self.call_id),
            Header("cseq", f"CSeq: {seq} {method}"),
        ]


def _tagged(value: str, tag: str) -> str:
    """A To value with our tag in the place of whatever tag it has."""
    address = parse_name_addr(value)
    if address.tag is None:
        return f"{value};tag={tag}" if "<" in value or ";" not in value else f"{_bracketed(address)};tag={tag}"
    return f"{_bracketed(address)};tag={tag}"


def _bracketed(address: NameAddr) -> str:
    return str(address.replace(params=tuple(pair for pair in address.params if pair[0].lower() != "tag")))
