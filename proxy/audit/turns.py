"""One stream for several processes."""

from __future__ import annotations

import fcntl
import os

from proxy.audit.writer import ByteStream

__all__ = ["SharedStream"]


class SharedStream:
    """A stream that processes forked later write to as well, one at a time: a pipe takes what is longer than 4 KiB in
    pieces, and lines of two processes would run into each other.

    The lock is one of the kernel on a file without a name: that of a process which dies is released.

    Args:
        stream: where everything goes.
    """

    def __init__(self, stream: ByteStream) -> None:
        self._stream = stream
        self._lock = os.memfd_create("trunkline-turns", os.MFD_CLOEXEC)

    def write(self, data: bytes, /) -> None:
        """Write bytes, and let them out, in one go."""
        fcntl.lockf(self._lock, fcntl.LOCK_EX)
        try:
            self._stream.write(data)
            self._stream.flush()
        finally:
            fcntl.lockf(self._lock, fcntl.LOCK_UN)

    def flush(self) -> None:
        """Nothing is left to be let out."""

    def close(self) -> None:
        """Let go of the lock; the stream stays open."""
        os.close(self._lock)
