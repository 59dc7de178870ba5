"""The log as syslog: rsyslogd reads it by every transport; a server that is gone is told of, waited for, and harms
nobody."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from proxy.audit.plain import dump_line
from proxy.audit.writer import LineWriter
from proxy.export.syslog import LogWithSyslog, SyslogStream, syslog_message
from proxy.settings.observability import syslog_address
from tests.support.processes import free_port

RECORD = {"time": "2026-11-23T12:00:00.000001Z", "level": "warning", "event": "call-end", "reason": "Grüße, 世界"}
CONFIGURATION = """
module(load="imudp") module(load="imtcp") module(load="imuxsock" SysSock.Use="off")
template(name="json" type="list") {{ property(name="jsonmesg") constant(value="\\n") }}
input(type="imudp" address="127.0.0.1" port="{port}")
input(type="imtcp" address="127.0.0.1" port="{port}")
input(type="imuxsock" Socket="{directory}/log" UseSpecialParser="off" ParseHostname="on")
*.* action(type="omfile" file="{directory}/got.json" template="json")
"""


def wait_until(done: Callable[[], object], limit_s: float = 20.0) -> None:
    end = time.monotonic() + limit_s
    while not done():
        assert time.monotonic() < end
        time.sleep(0.02)


@contextmanager
def rsyslogd(program: str, directory: Path) -> Iterator[int]:
    """An independent syslog server; gives its port."""
    port = free_port()
    (directory / "rsyslog.conf").write_text(CONFIGURATION.format(port=port, directory=directory))
    files = ["-f", str(directory / "rsyslog.conf"), "-i", str(directory / "pid")]
    process = subprocess.Popen([program, "-n", *files], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_until(lambda: (directory / "log").exists() and not _is_free(port))
        yield port
    finally:
        process.terminate()
        process.wait(10)


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


def test_rsyslog_reads_every_transport(require_tool: Callable[[str], str]) -> None:
    # A Unix socket's path may have 107 bytes only, which a test's directory can exceed.
    directory = Path("/tmp") / f"trunkline-syslog-{os.getpid()}"  # noqa: S108
    directory.mkdir()
    try:
        with rsyslogd(require_tool("rsyslogd"), directory) as port:
            for address in (f"udp:127.0.0.1:{port}", f"tcp:127.0.0.1:{port}", f"unix:{directory}/log"):
                stream = SyslogStream(syslog_address(address), "local3", "trunk-1", "sip.example.com")
                lines = [dump_line({**RECORD, "number": number}) for number in range(3)]
                stream.write(b"".join(lines))
                stream.close()
                assert stream.lost == 0
            got = directory / "got.json"
            wait_until(lambda: got.exists() and got.read_bytes().count(b"\n") == 9)
            messages = [json.loads(line) for line in got.read_text().splitlines()]
    finally:
        shutil.rmtree(directory)
    by_input: dict[str, list[Any]] = {"imudp": [], "imtcp": [], "imuxsock": []}
    for message in messages:
        by_input[message["inputname"]].append(json.loads(message["msg"]))
        assert (message["syslogfacility"], message["syslogseverity"]) == ("19", "4")
        assert (message["hostname"], message["app-name"]) == ("sip.example.com", "trunk-1")
        assert (message["procid"], message["msgid"]) == (str(os.getpid()), "call-end")
        assert (message["protocol-version"], message["structured-data"]) == ("1", "-")
        # rsyslog takes the time from a network's message, and its own for what comes by a Unix socket.
        assert message["inputname"] == "imuxsock" or message["timereported"] == RECORD["time"]
    for records in by_input.values():
        assert sorted(records, key=lambda record: record["number"]) == [{**RECORD, "number": n} for n in range(3)]


@pytest.mark.parametrize(
    ("level", "priority"), [("debug", 31), ("info", 30), ("warning", 28), ("error", 27), ("other", 29), (None, 29)]
)
def test_severities(level: str | None, priority: int) -> None:
    line = b"no JSON\n" if level is None else dump_line({"level": level, "event": ""})
    expected = f"<{priority}>1 - host app {os.getpid()} - - ".encode()
    assert syslog_message(line, 3, "host", "app") == expected + line.rstrip()


@pytest.mark.parametrize(
    "text", ["127.0.0.1:514", "udp:127.0.0.1", "tcp::514", "udp:h:0", "udp:h:99999", "unix:log", "tls:h:1", "udp:h:x"]
)
def test_bad_addresses(text: str) -> None:
    with pytest.raises(ValueError, match=text):
        syslog_address(text)


def test_good_addresses() -> None:
    assert syslog_address("udp:[2001:db8::1]:514") == ("udp", "2001:db8::1", 514)
    assert syslog_address("tcp:logs.example.com:601") == ("tcp", "logs.example.com", 601)
    assert syslog_address("unix:/dev/log") == ("unix", "/dev/log", 0)


def test_tcp_waits_for_a_server_that_comes_back() -> None:
    """It goes away after the first line: the second finds out, is told of, and arrives."""
    with socket.create_server(("127.0.0.1", 0)) as server, capture_logs() as logs:
        port = server.getsockname()[1]
        writer = LineWriter(SyslogStream(("tcp", "127.0.0.1", port), "daemon", "app", "host"), owned=True)
        writer.write(b"one\n")
        first, _ = server.accept()
        assert first.recv(1000).endswith(b"- one")
        server.close()
        first.close()
        writer.write(b"two\n")
        wait_until(lambda: [log["event"] for log in logs] == ["syslog-failed"])
    assert "refused" in logs[0]["reason"] or "closed" in logs[0]["reason"]
    with socket.create_server(("127.0.0.1", port)) as server, capture_logs() as logs:
        second, _ = server.accept()
        assert second.recv(1000).endswith(b"- two")
        writer.close()
        assert writer.waiting == 0
        assert [(log["event"], log["lost"]) for log in logs] == [("syslog-recovered", 0)]
        second.close()


def test_a_udp_port_where_nobody_listens_is_told_of() -> None:
    stream = SyslogStream(("udp", "127.0.0.1", free_port()), "daemon", "app")

    def lost_some() -> bool:
        stream.write(b"line\n")
        return stream.lost > 2

    with capture_logs() as logs:
        wait_until(lost_some)
    assert [log["event"] for log in logs] == ["syslog-failed"]
    assert logs[0]["reason"] == "connection refused"
    stream.close()


def test_a_unix_socket_that_is_made_anew_loses_nothing(tmp_path: Path) -> None:
    path = os.path.relpath(tmp_path / "log")
    stream = SyslogStream(("unix", path, 0), "daemon", "app")
    with capture_logs() as logs:
        stream.write(b"nobody\n")
        assert stream.lost == 1
        for number in range(2):
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server:
                server.bind(path)
                stream.write(b"line %d\n" % number)
                assert server.recv(1000).endswith(b"line %d" % number)
            os.unlink(path)
    assert stream.lost == 1
    assert [log["event"] for log in logs] == ["syslog-failed", "syslog-recovered"]
    stream.close()


def test_a_server_that_does_not_read_blocks_nobody(tmp_path: Path) -> None:
    """32 MB of lines, none read: what the disk kept up with is in the log, and what was lost is said at the end."""
    with socket.create_server(("127.0.0.1", 0)) as server, (tmp_path / "log").open("wb") as file:
        stream = SyslogStream(("tcp", "127.0.0.1", server.getsockname()[1]), "daemon", "app")
        out = LineWriter(file)
        target = LogWithSyslog(out, stream)
        with capture_logs() as logs:
            for _ in range(500):
                target.write(b"x" * 65_535 + b"\n")
            target.close()
    assert (tmp_path / "log").stat().st_size == (500 - out.dropped) * 65_536
    (lost,) = [log for log in logs if log["event"] == "syslog-lost"]
    assert lost["lost"] > 100
    assert lost["waiting_bytes"] > 0
