"""Connections that we open: one per hop, shared by all calls, kept alive, opened again on demand."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from typing import Final

import structlog

from proxy.audit.throttle import Throttle
from proxy.sip.flow import Flow, Hop
from proxy.transport.errors import TlsError, reason_of
from proxy.transport.stream import StreamConnection, StreamHooks, StreamSettings
from proxy.transport.tls import check_peer

__all__ = ["ConnectionPool", "Opened"]

Opened = Callable[[Flow | None, str], None]
"""Told once of the outcome: a flow and "", or None and the reason."""

_LOG_INTERVAL_S: Final = 10.0

_log = structlog.get_logger(__name__)


class ConnectionPool:
    """Kept TCP and TLS connections by hop.

    Args:
        hooks: whom the connections report to.
        settings: their limits.
        client_tls: gives the TLS context for connections; called for the first one.
        verify: whether a TLS peer must prove the server name of its hop.
        advertised: `host:port` for Via and Contact, from the transport and the local port.

    Attributes:
        all: the open connections, those that are closing included.
    """

    def __init__(
        self,
        hooks: StreamHooks,
        settings: StreamSettings,
        client_tls: Callable[[], ssl.SSLContext],
        *,
        verify: bool,
        advertised: Callable[[str, int], str],
    ) -> None:
        self._hooks = hooks
        self._settings = settings
        self._client_tls = client_tls
        self._verify = verify
        self._advertised = advertised
        self._live: dict[Hop, StreamConnection] = {}
        self._waiting: dict[Hop, list[Opened]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self.all: set[StreamConnection] = set()
        self._noted = Throttle(_LOG_INTERVAL_S)
        self._stopped = False

    def reconfigure(self, settings: StreamSettings, *, verify: bool) -> None:
        """Use other limits, and another trust, for connections that are made from now on."""
        self._settings = settings
        self._verify = verify

    def open(self, hop: Hop, done: Opened) -> None:
        """Give `done` the connection to a hop: at once where there is one, else when it is made or has failed."""
        connection = self._live.get(hop)
        if connection is not None and connection.flow is not None and not connection.flow.closed:
            done(connection.flow, "")
            return
        waiting = self._waiting.get(hop)
        if waiting is not None:
            waiting.append(done)
            return
        if self._stopped:
            done(None, "shutting down")
            return
        self._waiting[hop] = [done]
        task = asyncio.get_running_loop().create_task(self._connect(hop))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    @property
    def connecting(self) -> int:
        """How many connections are being made."""
        return len(self._waiting)

    async def _connect(self, hop: Hop) -> None:
        """Make one connection and answer all who wait for it."""
        connection: StreamConnection | None = None
        reason = "shutting down"
        try:
            connection = await self._establish(hop)
        except TlsError as error:
            reason = str(error)
        except TimeoutError as error:
            reason = (
                f"no connection within {self._settings.connect_timeout_s:g} s"
                if error.errno is None
                else reason_of(error)
            )
        except OSError as error:
            reason = reason_of(error)
        except Exception as error:
            _log.exception("connect-crashed", hop=str(hop))
            reason = reason_of(error)
        finally:
            self._answer(hop, connection, reason)

    async def _establish(self, hop: Hop) -> StreamConnection:
        """Raises TlsError, TimeoutError or OSError."""
        loop = asyncio.get_running_loop()
        server_name = hop.server_name or hop.host
        context = self._client_tls() if hop.transport == "tls" else None

        def make() -> StreamConnection:
            return StreamConnection(
                self._hooks, self._settings, outbound=True, on_lost=lambda lost: self._lost(hop, lost)
            )

        async with asyncio.timeout(self._settings.connect_timeout_s):
            if context is None:
                _, connection = await loop.create_connection(make, hop.host, hop.port)
            else:
                _, connection = await loop.create_connection(
                    make,
                    hop.host,
                    hop.port,
                    ssl=context,
                    server_hostname=server_name.strip("[]"),
                    ssl_handshake_timeout=self._settings.connect_timeout_s,
                )
        if connection.lost:
            raise ConnectionResetError(connection.why)
        if context is not None and self._verify:
            try:
                check_peer(connection.transport.get_extra_info("peercert") or {}, server_name)
            except TlsError:
                connection.abort("certificate refused")
                raise
        return connection

    def _answer(self, hop: Hop, connection: StreamConnection | None, reason: str) -> None:
        waiting = self._waiting.pop(hop, [])
        if connection is None:
            suppressed = self._noted.allow(hop, asyncio.get_running_loop().time())
            if suppressed is not None:
                _log.warning("connect-failed", hop=str(hop), reason=reason, suppressed=suppressed)
            for done in waiting:
                done(None, reason)
            return
        transport = connection.transport
        local = tuple(transport.get_extra_info("sockname")[:2])
        flow = Flow(
            hop.transport,
            local,
            (hop.host, hop.port),
            self._advertised(hop.transport, local[1]),
            server_name=hop.server_name,
            handle=connection,
        )
        self._live[hop] = connection
        self.all.add(connection)
        _log.debug("connection-opened", flow=str(flow), server_name=hop.server_name)
        connection.begin(flow)
        for done in waiting:
            done(flow, "")

    def _lost(self, hop: Hop, connection: StreamConnection) -> None:
        self.all.discard(connection)
        if self._live.get(hop) is connection:
            del self._live[hop]

    def shut(self) -> None:
        """Close every connection and give up those that are being made."""
        self._stopped = True
        for task in tuple(self._tasks):
            task.cancel()
        for connection in tuple(self.all):
            connection.close("shutting down")

    async def wait_shut(self) -> None:
        """Wait until connections that were being made have been given up."""
        if self._tasks:
            await asyncio.gather(*self._tasks, return_exceptions=True)
