"""A caller whose TCP connection breaks while it rings, over real sockets; the target is SIPp."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.processes import Sipp, free_port, running_trunkline
from tests.support.scenarios import ANSWER, Callee

OFFER = (
    "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\nm=audio 4000 RTP/AVP 0\r\n"
    "a=rtpmap:0 PCMU/8000\r\n"
)


class Caller:
    """One that calls from a port of its system's choice and says in Via where it listens."""

    def __init__(self, proxy_port: int, own_port: int) -> None:
        self._own = own_port
        self._to = ""
        self.connection = socket.create_connection(("127.0.0.1", proxy_port), timeout=10)
        self._buffer = b""

    def lose(self) -> None:
        """The connection is gone."""
        self.connection.close()
        self._buffer = b""

    def say(self, method: str, cseq: int, body: str = "") -> None:
        """Send a request of the call."""
        lines = [
            f"{method} sip:+15550100001@127.0.0.1 SIP/2.0",
            f"Via: SIP/2.0/TCP 127.0.0.1:{self._own};branch=z9hG4bKway{method}{cseq}",
            "Max-Forwards: 70",
            "From: <sip:+15550100002@127.0.0.1>;tag=way",
            f"To: {self._to or '<sip:+15550100001@127.0.0.1>'}",
            "Call-ID: way@127.0.0.1",
            f"CSeq: {cseq} {method}",
            f"Contact: <sip:way@127.0.0.1:{self._own};transport=tcp>",
            *(["Content-Type: application/sdp"] if body else []),
            f"Content-Length: {len(body)}",
        ]
        self.connection.sendall("\r\n".join([*lines, "", body]).encode())

    def hears(self) -> str:
        """The status line of the next response; its To becomes ours."""
        while b"\r\n\r\n" not in self._buffer:
            self._more()
        head, _, rest = self._buffer.partition(b"\r\n\r\n")
        lines = head.decode().split("\r\n")
        fields = dict(line.split(": ", 1) for line in lines[1:])
        length = int(fields["Content-Length"])
        while len(rest) < length:
            self._more()
            rest = self._buffer.partition(b"\r\n\r\n")[2]
        self._buffer = rest[length:]
        self._to = fields["To"] if "tag=" in fields["To"] else self._to
        return lines[0]

    def _more(self) -> None:
        data = self.connection.recv(65_536)
        assert data
        self._buffer += data


def ringing(sipp: str, tmp_path: Path, port: int) -> Sipp:
    """A target that rings for a second and answers."""
    callee = Callee()
    callee.take("INVITE")
    callee.answer_invite(180)
    callee.pause(1000)
    callee.answer_invite(200, body=ANSWER)
    callee.take("ACK")
    callee.take_bye()
    return Sipp.callee(sipp, callee.write(tmp_path, "callee"), tmp_path / "callee", port, 1, "udp")


@pytest.mark.parametrize("listens", [True, False])
def test_caller_is_called_back_where_it_listens(
    tmp_path: Path, require_tool: Callable[[str], str], *, listens: bool
) -> None:
    target, own = free_port(), free_port()
    with running_trunkline(tmp_path, f"sip:127.0.0.1:{target}") as proxy, socket.socket() as listener:
        sipp = ringing(require_tool("sipp"), tmp_path, target)
        try:
            if listens:
                listener.bind(("127.0.0.1", own))
                listener.listen()
                listener.settimeout(10)
            caller = Caller(proxy.port, own)
            caller.say("INVITE", 1, OFFER)
            assert [caller.hears(), caller.hears()] == ["SIP/2.0 100 Trying", "SIP/2.0 180 Ringing"]
            caller.lose()
            if listens:
                caller.connection, _ = listener.accept()
                caller.connection.settimeout(10)
                assert caller.hears() == "SIP/2.0 200 OK"
                caller.say("ACK", 1)
                caller.say("BYE", 2)
                assert caller.hears() == "SIP/2.0 200 OK"
                caller.lose()
            sipp.finish()
        finally:
            sipp.kill()
        (end,) = proxy.wait_for("call-end", 1)
    assert (end["outcome"], end["ended_by"]) == (("answered", "caller") if listens else ("cancelled", "transport"))
