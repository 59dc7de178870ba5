"""Lines to a stream without ever making the caller wait, and without ever raising."""

from __future__ import annotations

import asyncio
import threading
from queue import SimpleQueue
from typing import Final, Protocol

__all__ = ["ByteStream", "LineWriter"]

_FLUSH_S: Final = 0.1
_BATCH_BYTES: Final = 64 * 1024
_BACKLOG_BYTES: Final = 16 * 1024 * 1024
_CLOSE_S: Final = 2.0


class ByteStream(Protocol):
    """What of a binary stream is used."""

    def write(self, data: bytes, /) -> object:
        """Write bytes."""

    def flush(self) -> object:
        """Let them out."""

    def close(self) -> object:
        """Close the stream."""


class LineWriter:
    """Collects lines and writes them from a thread of its own, in order.

    A batch leaves after 100 ms or 64 KiB. A reader that is stuck (a full pipe, a slow disk) delays nobody: up to 16 MiB
    wait for it, and what goes beyond is dropped and counted. A stream that fails is not written to again.

    Args:
        stream: a binary stream; it is flushed after each batch.
        owned: whether `close` closes the stream.

    Attributes:
        dropped: how many lines were lost.
        error: why the stream failed, or "".
    """

    def __init__(self, stream: ByteStream, *, owned: bool = False) -> None:
        self.dropped = 0
        self.error = ""
        self._stream = stream
        self._owned = owned
        self._lines: list[bytes] = []
        self._size = 0
        self._queue: SimpleQueue[tuple[bytes, int] | None] = SimpleQueue()
        self._lock = threading.Lock()
        self._owner = threading.get_ident()
        self._queued = 0
        self._written = 0
        self._thread: threading.Thread | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False

    @property
    def waiting(self) -> int:
        """Bytes that were handed to the thread and are not written yet."""
        return self._queued - self._written

    def write(self, line: bytes) -> None:
        """Add one line, which ends with a line feed. Any thread may."""
        if self._closed or self.error:
            self.dropped += 1
            return
        if threading.get_ident() != self._owner:
            self._hand_over([line], len(line))  # neither what is collected nor the loop's timer is theirs
            return
        self._lines.append(line)
        self._size += len(line)
        if self._size >= _BATCH_BYTES:
            self.flush()
        elif self._timer is None:
            try:
                self._timer = asyncio.get_running_loop().call_later(_FLUSH_S, self.flush)
            except RuntimeError:  # no event loop: before it starts, or after it has ended
                self.flush()

    def flush(self) -> None:
        """Hand over what was collected to the thread."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        lines, self._lines, size, self._size = self._lines, [], self._size, 0
        if lines:
            self._hand_over(lines, size)

    def _hand_over(self, lines: list[bytes], size: int) -> None:
        with self._lock:
            if self.waiting + size > _BACKLOG_BYTES:
                self.dropped += len(lines)
                return
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="log-writer", daemon=True)
                self._thread.start()
            self._queued += size
            self._queue.put((b"".join(lines), len(lines)))

    def close(self) -> None:
        """Write what is left, for up to two seconds, and end."""
        if self._closed:
            return
        self.flush()
        self._closed = True
        if self._thread is not None:
            self._queue.put(None)
            self._thread.join(_CLOSE_S)
        if self._owned and (self._thread is None or not self._thread.is_alive()):
            try:
                self._stream.close()
            except (OSError, ValueError) as error:
                self.error = self.error or str(error)

    def _run(self) -> None:
        """The thread: one batch after the other until it is told to end."""
        while (batch := self._queue.get()) is not None:
            data, lines = batch
            if not self.error:
                try:
                    self._stream.write(data)
                    self._stream.flush()
                except (OSError, ValueError) as error:
                    self.error = str(error) or type(error).__name__
            if self.error:
                self.dropped += lines
            self._written += len(data)
