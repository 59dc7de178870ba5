"""Many SIPp cases at once through one Trunkline, over UDP, TCP or TLS.

A route by the X-Case header takes each case to a target of its own. SIPp of Debian has no TLS; it speaks TCP into
tunnels that do.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

from proxy.sim.certificates import make_certificate
from tests.support.processes import Sipp, Trunkline, free_port, running_trunkline
from tests.support.scenarios import RESEND_MS, Callee, Caller, Script
from tests.support.tls_tunnel import TlsTunnels

__all__ = ["Case", "World", "run_world"]

_DRAIN_S = 1


class Case(NamedTuple):
    """One kind of call.

    Attributes:
        caller, callee: its two sides.
        third: who is called by a transfer; scripts name its URI by SIPp's key `third`, or its number by `number`.
        source: the address that the caller calls from.
        dead_first: whether the target has another one before it that says 503 to pings.
    """

    caller: Caller
    callee: Callee
    third: Callee | None = None
    source: str = "127.0.0.1"
    dead_first: bool = False


class World(NamedTuple):
    """Cases that share their settings.

    Attributes:
        cases: by name.
        settings: YAML beside `targets`, `routes` and `drain_s`.
        calls: how many calls of each case there are.
        limit_s: how long all of it may take.
    """

    cases: Mapping[str, Callable[[], Case]]
    settings: str = ""
    calls: int = 2
    limit_s: int = 60


class _Way(NamedTuple):
    """How SIPp reaches Trunkline from an address, and Trunkline SIPp at a port."""

    transport: str
    into: Callable[[str], int]
    out_of: Callable[[int], int]
    host: str


class _Run:
    """One world over one transport."""

    def __init__(self, world: World, sipp: str, directory: Path, transport: str, stack: ExitStack) -> None:
        self.cases = {name: make() for name, make in world.cases.items()}
        self._world = world
        self._sipp = sipp
        self._directory = directory
        self._transport = transport
        self._by_sipp = "tcp" if transport == "tls" else transport
        self._stack = stack
        self._running: list[Sipp] = []
        self._ports: dict[str, int] = {}
        for name, case in self.cases.items():
            self._ports[name] = free_port()
            if case.third is not None:
                self._ports[f"{name}-third"] = free_port()
            if case.dead_first:
                self._ports[f"{name}-dead"] = free_port()
        stack.callback(self._kill_all)

    def _kill_all(self) -> None:
        for one in self._running:
            one.kill()

    def _config(self, way: _Way) -> str:
        """Settings with a target for each callee and a route for each case."""
        lines = [self._world.settings, f"drain_s: {_DRAIN_S}", f"timers: {{t1_s: {RESEND_MS / 1000}}}", "targets:"]
        self._uris = {
            name: f"sip:{way.host}:{way.out_of(port)};transport={self._transport}" for name, port in self._ports.items()
        }
        for name, uri in self._uris.items():
            ping = ", ping_s: 0.2" if name.endswith("-dead") else ""
            lines.append(f"  {name}: {{uri: '{uri}', username: trunk, password: secret{ping}}}")
        lines.append("routes:")
        for name, case in self.cases.items():
            if case.third is not None:
                lines.append(f"  - {{targets: [{name}-third], dialed: '{self._number(name)}'}}")
            targets = f"{name}-dead, {name}" if case.dead_first else name
            lines.append(f"  - {{targets: [{targets}], header: X-Case, header_value: {name}}}")
        return "\n".join(lines) + "\n"

    def _number(self, name: str) -> str:
        """The number of the third side of a case."""
        return f"+1555{self._ports.get(f'{name}-third', 0):07}"

    def _keys(self, name: str) -> tuple[str, ...]:
        """What scripts of a case may name."""
        third = self._uris.get(f"{name}-third", "").replace("sip:", "sip:bob@")
        return "-key", "case", name, "-key", "third", third, "-key", "number", self._number(name)

    def start(self) -> tuple[Trunkline, _Way]:
        """Run Trunkline, between tunnels for TLS."""
        port = free_port()
        flags: list[str] = []
        if self._transport == "tls":
            way, flags = self._tls(port)
        else:
            way = _Way(self._by_sipp, lambda source: port, lambda port: port, "127.0.0.1")
        config = self._config(way)
        self._pingable()
        running = running_trunkline(self._directory, "", *flags, config=config, port=port, allow="127.0.0.1")
        return self._stack.enter_context(running), way

    def _tls(self, port: int) -> tuple[_Way, list[str]]:
        tunnels = self._stack.enter_context(TlsTunnels())
        made = make_certificate(self._directory / "tls", ("localhost", "127.0.0.1"))
        server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        server.load_cert_chain(made.certificate, made.key)
        client = ssl.create_default_context(cafile=str(made.ca_file))
        entries: dict[str, int] = {}

        def into(source: str) -> int:
            if source not in entries:
                entries[source] = tunnels.into_tls(port, "localhost", client, source)
            return entries[source]

        flags = ["--listen", f"tls:127.0.0.1:{port}", "--tls-certificate", str(made.certificate)]
        flags += ["--tls-key", str(made.key), "--tls-ca", str(made.ca_file)]
        return _Way("tcp", into, lambda port: tunnels.out_of_tls(port, server), "localhost"), flags

    def _pingable(self) -> None:
        """Those who say 503 to pings must be there before the pings begin."""
        for name, case in self.cases.items():
            if case.dead_first:
                script = Script()
                script.take("OPTIONS")
                script.answer(503)
                self._listen(f"{name}-dead", script, 2)

    def _listen(self, name: str, script: Script, calls: int) -> None:
        scenario = script.write(self._directory, f"{name}-callee")
        place, port = self._directory / f"{name}-callee", self._ports[name]
        place_of = (scenario, place, port, calls, self._by_sipp)
        self._running.append(Sipp.callee(self._sipp, *place_of, *self._keys(name), limit_s=self._world.limit_s))

    def place_calls(self, way: _Way) -> None:
        """Start all the others, the callees first."""
        calls = self._world.calls
        for name, case in self.cases.items():
            if case.third is not None:
                self._listen(f"{name}-third", case.third, calls)
            self._listen(name, case.callee, calls)
        for name, case in self.cases.items():
            scenario = case.caller.write(self._directory, f"{name}-caller")
            place = self._directory / f"{name}-caller"
            entry = way.into(case.source)
            address = case.source if self._transport != "tls" else "127.0.0.1"
            place_of = (scenario, place, free_port(), calls, self._by_sipp)
            tail = (*self._keys(name), "-r", "4", f"127.0.0.1:{entry}")
            self._running.append(Sipp(self._sipp, *place_of, *tail, address=address, limit_s=self._world.limit_s))

    def finish(self) -> None:
        """Wait for all; fails with what each of them did not like."""
        failures = []
        for one in reversed(self._running):
            try:
                one.finish()
            except AssertionError as error:
                failures.append(str(error))
        assert not failures, "\n\n".join(failures)


def run_world(world: World, sipp: str, directory: Path, transport: str) -> None:
    """Place every call of every case. Fails unless all sides were content, and every call was answered."""
    with ExitStack() as stack:
        run = _Run(world, sipp, directory, transport, stack)
        proxy, way = run.start()
        dead = sum(case.dead_first for case in run.cases.values())
        if dead:
            proxy.wait_for("target-down", dead)
        run.place_calls(way)
        run.finish()
        ends = proxy.wait_for("call-end", len(run.cases) * world.calls)
    assert {event["outcome"] for event in ends} == {"answered"}
