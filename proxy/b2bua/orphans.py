"""Ends what a process that died has left behind: dialogs by BYE, INVITEs by CANCEL or a refusal."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

from proxy.b2bua.caller_invite import reason_header
from proxy.b2bua.checkpoint import DIALOG, INVITE_IN, INVITE_OUT, Facts, invite_of
from proxy.b2bua.core import Core
from proxy.b2bua.credentials import DigestClient
from proxy.b2bua.effects import Checkpoint
from proxy.b2bua.given_up import GivenUp
from proxy.b2bua.heard import Challenged
from proxy.b2bua.leg import BYE_TRIES, way_to
from proxy.b2bua.mapping import MAX_FORWARDS, via_line
from proxy.b2bua.way_back import hop_back
from proxy.dialog.dialog import Dialog
from proxy.sip.errors import SipError
from proxy.sip.flow import Flow, Hop
from proxy.sip.headers import parse_name_addr
from proxy.sip.respond import make_response

__all__ = ["Orphans", "Remains"]

_SEQ_AHEAD: Final = 100_000
"""How far a BYE's CSeq number is ahead of what was kept: requests after that were not counted."""

_MAX_SEQ: Final = 2**31 - 2
_CAUSE: Final = 500
_WHY: Final = "Process died"
_BATCH: Final = 100
_BATCH_S: Final = 0.1
_DEFAULT_PORTS: Final = {"udp": 5060, "tcp": 5060, "tls": 5061}


class Remains(NamedTuple):
    """What was kept of one leg.

    Attributes:
        call: our id of the call. side: of the leg.
        flow: how its peer was reached; closed where that went with the process.
        facts: as `checkpoint` made them.
    """

    call: str
    side: str
    flow: Flow
    facts: Facts


class Orphans:
    """Takes over the legs of a process that died, a hundred every tenth of a second, and ends them.

    Args:
        note_peer: told of each flow that is used, since answers come from there.
    """

    def __init__(self, core: Core, note_peer: Callable[[Flow], None]) -> None:
        self._core = core
        self._note_peer = note_peer
        self._waiting: deque[Remains] = deque()
        self._searching = 0

    def __len__(self) -> int:
        """How many legs have not been told yet."""
        return len(self._waiting) + self._searching

    def take(self, remains: Sequence[Remains], now: float) -> None:
        """Begin to end them."""
        self._waiting.extend(remains)
        self._work(now)

    def _work(self, now: float) -> None:
        for _ in range(min(_BATCH, len(self._waiting))):
            one = self._waiting.popleft()
            try:
                self._end(one, now)
            except (SipError, ValueError, TypeError) as error:
                # What can't be read ends nothing, and must not be found again.
                self.done(one)
                self._core.record("unreachable", now, one.call, {"reason": str(error)}, one.side)
        if self._waiting:
            self._core.timers.schedule(now + _BATCH_S, self._work)

    def _end(self, one: Remains, now: float) -> None:
        kind = one.facts[0]
        if isinstance(one.facts[-1], list):
            self._record_end(one, now)
        if kind == DIALOG:
            _Goodbye(self, self._core, one).start(now)
        elif kind == INVITE_OUT:
            _Cancel(self, self._core, one).start(now)
        else:
            _Refusal(self, self._core, one).start(now)

    def search(self, change: int) -> None:
        """A search for a flow has begun, or ended."""
        self._searching += change

    def reached(self, one: Remains, flow: Flow) -> None:
        """A leg's peer is about to be told."""
        self._note_peer(flow)
        self.done(one)

    def done(self, one: Remains) -> None:
        """Nothing has to be kept of a leg any more."""
        self._core.effects.append(Checkpoint(one.call, one.side, None))

    def _record_end(self, one: Remains, now: float) -> None:
        """The end of the call, as far as it is known."""
        started, answered_at, trunk, uri, call_sid, user_agent = _about(one.facts)
        if one.facts[0] == INVITE_IN:
            request = invite_of(one.facts[2], one.facts[3])
            call_id, caller, callee = request.call_id, request.get("from") or "", request.get("to") or ""
        else:
            call_id, callee, _, caller = _strings(one.facts[2])[:4]
        answered = one.facts[0] == DIALOG
        fields: dict[str, object] = {
            "flow": one.flow,
            "trunk": trunk,
            "call_id": call_id,
            "from": _uri_of(caller),
            "to": _uri_of(callee),
            "uri": uri,
            "twilio_call_sid": call_sid or None,
            "user_agent": user_agent or None,
            "outcome": "answered" if answered else "failed",
            "status": 200 if answered else 503,
            "reason": "OK" if answered else "Service Unavailable",
            "ended_by": "trunkline",
            "detail": _WHY,
            "duration_s": round(now - started, 6),
            "setup_s": round(answered_at - started, 6) if answered else None,
            "talk_s": round(now - answered_at, 6) if answered else None,
            "attempts": [],
            "tags": [],
            "lost": True,
        }
        self._core.record("call-end", now, one.call, fields)


class _Way:
    """Finds a flow to the peer of a leg: the one that there is, or one way after the other."""

    __slots__ = ("_core", "_one", "_orphans", "_ways")

    def __init__(self, orphans: Orphans, core: Core, one: Remains) -> None:
        self._orphans = orphans
        self._core = core
        self._one = one
        self._ways: list[Callable[[], object]] = []

    def start(self, now: float) -> None:
        """Begin."""
        flow = self._one.flow
        if not flow.closed:
            self._orphans.reached(self._one, flow)
            self.tell(flow, now)
            return
        self._ways = self.ways()
        self._orphans.search(1)
        self._next("", now)

    def _next(self, reason: str, now: float) -> None:
        if self._ways:
            self._ways.pop(0)()
            return
        self._orphans.search(-1)
        self._orphans.done(self._one)
        self._core.record("unreachable", now, self._one.call, {"reason": reason}, self._one.side)

    def on_flow(self, flow: Flow, now: float) -> None:
        """The peer can be reached."""
        self._orphans.search(-1)
        self._orphans.reached(self._one, flow)
        self.tell(flow, now)

    def on_no_flow(self, reason: str, now: float) -> None:
        """Not this way."""
        self._next(reason, now)

    def ways(self) -> list[Callable[[], object]]:
        """The ways to the peer, the best one first: by default to the address that the flow led to."""
        flow = self._one.flow
        hop = Hop(flow.transport, *flow.remote, flow.server_name)
        return [lambda: self._core.open_hop(hop, self)]

    def tell(self, flow: Flow, now: float) -> None:
        """Tell the peer."""
        raise NotImplementedError


class _Goodbye(_Way):
    """A BYE."""

    __slots__ = ("_dialog", "_digest", "_flow", "_tries")

    def __init__(self, orphans: Orphans, core: Core, one: Remains) -> None:
        super().__init__(orphans, core, one)
        call_id, local, local_tag, remote, remote_tag, seq, target = _strings(one.facts[2])
        routes, name = one.facts[3], one.facts[4]
        seq_ahead = min(int(seq) + _SEQ_AHEAD, _MAX_SEQ)
        route_set = [str(route) for route in routes] if isinstance(routes, list) else []
        self._dialog = Dialog(call_id, local, local_tag, remote, remote_tag, seq_ahead, -1, route_set, target)
        self._dialog.next_hop()
        known = core.config.targets.get(str(name))
        self._digest = None if known is None else DigestClient(known.username, known.password, core.new_id)
        self._flow = one.flow
        self._tries = BYE_TRIES

    def ways(self) -> list[Callable[[], object]]:
        """A connection that we had opened can be opened again. Else by the book, to the first route or the remote
        target; and to the peer's address at the usual port, since its own is no port that it takes connections at."""
        lost, core = self._one.flow, self._core
        uri = way_to(self._dialog, lost)
        usual = Hop(lost.transport, lost.remote[0], _DEFAULT_PORTS[lost.transport])
        by_the_book: Callable[[], object] = lambda: core.find_flow(uri, self)  # noqa: E731
        return [by_the_book, lambda: core.open_hop(usual, self)] if lost.listener else [*super().ways(), by_the_book]

    def tell(self, flow: Flow, now: float) -> None:
        """Send it."""
        self._flow = flow
        self._send(now)

    def _send(self, now: float) -> None:
        core, one, dialog = self._core, self._one, self._dialog
        tries, self._tries = self._tries, self._tries - 1
        user = Challenged(core, one.call, one.side, 0, self._digest, self._send, 1 if self._flow.closed else tries)
        credentials = () if self._digest is None else self._digest.lines("BYE", dialog.request_lines()[0])
        extra = (reason_header(_CAUSE, _WHY), *core.capabilities[1:], *credentials)
        top = [via_line(self._flow, core.new_branch()), MAX_FORWARDS]
        bye = dialog.request("BYE", dialog.next_seq(), top, extra)
        core.record_message(now, one.call, one.side, "out", self._flow, bye)
        core.layer.send_request(bye, self._flow, user, now)


class _Cancel(_Way):
    """A CANCEL for an INVITE of ours; what still comes of that is acknowledged, and a late 2xx ended."""

    __slots__ = ()

    def tell(self, flow: Flow, now: float) -> None:
        """Send it."""
        core, one = self._core, self._one
        user = GivenUp(core, one.call, one.side, 0, _WHY)
        tx = core.layer.adopt_client(invite_of(one.facts[2], one.facts[3]), flow, user, now)
        user.cancel(tx, now, (reason_header(_CAUSE, _WHY),))


class _Refusal(_Way):
    """The final response to the caller's INVITE."""

    __slots__ = ()

    def ways(self) -> list[Callable[[], object]]:
        """To the port that the caller takes responses at."""
        one, core = self._one, self._core
        hop = hop_back(core.config, invite_of(one.facts[2], one.facts[3]), one.flow)
        return [] if hop is None else [lambda: core.open_hop(hop, self)]

    def tell(self, flow: Flow, now: float) -> None:
        """Send it, and again until the ACK comes."""
        core, one = self._core, self._one
        request = invite_of(one.facts[2], one.facts[3])
        tx = core.layer.adopt_server(request, flow, now)
        if tx is None:
            return  # it has come again, as a call of our own
        reason = reason_header(_CAUSE, _WHY)
        headers = ((reason.name, reason.value), ("Server", core.config.user_agent))
        response = make_response(request, 503, remote=one.flow.remote, to_tag=str(one.facts[4]), headers=headers)
        core.record_message(now, one.call, one.side, "out", flow, response)
        tx.respond(response, now)


def _about(facts: Facts) -> tuple[float, float, str, str, str, str]:
    about: Any = facts[-1]
    started, answered_at, *texts = about
    trunk, uri, call_sid, user_agent = (str(text) for text in texts)
    return float(started), float(answered_at), trunk, uri, call_sid, user_agent


def _strings(value: object) -> list[str]:
    assert isinstance(value, list)
    return [str(item) for item in value]


def _uri_of(value: str) -> str:
    try:
        return parse_name_addr(value).uri_text
    except SipError:
        return ""
