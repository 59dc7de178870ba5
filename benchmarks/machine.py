"""What the kernel says: CPU time and memory of process trees, how busy the machine is, and which machine it is."""

from __future__ import annotations

import contextlib
import os
import platform
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Busy", "Usage", "describe", "memory_bytes", "usage"]

_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Usage:
    """CPU time in seconds: in user mode and in the kernel."""

    user_s: float = 0.0
    system_s: float = 0.0

    @property
    def total_s(self) -> float:
        """Both."""
        return self.user_s + self.system_s

    def __sub__(self, other: Usage) -> Usage:
        return Usage(self.user_s - other.user_s, self.system_s - other.system_s)


def _tree(pid: int) -> list[int]:
    """A process and all below it."""
    found = [pid]
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            for child in task.read_text().split():
                found.extend(_tree(int(child)))
    return found


def usage(pid: int) -> Usage:
    """CPU time of a process tree, ended children included."""
    user = system = 0
    for member in _tree(pid):
        with contextlib.suppress(OSError):
            fields = Path(f"/proc/{member}/stat").read_text().rpartition(")")[2].split()
            user += int(fields[11])
            system += int(fields[12])
            if member == pid:
                user += int(fields[13])
                system += int(fields[14])
    return Usage(user / _TICKS, system / _TICKS)


def memory_bytes(pid: int) -> int:
    """The memory of a process tree: what is shared counts once (PSS)."""
    total = 0
    for member in _tree(pid):
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{member}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    total += int(line.split()[1]) * 1024
    return total


class Busy:
    """How busy the machine was from the making of this object on."""

    def __init__(self) -> None:
        self._busy, self._all = self._read()

    @staticmethod
    def _read() -> tuple[float, float]:
        """Seconds of all cores: busy, and in all. What a hypervisor took counts as busy."""
        fields = [int(field) for field in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
        return (sum(fields) - fields[3] - fields[4]) / _TICKS, sum(fields) / _TICKS

    def since(self) -> tuple[float, float]:
        """Seconds of all cores since then: busy, and in all."""
        busy, every = self._read()
        return busy - self._busy, every - self._all


def describe() -> dict[str, object]:
    """What the figures were taken on."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.partition(":")[2].strip() for line in lines if "model name" in line), platform.processor())
    memory = next(line for line in Path("/proc/meminfo").read_text().splitlines() if line.startswith("MemTotal"))
    return {
        "cpu": model,
        "cores": os.cpu_count(),
        "memory_gb": round(int(memory.split()[1]) / 2**20),
        "kernel": platform.release(),
        "python": platform.python_version(),
    }
