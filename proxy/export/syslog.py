"""The log's lines as syslog messages (RFC 5424), over UDP (RFC 5426), TCP (RFC 6587) or a Unix datagram socket.

A message has the line itself, which is a JSON object, as its text, and its event as MSGID. Structured data is left
out: the text has all fields already.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import threading
import time
from logging.handlers import SysLogHandler
from typing import Any, Final

import orjson
import structlog

from proxy.audit.throttle import Throttle
from proxy.audit.writer import LineWriter

__all__ = ["LogWithSyslog", "SyslogAddress", "SyslogStream", "syslog_message"]

_SEVERITIES: Final = {
    "critical": SysLogHandler.LOG_CRIT,
    "error": SysLogHandler.LOG_ERR,
    "warning": SysLogHandler.LOG_WARNING,
    "info": SysLogHandler.LOG_INFO,
    "debug": SysLogHandler.LOG_DEBUG,
}
_NIL: Final = "-"
_MAX_HOSTNAME: Final = 255
_MAX_MSGID: Final = 32
_MAX_DATAGRAM: Final = 65_000
_TIMEOUT_S: Final = 5.0
_QUIET_S: Final = 1.0
"""So long a UDP port may not have refused anything to be called recovered: refusals come late."""
_LOG_S: Final = 30.0
_RETRY_S: Final = (0.5, 1.0, 2.0, 5.0)

SyslogAddress = tuple[str, str, int]
"""Kind (`udp`, `tcp`, `unix`), host or path, and port (0 for a path)."""


def syslog_message(line: bytes, facility: int, hostname: str, app_name: str) -> bytes:
    """One message from a JSON line of the log, which says its own time, level and event.

    A line that is no such object is sent on as a notice without a time.
    """
    try:
        record = orjson.loads(line)
    except orjson.JSONDecodeError:
        record = {}
    severity = _SEVERITIES.get(record.get("level", ""), SysLogHandler.LOG_NOTICE)
    when = record.get("time") or _NIL
    event = _printable(str(record.get("event", "")), _MAX_MSGID)
    head = f"<{facility * 8 + severity}>1 {when} {hostname} {app_name} {os.getpid()} {event} {_NIL} "
    # Without the byte order mark that RFC 5424 has before UTF-8: collectors look for JSON at the very beginning.
    return head.encode("ascii") + line.rstrip(b"\n")


def _printable(text: str, most: int) -> str:
    """A header field: printable ASCII without spaces, not empty."""
    return "".join([char for char in text if "!" <= char <= "~"])[:most] or _NIL


class SyslogStream:
    """A stream of lines for `LineWriter`, which calls it from a thread of its own and holds what has to wait.

    Over TCP a message waits until the server can be reached again. What a UDP or Unix socket refuses is lost, and
    counted. Both are told in the log: `syslog-failed`, at most every half minute, and `syslog-recovered`.

    Args:
        address: where messages go.
        facility: its name (RFC 5424, table 1), such as `daemon`. app_name: printable ASCII without spaces.
        hostname: in place of the system's.

    Attributes:
        lost: messages that were given up.
    """

    def __init__(self, address: SyslogAddress, facility: str, app_name: str, hostname: str | None = None) -> None:
        self.lost = 0
        self._kind, self._host, self._port = address
        self._facility = SysLogHandler.facility_names[facility]
        self._app_name = app_name
        self._hostname = _printable(socket.gethostname() if hostname is None else hostname, _MAX_HOSTNAME)
        self._socket: socket.socket | None = None
        self._failures = 0
        self._failed_at = 0.0
        self._stopped = threading.Event()
        self._throttle = Throttle(_LOG_S)
        self._log = structlog.get_logger(__name__)

    @property
    def name(self) -> str:
        """The address, as settings have it."""
        return f"{self._kind}:{self._host}" + (f":{self._port}" if self._port else "")

    def write(self, data: bytes) -> None:
        """Send some lines, each of which ends with a line feed."""
        for line in data.splitlines():
            message = syslog_message(line, self._facility, self._hostname, self._app_name)
            if self._kind == "tcp":
                self._send_surely(str(len(message)).encode() + b" " + message)
            else:
                self._send_datagram(message[:_MAX_DATAGRAM])

    def flush(self) -> None:
        """Nothing waits here."""

    def stop(self) -> None:
        """Wait for a server no more: what has not been sent over TCP by now is given up. Any thread may call it."""
        self._stopped.set()

    def close(self) -> None:
        """Close the socket."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _send_surely(self, message: bytes) -> None:
        """Send over TCP, by octet counting (RFC 6587 section 3.4.1), however long that takes."""
        while not self._stopped.is_set():
            try:
                self._send(message)
                return
            except OSError as error:
                self._failed(error)
            self._stopped.wait(_RETRY_S[min(self._failures, len(_RETRY_S)) - 1])
        self.lost += 1

    def _send_datagram(self, message: bytes) -> None:
        """Send a datagram; once more on a new socket where the server was restarted meanwhile."""
        for last in (False, True):
            try:
                self._send(message)
                return
            except OSError as error:
                # Over UDP it is the datagram before this one that was refused, and is lost.
                if last or (self._kind == "udp" and error.errno == errno.ECONNREFUSED):
                    self.lost += 1
                    self._failed(error)
                self.close()

    def _send(self, message: bytes) -> None:
        if self._socket is None:
            self._socket = self._connect()
        elif self._kind == "tcp" and _is_over(self._socket):
            raise ConnectionResetError("the server closed the connection")
        self._socket.sendall(message)
        if self._failures and (self._kind != "udp" or time.monotonic() - self._failed_at > _QUIET_S):
            self._failures = 0
            self._log.info("syslog-recovered", address=self.name, lost=self.lost)

    def _connect(self) -> socket.socket:
        if self._kind == "tcp":
            return socket.create_connection((self._host, self._port), _TIMEOUT_S)
        if self._kind == "unix":
            return _connected(socket.AF_UNIX, self._host)
        family, _, _, _, place = socket.getaddrinfo(self._host, self._port, type=socket.SOCK_DGRAM)[0]
        return _connected(family, place)

    def _failed(self, error: OSError) -> None:
        self.close()
        self._failures += 1
        now = self._failed_at = time.monotonic()
        if self._throttle.allow(self._kind, now) is not None:
            reason = (error.strerror or str(error)).lower()
            self._log.warning("syslog-failed", address=self.name, reason=reason, lost=self.lost)


class LogWithSyslog:
    """Lines to the log's writer and to syslog.

    Args:
        out: writes the log.
        stream: where syslog messages go.
    """

    def __init__(self, out: LineWriter, stream: SyslogStream) -> None:
        self._out = out
        self._stream = stream
        self._syslog = LineWriter(stream, owned=True)
        self._log = structlog.get_logger(__name__)

    def write(self, line: bytes) -> None:
        """Write one line."""
        self._out.write(line)
        self._syslog.write(line)

    def close(self) -> None:
        """Send what is left, for up to two seconds, say what was lost, and close the log too."""
        self._syslog.close()
        lost, waiting = self._stream.lost + self._syslog.dropped, self._syslog.waiting
        if lost or waiting:
            self._log.warning("syslog-lost", address=self._stream.name, lost=lost, waiting_bytes=waiting)
        self._stream.stop()
        self._out.close()


def _connected(family: int, place: str | tuple[Any, ...]) -> socket.socket:
    """A datagram socket with a peer, so that the system tells what became of the last datagram."""
    made = socket.socket(family, socket.SOCK_DGRAM)
    try:
        made.settimeout(_TIMEOUT_S)
        made.connect(place)
    except OSError:
        made.close()
        raise
    return made


def _is_over(connection: socket.socket) -> bool:
    """Whether the peer has closed a TCP connection: what is written into it then is lost without an error."""
    look = select.poll()
    look.register(connection, select.POLLRDHUP)
    return bool(look.poll(0))
