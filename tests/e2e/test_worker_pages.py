"""One set of pages for all workers: metrics, health, live numbers, and webhooks that reach the worker with the call."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

from proxy.sim.openai import OpenAiConfig, OpenAiSim
from tests.admin.test_app import ask
from tests.admin.test_process import SECRET, TOKEN, Caller, application, settings
from tests.e2e.test_workers import FLAGS, workers_of
from tests.support.processes import Trunkline, free_port, running_trunkline

CALLS = 8


def until(what: str, holds: Callable[[], bool]) -> None:
    """Wait for something."""
    end = time.monotonic() + 15
    while not holds():
        assert time.monotonic() < end, what
        time.sleep(0.05)


class Pages:
    """What a process shows."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}/"

    def live(self) -> dict[str, Any]:
        found: dict[str, Any] = ask(self.url, "/api/live", Authorization=f"Bearer {TOKEN}").json()
        return found

    def metrics(self) -> dict[str, float]:
        lines = [line for line in ask(self.url, "/metrics").text.splitlines() if not line.startswith("#")]
        return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}

    def counters(self) -> dict[str, float]:
        names = ("_total", "_bucket", "_count")
        return {name: value for name, value in self.metrics().items() if name.partition("{")[0].endswith(names)}

    def readiness(self) -> int:
        return ask(self.url, "/readyz").status


def pages_process(proxy: Trunkline) -> int:
    """The process beside the workers: it was started last."""
    return workers_of(proxy)[-1]


def place_calls(proxy: Trunkline, stack: ExitStack) -> list[Caller]:
    """Calls that both workers have some of, all in progress."""
    callers: list[Caller] = []
    while len(callers) < CALLS or len(owners(proxy)) < 2:
        assert len(callers) < 40
        caller = stack.enter_context(closing(Caller(proxy.port, len(callers))))
        caller.call()
        callers.append(caller)
        proxy.wait_for("call-answered", len(callers))
    return callers


def owners(proxy: Trunkline) -> Counter[str]:
    """How many answered calls each worker had."""
    return Counter(event["call"][0] for event in proxy.events() if event["event"] == "call-answered")


def look(proxy: Trunkline, pages: Pages) -> None:
    """Place calls, kill a worker and the pages, drain."""
    with ExitStack() as stack:
        until("ready", lambda: pages.readiness() == 200)
        callers = place_calls(proxy, stack)
        count = len(callers)
        until("all calls are shown", lambda: pages.live()["calls_in_progress"] == count)
        per_worker = [worker["calls"] for worker in pages.live()["workers"]]
        assert sum(per_worker) == count
        assert per_worker == [owners(proxy)["0"], owners(proxy)["1"]]
        until("webhooks are counted", lambda: pages.metrics()['trunkline_webhooks_total{result="answered"}'] == count)
        assert pages.metrics()["trunkline_setup_seconds_count"] == count
        assert pages.metrics()["trunkline_ready"] == 1
        before = pages.counters()

        os.kill(pages_process(proxy), signal.SIGKILL)
        until("the pages are back", lambda: len(workers_of(proxy)) == 3)
        assert_grown(before, pages.counters())

        os.kill(workers_of(proxy)[1], signal.SIGKILL)
        until("the loss is shown", lambda: pages.live()["calls_in_progress"] == per_worker[0])
        until("its successor works", lambda: all(worker["up"] for worker in pages.live()["workers"]))
        after = pages.counters()
        assert_grown(before, after)
        assert after['trunkline_worker_restarts_total{worker="1"}'] == 1
        assert pages.readiness() == 200

        proxy.process.send_signal(signal.SIGTERM)
        until("not ready", lambda: pages.readiness() == 503)
        assert ask(pages.url, "/healthz").status == 200
        assert pages.metrics()["trunkline_ready"] == 0
        for caller in callers:
            if caller.owner == "0":
                caller.hang_up()
    assert proxy.process.wait(15) == 0


def assert_grown(before: dict[str, float], after: dict[str, float]) -> None:
    """No counter fell."""
    fallen = {name: (value, after.get(name)) for name, value in before.items() if after.get(name, -1.0) < value}
    assert fallen == {}


async def test_two_workers_are_shown_as_one(tmp_path: Path) -> None:
    admin, tap = free_port(), free_port()
    async with application() as (app_url, api):
        config = OpenAiConfig(
            listen=("udp:127.0.0.1:0",),
            http="127.0.0.1:0",
            webhook_url=f"http://127.0.0.1:{tap}/webhook",
            webhook_secret=SECRET,
        )
        async with OpenAiSim(config) as openai:
            api.append(openai.http_url)
            target = f"sip:proj_x@127.0.0.1:{openai.listeners[0].port};transport=udp"
            yaml = settings(admin, tap, app_url, tmp_path / "calls.db")
            with running_trunkline(tmp_path, target, *FLAGS, config=yaml) as proxy:
                await asyncio.to_thread(look, proxy, Pages(admin))
    events = proxy.events()
    answered = {event["call"] for event in events if event["event"] == "call-answered"}
    webhooks = {event.get("call") for event in events if event["event"] == "webhook"}
    assert webhooks == answered, "each webhook was told to the worker that has its call"
