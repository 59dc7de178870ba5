"""Which INVITE meets which fault."""

import random

import pytest

from proxy.sdp.session import Session
from proxy.sim.faults import Decision, FaultPlan, Faults
from proxy.sim.shape import PROBLEMS, make_caller, make_identity, make_invite, make_origin, make_vias, record_routes
from proxy.sip.flow import Flow
from proxy.sip.message import Request


def invite(problem: str | None = None) -> Request:
    source = random.Random(1)
    flow = Flow("tls", ("127.0.0.1", 5061), ("127.0.0.1", 5061), "127.0.0.1:5061")
    identity = make_identity(source)
    vias = make_vias(flow, "192.0.2.10:5061", source, identity.gateway_branch)
    caller = make_caller(0, source, problem, cancel=False)
    routes = record_routes(flow, "192.0.2.10:5061")
    return make_invite(caller, identity, "sip:proj@127.0.0.1", vias, routes, make_origin(source), srtp=True)


def decide(plan: FaultPlan, key: str = "call", attempt: int = 0, problem: str | None = None) -> Decision:
    request = invite(problem)
    return plan.decide(request, Session.parse(request.body), key, attempt)


def failed(faults: Faults, keys: range, attempt: int = 0) -> set[int]:
    plan = FaultPlan(faults)
    return {key for key in keys if decide(plan, str(key), attempt).fault}


def test_draws_repeat_whatever_the_order() -> None:
    faults = Faults(bad_request=0.3, seed=7)
    there, back = range(500), range(499, -1, -1)
    assert failed(faults, there) == failed(faults, back)
    assert 110 <= len(failed(faults, there)) <= 190


def test_draws_differ_by_seed_fault_and_attempt() -> None:
    calls = range(200)
    first = failed(Faults(bad_request=0.3), calls)
    assert first != failed(Faults(bad_request=0.3, seed=1), calls)
    assert first != failed(Faults(server_error=0.3), calls)
    assert first != failed(Faults(bad_request=0.3), calls, attempt=1)


def test_shares_of_none_and_all() -> None:
    assert failed(Faults(bad_request=0.0), range(100)) == set()
    assert failed(Faults(bad_request=1.0), range(100)) == set(range(100))


def test_every_third() -> None:
    plan = FaultPlan(Faults(bad_request_every=3))
    assert [decide(plan, str(key)).status for key in range(6)] == [0, 0, 400, 0, 0, 400]


def test_refusals_say_what_the_real_ones_say() -> None:
    assert decide(FaultPlan(Faults(invalid_sdp=1))) == Decision("invalid-sdp", 400, "Invalid SDP offer")
    assert decide(FaultPlan(Faults(server_error=1))).status == 500
    unavailable = decide(FaultPlan(Faults(unavailable=1, retry_after_s=3)))
    assert (unavailable.status, unavailable.headers) == (503, (("Retry-After", "3"),))


@pytest.mark.parametrize(
    ("problem", "fault", "status"),
    [
        ("duplicate-content-type", "duplicate-headers", 400),
        ("duplicate-content-length", "duplicate-headers", 400),
        ("folded-headers", "folded-header", 400),
        ("duplicate-uri-params", "duplicate-params", 403),
        ("opus-107", "foreign-codec", 400),
        ("dangling-rtpmap", "odd-sdp", 400),
        ("webrtc-attributes", "odd-sdp", 400),
    ],
)
def test_the_strict_door_refuses(problem: str, fault: str, status: int) -> None:
    strict, lenient = FaultPlan(Faults().strict()), FaultPlan(Faults())
    decision = decide(strict, problem=problem)
    assert (decision.fault, decision.status) == (fault, status)
    assert decide(lenient, problem=problem) == Decision()


def test_the_strict_door_takes_all_else() -> None:
    strict = FaultPlan(Faults().strict())
    taken = {problem for problem in (None, *PROBLEMS) if not decide(strict, problem=problem).status}
    assert taken == {
        None,
        "maxptime-first",
        "private-origin",
        "compact-names",
        "odd-casing",
        "session-timer",
        "privacy",
    }


def test_an_invite_without_offer_has_no_codec_to_refuse() -> None:
    request = Request("INVITE", "sip:a@b", [item for item in invite().headers if item.key != "content-type"])
    assert FaultPlan(Faults().strict()).decide(request, None, "call", 0) == Decision()


@pytest.mark.parametrize(
    ("values", "name"),
    [({"silent": 1.5}, "silent"), ({"reset": -0.1}, "reset"), ({"late_webhook_ms": -1}, "late_webhook_ms")],
)
def test_impossible_values_are_refused(values: dict[str, float], name: str) -> None:
    with pytest.raises(ValueError, match=name):
        Faults(**values)  # type: ignore[arg-type]
