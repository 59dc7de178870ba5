"""Connections that nobody wants: strangers, too many of one address, silent ones, endless handshakes."""

import asyncio
import os
import ssl
from dataclasses import replace
from pathlib import Path

import pytest
import trustme

from proxy.sip.flow import Hop
from proxy.transport.errors import TlsError
from proxy.transport.stream import StreamSettings
from proxy.transport.tls import TlsSettings, server_context
from proxy.transport.watch import FileWatch
from tests.transport.conftest import Start, write_certificate
from tests.transport.peers import PATIENCE_S, close, connect, message, opened, read_to_end

BOTH = pytest.mark.parametrize("transport", ["tcp", "tls"])


async def settled(condition: object) -> None:
    """Wait until a function gives something true."""
    async with asyncio.timeout(PATIENCE_S):
        while not condition():  # type: ignore[operator]  # noqa: ASYNC110
            await asyncio.sleep(0.005)


@BOTH
async def test_stranger_is_closed_at_once(start: Start, tls: TlsSettings, transport: str) -> None:
    transports, hooks = await start(f"{transport}:127.0.0.1:0", tls=tls, welcome=lambda flow: False)
    listener = transports.listeners[0]
    reader, writer = await asyncio.open_connection(listener.host, listener.port)
    assert await read_to_end(reader) == b""
    await close(writer)
    assert transports.refused == 1
    assert transports.counters()["connections_in"] == transports.counters()["handshakes"] == 0
    assert hooks.messages == []


@BOTH
async def test_who_is_welcome_is_asked_with_address_and_listener(
    start: Start, tls: TlsSettings, transport: str
) -> None:
    asked: list[tuple[str, str, str]] = []

    def welcome(flow: object) -> bool:
        asked.append((flow.transport, flow.remote[0], flow.listener))  # type: ignore[attr-defined]
        return True

    transports, hooks = await start(f"{transport}:127.0.0.1:0", tls=tls, welcome=welcome)
    _, writer = await connect(transports, trust=str(tls.ca_file))
    writer.write(message("one"))
    await hooks.until_messages(1)
    assert asked == [(transport, "127.0.0.1", str(transports.listeners[0]))]
    await close(writer)


@BOTH
async def test_connections_of_one_address_have_a_limit_and_free_places_are_given_again(
    start: Start, tls: TlsSettings, transport: str
) -> None:
    stream = StreamSettings(max_connections_per_address=2)
    transports, hooks = await start(f"{transport}:127.0.0.1:0", tls=tls, stream=stream)
    first = await connect(transports, trust=str(tls.ca_file))
    second = await connect(transports, trust=str(tls.ca_file))
    listener = transports.listeners[0]
    reader, third = await asyncio.open_connection(listener.host, listener.port)
    assert await read_to_end(reader) == b""
    await close(third)
    await close(first[1])
    await settled(lambda: transports.counters()["connections_in"] == 1)
    fourth = await connect(transports, trust=str(tls.ca_file))
    fourth[1].write(message("four"))
    await hooks.until_messages(1)
    for _, writer in (second, fourth):
        await close(writer)
    await settled(lambda: not transports.counters()["connection_sources"])


async def test_handshakes_have_a_limit_and_a_time(start: Start, tls: TlsSettings) -> None:
    stream = StreamSettings(max_handshakes=3, handshake_timeout_s=0.3)
    transports, _ = await start("tls:127.0.0.1:0", tls=tls, stream=stream)
    listener = transports.listeners[0]
    silent = [await asyncio.open_connection(listener.host, listener.port) for _ in range(3)]
    await settled(lambda: transports.counters()["handshakes"] == 3)
    reader, writer = await asyncio.open_connection(listener.host, listener.port)
    assert await read_to_end(reader) == b""
    for one, _ in silent:
        assert await read_to_end(one) == b""
    await settled(lambda: not transports.counters()["connection_sources"])
    for _, one_writer in (*silent, (reader, writer)):
        await close(one_writer)


@BOTH
async def test_connection_that_never_says_anything_is_closed_soon(
    start: Start, tls: TlsSettings, transport: str
) -> None:
    stream = StreamSettings(first_message_timeout_s=0.2, idle_timeout_s=60)
    transports, _ = await start(f"{transport}:127.0.0.1:0", tls=tls, stream=stream)
    silent = await connect(transports, trust=str(tls.ca_file))
    pinging = await connect(transports, trust=str(tls.ca_file))
    pinging[1].write(b"\r\n\r\n")
    speaking = await connect(transports, trust=str(tls.ca_file))
    speaking[1].write(message("one"))
    assert await read_to_end(silent[0]) == b""
    assert await read_to_end(pinging[0]) == b"\r\n"
    await settled(lambda: transports.counters()["connections_in"] == 1)
    for _, writer in (silent, pinging, speaking):
        await close(writer)


async def test_size_of_a_message_has_a_limit(start: Start, tls: TlsSettings) -> None:
    transports, hooks = await start("tcp:127.0.0.1:0", stream=StreamSettings(max_message_bytes=2000))
    _, writer = await connect(transports)
    writer.write(message("large", b"x" * 2000))
    await hooks.until(lambda: hooks.errors)
    assert hooks.errors[0][1].status == 513
    await close(writer)


# Client certificates


@pytest.fixture
def mutual(authority: trustme.CA, ca_file: Path, tmp_path: Path) -> TlsSettings:
    plain = write_certificate(tmp_path, authority, ca_file, "sip.example.com", "127.0.0.1")
    return TlsSettings(plain.certificate, plain.key, ca_file, client_certificates="required", client_ca_file=ca_file)


async def talk(transports: object, context: ssl.SSLContext) -> bytes:
    """Send a ping by TLS; what comes back."""
    listener = transports.listeners[0]  # type: ignore[attr-defined]
    reader, writer = await asyncio.open_connection(
        listener.host, listener.port, ssl=context, server_hostname="sip.example.com"
    )
    try:
        writer.write(b"\r\n\r\n")
        return await asyncio.wait_for(reader.read(2), PATIENCE_S)
    except (ssl.SSLError, ConnectionError):
        return b""
    finally:
        await close(writer)


async def test_caller_without_a_good_certificate_is_refused(
    start: Start, mutual: TlsSettings, authority: trustme.CA, ca_file: Path
) -> None:
    transports, _ = await start("tls:127.0.0.1:0", tls=mutual)
    bare = ssl.create_default_context(cafile=ca_file)
    assert await talk(transports, bare) == b""
    other = ssl.create_default_context(cafile=ca_file)
    trustme.CA().issue_cert("carrier.example.com").configure_cert(other)
    assert await talk(transports, other) == b""
    good = ssl.create_default_context(cafile=ca_file)
    authority.issue_cert("carrier.example.com").configure_cert(good)
    assert await talk(transports, good) == b"\r\n"


async def test_our_connections_show_our_certificate_to_who_asks(start: Start, mutual: TlsSettings) -> None:
    target, hooks = await start("tls:127.0.0.1:0", tls=mutual)
    caller, _ = await start(tls=mutual)

    flow = await opened(caller, Hop("tls", "127.0.0.1", target.listeners[0].port, "sip.example.com"))
    caller.send(flow, message("mutual"))
    await hooks.until_messages(1)


def test_client_certificates_need_their_authorities(mutual: TlsSettings) -> None:
    with pytest.raises(TlsError, match="client_ca_file"):
        server_context(TlsSettings(mutual.certificate, mutual.key, client_certificates="required"))


def test_weak_ciphers_are_not_spoken(tls: TlsSettings) -> None:
    names = {cipher["name"] for cipher in server_context(tls).get_ciphers()}
    assert names
    assert all(name.startswith(("TLS_", "ECDHE-")) and ("GCM" in name or "CHACHA20" in name) for name in names)
    with pytest.raises(TlsError, match="NOTHING"):
        server_context(TlsSettings(tls.certificate, tls.key, ciphers="NOTHING"))


# Replaced files


async def test_replaced_certificate_is_for_new_connections_and_open_ones_stay(
    start: Start, authority: trustme.CA, ca_file: Path, tmp_path: Path
) -> None:
    settings = write_certificate(tmp_path, authority, ca_file, "sip.example.com", "127.0.0.1")
    transports, hooks = await start("tls:127.0.0.1:0", tls=settings)
    watch = FileWatch(settings.files(), 0.02, transports.reload_certificate)
    watch.start()
    old = await connect(transports, trust=str(ca_file))
    fresh = tmp_path / "new"
    fresh.mkdir()
    new = write_certificate(fresh, authority, ca_file, "sip.example.com", "127.0.0.1")
    assert settings.certificate is not None
    assert settings.key is not None
    assert new.certificate is not None
    assert new.key is not None
    old_serial = old[1].get_extra_info("peercert")["serialNumber"]
    before = transports._server_tls
    os.replace(new.key, settings.key)
    os.replace(new.certificate, settings.certificate)
    await settled(lambda: transports._server_tls is not before)
    after = await connect(transports, trust=str(ca_file))
    assert after[1].get_extra_info("peercert")["serialNumber"] != old_serial
    old[1].write(message("old"))
    after[1].write(message("new"))
    await hooks.until_messages(2)
    watch.stop()
    for _, writer in (old, after):
        await close(writer)


async def test_certificate_that_can_not_be_used_leaves_the_old_one(
    start: Start, authority: trustme.CA, ca_file: Path, tmp_path: Path
) -> None:
    settings = write_certificate(tmp_path, authority, ca_file, "sip.example.com", "127.0.0.1")
    transports, hooks = await start("tls:127.0.0.1:0", tls=settings)
    assert settings.certificate is not None
    settings.certificate.write_text("no certificate")
    with pytest.raises(TlsError):
        transports.reload_certificate()
    _, writer = await connect(transports, trust=str(ca_file))
    writer.write(message("still"))
    await hooks.until_messages(1)
    await close(writer)


async def test_another_certificate_and_other_limits_are_for_new_connections(
    start: Start, authority: trustme.CA, ca_file: Path, tmp_path: Path
) -> None:
    settings = write_certificate(tmp_path, authority, ca_file, "sip.example.com", "127.0.0.1")
    transports, hooks = await start("tls:127.0.0.1:0", tls=settings)
    old = await connect(transports, trust=str(ca_file))
    other = tmp_path / "other"
    other.mkdir()
    new = write_certificate(other, authority, ca_file, "sip.example.com", "127.0.0.1")
    with pytest.raises(TlsError):
        transports.reconfigure(replace(new, key=tmp_path / "nowhere"), StreamSettings(max_connections=1))
    between = await connect(transports, trust=str(ca_file))
    transports.reconfigure(new, StreamSettings(max_connections=3))
    after = await connect(transports, trust=str(ca_file))
    serials = [writer.get_extra_info("peercert")["serialNumber"] for _, writer in (old, between, after)]
    assert serials[0] == serials[1] != serials[2]
    assert transports.files() == new.files()
    await settled(lambda: transports.counters()["connections_in"] == 3)
    with pytest.raises(OSError):  # noqa: PT011 - refused in this way or that
        await connect(transports, trust=str(ca_file))
    assert transports.refused == 1
    for at, (_, writer) in enumerate((old, between, after)):
        writer.write(message(f"m{at}"))
    await hooks.until_messages(3)
    for _, writer in (old, between, after):
        await close(writer)
