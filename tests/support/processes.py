"""Real processes on loopback: Trunkline by its own command line, and SIPp as an independent peer."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import cycle
from pathlib import Path
from typing import Any

__all__ = ["SIPP_SCENARIOS", "Sipp", "Trunkline", "free_port", "run_sipp", "running_trunkline"]

SIPP_SCENARIOS = Path(__file__).parents[1] / "sipp"
_READY_S = 30.0
_SIPP_LIMIT_S = 60
_WORKERS = 4
_PORTS = 2500


def _candidates(first: int, step: int) -> Iterator[int]:
    """Ports below those that the system gives out by itself, one after the other from a random one on, so that what was
    found free stays so until it is bound. Parallel test processes have each their own."""
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % _WORKERS
    first += worker * _PORTS
    ports = range(first, first + _PORTS, step)
    at = random.randrange(len(ports))
    return cycle([*ports[at:], *ports[:at]])


_SIP_PORTS = _candidates(20_000, 1)
_MEDIA_PORTS = _candidates(10_000, 4)


def free_port() -> int:
    """A port of 127.0.0.1 that is free for UDP and TCP now, and that nobody else gets soon."""
    return next(port for port in _SIP_PORTS if _is_free(port, socket.SOCK_STREAM) and _is_free(port, socket.SOCK_DGRAM))


def _is_free(port: int, kind: socket.SocketKind) -> bool:
    with socket.socket(socket.AF_INET, kind) as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


class Trunkline:
    """A running `trunkline run`.

    Attributes:
        port: where it listens by UDP and TCP on 127.0.0.1.
        events_file: what gets every event.
    """

    def __init__(self, process: subprocess.Popen[bytes], port: int, directory: Path) -> None:
        self.process = process
        self.port = port
        self.directory = directory
        self.events_file = directory / "events.jsonl"

    def events(self) -> list[dict[str, Any]]:
        """What it has recorded so far."""
        return [json.loads(line) for line in self.events_file.read_text().splitlines()]

    def wait_for(self, kind: str, count: int, limit_s: float = 10.0) -> list[dict[str, Any]]:
        """The events of one kind, once there are `count` of them."""
        end = time.monotonic() + limit_s
        while True:
            found = [event for event in self.events() if event["event"] == kind]
            if len(found) >= count:
                return found
            assert time.monotonic() < end, f"{len(found)} of {count} {kind} events after {limit_s} s"
            time.sleep(0.05)

    def output(self) -> str:
        """What it has printed."""
        return (self.directory / "output.txt").read_text()


@contextmanager
def running_trunkline(
    directory: Path,
    target: str,
    *flags: str,
    config: str = "",
    port: int | None = None,
    rules: str = "twilio-openai",
    allow: str = "127.0.0.0/8",
    log_level: str = "warning",
) -> Iterator[Trunkline]:
    """Run Trunkline on loopback towards `target`; `config` is YAML. Fails when it does not start or not stop.

    An empty `target`, `allow` or `log_level` leaves that to `config`.
    """
    port = port or free_port()
    arguments = [
        *(["--target", target] if target else []),
        *(["--allow", allow] if allow else []),
        *(["--log-level", log_level] if log_level else []),
    ]
    if not any(flag == "--listen" for flag in flags):
        arguments += ["--listen", f"udp:127.0.0.1:{port}", "--listen", f"tcp:127.0.0.1:{port}"]
    if config:
        (directory / "trunkline.yaml").write_text(config)
        arguments += ["--config", str(directory / "trunkline.yaml")]
    if rules:
        arguments += ["--rules", f"rules/{rules}.yaml"]
    with (directory / "output.txt").open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "proxy", "run", *arguments, *_files(directory), *flags],
            cwd=Path(__file__).parents[2],
            stdout=output,
            stderr=subprocess.STDOUT,
            # One process, unless a test asks for more: it starts more quickly, and events come in order.
            env={"TRUNKLINE_WORKERS": "1", **os.environ, "PYTHONUNBUFFERED": "1"},
        )
    running = Trunkline(process, port, directory)
    try:
        _wait_until_up(running)
        yield running
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        try:
            code = process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise
    assert code == 0, f"exit code {code}: {running.output()}"
    assert "Traceback" not in running.output()


def _files(directory: Path) -> tuple[str, ...]:
    """Flags that have it write into a directory of the test, and nowhere else."""
    return "--events", str(directory / "events.jsonl"), "--store", str(directory / "calls.db")


def _wait_until_up(running: Trunkline) -> None:
    end = time.monotonic() + _READY_S
    while time.monotonic() < end:
        assert running.process.poll() is None, running.output()
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            if probe.connect_ex(("127.0.0.1", running.port)) == 0:
                return
        time.sleep(0.05)
    raise AssertionError(f"not up after {_READY_S} s: {running.output()}")


class Sipp:
    """One SIPp process.

    Args:
        scenario: the file.
        place: the directory that it writes to.
        port: its own.
        calls: after how many it ends.
        transport: "udp" or "tcp".
        address: its own. limit_s: how long it may take.
        tail: more for its command line.
    """

    def __init__(
        self,
        sipp: str,
        scenario: Path,
        place: Path,
        port: int,
        calls: int,
        transport: str,
        *tail: str,
        address: str = "127.0.0.1",
        limit_s: int = _SIPP_LIMIT_S,
    ) -> None:
        place.mkdir(exist_ok=True, parents=True)
        self.place = place
        self._limit_s = limit_s
        mode = {"udp": "u1", "tcp": "t1"}[transport]
        command = [sipp, "-sf", str(scenario), "-m", str(calls), "-p", str(port), "-i", address, "-t", mode]
        command += ["-nostdin", "-trace_err", "-timeout", str(limit_s), "-mp", str(_media_port()), *tail]
        with (place / "output.txt").open("wb") as output:
            self.process = subprocess.Popen(command, cwd=place, stdout=output, stderr=subprocess.STDOUT)

    @classmethod
    def callee(
        cls,
        sipp: str,
        scenario: Path,
        place: Path,
        port: int,
        calls: int,
        transport: str,
        *tail: str,
        limit_s: int = _SIPP_LIMIT_S,
    ) -> Sipp:
        """One that waits for calls, and listens already."""
        running = cls(sipp, scenario, place, port, calls, transport, *tail, limit_s=limit_s)
        _wait_for_bind(port, transport)
        return running

    def finish(self) -> None:
        """Wait until it ends; fails unless it was content with every call."""
        try:
            code = self.process.wait(self._limit_s + 10)
        except subprocess.TimeoutExpired:
            code = -1
        errors = [path.read_text(errors="replace")[:3000] for path in self.place.glob("*errors.log")]
        assert code == 0, "\n".join([f"SIPp as {self.place.name} ended with {code}", *errors])

    def kill(self) -> None:
        """End it, whatever it does."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()


def run_sipp(
    sipp: str,
    directory: Path,
    *,
    caller: str,
    callee: str,
    proxy_port: int,
    callee_port: int,
    calls: int,
    rate: int,
    transport: str = "udp",
    callee_calls: int | None = None,
) -> None:
    """Place calls from one SIPp to another by way of the proxy; fails unless both are content with every call.

    `caller` and `callee` are names of scenarios in `tests/sipp`, or paths without their suffix.
    """
    files = [SIPP_SCENARIOS / f"{name}.xml" for name in (callee, caller)]
    running: list[Sipp] = []
    try:
        running.append(Sipp.callee(sipp, files[0], directory / "callee", callee_port, callee_calls or calls, transport))
        tail = ("-r", str(rate), f"127.0.0.1:{proxy_port}")
        running.append(Sipp(sipp, files[1], directory / "caller", free_port(), calls, transport, *tail))
        for one in reversed(running):
            one.finish()
    finally:
        for one in running:
            one.kill()


def _media_port() -> int:
    """The first of four ports that are free for UDP now."""
    return next(first for first in _MEDIA_PORTS if all(_is_free(first + at, socket.SOCK_DGRAM) for at in range(4)))


def _wait_for_bind(port: int, transport: str) -> None:
    """Wait until somebody holds the port."""
    kind = socket.SOCK_STREAM if transport == "tcp" else socket.SOCK_DGRAM
    end = time.monotonic() + 5
    while time.monotonic() < end:
        if not _is_free(port, kind):
            return
        time.sleep(0.02)
    raise AssertionError("SIPp does not listen")
