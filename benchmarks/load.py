"""One run of load: SIPp caller → device → SIPp callee on loopback, and what it cost."""

from __future__ import annotations

import contextlib
import csv
import ctypes
import os
import select
import signal
import socket
import struct
import subprocess
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.devices import CALLEE_PORT, CALLER_PORT, DEVICE_PORT, HOST, Device

__all__ = ["Result", "cpu_s", "memory_bytes", "percentile", "run_load"]

SCENARIOS = Path(__file__).resolve().parent / "scenarios"
_TICKS = os.sysconf("SC_CLK_TCK")
_ETH_P_IP = 0x0800
_SO_ATTACH_FILTER = 26
_SO_TIMESTAMPNS = 35
_INVITE = 0x494E5649  # "INVI"


@dataclass
class Result:
    """What one run gave.

    Attributes:
        cpu_ms: user + system time of the device's whole process tree per completed call.
        cpu_share: the same as a share of one core while calls were placed.
        added_ms: from the caller's INVITE to the callee's, one figure a call.
        ringing_ms: from the caller's INVITE to its 180, as SIPp saw it.
        bytes_per_call: memory per call in progress, where calls were held.
    """

    device: str
    rate: float
    calls: int
    completed: int = 0
    failed: int = 0
    retransmitted: int = 0
    cpu_ms: float = 0.0
    cpu_share: float = 0.0
    seconds: float = 0.0
    bytes_per_call: float = 0.0
    added_ms: list[float] = field(default_factory=list)
    ringing_ms: list[float] = field(default_factory=list)

    @property
    def clean(self) -> bool:
        """Whether every call completed and nothing was sent twice."""
        return self.completed == self.calls and not self.failed and not self.retransmitted

    def summary(self) -> dict[str, object]:
        """The figures without the lists."""
        out: dict[str, object] = {
            name: value for name, value in vars(self).items() if name not in ("added_ms", "ringing_ms")
        }
        for name, figures in (("added", self.added_ms), ("ringing", self.ringing_ms)):
            for share in (50, 95, 99):
                out[f"{name}_p{share}_ms"] = round(percentile(figures, share), 3) if figures else None
        out["clean"] = self.clean
        return out


def percentile(figures: list[float], share: float) -> float:
    """The figure that `share` percent of the others do not exceed."""
    ordered = sorted(figures)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share / 100))]


def _tree(pid: int) -> list[int]:
    """A process and all below it."""
    found = [pid]
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            for child in task.read_text().split():
                found.extend(_tree(int(child)))
    return found


def cpu_s(pid: int) -> float:
    """User + system time of a process tree in seconds, ended children included."""
    total = 0
    for member in _tree(pid):
        with contextlib.suppress(OSError):
            fields = Path(f"/proc/{member}/stat").read_text().rpartition(")")[2].split()
            total += int(fields[11]) + int(fields[12])
            if member == pid:
                total += int(fields[13]) + int(fields[14])
    return total / _TICKS


def memory_bytes(pid: int) -> int:
    """The memory of a process tree: what is shared counts once (PSS)."""
    total = 0
    for member in _tree(pid):
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{member}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    total += int(line.split()[1]) * 1024
    return total


class _Sniffer(threading.Thread):
    """Notes when each INVITE was on the wire, to the device and to the callee, by the kernel's clock."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.towards: dict[int, dict[str, float]] = {DEVICE_PORT: {}, CALLEE_PORT: {}}
        self._stop_fd, self._wake_fd = os.pipe()
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(_ETH_P_IP))
        # Only datagrams that begin with "INVI", 28 bytes into the packet: load, compare, take or leave.
        code = struct.pack("HBBIHBBIHBBIHBBI", 0x20, 0, 0, 28, 0x15, 0, 1, _INVITE, 0x06, 0, 0, 0x40000, 0x06, 0, 0, 0)
        program = ctypes.create_string_buffer(code)
        self._socket.setsockopt(
            socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("HxxxxxxP", 4, ctypes.addressof(program))
        )
        self._socket.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
        self._socket.bind(("lo", _ETH_P_IP))

    def run(self) -> None:
        while True:
            ready, _, _ = select.select([self._socket.fileno(), self._stop_fd], [], [])
            if self._stop_fd in ready:
                return
            data, extra, _, _ = self._socket.recvmsg(2048, 64)
            if not extra:
                continue
            seen = self.towards.get(int.from_bytes(data[22:24], "big"))
            at = data.find(b"+1555900")
            if seen is None or at < 0:
                continue
            number = data[at : at + 20].partition(b"@")[0].decode()
            seconds, nanos = struct.unpack("qq", extra[0][2][:16])
            seen.setdefault(number, seconds + nanos / 1e9)

    def stop(self) -> list[float]:
        """The time from the first INVITE to the second in ms, for each call."""
        os.write(self._wake_fd, b"x")
        self.join()
        self._socket.close()
        os.close(self._wake_fd)
        os.close(self._stop_fd)
        first, second = self.towards[DEVICE_PORT], self.towards[CALLEE_PORT]
        return [(second[number] - began) * 1e3 for number, began in first.items() if number in second]


def _sipp(*arguments: str, cwd: Path, log: str) -> subprocess.Popen[bytes]:
    with (cwd / log).open("wb") as out:
        return subprocess.Popen(
            ["sipp", *arguments, "-nostdin", "-trace_err"],
            cwd=cwd,
            stdout=out,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
        )


def _wait_port(port: int, timeout_s: float) -> None:
    """Wait until somebody has bound a UDP port of ours."""
    wanted = f":{port:04X} "
    until = time.monotonic() + timeout_s
    while time.monotonic() < until:
        if wanted in Path("/proc/net/udp").read_text():
            return
        time.sleep(0.05)
    raise TimeoutError(f"nothing listens on UDP port {port}")


def end(process: subprocess.Popen[bytes], timeout_s: float = 5.0) -> None:
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


def run_load(
    device: Device, rate: float, seconds: float, *, talk_ms: int = 200, sniff: bool = True, hold: int = 0
) -> Result:
    """Start the device, place calls at a rate, end it.

    With `hold` so many calls are placed and kept; memory is taken once their transactions have ended, 33 s later.
    """
    calls = hold or round(rate * seconds)
    result = Result(device.name, rate, calls)
    with tempfile.TemporaryDirectory(prefix="trunkline-bench-") as folder:
        cwd = Path(folder)
        process = device.start(cwd / "device.log")
        callee = caller = None
        try:
            try:
                _wait_port(DEVICE_PORT, 20)
            except TimeoutError as error:
                said = (cwd / "device.log").read_text(errors="replace")[-2000:]
                raise TimeoutError(f"{device.name} does not listen: {said}") from error
            time.sleep(1.0)
            local = ("-i", HOST, "-mi", HOST)
            to_callee = ("-p", str(CALLEE_PORT), "-t", device.transport)
            callee = _sipp("-sf", str(SCENARIOS / "callee.xml"), *local, *to_callee, cwd=cwd, log="callee.log")
            _wait_port(CALLEE_PORT, 10)
            sniffer = _Sniffer() if sniff else None
            if sniffer is not None:
                sniffer.start()
            before, empty, began = cpu_s(process.pid), memory_bytes(process.pid), time.monotonic()
            limit_s = 600 if hold else int(seconds) + 40
            caller = _sipp(
                *("-sf", str(SCENARIOS / "caller.xml"), *local, "-p", str(CALLER_PORT), "-t", "u1"),
                *(f"{HOST}:{DEVICE_PORT}", "-r", str(rate), "-m", str(calls), "-l", "1000000"),
                *("-d", str(3_600_000 if hold else talk_ms), "-timeout", str(limit_s)),
                *("-trace_rtt", "-rtt_freq", "1", "-trace_stat", "-fd", "1"),
                cwd=cwd,
                log="caller.log",
            )
            if hold:
                time.sleep(calls / rate + 35)
                result.bytes_per_call = (memory_bytes(process.pid) - empty) / calls
            else:
                caller.wait(seconds + 60)
            result.seconds = time.monotonic() - began
            spent = cpu_s(process.pid) - before
            if sniffer is not None:
                result.added_ms = sniffer.stop()
            _read_sipp(cwd, result)
            if hold:
                result.completed = calls
            result.cpu_ms = spent * 1e3 / max(result.completed, 1)
            result.cpu_share = spent / (calls / rate)
        finally:
            for one in (caller, callee):
                if one is not None and one.poll() is None:
                    one.kill()
                    one.wait()
            end(process)
    return result


def _read_sipp(cwd: Path, result: Result) -> None:
    """What the caller counted, by its last line of statistics."""
    for path in cwd.glob("caller_*_.csv"):
        with path.open(newline="") as lines:
            rows = list(csv.DictReader(lines, delimiter=";"))
        if rows:
            last = rows[-1]
            result.completed = int(last["SuccessfulCall(C)"])
            result.failed = int(last["FailedCall(C)"])
            result.retransmitted = int(last["Retransmissions(C)"])
    for path in cwd.glob("caller_*_rtt.csv"):
        for line in path.read_text().splitlines()[1:]:
            fields = line.split(";")
            if len(fields) >= 2:
                result.ringing_ms.append(float(fields[1]))
