"""The transaction layer: every message finds its transaction here, and retransmissions end here
(RFC 3261 sections 17.1.3 and 17.2.3)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

from proxy.sip.errors import SipError
from proxy.sip.flow import Flow
from proxy.sip.headers import split_values
from proxy.sip.message import Request, Response
from proxy.transaction.client import ClientTransaction, ClientUser
from proxy.transaction.server import ServerTransaction
from proxy.transaction.tables import Event, State
from proxy.transaction.timers import TimerQueue, TimerSettings

__all__ = ["LayerUser", "TransactionLayer"]

_COOKIE: Final = "z9hG4bK"


class LayerUser(Protocol):
    """Who takes what belongs to no client transaction: the transaction user (TU) of all server transactions."""

    def on_request(self, tx: ServerTransaction, now: float) -> None:
        """Take a new request; neither ACK nor CANCEL."""

    def on_ack(self, request: Request, flow: Flow, now: float) -> None:
        """Take an ACK for a 2xx. One for a failure is absorbed by its transaction."""

    def on_cancel(self, tx: ServerTransaction, invite: ServerTransaction | None, now: float) -> None:
        """Take a CANCEL, to be answered by `tx`. Without `invite` there is nothing to cancel: answer 481.

        `invite` may have its final response already; then the CANCEL changes nothing (RFC 3261 section 9.2).
        """

    def on_stray_response(self, response: Response, flow: Flow, now: float) -> None:
        """Take a response without a transaction, or one whose Via or CSeq is broken. A 2xx to INVITE may be among them,
        whose session must be ended; never forward any (RFC 6026 section 7.3)."""

    def on_server_failure(self, tx: ServerTransaction, now: float) -> None:
        """A response could not be sent, or the ACK for a failure response never came. Called once a transaction.

        An INVITE that has no final response yet still needs one to end (RFC 6026 section 7.1).
        """


class TransactionLayer:
    """All transactions of one stack.

    Attributes:
        settings: the lengths of timers.
        timers: the queue that deadlines go to; the owner runs it.
        send: called with a flow that is not closed and the bytes of one message.
        user: the TU of server transactions.
    """

    __slots__ = ("_by_flow", "_client", "_merged", "_server", "send", "settings", "timers", "user")

    def __init__(
        self, settings: TimerSettings, timers: TimerQueue, send: Callable[[Flow, bytes], None], user: LayerUser
    ) -> None:
        self.settings = settings
        self.timers = timers
        self.send = send
        self.user = user
        self._client: dict[tuple[str, str], ClientTransaction] = {}
        self._server: dict[tuple[str, ...], ServerTransaction] = {}
        self._merged: dict[tuple[str, str, int, str], ServerTransaction] = {}
        self._by_flow: dict[Flow, dict[ClientTransaction, None]] = {}

    def __len__(self) -> int:
        """How many transactions there are."""
        return len(self._client) + len(self._server)

    def tables(self) -> dict[str, int]:
        """The sizes of all tables, by name."""
        return {
            "client_transactions": len(self._client),
            "server_transactions": len(self._server),
            "initial_requests": len(self._merged),
            "flows_in_use": len(self._by_flow),
        }

    def receive_request(self, request: Request, flow: Flow, now: float) -> None:
        """Take a request that passed `check_request`: absorb it as a retransmission, or hand it to the user.

        Raises SipError 400 for one that did not pass.
        """
        method = request.method
        if method == "ACK":
            self._receive_ack(request, flow, now)
            return
        key = _server_key(request, method)
        tx = self._server.get(key)
        if tx is None:
            tx = ServerTransaction(self, key, request, flow, now)
            merge_key = _merge_key(request)
            self._server[key] = tx
            if merge_key is not None and merge_key not in self._merged:
                self._merged[merge_key] = tx
                tx.merge_key = merge_key
        tx.step(Event.REQUEST, request, flow, now)

    def receive_response(self, response: Response, flow: Flow, now: float) -> None:
        """Take a response: by the branch of its top Via and the method in its CSeq (RFC 3261 section 17.1.3)."""
        try:
            tx = self._client.get((response.via.branch, response.cseq.method))
        except SipError:
            tx = None
        if tx is None:
            self.user.on_stray_response(response, flow, now)
        else:
            tx.receive(response, now)

    def send_request(
        self, request: Request, flow: Flow, user: ClientUser, now: float, data: bytes = b""
    ) -> ClientTransaction:
        """Send a request in a new client transaction. It must carry its top Via with a branch of its own. `data`: its
        bytes, where they are known.

        A CANCEL has the branch of its INVITE and is a transaction of its own. When the flow is closed the failure is
        told at the next run of the timers. Raises ValueError for an ACK, which is no transaction, for a request without
        a branch, or for a branch that is in use.
        """
        method = request.method
        key = (_own_branch(request), method)
        if method == "ACK":
            raise ValueError("an ACK for a 2xx is sent without a transaction")
        if not key[0] or key in self._client:
            raise ValueError(f"branch {key[0]!r} is empty or in use")
        tx = ClientTransaction(self, key, request, flow, user, now, data)
        self._keep_client(tx)
        tx.step(Event.REQUEST, None, now)
        return tx

    def adopt_client(self, invite: Request, flow: Flow, user: ClientUser, now: float) -> ClientTransaction:
        """Go on with an INVITE that another process has sent, which is gone: it waits for its final response.

        Raises ValueError for a branch that is in use.
        """
        key = (invite.via.branch, invite.method)
        if key in self._client:
            raise ValueError(f"branch {key[0]!r} is in use")
        tx = ClientTransaction(self, key, invite, flow, user, now)
        tx.state = State.PROCEEDING
        self._keep_client(tx)
        return tx

    def adopt_server(self, invite: Request, flow: Flow, now: float) -> ServerTransaction | None:
        """Go on with an INVITE that another process has got, which is gone: it is to be answered.

        None where it has come again, and is a transaction already. Raises SipError 400.
        """
        key = _server_key(invite, invite.method)
        if key in self._server:
            return None
        tx = self._server[key] = ServerTransaction(self, key, invite, flow, now)
        tx.state = State.PROCEEDING
        return tx

    def _keep_client(self, tx: ClientTransaction) -> None:
        self._client[tx.key] = tx
        flow = tx.flow
        if flow.reliable:
            peers = self._by_flow.get(flow)
            if peers is None:
                self._by_flow[flow] = {tx: None}
            else:
                peers[tx] = None

    def flow_closed(self, flow: Flow, now: float) -> None:
        """A connection is gone, `flow.closed` is set. Client transactions that wait for a response by it fail.

        Server transactions stay: their user is told when it responds. Over unreliable transports nothing happens here;
        those transactions fail when they next send, or time out.
        """
        peers = self._by_flow.pop(flow, None)
        if peers is not None:
            for tx in peers:
                tx.step(Event.TRANSPORT_ERROR, None, now)

    def find_merged(self, request: Request) -> ServerTransaction | None:
        """The transaction of the same request that came another way (RFC 3261 section 8.2.2.2: answer 482), or None.

        The same: no To tag, equal From tag, Call-ID and CSeq, but not the same transaction.
        """
        merge_key = _merge_key(request)
        if merge_key is None:
            return None
        tx = self._merged.get(merge_key)
        if tx is None or tx.key == _server_key(request, request.method):
            return None
        return tx

    def find_server(self, request: Request) -> ServerTransaction | None:
        """The transaction that a request is a copy of, or that an ACK is for, or None. Raises SipError 400."""
        return self._server.get(_server_key(request, "INVITE" if request.method == "ACK" else request.method))

    def find_client(self, response: Response) -> ClientTransaction | None:
        """The transaction that a response belongs to, or None. Raises SipError 400."""
        return self._client.get((response.via.branch, response.cseq.method))

    def find_invite(self, cancel: ServerTransaction) -> ServerTransaction | None:
        """The INVITE that a CANCEL is for (RFC 3261 section 9.2), or None."""
        return self._server.get(_server_key(cancel.request, "INVITE"))

    def forget_client(self, tx: ClientTransaction) -> None:
        """Take a transaction out of the tables. For the transaction itself, when it ends."""
        del self._client[tx.key]
        if tx.flow.reliable:
            peers = self._by_flow.get(tx.flow)
            if peers is not None:
                peers.pop(tx, None)
                if not peers:
                    del self._by_flow[tx.flow]

    def forget_server(self, tx: ServerTransaction) -> None:
        """Take a transaction out of the tables. For the transaction itself, when it ends."""
        del self._server[tx.key]
        if tx.merge_key is not None:
            del self._merged[tx.merge_key]

    def _receive_ack(self, request: Request, flow: Flow, now: float) -> None:
        key = _server_key(request, "INVITE")
        tx = self._server.get(key)
        if tx is None and len(key) > 3:
            # RFC 2543: the INVITE had no To tag yet, its response gave the one that the ACK must have.
            tx = self._server.get((*key[:-1], ""))
            if tx is not None and tx.final_to_tag != request.to.tag:
                tx = None
        if tx is None:
            self.user.on_ack(request, flow, now)
        else:
            tx.step(Event.ACK, request, flow, now)


def _own_branch(request: Request) -> str:
    """The branch of a request of ours. Raises SipError 400 for a Via that can't be understood."""
    value = next((item.value for item in request.headers if item.key == "via"), "")
    at = value.find(";branch=") + 8
    if at < 8 or '"' in value or "," in value:
        return request.via.branch
    end = value.find(";", at)
    return value[at:] if end < 0 else value[at:end]


def _server_key(request: Request, method: str) -> tuple[str, ...]:
    """What a server transaction is found by (RFC 3261 section 17.2.3), with `method` in place of the request's.

    Branch, sent-by and method; without the magic cookie what RFC 2543 compares, the To tag last.
    """
    via = request.via
    branch = via.branch
    if branch.startswith(_COOKIE):
        return (branch, via.sent_by, method)
    return (
        split_values(request.get("via") or "")[0],
        request.uri,
        request.from_.tag or "",
        request.call_id,
        str(request.cseq.number),
        method,
        request.to.tag or "",
    )


def _merge_key(request: Request) -> tuple[str, str, int, str] | None:
    """What copies of an initial request share whatever way they came; None for a request in a dialog."""
    if request.to.tag is not None:
        return None
    return (request.call_id, request.from_.tag or "", request.cseq.number, request.method)
