"""TLS for peers that speak only TCP: each tunnel takes connections on one side and makes them on the other."""

from __future__ import annotations

import asyncio
import ssl
import threading
from collections.abc import Callable, Coroutine
from typing import Any, Self, TypeVar

__all__ = ["TlsTunnels"]

T = TypeVar("T")

_STEP_S = 10.0


class TlsTunnels:
    """A thread with an event loop of its own in which tunnels run, until the `with` block ends."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._servers: list[asyncio.Server] = []
        self._tasks: set[asyncio.Task[None]] = set()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._run(self._stop)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_STEP_S)
        self._loop.close()

    def into_tls(self, port: int, server_name: str, context: ssl.SSLContext, source: str = "127.0.0.1") -> int:
        """Take TCP on a free port, connect by TLS to `port` from the address `source`. Returns the free port."""
        return self._run(lambda: self._serve(port, None, context, server_name, source))

    def out_of_tls(self, port: int, context: ssl.SSLContext) -> int:
        """Take TLS on a free port, connect by TCP to `port`. Returns the free port."""
        return self._run(lambda: self._serve(port, context, None, None))

    def _run(self, make: Callable[[], Coroutine[Any, Any, T]]) -> T:
        return asyncio.run_coroutine_threadsafe(make(), self._loop).result(_STEP_S)

    async def _serve(
        self,
        port: int,
        near: ssl.SSLContext | None,
        far: ssl.SSLContext | None,
        server_name: str | None,
        source: str = "127.0.0.1",
    ) -> int:
        async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            try:
                other = await asyncio.open_connection(
                    "127.0.0.1", port, ssl=far, server_hostname=server_name, local_addr=(source, 0)
                )
                await asyncio.gather(_copy(reader, other[1]), _copy(other[0], writer))
            except (OSError, asyncio.CancelledError):
                writer.transport.abort()

        server = await asyncio.start_server(handle, "127.0.0.1", 0, ssl=near)
        self._servers.append(server)
        found: int = server.sockets[0].getsockname()[1]
        return found

    async def _stop(self) -> None:
        for server in self._servers:
            server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Copy until the end, then say so on the other side."""
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    except OSError:
        pass
    finally:
        writer.close()
