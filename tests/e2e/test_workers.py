"""Several workers on one port: calls are spread, messages find their owner, one that dies takes only its own."""

from __future__ import annotations

import contextlib
import signal
import socket
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from proxy.sim.openai import OpenAiConfig, OpenAiSim
from proxy.sim.twilio import TwilioConfig, place_calls
from proxy.sip.message import Response
from proxy.sip.parser import StreamFramer, parse_message
from tests.support.processes import SIPP_SCENARIOS, Sipp, Trunkline, free_port, running_trunkline

FLAGS = ("--workers", "2")
BUSY = "limits: {max_lag_s: 0}\n"
"""For tests with load: a machine that has other things to do as well is no reason to refuse calls."""


def workers_of(proxy: Trunkline) -> list[int]:
    """The process ids of the workers, oldest first."""
    pid = proxy.process.pid
    return [int(item) for item in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def owners(events: list[dict[str, object]]) -> Counter[str]:
    """How many calls each worker had."""
    return Counter(str(event["call"])[0] for event in events)


async def test_calls_of_one_caller_are_spread_and_every_message_finds_its_owner(tmp_path: Path) -> None:
    """Both neighbours send all that they send from one port each, which the kernel gives to one worker."""
    async with OpenAiSim(OpenAiConfig(listen=("udp:127.0.0.1:0",), answer_after_ms=20, call_ms=2500)) as openai:
        target = f"sip:proj_x@127.0.0.1:{openai.listeners[0].port};transport=udp"
        with running_trunkline(tmp_path, target, *FLAGS, config=BUSY) as proxy:
            assert len(workers_of(proxy)) == 2
            for hang_up in ("caller", "callee"):
                report = await place_calls(
                    TwilioConfig(
                        target=f"sip:127.0.0.1:{proxy.port}",
                        calls=30,
                        rate=30,
                        hold_ms=100,
                        hang_up=hang_up,
                        media_security="rtp",
                        seed=len(hang_up),
                    )
                )
                assert report.unexpected == {}
                assert {(one.kind, one.ended_by) for one in report.results} == {("answered", hang_up)}
            ends = proxy.wait_for("call-end", 60)
    assert {(event["outcome"], len(event["attempts"])) for event in ends} == {("answered", 1)}
    assert set(owners(ends)) == {"0", "1"}


MESSAGE = """{method} {uri} SIP/2.0\r
Via: SIP/2.0/TCP 127.0.0.1:9;branch=z9hG4bK{method}{number}\r
From: <sip:+15550100002@192.0.2.10>;tag=caller{number}\r
To: {to}\r
Call-ID: workers{number}\r
CSeq: {cseq} {method}\r
Max-Forwards: 70\r
Contact: <sip:+15550100002@127.0.0.1:9;transport=tcp>\r
Content-Type: application/sdp\r
Content-Length: {length}\r
\r
{body}"""
OFFER = "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\nm=audio 9 RTP/AVP 0\r\n"


class Connection:
    """A TCP connection to the proxy."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=10)
        self.framer = StreamFramer()

    def send(self, method: str, number: int, uri: str, to: str, cseq: int, body: str = "") -> None:
        """One request."""
        text = MESSAGE.format(method=method, number=number, uri=uri, to=to, cseq=cseq, body=body, length=len(body))
        self.socket.sendall(text.encode())

    def final(self) -> Response:
        """The next final response."""
        while True:
            for data in self.framer.feed(self.socket.recv(65_536)):
                message = parse_message(data)
                if isinstance(message, Response) and message.status >= 200:
                    return message


def test_a_request_on_another_connection_is_answered_there(tmp_path: Path, require_tool: Callable[[str], str]) -> None:
    """Each call ends by a BYE on a connection of its own, which the kernel gives to this or that worker."""
    sipp, target, calls = require_tool("sipp"), free_port(), 12
    with running_trunkline(tmp_path, f"sip:127.0.0.1:{target}", *FLAGS) as proxy:
        callee = Sipp.callee(sipp, SIPP_SCENARIOS / "uas.xml", tmp_path / "callee", target, calls, "udp")
        try:
            for number in range(calls):
                first, second = Connection(proxy.port), Connection(proxy.port)
                first.send("INVITE", number, "sip:+15550100001@127.0.0.1", "<sip:+15550100001@127.0.0.1>", 1, OFFER)
                ok = first.final()
                assert ok.status == 200
                assert ok.contact is not None
                dialog = (number, ok.contact.uri_text, ok.get("to") or "")
                first.send("ACK", *dialog, 1)
                second.send("BYE", *dialog, 2)
                assert second.final().status == 200
                for connection in (first, second):
                    connection.socket.close()
            callee.finish()
        finally:
            callee.kill()
        ends = proxy.wait_for("call-end", calls)
    assert {event["outcome"] for event in ends} == {"answered"}
    assert len(owners(ends)) == 2


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_no_worker_outlives_its_supervisor(number: signal.Signals, tmp_path: Path) -> None:
    seen: list[int] = []
    with contextlib.ExitStack() as stack:
        if number == signal.SIGKILL:
            stack.enter_context(pytest.raises(AssertionError, match="exit code -9"))
        proxy = stack.enter_context(running_trunkline(tmp_path, f"sip:127.0.0.1:{free_port()}", *FLAGS))
        seen += workers_of(proxy)
        proxy.process.send_signal(number)
        proxy.process.wait(10)
    end = time.monotonic() + 10
    while any(Path(f"/proc/{pid}").exists() and not is_zombie(pid) for pid in seen):
        assert time.monotonic() < end
        time.sleep(0.05)


def is_zombie(pid: int) -> bool:
    """Whether a process has ended, and nobody has asked for its exit code."""
    try:
        return ") Z " in Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return True


def test_an_address_that_is_in_use_ends_all(tmp_path: Path) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        target = f"sip:127.0.0.1:{free_port()}"
        # Something listens there already, so that it looks as if it were up.
        with (
            pytest.raises(AssertionError, match="exit code 2"),
            running_trunkline(tmp_path, target, *FLAGS, port=port) as proxy,
        ):
            assert proxy.process.wait(10) == 2
    assert "address already in use" in proxy.output().lower()
