"""Web servers in one thread of their own, with its own event loop: the calls' loop never waits for a browser."""

from __future__ import annotations

import asyncio
import socket
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

import structlog
import uvicorn
from fastapi import FastAPI

__all__ = ["Site", "WebThread"]

_STOP_S: Final = 3.0
_SWITCH_S: Final = 0.0005


class Site(NamedTuple):
    """One application and where it is served; with certificate and key by HTTPS. `most`: requests at a time."""

    name: str
    app: FastAPI
    socket: socket.socket
    certificate: Path | None = None
    key: Path | None = None
    most: int = 200

    @property
    def url(self) -> str:
        """Where it is reached, with the real port."""
        host, port = self.socket.getsockname()[:2]
        scheme = "http" if self.certificate is None else "https"
        return f"{scheme}://[{host}]:{port}/" if ":" in host else f"{scheme}://{host}:{port}/"


class WebThread:
    """Serves sites until it is stopped.

    Args:
        sites: what is served.
    """

    def __init__(self, sites: Sequence[Site]) -> None:
        self._sites = tuple(sites)
        self._servers: list[uvicorn.Server] = []
        self._thread: threading.Thread | None = None
        self._log = structlog.get_logger(__name__)

    def start(self) -> None:
        """Begin to serve.

        Threads of Python take turns: with the default of 5 ms the calls' event loop would wait that long for its turn
        while a page is made, so turns become short for the whole process.
        """
        sys.setswitchinterval(min(sys.getswitchinterval(), _SWITCH_S))
        for site in self._sites:
            config = uvicorn.Config(
                site.app,
                loop="asyncio",
                http="h11",
                ws="none",
                lifespan="on",
                log_config=None,
                access_log=False,
                server_header=False,
                timeout_keep_alive=15,
                timeout_graceful_shutdown=1,
                limit_concurrency=site.most,
                h11_max_incomplete_event_size=64 * 1024,
                ssl_certfile=site.certificate,
                ssl_keyfile=site.key,
            )
            self._servers.append(uvicorn.Server(config))
            self._log.info("web-listening", site=site.name, url=site.url)
        self._thread = threading.Thread(target=self._run, name="web", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop serving; waits up to three seconds."""
        for server in self._servers:
            server.should_exit = True
        if self._thread is not None:
            self._thread.join(_STOP_S)
        for site in self._sites:
            site.socket.close()

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except Exception:
            self._log.exception("web-failed")

    async def _serve(self) -> None:
        await asyncio.gather(
            *[server.serve(sockets=[site.socket]) for server, site in zip(self._servers, self._sites, strict=True)]
        )
