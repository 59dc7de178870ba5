"""The timers of SIP transactions: their lengths, and one heap for all of a stack's deadlines.

Nothing here reads a clock. A deadline is a moment of the caller's monotonic clock, in seconds.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from heapq import heapify, heappop, heappush
from typing import Final

__all__ = ["Timer", "TimerHeap", "TimerSettings"]

_TIMER_D_MIN_S: Final = 32.0
_COMPACT_FROM: Final = 64


@dataclass(frozen=True, slots=True)
class TimerSettings:
    """T1, T2 and T4 in seconds, and the timers that follow from them (RFC 3261 table 4, RFC 6026 section 7).

    Attributes:
        t1_s: estimate of the round trip time, and the first retransmission interval.
        t2_s: the longest retransmission interval of non-INVITE requests and of responses to INVITE.
        t4_s: how long a message may stay in the network.

    Raises ValueError when one of them is not above zero, or T2 is shorter than T1.
    """

    t1_s: float = 0.5
    t2_s: float = 4.0
    t4_s: float = 5.0

    def __post_init__(self) -> None:
        if not (self.t1_s > 0 and self.t2_s > 0 and self.t4_s > 0):
            raise ValueError("T1, T2 and T4 must be longer than 0 s")
        if self.t2_s < self.t1_s:
            raise ValueError("T2 must not be shorter than T1")

    @property
    def timer_b_s(self) -> float:
        """How long an INVITE waits for a first response: 64*T1."""
        return 64 * self.t1_s

    @property
    def timer_d_s(self) -> float:
        """How long repeated failures of an INVITE are acknowledged over unreliable transports: at least 32 s."""
        return max(_TIMER_D_MIN_S, 64 * self.t1_s)

    @property
    def timer_f_s(self) -> float:
        """How long any other request waits for its final response: 64*T1."""
        return 64 * self.t1_s

    @property
    def timer_h_s(self) -> float:
        """How long a failure response to an INVITE waits for its ACK: 64*T1."""
        return 64 * self.t1_s

    @property
    def timer_i_s(self) -> float:
        """How long repeated ACKs are absorbed over unreliable transports: T4."""
        return self.t4_s

    @property
    def timer_j_s(self) -> float:
        """How long a repeated non-INVITE request is answered over unreliable transports: 64*T1."""
        return 64 * self.t1_s

    @property
    def timer_k_s(self) -> float:
        """How long repeated non-INVITE responses are absorbed over unreliable transports: T4."""
        return self.t4_s

    @property
    def timer_l_s(self) -> float:
        """How long an accepted INVITE absorbs its retransmissions: 64*T1 (RFC 6026 section 7.1)."""
        return 64 * self.t1_s

    @property
    def timer_m_s(self) -> float:
        """How long further 2xx responses to an INVITE reach the user: 64*T1 (RFC 6026 section 7.2)."""
        return 64 * self.t1_s


class Timer:
    """One deadline in a `TimerHeap`. Made by `TimerHeap.schedule`."""

    __slots__ = ("_callback", "_heap")

    def __init__(self, heap: TimerHeap, callback: Callable[[float], None]) -> None:
        self._heap = heap
        self._callback: Callable[[float], None] | None = callback

    @property
    def active(self) -> bool:
        """Whether it may still fire: neither fired nor cancelled."""
        return self._callback is not None

    def cancel(self) -> None:
        """Never fire. Does nothing when it has fired or was cancelled already."""
        if self._callback is not None:
            self._callback = None
            self._heap.note_cancelled()

    def take(self) -> Callable[[float], None] | None:
        """The callback, which then belongs to the caller; None when it has fired or was cancelled."""
        callback = self._callback
        self._callback = None
        return callback


class TimerHeap:
    """All deadlines of one stack, the earliest first."""

    __slots__ = ("_cancelled", "_entries", "_sequence")

    def __init__(self) -> None:
        self._entries: list[tuple[float, int, Timer]] = []
        self._sequence = 0
        self._cancelled = 0

    def __len__(self) -> int:
        """How many timers may still fire."""
        return len(self._entries) - self._cancelled

    @property
    def allocated(self) -> int:
        """How many entries the heap holds, cancelled ones that were not yet thrown away included."""
        return len(self._entries)

    def schedule(self, deadline: float, callback: Callable[[float], None]) -> Timer:
        """Call `callback(now)` in the first `run` that is not before `deadline`."""
        timer = Timer(self, callback)
        self._sequence = sequence = self._sequence + 1
        heappush(self._entries, (deadline, sequence, timer))
        return timer

    def deadlines(self) -> list[float]:
        """The deadlines of all active timers, the earliest first."""
        return sorted([entry[0] for entry in self._entries if entry[2].active])

    def next_deadline(self) -> float | None:
        """The earliest deadline of an active timer, or None."""
        entries = self._entries
        while entries:
            entry = entries[0]
            if entry[2].active:
                return entry[0]
            heappop(entries)
            self._cancelled -= 1
        return None

    def run(self, now: float) -> None:
        """Fire every timer whose deadline has come, ordered by deadline and then by scheduling.

        A callback may schedule and cancel; what it schedules for `now` or before fires in the same run. When a callback
        raises, its own timer has fired and the others stay.
        """
        entries = self._entries
        while entries and entries[0][0] <= now:
            callback = heappop(entries)[2].take()
            if callback is None:
                self._cancelled -= 1
            else:
                callback(now)

    def note_cancelled(self) -> None:
        """Count one cancelled timer, and throw the cancelled ones away once they are the majority."""
        self._cancelled = cancelled = self._cancelled + 1
        entries = self._entries
        if cancelled >= _COMPACT_FROM and cancelled * 2 > len(entries):
            entries[:] = [entry for entry in entries if entry[2].active]
            heapify(entries)
            self._cancelled = 0
