"""Lines are written in order, and a bad stream never hurts the writer's user."""

import asyncio
import io
import os
import threading
import time

from proxy.audit.writer import LineWriter


class Stuck(io.RawIOBase):
    """A stream that blocks until it is released."""

    def __init__(self) -> None:
        super().__init__()
        self.release = threading.Event()
        self.entered = threading.Event()
        self.got = 0

    def writable(self) -> bool:
        return True

    def write(self, data: object) -> int:
        assert isinstance(data, bytes)
        self.entered.set()
        assert self.release.wait(10)
        self.got += len(data)
        return len(data)


def test_lines_are_written_in_order_without_an_event_loop() -> None:
    stream = io.BytesIO()
    writer = LineWriter(stream)
    for number in range(1000):
        writer.write(b"%d\n" % number)
    writer.close()
    assert stream.getvalue() == b"".join(b"%d\n" % number for number in range(1000))
    assert (writer.dropped, writer.error) == (0, "")
    assert not stream.closed


async def test_lines_leave_in_batches_after_a_moment() -> None:
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb") as source, os.fdopen(writing, "wb", closefd=True) as sink:
        os.set_blocking(reading, False)
        writer = LineWriter(sink)
        writer.write(b"a\n")
        writer.write(b"b\n")
        assert source.read(10) is None, "nothing leaves at once"
        await asyncio.sleep(0.2)
        assert source.read(10) == b"a\nb\n"
        writer.write(b"x" * 70_000)
        deadline = time.monotonic() + 5
        got = 0
        while got < 70_000 and time.monotonic() < deadline:
            got += len(await asyncio.to_thread(source.read, 70_000) or b"")
        assert got == 70_000
        writer.close()


def test_closed_reader_is_counted_and_never_raised() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "wb", buffering=0) as sink:
        writer = LineWriter(sink)
        writer.write(b"a\n")
        writer.write(b"b\n")
        writer.close()
        writer.write(b"after the end\n")
    assert "Broken pipe" in writer.error
    assert writer.dropped == 3


def test_stuck_reader_delays_nobody_and_memory_is_bounded() -> None:
    stream = Stuck()
    writer = LineWriter(stream)
    begun = time.monotonic()
    line = b"x" * 65_535 + b"\n"
    for _ in range(400):
        writer.write(line)
    assert time.monotonic() - begun < 2
    assert stream.entered.wait(5)
    assert 140 <= writer.dropped <= 150
    kept = 400 - writer.dropped
    stream.release.set()
    writer.close()
    assert stream.got == kept * len(line)


def test_owned_stream_is_closed() -> None:
    stream = io.BytesIO()
    writer = LineWriter(stream, owned=True)
    writer.close()
    writer.close()
    assert stream.closed
