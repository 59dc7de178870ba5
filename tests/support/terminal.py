"""A program with windows of text, and what it shows."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import struct
import subprocess
import termios
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import pyte

__all__ = ["Terminal", "terminal"]

_LIMIT_S = 20.0


class Terminal:
    """What a program shows on a terminal of some size. Keys are sent only after what is waited for is on the screen."""

    def __init__(self, master: int, columns: int, rows: int) -> None:
        self._master = master
        self._screen = pyte.Screen(columns, rows)
        self._stream = pyte.ByteStream(self._screen)

    @property
    def lines(self) -> list[str]:
        """The lines on the screen."""
        return [line.rstrip() for line in self._screen.display]

    def wait(self, shown: Callable[[list[str]], bool]) -> list[str]:
        """The lines, once they are as wanted."""
        end = time.monotonic() + _LIMIT_S
        while not shown(self.lines):
            assert time.monotonic() < end, "\n".join(self.lines)
            if select.select([self._master], [], [], 0.1)[0]:
                self._stream.feed(os.read(self._master, 65_536))
        return self.lines

    def press(self, keys: str) -> None:
        """Send keys."""
        os.write(self._master, keys.encode())


@contextmanager
def terminal(command: Sequence[str], columns: int = 200, rows: int = 60) -> Iterator[Terminal]:
    """Run a program on a terminal, and kill it in the end."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    environment = {**os.environ, "TERM": "xterm", "LINES": str(rows), "COLUMNS": str(columns), "LANG": "C.UTF-8"}
    process = subprocess.Popen(
        command, stdin=slave, stdout=slave, stderr=slave, start_new_session=True, env=environment
    )
    os.close(slave)
    try:
        yield Terminal(master, columns, rows)
    finally:
        process.kill()
        process.wait()
        os.close(master)
