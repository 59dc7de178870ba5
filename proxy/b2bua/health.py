"""Which targets are up: by OPTIONS pings, and by what calls find out."""

from __future__ import annotations

from typing import Final

from proxy.b2bua.config import Target
from proxy.b2bua.core import Core
from proxy.b2bua.mapping import contact_line, via_line
from proxy.sip.flow import Flow
from proxy.sip.message import Request, Response, header
from proxy.transaction.client import ClientTransaction
from proxy.transaction.timers import Timer

__all__ = ["Health"]

_MISSES_TO_DOWN: Final = 2
_AVOID_S: Final = 30.0


class Health:
    """The state of all targets; every change is recorded as `target-up` or `target-down`."""

    __slots__ = ("_avoided", "_core", "_down", "_pings")

    def __init__(self, core: Core) -> None:
        self._core = core
        self._down: set[str] = set()
        self._avoided: dict[str, float] = {}
        self._pings: list[_Ping] = []

    def start(self, now: float) -> None:
        """Begin to ping the targets that are configured for it."""
        self.reconfigure(now)

    def stop(self) -> None:
        """No more pings."""
        for ping in self._pings:
            ping.stop()
        self._pings.clear()

    def reconfigure(self, now: float) -> None:
        """Ping the targets that are configured now. What is known of one that stays as it was stays known."""
        targets = self._core.config.targets
        kept = [ping for ping in self._pings if targets.get(ping.target.name) == ping.target]
        for ping in self._pings:
            if ping not in kept:
                ping.stop()
        pinged = {ping.target.name for ping in kept}
        self._pings = kept
        self._down &= pinged
        for target in targets.values():
            if target.ping_s and target.name not in pinged:
                ping = _Ping(self._core, self, target)
                self._pings.append(ping)
                ping.send(now)

    def is_up(self, name: str, now: float) -> bool:
        """Whether calls should go to a target: not down by its pings, and not failed for a call a moment ago."""
        return name not in self._down and self._avoided.get(name, now) <= now

    def failed(self, name: str, now: float) -> None:
        """A call could not reach a target, or found it unavailable: others go first for half a minute."""
        self._avoided[name] = now + _AVOID_S

    def worked(self, name: str) -> None:
        """A call reached a target."""
        self._avoided.pop(name, None)

    def set_state(self, name: str, up: bool, why: str, now: float) -> None:
        """What the pings say."""
        if up == (name not in self._down):
            return
        if up:
            self._down.discard(name)
        else:
            self._down.add(name)
        self._core.record("target-up" if up else "target-down", now, "", {"target": name, "why": why})

    def states(self) -> dict[str, bool]:
        """Whether each target is up by its pings."""
        return {name: name not in self._down for name in self._core.config.targets}


class _Ping:
    """Sends OPTIONS to one target, again and again.

    Attributes:
        target: which.
    """

    __slots__ = ("_core", "_health", "_misses", "_search", "_stopped", "_timer", "target")

    def __init__(self, core: Core, health: Health, target: Target) -> None:
        self._core = core
        self._health = health
        self.target = target
        self._misses = 0
        self._search = 0
        self._stopped = False
        self._timer: Timer | None = None

    def stop(self) -> None:
        """Send no more."""
        self._stopped = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._search:
            self._core.forget_search(self._search)
            self._search = 0

    def send(self, now: float) -> None:
        """Find the target; `on_flow` does the rest."""
        self._timer = None
        self._search = self._core.find_flow(self.target.uri, self)

    def on_flow(self, flow: Flow, now: float) -> None:
        """OPTIONS outside a dialog (RFC 3261 section 11.1)."""
        self._search = 0
        core, uri = self._core, self.target.uri
        host = core.config.public_address
        headers = [
            via_line(flow, core.new_branch()),
            header("Max-Forwards", "70"),
            header("From", f"<sip:ping@{host}>;tag={core.new_id()}"),
            header("To", f"<{uri.text}>"),
            header("Call-ID", core.new_id()),
            header("CSeq", "1 OPTIONS"),
            contact_line(flow),
            header("Accept", "application/sdp"),
            *core.capabilities,
            header("Content-Length", "0"),
        ]
        core.layer.send_request(Request("OPTIONS", uri.text, headers), flow, self, now)

    def on_no_flow(self, reason: str, now: float) -> None:
        """The target can't be reached."""
        self._search = 0
        self._miss(reason, now)

    def on_response(self, tx: ClientTransaction, response: Response, now: float) -> None:
        """Any final answer but 503 and 408 shows that somebody is there."""
        if self._stopped:
            return
        if response.status in (408, 503):
            self._miss(f"{response.status} {response.reason}", now)
        elif response.status >= 200:
            self._misses = 0
            self._health.set_state(self.target.name, True, f"{response.status} {response.reason}", now)
            self._again(now)

    def on_timeout(self, tx: ClientTransaction, now: float) -> None:
        """No answer."""
        self._miss("no answer to OPTIONS", now)

    def on_transport_failure(self, tx: ClientTransaction, now: float) -> None:
        """The connection broke."""
        self._miss("connection lost", now)

    def _miss(self, why: str, now: float) -> None:
        if self._stopped:
            return
        self._misses += 1
        if self._misses >= _MISSES_TO_DOWN:
            self._health.set_state(self.target.name, False, why, now)
        self._again(now)

    def _again(self, now: float) -> None:
        if not self._stopped:
            self._timer = self._core.timers.schedule(now + self.target.ping_s, self.send)
