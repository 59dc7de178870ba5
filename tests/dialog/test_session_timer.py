"""Negotiation of session timers (RFC 4028): what we accept, what we take from an answer, and when to act."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.dialog.session_timer import SessionTerms, accept_terms, answered_terms, has_option, refusal_min_se
from proxy.sip.errors import SipError
from proxy.sip.message import Request, Response, read_header

TIMER = "Supported: timer"


def request(*lines: str, method: str = "INVITE") -> Request:
    return Request(method, "sip:x@y", [read_header(line) for line in lines])


def response(*lines: str, status: int = 200) -> Response:
    return Response(status, "OK", [read_header(line) for line in lines])


def facts(terms: SessionTerms | None) -> tuple[int, bool] | None:
    return None if terms is None else (terms.interval_s, terms.we_refresh)


# As UAS: the table of section 9 (who refreshes), and what the 2xx says


@pytest.mark.parametrize(
    ("lines", "terms", "answer"),
    [
        ([], None, []),
        ([TIMER], None, []),
        (["Session-Expires: 1800"], (1800, True), ["Session-Expires: 1800;refresher=uas"]),
        (["Session-Expires: 1800;refresher=uac"], (1800, True), ["Session-Expires: 1800;refresher=uas"]),
        (["Session-Expires: 1800;refresher=uas"], (1800, True), ["Session-Expires: 1800;refresher=uas"]),
        ([TIMER, "Session-Expires: 1800"], (1800, False), ["Session-Expires: 1800;refresher=uac", "Require: timer"]),
        (
            [TIMER, "x: 1800 ; refresher = uac"],
            (1800, False),
            ["Session-Expires: 1800;refresher=uac", "Require: timer"],
        ),
        (
            ["k: 100rel , Timer", "Session-Expires: 90;refresher=UAS;x=y"],
            (90, True),
            ["Session-Expires: 90;refresher=uas", "Require: timer"],
        ),
        (
            ["Require: timer", "Session-Expires: 600;refresher=nobody"],
            (600, False),
            ["Session-Expires: 600;refresher=uac", "Require: timer"],
        ),
    ],
)
def test_what_a_request_asks_for_is_taken(lines: list[str], terms: tuple[int, bool] | None, answer: list[str]) -> None:
    taken, headers = accept_terms(request(*lines), 90, 0)
    assert facts(taken) == terms
    assert [item.line for item in headers] == answer


@pytest.mark.parametrize(
    ("lines", "terms"),
    [
        ([], None),
        ([TIMER], (600, True)),
        ([TIMER, "Min-SE: 900"], (900, True)),
        ([TIMER, "Min-SE: nonsense"], (600, True)),
        ([TIMER, "Session-Expires: 1800"], (1800, False)),
    ],
)
def test_a_timer_of_our_own_needs_a_peer_that_supports_it(lines: list[str], terms: tuple[int, bool] | None) -> None:
    taken, _ = accept_terms(request(*lines), 90, 600)
    assert facts(taken) == terms


@pytest.mark.parametrize(
    ("current", "ours"), [(None, False), (SessionTerms(90, True), True), (SessionTerms(90, False), False)]
)
def test_roles_stay_where_the_request_leaves_them_open(current: SessionTerms | None, ours: bool) -> None:
    taken, _ = accept_terms(request(TIMER, "Session-Expires: 1800"), 90, 0, current)
    assert facts(taken) == (1800, ours)
    taken, _ = accept_terms(request(TIMER, "Session-Expires: 1800;refresher=uac"), 90, 0, current)
    assert facts(taken) == (1800, False)


@pytest.mark.parametrize(("asked", "minimum", "answered"), [(89, 90, 90), (89, 10, 90), (0, 90, 90), (599, 600, 600)])
def test_interval_that_is_too_short_gets_422_with_min_se(asked: int, minimum: int, answered: int) -> None:
    with pytest.raises(SipError) as caught:
        accept_terms(request(TIMER, f"Session-Expires: {asked}"), minimum, 0)
    assert caught.value.status == 422
    assert caught.value.headers == (("Min-SE", str(answered)),)


def test_peer_without_timer_support_can_not_be_refused_and_gets_the_shortest() -> None:
    """A proxy asked for it; the caller would not know what to do with a 422 (section 9)."""
    taken, _ = accept_terms(request("Session-Expires: 30"), 120, 0)
    assert facts(taken) == (120, True)


@pytest.mark.parametrize("value", ["", "x", "-1", "1.5", "²", "1234567890", '90;refresher="uac'])
def test_malformed_session_expires_gets_400(value: str) -> None:
    with pytest.raises(SipError) as caught:
        accept_terms(request(TIMER, f"Session-Expires: {value}"), 90, 0)
    assert caught.value.status == 400


# As UAC


@pytest.mark.parametrize(
    ("lines", "wanted", "terms"),
    [
        ([], 0, None),
        ([], 600, (600, True)),
        (["Session-Expires: 300;refresher=uac"], 600, (300, True)),
        (["Session-Expires: 300;refresher=uas"], 600, (300, False)),
        (["Session-Expires: 300"], 600, (300, True)),
        (["Session-Expires: 300;refresher=uas"], 0, (300, False)),
        (["Session-Expires: 5"], 600, (90, True)),
        (["Session-Expires: nonsense"], 600, (600, True)),
        (["Session-Expires: nonsense"], 0, None),
    ],
)
def test_what_an_answer_says_is_taken(lines: list[str], wanted: int, terms: tuple[int, bool] | None) -> None:
    assert facts(answered_terms(response(*lines), wanted)) == terms


@pytest.mark.parametrize(
    ("lines", "interval"),
    [(["Min-SE: 600"], 600), (["Min-SE: 600;x=y"], 600), (["Min-SE: 10"], 90), ([], 90), (["Min-SE: x"], 90)],
)
def test_what_a_422_demands(lines: list[str], interval: int) -> None:
    assert refusal_min_se(response(*lines, status=422)) == interval


# When


@pytest.mark.parametrize(
    ("interval", "refresh", "dead"), [(90, 45, 60), (96, 48, 64), (180, 90, 148), (1800, 900, 1768)]
)
def test_refresh_at_half_time_and_bye_shortly_before_the_end(interval: int, refresh: float, dead: float) -> None:
    assert SessionTerms(interval, True).wait_s == refresh
    assert SessionTerms(interval, False).wait_s == pytest.approx(dead)


@given(
    asked=st.integers(0, 10**9 - 1),
    minimum=st.integers(0, 7200),
    wanted=st.integers(0, 7200),
    supported=st.booleans(),
    refresher=st.sampled_from(["", ";refresher=uac", ";refresher=uas"]),
)
def test_both_ends_of_a_negotiation_agree(
    asked: int, minimum: int, wanted: int, supported: bool, refresher: str
) -> None:
    """Exactly one side refreshes, and no interval is below the floor."""
    lines = [f"Session-Expires: {asked}{refresher}", *([TIMER] if supported else [])]
    if supported and asked < max(minimum, 90):
        with pytest.raises(SipError, match="Session Interval Too Small"):
            accept_terms(request(*lines), minimum, wanted)
        return
    taken, headers = accept_terms(request(*lines), minimum, wanted)
    assert taken is not None
    assert taken.interval_s >= max(90, minimum)
    other = answered_terms(response(*[item.line for item in headers]), asked)
    assert other is not None
    assert other.interval_s == taken.interval_s
    assert other.we_refresh is not taken.we_refresh
    if not supported:
        assert taken.we_refresh


@pytest.mark.parametrize(
    ("lines", "found"),
    [
        (["Supported: timer"], True),
        (["k: a, TIMER ,b"], True),
        (["Require: timer"], True),
        (["Supported: timers"], False),
        (["Supported: my-timer, x"], False),
        (["Supported:"], False),
        (["Unsupported: timer"], False),
    ],
)
def test_option_tags_are_read_whole(lines: list[str], found: bool) -> None:
    assert has_option(request(*lines), "timer") is found
