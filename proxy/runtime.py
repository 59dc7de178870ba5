"""The composition root: drives the stack with bytes and time, and performs what it wants done."""

from __future__ import annotations

import asyncio
import gc
import os
import random
import resource
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Protocol

import structlog

from proxy.audit.records import Event
from proxy.audit.sinks import Sink
from proxy.audit.throttle import Throttle
from proxy.b2bua.checkpoint import flow_of
from proxy.b2bua.config import StackConfig
from proxy.b2bua.effects import Checkpoint, CloseFlow, Effect, Open, Resolve, Send
from proxy.b2bua.orphans import Remains
from proxy.b2bua.stack import Stack
from proxy.checkpoints import CheckpointTable
from proxy.garbage import GarbageCollection
from proxy.reload import NOT_TAKEN_UP, Reload, RunningSettings
from proxy.rewrite.engine import RuleSet
from proxy.rulereload import RuleReload, RuleSource
from proxy.sip.errors import SipError
from proxy.sip.flow import Flow, Hop
from proxy.transport.errors import ResolveError, TlsError
from proxy.transport.listener import Listener
from proxy.transport.manager import Transports
from proxy.transport.resolver import Resolver, numeric_hop
from proxy.transport.stream import StreamSettings
from proxy.transport.tls import TlsSettings
from proxy.transport.watch import FileWatch
from proxy.workers import Exchange, IdMaker

__all__ = ["Runtime", "StackFactory", "StackLike"]

_GOODBYE_S: Final = 2.0
_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1)
_POLL_S: Final = 0.05
_LOG_INTERVAL_S: Final = 10.0


class StackLike(Protocol):
    """What the runtime needs of a stack."""

    @property
    def calls_in_progress(self) -> int:
        """How many calls have begun and not ended."""

    @property
    def orphans(self) -> int:
        """How many legs of a process that died have not been ended yet."""

    def adopt(self, remains: Sequence[Remains], now: float) -> None:
        """End the legs that a process which died has left behind."""

    def take_effects(self) -> list[Effect]:
        """What is to be done, in order."""

    def receive(self, data: bytes, flow: Flow, now: float) -> None:
        """One datagram, or one message of a stream."""

    def stream_error(self, flow: Flow, error: SipError, now: float) -> None:
        """A stream can't be framed any more."""

    def flow_closed(self, flow: Flow, now: float) -> None:
        """A connection is gone."""

    def flow_in_use(self, flow: Flow) -> bool:
        """Whether a call needs a connection to stay open."""

    def may_connect(self, flow: Flow) -> bool:
        """Whether a connection that comes in is worth keeping."""

    def tables(self, now: float | None = None) -> dict[str, int]:
        """The sizes of all tables."""

    def counters(self) -> dict[str, int]:
        """What was dropped, and how often limits were reached."""

    def start(self, now: float) -> None:
        """Begin with what the stack does by itself."""

    def stop(self) -> None:
        """Do nothing by itself any more."""

    def resolved(self, token: int, hops: list[Hop], now: float) -> None:
        """Answer to Resolve."""

    def resolve_failed(self, token: int, reason: str, now: float) -> None:
        """Answer to Resolve."""

    def flow_opened(self, token: int, flow: Flow, now: float) -> None:
        """Answer to Open."""

    def flow_failed(self, token: int, reason: str, now: float) -> None:
        """Answer to Open."""

    def next_deadline(self) -> float | None:
        """When `handle_timers` must be called."""

    def handle_timers(self, now: float) -> None:
        """Do what is due."""

    def reconfigure(self, config: StackConfig, now: float) -> None:
        """Use another configuration for all that begins from now on."""

    def replace_rules(self, rules: Mapping[str, RuleSet], default_rules: str, now: float) -> None:
        """Use other rule sets for new calls."""

    def rules_failed(self, problems: Sequence[str], now: float) -> None:
        """Rule sets could not be read again."""

    def set_draining(self, on: bool) -> None:
        """Take no new calls."""

    def hang_up_all(self, reason: str, now: float) -> None:
        """End every call."""


StackFactory = Callable[[StackConfig, Callable[[], str], Callable[[], float]], StackLike]


class Runtime:
    """One process of Trunkline. The caller installs uvloop: `uvloop.run(Runtime(...).run())`.

    Args:
        config: for the stack.
        listeners: where to listen.
        tls: certificates and trust.
        sinks: who gets events; closed by `stop`.
        stream: limits of TCP and TLS connections.
        resolver: finds the hops of URIs; None asks the system's nameservers.
        drain_s: how long calls may go on after SIGTERM before they are ended.
        make_stack: makes the stack; tests may give their own.
        watch_s: how often to look whether a certificate or key was replaced, which is then read again; 0 for never.
        settings: reads the settings again, on SIGHUP. Raises SettingsError. None: they stay.
        rules: where rule sets come from; they are read again on SIGHUP and when a file was changed. None: never.
        exchange: with the other workers, where several processes share the listeners; None for one process.
        checkpoints: where what would end each leg is kept, and may have been left by a process before this one.
        needed: while draining, whether other processes still have calls, whose messages and connections may come by us.
        parent: a file descriptor that can be read once the supervisor is gone; the process then ends as by SIGTERM.
    """

    def __init__(
        self,
        config: StackConfig,
        listeners: Sequence[Listener],
        *,
        tls: TlsSettings | None = None,
        sinks: Sequence[Sink] = (),
        stream: StreamSettings | None = None,
        resolver: Resolver | None = None,
        drain_s: float = 30.0,
        make_stack: StackFactory | None = None,
        watch_s: float = 0.0,
        settings: Callable[[], RunningSettings] | None = None,
        rules: RuleSource | None = None,
        exchange: Exchange | None = None,
        checkpoints: CheckpointTable | None = None,
        needed: Callable[[], bool] = lambda: False,
        parent: int | None = None,
    ) -> None:
        make_id = IdMaker(None if exchange is None else exchange.number)
        self.stack: StackLike = (make_stack or Stack)(config, make_id, random.SystemRandom().random)
        self.transports = Transports(
            self,
            public_address=config.public_address,
            tls=tls,
            stream=stream,
            welcome=self.stack.may_connect,
            shared=exchange is not None,
        )
        self._exchange = exchange
        self._checkpoints = checkpoints
        self._needed = needed
        self._parent = parent
        self._watch = FileWatch(self.transports.files, watch_s, self._certificate_changed)
        self._settings = None if settings is None else Reload(settings, self._use_settings, self._settings_failed)
        self._rules = None if rules is None else RuleReload(rules, self._use_rules, self._rules_failed)
        self._wanted = tuple(listeners)
        self._sinks = tuple(sinks)
        self._resolver = resolver or Resolver()
        self._drain_s = drain_s
        self._resolving: set[asyncio.Task[None]] = set()
        self._performing = False
        self._timer: asyncio.TimerHandle | None = None
        self._armed_for = float("inf")
        self._faults = Throttle(_LOG_INTERVAL_S)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping: asyncio.Event | None = None
        self._garbage = GarbageCollection(lambda: sum(self.stack.tables().values()))
        self._hurry: asyncio.Event | None = None
        self._log = structlog.get_logger(__name__)

    @property
    def listeners(self) -> tuple[Listener, ...]:
        """Where the process listens, with the real ports, after `start`."""
        return self.transports.listeners

    @property
    def draining(self) -> bool:
        """Whether no new calls are taken any more."""
        return self._stopping is not None and self._stopping.is_set()

    # The life of the process

    async def start(self) -> None:
        """Open all listeners, or none. Raises ListenError or TlsError, one line each."""
        self._loop = asyncio.get_running_loop()
        self._stopping = self._stopping or asyncio.Event()
        self._hurry = self._hurry or asyncio.Event()
        await self.transports.start(self._wanted)
        if self._exchange is not None:
            self._exchange.start(
                receive=self._take,
                closed=self._borrowed_closed,
                datagram_flow=self.transports.datagram_flow,
                welcome=self.stack.may_connect,
                send=self.transports.send,
                close=self.transports.close_flow,
            )
        self._watch.start()
        if self._rules is not None:
            self._rules.start()
        self._drive(self.stack.start)
        if self._checkpoints is not None:
            self._adopt(self._checkpoints)

    def _adopt(self, checkpoints: CheckpointTable) -> None:
        """End the calls of the process that was here before."""
        remains: list[Remains] = []
        for call, side, facts in checkpoints.load():
            flow = flow_of(facts[1])
            if flow.transport == "udp" and flow.listener:
                flow = self.transports.datagram_flow(flow.listener, *flow.remote) or flow
            remains.append(Remains(call, side, flow, facts))
        if remains:
            self._log.warning("ending-lost-calls", legs=len(remains))
            self._drive(self.stack.adopt, remains)

    async def run(self, on_ready: Callable[[], None] | None = None) -> None:
        """Run until SIGTERM or SIGINT, then let calls end. `on_ready` is called once everything listens.

        A second signal ends the calls at once. SIGHUP reads the certificate again, SIGUSR1 has the sizes of all tables
        logged. Raises ListenError or TlsError.
        """
        loop = asyncio.get_running_loop()
        self._stopping, self._hurry = asyncio.Event(), asyncio.Event()
        # Before anybody can see that we listen: whoever does may send a signal at once.
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.request_stop)
        loop.add_signal_handler(signal.SIGHUP, self.reload)
        loop.add_signal_handler(signal.SIGUSR1, self.report)
        # A supervisor has blocked them, so that none came before there was a handler.
        signal.pthread_sigmask(signal.SIG_UNBLOCK, (*_SIGNALS, signal.SIGCHLD))
        if self._parent is not None:
            loop.add_reader(self._parent, self._orphaned, self._parent)
        try:
            await self.start()
            await self._work(on_ready)
        finally:
            for number in _SIGNALS:
                loop.remove_signal_handler(number)

    async def _work(self, on_ready: Callable[[], None] | None) -> None:
        """From the first message to the last."""
        self._garbage.start()
        asyncio.get_running_loop().set_exception_handler(self._loop_fault)
        try:
            self._log.info("started", listeners=[str(listener) for listener in self.listeners], pid=os.getpid())
            if on_ready is not None:
                on_ready()
            assert self._stopping is not None
            await self._stopping.wait()
            await self.drain()
            self.report()
        finally:
            await self.stop()

    def request_stop(self) -> None:
        """Begin to drain; when asked again, end the calls at once."""
        assert self._stopping is not None
        assert self._hurry is not None
        if self._stopping.is_set():
            self._hurry.set()
        self._stopping.set()

    def _orphaned(self, parent: int) -> None:
        assert self._loop is not None
        self._loop.remove_reader(parent)
        self._log.error("supervisor-gone")
        self.request_stop()

    def report(self) -> None:
        """Log the sizes of all tables and what was turned away; on SIGUSR1, and before everything is closed.

        Where no call would have to wait for it, garbage is collected first: the memory is then what is in use.
        """
        if not self.stack.calls_in_progress:
            gc.collect()
        self._log.info(
            "tables",
            tables={
                **self.stack.tables(time.monotonic()),
                **self.transports.counters(),
                "resolving": len(self._resolving),
            },
            counters={
                **self.stack.counters(),
                "connections_refused": self.transports.refused,
                **({} if self._exchange is None else self._exchange.counters()),
            },
            memory_bytes=_resident_bytes(),
        )

    def reload(self) -> None:
        """Read settings, certificate and rules again. A mistake in the settings is logged, and nothing is changed."""
        if self._settings is not None:
            self._settings.reload()
        elif self._reload_certificate() and self._rules is not None:
            self._rules.reload()

    def _use_settings(self, new: RunningSettings) -> None:
        try:
            self.transports.reconfigure(new.tls, new.stream)
        except TlsError as error:
            self._log.error("reload-failed", reason=str(error))
            return
        self._drain_s = new.drain_s
        new.apply()
        self._drive(self.stack.reconfigure, new.config)
        self._log.info("settings-reloaded", changed=list(new.changed))
        if new.waiting:
            advice = "these need a restart; until then they stay as they were"
            self._log.warning("settings-waiting", settings=list(new.waiting), advice=advice)
        if self._rules is not None:
            self._rules.reload()

    def _settings_failed(self, problems: Sequence[str]) -> None:
        self._log.error("settings-reload-failed", problems=list(problems), advice=NOT_TAKEN_UP)

    def _certificate_changed(self) -> None:
        self._reload_certificate()

    def _reload_certificate(self) -> bool:
        """Read the certificate again; what fails is logged and changes nothing."""
        try:
            self.transports.reload_certificate()
        except TlsError as error:
            self._log.error("reload-failed", reason=str(error))
            return False
        return True

    def _use_rules(self, rules: Mapping[str, RuleSet], default_rules: str) -> None:
        versions = {name: rule_set.version for name, rule_set in rules.items()}
        self._log.info("rules-reloaded", rules=versions, default_rules=default_rules)
        self._drive(self.stack.replace_rules, rules, default_rules)

    def _rules_failed(self, problems: Sequence[str]) -> None:
        self._log.error("rules-reload-failed", problems=list(problems), advice="the rules from before stay in use")
        self._drive(self.stack.rules_failed, problems)

    async def drain(self) -> None:
        """Take no new calls, wait for those in progress up to `drain_s`, then end them."""
        stack = self.stack
        stack.set_draining(True)
        self._perform()
        calls = stack.calls_in_progress
        self._log.info("draining", calls=calls, drain_s=self._drain_s)
        await self._wait_for_calls(self._drain_s)
        left = stack.calls_in_progress
        if left or stack.orphans:
            self._log.warning("hanging-up", calls=left)
            self._drive(stack.hang_up_all, "Shutting down")
            assert self._hurry is not None
            self._hurry.clear()
            await self._wait_for_calls(_GOODBYE_S)

    async def _wait_for_calls(self, limit_s: float) -> None:
        assert self._hurry is not None
        deadline = time.monotonic() + limit_s
        stack = self.stack
        while (
            (stack.calls_in_progress or stack.orphans or self._needed())
            and not self._hurry.is_set()
            and time.monotonic() < deadline
        ):
            try:
                await asyncio.wait_for(self._hurry.wait(), _POLL_S)
            except TimeoutError:
                pass

    async def stop(self) -> None:
        """Close everything, sinks last. Calls that are in progress are dropped without a word."""
        self._watch.stop()
        for reading in (self._settings, self._rules):
            if reading is not None:
                await reading.stop()
        self._garbage.stop()
        self.stack.stop()
        for task in tuple(self._resolving):
            task.cancel()
        await asyncio.gather(*self._resolving, return_exceptions=True)
        await self.transports.stop()
        if self._exchange is not None:
            self._exchange.stop()
        await self._resolver.close()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._log.info("stopped", calls=self.stack.calls_in_progress)
        for sink in self._sinks:
            sink.close()

    # What transports report (StreamHooks)

    def receive(self, data: bytes, flow: Flow) -> None:
        """One whole message came in. This is the hot path."""
        exchange = self._exchange
        if exchange is None or not exchange.hand_over(data, flow):
            self._take(data, flow)

    def _take(self, data: bytes, flow: Flow) -> None:
        """A message that is ours."""
        try:
            self.stack.receive(data, flow, time.monotonic())
        except Exception as error:
            self._fault(error, flow)
        self._perform()

    def stream_error(self, flow: Flow, error: SipError) -> None:
        """A stream can't be framed any more."""
        self._drive(self.stack.stream_error, flow, error)

    def closed(self, flow: Flow) -> None:
        """A connection is gone."""
        if self._exchange is not None:
            self._exchange.gone(flow)
        self._drive(self.stack.flow_closed, flow)

    def _borrowed_closed(self, flow: Flow) -> None:
        """A connection of another worker is gone."""
        self._drive(self.stack.flow_closed, flow)

    def in_use(self, flow: Flow) -> bool:
        """Whether a call needs a connection."""
        return self.stack.flow_in_use(flow) or (self._exchange is not None and self._exchange.lends(flow))

    # Time

    def _arm(self) -> None:
        """Have the one timer fire in time for the next deadline; a later one is found when it fires."""
        deadline = self.stack.next_deadline()
        if deadline is None or deadline >= self._armed_for:
            return
        if self._timer is not None:
            self._timer.cancel()
        assert self._loop is not None
        self._armed_for = deadline
        # libuv counts in whole milliseconds: one more, so that it never fires before the deadline.
        self._timer = self._loop.call_later(max(deadline - time.monotonic(), 0.0) + 0.001, self._fire)

    def _fire(self) -> None:
        self._timer = None
        self._armed_for = float("inf")
        self._drive(self.stack.handle_timers)

    # Effects

    def drive(self, step: Callable[..., None], *arguments: object) -> None:
        """Call a method of the stack with the time, then do what it wants. To be called in the event loop."""
        self._drive(step, *arguments)

    def _drive(self, step: Callable[..., None], *arguments: object) -> None:
        """Call the stack with the time, then do what it wants. A fault in it stays with this one step."""
        try:
            step(*arguments, time.monotonic())
        except Exception as error:
            self._fault(error, arguments[0] if arguments else "")
        self._perform()

    def _perform(self) -> None:
        """Perform effects in order until there are none; those that answers bring up come after the rest."""
        if self._performing:
            return
        self._performing = True
        take = self.stack.take_effects
        send = self.transports.send
        try:
            while effects := take():
                for effect in effects:
                    try:
                        if isinstance(effect, Send):
                            send(effect.flow, effect.data)
                        elif isinstance(effect, Event):
                            for sink in self._sinks:
                                sink.emit(effect)
                        else:
                            self._perform_rare(effect)
                    except Exception as error:
                        self._fault(error, type(effect).__name__)
        finally:
            self._performing = False
        self._arm()

    def _perform_rare(self, effect: Open | Resolve | CloseFlow | Checkpoint) -> None:
        if isinstance(effect, Checkpoint):
            if self._checkpoints is not None:
                if effect.facts is None:
                    self._checkpoints.drop(effect.call, effect.side)
                else:
                    self._checkpoints.put(effect.call, effect.side, effect.facts)
            return
        if isinstance(effect, CloseFlow):
            self.transports.close_flow(effect.flow, effect.why)
            return
        token = effect.token
        if isinstance(effect, Open):
            self.transports.open(effect.hop, lambda flow, reason: self._opened(token, flow, reason))
            return
        hop = numeric_hop(effect.uri)
        if hop is not None:
            self._drive(self.stack.resolved, token, [hop])
            return
        task = asyncio.get_running_loop().create_task(self._resolve(effect))
        self._resolving.add(task)
        task.add_done_callback(self._resolving.discard)

    def _opened(self, token: int, flow: Flow | None, reason: str) -> None:
        if flow is not None:
            self._drive(self.stack.flow_opened, token, flow)
        else:
            self._drive(self.stack.flow_failed, token, reason)

    async def _resolve(self, effect: Resolve) -> None:
        try:
            hops = await self._resolver.resolve(effect.uri)
        except ResolveError as error:
            self._log.warning("resolve-failed", uri=str(effect.uri), reason=error.reason)
            self._drive(self.stack.resolve_failed, effect.token, error.reason)
        except Exception as error:
            self._fault(error, str(effect.uri))
            self._drive(self.stack.resolve_failed, effect.token, "internal error while resolving")
        else:
            self._drive(self.stack.resolved, effect.token, hops)

    def _loop_fault(self, _loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """What asyncio itself could not hand to anybody."""
        error = context.get("exception")
        if isinstance(error, Exception):
            self._fault(error, context.get("message", ""))
        else:
            self._log.error("internal-error", subject=context.get("message", ""))

    def _fault(self, error: Exception, subject: object) -> None:
        """Log a fault of our own with its traceback, once in a while for each place; no other call is harmed."""
        place = error.__traceback__
        while place is not None and place.tb_next is not None:
            place = place.tb_next
        where = (type(error), place.tb_frame.f_code if place else None, place.tb_lineno if place else 0)
        suppressed = self._faults.allow(where, time.monotonic())
        if suppressed is not None:
            self._log.error("internal-error", subject=str(subject), exc_info=error, suppressed=suppressed)


def _resident_bytes() -> int:
    """The memory that the process has in RAM; 0 where the system does not say."""
    try:
        with open("/proc/self/statm", "rb") as file:
            return int(file.read().split()[1]) * resource.getpagesize()
    except (OSError, ValueError, IndexError):
        return 0
