"""The way back to a caller whose connection is gone while its INVITE is still to be answered."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from proxy.b2bua.admission import admits
from proxy.b2bua.routing import trunk_of
from proxy.sip.flow import Flow, Hop
from proxy.sip.message import Request

if TYPE_CHECKING:
    from proxy.b2bua.call import Call
    from proxy.b2bua.config import StackConfig
    from proxy.b2bua.core import Core
    from proxy.transaction.server import ServerTransaction

__all__ = ["WayBack", "hop_back"]

Action = Callable[[float], None]


class WayBack:
    """Where the responses to a caller's INVITE go: by the connection that it came by, or, once that is gone, by a new
    one to the address that it came from, at the port that its Via names (RFC 3261 section 18.2.2).

    Only sources that may call by their address are called back. One that comes back by itself, with a copy of the
    INVITE, a CANCEL or a PRACK, is answered there.

    Args:
        tx: the INVITE's transaction.
        call: hears of it when there is no way.
    """

    __slots__ = ("_call", "_core", "_searching", "_tx", "_waiting")

    def __init__(self, core: Core, tx: ServerTransaction, call: Call) -> None:
        self._core = core
        self._tx = tx
        self._call = call
        self._searching = False
        self._waiting: list[Action] = []

    @property
    def is_waited_for(self) -> bool:
        """Whether a response waits for a new connection."""
        return bool(self._waiting)

    def is_open(self, action: Action, now: float) -> bool:
        """Whether a response can be sent now. If not, `action` is called when it can."""
        if not self._tx.flow.closed:
            return True
        self._waiting.append(action)
        if not self._searching:
            self._searching = True
            hop = self._hop()
            if hop is None:
                self._core.timers.schedule(now, self._none)
            else:
                self._core.open_hop(hop, self)
        return False

    def forget(self) -> None:
        """What waits is not to be sent any more."""
        self._waiting.clear()

    def follow(self, flow: Flow, now: float) -> None:
        """The caller has come by this flow since."""
        if self._tx.flow.closed and flow.remote[0] == self._tx.flow.remote[0]:
            self._go_on(flow, now)

    def on_flow(self, flow: Flow, now: float) -> None:
        """There is a way again."""
        self._searching = False
        self._go_on(flow if self._tx.flow.closed else self._tx.flow, now)

    def on_no_flow(self, reason: str, now: float) -> None:
        """The caller can't be reached, unless it has come back by itself."""
        self._none(now)

    def _none(self, now: float) -> None:
        self._searching = False
        if not self._tx.flow.closed:
            self._go_on(self._tx.flow, now)
        elif self._waiting:
            self._waiting.clear()
            self._call.on_caller_lost(now)

    def _go_on(self, flow: Flow, now: float) -> None:
        self._tx.flow = flow
        waiting, self._waiting = self._waiting, []
        for action in waiting:
            action(now)

    def _hop(self) -> Hop | None:
        return hop_back(self._core.config, self._tx.request, self._tx.flow)


def hop_back(config: StackConfig, request: Request, lost: Flow) -> Hop | None:
    """Where the response to a request goes whose connection is gone: to the address that it came from, at the port that
    its Via names (RFC 3261 section 18.2.2). None for a source that may not call by its address. Raises SipError."""
    address = lost.remote[0]
    if not admits(config.allow, address) and trunk_of(config, lost) is None:
        return None
    via = request.via
    tls = lost.transport == "tls"
    is_name = not via.host.startswith("[") and not via.host.replace(".", "").isdigit()
    return Hop(lost.transport, address, via.port or (5061 if tls else 5060), via.host if tls and is_name else "")
