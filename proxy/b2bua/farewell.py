"""The end of a session that the target began though nobody wants it any more."""

from __future__ import annotations

from proxy.b2bua.core import Core
from proxy.b2bua.credentials import DigestClient
from proxy.b2bua.heard import Challenged
from proxy.b2bua.leg import BYE_TRIES, way_to
from proxy.b2bua.mapping import MAX_FORWARDS, via_line
from proxy.dialog.dialog import Dialog
from proxy.sip.errors import SipError
from proxy.sip.flow import Flow
from proxy.sip.message import Header, Request, Response, header

__all__ = ["Farewell"]


class Farewell:
    """Acknowledges a 2xx and hangs up (RFC 3261 section 13.2.2.4). Repetitions of the 2xx get the same ACK again.

    A 2xx whose Contact or Record-Route can't be understood is acknowledged at the INVITE's Request-URI.

    Args:
        attempt: the number of the attempt, for the records.
        invite, response: the INVITE as sent, and the 2xx.
        flow: where the INVITE went out; once it is gone, a new one is looked for.
        why: for the Reason header of the BYE.
        seq: the latest CSeq number that was used in the dialog, for there may have been PRACKs before the 2xx.
        digest: answers a challenge to the BYE, where we have credentials.
    """

    __slots__ = (
        "_ack",
        "_attempt",
        "_call_id",
        "_core",
        "_dialog",
        "_digest",
        "_flow",
        "_hung_up",
        "_reason",
        "_seq",
        "_side",
        "_tries",
    )

    def __init__(
        self,
        core: Core,
        call_id: str,
        attempt: int,
        invite: Request,
        response: Response,
        flow: Flow,
        why: str,
        seq: int,
        *,
        side: str = "b",
        digest: DigestClient | None = None,
    ) -> None:
        try:
            dialog = Dialog.as_uac(invite, response)
        except SipError:
            plain = [item for item in response.headers if item.key not in ("contact", "record-route")]
            dialog = Dialog.as_uac(invite, Response(response.status, response.reason, plain))
        dialog.local_seq = seq
        self._core = core
        self._call_id = call_id
        self._attempt = attempt
        self._dialog = dialog
        self._flow = flow
        self._seq = invite.cseq.number
        self._side = side
        self._digest = digest
        self._reason = header("Reason", f'SIP;cause=487;text="{why}"')
        self._ack = b""
        self._hung_up = False
        self._tries = BYE_TRIES

    def say(self, now: float) -> None:
        """Send the ACK, and with the first one the BYE; again for each repetition of the 2xx."""
        if self._flow.closed:
            self._core.find_flow(way_to(self._dialog, self._flow), self)
        else:
            self.on_flow(self._flow, now)

    def on_flow(self, flow: Flow, now: float) -> None:
        """The target can be reached."""
        self._flow = flow
        if not self._ack:
            self._ack = self._make("ACK", self._seq, now).serialize()
        self._core.send(flow, self._ack)
        if not self._hung_up:
            self._hung_up = True
            self._bye(now)

    def on_no_flow(self, reason: str, now: float) -> None:
        """The target can't be reached any more."""
        self._core.record("unreachable", now, self._call_id, {"reason": reason}, self._side, self._attempt)

    def _bye(self, now: float) -> None:
        core = self._core
        if self._flow.closed:
            self._hung_up = False
            self.say(now)
            return
        tries, self._tries = self._tries, self._tries - 1
        user = Challenged(core, self._call_id, self._side, self._attempt, self._digest, self._bye, tries)
        bye = self._make("BYE", self._dialog.next_seq(), now, self._reason)
        core.layer.send_request(bye, self._flow, user, now)

    def _make(self, method: str, seq: int, now: float, *extra: Header) -> Request:
        core, dialog, digest = self._core, self._dialog, self._digest
        top = [via_line(self._flow, core.new_branch()), MAX_FORWARDS]
        credentials = () if digest is None else digest.lines(method, dialog.request_lines()[0])
        request = dialog.request(method, seq, top, (*extra, *credentials))
        core.record_message(now, self._call_id, self._side, "out", self._flow, request, self._attempt)
        return request
