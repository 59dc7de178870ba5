"""The two simulated neighbours against each other, over real sockets: good calls, odd calls, and each fault."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import uvloop

from proxy.sdp.session import Session
from proxy.sim.faults import Faults
from proxy.sim.openai import OpenAiConfig, OpenAiSim
from proxy.sim.report import Progress, Report
from proxy.sim.shape import PROBLEMS
from proxy.sim.twilio import TwilioConfig, TwilioSim, place_calls
from proxy.sip.parser import parse_message
from proxy.transaction.timers import TimerSettings

StartSim = Callable[..., Awaitable[OpenAiSim]]
Place = Callable[..., Awaitable[Report]]

EVERY_TRANSPORT = pytest.mark.parametrize("transport", ["udp", "tcp", "tls"])
STREAMS = pytest.mark.parametrize("transport", ["tcp", "tls"])


@EVERY_TRANSPORT
async def test_calls_are_answered_and_ended(start_openai: StartSim, place: Place, transport: str) -> None:
    sim = await start_openai(ringing_after_ms=1)
    report = await place(sim, transport, calls=len(PROBLEMS), problem_share=1.0)
    assert (report.calls, report.answered, report.failed) == (len(PROBLEMS), len(PROBLEMS), 0)
    assert (dict(report.unexpected), report.answers_incomplete) == ({}, 0)
    assert {kind: dict(counts) for kind, counts in report.problems.items()} == {
        kind: {"200 OK": 1} for kind in PROBLEMS
    }
    assert report.answers_without_content_type == len(PROBLEMS)
    assert 5 <= report.setup_ms.p50 < 500
    assert 0 < report.ringing_ms.p50 <= report.setup_ms.p50
    seen = sim.report()
    assert (seen["answered_calls"], seen["unacked"], seen["left_alive"], seen["answered_twice"]) == (13, [], [], [])
    assert seen["ended_by"] == {"caller": 13}
    assert {record.bye_reason for record in sim.records} == {'Q.850;cause=16;text="Normal call clearing"'}
    assert sim.calls_in_progress == 0


async def test_the_record_holds_the_invite_as_it_came(start_openai: StartSim, place: Place) -> None:
    sim = await start_openai()
    report = await place(sim, problem_share=1.0, problems=("folded-headers",))
    invite = sim.records[0].invite
    assert b"P-Asserted-Identity:\r\n <sip:+1555010" in invite
    assert parse_message(invite).get("x-twilio-callsid") == report.results[0].call_sid == sim.records[0].key


@EVERY_TRANSPORT
async def test_the_callee_hangs_up_through_the_route_set(start_openai: StartSim, place: Place, transport: str) -> None:
    sim = await start_openai(call_ms=5)
    report = await place(sim, transport, calls=2, hang_up="callee")
    assert report.ok, report.unexpected
    assert [result.ended_by for result in report.results] == ["callee", "callee"]
    assert sim.report()["ended_by"] == {"target": 2}


async def test_plain_rtp(start_openai: StartSim, place: Place) -> None:
    sim = await start_openai()
    assert (await place(sim, media_security="rtp")).ok
    assert Session.parse(parse_message(sim.records[0].invite).body).media[0].protocol == "RTP/AVP"


@EVERY_TRANSPORT
async def test_reinvites_of_the_target_are_answered(start_openai: StartSim, place: Place, transport: str) -> None:
    sim = await start_openai(reinvite_after_ms=1)
    report = await place(sim, transport, calls=2, hold_ms=60)
    assert report.ok, report.unexpected
    assert (report.reinvites, sim.report()["reinvites_sent"]) == (2, 2)


@EVERY_TRANSPORT
async def test_a_cancelled_call_is_not_answered(start_openai: StartSim, place: Place, transport: str) -> None:
    sim = await start_openai(answer_after_ms=5_000)
    report = await place(sim, transport, calls=4, cancel_share=1.0, cancel_after_ms=5)
    assert (report.cancelled, report.ok, dict(report.outcomes)) == (4, True, {"cancelled": 4})
    assert sim.report()["outcomes"] == {"487 Request Terminated": 4}
    assert all(record.cancelled for record in sim.records)


@pytest.mark.parametrize("late_ms", [0, 10])
async def test_a_cancel_may_cross_with_a_200(start_openai: StartSim, place: Place, late_ms: int) -> None:
    faults = Faults(answer_cancelled=1.0, answer_cancelled_ms=late_ms)
    sim = await start_openai(answer_after_ms=5_000, faults=faults)
    report = await place(sim, calls=2, cancel_share=1.0, cancel_after_ms=5)
    assert dict(report.outcomes) == {"cancelled, 200 came all the same": 2}
    seen = sim.report()
    assert (seen["late_answers"], seen["unacked"], seen["left_alive"], seen["answered_twice"]) == (2, [], [], [])


@pytest.mark.parametrize(
    ("faults", "outcome"),
    [
        (Faults(bad_request=1.0), "400 Bad Request"),
        (Faults(bad_request_every=1), "400 Bad Request"),
        (Faults(invalid_sdp=1.0), "400 Invalid SDP offer"),
        (Faults(codecs=("opus",)), "400 Invalid SDP offer"),
        (Faults(unavailable=1.0), "503 Service Unavailable"),
        (Faults(server_error=1.0), "500 Server Internal Error"),
        (Faults(accept_failure=1.0), "400 Bad Request"),
    ],
)
@pytest.mark.parametrize("transport", ["udp", "tls"])
async def test_refusals(start_openai: StartSim, place: Place, transport: str, faults: Faults, outcome: str) -> None:
    sim = await start_openai(faults=faults)
    report = await place(sim, transport)
    assert dict(report.outcomes) == {outcome: 1}
    assert (report.failed, report.ok, report.unexpected) == (1, False, {})
    assert sim.report()["outcomes"] == {outcome: 1}


async def test_duplicate_uri_parameters_are_forbidden(start_openai: StartSim, place: Place) -> None:
    sim = await start_openai(faults=Faults(reject_duplicate_params=True))
    report = await place(sim, calls=2, problem_share=0.5, problems=("duplicate-uri-params",))
    assert dict(report.outcomes) == {"200 OK": 1, "403 Forbidden": 1}


async def test_an_accept_that_comes_too_late(start_openai: StartSim, place: Place) -> None:
    faults = Faults(late_webhook=1.0, late_webhook_ms=5_000)
    sim = await start_openai(accept_timeout_ms=30, faults=faults)
    report = await place(sim)
    assert dict(report.outcomes) == {"400 Bad Request": 1}
    assert 0.03 <= sim.records[0].ended_at - sim.records[0].started_at < 1


async def test_a_webhook_that_is_late_but_in_time(start_openai: StartSim, place: Place) -> None:
    faults = Faults(late_webhook=1.0, late_webhook_ms=20)
    sim = await start_openai(faults=faults)
    report = await place(sim)
    assert report.ok
    assert report.setup_ms.p50 >= 25


async def test_silence(start_openai: StartSim, place: Place) -> None:
    sim = await start_openai(faults=Faults(silent=1.0))
    report = await place(sim, timers=TimerSettings(t1_s=0.008, t2_s=0.03, t4_s=0.03))
    assert dict(report.outcomes) == {"timeout": 1}
    # Timers A at 1, 3, 7, 15, 31 and 63 times T1, until timer B at 64 times T1; the last one may come too late.
    assert report.traffic["retransmissions_sent"] in (5, 6)
    assert sim.report()["traffic"]["retransmissions_received"] == report.traffic["retransmissions_sent"]
    assert sim.report()["traffic"]["sent"] == 0


async def test_nothing_but_trying_until_the_cancel(start_openai: StartSim, place: Place) -> None:
    sim = await start_openai(faults=Faults(trying_only=1.0))
    report = await place(sim, patience_s=0.1)
    assert dict(report.outcomes) == {"no answer": 1}
    assert report.failed == 1
    assert sim.report()["outcomes"] == {"487 Request Terminated": 1}


@STREAMS
async def test_a_connection_is_reset_and_opened_anew(start_openai: StartSim, place: Place, transport: str) -> None:
    sim = await start_openai(faults=Faults(reset=0.5, seed=4))
    report = await place(sim, transport, calls=6, concurrency=1)
    resets = sim.report()["faults"]["reset"]
    assert 0 < resets < 6
    assert dict(report.outcomes) == {"200 OK": 6 - resets, "connection lost": resets}
    assert report.traffic["connections_opened"] > 1


async def test_the_same_seed_fails_the_same_calls(start_openai: StartSim, place: Place) -> None:
    async def run(seed: int) -> dict[str, str]:
        sim.reset()
        report = await place(sim, calls=30, rate=1000, seed=seed)
        return {result.call_sid: result.outcome for result in report.results}

    sim = await start_openai(faults=Faults(bad_request=0.3, seed=1))
    first = await run(5)
    assert first == await run(5)
    assert set(first.values()) == {"200 OK", "400 Bad Request"}
    assert not set(first) & set(await run(6))


async def test_two_answers_to_one_call_are_noticed(start_openai: StartSim, place: Place) -> None:
    sim = await start_openai()
    await place(sim)
    await place(sim)
    seen = sim.report()
    assert (seen["invites"], seen["calls"], seen["answered_twice"]) == (2, 1, [sim.records[0].key])
    assert [record.attempt for record in sim.records] == [0, 1]


async def test_old_records_give_way(start_openai: StartSim, place: Place) -> None:
    sim = await start_openai(max_records=10)
    await place(sim, calls=15, concurrency=1)
    assert (sim.invites, len(sim.records) <= 10) == (15, True)
    assert sim.report()["records_dropped"] == 15 - len(sim.records)


async def test_calls_that_were_met_with_silence_give_way_too(start_openai: StartSim, place: Place) -> None:
    sim = await start_openai(max_records=10, faults=Faults(silent=1.0))
    report = await place(sim, calls=15, patience_s=0.02)
    assert dict(report.outcomes) == {"no answer": 15}
    assert len(sim.records) <= 10


async def test_calls_wait_for_the_limit_of_concurrent_ones(start_openai: StartSim) -> None:
    sim = await start_openai()
    highest = 0

    def watch(progress: Progress) -> None:
        nonlocal highest
        highest = max(highest, progress.in_progress)

    config = TwilioConfig(target=sim.uri("udp"), calls=6, rate=1000, concurrency=2, hold_ms=60)
    report = await place_calls(config, watch)
    assert (report.answered, report.delayed, highest) == (6, 4, 2)
    assert report.duration_s >= 0.18


async def test_the_pace_is_kept(start_openai: StartSim, place: Place) -> None:
    sim = await start_openai(answer_after_ms=200)
    report = await place(sim, calls=21, rate=100)
    # A busy machine may be late, but never early; a late call does not make the next ones late.
    assert 15 < report.rate < 102
    starts = [record.started_at for record in sim.records]
    assert 0.19 < starts[-1] - starts[0] < 1


async def test_placing_can_be_stopped(start_openai: StartSim) -> None:
    sim = await start_openai()
    twilio = TwilioSim(TwilioConfig(target=sim.uri("udp"), calls=1000, rate=20, hold_ms=20))
    asyncio.get_running_loop().call_later(0.12, twilio.stop_placing)
    report = await twilio.run()
    assert 1 <= report.calls == report.answered < 10


async def test_calls_spread_over_connections(start_openai: StartSim, place: Place) -> None:
    sim = await start_openai()
    report = await place(sim, "tcp", calls=6, connections=3)
    assert report.ok
    assert report.traffic["connections_opened"] == len({record.source for record in sim.records}) == 3


async def test_report_is_plain_data(start_openai: StartSim, place: Place) -> None:
    sim = await start_openai()
    report = await place(sim, calls=2)
    values: dict[str, Any] = report.to_dict(results=True)
    assert values["outcomes"] == {"200 OK": 2}
    assert values["setup_ms"]["count"] == len(values["results"]) == 2
    assert "results" not in report.to_dict()


def test_on_uvloop(tmp_path: Any) -> None:
    """The loop that the commands run on, whose transports and timers differ; with a certificate of its own."""

    async def run() -> tuple[Report, OpenAiSim]:
        faults = Faults(reset=0.3, seed=2)
        async with OpenAiSim(OpenAiConfig(certificate_dir=tmp_path, answer_after_ms=2, faults=faults)) as sim:
            ca_file = str(tmp_path / "ca.pem")
            target = sim.uri("tls").replace("127.0.0.1", "localhost")
            config = TwilioConfig(target=target, calls=8, rate=200, concurrency=1, hold_ms=5, ca_file=ca_file)
            return await place_calls(config), sim

    report, sim = uvloop.run(run())
    resets = sim.report()["faults"]["reset"]
    assert dict(report.outcomes) == {"200 OK": 8 - resets, "connection lost": resets}
    assert (tmp_path / "server.key").stat().st_mode & 0o777 == 0o600
