"""Client transactions: they send a request, repeat it where the transport does not, and match its responses to it
(RFC 3261 section 17.1, RFC 6026 section 7.2)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Final, Protocol

from proxy.sip.headers import split_values
from proxy.sip.message import Header, Request, Response, header
from proxy.transaction.tables import INVITE_CLIENT, NON_INVITE_CLIENT, Action, Event, State, bind

if TYPE_CHECKING:
    from proxy.sip.flow import Flow
    from proxy.transaction.layer import TransactionLayer
    from proxy.transaction.timers import Timer

__all__ = ["ClientTransaction", "ClientUser", "make_ack", "make_cancel"]


class ClientUser(Protocol):
    """Who sent a request: a transaction user (TU). It is never called from within `send_request` or `terminate`."""

    def on_response(self, tx: ClientTransaction, response: Response, now: float) -> None:
        """Take a response: every provisional one and the first final one.

        For INVITE also each further 2xx, repeated or forked, until timer M ends the transaction; the TU sends the ACK
        for each (RFC 6026 section 7.2). The ACK for any other final response has been sent.
        """

    def on_timeout(self, tx: ClientTransaction, now: float) -> None:
        """No response came in 64*T1 (timer B), or no final one to another request than INVITE (timer F)."""

    def on_transport_failure(self, tx: ClientTransaction, now: float) -> None:
        """The request could not be sent, or the connection was lost before the final response."""


class _Nobody:
    """The user of a transaction that has ended."""

    __slots__ = ()

    def on_response(self, tx: ClientTransaction, response: Response, now: float) -> None:
        """Nothing."""

    def on_timeout(self, tx: ClientTransaction, now: float) -> None:
        """Nothing."""

    def on_transport_failure(self, tx: ClientTransaction, now: float) -> None:
        """Nothing."""


_NOBODY: Final = _Nobody()


class ClientTransaction:
    """One request on its way. Made by `TransactionLayer.send_request`.

    Attributes:
        request: as sent.
        flow: the flow it goes out by.
        user: who is told; may be set anew at any time.
        state: one of `tables.State`.
        method: of the request.
        branch: of its top Via.
        key: what responses are matched by.
        created_at: when it was sent, in seconds of the caller's clock.
        provisional_received: whether a provisional response came, so that a CANCEL may go out (RFC 3261 section 9.1).
    """

    __slots__ = (
        "_data",
        "_end_timer",
        "_interval_s",
        "_layer",
        "_resend_timer",
        "_rows",
        "branch",
        "created_at",
        "flow",
        "key",
        "method",
        "provisional_received",
        "request",
        "state",
        "user",
    )

    def __init__(
        self,
        layer: TransactionLayer,
        key: tuple[str, str],
        request: Request,
        flow: Flow,
        user: ClientUser,
        now: float,
        data: bytes = b"",
    ) -> None:
        self._layer = layer
        self.key = key
        self.branch = key[0]
        self.method = key[1]
        self.request = request
        self.flow = flow
        self.user = user
        self.created_at = now
        self.state: str = State.INITIAL
        self.provisional_received = False
        self._data = data
        self._interval_s = 0.0
        self._resend_timer: Timer | None = None
        self._end_timer: Timer | None = None
        if self.method == "INVITE":
            self._rows = _INVITE_RELIABLE if flow.reliable else _INVITE_UNRELIABLE
        else:
            self._rows = _NON_INVITE_RELIABLE if flow.reliable else _NON_INVITE_UNRELIABLE

    def __repr__(self) -> str:
        return f"<ClientTransaction {self.method} {self.branch} {self.state}>"

    def terminate(self, now: float) -> None:
        """End the transaction at once and tell nobody; later responses to it are stray.

        For an INVITE without a final response 64*T1 after its CANCEL (RFC 3261 section 9.1).
        """
        self.step(Event.TERMINATE, None, now)

    def receive(self, response: Response, now: float) -> None:
        """Take a response that matches. For the layer."""
        status = response.status
        if status < 200:
            self.provisional_received = True
            self.step(Event.PROVISIONAL, response, now)
        elif self.method != "INVITE":
            self.step(Event.FINAL, response, now)
        elif status < 300:
            self.step(Event.SUCCESS, response, now)
        else:
            self.step(Event.FAILURE, response, now)

    def step(self, event: str, response: Response | None, now: float) -> None:
        """Do what the table says for an event in this state. For the layer."""
        row = self._rows[self.state].get(event)
        if row is None:
            return
        target, actions = row
        if target == State.TERMINATED:
            self._stop(None, now)
            self._layer.forget_client(self)
        self.state = target
        for action in actions:
            action(self, response, now)
        if target == State.TERMINATED and event != Event.TRANSPORT_ERROR:
            # No circle is left for the garbage collector. After an ACK that can't be sent the response is still told.
            self.user = _NOBODY

    def _send(self, _response: Response | None, now: float) -> None:
        flow = self.flow
        if flow.closed:
            # Told by a timer that is due at once, so that `send_request` returns before its user is called.
            self._stop(None, now)
            self._resend_timer = self._layer.timers.schedule(now, self._fire_transport_error)
            return
        data = self._data or self.request.serialize()
        self._data = b"" if flow.reliable else data
        self._layer.send(flow, data)

    def _resend(self, _response: Response | None, now: float) -> None:
        if self.flow.closed:
            self.step(Event.TRANSPORT_ERROR, None, now)
        else:
            self._layer.send(self.flow, self._data)

    def _send_ack(self, response: Response | None, now: float) -> None:
        if self.flow.closed:
            self.step(Event.TRANSPORT_ERROR, None, now)
            return
        if not self._data and response is not None:
            self._data = make_ack(self.request, response).serialize()
        self._layer.send(self.flow, self._data)

    def _deliver_response(self, response: Response | None, now: float) -> None:
        if response is not None:
            self.user.on_response(self, response, now)

    def _deliver_stray(self, response: Response | None, now: float) -> None:
        if response is not None:
            self._layer.user.on_stray_response(response, self.flow, now)

    def _report_timeout(self, _response: Response | None, now: float) -> None:
        self.user.on_timeout(self, now)

    def _report_failure(self, _response: Response | None, now: float) -> None:
        self.user.on_transport_failure(self, now)

    def _stop(self, _response: Response | None, _now: float) -> None:
        """Cancel both timers, and let the bytes of the request go: it is never repeated after this."""
        if self._resend_timer is not None:
            self._resend_timer.cancel()
            self._resend_timer = None
        if self._end_timer is not None:
            self._end_timer.cancel()
            self._end_timer = None
        self._data = b""

    def _start_a(self, _response: Response | None, now: float) -> None:
        self._interval_s = interval = self._layer.settings.t1_s
        self._resend_timer = self._layer.timers.schedule(now + interval, self._fire_a)

    def _double_a(self, _response: Response | None, now: float) -> None:
        self._interval_s = interval = 2 * self._interval_s
        self._resend_timer = self._layer.timers.schedule(now + interval, self._fire_a)

    def _start_e(self, _response: Response | None, now: float) -> None:
        self._interval_s = interval = self._layer.settings.t1_s
        self._resend_timer = self._layer.timers.schedule(now + interval, self._fire_e)

    def _double_e(self, _response: Response | None, now: float) -> None:
        self._interval_s = interval = min(2 * self._interval_s, self._layer.settings.t2_s)
        self._resend_timer = self._layer.timers.schedule(now + interval, self._fire_e)

    def _slow_e(self, _response: Response | None, now: float) -> None:
        self._interval_s = interval = self._layer.settings.t2_s
        self._resend_timer = self._layer.timers.schedule(now + interval, self._fire_e)

    def _start_b(self, _response: Response | None, now: float) -> None:
        layer = self._layer
        self._end_timer = layer.timers.schedule(now + layer.settings.timer_b_s, self._fire_b)

    def _start_d(self, _response: Response | None, now: float) -> None:
        layer = self._layer
        self._end_timer = layer.timers.schedule(now + layer.settings.timer_d_s, self._fire_d)

    def _start_f(self, _response: Response | None, now: float) -> None:
        layer = self._layer
        self._end_timer = layer.timers.schedule(now + layer.settings.timer_f_s, self._fire_f)

    def _start_k(self, _response: Response | None, now: float) -> None:
        layer = self._layer
        self._end_timer = layer.timers.schedule(now + layer.settings.timer_k_s, self._fire_k)

    def _start_m(self, _response: Response | None, now: float) -> None:
        layer = self._layer
        self._end_timer = layer.timers.schedule(now + layer.settings.timer_m_s, self._fire_m)

    def _fire_a(self, now: float) -> None:
        self.step(Event.TIMER_A, None, now)

    def _fire_b(self, now: float) -> None:
        self.step(Event.TIMER_B, None, now)

    def _fire_d(self, now: float) -> None:
        self.step(Event.TIMER_D, None, now)

    def _fire_e(self, now: float) -> None:
        self.step(Event.TIMER_E, None, now)

    def _fire_f(self, now: float) -> None:
        self.step(Event.TIMER_F, None, now)

    def _fire_k(self, now: float) -> None:
        self.step(Event.TIMER_K, None, now)

    def _fire_m(self, now: float) -> None:
        self.step(Event.TIMER_M, None, now)

    def _fire_transport_error(self, now: float) -> None:
        self.step(Event.TRANSPORT_ERROR, None, now)


_CT = ClientTransaction

_ACTIONS: Final[Mapping[str, Callable[[ClientTransaction, Response | None, float], None]]] = {
    Action.SEND_REQUEST: _CT._send,
    Action.RESEND_REQUEST: _CT._resend,
    Action.SEND_ACK: _CT._send_ack,
    Action.DELIVER_RESPONSE: _CT._deliver_response,
    Action.DELIVER_STRAY: _CT._deliver_stray,
    Action.REPORT_TIMEOUT: _CT._report_timeout,
    Action.REPORT_FAILURE: _CT._report_failure,
    Action.STOP_A_B: _CT._stop,
    Action.STOP_E_F: _CT._stop,
    Action.START_A: _CT._start_a,
    Action.DOUBLE_A: _CT._double_a,
    Action.START_B: _CT._start_b,
    Action.START_D: _CT._start_d,
    Action.START_E: _CT._start_e,
    Action.DOUBLE_E: _CT._double_e,
    Action.SLOW_E: _CT._slow_e,
    Action.START_F: _CT._start_f,
    Action.START_K: _CT._start_k,
    Action.START_M: _CT._start_m,
}
_INVITE_RELIABLE: Final = bind(INVITE_CLIENT, True, _ACTIONS)
_INVITE_UNRELIABLE: Final = bind(INVITE_CLIENT, False, _ACTIONS)
_NON_INVITE_RELIABLE: Final = bind(NON_INVITE_CLIENT, True, _ACTIONS)
_NON_INVITE_UNRELIABLE: Final = bind(NON_INVITE_CLIENT, False, _ACTIONS)


def make_ack(invite: Request, response: Response) -> Request:
    """The ACK for a final response to an INVITE that is no 2xx (RFC 3261 section 17.1.1.3).

    It goes to the same Request-URI with the INVITE's top Via and Route; To is the response's. The ACK for a 2xx is the
    dialog's business, not this.
    """
    to = response.get("to")
    lines = _copied(invite, invite.get("to") or "" if to is None else to, "ACK")
    return Request("ACK", invite.uri, lines)


def make_cancel(request: Request, extra: Sequence[Header] = ()) -> Request:
    """The CANCEL for a request that was sent (RFC 3261 section 9.1). `extra`: further header fields, such as Reason.

    Send it by `TransactionLayer.send_request` over the request's flow, once a provisional response has come.
    """
    lines = _copied(request, request.get("to") or "", "CANCEL", extra)
    return Request("CANCEL", request.uri, lines)


def _copied(request: Request, to: str, method: str, extra: Sequence[Header] = ()) -> list[Header]:
    """The header fields that ACK and CANCEL share with their request, and its own To value."""
    via: Header | None = None
    routes: list[Header] = []
    sender = call_id = ""
    for item in request.headers:
        key = item.key
        if key == "via":
            if via is None:
                via = item if "," not in item.value else header("Via", split_values(item.value)[0])
        elif key == "route":
            routes.append(item)
        elif key == "from":
            sender = item.value
        elif key == "call-id":
            call_id = item.value
    lines = [] if via is None else [via]
    lines.append(Header("max-forwards", "Max-Forwards: 70", "70"))
    lines.extend(routes)
    lines.append(Header("from", f"From: {sender}", sender))
    lines.append(Header("to", f"To: {to}", to))
    lines.append(Header("call-id", f"Call-ID: {call_id}", call_id))
    lines.append(Header("cseq", f"CSeq: {request.cseq.number} {method}"))
    lines.extend(extra)
    lines.append(Header("content-length", "Content-Length: 0", "0"))
    return lines
