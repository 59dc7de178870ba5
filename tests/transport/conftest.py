"""The transports run on uvloop, as in production; certificates are real."""

import asyncio
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import trustme
import uvloop

from proxy.transport.listener import Listener, parse_listener
from proxy.transport.manager import Transports
from proxy.transport.stream import StreamSettings
from proxy.transport.tls import TlsSettings
from tests.transport.peers import Hooks, UdpPeer, open_udp_peer


class CheckedLoop(uvloop.Loop):
    """Raises for what a test left open, after it has closed. A warning raised inside `close` would hang uvloop."""

    def close(self) -> None:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            super().close()
        for warning in caught:
            warnings.warn(warning.message, stacklevel=2)


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    return {"uvloop": CheckedLoop}


@pytest.fixture(scope="session")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="session")
def ca_file(authority: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("ca") / "ca.crt"
    authority.cert_pem.write_to_path(str(path))
    return path


@pytest.fixture(scope="session")
def tls(authority: trustme.CA, ca_file: Path, tmp_path_factory: pytest.TempPathFactory) -> TlsSettings:
    """Settings of a host `sip.example.com` at 127.0.0.1 that trusts the authority."""
    return write_certificate(tmp_path_factory.mktemp("server"), authority, ca_file, "sip.example.com", "127.0.0.1")


def write_certificate(where: Path, authority: trustme.CA, ca_file: Path, *names: str) -> TlsSettings:
    issued = authority.issue_cert(*names)
    certificate, key = where / "server.crt", where / "server.key.pem"
    key.write_bytes(issued.private_key_pem.bytes())
    certificate.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
    return TlsSettings(certificate=certificate, key=key, ca_file=ca_file)


Start = Callable[..., Awaitable[tuple[Transports, Hooks]]]


@pytest.fixture
async def start() -> AsyncIterator[Start]:
    """`await start("udp:127.0.0.1:0", …, tls=…, stream=…)` gives running transports and what they report to."""
    running: list[Transports] = []

    async def make(
        *texts: str | Listener,
        tls: TlsSettings | None = None,
        stream: StreamSettings | None = None,
        **options: Any,
    ) -> tuple[Transports, Hooks]:
        hooks = Hooks()
        transports = Transports(hooks, tls=tls, stream=stream, **options)
        running.append(transports)
        await transports.start([text if isinstance(text, Listener) else parse_listener(text) for text in texts])
        return transports, hooks

    yield make
    for transports in running:
        await transports.stop()


MakePeer = Callable[..., Awaitable[UdpPeer]]


@pytest.fixture
async def udp_peer() -> AsyncIterator[MakePeer]:
    """`await udp_peer()` gives a UDP socket on loopback."""
    peers: list[UdpPeer] = []

    async def make(host: str = "127.0.0.1") -> UdpPeer:
        peers.append(await open_udp_peer(host))
        return peers[-1]

    yield make
    for peer in peers:
        peer.close()
    await asyncio.sleep(0)
