"""The timers of SIP transactions: their lengths, and one queue for all of a stack's deadlines.

Nothing here reads a clock. A deadline is a moment of the caller's monotonic clock, in seconds.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from heapq import heappop, heappush
from typing import Final

__all__ = ["Timer", "TimerQueue", "TimerSettings"]

_TIMER_D_MIN_S: Final = 32.0
_COMPACT_FROM: Final = 64
_TRIM_FROM: Final = 32
_MAX_LANES: Final = 12
_LONG_AGO: Final = float("-inf")


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
    """One deadline in a `TimerQueue`. Made by `TimerQueue.schedule`.

    Attributes:
        deadline: when it fires.
        number: how many were scheduled before it; those of the same deadline fire in this order.
    """

    __slots__ = ("_callback", "_queue", "deadline", "number")

    def __init__(self, queue: TimerQueue, deadline: float, number: int, callback: Callable[[float], None]) -> None:
        self._queue = queue
        self.deadline = deadline
        self.number = number
        self._callback: Callable[[float], None] | None = callback

    @property
    def active(self) -> bool:
        """Whether it may still fire: neither fired nor cancelled."""
        return self._callback is not None

    def cancel(self) -> None:
        """Never fire. Does nothing when it has fired or was cancelled already."""
        if self._callback is not None:
            self._callback = None
            self._queue.note_cancelled()

    def take(self) -> Callable[[float], None] | None:
        """The callback, which then belongs to the caller; None when it has fired or was cancelled."""
        callback = self._callback
        self._callback = None
        return callback


class _Lane:
    """Timers that came in the order of their deadlines.

    Attributes:
        timers: the timers; those before `head` are done with.
        last: the deadline of the last one.
    """

    __slots__ = ("head", "last", "timers")

    def __init__(self) -> None:
        self.timers: list[Timer] = []
        self.head = 0
        self.last = _LONG_AGO

    def first(self) -> Timer | None:
        """The first timer, fired and cancelled ones included, or None."""
        return self.timers[self.head] if self.head < len(self.timers) else None

    def drop_first(self) -> None:
        """Be done with the first timer."""
        self.head = head = self.head + 1
        if head == len(self.timers):
            self.timers.clear()
            self.head = 0
            self.last = _LONG_AGO
        elif head >= _TRIM_FROM and head * 2 >= len(self.timers):
            del self.timers[:head]
            self.head = 0


class TimerQueue:
    """All deadlines of one stack, the earliest first.

    A stack has few lengths of timers, and timers of one length come in the order of their deadlines. So there are a few
    lanes which are in order by themselves; adding to one costs no comparison with what is in it, however many timers
    there are. What fits in none of them, since its length is a random one, goes to a heap.
    """

    __slots__ = ("_active", "_cancelled", "_heap", "_lanes", "_number")

    def __init__(self) -> None:
        self._lanes: list[_Lane] = []
        self._heap: list[tuple[float, int, Timer]] = []
        self._number = 0
        self._active = 0
        self._cancelled = 0

    def __len__(self) -> int:
        """How many timers may still fire."""
        return self._active

    @property
    def allocated(self) -> int:
        """How many timers are held, cancelled ones that were not yet thrown away included."""
        return self._active + self._cancelled

    def schedule(self, deadline: float, callback: Callable[[float], None]) -> Timer:
        """Call `callback(now)` in the first `run` that is not before `deadline`."""
        self._number = number = self._number + 1
        self._active += 1
        timer = Timer(self, deadline, number, callback)
        self._add(timer)
        return timer

    def _add(self, timer: Timer) -> None:
        """Put a timer at the end of the lane whose last deadline is the nearest before its own."""
        deadline = timer.deadline
        best: _Lane | None = None
        for lane in self._lanes:
            if lane.last <= deadline and (best is None or lane.last > best.last):
                best = lane
        if best is None:
            if len(self._lanes) >= _MAX_LANES:
                heappush(self._heap, (deadline, timer.number, timer))
                return
            best = _Lane()
            self._lanes.append(best)
        best.timers.append(timer)
        best.last = deadline

    def deadlines(self) -> list[float]:
        """The deadlines of all active timers, the earliest first."""
        return sorted([timer.deadline for timer in self._all()])

    def next_deadline(self) -> float | None:
        """The earliest deadline of an active timer, or None."""
        timer = self._first()[1]
        return None if timer is None else timer.deadline

    def run(self, now: float) -> None:
        """Fire every timer whose deadline has come, ordered by deadline and then by scheduling.

        A callback may schedule and cancel; what it schedules for `now` or before fires in the same run. When a callback
        raises, its own timer has fired and the others stay.
        """
        while True:
            lane, timer = self._first()
            if timer is None or timer.deadline > now:
                return
            if lane is None:
                heappop(self._heap)
            else:
                lane.drop_first()
            callback = timer.take()
            if callback is not None:
                self._active -= 1
                callback(now)

    def _first(self) -> tuple[_Lane | None, Timer | None]:
        """The active timer that fires first, and its lane; None for the lane where it is in the heap. Cancelled ones
        that stand before the first of their lane go."""
        found: Timer | None = None
        place: _Lane | None = None
        for lane in self._lanes:
            timer = lane.first()
            while timer is not None and not timer.active:
                lane.drop_first()
                self._cancelled -= 1
                timer = lane.first()
            if timer is not None and (found is None or _is_before(timer, found)):
                found, place = timer, lane
        heap = self._heap
        while heap and not heap[0][2].active:
            heappop(heap)
            self._cancelled -= 1
        if heap and (found is None or _is_before(heap[0][2], found)):
            return None, heap[0][2]
        return place, found

    def _all(self) -> list[Timer]:
        """All active timers, in the order in which they were scheduled."""
        timers = [entry[2] for entry in self._heap]
        for lane in self._lanes:
            timers.extend(lane.timers[lane.head :])
        return sorted([timer for timer in timers if timer.active], key=lambda timer: timer.number)

    def note_cancelled(self) -> None:
        """Count one cancelled timer, and throw the cancelled ones away once they are the majority."""
        self._active -= 1
        self._cancelled = cancelled = self._cancelled + 1
        if cancelled >= _COMPACT_FROM and cancelled > self._active:
            timers = self._all()
            self._lanes, self._heap, self._cancelled = [], [], 0
            for timer in timers:
                self._add(timer)


def _is_before(one: Timer, other: Timer) -> bool:
    return one.deadline < other.deadline or (one.deadline == other.deadline and one.number < other.number)
