"""Connections that we open: sharing, keep-alives, failures and the proof of the peer's name."""

import asyncio
import dataclasses
import datetime
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key
from structlog.testing import capture_logs

from proxy.sip.flow import Flow, Hop
from proxy.transport.stream import StreamSettings
from proxy.transport.tls import TlsSettings, server_context
from tests.transport.conftest import Start
from tests.transport.peers import message, open_flow, opened, refused

BRISK = StreamSettings(connect_timeout_s=0.3, keepalive_s=0.05, pong_timeout_s=0.2, outbound_idle_timeout_s=600)


class Server:
    """A peer that we connect to; it notes what it gets and answers pings when told so."""

    def __init__(self) -> None:
        self.port = 0
        self.received = bytearray()
        self.writers: list[asyncio.StreamWriter] = []
        self.pongs = False
        self.news = asyncio.Event()

    @property
    def connections(self) -> int:
        return len(self.writers)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writers.append(writer)
        self.news.set()
        try:
            while data := await reader.read(65536):
                self.received += data
                if self.pongs and data.endswith(b"\r\n\r\n"):
                    writer.write(b"\r\n")
                self.news.set()
        except ConnectionError:
            pass
        finally:
            writer.close()

    async def until(self, condition: Callable[[], object]) -> None:
        async with asyncio.timeout(5):
            while not condition():
                self.news.clear()
                await self.news.wait()


Serve = Callable[..., Awaitable[Server]]


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    running: list[tuple[asyncio.Server, Server]] = []

    async def make(context: ssl.SSLContext | None = None) -> Server:
        server = Server()
        listening = await asyncio.start_server(server.serve, "127.0.0.1", 0, ssl=context)
        server.port = listening.sockets[0].getsockname()[1]
        running.append((listening, server))
        return server

    yield make
    for listening, server in running:
        listening.close()
        for writer in server.writers:
            writer.transport.abort()
        await listening.wait_closed()
    await asyncio.sleep(0.01)


def hop_to(server: Server, server_name: str = "") -> Hop:
    return Hop("tls" if server_name else "tcp", "127.0.0.1", server.port, server_name)


async def test_connection_is_made_once_and_shared(start: Start, serve: Serve, tls: TlsSettings) -> None:
    server = await serve(server_context(tls))
    transports, hooks = await start(tls=tls, public_address="203.0.113.7")
    hop = hop_to(server, "sip.example.com")
    flows = await asyncio.gather(*[opened(transports, hop) for _ in range(5)])
    assert len(set(flows)) == 1
    flow = flows[0]
    assert (flow.transport, flow.listener, flow.server_name) == ("tls", "", "sip.example.com")
    assert flow.remote == ("127.0.0.1", server.port)
    assert flow.advertised == f"203.0.113.7:{flow.local[1]}"
    answers: list[Flow | None] = []
    transports.open(hop, lambda flow, _: answers.append(flow))
    assert answers == [flow], "a kept connection needs no waiting"
    transports.send(flow, message("1"))
    await server.until(lambda: server.received == message("1"))
    assert server.connections == 1
    server.writers[0].write(message("from the target"))
    await hooks.until_messages(1)
    assert hooks.messages == [(message("from the target"), flow)]


async def test_our_connection_advertises_the_listener_of_its_transport(
    start: Start, serve: Serve, tls: TlsSettings
) -> None:
    server = await serve()
    transports, _ = await start("tls:127.0.0.1:0", "tcp:127.0.0.1:0", "tcp:127.0.0.1:0", tls=tls)
    flow = await opened(transports, hop_to(server))
    assert flow.advertised == f"127.0.0.1:{transports.listeners[1].port}"


async def test_hops_are_kept_apart(start: Start, serve: Serve, tls: TlsSettings) -> None:
    server = await serve(server_context(tls))
    transports, _ = await start(tls=tls)
    first = await opened(transports, hop_to(server, "sip.example.com"))
    second = await opened(transports, hop_to(server, "127.0.0.1"))
    assert first is not second
    assert await opened(transports, hop_to(server, "sip.example.com")) is first


async def test_lost_connection_is_reported_and_made_anew_on_demand(start: Start, serve: Serve) -> None:
    server = await serve()
    transports, hooks = await start()
    flow = await opened(transports, hop_to(server))
    await server.until(lambda: server.connections == 1)
    server.writers[0].close()
    await hooks.until(lambda: hooks.ended == [flow])
    again = await opened(transports, hop_to(server))
    assert again is not flow
    assert not again.closed
    assert transports.counters()["connections_out"] == 1


async def test_closing_connection_is_not_given_out_again(start: Start, serve: Serve) -> None:
    server = await serve()
    transports, hooks = await start()
    flow = await opened(transports, hop_to(server))
    transports.close_flow(flow, "broken stream")
    again = await opened(transports, hop_to(server))
    assert again is not flow
    await hooks.until(lambda: hooks.ended)
    assert hooks.ended == [flow]
    assert await opened(transports, hop_to(server)) is again


async def test_end_of_an_old_connection_leaves_the_new_one_in_the_pool(start: Start, serve: Serve) -> None:
    server = await serve()
    transports, hooks = await start(stream=StreamSettings(write_buffer_bytes=64 * 1024 * 1024))
    flow = await opened(transports, hop_to(server))
    await server.until(lambda: server.connections == 1)
    server.writers[0].transport.pause_reading()  # type: ignore[attr-defined]
    transports.send(flow, bytes(16 * 1024 * 1024))
    transports.close_flow(flow, "lingers, since the peer does not read")
    again = await opened(transports, hop_to(server))
    assert hooks.ended == []
    server.writers[0].transport.abort()
    await hooks.until(lambda: hooks.ended == [flow])
    assert await opened(transports, hop_to(server)) is again
    assert transports.counters()["connections_out"] == 1


async def test_refused_connection_is_told_to_all_who_wait_and_logged_once(start: Start, serve: Serve) -> None:
    transports, _ = await start()
    hop = Hop("tcp", "127.0.0.1", 1)
    with capture_logs() as logs:
        outcomes = await asyncio.gather(*[open_flow(transports, hop) for _ in range(3)])
        await open_flow(transports, hop)
    assert outcomes == [(None, "connection refused")] * 3
    assert [(line["event"], line["hop"]) for line in logs] == [("connect-failed", "tcp:127.0.0.1:1")]
    assert transports.counters()["connecting"] == 0


async def test_connection_that_takes_too_long_is_given_up(start: Start, serve: Serve) -> None:
    server = await serve()  # takes the connection, but never speaks TLS
    transports, _ = await start(stream=BRISK)
    assert await refused(transports, hop_to(server, "sip.example.com")) == "no connection within 0.3 s"


async def test_stop_answers_those_who_wait(start: Start, serve: Serve) -> None:
    server = await serve()
    transports, _ = await start()
    waiting = asyncio.create_task(open_flow(transports, hop_to(server, "sip.example.com")))
    await server.until(lambda: server.connections)
    await transports.stop()
    assert await waiting == (None, "shutting down")
    assert await open_flow(transports, hop_to(server)) == (None, "shutting down")


async def test_pings_are_sent_and_a_peer_that_never_answers_them_is_kept(start: Start, serve: Serve) -> None:
    server = await serve()
    transports, hooks = await start(stream=dataclasses.replace(BRISK, pong_timeout_s=0.01))
    flow = await opened(transports, hop_to(server))
    await server.until(lambda: server.received.count(b"\r\n\r\n") >= 3)
    assert not flow.closed
    assert hooks.messages == []


async def test_peer_that_stops_answering_pings_is_dead(start: Start, serve: Serve) -> None:
    server = await serve()
    server.pongs = True
    transports, hooks = await start(stream=dataclasses.replace(BRISK, pong_timeout_s=0.05))
    flow = await opened(transports, hop_to(server))
    await server.until(lambda: server.received.count(b"\r\n\r\n") >= 3)
    assert not flow.closed
    server.pongs = False
    await hooks.until(lambda: hooks.ended == [flow])


async def test_unused_connection_is_closed_after_long(start: Start, serve: Serve) -> None:
    server = await serve()
    server.pongs = True
    transports, hooks = await start(stream=dataclasses.replace(BRISK, outbound_idle_timeout_s=0.15))
    flow = await opened(transports, hop_to(server))
    hooks.used.add(flow)
    await asyncio.sleep(0.3)
    assert not flow.closed
    hooks.used.clear()
    await hooks.until(lambda: hooks.ended == [flow])


async def test_certificate_for_another_name_is_refused_with_its_names(
    start: Start, serve: Serve, tls: TlsSettings
) -> None:
    server = await serve(server_context(tls))
    transports, hooks = await start(tls=tls)
    reason = await refused(transports, hop_to(server, "sip.other.example"))
    assert reason == "certificate of sip.other.example is valid for sip.example.com, 127.0.0.1 only"
    await asyncio.sleep(0.02)
    assert server.received == b""
    assert hooks.ended == []


async def test_certificate_of_an_unknown_authority_is_refused(start: Start, serve: Serve, tls: TlsSettings) -> None:
    server = await serve(server_context(tls))
    transports, _ = await start()
    reason = await refused(transports, hop_to(server, "sip.example.com"))
    assert reason == "certificate refused: unable to get local issuer certificate"


async def test_verification_can_be_turned_off_with_a_warning(start: Start, serve: Serve, tls: TlsSettings) -> None:
    server = await serve(server_context(tls))
    with capture_logs() as logs:
        transports, _ = await start(tls=TlsSettings(verify=False))
    assert [(line["event"], line["log_level"]) for line in logs] == [("tls-verification-off", "warning")]
    flow = await opened(transports, hop_to(server, "sip.other.example"))
    transports.send(flow, message("1"))
    await server.until(lambda: server.received == message("1"))


async def test_certificate_may_prove_a_sip_domain_by_a_uri_alone(
    start: Start, serve: Serve, authority: trustme.CA, ca_file: Path, tmp_path: Path
) -> None:
    settings = dataclasses.replace(uri_certificate(authority, tmp_path, "sip:example.net"), ca_file=ca_file)
    server = await serve(server_context(settings))
    transports, _ = await start(tls=settings)
    flow = await opened(transports, hop_to(server, "example.net"))
    assert flow.server_name == "example.net"
    reason = await refused(transports, hop_to(server, "www.example.net"))
    assert reason == "certificate of www.example.net is valid for example.net only"


def uri_certificate(authority: trustme.CA, where: Path, uri: str) -> TlsSettings:
    """A certificate whose only SIP name is a URI (RFC 5922 section 7.1), beside a DNS name that must not count."""
    issuer = x509.load_pem_x509_certificate(authority.cert_pem.bytes())
    issuer_key = load_pem_private_key(authority.private_key_pem.bytes(), None)
    assert isinstance(issuer_key, ec.EllipticCurvePrivateKey)
    key = ec.generate_private_key(ec.SECP256R1())
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([]))
        .issuer_name(issuer.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri), x509.DNSName("www.example.net")]),
            critical=True,
        )
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False)
        .sign(issuer_key, hashes.SHA256())
    )
    (where / "uri.crt").write_bytes(certificate.public_bytes(Encoding.PEM))
    (where / "uri.key.pem").write_bytes(
        key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
    )
    return TlsSettings(certificate=where / "uri.crt", key=where / "uri.key.pem")
