"""Who may speak to us, how much, and what is turned away before it costs anything."""

from __future__ import annotations

from typing import Final

from proxy.b2bua.admission import admits
from proxy.b2bua.core import Core
from proxy.b2bua.limits import Gate
from proxy.b2bua.routing import trunk_of
from proxy.rewrite.draft import Draft
from proxy.rewrite.engine import A_TO_B, Context, RuleReject
from proxy.sip.errors import SipError
from proxy.sip.flow import Flow
from proxy.sip.message import Request

__all__ = ["THIS_HOST", "Screening"]

THIS_HOST: Final = frozenset(("127.0.0.1", "::1"))
"""Where a health check (`trunkline ping`) comes from: its OPTIONS are answered, whoever may call."""

_MAX_REMEMBERED: Final = 10_000
_UNLIMITED: Final = frozenset(("ACK", "CANCEL"))


class Screening:
    """The door of the stack.

    Attributes:
        gate: the limits that change with time.
    """

    __slots__ = ("_admitted", "_core", "_peers", "gate")

    def __init__(self, core: Core) -> None:
        config = core.config
        self._core = core
        self.gate = Gate(config.limits)
        self._admitted: dict[tuple[str, str], bool] = {}
        self._peers: dict[str, None] = {}

    def reconfigure(self) -> None:
        """Use the configuration of the core as it is now."""
        self._admitted.clear()
        self.gate.reconfigure(self._core.config.limits)

    def admits(self, flow: Flow) -> bool:
        """Whether the peer may send us requests: by the ranges, or since we opened the connection ourselves."""
        if flow.reliable and not flow.listener:
            return True
        key = (flow.remote[0], flow.listener)
        known = self._admitted.get(key)
        if known is None:
            if len(self._admitted) >= _MAX_REMEMBERED:
                self._admitted.clear()
            config = self._core.config
            known = self._admitted[key] = admits(config.allow, key[0]) or trunk_of(config, flow) is not None
        return known

    def may_connect(self, flow: Flow) -> bool:
        """Whether a connection is worth keeping: its peer may call, can prove who it is, is one that we talk to, is
        this host itself, or is to be told that it may not."""
        config = self._core.config
        if config.users or config.refuse_strangers or self.admits(flow):
            return True
        return flow.remote[0] in self._peers or flow.remote[0] in THIS_HOST

    def note_peer(self, flow: Flow) -> None:
        """We send requests there, so responses and requests of calls come from there."""
        address = flow.remote[0]
        self._peers.pop(address, None)
        if len(self._peers) >= _MAX_REMEMBERED:
            del self._peers[next(iter(self._peers))]
        self._peers[address] = None

    def is_peer(self, flow: Flow) -> bool:
        """Whether we have sent requests to where a flow leads, so that responses may come from there."""
        return flow.remote[0] in self._peers or (flow.reliable and not flow.listener)

    def readable(self, flow: Flow, now: float) -> bool:
        """Whether a message is read at all: strangers get a few looks, since they may be a peer's other address."""
        if self.admits(flow) or flow.remote[0] in self._peers or self.gate.unknown(flow.remote[0], now):
            return True
        self._limit("unknown_per_s", flow, "", now)
        return False

    def passes(self, request: Request, flow: Flow, now: float) -> bool:
        """Whether a request is within the limits and no screening rule wants it gone without an answer.

        What belongs to a call, and copies of a request that is being answered, always passes.
        Raises SipError: 503 with Retry-After for a new call above a limit, what a rule says for one that it refuses.
        """
        core = self._core
        layer = core.layer
        method, to = request.method, request.to
        if method in _UNLIMITED or (to.tag is not None and (request.call_id, to.tag) in core.legs):
            return True
        if layer.find_server(request) is not None:
            return True
        source = flow.remote[0]
        is_call = method == "INVITE" and to.tag is None
        limit = self.gate.request(source, 0 if is_call else len(layer), now)
        if is_call and not limit:
            limit = self.gate.invite(source, len(layer), now)
            if limit:
                self._limit(limit, flow, method, now)
                raise SipError(503, "Too many calls", (("Retry-After", str(core.config.retry_after_s)),))
        if limit:
            self._limit(limit, flow, method, now)
            return False
        return to.tag is not None or self.wanted(request, flow, now)

    def wanted(self, request: Request, flow: Flow, now: float) -> bool:
        """What the screening rules say of a request outside of calls. Raises SipError."""
        core = self._core
        config = core.config
        if not config.screen_rules:
            return True
        trunk = trunk_of(config, flow)
        context = Context(
            A_TO_B,
            attempt=0,
            local_host=config.public_address,
            transport=flow.transport,
            source=flow.remote[0],
            trunk="" if trunk is None else trunk.name,
            settings=config.rule_settings,
        )
        try:
            config.rules[config.screen_rules].apply(Draft(request), context)
        except RuleReject as reject:
            if not reject.silent:
                raise SipError(reject.status, reject.reason, reject.headers) from reject
            fields: dict[str, object] = {"flow": flow, "why": reject.rule, "method": request.method}
            core.record("dropped", now, "", fields)
            return False
        return True

    def _limit(self, limit: str, flow: Flow, method: str, now: float) -> None:
        """Count, and record once a second."""
        count = self.gate.reached(limit, now)
        if count:
            fields: dict[str, object] = {"limit": limit, "flow": flow, "count": count}
            if method:
                fields["method"] = method
            self._core.record("limit-reached", now, "", fields)
