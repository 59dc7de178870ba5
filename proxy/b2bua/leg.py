"""One leg of a call: its dialog, its flow, and what a UAS or UAC owes its peer in it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from proxy.audit.records import Change
from proxy.b2bua.answer import Answer
from proxy.b2bua.checkpoint import dialog_facts
from proxy.b2bua.core import Core
from proxy.b2bua.credentials import DigestClient
from proxy.b2bua.crossing import crossed_request
from proxy.b2bua.effects import Checkpoint
from proxy.b2bua.exchange import Exchange
from proxy.b2bua.heard import Challenged
from proxy.b2bua.mapping import MAX_FORWARDS, contact_line, via_line
from proxy.b2bua.origin import Origin
from proxy.b2bua.refresh import SessionKeeper
from proxy.b2bua.way_back import WayBack
from proxy.dialog.dialog import Dialog
from proxy.rewrite.engine import RuleReject
from proxy.sdp.errors import SdpError
from proxy.sip.errors import SipError
from proxy.sip.flow import Flow
from proxy.sip.message import Header, Message, Request, Response, header
from proxy.sip.respond import make_response, marked_via_lines
from proxy.sip.uri import Uri
from proxy.transaction.client import ClientTransaction
from proxy.transaction.server import ServerTransaction
from proxy.transaction.tables import State

if TYPE_CHECKING:
    from proxy.b2bua.call import Call

__all__ = ["Leg", "way_to"]

BYE_TRIES = 3

FlowAction = Callable[[Flow, float], None]
FlowFailed = Callable[[str, float], None]


def way_to(dialog: Dialog, lost: Flow) -> Uri:
    """Where a peer is found anew whose connection is gone: by the book, and by the transport of that connection where
    the URI names none. Raises SipError."""
    uri = dialog.next_hop()
    if lost.reliable and uri.scheme == "sip" and uri.param("transport") is None:
        return uri.replace(params=(*uri.params, ("transport", lost.transport)))
    return uri


class Leg:
    """A dialog of ours with one peer.

    Attributes:
        side: "a" for the caller's leg, "b" for the target's, "c" and so on for those that a transfer brought in.
        place: "a" or "b": whose place it has in the call, and by which rules its messages go.
        peer: the other leg of the call, once there is one.
        invite_in: the peer's INVITE that has no final response yet.
        invite_out: whether an INVITE of ours has none.
        confirmed: whether the dialog was established by a 2xx.
        ended: whether a BYE crossed it, either way.
        late_answer: the CSeq number on the other leg and the exchange whose answer the peer's next ACK brings.
        owes_ack: the CSeq number of a 2xx of the peer that waits for its ACK, since our answer is still to come.
        keeper: the session timer.
        digest: answers the peer's challenges, where it is a target that has credentials.
        update_in, update_out: whether an offer in an UPDATE of the peer, or of ours, waits for its answer.
        takes_update: whether the peer's Allow lists UPDATE.
        kept: whether what would end the leg is kept outside of this process.
        local_sdp, remote_sdp: the last session description that we sent and got.
        origin: what keeps the o= line as the peer knows it, once its session goes on with somebody else.
    """

    __deletable__ = ("keeper",)
    __slots__ = (
        "_ack_data",
        "_ack_seq",
        "_answer",
        "_bye_tx",
        "_bye_waiting",
        "_reopening",
        "_settling",
        "_tags",
        "call",
        "confirmed",
        "core",
        "dialog",
        "digest",
        "ended",
        "flow",
        "invite_in",
        "invite_out",
        "keeper",
        "kept",
        "late_answer",
        "local_sdp",
        "origin",
        "owes_ack",
        "peer",
        "place",
        "remote_sdp",
        "side",
        "takes_update",
        "update_in",
        "update_out",
    )

    def __init__(self, core: Core, call: Call, side: str, dialog: Dialog, flow: Flow, place: str = "") -> None:
        self.core = core
        self.call = call
        self.side = side
        self.place = place or side
        self.dialog = dialog
        self.flow = flow
        self.peer: Leg | None = None
        self.invite_in: ServerTransaction | None = None
        self.invite_out = False
        self.confirmed = False
        self.ended = False
        self.late_answer: tuple[int, Exchange] | None = None
        self.owes_ack: int | None = None
        self._answer: Answer | None = None
        self._ack_seq = -1
        self._ack_data = b""
        self._bye_tx: ClientTransaction | None = None
        self._bye_waiting: tuple[tuple[Header, ...], Request | None] | None = None
        self._reopening = 0
        self._settling: list[tuple[FlowAction, FlowFailed | None]] | None = None
        self._tags = [dialog.local_tag]
        self.keeper = SessionKeeper(self)
        self.digest: DigestClient | None = None
        self.kept = False
        self.takes_update = False
        self.update_in = False
        self.update_out = False
        self.local_sdp = b""
        self.remote_sdp = b""
        self.origin: Origin | None = None
        core.legs[(dialog.call_id, dialog.local_tag)] = self

    def close(self) -> None:
        """Forget the dialog: later requests in it get 481."""
        self.ended = True
        self._bye_waiting = None
        self.stop_answer()
        self.keeper.stop()
        if self.kept:
            self.kept = False
            self.core.effects.append(Checkpoint(self.call.id, self.side, None))
        for tag in self._tags:
            key = (self.dialog.call_id, tag)
            if self.core.legs.get(key) is self:
                del self.core.legs[key]

    def take_tag(self, tag: str) -> None:
        """Go on under another tag of ours: for the peer this is another dialog of the same INVITE, as from a fork
        (RFC 3261 section 12.1). Requests with the tag before still find the leg."""
        self.dialog.retag(tag)
        self._tags.append(tag)
        self.core.legs[(self.dialog.call_id, tag)] = self
        if self.kept:
            self.checkpoint()

    def checkpoint(self) -> None:
        """Have what would end the dialog kept outside of this process, as it is now."""
        if self.core.config.checkpoints and not self.ended:
            self.kept = True
            self.core.effects.append(Checkpoint(self.call.id, self.side, dialog_facts(self.call, self)))

    def move(self, flow: Flow) -> None:
        """Go on with another flow."""
        self.flow = flow
        if self.kept and self.confirmed:
            self.checkpoint()

    def refresh_target(self, message: Message) -> None:
        """Take the remote target from a target refresh request of the peer, or from its 2xx to ours."""
        before = self.dialog.remote_target
        self.dialog.refresh_target(message)
        if self.kept and self.dialog.remote_target != before:
            self.checkpoint()

    @property
    def idle(self) -> bool:
        """Whether nothing waits: no ACK, no BYE and no answer to ours, no flow."""
        if self._bye_tx is not None and self._bye_tx.state != State.TERMINATED:
            return False
        waits = self._answer is not None or self._bye_waiting is not None or self._settling is not None
        return not waits and not self._reopening

    def release(self) -> None:
        """Let go of all that knows this leg. For its call, once nothing can happen to it any more."""
        self.peer = self._bye_tx = None
        del self.keeper

    def learn(self, message: Message) -> None:
        """Note what a message of the peer tells about it: its session, and whether it takes UPDATE."""
        if message.body and message.content_type in ("application/sdp", ""):
            self.remote_sdp = message.body
        for value in message.get_all("allow"):
            if "UPDATE" in value:
                self.takes_update = True

    def glare_wait_s(self) -> float:
        """How long to wait after a 491 (RFC 3261 section 14.1): 2.1 to 4 s for the owner of the Call-ID, else 0 to 2 s,
        in steps of 10 ms."""
        low, high = (0.0, 2.0) if self.side == "a" else (2.1, 4.0)
        return round(low + (high - low) * self.core.random(), 2)

    @property
    def busy(self) -> bool:
        """Whether an INVITE of ours has to wait: one is pending either way, or its ACK is (RFC 3261 section 14.1)."""
        pending = self.invite_in is not None or self.invite_out or self.update_in or self.update_out
        return pending or self.answering or self.owes_ack is not None

    # What we send

    def top(self, branch: str | None = None) -> list[Header]:
        """Via and Max-Forwards of a request that begins with us."""
        return [via_line(self.flow, branch or self.core.new_branch()), MAX_FORWARDS]

    def with_flow(self, action: FlowAction, now: float, failed: FlowFailed | None = None) -> None:
        """Do something that needs a living flow: at once, or after the connection was opened anew.

        The way by the book (first route or remote target) is taken only when the flow is gone: a peer's Contact may be
        a private address that nobody can reach. A URI that names no transport is reached by that of the lost flow.
        """
        if self._settling is not None:
            self._settling.append((action, failed))
            return
        flow = self.flow
        if not flow.closed:
            action(flow, now)
            return
        try:
            uri = way_to(self.dialog, flow)
        except SipError as error:
            if failed is not None:
                failed(error.reason, now)
            return
        self._reopening += 1
        self.core.find_flow(uri, _Reopen(self, action, failed))

    def reopened(self, flow: Flow | None) -> None:
        """A search for a new flow has ended, with one or without."""
        self._reopening -= 1
        if flow is not None:
            self.move(flow)

    def credentials(self, method: str) -> tuple[Header, ...]:
        """What answers the peer's challenges in a request of ours; nothing before there was one."""
        return () if self.digest is None else self.digest.lines(method, self.dialog.request_lines()[0])

    def send_ack(self, seq: int, now: float) -> None:
        """Acknowledge the 2xx to our INVITE with this CSeq number (RFC 3261 section 13.2.2.4)."""

        def send(flow: Flow, now: float) -> None:
            ack = self.dialog.request("ACK", seq, self.top(), self.credentials("ACK"))
            self.acknowledge(ack, seq, None, flow, now)

        self.owes_ack = None
        self.with_flow(send, now)

    @property
    def is_ready(self) -> bool:
        """Whether `with_flow` acts at once."""
        return self._settling is None and not self.flow.closed

    def acknowledge(
        self,
        ack: Request,
        seq: int,
        changes: list[Change] | None,
        flow: Flow,
        now: float,
        source: Message | None = None,
    ) -> None:
        """Send an ACK with this CSeq number for a 2xx, and keep it for repetitions; `changes` and `source` where it was
        made from one of the other leg, as in `Core.record_message`."""
        call = self.call
        self.owes_ack = None
        self._ack_seq = seq
        self._ack_data = ack.serialize()
        self.core.record_message(now, call.id, self.side, "out", flow, ack, call.attempt_number, changes, source)
        self.core.send(flow, self._ack_data)

    def _send_ack_data(self, flow: Flow, now: float) -> None:
        self.core.send(flow, self._ack_data)

    def repeat_ack(self, seq: int, now: float) -> bool:
        """Answer a repeated 2xx with the same ACK; False when there is none yet."""
        if seq != self._ack_seq:
            return False
        self.with_flow(self._send_ack_data, now)
        return True

    def bye(self, now: float, extra: tuple[Header, ...] = (), crossing: Request | None = None) -> None:
        """End the dialog from our side, once: at once, or as soon as the peer has acknowledged our 2xx (RFC 3261
        section 15). A 2xx of the peer that still waits for its ACK gets it first.

        `crossing` is the other leg's BYE, whose headers (Reason, X-…) go along; without it `extra` says why we end it.
        """
        if self.ended:
            return
        if self._answer is not None:
            self._bye_waiting = (extra, crossing)
            return
        self.close()
        if self.owes_ack is not None:
            self.send_ack(self.owes_ack, now)
        self.send_bye(now, extra, crossing)

    def send_bye(self, now: float, extra: tuple[Header, ...], crossing: Request | None, tries: int = BYE_TRIES) -> None:
        """Send the BYE of a dialog that is over for us; over a new connection when one breaks, `tries` times in all."""

        def send(flow: Flow, now: float) -> None:
            call = self.call
            user = Challenged(
                self.core,
                call.id,
                self.side,
                call.attempt_number,
                self.digest,
                lambda now: self.send_bye(now, extra, crossing, tries - 1),
                tries,
            )
            request, changes = self._bye_request(extra, crossing, now)
            self.core.record_message(
                now, self.call.id, self.side, "out", flow, request, self.call.attempt_number, changes
            )
            self._bye_tx = self.core.layer.send_request(request, flow, user, now)

        self.with_flow(send, now)

    def _bye_request(
        self, extra: tuple[Header, ...], crossing: Request | None, now: float
    ) -> tuple[Request, list[Change] | None]:
        """Our BYE; one that can't cross (a rule refuses it, its body is broken) is replaced by one of our own."""
        if crossing is not None:
            try:
                return crossed_request(self.call, crossing, self, None, now)
            except (RuleReject, SdpError, SipError):
                extra = tuple([header("Reason", value) for value in crossing.get_all("reason")])
        own = (*extra, *self.core.capabilities[1:], *self.credentials("BYE"))
        return self.dialog.request("BYE", self.dialog.next_seq(), self.top(), own), None

    # What we answer

    def reply(
        self,
        tx: ServerTransaction,
        status: int,
        now: float,
        reason: str | None = None,
        headers: tuple[tuple[str, str], ...] = (),
    ) -> None:
        """Answer a request on this leg with a response of our own."""
        response = self.own_response(tx, status, headers, reason=reason)
        self.core.record_message(now, self.call.id, self.side, "out", tx.flow, response, self.call.attempt_number)
        tx.respond(response, now)

    def own_response(
        self,
        tx: ServerTransaction,
        status: int,
        headers: tuple[tuple[str, str], ...] = (),
        body: bytes = b"",
        reason: str | None = None,
    ) -> Response:
        """Build a response of our own on this leg."""
        own = tuple([(item.name, item.value) for item in self.core.reply_capabilities])
        return make_response(
            tx.request,
            status,
            reason,
            remote=tx.flow.remote,
            to_tag=self.dialog.local_tag,
            headers=(*headers, *own),
            body=body,
        )

    def response_block(self, request: Request, flow: Flow, *, success: bool) -> list[Header]:
        """The header fields on top of a response to the peer: Via, From, To with our tag, Call-ID, CSeq, and for a
        provisional or successful one the Record-Route set and our Contact (RFC 3261 sections 8.2.6, 12.1.1)."""
        block = marked_via_lines(request, flow.remote)
        record_routes: list[Header] = []
        for item in request.headers:
            key = item.key
            if key == "to":
                block.append(header("To", self.dialog.local) if request.to.tag is None else item)
            elif key in ("from", "call-id", "cseq"):
                block.append(item)
            elif key == "record-route":
                record_routes.append(item)
        if success:
            block.extend(record_routes)
            block.append(contact_line(flow))
        return block

    def answer(self, tx: ServerTransaction, response: Response, now: float, way: WayBack | None = None) -> None:
        """Send a 2xx to the peer's INVITE and repeat it until the ACK comes (RFC 3261 section 13.3.1.4); `way` leads
        back to a caller whose connection is gone."""
        tx.respond(response, now)
        self.invite_in = None
        self.confirmed = True
        self.stop_answer()
        self._answer = Answer(self, tx, response, now, way)

    def on_no_ack(self, now: float) -> None:
        """Our 2xx was repeated for long enough."""
        self._answer = None
        if self._bye_waiting is None:
            self.call.on_no_ack(self, now)
        else:
            self._send_waiting_bye(now)

    @property
    def answering(self) -> bool:
        """Whether a 2xx of ours still waits for its ACK."""
        return self._answer is not None

    def stop_answer(self) -> None:
        """Stop repeating the 2xx."""
        if self._answer is not None:
            self._answer.stop()
            self._answer = None

    def on_ack(self, request: Request, now: float) -> bool:
        """Take an ACK; True when it is the first one for our latest 2xx, and not a late copy of an earlier one."""
        if self._answer is None or request.cseq.number != self._answer.seq:
            return False
        self.stop_answer()
        if self._bye_waiting is not None:
            self._send_waiting_bye(now)
        return True

    def _send_waiting_bye(self, now: float) -> None:
        waiting, self._bye_waiting = self._bye_waiting, None
        if waiting is not None:
            extra, crossing = waiting
            self.bye(now, extra, crossing)

    def settle_flow(self) -> None:
        """Over UDP follow a Contact (or first route) that names another port of the very host that we talk with.

        A host that knows its own address is not behind NAT, so its word counts; any other address might be private,
        and requests keep to the flow.
        """
        flow = self.flow
        if flow.transport != "udp":
            return
        try:
            uri = self.dialog.next_hop()
        except SipError:
            return
        host, port = flow.remote
        if uri.host.strip("[]") == host and (uri.port or 5060) != port and uri.param("transport") in (None, "udp"):
            self._settling = []
            self.core.find_flow(uri, _Settle(self))

    def settled(self, flow: Flow, now: float) -> None:
        """Go on with the flow that was looked for, and send what waited for it."""
        self.move(flow)
        waiting, self._settling = self._settling, None
        for action, failed in waiting or ():
            self.with_flow(action, now, failed)


class _Reopen:
    """Waits for a new flow of a leg whose connection is gone."""

    __slots__ = ("action", "failed", "leg")

    def __init__(self, leg: Leg, action: FlowAction, failed: FlowFailed | None) -> None:
        self.leg = leg
        self.action = action
        self.failed = failed

    def on_flow(self, flow: Flow, now: float) -> None:
        """Go on with the new flow."""
        self.leg.reopened(flow)
        self.action(flow, now)

    def on_no_flow(self, reason: str, now: float) -> None:
        """The peer can't be reached any more."""
        leg = self.leg
        leg.reopened(None)
        leg.core.record("unreachable", now, leg.call.id, {"reason": reason}, leg.side)
        if self.failed is not None:
            self.failed(reason, now)


class _Settle:
    """Waits for the UDP flow to the port that the peer named."""

    __slots__ = ("leg",)

    def __init__(self, leg: Leg) -> None:
        self.leg = leg

    def on_flow(self, flow: Flow, now: float) -> None:
        """Use it from now on."""
        self.leg.settled(flow, now)

    def on_no_flow(self, reason: str, now: float) -> None:
        """Stay with the flow that there is."""
        self.leg.settled(self.leg.flow, now)
