"""The pure decision about another attempt."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.b2bua.config import AttemptPlan, RetryPolicy
from proxy.b2bua.retry import Outcome, Retry, decide, plan_for

EXACT = RetryPolicy(jitter=0.0)


def status(code: int, retry_after_s: float | None = None) -> Outcome:
    return Outcome("status", code, "Phrase", retry_after_s)


@pytest.mark.parametrize("code", [400, 408, 500, 502, 503, 504])
def test_default_statuses_are_tried_again(code: int) -> None:
    assert decide(EXACT, status(code), 1, 0.0, lambda: 0.5) == Retry(0.2, AttemptPlan())


@pytest.mark.parametrize("code", [401, 402, 403, 404, 405, 406, 407, 410, 415, 420, 480, 484, 486, 487, 488, 501, 505])
def test_other_statuses_are_final(code: int) -> None:
    assert isinstance(decide(EXACT, status(code), 1, 0.0, lambda: 0.5), str)


@pytest.mark.parametrize("code", [403, 404, 486, 487, 600, 603, 604, 606, 699])
def test_some_are_final_whatever_the_policy_says(code: int) -> None:
    policy = RetryPolicy(statuses=frozenset(range(300, 700)), jitter=0.0)
    assert decide(policy, status(code), 1, 0.0, lambda: 0.5) == f"{code} is final"


def test_policy_may_add_statuses() -> None:
    policy = RetryPolicy(statuses=frozenset((480,)), jitter=0.0)
    assert isinstance(decide(policy, status(480), 1, 0.0, lambda: 0.5), Retry)
    assert isinstance(decide(policy, status(500), 1, 0.0, lambda: 0.5), str)


def test_what_we_refuse_ourselves_is_never_tried_again() -> None:
    assert isinstance(decide(EXACT, Outcome("own", 488, "No codec"), 1, 0.0, lambda: 0.5), str)
    assert isinstance(decide(EXACT, Outcome("own", 500, "Rule"), 1, 0.0, lambda: 0.5), str)


@pytest.mark.parametrize(
    ("kind", "without"),
    [("timeout", RetryPolicy(on_timeout=False)), ("transport", RetryPolicy(on_transport_failure=False))],
)
def test_timeout_and_transport_failure_by_setting(kind: str, without: RetryPolicy) -> None:
    outcome = Outcome(kind, 408, "x")
    assert isinstance(decide(EXACT, outcome, 1, 0.0, lambda: 0.5), Retry)
    assert isinstance(decide(without, outcome, 1, 0.0, lambda: 0.5), str)


@pytest.mark.parametrize(("attempt", "delay"), [(1, 0.2), (2, 0.4), (3, 0.8), (4, 1.6), (5, 2.0), (6, 2.0)])
def test_backoff_grows_to_its_ceiling(attempt: int, delay: float) -> None:
    policy = RetryPolicy(jitter=0.0, max_attempts=10)
    decision = decide(policy, status(500), attempt, 0.0, lambda: 0.5)
    assert isinstance(decision, Retry)
    assert decision.delay_s == pytest.approx(delay)


@pytest.mark.parametrize(("attempt", "last"), [(1, 2), (3, 4), (1, 100)])
def test_attempts_are_counted(attempt: int, last: int) -> None:
    policy = RetryPolicy(max_attempts=last)
    assert isinstance(decide(policy, status(500), attempt, 0.0, lambda: 0.5), Retry)
    assert isinstance(decide(policy, status(500), last, 0.0, lambda: 0.5), str)


@pytest.mark.parametrize(
    ("elapsed", "retry_after", "delay"),
    [
        (0.0, None, 0.2),
        (24.7, None, 0.2),
        (24.8, None, None),
        (25.0, None, None),
        (100.0, None, None),
        (0.0, 0.0, 0.2),
        (0.0, 0.1, 0.2),
        (0.0, 5.0, 5.0),
        (0.0, 24.0, 24.0),
        (0.0, 25.0, None),
        (20.0, 5.0, None),
        (20.0, 4.9, 4.9),
        (0.0, 1e9, None),
    ],
)
def test_deadline_and_retry_after(elapsed: float, retry_after: float | None, delay: float | None) -> None:
    decision = decide(EXACT, status(503, retry_after), 1, elapsed, lambda: 0.5)
    if delay is None:
        assert isinstance(decision, str)
        assert "deadline" in decision
        assert ("Retry-After" in decision) == (retry_after is not None)
    else:
        assert isinstance(decision, Retry)
        assert decision.delay_s == pytest.approx(delay)


PLANS = (AttemptPlan(), AttemptPlan(rules="plain"), AttemptPlan(target="second"))


@pytest.mark.parametrize(("attempt", "plan"), [(1, 0), (2, 1), (3, 2), (4, 2), (9, 2)])
def test_plan_of_an_attempt_and_beyond_the_last_one(attempt: int, plan: int) -> None:
    policy = RetryPolicy(attempts=PLANS, max_attempts=99)
    assert plan_for(policy, attempt) is PLANS[plan]
    if attempt > 1:
        decision = decide(policy, status(500), attempt - 1, 0.0, lambda: 0.5)
        assert isinstance(decision, Retry)
        assert decision.plan is PLANS[plan]


def test_no_plan_is_the_plain_plan() -> None:
    assert plan_for(RetryPolicy(attempts=()), 3) == AttemptPlan()


@given(
    random=st.floats(0.0, 1.0, exclude_max=True),
    jitter=st.floats(0.0, 1.0),
    initial=st.floats(0.0, 5.0),
    factor=st.floats(1.0, 4.0),
    ceiling=st.floats(0.0, 20.0),
    attempt=st.integers(1, 9),
    elapsed=st.floats(0.0, 60.0),
    retry_after=st.none() | st.floats(0.0, 100.0),
)
def test_delay_is_within_jitter_of_the_backoff_and_never_reaches_the_deadline(
    random: float,
    jitter: float,
    initial: float,
    factor: float,
    ceiling: float,
    attempt: int,
    elapsed: float,
    retry_after: float | None,
) -> None:
    policy = RetryPolicy(
        jitter=jitter,
        backoff_initial_s=initial,
        backoff_factor=factor,
        backoff_max_s=ceiling,
        max_attempts=10,
        deadline_s=30.0,
    )
    decision = decide(policy, status(503, retry_after), attempt, elapsed, lambda: random)
    base = min(initial * factor ** (attempt - 1), ceiling)
    if isinstance(decision, str):
        longest = max(base * (1 + jitter), retry_after or 0.0)
        assert elapsed + longest >= policy.deadline_s - 1e-9
        return
    assert decision.delay_s >= 0.0
    assert elapsed + decision.delay_s < policy.deadline_s
    if retry_after is not None:
        assert decision.delay_s >= retry_after
    if retry_after is None or decision.delay_s > retry_after:
        assert base * (1 - jitter) - 1e-9 <= decision.delay_s <= base * (1 + jitter) + 1e-9


def test_jitter_reaches_both_ends() -> None:
    low = decide(RetryPolicy(), status(500), 1, 0.0, lambda: 0.0)
    high = decide(RetryPolicy(), status(500), 1, 0.0, lambda: 0.999999)
    assert isinstance(low, Retry)
    assert isinstance(high, Retry)
    assert low.delay_s == pytest.approx(0.16)
    assert high.delay_s == pytest.approx(0.24, rel=1e-4)
