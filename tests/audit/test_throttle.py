"""How a flood of equal lines is kept short."""

from proxy.audit.throttle import Throttle


def test_one_line_per_subject_and_interval_with_the_number_left_out() -> None:
    throttle = Throttle(10.0)
    assert throttle.allow("a", 100.0) == 0
    assert throttle.allow("b", 100.0) == 0
    assert [throttle.allow("a", moment) for moment in (100.0, 105.0, 109.9)] == [None, None, None]
    assert throttle.allow("a", 110.0) == 3
    assert throttle.allow("a", 110.1) is None
    assert throttle.allow("b", 200.0) == 0


def test_memory_is_bounded() -> None:
    throttle = Throttle(10.0)
    assert all(throttle.allow(number, 0.0) == 0 for number in range(5000))
    assert throttle.allow(4999, 1.0) is None
    assert throttle.allow(0, 1.0) == 0, "the oldest is forgotten"
