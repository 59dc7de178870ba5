"""One run of load: SIPp caller → device → SIPp callee on loopback, and what it cost."""

from __future__ import annotations

import contextlib
import csv
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from benchmarks.devices import HOST, Device, Place, free_ports
from benchmarks.machine import Busy, Usage, memory_bytes, usage
from benchmarks.parts import parts_of, start_profile
from benchmarks.sniffer import Sniffer
from proxy.sim.certificates import make_certificate

__all__ = ["SHARES", "Load", "LoadError", "Result", "percentiles", "run_load"]

SCENARIOS = Path(__file__).resolve().parent / "scenarios"
SHARES = (1, 5, *range(10, 95, 5), 95, 96, 97, 98, 99, 99.5, 99.9)
"""The percentiles that are kept of each run."""
_WARM_UP_CALLS = 20
_WARM_UP_RATE = 40
_HELD_RATE = 400
_ALL_TRANSACTIONS_OVER_S = 35.0  # 64*T1 and a little
_STUNNEL = """foreground = yes
pid =
debug = notice
socket = l:TCP_NODELAY=1
socket = r:TCP_NODELAY=1
[callee]
accept = {host}:{tls}
connect = {host}:{callee}
cert = {certificate}
key = {key}
"""


class LoadError(Exception):
    """A run that could not be done; the text says why."""


@dataclass(frozen=True, slots=True)
class Load:
    """What to place.

    Attributes:
        rate: calls a second. seconds: how long calls are placed.
        talk_ms: from the answer to the BYE.
        hold: instead: place so many calls, keep them, and take the memory once their transactions have ended.
        beside: calls that are in progress already while the load is placed.
        profile: have py-spy look at the device meanwhile, which makes it slower.
    """

    rate: float
    seconds: float
    talk_ms: int = 200
    hold: int = 0
    beside: int = 0
    profile: bool = False


@dataclass
class Result:
    """What one run gave.

    Attributes:
        failed: as the caller counted. retransmitted: of all three, the device's INVITEs alone.
        per_second: calls that were really placed a second.
        cpu_ms: user + system time of the device's whole process tree per completed call; the kernel's share of it is
            `system_ms`.
        cpu_share: the same as a share of one core while calls were placed.
        generator_share: what the two SIPps used of one core.
        others_share: what everything else used of the whole machine. Above a few percent the figures are not fair.
        added_ms: from the caller's INVITE to the callee's; percentiles, see `SHARES`.
        ringing_ms: from the caller's INVITE to its 180; likewise.
        bytes_per_call: memory per call in progress, where calls were held.
        connections: TLS connections that the target took, where it spoke TLS.
        parts: the share of the time by part of the code, where that was looked at.
    """

    device: str
    rate: float
    calls: int
    completed: int = 0
    failed: int = 0
    retransmitted: int = 0
    per_second: float = 0.0
    cpu_ms: float = 0.0
    system_ms: float = 0.0
    cpu_share: float = 0.0
    generator_share: float = 0.0
    others_share: float = 0.0
    bytes_per_call: float = 0.0
    connections: int = 0
    parts: dict[str, float] = field(default_factory=dict)
    added_ms: dict[str, float] = field(default_factory=dict)
    ringing_ms: dict[str, float] = field(default_factory=dict)

    @property
    def all_answered(self) -> bool:
        """Whether every call completed."""
        return self.completed == self.calls and not self.failed

    @property
    def rate_held(self) -> bool:
        """Whether the generator placed calls as fast as it should."""
        return self.per_second >= 0.95 * self.rate

    def to_dict(self) -> dict[str, object]:
        """All fields, rounded."""
        return {name: round(value, 4) if isinstance(value, float) else value for name, value in asdict(self).items()}


def percentiles(figures: Sequence[float]) -> dict[str, float]:
    """The figures that so many percent of the others do not exceed, by `SHARES`."""
    ordered = sorted(figures)
    if not ordered:
        return {}
    return {str(share): round(ordered[min(len(ordered) - 1, int(len(ordered) * share / 100))], 4) for share in SHARES}


class _Bench:
    """The processes of one run. All of them are ended with the `with` block."""

    def __init__(self, device: Device, copies: Path) -> None:
        self._stack = contextlib.ExitStack()
        self._device = device
        self._copies = copies
        self.generator = Usage()

    def __enter__(self) -> _Bench:
        cwd = self._stack.enter_context(tempfile.TemporaryDirectory(prefix="trunkline-bench-"))
        self.cwd = Path(cwd)
        made = make_certificate(self.cwd, ["localhost"]) if self._device.tls else None
        ports = free_ports()
        self.place = Place(ports, self.cwd, self._copies, made.ca_file if made is not None else Path())
        try:
            self.process = self._device.start(self.place, self.cwd / "device.log")
            self._stack.callback(_end, self.process)
            self._wait_port("udp", ports.device, self.process, "device.log")
            time.sleep(0.5)
            transport = "t1" if self._device.tls else "u1"
            counted = ("-trace_stat", "-stf", "callee.csv", "-fd", "1")
            self.callee = self._sipp("callee", "-p", str(ports.callee), "-t", transport, *counted)
            self._wait_port("tcp" if self._device.tls else "udp", ports.callee, self.callee, "callee.log")
            if made is not None:
                config = self.cwd / "stunnel.conf"
                config.write_text(
                    _STUNNEL.format(
                        host=HOST, tls=ports.tls, callee=ports.callee, certificate=made.certificate, key=made.key
                    )
                )
                stunnel = self._start("stunnel.log", "stunnel", str(config))
                self._wait_port("tcp", ports.tls, stunnel, "stunnel.log")
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _start(self, log: str, *command: str) -> subprocess.Popen[bytes]:
        with (self.cwd / log).open("wb") as out:
            process = subprocess.Popen(
                command, cwd=self.cwd, stdout=out, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL
            )
        self._stack.callback(_kill, process)
        return process

    def _sipp(self, name: str, *arguments: str) -> subprocess.Popen[bytes]:
        scenario = str(SCENARIOS / f"{name.partition('-')[0]}.xml")
        local = ("-i", HOST, "-mi", HOST, "-nostdin", "-trace_err")
        return self._start(f"{name}.log", "sipp", "-sf", scenario, *local, *arguments)

    def call(self, rate: float, calls: int, *more: str, name: str = "caller", port: int = 0) -> subprocess.Popen[bytes]:
        """Start a caller."""
        ports = self.place.ports
        local = ("-p", str(port or ports.caller), "-t", "u1", f"{HOST}:{ports.device}")
        return self._sipp(name, *local, "-r", str(rate), "-m", str(calls), "-l", "1000000", *more)

    def wait(self, caller: subprocess.Popen[bytes], timeout_s: float) -> None:
        """Wait until a caller is done, and count what it used; one that is not in time is ended."""
        until = time.monotonic() + timeout_s
        while True:
            pid, status, used = os.wait4(caller.pid, os.WNOHANG)
            if pid:
                caller.returncode = os.waitstatus_to_exitcode(status)
                self.generator = Usage(used.ru_utime, used.ru_stime)
                return
            if time.monotonic() > until:
                caller.kill()
            time.sleep(0.02)

    def connections(self) -> int:
        """TLS connections that the target took."""
        log = self.cwd / "stunnel.log"
        return log.read_text(errors="replace").count("accepted connection") if log.exists() else 0

    def _wait_port(self, kind: str, port: int, process: subprocess.Popen[bytes], log: str) -> None:
        """Wait until somebody has bound a port. Raises LoadError."""
        wanted = f":{port:04X} "
        until = time.monotonic() + 30
        while time.monotonic() < until and process.poll() is None:
            if wanted in Path(f"/proc/net/{kind}").read_text():
                return
            time.sleep(0.05)
        said = (self.cwd / log).read_text(errors="replace")[-2000:].strip()
        state = "does not listen" if process.poll() is None else f"ended with {process.returncode}"
        raise LoadError(f"{log.removesuffix('.log')} of {self._device.name} {state}: {said}")


def run_load(device: Device, load: Load, copies: Path, patience_s: float = 12.0) -> Result:
    """Start the device, place calls at a rate, end it.

    `patience_s`: how long calls may go on after the last one was placed; those that do are failed. Raises LoadError.
    """
    calls = load.hold or max(1, round(load.rate * load.seconds))
    result = Result(device.name, load.rate, calls)
    with _Bench(device, copies) as bench:
        ports = bench.place.ports
        warm_up = bench.call(_WARM_UP_RATE, _WARM_UP_CALLS, "-d", "50", "-timeout", "15", name="caller-first")
        bench.wait(warm_up, 30)
        if load.beside:
            held = ("-d", "3600000", "-timeout", "3600")
            bench.call(_HELD_RATE, load.beside, *held, name="caller-beside", port=ports.caller + 1)
            time.sleep(load.beside / _HELD_RATE + 1.0)
        sniffer = Sniffer(ports.device, ports.callee, ports.caller)
        sniffer.start()
        empty, busy, callee = memory_bytes(bench.process.pid), Busy(), usage(bench.callee.pid)
        began = usage(bench.process.pid)
        limit_s = calls / load.rate + patience_s
        statistics = ("-trace_stat", "-stf", "caller.csv", "-fd", "1")
        caller = bench.call(load.rate, calls, "-d", str(3_600_000 if load.hold else load.talk_ms), *statistics)
        if load.hold:
            time.sleep(calls / load.rate + _ALL_TRANSACTIONS_OVER_S)
            result.bytes_per_call = (memory_bytes(bench.process.pid) - empty) / calls
        else:
            samples = bench.cwd / "samples.txt"
            profiler = start_profile(bench.process.pid, load.seconds, device.native, samples) if load.profile else None
            bench.wait(caller, limit_s)
            if profiler is not None:
                profiler.wait(30)
                result.parts = parts_of(samples.read_text()) if samples.exists() else {}
        used = usage(bench.process.pid) - began
        alive = bench.process.poll() is None
        generators = bench.generator.total_s + (usage(bench.callee.pid) - callee).total_s
        all_busy, all_s = busy.since()
        seen = sniffer.stop()
        result.connections = bench.connections()
        _read_sipp(bench.cwd, result)
    if not alive:
        raise LoadError(f"{device.name} died")
    if caller.returncode:
        result.failed = calls - result.completed
    if load.hold:
        result.completed = len(seen.ringing_ms) if seen.ringing_ms else calls
    result.retransmitted += seen.repeated
    result.per_second = seen.per_second
    result.cpu_ms = used.total_s * 1e3 / max(result.completed, 1)
    result.system_ms = used.system_s * 1e3 / max(result.completed, 1)
    result.cpu_share = used.total_s / (calls / load.rate)
    result.generator_share = generators / (calls / load.rate)
    result.others_share = max(0.0, all_busy - used.total_s - generators) / all_s if all_s else 0.0
    result.added_ms, result.ringing_ms = percentiles(seen.added_ms), percentiles(seen.ringing_ms)
    return result


def _read_sipp(folder: Path, result: Result) -> None:
    """What caller and callee counted, by their last lines of statistics; the callee's may be a second old."""
    caller, callee = (_last_row(folder / f"{name}.csv") for name in ("caller", "callee"))
    result.completed = int(caller.get("SuccessfulCall(C)", 0))
    result.failed = int(caller.get("FailedCall(C)", 0))
    result.retransmitted = sum(int(row.get("Retransmissions(C)", 0)) for row in (caller, callee))


def _last_row(statistics: Path) -> dict[str, str]:
    if not statistics.exists():
        return {}
    with statistics.open(newline="") as lines:
        rows = list(csv.DictReader(lines, delimiter=";"))
    return rows[-1] if rows else {}


def _kill(process: subprocess.Popen[bytes]) -> None:
    if process.returncode is None:
        process.kill()
        process.wait()


def _end(process: subprocess.Popen[bytes], timeout_s: float = 5.0) -> None:
    """End a process and the group that it leads."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    try:
        process.wait(timeout_s)
    except subprocess.TimeoutExpired:
        pass
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
