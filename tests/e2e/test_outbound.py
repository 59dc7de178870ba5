"""The way out: OpenAI's side calls over TLS, Twilio's termination asks for credentials and takes the call; and the way
in through the same process, so that each direction has its own trunk, target and rule set."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

from proxy.sim.certificates import make_certificate
from tests.support.processes import Sipp, free_port, running_trunkline
from tests.support.scenarios import ANSWER, OFFER, Callee, Caller
from tests.support.tls_tunnel import TlsTunnels

CALLS = 5
OPUS_OFFER = OFFER.replace(" 0 8 101", " 107 0 101").replace("a=rtpmap:8 PCMA/8000", "a=rtpmap:107 opus/48000/2")

SETTINGS = """
allow: []
trunks:
  twilio: {{allow: [127.0.0.0/8], listener: "udp:127.0.0.1:{udp}"}}
  openai: {{allow: [127.0.0.0/8], listener: "tls:127.0.0.1:{tls}"}}
targets:
  agent: {{uri: "sip:agent@localhost:{agent};transport=tls"}}
  pstn: {{uri: "sip:127.0.0.1:{pstn}", username: trunk, password: secret}}
routes:
  - {{trunk: twilio, targets: [agent], rules: twilio-openai}}
  - {{trunk: openai, dialed: "+1*", targets: [pstn], rules: openai-twilio}}
  - {{trunk: openai, dialed: "5550*", targets: [pstn], rules: openai-twilio}}
"""


def the_way_out() -> tuple[Caller, Callee]:
    caller, callee = Caller(), Callee()
    caller.invite(body=OPUS_OFFER)
    caller.expect(100, optional=True)
    caller.expect(180, optional=True)
    caller.expect(200)
    caller.ack()
    caller.pause(100)
    caller.bye()
    callee.take("INVITE", body="RTP/AVP 0 101")
    nonce = "a1b2c3d4e5"
    callee.answer_invite(407, f'Proxy-Authenticate: Digest realm="sip.twilio.com", nonce="{nonce}", qop="auth"')
    callee.take("ACK")
    callee.take("INVITE", Proxy_Authorization=f'username="trunk".*nonce="{nonce}"')
    callee.answer_invite(180)
    callee.answer_invite(200, body=ANSWER)
    callee.take("ACK")
    callee.take_bye()
    return caller, callee


def the_way_in() -> tuple[Caller, Callee]:
    caller, callee = Caller(), Callee()
    caller.call()
    caller.bye()
    callee.take("INVITE", X_Trunkline_Attempt="1")
    callee.answer_invite(200, body=ANSWER)
    callee.take("ACK")
    callee.take_bye()
    return caller, callee


@pytest.mark.timeout(60)
def test_both_directions_in_one_process(tmp_path: Path, require_tool: Callable[[str], str]) -> None:
    sipp = require_tool("sipp")
    udp, tls, agent, pstn = free_port(), free_port(), free_port(), free_port()
    made = make_certificate(tmp_path / "tls", ("localhost", "127.0.0.1"))
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(made.certificate, made.key)
    flags = ["--listen", f"udp:127.0.0.1:{udp}", "--listen", f"tls:127.0.0.1:{tls}"]
    flags += ["--tls-certificate", str(made.certificate), "--tls-key", str(made.key), "--tls-ca", str(made.ca_file)]
    with ExitStack() as stack:
        tunnels = stack.enter_context(TlsTunnels())
        settings = SETTINGS.format(udp=udp, tls=tls, agent=tunnels.out_of_tls(agent, server), pstn=pstn)
        proxy = stack.enter_context(
            running_trunkline(tmp_path, "", *flags, config=settings, port=tls, rules="", allow="")
        )
        entry = tunnels.into_tls(tls, "localhost", ssl.create_default_context(cafile=str(made.ca_file)))
        running: list[Sipp] = []
        stack.callback(kill_all, running)
        plan = [("out", the_way_out(), "tcp", entry, "udp", pstn), ("in", the_way_in(), "udp", udp, "tcp", agent)]
        for name, (_, callee), _, _, transport, port in plan:
            scenario = callee.write(tmp_path, f"{name}-callee")
            running.append(Sipp.callee(sipp, scenario, tmp_path / f"{name}-callee", port, CALLS, transport))
        for name, (caller, _), transport, port, _, _ in plan:
            scenario = caller.write(tmp_path, f"{name}-caller")
            tail = ("-key", "case", name, "-r", "10", f"127.0.0.1:{port}")
            running.append(Sipp(sipp, scenario, tmp_path / f"{name}-caller", free_port(), CALLS, transport, *tail))
        for one in reversed(running):
            one.finish()
        ends = proxy.wait_for("call-end", 2 * CALLS)
    assert sorted((event["trunk"], event["outcome"], event["attempts"][0]["rules"]) for event in ends) == [
        *[("openai", "answered", "openai-twilio")] * CALLS,
        *[("twilio", "answered", "twilio-openai")] * CALLS,
    ]
    assert all(len(event["attempts"]) == 1 for event in ends)


def kill_all(running: list[Sipp]) -> None:
    """End what still runs."""
    for one in running:
        one.kill()
