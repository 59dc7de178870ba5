"""Timer lengths and the heap of deadlines."""

from __future__ import annotations

from dataclasses import FrozenInstanceError

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.transaction.timers import Timer, TimerQueue, TimerSettings


def test_defaults_are_those_of_rfc_3261_table_4() -> None:
    settings = TimerSettings()
    assert (settings.t1_s, settings.t2_s, settings.t4_s) == (0.5, 4.0, 5.0)
    assert settings.timer_b_s == settings.timer_f_s == settings.timer_h_s == settings.timer_j_s == 32.0
    assert settings.timer_l_s == settings.timer_m_s == settings.timer_d_s == 32.0
    assert settings.timer_i_s == settings.timer_k_s == 5.0


def test_lengths_follow_t1_and_t4() -> None:
    settings = TimerSettings(t1_s=1.0, t4_s=2.0)
    assert settings.timer_b_s == settings.timer_f_s == settings.timer_h_s == settings.timer_j_s == 64.0
    assert settings.timer_l_s == settings.timer_m_s == settings.timer_d_s == 64.0
    assert settings.timer_i_s == settings.timer_k_s == 2.0


def test_timer_d_is_never_under_32_seconds() -> None:
    assert TimerSettings(t1_s=0.01).timer_d_s == 32.0


@pytest.mark.parametrize("values", [(0.0, 4.0, 5.0), (0.5, -1.0, 5.0), (0.5, 4.0, 0.0), (5.0, 4.0, 5.0)])
def test_senseless_settings_are_refused(values: tuple[float, float, float]) -> None:
    with pytest.raises(ValueError, match=r"T1|T2"):
        TimerSettings(*values)


def test_not_a_number_is_refused() -> None:
    with pytest.raises(ValueError, match="T1"):
        TimerSettings(t1_s=float("nan"))


def test_settings_are_frozen() -> None:
    with pytest.raises(FrozenInstanceError):
        TimerSettings().t1_s = 1.0  # type: ignore[misc]


class Log:
    """Callbacks that write down that they fired."""

    def __init__(self) -> None:
        self.fired: list[tuple[str, float]] = []

    def note(self, name: str) -> Note:
        return Note(self, name)


class Note:
    def __init__(self, log: Log, name: str) -> None:
        self.log = log
        self.name = name

    def __call__(self, now: float) -> None:
        self.log.fired.append((self.name, now))


def test_an_empty_heap() -> None:
    heap = TimerQueue()
    heap.run(1e9)
    assert heap.next_deadline() is None
    assert len(heap) == 0


def test_fires_in_order_of_deadline_then_of_scheduling() -> None:
    heap, log = TimerQueue(), Log()
    for name, deadline in (("c", 2.0), ("a", 1.0), ("d", 2.0), ("b", 1.5), ("e", 2.1)):
        heap.schedule(deadline, log.note(name))
    assert heap.next_deadline() == 1.0
    heap.run(0.999)
    assert log.fired == []
    heap.run(2.0)
    assert log.fired == [("a", 2.0), ("b", 2.0), ("c", 2.0), ("d", 2.0)]
    assert heap.next_deadline() == 2.1
    assert len(heap) == 1


def test_a_cancelled_timer_never_fires() -> None:
    heap, log = TimerQueue(), Log()
    timer = heap.schedule(1.0, log.note("a"))
    heap.schedule(2.0, log.note("b"))
    states = [timer.active]
    for _ in range(2):
        timer.cancel()
        states.append(timer.active)
    assert states == [True, False, False]
    assert len(heap) == 1
    assert heap.next_deadline() == 2.0
    heap.run(3.0)
    assert [name for name, _ in log.fired] == ["b"]


def test_cancelling_a_fired_timer_does_nothing() -> None:
    heap, log = TimerQueue(), Log()
    timer = heap.schedule(1.0, log.note("a"))
    heap.run(1.0)
    assert not timer.active
    timer.cancel()
    assert len(heap) == 0
    assert heap.schedule(2.0, log.note("b")).active
    assert len(heap) == 1


def test_a_callback_may_schedule_and_cancel() -> None:
    heap, log = TimerQueue(), Log()
    victim = heap.schedule(1.0, log.note("victim"))

    class Busy:
        def __call__(self, now: float) -> None:
            victim.cancel()
            heap.schedule(now, log.note("at once"))
            heap.schedule(now + 1, log.note("later"))

    heap.schedule(0.5, Busy())
    heap.run(1.0)
    assert log.fired == [("at once", 1.0)]
    assert heap.next_deadline() == 2.0


def test_a_timer_is_inactive_in_its_own_callback() -> None:
    heap = TimerQueue()
    seen: list[bool] = []

    class Itself:
        timer: Timer | None = None

        def __call__(self, now: float) -> None:
            assert self.timer is not None
            seen.append(self.timer.active)
            self.timer.cancel()

    callback = Itself()
    callback.timer = heap.schedule(1.0, callback)
    heap.run(1.0)
    assert seen == [False]
    assert len(heap) == 0


def test_a_callback_that_raises_harms_no_other_timer() -> None:
    heap, log = TimerQueue(), Log()

    class Broken:
        def __call__(self, now: float) -> None:
            raise RuntimeError("broken")

    heap.schedule(1.0, Broken())
    heap.schedule(1.0, log.note("b"))
    with pytest.raises(RuntimeError, match="broken"):
        heap.run(1.0)
    heap.run(1.0)
    assert log.fired == [("b", 1.0)]


def test_cancelled_timers_do_not_pile_up() -> None:
    heap, log = TimerQueue(), Log()
    keepers = [heap.schedule(1e6 + at, log.note("keeper")) for at in range(100)]
    for at in range(100_000):
        heap.schedule(1e5 + at, log.note("passing")).cancel()
        assert heap.allocated <= 2 * len(keepers) + 1
    assert len(heap) == 100
    assert heap.next_deadline() == 1e6


def test_compaction_keeps_the_order() -> None:
    heap, log = TimerQueue(), Log()
    timers = [(at, heap.schedule(float(at * 7919 % 1000), log.note(str(at * 7919 % 1000)))) for at in range(1000)]
    for at, timer in timers:
        if at % 10:
            timer.cancel()
    assert heap.allocated < 300
    heap.run(1000.0)
    fired = [int(name) for name, _ in log.fired]
    assert fired == sorted(at * 7919 % 1000 for at in range(0, 1000, 10))


OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("schedule"), st.integers(0, 50)),
        st.tuples(st.just("cancel"), st.integers(0, 300)),
        st.tuples(st.just("run"), st.integers(0, 10)),
        st.tuples(st.just("cancel most"), st.just(0)),
        st.tuples(st.just("schedule many"), st.integers(60, 100)),
    ),
    max_size=40,
)


@given(OPERATIONS)
def test_heap_is_as_a_sorted_list(operations: list[tuple[str, int]]) -> None:
    heap, log = TimerQueue(), Log()
    timers: list[Timer] = []
    model: dict[int, float] = {}
    now = 0.0

    def add(after: int) -> None:
        model[len(timers)] = now + after
        timers.append(heap.schedule(now + after, log.note(str(len(timers)))))

    def cancel(index: int) -> None:
        timers[index].cancel()
        model.pop(index, None)

    for what, value in operations:
        if what == "schedule":
            add(value)
        elif what == "schedule many":
            for at in range(value):
                add(at * 37 % 50)
        elif what == "cancel" and value < len(timers):
            cancel(value)
        elif what == "cancel most":
            for index in range(len(timers)):
                if index % 5:
                    cancel(index)
        elif what == "run":
            now += value
            log.fired.clear()
            heap.run(now)
            due = sorted((deadline, index) for index, deadline in model.items() if deadline <= now)
            assert [name for name, _ in log.fired] == [str(index) for _, index in due]
            for _, index in due:
                del model[index]
        assert len(heap) == len(model)
        assert heap.next_deadline() == min(model.values(), default=None)
        assert [timer.active for timer in timers] == [index in model for index in range(len(timers))]
        assert heap.allocated <= max(2 * len(model) + 1, len(model) + 64)
