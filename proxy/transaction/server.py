"""Server transactions: they hand a request to the transaction user once, send its responses, and answer and absorb
retransmissions (RFC 3261 section 17.2, RFC 6026 section 7.1)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final

from proxy.sip.message import Message, Request, Response
from proxy.transaction.tables import INVITE_SERVER, NON_INVITE_SERVER, Action, Event, State, bind

if TYPE_CHECKING:
    from proxy.sip.flow import Flow
    from proxy.transaction.layer import TransactionLayer
    from proxy.transaction.timers import Timer

__all__ = ["ServerTransaction"]


class ServerTransaction:
    """One request that came in. Made by `TransactionLayer.receive_request`.

    Attributes:
        request: the first copy that came.
        flow: the flow it came by; responses go out by it.
        user: a place for whoever answers; not used here.
        state: one of `tables.State`.
        method: of the request.
        key: what retransmissions, ACK and CANCEL are matched by.
        created_at: when the request came, in seconds of the caller's clock.
        last_status: of the last response that was sent; 0 before the first.
        failed: whether `on_server_failure` was called; it is called once.
        final_to_tag: the To tag of the last response; only kept for requests from before RFC 3261, whose ACK needs it.
    """

    __slots__ = (
        "_data",
        "_end_timer",
        "_interval_s",
        "_layer",
        "_resend_timer",
        "_rows",
        "created_at",
        "failed",
        "final_to_tag",
        "flow",
        "key",
        "last_status",
        "merge_key",
        "method",
        "request",
        "state",
        "user",
    )

    def __init__(self, layer: TransactionLayer, key: tuple[str, ...], request: Request, flow: Flow, now: float) -> None:
        self._layer = layer
        self.key = key
        self.merge_key: tuple[str, str, int, str] | None = None
        self.request = request
        self.flow = flow
        self.user: object | None = None
        self.method = request.method
        self.created_at = now
        self.last_status = 0
        self.failed = False
        self.final_to_tag: str | None = None
        self.state: str = State.INITIAL
        self._data = b""
        self._interval_s = 0.0
        self._resend_timer: Timer | None = None
        self._end_timer: Timer | None = None
        if self.method == "INVITE":
            self._rows = _INVITE_RELIABLE if flow.reliable else _INVITE_UNRELIABLE
        else:
            self._rows = _NON_INVITE_RELIABLE if flow.reliable else _NON_INVITE_UNRELIABLE

    def __repr__(self) -> str:
        return f"<ServerTransaction {self.method} {self.key[0]} {self.state}>"

    def respond(self, response: Response, now: float) -> None:
        """Send a response: provisional ones, then a final one; after a 2xx to INVITE the same again as often as wanted.

        The TU itself repeats a 2xx to INVITE until the ACK comes (RFC 3261 section 13.3.1.4); other final responses are
        repeated here. A response that the state does not allow, such as a second final one, is dropped. When the flow
        is closed, `on_server_failure` follows at the next run of the timers.
        """
        status = response.status
        if status < 200:
            event: str = Event.PROVISIONAL
        elif self.method != "INVITE":
            event = Event.FINAL
        elif status < 300:
            event = Event.SUCCESS
        else:
            event = Event.FAILURE
        self.step(event, response, self.flow, now)

    def forget(self, now: float) -> None:
        """End without any answer; a copy of the request will be a new one."""
        self.state = State.TERMINATED
        self._stop(None, self.flow, now)
        self._layer.forget_server(self)
        self.user = None

    def step(self, event: str, message: Message | None, flow: Flow, now: float) -> None:
        """Do what the table says for an event in this state; `flow` is where the message came in. For the layer."""
        row = self._rows[self.state].get(event)
        if row is None:
            return
        target, actions = row
        if target == State.TERMINATED and self.state != target:
            self._stop(None, flow, now)
            self._layer.forget_server(self)
        self.state = target
        for action in actions:
            action(self, message, flow, now)
        if target == State.TERMINATED and event != Event.FINAL:
            # No circle is left for the garbage collector. After a final response its failure may still be told.
            self.user = None

    def _deliver_request(self, _message: Message | None, _flow: Flow, now: float) -> None:
        layer = self._layer
        if self.method == "CANCEL":
            layer.user.on_cancel(self, layer.find_invite(self), now)
        else:
            layer.user.on_request(self, now)

    def _deliver_ack(self, message: Message | None, flow: Flow, now: float) -> None:
        if isinstance(message, Request):
            self._layer.user.on_ack(message, flow, now)

    def _send(self, message: Message | None, _flow: Flow, now: float) -> None:
        if not isinstance(message, Response):
            return
        self.last_status = message.status
        if len(self.key) > 3:
            self.final_to_tag = message.to.tag
        data = message.serialize()
        if self.state == State.PROCEEDING or self.state == State.COMPLETED:
            self._data = data
        else:
            self._data = b""
        self._transmit(data, now)

    def _resend(self, _message: Message | None, flow: Flow, now: float) -> None:
        if self.flow.closed and flow.remote[0] == self.flow.remote[0]:
            # The peer has lost the connection too, and comes by another one.
            self.flow = flow
        if self._data:
            self._transmit(self._data, now)

    def _transmit(self, data: bytes, now: float) -> None:
        if self.flow.closed:
            # Told by a timer that is due at once, so that `respond` returns before the user is called.
            self._layer.timers.schedule(now, self._fire_transport_error)
        else:
            self._layer.send(self.flow, data)

    def _report_failure(self, _message: Message | None, _flow: Flow, now: float) -> None:
        if not self.failed:
            self.failed = True
            self._layer.user.on_server_failure(self, now)

    def _stop(self, _message: Message | None, _flow: Flow, _now: float) -> None:
        """Cancel both timers, and let the bytes of the response go: it is never repeated after this."""
        if self._resend_timer is not None:
            self._resend_timer.cancel()
            self._resend_timer = None
        if self._end_timer is not None:
            self._end_timer.cancel()
            self._end_timer = None
        self._data = b""

    def _start_g(self, _message: Message | None, _flow: Flow, now: float) -> None:
        self._interval_s = interval = self._layer.settings.t1_s
        self._resend_timer = self._layer.timers.schedule(now + interval, self._fire_g)

    def _double_g(self, _message: Message | None, _flow: Flow, now: float) -> None:
        self._interval_s = interval = min(2 * self._interval_s, self._layer.settings.t2_s)
        self._resend_timer = self._layer.timers.schedule(now + interval, self._fire_g)

    def _start_h(self, _message: Message | None, _flow: Flow, now: float) -> None:
        layer = self._layer
        self._end_timer = layer.timers.schedule(now + layer.settings.timer_h_s, self._fire_h)

    def _start_i(self, _message: Message | None, _flow: Flow, now: float) -> None:
        layer = self._layer
        self._end_timer = layer.timers.schedule(now + layer.settings.timer_i_s, self._fire_i)

    def _start_j(self, _message: Message | None, _flow: Flow, now: float) -> None:
        layer = self._layer
        self._end_timer = layer.timers.schedule(now + layer.settings.timer_j_s, self._fire_j)

    def _start_l(self, _message: Message | None, _flow: Flow, now: float) -> None:
        layer = self._layer
        self._end_timer = layer.timers.schedule(now + layer.settings.timer_l_s, self._fire_l)

    def _fire_g(self, now: float) -> None:
        self.step(Event.TIMER_G, None, self.flow, now)

    def _fire_h(self, now: float) -> None:
        self.step(Event.TIMER_H, None, self.flow, now)

    def _fire_i(self, now: float) -> None:
        self.step(Event.TIMER_I, None, self.flow, now)

    def _fire_j(self, now: float) -> None:
        self.step(Event.TIMER_J, None, self.flow, now)

    def _fire_l(self, now: float) -> None:
        self.step(Event.TIMER_L, None, self.flow, now)

    def _fire_transport_error(self, now: float) -> None:
        self.step(Event.TRANSPORT_ERROR, None, self.flow, now)


_ST = ServerTransaction

_ACTIONS: Final[Mapping[str, Callable[[ServerTransaction, Message | None, Flow, float], None]]] = {
    Action.DELIVER_REQUEST: _ST._deliver_request,
    Action.DELIVER_ACK: _ST._deliver_ack,
    Action.SEND_RESPONSE: _ST._send,
    Action.RESEND_RESPONSE: _ST._resend,
    Action.REPORT_FAILURE: _ST._report_failure,
    Action.STOP_G_H: _ST._stop,
    Action.START_G: _ST._start_g,
    Action.DOUBLE_G: _ST._double_g,
    Action.START_H: _ST._start_h,
    Action.START_I: _ST._start_i,
    Action.START_J: _ST._start_j,
    Action.START_L: _ST._start_l,
}
_INVITE_RELIABLE: Final = bind(INVITE_SERVER, True, _ACTIONS)
_INVITE_UNRELIABLE: Final = bind(INVITE_SERVER, False, _ACTIONS)
_NON_INVITE_RELIABLE: Final = bind(NON_INVITE_SERVER, True, _ACTIONS)
_NON_INVITE_UNRELIABLE: Final = bind(NON_INVITE_SERVER, False, _ACTIONS)
