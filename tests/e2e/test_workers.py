"""Several workers on one port: calls are spread, messages find their owner, one that dies takes only its own."""

from __future__ import annotations

import contextlib
import signal
import socket
import time
from collections import Counter
from pathlib import Path

import pytest

from proxy.sim.openai import OpenAiConfig, OpenAiSim
from proxy.sim.twilio import TwilioConfig, place_calls
from tests.support.processes import Trunkline, free_port, running_trunkline

FLAGS = ("--workers", "2")
BUSY = "limits: {max_lag_s: 0}\n"
"""For tests with load: a machine that has other things to do as well is no reason to refuse calls."""


def workers_of(proxy: Trunkline) -> list[int]:
    """The process ids of the workers, oldest first."""
    pid = proxy.process.pid
    return [int(item) for item in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def owners(events: list[dict[str, object]]) -> Counter[str]:
    """How many calls each worker had."""
    return Counter(str(event["call"])[0] for event in events)


async def test_calls_of_one_caller_are_spread_and_every_message_finds_its_owner(tmp_path: Path) -> None:
    """Both neighbours send all that they send from one port each, which the kernel gives to one worker."""
    async with OpenAiSim(OpenAiConfig(listen=("udp:127.0.0.1:0",), answer_after_ms=20, call_ms=2500)) as openai:
        target = f"sip:proj_x@127.0.0.1:{openai.listeners[0].port};transport=udp"
        with running_trunkline(tmp_path, target, *FLAGS, config=BUSY) as proxy:
            assert len(workers_of(proxy)) == 2
            for hang_up in ("caller", "callee"):
                report = await place_calls(
                    TwilioConfig(
                        target=f"sip:127.0.0.1:{proxy.port}",
                        calls=30,
                        rate=30,
                        hold_ms=100,
                        hang_up=hang_up,
                        media_security="rtp",
                        seed=len(hang_up),
                    )
                )
                assert report.unexpected == {}
                assert {(one.kind, one.ended_by) for one in report.results} == {("answered", hang_up)}
            ends = proxy.wait_for("call-end", 60)
    assert {(event["outcome"], len(event["attempts"])) for event in ends} == {("answered", 1)}
    assert set(owners(ends)) == {"0", "1"}


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_no_worker_outlives_its_supervisor(number: signal.Signals, tmp_path: Path) -> None:
    seen: list[int] = []
    with contextlib.ExitStack() as stack:
        if number == signal.SIGKILL:
            stack.enter_context(pytest.raises(AssertionError, match="exit code -9"))
        proxy = stack.enter_context(running_trunkline(tmp_path, f"sip:127.0.0.1:{free_port()}", *FLAGS))
        seen += workers_of(proxy)
        proxy.process.send_signal(number)
        proxy.process.wait(10)
    end = time.monotonic() + 10
    while any(Path(f"/proc/{pid}").exists() and not is_zombie(pid) for pid in seen):
        assert time.monotonic() < end
        time.sleep(0.05)


def is_zombie(pid: int) -> bool:
    """Whether a process has ended, and nobody has asked for its exit code."""
    try:
        return ") Z " in Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return True


def test_an_address_that_is_in_use_ends_all(tmp_path: Path) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        target = f"sip:127.0.0.1:{free_port()}"
        # Something listens there already, so that it looks as if it were up.
        with (
            pytest.raises(AssertionError, match="exit code 2"),
            running_trunkline(tmp_path, target, *FLAGS, port=port) as proxy,
        ):
            assert proxy.process.wait(10) == 2
    assert "address already in use" in proxy.output().lower()
