"""Lines of several processes in one pipe."""

from __future__ import annotations

import os
import signal

from proxy.audit.turns import SharedStream

LINES = 60
LENGTH = 150_000


def test_lines_of_processes_stay_whole_and_one_that_dies_holds_up_nobody() -> None:
    """A pipe takes 64 KiB at a time: without turns, lines of this length run into each other."""
    read, write = os.pipe()
    with os.fdopen(write, "wb", buffering=0) as stream:
        shared = SharedStream(stream)
        children = []
        for letter in b"abc":
            pid = os.fork()
            if pid == 0:
                os.close(read)
                for _ in range(LINES):
                    shared.write(bytes([letter]) * LENGTH + b"\n")
                os._exit(0)
            children.append(pid)
        with os.fdopen(read, "rb") as reader:
            seen = [reader.readline()[:-1] for _ in range(3)]
            os.kill(children[0], signal.SIGKILL)
            stream.close()
            seen += [line[:-1] for line in reader]
        for pid in children:
            os.waitpid(pid, 0)
        shared.close()
    cut = [line for line in seen if len(line) != LENGTH or len(set(line)) != 1]
    assert len(cut) <= 1, "but for what the one that was killed was about to write"
    for letter in b"bc":
        whole = [line for line in seen if line.endswith(bytes([letter]) * LENGTH)]
        assert len(whole) == LINES
