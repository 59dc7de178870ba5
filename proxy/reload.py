"""What is read again while calls go on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from proxy.b2bua.config import StackConfig
from proxy.settings import SettingsError
from proxy.transport.stream import StreamSettings
from proxy.transport.tls import TlsSettings

__all__ = ["NOT_TAKEN_UP", "Reload", "RunningSettings"]

NOT_TAKEN_UP: Final = "the settings from before stay in use; rules and certificates were not read again either"

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class RunningSettings:
    """Settings that a process takes up while it runs.

    Attributes:
        config: for the stack. tls, stream: for connections that are made from now on.
        drain_s: how long calls may go on after SIGTERM.
        apply: takes up what the process itself has, such as the level of its log.
        changed: the names of what is different. waiting: of what is different and needs a restart.
    """

    config: StackConfig
    tls: TlsSettings
    stream: StreamSettings
    drain_s: float
    apply: Callable[[], None]
    changed: tuple[str, ...]
    waiting: tuple[str, ...]


class Reload(Generic[T]):
    """Reads something again and hands it over whole, or says why not. One reading at a time, in a thread.

    Args:
        load: reads and checks it. Raises SettingsError with every mistake.
        use: takes what was read; failed: takes what is wrong with it. Both are called in the event loop.
    """

    def __init__(
        self, load: Callable[[], T], use: Callable[[T], None], failed: Callable[[Sequence[str]], None]
    ) -> None:
        self._load = load
        self._use = use
        self._failed = failed
        self._task: asyncio.Task[None] | None = None
        self._again = False

    async def stop(self) -> None:
        """Let a reading end, and use it no more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def reload(self) -> None:
        """Read it again; during a reading, once more after it."""
        if self._task is not None and not self._task.done():
            self._again = True
            return
        self._task = asyncio.get_running_loop().create_task(self._read())

    async def _read(self) -> None:
        while True:
            self._again = False
            try:
                found = await asyncio.to_thread(self._load)
            except SettingsError as error:
                self._failed(error.problems)
            except Exception as error:
                self._failed([f"it can't be read: {error!r}"])
            else:
                self._use(found)
            if not self._again:
                return
