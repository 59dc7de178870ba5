"""Where a device's time goes under load: py-spy's samples by part of the code."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from functools import cache
from pathlib import Path

from benchmarks.copies import ROOT

__all__ = ["parts_of", "start_profile"]

_SAMPLES_PER_S = 100
_LOOP = "event loop"
_WAITS = ("PyThread_acquire_lock", "pthread_cond_", "take_gil", "sem_", "epoll_")
_ROOMS = {
    "sip": "sip: messages, parser",
    "sdp": "sdp",
    "rewrite": "rewrite: rules",
    "transaction": "transaction",
    "dialog": "dialog",
    "b2bua": "b2bua: calls, mapping",
    "audit": "audit: events, logs",
    "transport": "transport, runtime, kernel",
    "runtime": "transport, runtime, kernel",
    "storage": "storage: call store",
    "admin": "admin: counts, pages",
}


def start_profile(pid: int, seconds: float, native: bool, out: Path) -> subprocess.Popen[bytes]:
    """Have py-spy sample a process for some seconds; `native` sees compiled code too."""
    command = [str(Path(sys.executable).with_name("py-spy")), "record", "--pid", str(pid), "--format", "raw"]
    command += ["--duration", str(max(1, round(seconds))), "--rate", str(_SAMPLES_PER_S), "--output", str(out)]
    if native:
        command.append("--native")
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def parts_of(samples: str) -> dict[str, float]:
    """The share of each part: a sample belongs to the innermost function of ours on its stack.

    `samples` is py-spy's raw format: a line for each stack, its frames from the outermost inwards, and a count. Threads
    that wait cost nothing; with compiled code py-spy does not tell them from others by itself.
    """
    counts: Counter[str] = Counter()
    for line in samples.splitlines():
        stack, _, count = line.rpartition(" ")
        frames = stack.split(";")
        if not any(frame.startswith(_WAITS) for frame in frames):
            counts[_part(frames)] += int(count)
    total = sum(counts.values())
    return {part: round(count / total, 4) for part, count in counts.most_common()}


def _part(frames: list[str]) -> str:
    for frame in reversed(frames):
        room = _room(frame)
        if room in _ROOMS:
            return _ROOMS[room]
    return _LOOP


def _room(frame: str) -> str:
    """The package below `proxy` that a frame is in.

    It is `name (proxy/sip/message.py:12)`, or a name that mypyc made: `CPyDef_`, the module (with its package where
    two have the same name), the class and the function, with three underscores between them.
    """
    name, _, place = frame.partition(" (")
    if place.startswith("proxy/"):
        return place.removeprefix("proxy/").partition("/")[0].partition(".")[0]
    for mark in ("CPyDef_", "CPyPy_"):
        if name.startswith(mark):
            module = name.removeprefix(mark).partition("___")[0]
            return module if module in _ROOMS else _packages().get(module, "")
    return ""


@cache
def _packages() -> dict[str, str]:
    """The package of each module, by the module's name."""
    return {path.stem: path.parent.name for room in _ROOMS for path in (ROOT / "proxy" / room).glob("*.py")}
