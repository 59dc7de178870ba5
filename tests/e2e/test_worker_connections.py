"""Requests in a call on a connection that the kernel gave to another worker, by TCP and TLS, from either side."""

from __future__ import annotations

import json
import signal
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from queue import Queue

import pytest

from proxy.sim.certificates import Certificate, make_certificate
from proxy.sip.message import Request
from tests.e2e.test_workers import FLAGS
from tests.support.bench import ANSWER, OFFER
from tests.support.line import Line
from tests.support.processes import Trunkline, free_port, running_trunkline

LEAST, MOST = 6, 40


class World:
    """What is at both ends of the proxy.

    Attributes:
        invites: those that the target has answered. ended: the Call-IDs of BYEs that it got.
    """

    def __init__(self, transport: str, certificate: Certificate) -> None:
        self.transport = transport
        self.server = socket.create_server(("127.0.0.1", 0))
        self.port: int = self.server.getsockname()[1]
        self.invites: Queue[Request] = Queue()
        self.ended: Queue[str] = Queue()
        self._accept: ssl.SSLContext | None = None
        self._connect: ssl.SSLContext | None = None
        if transport == "tls":
            self._accept = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self._accept.load_cert_chain(certificate.certificate, certificate.key)
            self._connect = ssl.create_default_context(cafile=str(certificate.ca_file))
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                sock, _ = self.server.accept()
            except OSError:
                return
            if self._accept is not None:
                sock = self._accept.wrap_socket(sock, server_side=True)
            threading.Thread(target=self._take, args=(Line(sock),), daemon=True).start()

    def _take(self, line: Line) -> None:
        while (message := line.next()) is not None:
            if not isinstance(message, Request):
                continue
            if message.method == "INVITE":
                line.answer(message, [f"Contact: <sip:agent@127.0.0.1:{self.port};transport={self.transport}>"], ANSWER)
                self.invites.put(message)
            elif message.method == "BYE":
                line.answer(message, [])
                self.ended.put(message.call_id)
        line.close()

    def line_to(self, port: int) -> Line:
        """A new connection to the proxy."""
        sock = socket.create_connection(("127.0.0.1", port), timeout=15)
        return Line(sock if self._connect is None else self._connect.wrap_socket(sock, server_hostname="127.0.0.1"))

    def headers(self, method: str, number: int, cseq: int, to: str) -> list[str]:
        """Those of a request of the caller."""
        name = self.transport.upper()
        return [
            f"Via: SIP/2.0/{name} 127.0.0.1:9;branch=z9hG4bK{method}{number}",
            f"From: <sip:+15550100002@192.0.2.10>;tag=caller{number}",
            f"To: {to}",
            f"Call-ID: connections{number}",
            f"CSeq: {cseq} {method}",
            "Max-Forwards: 70",
            f"Contact: <sip:+15550100002@127.0.0.1:9;transport={self.transport}>",
        ]


@contextmanager
def world(tmp_path: Path, transport: str) -> Iterator[tuple[World, Trunkline]]:
    """Two workers between a caller and a target."""
    certificate = make_certificate(tmp_path / "tls", ("127.0.0.1",))
    made, port = World(transport, certificate), free_port()
    flags = [*FLAGS, "--listen", f"{transport}:127.0.0.1:{port}", "--log-level", "info"]
    if transport == "tls":
        flags += ["--tls-certificate", str(certificate.certificate), "--tls-key", str(certificate.key)]
        flags += ["--tls-ca", str(certificate.ca_file)]
    try:
        with running_trunkline(
            tmp_path, f"sip:127.0.0.1:{made.port};transport={transport}", *flags, port=port, log_level=""
        ) as proxy:
            yield made, proxy
    finally:
        made.server.close()


def place_call(made: World, proxy: Trunkline, number: int, stack: ExitStack) -> tuple[Line, str, str]:
    """A call that is up: the caller's connection, and the Request-URI and To of its requests."""
    line = made.line_to(proxy.port)
    stack.callback(line.close)
    headers = made.headers("INVITE", number, 1, "<sip:+15550100001@127.0.0.1>")
    line.send("INVITE sip:+15550100001@127.0.0.1 SIP/2.0", headers, OFFER)
    ok = line.final()
    assert ok.status == 200
    assert ok.contact is not None
    uri, to = ok.contact.uri_text, ok.get("to") or ""
    line.send(f"ACK {uri} SIP/2.0", made.headers("ACK", number, 1, to))
    return line, uri, to


def handed_over(proxy: Trunkline) -> int:
    """How many messages workers have handed to each other until now."""
    before = len(reports(proxy))
    proxy.process.send_signal(signal.SIGUSR1)
    end = time.monotonic() + 10
    while len(reports(proxy)) < before + 2:
        assert time.monotonic() < end
        time.sleep(0.02)
    return sum(reports(proxy)[-2:])


def reports(proxy: Trunkline) -> list[int]:
    lines = [json.loads(line) for line in proxy.output().splitlines() if '"event":"tables"' in line]
    return [line["counters"]["handed_over"] for line in lines]


@pytest.mark.parametrize("side", ["caller", "target"])
@pytest.mark.parametrize("transport", ["tcp", "tls"])
def test_a_bye_on_a_connection_of_its_own_is_answered_there(tmp_path: Path, transport: str, side: str) -> None:
    with world(tmp_path, transport) as (made, proxy), ExitStack() as stack:
        for number in range(MOST):
            line, uri, to = place_call(made, proxy, number, stack)
            invite = made.invites.get(timeout=10)
            other = made.line_to(proxy.port)
            stack.callback(other.close)
            if side == "caller":
                other.send(f"BYE {uri} SIP/2.0", made.headers("BYE", number, 2, to))
                assert other.final().status == 200
                assert made.ended.get(timeout=10) == invite.call_id
            else:
                assert invite.contact is not None
                headers = [
                    f"Via: SIP/2.0/{transport.upper()} 127.0.0.1:9;branch=z9hG4bKtarget{number}",
                    f"From: {invite.get('to')};tag=target",
                    f"To: {invite.get('from')}",
                    f"Call-ID: {invite.call_id}",
                    "CSeq: 1 BYE",
                    "Max-Forwards: 70",
                ]
                other.send(f"BYE {invite.contact.uri_text} SIP/2.0", headers)
                assert other.final().status == 200
                bye = line.request()
                assert (bye.method, bye.call_id) == ("BYE", f"connections{number}")
                line.answer(bye, [])
            if number + 1 >= LEAST and handed_over(proxy) >= 2:
                break
        else:
            raise AssertionError("no message came to another worker than that which has its call")
        ends = proxy.wait_for("call-end", number + 1)
    assert {(event["outcome"], event["ended_by"]) for event in ends} == {("answered", side)}
