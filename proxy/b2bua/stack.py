"""The B2BUA as one machine without I/O: bytes, timers and flows come in, effects go out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from proxy.b2bua.admission import SUPPORTED, admits, check_invite, check_require
from proxy.b2bua.attempt import Attempt
from proxy.b2bua.call import Call
from proxy.b2bua.caller_invite import reason_header
from proxy.b2bua.config import StackConfig
from proxy.b2bua.core import Core
from proxy.b2bua.credentials import DigestServer
from proxy.b2bua.effects import CloseFlow, Effect
from proxy.b2bua.given_up import GivenUp
from proxy.b2bua.health import Health
from proxy.b2bua.in_dialog import take_ack, take_request
from proxy.b2bua.leg import Leg
from proxy.b2bua.mapping import ALLOW_OUTSIDE_DIALOG, allowed
from proxy.b2bua.orphans import Orphans, Remains
from proxy.b2bua.relay import Relay
from proxy.b2bua.routing import choose_route, order_targets, trunk_of
from proxy.b2bua.screening import THIS_HOST, Screening
from proxy.b2bua.strays import end_stray_session
from proxy.b2bua.takeover import Takeover, find_leg
from proxy.b2bua.transfer import Transfer
from proxy.b2bua.webhooks import Webhooks
from proxy.rewrite.engine import RuleSet
from proxy.sip.errors import SipError
from proxy.sip.flow import Flow, Hop
from proxy.sip.message import Request, Response
from proxy.sip.parser import MalformedMessage, check_request, check_response, parse_message
from proxy.sip.respond import make_response
from proxy.transaction.server import ServerTransaction

__all__ = ["Stack"]

_IN_DIALOG_ONLY = frozenset(("BYE", "INFO", "UPDATE", "NOTIFY", "PRACK"))
_KNOWN_METHODS = frozenset(("REGISTER", "SUBSCRIBE", "PUBLISH", "REFER", "MESSAGE"))


class Stack:
    """All calls of one process.

    After every call of a method the owner takes `effects` and performs them in order. `now` is monotonic, in seconds.

    Args:
        config: what `settings` made of environment, file and flags.
        new_id: gives a fresh token of at least 64 random bits, letters and digits only.
        random: gives a number from 0 up to, not including, 1.

    Attributes:
        webhooks: takes what the webhook tap sees.
    """

    def __init__(self, config: StackConfig, new_id: Callable[[], str], random: Callable[[], float]) -> None:
        self.config = config
        self._core = Core(config, new_id, random, self)
        self._allow = allowed(config.refer)
        self._core.allow(self._allow)
        self._draining = False
        self._core.health = Health(self._core)
        self._digest = self._make_digest()
        self._screening = Screening(self._core)
        self.webhooks = Webhooks(self._core)
        self._orphans = Orphans(self._core, self._screening.note_peer)
        self.dropped = self.rules_reloaded = self.rules_reload_failed = 0

    def _make_digest(self) -> DigestServer:
        config, new_id = self.config, self._core.new_id
        return DigestServer(config.users, config.realm, new_id() + new_id(), config.digest_algorithms)

    # What the owner calls

    @property
    def effects(self) -> list[Effect]:
        """What is to be done, in order; take it with `take_effects`."""
        return self._core.effects

    def take_effects(self) -> list[Effect]:
        """Hand the effects over; the stack begins a new list."""
        effects = self._core.effects
        if effects:
            self._core.effects = []
        return effects

    @property
    def calls_in_progress(self) -> int:
        """How many calls have begun and not ended."""
        return len(self._core.calls)

    @property
    def orphans(self) -> int:
        """How many legs of a process that died have not been ended yet."""
        return len(self._orphans)

    def adopt(self, remains: Sequence[Remains], now: float) -> None:
        """End the legs that a process which died has left behind."""
        self._orphans.take(remains, now)

    def tables(self, now: float | None = None) -> dict[str, int]:
        """The sizes of all tables; every one is 0 when nothing is going on.

        But for `ended_calls`, `rejections` and `sources`, which age: given the time, they let go of what is too old.
        """
        core, gate = self._core, self._screening.gate
        if now is not None:
            core.release_ended(now)
            core.rejections.purge(now)
            gate.purge(now)
        return {
            "calls": len(core.calls),
            "ended_calls": core.ended_calls,
            "legs": len(core.legs),
            "orphans": len(self._orphans),
            "searches": core.searches,
            "timers": len(core.timers),
            "rejections": len(core.rejections),
            "sources": len(gate),
            **core.layer.tables(),
        }

    def next_deadline(self) -> float | None:
        """When `handle_timers` wants to be called, or None."""
        return self._core.timers.next_deadline()

    def start(self, now: float) -> None:
        """Begin to ping the targets that are configured for it."""
        self._core.health.start(now)

    def stop(self) -> None:
        """No more pings."""
        self._core.health.stop()

    def target_states(self) -> dict[str, bool]:
        """Whether each target is up by its pings."""
        return self._core.health.states()

    def handle_timers(self, now: float) -> None:
        """Do what is due."""
        timers = self._core.timers
        due = timers.next_deadline()
        if due is not None:
            self._screening.gate.lag(now - due, now)
        timers.run(now)
        self._core.release_ended(now)

    def reconfigure(self, config: StackConfig, now: float) -> None:
        """Use another configuration for all that begins from now on; the timers stay those of the start."""
        before = self.config
        self.config = self._core.config = replace(config, timers=before.timers)
        self._allow = allowed(config.refer)
        self._core.allow(self._allow)
        asked, asking = [(one.users, one.realm, one.digest_algorithms) for one in (before, config)]
        if asked != asking:
            self._digest = self._make_digest()
        self._screening.reconfigure()
        self._core.health.reconfigure(now)

    def replace_rules(self, rules: Mapping[str, RuleSet], default_rules: str, now: float) -> None:
        """Use other rule sets for new calls; calls in progress keep those that they began with.

        The caller has checked that every name that the configuration uses is there.
        """
        self.config = self._core.config = replace(self.config, rules=rules, default_rules=default_rules)
        self.rules_reloaded += 1
        versions = {name: rule_set.version for name, rule_set in rules.items()}
        self._core.record("rules-reloaded", now, "", {"rules": versions, "default_rules": default_rules})

    def rules_failed(self, problems: Sequence[str], now: float) -> None:
        """Record that rule sets could not be read again; the old ones stay."""
        self.rules_reload_failed += 1
        self._core.record("rules-reload-failed", now, "", {"problems": list(problems)})

    def set_draining(self, on: bool) -> None:
        """Refuse new calls with 503 and Retry-After, or take them again; calls in progress go on."""
        self._draining = on

    def hang_up_all(self, reason: str, now: float) -> None:
        """End every call on both legs."""
        for call in list(self._core.calls.values()):
            call.hang_up(now, 503, reason)

    def receive(self, data: bytes, flow: Flow, now: float) -> None:
        """Take one datagram, or one message framed from a stream."""
        if not self._screening.readable(flow, now):
            self.dropped += 1
            return
        limits = self.config.limits
        try:
            message = parse_message(data, max_headers=limits.max_headers)
            if len(data) > limits.max_message_bytes:
                partial = message if isinstance(message, Request) else None
                raise MalformedMessage(513, "Message Too Large", partial)
        except MalformedMessage as error:
            self._malformed(error, data, flow, now)
            return
        if isinstance(message, Response):
            self._receive_response(message, flow, now)
        else:
            self._receive_request(message, flow, now)

    def stream_error(self, flow: Flow, error: SipError, now: float) -> None:
        """The framer gave up on a connection: nothing on it can be trusted any more. It is closed, after an answer
        where the framer could tell what to answer (RFC 3261 section 18.3)."""
        if isinstance(error, MalformedMessage):
            self._malformed(error, b"", flow, now)
        else:
            self.dropped += 1
            self._core.record("dropped", now, "", {"flow": flow, "why": error.reason})
        self._core.effects.append(CloseFlow(flow, error.reason))

    def flow_closed(self, flow: Flow, now: float) -> None:
        """A connection is gone."""
        self._core.layer.flow_closed(flow, now)

    def may_connect(self, flow: Flow) -> bool:
        """Whether a connection that comes in is worth keeping."""
        return self._screening.may_connect(flow)

    def counters(self) -> dict[str, int]:
        """How many messages were dropped, how often rules were read again, and how often each limit was reached
        (`limit_<name>`), since the start."""
        limits = {f"limit_{name}": count for name, count in sorted(self._screening.gate.counts.items())}
        rules = {"rules_reloaded": self.rules_reloaded, "rules_reload_failed": self.rules_reload_failed}
        return {"dropped": self.dropped, **rules, **limits}

    def flow_in_use(self, flow: Flow) -> bool:
        """Whether a dialog needs a flow, so that an idle connection must stay open; asked seldom."""
        return any(leg.flow is flow for leg in self._core.legs.values())

    def resolved(self, token: int, hops: list[Hop], now: float) -> None:
        """Answer to `Resolve`."""
        self._core.resolved(token, hops, now)

    def resolve_failed(self, token: int, reason: str, now: float) -> None:
        """Answer to `Resolve`."""
        self._core.hop_failed(token, reason, now)

    def flow_opened(self, token: int, flow: Flow, now: float) -> None:
        """Answer to `Open`."""
        self._screening.note_peer(flow)
        self._core.flow_opened(token, flow, now)

    def flow_failed(self, token: int, reason: str, now: float) -> None:
        """Answer to `Open`."""
        self._core.hop_failed(token, reason, now)

    # Messages

    def _malformed(self, error: MalformedMessage, data: bytes, flow: Flow, now: float) -> None:
        """Answer what can be answered, drop the rest; strangers get silence."""
        request = error.partial
        self.dropped += 1
        fields: dict[str, object] = {"flow": flow, "why": error.reason, "size": len(data)}
        self._core.record("dropped", now, "", fields)
        if request is None or request.method == "ACK" or not self._screening.admits(flow):
            return
        self._refuse(request, flow, error, now)

    def _refuse(self, request: Request, flow: Flow, error: SipError, now: float) -> None:
        """Answer a request without any state (RFC 3261 section 8.2.7), if it says by its Via where the answer goes."""
        if request.method == "ACK" or request.get("via") is None:
            return
        try:
            response = make_response(
                request,
                error.status,
                error.reason,
                remote=flow.remote,
                to_tag=self._core.new_id(),
                headers=(*error.headers, ("Server", self.config.user_agent)),
            )
        except (SipError, ValueError):
            return
        fields: dict[str, object] = {
            "flow": flow,
            "method": request.method,
            "status": error.status,
            "reason": error.reason,
            "call_id": request.get("call-id"),
        }
        self._core.record("refused", now, "", fields)
        self._core.send(flow, response.serialize())

    def _receive_request(self, request: Request, flow: Flow, now: float) -> None:
        admitted = self._screening.admits(flow)
        try:
            if not admitted and not self._belongs(request, flow):
                self._stranger(request, flow, now)
                return
            if not self._screening.passes(request, flow, now):
                self.dropped += 1
                return
            check_request(request, allow=self._allow)
        except SipError as error:
            if not admitted or request.method == "ACK" or request.get("via") is None:
                self.dropped += 1
                self._core.record("dropped", now, "", {"flow": flow, "why": error.reason})
            else:
                self._refuse(request, flow, error, now)
            return
        self._core.layer.receive_request(request, flow, now)

    def _belongs(self, request: Request, flow: Flow) -> bool:
        """Whether a request from outside the allow-list may be looked at: it is part of a dialog with the very address
        that it comes from (or a late copy of one that was), its source may authenticate by digest, or it is the health
        check of this very host. Raises SipError.
        """
        known = self._core.layer.find_server(request)
        if known is not None and known.flow.remote[0] == flow.remote[0]:
            return True
        tag = request.to.tag
        leg = self._core.legs.get((request.call_id, tag)) if tag is not None else None
        if leg is not None and leg.flow.remote[0] == flow.remote[0]:
            return True
        if request.method == "OPTIONS":
            return tag is None and flow.remote[0] in THIS_HOST
        return bool(self.config.users) and request.method in ("INVITE", "ACK", "CANCEL")

    def _stranger(self, request: Request, flow: Flow, now: float) -> None:
        self.dropped += 1
        if self.config.refuse_strangers and self._screening.wanted(request, flow, now):
            self._refuse(request, flow, SipError(403, "Source not allowed"), now)
            return
        fields: dict[str, object] = {"flow": flow, "why": "source not allowed", "method": request.method}
        self._core.record("dropped", now, "", fields)

    def _receive_response(self, response: Response, flow: Flow, now: float) -> None:
        try:
            check_response(response)
        except SipError as error:
            self.dropped += 1
            self._core.record("dropped", now, "", {"flow": flow, "why": error.reason})
            return
        self._core.layer.receive_response(response, flow, now)

    # What the transaction layer reports

    def on_request(self, tx: ServerTransaction, now: float) -> None:
        """A new request."""
        request = tx.request
        try:
            tag = request.to.tag
            if tag is not None:
                self._in_dialog(tx, tag, now)
            elif request.method == "INVITE":
                self._invite(tx, now)
            else:
                self._outside(tx, now)
        except SipError as error:
            self._reject(tx, error, now)

    def _in_dialog(self, tx: ServerTransaction, tag: str, now: float) -> None:
        request = tx.request
        leg = self._core.legs.get((request.call_id, tag))
        if leg is None or leg.dialog.remote_tag != (request.from_.tag or ""):
            raise SipError(481, "Call/Transaction Does Not Exist")
        if request.get("max-forwards") == "0" and request.method != "BYE":
            raise SipError(483, "Too Many Hops")
        if not self._same_source(leg, tx.flow):
            raise SipError(403, "Not the source of this call")
        if request.method != "BYE":
            check_require(request)
        leg.dialog.accept(request)
        take_request(leg.call, leg, tx, now)

    def _same_source(self, leg: Leg, flow: Flow) -> bool:
        """Whether a request in a dialog comes from its leg's peer: the same address, or one of the same trunk, since a
        carrier's in-dialog requests may come from another address of its ranges."""
        address, known = flow.remote[0], leg.flow.remote[0]
        if address == known:
            return True
        config = self.config
        ranges = [config.allow, *[trunk.networks for trunk in config.trunks]]
        return leg.side == "a" and any(admits(range_, address) and admits(range_, known) for range_ in ranges)

    def _source(self, request: Request, flow: Flow, now: float) -> str:
        """The trunk or user that an INVITE comes from. Raises SipError 401 or 403 where a user has to prove itself."""
        trunk = trunk_of(self.config, flow)
        if trunk is not None:
            return trunk.name
        if self._screening.admits(flow):
            return ""
        user = self._digest.check(request, now)
        self._screening.note_peer(flow)
        return user

    def _invite(self, tx: ServerTransaction, now: float) -> None:
        request = tx.request
        core = self._core
        replayed = core.rejections.find((request.call_id, request.from_.tag or ""), now)
        if replayed is not None:
            reason = reason_header(*replayed)
            raise SipError(*replayed, ((reason.name, reason.value),))
        if core.layer.find_merged(request) is not None:
            raise SipError(482, "Loop Detected")
        config = self.config
        source = self._source(request, tx.flow, now)
        check_invite(request, config, len(core.calls), self._draining)
        if request.get("replaces") is not None:
            replaced = find_leg(core, request)
            if not self._same_source(replaced, tx.flow):
                raise SipError(403, "Not the source of this call")
            Takeover.start(replaced, tx, now)
            return
        route = choose_route(config, source, request)
        names = list(config.targets) if route is None else route.targets
        targets = [config.targets[name] for name in names]
        if len(targets) > 1:
            targets = order_targets(targets, lambda name: core.health.is_up(name, now), core.random)
        rules = config.default_rules if route is None or not route.rules else route.rules
        Call(core, tx, targets, rules, source, now).start(now)

    def _outside(self, tx: ServerTransaction, now: float) -> None:
        """A request that is neither in a dialog nor an INVITE."""
        method = tx.request.method
        if method == "OPTIONS":
            check_require(tx.request)
            if self._draining:
                raise SipError(503, "Draining", (("Retry-After", str(self.config.retry_after_s)),))
            facts = (("Allow", self._allow), ("Supported", SUPPORTED), ("Accept", "application/sdp"))
            self._answer(tx, 200, "OK", (*facts, ("Server", self.config.user_agent)), now)
        elif method in _IN_DIALOG_ONLY:
            raise SipError(481, "Call/Transaction Does Not Exist")
        elif method in _KNOWN_METHODS:
            raise SipError(405, "Method Not Allowed", (("Allow", ALLOW_OUTSIDE_DIALOG),))
        else:
            raise SipError(501, "Not Implemented", (("Allow", ALLOW_OUTSIDE_DIALOG),))

    def _reject(self, tx: ServerTransaction, error: SipError, now: float) -> None:
        fields: dict[str, object] = {
            "flow": tx.flow,
            "method": tx.method,
            "status": error.status,
            "reason": error.reason,
            "call_id": tx.request.get("call-id"),
        }
        self._core.record("refused", now, "", fields)
        self._answer(tx, error.status, error.reason, (*error.headers, ("Server", self.config.user_agent)), now)

    def _answer(
        self, tx: ServerTransaction, status: int, reason: str, headers: tuple[tuple[str, str], ...], now: float
    ) -> None:
        response = make_response(
            tx.request, status, reason, remote=tx.flow.remote, to_tag=self._core.new_id(), headers=headers
        )
        tx.respond(response, now)

    def on_ack(self, request: Request, flow: Flow, now: float) -> None:
        """An ACK for a 2xx."""
        leg = self._core.legs.get((request.call_id, request.to.tag or ""))
        if leg is not None and leg.dialog.remote_tag == (request.from_.tag or ""):
            take_ack(leg.call, leg, request, now)

    def on_cancel(self, tx: ServerTransaction, invite: ServerTransaction | None, now: float) -> None:
        """A CANCEL."""
        user = None if invite is None else invite.user
        if isinstance(user, (Call, Relay, Takeover)):
            user.on_cancel(tx, now)
        elif invite is not None:
            self._answer(tx, 200, "OK", (("Server", self.config.user_agent),), now)
        else:
            self._reject(tx, SipError(481, "Call/Transaction Does Not Exist"), now)

    def on_stray_response(self, response: Response, flow: Flow, now: float) -> None:
        """A response that belongs to no transaction: it has come too late, or was never ours.

        A forking proxy may send a 2xx even after a failure, or long after all; the session behind it must not live on.
        """
        if 200 <= response.status < 300 and response.cseq.method == "INVITE":
            tx = self._core.layer.find_client(response)
            if tx is not None and isinstance(tx.user, (Attempt, GivenUp, Transfer)):
                tx.user.on_response(tx, response, now)
                return
            if self._screening.is_peer(flow) and end_stray_session(self._core, response, flow, now):
                return
        self._core.record("dropped", now, "", {"flow": flow, "why": "stray response", "status": response.status})

    def on_server_failure(self, tx: ServerTransaction, now: float) -> None:
        """A response could not be sent, or a failure response was never acknowledged."""
        user = tx.user
        if isinstance(user, Call):
            user.on_caller_lost(now)
