"""When INVITEs and ringing were on the wire, by the kernel's time stamps of the loopback interface."""

from __future__ import annotations

import ctypes
import os
import select
import socket
import struct
import threading
from dataclasses import dataclass, field

__all__ = ["Seen", "Sniffer"]

_ETH_P_IP = 0x0800
_SO_ATTACH_FILTER = 26
_SO_TIMESTAMPNS = 35
# UDP datagrams that begin with "INVI" (28 bytes into the packet), or have "180 " where a response has its status.
_FILTER = struct.pack(
    "HBBI" * 6,
    *(0x20, 0, 0, 28),
    *(0x15, 2, 0, int.from_bytes(b"INVI", "big")),
    *(0x20, 0, 0, 36),
    *(0x15, 0, 1, int.from_bytes(b"180 ", "big")),
    *(0x06, 0, 0, 0x40000),
    *(0x06, 0, 0, 0),
)
_NUMBER = b"+1555900"


@dataclass(slots=True)
class Seen:
    """What was on the wire.

    Attributes:
        added_ms: from the caller's INVITE to the callee's, one figure a call; empty where the callee is not on UDP.
        ringing_ms: from the caller's INVITE to its 180.
        repeated: INVITEs towards the callee that were on the wire again.
        per_second: INVITEs of the caller a second, from the first to the last.
    """

    added_ms: list[float] = field(default_factory=list)
    ringing_ms: list[float] = field(default_factory=list)
    repeated: int = 0
    per_second: float = 0.0


class Sniffer(threading.Thread):
    """Watches the loopback interface until `stop`. Needs root: raises PermissionError without.

    Args:
        device, callee, caller: their UDP ports.
    """

    def __init__(self, device: int, callee: int, caller: int) -> None:
        super().__init__(daemon=True)
        self._invites: dict[bytes, float] = {}
        self._crossed: dict[bytes, float] = {}
        self._rings: dict[bytes, float] = {}
        self._by_port = {device: self._invites, callee: self._crossed, caller: self._rings}
        self._repeated = 0
        self._stop_fd, self._wake_fd = os.pipe()
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(_ETH_P_IP))
        program = ctypes.create_string_buffer(_FILTER)
        self._socket.setsockopt(
            socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("HxxxxxxP", 6, ctypes.addressof(program))
        )
        self._socket.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
        self._socket.bind(("lo", _ETH_P_IP))

    def run(self) -> None:
        """Note each packet."""
        while True:
            ready, _, _ = select.select([self._socket.fileno(), self._stop_fd], [], [])
            if self._stop_fd in ready:
                return
            data, extra, _, _ = self._socket.recvmsg(2048, 64)
            seen = self._by_port.get(int.from_bytes(data[22:24], "big"))
            at = data.find(_NUMBER)
            # The callee's 180 goes to the device's port, and is not what is looked for.
            if not extra or seen is None or at < 0 or (data[28:32] == b"INVI") is (seen is self._rings):
                continue
            number = data[at : at + 20].partition(b"@")[0]
            if number in seen:
                self._repeated += seen is self._crossed
                continue
            seconds, nanos = struct.unpack("qq", extra[0][2][:16])
            seen[number] = seconds + nanos / 1e9

    def stop(self) -> Seen:
        """End, and give what was seen."""
        os.write(self._wake_fd, b"x")
        self.join()
        self._socket.close()
        os.close(self._wake_fd)
        os.close(self._stop_fd)
        invites = self._invites
        seen = Seen(repeated=self._repeated)
        seen.added_ms = [(self._crossed[name] - at) * 1e3 for name, at in invites.items() if name in self._crossed]
        seen.ringing_ms = [(self._rings[name] - at) * 1e3 for name, at in invites.items() if name in self._rings]
        span_s = max(invites.values()) - min(invites.values()) if invites else 0.0
        seen.per_second = (len(invites) - 1) / span_s if span_s else 0.0
        return seen
