"""Calls that have ended leave nothing to the garbage collector, which the process hardly ever runs."""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Callable

import pytest

from tests.support.bench import ANSWER, OFFER, Bench


def caller_hangs_up(bench: Bench) -> None:
    bench.answered_call()
    bench.caller_request("BYE")
    bench.respond(200, request=bench.requests("BYE")[-1])


def target_hangs_up(bench: Bench) -> None:
    bench.answered_call()
    bench.target_request("BYE")
    bench.caller_answers(bench.caller_requests("BYE")[-1], 200)


def caller_gives_up(bench: Bench) -> None:
    branch = bench.invite()
    bench.respond(180)
    bench.caller_request("CANCEL", branch=branch)
    bench.respond(200, request=bench.requests("CANCEL")[-1])
    bench.respond(487)


def target_is_busy(bench: Bench) -> None:
    bench.invite()
    bench.respond(486)


def re_invite(bench: Bench) -> None:
    bench.answered_call()
    bench.caller_request("INVITE", cseq=2, body=ANSWER)
    bench.respond(200, body=ANSWER)
    bench.caller_request("ACK", cseq=2)
    bench.caller_request("BYE", cseq=3)
    bench.respond(200, request=bench.requests("BYE")[-1])


def transfer(bench: Bench) -> None:
    """The target has the caller moved to another target, which hangs up."""
    bench.answered_call()
    bench.target_request("REFER", extra="Refer-To: <sip:bob@203.0.113.5>")
    bench.respond(200, request=bench.requests("NOTIFY")[-1])
    bench.respond(200, body=ANSWER, tag="bob")
    bench.caller_answers(bench.caller_requests("INVITE")[-1], 200, body=OFFER)
    bench.respond(200, request=bench.requests("NOTIFY")[-1])
    bench.respond(200, request=bench.requests("BYE")[-1])
    bench.target_request("BYE", tag="bob")
    bench.caller_answers(bench.caller_requests("BYE")[-1], 200)


@pytest.mark.parametrize(
    "whole_call", [caller_hangs_up, target_hangs_up, caller_gives_up, target_is_busy, re_invite, transfer]
)
def test_an_ended_call_is_freed_without_the_garbage_collector(
    make_bench: Callable[..., Bench], whole_call: Callable[[Bench], None]
) -> None:
    bench = make_bench(refer="execute")
    whole_call(bench)
    bench.advance(60)
    bench.events.clear()
    bench.wire.clear()
    bench.forget()
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        whole_call(bench)
        bench.advance(60)
        bench.events.clear()
        bench.wire.clear()
        bench.forget()
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect()
        left = Counter(type(item).__name__ for item in gc.garbage if type(item).__module__.startswith("proxy."))
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()
        gc.unfreeze()
    assert not left
