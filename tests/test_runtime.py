"""The runtime: effects in order, one timer, faults that stay where they are, and the way out."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest
import uvloop
from structlog.testing import capture_logs

from proxy.audit.records import Event
from proxy.b2bua.config import StackConfig
from proxy.b2bua.effects import CloseFlow, Effect, Open, Resolve, Send
from proxy.b2bua.orphans import Remains
from proxy.b2bua.stack import Stack
from proxy.reload import RunningSettings
from proxy.rewrite.engine import RuleSet
from proxy.runtime import Runtime
from proxy.settings import SettingsError
from proxy.sip.errors import SipError
from proxy.sip.flow import Flow, Hop
from proxy.sip.uri import parse_uri
from proxy.transport import Listener, parse_listener
from proxy.transport.errors import ListenError
from proxy.transport.stream import StreamSettings
from proxy.transport.tls import TlsSettings
from tests.support.bench import Bench, everywhere

UDP = parse_listener("udp:127.0.0.1:0")
TCP = parse_listener("tcp:127.0.0.1:0")


class Script:
    """A stack that notes its calls, and does with each what the test says."""

    def __init__(self) -> None:
        self.notes: list[tuple[Any, ...]] = []
        self.effects: list[Effect] = []
        self.deadlines: list[float] = []
        self.calls_in_progress = 0
        self.greeting = b"greeting"
        self.on_receive: Callable[[bytes, Flow], None] = lambda data, flow: None
        self.on_timer: Callable[[], None] = lambda: None
        self.news = asyncio.Event()

    def _note(self, *what: Any) -> None:
        self.notes.append(what)
        self.news.set()

    async def until(self, name: str, count: int = 1) -> None:
        async with asyncio.timeout(5):
            while sum(note[0] == name for note in self.notes) < count:
                self.news.clear()
                await self.news.wait()

    def named(self, name: str) -> list[tuple[Any, ...]]:
        return [note for note in self.notes if note[0] == name]

    @property
    def orphans(self) -> int:
        return 0

    def adopt(self, remains: Sequence[Remains], now: float) -> None:
        self._note("adopt", remains)

    def take_effects(self) -> list[Effect]:
        effects, self.effects = self.effects, []
        return effects

    def receive(self, data: bytes, flow: Flow, now: float) -> None:
        self._note("receive", data, flow, now)
        self.on_receive(data, flow)

    def stream_error(self, flow: Flow, error: SipError, now: float) -> None:
        self._note("stream_error", flow, error.status)

    def flow_closed(self, flow: Flow, now: float) -> None:
        self._note("flow_closed", flow, flow.closed)

    def flow_in_use(self, flow: Flow) -> bool:
        return False

    def may_connect(self, flow: Flow) -> bool:
        return True

    def tables(self, now: float | None = None) -> dict[str, int]:
        return {"calls": self.calls_in_progress}

    def counters(self) -> dict[str, int]:
        return {}

    def start(self, now: float) -> None:
        pass

    def stop(self) -> None:
        pass

    def resolved(self, token: int, hops: list[Hop], now: float) -> None:
        self._note("resolved", token, hops)

    def resolve_failed(self, token: int, reason: str, now: float) -> None:
        self._note("resolve_failed", token, reason)

    def flow_opened(self, token: int, flow: Flow, now: float) -> None:
        self._note("flow_opened", token, flow)
        self.effects.append(Send(flow, self.greeting))

    def flow_failed(self, token: int, reason: str, now: float) -> None:
        self._note("flow_failed", token, reason)

    def next_deadline(self) -> float | None:
        return min(self.deadlines, default=None)

    def handle_timers(self, now: float) -> None:
        due = [deadline for deadline in self.deadlines if deadline <= now]
        self.deadlines = [deadline for deadline in self.deadlines if deadline > now]
        self._note("timers", now, due)
        self.on_timer()

    def reconfigure(self, config: StackConfig, now: float) -> None:
        self._note("reconfigure", config)

    def replace_rules(self, rules: Mapping[str, RuleSet], default_rules: str, now: float) -> None:
        self._note("rules", rules, default_rules)

    def rules_failed(self, problems: Sequence[str], now: float) -> None:
        self._note("rules_failed", problems)

    def set_draining(self, on: bool) -> None:
        self._note("draining", on)

    def hang_up_all(self, reason: str, now: float) -> None:
        self._note("hang_up", reason)
        self.calls_in_progress = 0


class Kept:
    """A sink that keeps events."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.closed = False

    def emit(self, event: Event) -> None:
        if event.kind == "poison":
            raise RuntimeError("sink fault")
        self.events.append(event)

    def close(self) -> None:
        self.closed = True


class Peer:
    """A UDP peer of the runtime."""

    def __init__(self) -> None:
        self.sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.sock.bind(("127.0.0.1", 0))
        self.sock.setblocking(False)
        self.address: tuple[str, int] = self.sock.getsockname()

    def ask(self, runtime: Runtime, data: bytes) -> None:
        self.sock.sendto(data, (UDP.host, runtime.listeners[0].port))

    async def get(self) -> bytes:
        return await asyncio.wait_for(asyncio.get_running_loop().sock_recv(self.sock, 65536), 5)


World = tuple[Runtime, Script, Kept, Peer]


def config() -> StackConfig:
    return Bench(allow=everywhere()).stack.config


def play(act: Callable[[World], Awaitable[None]], *listeners: Listener, **options: Any) -> None:
    """Run an act with a runtime around a scripted stack, on uvloop."""

    async def main() -> None:
        script, sink, peer = Script(), Kept(), Peer()
        runtime = Runtime(config(), listeners or (UDP,), sinks=[sink], make_stack=lambda *_: script, **options)
        try:
            await runtime.start()
            await act((runtime, script, sink, peer))
        finally:
            await runtime.stop()
            peer.sock.close()
        assert sink.closed

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())


def record(kind: str) -> Event:
    return Event(kind, 0.0, "", "", 0, {})


def test_effects_are_performed_in_order_and_those_of_answers_come_after() -> None:
    async def act(world: World) -> None:
        runtime, script, sink, peer = world

        def on_receive(data: bytes, flow: Flow) -> None:
            script.effects += [
                Send(flow, b"1"),
                Open(7, Hop("udp", *peer.address)),
                record("between"),
                Send(flow, b"2"),
            ]

        script.on_receive = on_receive
        peer.ask(runtime, b"datagram")
        assert [await peer.get() for _ in range(3)] == [b"1", b"2", b"greeting"]
        (_, data, flow, now), (_, token, opened) = script.notes
        assert (data, token) == (b"datagram", 7)
        assert opened is flow
        assert abs(now - time.monotonic()) < 1
        assert [event.kind for event in sink.events] == ["between"]

    play(act)


def test_fault_in_the_stack_is_logged_once_and_harms_no_other_message() -> None:
    async def act(world: World) -> None:
        runtime, script, _, peer = world

        def on_receive(data: bytes, flow: Flow) -> None:
            script.effects.append(Send(flow, b"answer to " + data))
            if data == b"poison":
                raise RuntimeError("boom")

        script.on_receive = on_receive
        with capture_logs() as logs:
            for data in (b"poison", b"poison", b"good one"):
                peer.ask(runtime, data)
                assert await peer.get() == b"answer to " + data
        assert [(line["event"], line["log_level"]) for line in logs] == [("internal-error", "error")]
        assert str(logs[0]["exc_info"]) == "boom"

    play(act)


def test_fault_in_one_effect_leaves_the_others() -> None:
    async def act(world: World) -> None:
        runtime, script, sink, peer = world
        bad = Flow("udp", UDP_ADDRESS, UDP_ADDRESS, "", handle=None)
        script.on_receive = lambda data, flow: script.effects.extend(
            [record("poison"), Send(bad, b"x"), record("good"), Send(flow, b"done")]
        )
        with capture_logs() as logs:
            peer.ask(runtime, b"datagram")
            assert await peer.get() == b"done"
        assert [event.kind for event in sink.events] == ["good"]
        assert [line["event"] for line in logs] == ["internal-error"] * 2

    play(act)


UDP_ADDRESS = ("127.0.0.1", 1)


def test_timer_fires_in_time_never_early_and_follows_earlier_deadlines() -> None:
    async def act(world: World) -> None:
        runtime, script, _, peer = world
        begun = time.monotonic()
        first, second, late = begun + 0.5, begun + 0.8, begun + 300
        wanted = iter([[late], [late, second], [late, second, first]])
        script.on_receive = lambda data, flow: script.deadlines.__setitem__(slice(None), next(wanted))
        for _ in range(3):
            peer.ask(runtime, b"datagram")
        await script.until("timers", 2)
        assert [due for _, _, due in script.named("timers")] == [[first], [second]]
        for _, now, due in script.named("timers"):
            assert 0 <= now - due[0] < 1

    play(act)


def test_timer_that_makes_effects_and_new_deadlines() -> None:
    async def act(world: World) -> None:
        runtime, script, _, peer = world
        flows: list[Flow] = []

        def on_receive(data: bytes, flow: Flow) -> None:
            flows.append(flow)
            script.deadlines.append(0.0)  # long past

        def on_timer() -> None:
            script.effects.append(Send(flows[0], b"tick"))
            if len(script.named("timers")) < 3:
                script.deadlines.append(time.monotonic() + 0.01)

        script.on_receive, script.on_timer = on_receive, on_timer
        peer.ask(runtime, b"datagram")
        assert [await peer.get() for _ in range(3)] == [b"tick"] * 3

    play(act)


def test_uri_is_resolved_at_once_or_by_name_and_failures_are_answered() -> None:
    async def act(world: World) -> None:
        runtime, script, _, peer = world
        uris = ["sip:127.0.0.1:5080;transport=tcp", "sip:localhost:5081", "tel:+15550100001", "sip:h;transport=x"]
        script.on_receive = lambda data, flow: script.effects.extend(
            [Resolve(at, parse_uri(uri)) for at, uri in enumerate(uris)]
        )
        peer.ask(runtime, b"datagram")
        await script.until("resolved", 2)
        await script.until("resolve_failed", 2)
        assert script.notes[1] == ("resolved", 0, [Hop("tcp", "127.0.0.1", 5080)])
        assert script.named("resolved")[1][:2] == ("resolved", 1)
        assert Hop("udp", "127.0.0.1", 5081) in script.named("resolved")[1][2]
        assert sorted(script.named("resolve_failed")) == [
            ("resolve_failed", 2, "a tel URI names no host"),
            ("resolve_failed", 3, "transport x is not spoken"),
        ]

    play(act)


def test_connections_open_fail_break_and_close() -> None:
    async def act(world: World) -> None:
        runtime, script, _, _ = world
        script.greeting = b"x\r\nContent-Length: none\r\n\r\n"
        reader, writer = await asyncio.open_connection("127.0.0.1", runtime.listeners[0].port)
        hops = [Hop("tcp", "127.0.0.1", runtime.listeners[0].port), Hop("tcp", "127.0.0.1", 1)]
        script.on_receive = lambda data, flow: script.effects.extend(
            [Open(number, hop) for number, hop in enumerate(hops)]
        )
        writer.write(b"OPTIONS sip:a@b SIP/2.0\r\nContent-Length: 0\r\n\r\n")
        await script.until("flow_opened")
        await script.until("flow_failed")
        assert script.named("flow_failed") == [("flow_failed", 1, "connection refused")]
        await script.until("stream_error")
        await script.until("flow_closed", 2)
        flow = script.named("receive")[0][2]
        script.on_receive = lambda data, flow: script.effects.append(CloseFlow(flow, "enough"))
        writer.write(b"OPTIONS sip:a@b SIP/2.0\r\nContent-Length: 0\r\n\r\n")
        assert await asyncio.wait_for(reader.read(), 5) == b""
        writer.close()
        await script.until("flow_closed", 3)
        assert script.notes[-1] == ("flow_closed", flow, True)

    play(act, TCP)


def life(act: Callable[[Runtime, Script], Awaitable[None]], **options: Any) -> tuple[Script, list[dict[str, Any]]]:
    """The whole life of a process by `run`, with an act beside it."""
    script: list[Script] = []
    logs: list[Any] = []

    async def main() -> None:
        script.append(Script())
        runtime = Runtime(config(), (UDP,), make_stack=lambda *_: script[0], **options)
        ready = asyncio.Event()
        with capture_logs() as captured:
            running = asyncio.create_task(runtime.run(ready.set))
            await asyncio.wait_for(ready.wait(), 5)
            await act(runtime, script[0])
            await asyncio.wait_for(running, 5)
        logs.extend(captured)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())
    return script[0], logs


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_drains_and_stops(number: signal.Signals) -> None:
    async def act(runtime: Runtime, script: Script) -> None:
        script.calls_in_progress = 1
        os.kill(os.getpid(), number)
        await script.until("draining")
        await asyncio.sleep(0.1)
        assert runtime.listeners, "calls in progress go on"
        script.calls_in_progress = 0

    script, logs = life(act)
    assert script.notes == [("draining", True)]
    assert [line["event"] for line in logs] == ["listening", "started", "draining", "tables", "stopped"]


def test_calls_that_do_not_end_are_hung_up() -> None:
    async def act(runtime: Runtime, script: Script) -> None:
        script.calls_in_progress = 3
        runtime.request_stop()

    script, logs = life(act, drain_s=0.1)
    assert script.notes == [("draining", True), ("hang_up", "Shutting down")]
    assert [line["event"] for line in logs][-4:] == ["draining", "hanging-up", "tables", "stopped"]


def test_second_signal_does_not_wait() -> None:
    async def act(runtime: Runtime, script: Script) -> None:
        script.calls_in_progress = 3
        os.kill(os.getpid(), signal.SIGTERM)
        await script.until("draining")
        os.kill(os.getpid(), signal.SIGTERM)

    script, _ = life(act, drain_s=600)
    assert script.notes[-1] == ("hang_up", "Shutting down")


def test_hangup_signal_takes_up_settings_and_a_mistake_is_logged() -> None:
    applied: list[int] = []
    other = replace(config(), user_agent="Other/1")

    def settings() -> RunningSettings:
        applied.append(1)
        if applied.count(1) == 2:
            raise SettingsError(["trunkline.yaml:3:1: no"])
        tls, stream = TlsSettings(), StreamSettings()
        return RunningSettings(other, tls, stream, 0.0, lambda: applied.append(0), ("user_agent",), ("listen",))

    async def act(runtime: Runtime, script: Script) -> None:
        os.kill(os.getpid(), signal.SIGHUP)
        await script.until("reconfigure")
        os.kill(os.getpid(), signal.SIGHUP)
        async with asyncio.timeout(5):
            while applied != [1, 0, 1]:  # noqa: ASYNC110
                await asyncio.sleep(0.005)
        await asyncio.sleep(0.05)
        script.calls_in_progress = 1
        runtime.request_stop()

    script, logs = life(act, settings=settings)
    assert script.named("reconfigure") == [("reconfigure", other)]
    told = [line for line in logs if line["event"].startswith("settings")]
    assert [line["event"] for line in told] == ["settings-reloaded", "settings-waiting", "settings-reload-failed"]
    assert told[0]["changed"] == ["user_agent"]
    assert told[1]["settings"] == ["listen"]
    assert told[2]["problems"] == ["trunkline.yaml:3:1: no"]
    assert script.notes[-1] == ("hang_up", "Shutting down"), "the drain limit is the new one"


def test_user_signal_logs_the_size_of_every_table() -> None:
    async def act(runtime: Runtime, script: Script) -> None:
        script.calls_in_progress = 2
        os.kill(os.getpid(), signal.SIGUSR1)
        await asyncio.sleep(0.05)
        script.calls_in_progress = 0
        runtime.request_stop()

    _, logs = life(act)
    first, last = [line for line in logs if line["event"] == "tables"]
    assert (first["tables"]["calls"], last["tables"]["calls"]) == (2, 0)
    assert {"connections_in", "connections_out", "handshakes", "udp_flows", "resolving"} <= first["tables"].keys()
    assert first["memory_bytes"] > 1_000_000


def test_fault_of_a_callback_is_logged_and_the_process_goes_on() -> None:
    async def act(runtime: Runtime, script: Script) -> None:
        def fail() -> None:
            raise RuntimeError("boom")

        loop = asyncio.get_running_loop()
        loop.call_soon(fail)
        loop.call_soon(fail)
        loop.call_exception_handler({"message": "something else"})
        await asyncio.sleep(0.01)
        runtime.request_stop()

    _, logs = life(act)
    faults = [line for line in logs if line["event"] == "internal-error"]
    assert [str(line.get("exc_info", line["subject"])) for line in faults] == ["something else", "boom"]


def test_port_in_use_ends_the_start() -> None:
    async def main(port: int) -> None:
        await Runtime(config(), (parse_listener(f"udp:127.0.0.1:{port}"),)).run()

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        with (
            asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
            pytest.raises(ListenError, match=f"^udp:127.0.0.1:{port}: address already in use$"),
        ):
            runner.run(main(port))


def test_real_stack_answers_over_udp_and_its_state_goes_away() -> None:
    async def main() -> None:
        runtime, peer = Runtime(config(), (UDP,)), Peer()
        assert isinstance(runtime.stack, Stack)
        await runtime.start()
        try:
            request = (
                "OPTIONS sip:a@127.0.0.1 SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.1:9;branch=z9hG4bK1;rport\r\n"
                "From: <sip:b@h>;tag=1\r\nTo: <sip:a@h>\r\nCall-ID: 1\r\nCSeq: 1 OPTIONS\r\nMax-Forwards: 70\r\n\r\n"
            )
            peer.ask(runtime, request.encode())
            answer = (await peer.get()).decode()
            assert answer.startswith("SIP/2.0 200 OK\r\n")
            assert f"rport={peer.address[1]}" in answer
            assert "received=127.0.0.1" in answer
            peer.ask(runtime, request.encode())
            assert (await peer.get()).decode() == answer, "a retransmission gets the same answer"
        finally:
            await runtime.stop()
            peer.sock.close()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())
