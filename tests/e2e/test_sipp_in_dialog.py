"""What happens inside a call, with SIPp on both sides, over UDP, TCP and TLS, from either side.

All cases of a transport run at once through one Trunkline: a route by the X-Case header takes each to a target of its
own. SIPp of Debian has no TLS; it speaks TCP into tunnels that do.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

from proxy.sim.certificates import make_certificate
from tests.support.processes import Sipp, Trunkline, free_port, running_trunkline
from tests.support.scenarios import ANSWER, HELD, OFFER, RECVONLY, Callee, Caller, Script
from tests.support.tls_tunnel import TlsTunnels

CALLS = 2
Pair = tuple[Caller, Callee]
Act = Callable[[Script, Script], None]


def in_call(act: Act, side: str) -> Pair:
    """A call in which one side does something and the other side sees it; then the caller hangs up."""
    caller, callee = Caller(), Callee()
    caller.call()
    callee.call()
    first, second = (caller, callee) if side == "caller" else (callee, caller)
    first.pause(100)
    act(first, second)
    caller.pause(200)
    caller.bye()
    callee.take_bye()
    return caller, callee


def relayed(method: str, *headers: str, payload: str = "", **checks: str) -> Act:
    """A request that crosses, and its answer that comes back."""

    def act(first: Script, second: Script) -> None:
        first.request(method, *headers, body=payload)
        second.take(method, **checks)
        second.answer(200)
        first.expect(200)

    return act


def reinvite(offer: str, answer: str, seen: str, back: str) -> Act:
    """A re-INVITE that crosses with its offer, and its answer."""

    def act(first: Script, second: Script) -> None:
        first.request("INVITE", body=offer)
        second.take("INVITE", body=seen)
        second.answer_invite(200, body=answer)
        second.take("ACK")
        first.expect(100, optional=True)
        first.expect(200, body=back)
        first.ack()

    return act


def late_reinvite(first: Script, second: Script) -> None:
    """A re-INVITE without an offer: the 200 has it, the ACK its answer."""
    first.request("INVITE")
    second.take("INVITE")
    second.answer_invite(200, body=OFFER)
    second.take("ACK", body="m=audio")
    first.expect(100, optional=True)
    first.expect(200, body="m=audio")
    first.ack(body=ANSWER)


def update_with_offer(first: Script, second: Script) -> None:
    """An UPDATE that holds the call."""
    first.request("UPDATE", body=HELD)
    second.take("UPDATE", body="a=sendonly")
    second.answer(200, body=RECVONLY)
    first.expect(200, body="a=recvonly")


def glare(first: Script, second: Script) -> None:
    """A re-INVITE refused with 491, and again after a while."""
    first.request("INVITE", body=HELD)
    second.take("INVITE")
    second.answer_invite(491)
    second.take("ACK")
    first.expect(100, optional=True)
    first.expect(491)
    first.ack_failure()
    first.pause(100)
    HOLD(first, second)


def refer(first: Script, second: Script) -> None:
    """A REFER, accepted, and the NOTIFY that tells how it went."""
    first.request("REFER", "Refer-To: <sip:+15550100009@elsewhere.example.com>")
    second.take("REFER", Refer_To="elsewhere.example.com")
    second.answer(202)
    first.expect(202)
    state = "Subscription-State: terminated;reason=noresource"
    content = "Content-Type: message/sipfrag;version=2.0"
    second.request("NOTIFY", "Event: refer", state, content, body="SIP/2.0 200 OK\n")
    first.take("NOTIFY", Event="refer", body="200 OK")
    first.answer(200)
    second.expect(200)


HOLD = reinvite(HELD, RECVONLY, "a=sendonly", "a=recvonly")
PCMA = OFFER.replace(" 0 8 101", " 8 101").replace("a=rtpmap:0 PCMU/8000\n", "")

ACTS: dict[str, Act] = {
    "hold": HOLD,
    "codec-change": reinvite(PCMA, PCMA, "RTP/AVP 8 101", "RTP/AVP 8 101"),
    "late-reinvite": late_reinvite,
    "glare": glare,
    "update": update_with_offer,
    "info": relayed(
        "INFO",
        "Content-Type: application/dtmf-relay",
        payload="Signal=5\nDuration=160\n",
        Content_Type="dtmf-relay",
        body="Signal=5",
    ),
    "message": relayed("MESSAGE", "Content-Type: text/plain", payload="hello\n", Content_Type="text/plain"),
    "notify": relayed("NOTIFY", "Event: presence", "Subscription-State: active", Event="presence"),
    "options": relayed("OPTIONS", "Accept: application/sdp"),
    "refer": refer,
}


def reliable_end_to_end() -> Pair:
    """Both sides want reliable provisional responses: the PRACK crosses."""
    caller, callee = Caller(), Callee()
    caller.invite("Supported: 100rel")
    callee.take("INVITE", Supported="100rel")
    callee.answer_invite(183, "Require: 100rel", "RSeq: 700", body=ANSWER)
    caller.expect(100, optional=True)
    caller.expect_reliable(183)
    caller.prack()
    callee.take("PRACK", RAck="700 1 INVITE")
    callee.answer(200)
    caller.expect(200)
    callee.answer_invite(200)
    callee.take("ACK")
    caller.expect(200)
    caller.ack()
    caller.pause(100)
    caller.bye()
    callee.take_bye()
    return caller, callee


def reliable_for_the_caller() -> Pair:
    """Only the caller demands them: Trunkline itself takes the PRACK."""
    caller, callee = Caller(), Callee()
    caller.invite("Require: 100rel")
    callee.take("INVITE")
    callee.answer_invite(180)
    caller.expect(100, optional=True)
    caller.expect_reliable(180)
    caller.prack()
    caller.expect(200)
    callee.pause(300)
    callee.answer_invite(200, body=ANSWER)
    callee.take("ACK")
    caller.expect(200)
    caller.ack()
    caller.pause(100)
    caller.bye()
    callee.take_bye()
    return caller, callee


def session_timer() -> Pair:
    """Each leg has a timer of its own: a refresh by the caller never reaches the target."""
    caller, callee = Caller(), Callee()
    caller.invite("Supported: timer", "Session-Expires: 1800;refresher=uac", "Min-SE: 90")
    caller.expect(100, optional=True)
    caller.expect(180, optional=True)
    caller.expect(200, Session_Expires="1800;refresher=uac", Require="timer")
    caller.ack()
    caller.pause(100)
    caller.request("UPDATE", "Supported: timer", "Session-Expires: 1800;refresher=uac")
    caller.expect(200, Session_Expires="1800;refresher=uac")
    caller.bye()
    callee.call()
    callee.take_bye()
    return caller, callee


def interval_too_small() -> Pair:
    """A session interval below Min-SE is refused with 422, and taken when it is long enough."""
    caller, callee = Caller(), Callee()
    caller.invite("Supported: timer", "Session-Expires: 30")
    caller.expect(422, Min_SE="90")
    caller.ack_refusal()
    caller.invite_again("Supported: timer", "Session-Expires: 90")
    caller.expect(100, optional=True)
    caller.expect(180, optional=True)
    caller.expect_answer(200, Session_Expires="90")
    caller.ack()
    caller.pause(100)
    caller.bye()
    callee.call()
    callee.take_bye()
    return caller, callee


def late_offer() -> Pair:
    """An INVITE without an offer."""
    caller, callee = Caller(), Callee()
    caller.invite(body="")
    callee.take("INVITE")
    callee.answer_invite(180)
    callee.answer_invite(200, body=OFFER)
    callee.take("ACK", body="m=audio")
    caller.expect(100, optional=True)
    caller.expect(180, optional=True)
    caller.expect(200, body="m=audio")
    caller.ack(body=ANSWER)
    caller.pause(100)
    caller.bye()
    callee.take_bye()
    return caller, callee


def challenged() -> Pair:
    """The target asks for credentials, and gets them in a second INVITE; the caller notices nothing."""
    caller, callee = Caller(), Callee()
    caller.call()
    callee.take("INVITE")
    nonce = "dcd98b7102dd2f0e8b11d0f600bfb0c093"
    callee.answer_invite(401, f'WWW-Authenticate: Digest realm="sip", nonce="{nonce}", algorithm=MD5, qop="auth"')
    callee.take("ACK")
    callee.take("INVITE", Authorization=f'username="trunk".*nonce="{nonce}".*response="[0-9a-f]*"')
    callee.answer_invite(200, body=ANSWER)
    callee.take("ACK")
    caller.bye()
    callee.take_bye()
    return caller, callee


CASES: dict[str, Callable[[], Pair]] = {
    "reliable-end-to-end": reliable_end_to_end,
    "reliable-for-the-caller": reliable_for_the_caller,
    "session-timer": session_timer,
    "interval-too-small": interval_too_small,
    "late-offer": late_offer,
    "challenged": challenged,
}


def all_cases() -> dict[str, Pair]:
    """Every case by its name, with its two sides."""
    pairs = {f"{name}-by-{side}": in_call(act, side) for name, act in ACTS.items() for side in ("caller", "callee")}
    return {**pairs, **{name: make() for name, make in CASES.items()}}


def config(ports: dict[str, int], transport: str) -> str:
    """Settings with a target and a route for each case."""
    host = "localhost" if transport == "tls" else "127.0.0.1"
    lines = ["targets:"]
    for name, port in ports.items():
        uri = f"sip:{host}:{port};transport={transport}"
        lines.append(f"  {name}: {{uri: '{uri}', username: trunk, password: secret}}")
    lines.append("routes:")
    lines += [f"  - {{targets: [{name}], header: X-Case, header_value: {name}}}" for name in ports]
    return "\n".join(lines) + "\n"


def behind_tls(stack: ExitStack, directory: Path, callee_ports: dict[str, int]) -> tuple[Trunkline, int]:
    """Trunkline with TLS on both sides, and the port of the tunnel that leads into it."""
    tunnels = stack.enter_context(TlsTunnels())
    made = make_certificate(directory / "tls", ("localhost", "127.0.0.1"))
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(made.certificate, made.key)
    targets = {name: tunnels.out_of_tls(number, server) for name, number in callee_ports.items()}
    port = free_port()
    flags = ["--listen", f"tls:127.0.0.1:{port}", "--tls-certificate", str(made.certificate)]
    flags += ["--tls-key", str(made.key), "--tls-ca", str(made.ca_file)]
    settings = config(targets, "tls")
    proxy = stack.enter_context(running_trunkline(directory, "", *flags, config=settings, port=port))
    return proxy, tunnels.into_tls(port, "localhost", ssl.create_default_context(cafile=str(made.ca_file)))


def kill_all(running: list[Sipp]) -> None:
    """End what still runs."""
    for one in running:
        one.kill()


@pytest.mark.timeout(170)
@pytest.mark.parametrize("transport", ["udp", "tcp", "tls"])
def test_in_dialog(transport: str, tmp_path: Path, require_tool: Callable[[str], str]) -> None:
    sipp = require_tool("sipp")
    cases = all_cases()
    by_sipp = "tcp" if transport == "tls" else transport
    callee_ports = {name: free_port() for name in cases}
    with ExitStack() as stack:
        if transport == "tls":
            proxy, entry = behind_tls(stack, tmp_path, callee_ports)
        else:
            settings = config(callee_ports, transport)
            proxy = stack.enter_context(running_trunkline(tmp_path, "", config=settings))
            entry = proxy.port
        running: list[Sipp] = []
        stack.callback(kill_all, running)
        for name, (_, callee) in cases.items():
            scenario = callee.write(tmp_path, f"{name}-callee")
            place = tmp_path / f"{name}-callee"
            running.append(Sipp.callee(sipp, scenario, place, callee_ports[name], CALLS, by_sipp))
        for name, (caller, _) in cases.items():
            scenario = caller.write(tmp_path, f"{name}-caller")
            tail = ("-key", "case", name, "-r", "4", f"127.0.0.1:{entry}")
            running.append(Sipp(sipp, scenario, tmp_path / f"{name}-caller", free_port(), CALLS, by_sipp, *tail))
        failures = []
        for one in reversed(running):
            try:
                one.finish()
            except AssertionError as error:
                failures.append(str(error))
        assert not failures, "\n\n".join(failures)
        ends = proxy.wait_for("call-end", len(cases) * CALLS)
    assert {event["outcome"] for event in ends} == {"answered"}
