"""HEP3 to Homer: every SIP message of a call as one UDP packet.

Source: the HEP3 network protocol specification, revision 36 (github.com/sipcapture/HEP, docs/HEP3NetworkProtocol...).
A packet is `HEP3`, its length, and chunks: vendor (2 bytes), type (2 bytes), length with this head (2 bytes), payload.
"""

from __future__ import annotations

import socket
import time
from typing import Final

from proxy.audit.records import Event
from proxy.audit.redact import Redaction, Redactor
from proxy.export.queued import QueuedSink
from proxy.sip.flow import Flow

__all__ = ["HepSink", "hep_packet"]

_KINDS: Final = frozenset(("message",))
_PROTOCOLS: Final = {"udp": 17, "tcp": 6, "tls": 6}
_SIP: Final = 1
_MAX_PACKET: Final = 65_000
_A_SECOND_US: Final = 1_000_000

_FAMILY, _PROTOCOL = 0x0001, 0x0002
_SOURCE_4, _DESTINATION_4, _SOURCE_6, _DESTINATION_6 = 0x0003, 0x0004, 0x0005, 0x0006
_SOURCE_PORT, _DESTINATION_PORT = 0x0007, 0x0008
_SECONDS, _MICROSECONDS = 0x0009, 0x000A
_PAYLOAD_TYPE, _AGENT, _AUTH_KEY, _PAYLOAD, _CORRELATION = 0x000B, 0x000C, 0x000E, 0x000F, 0x0011


def _chunk(kind: int, value: bytes) -> bytes:
    return b"\0\0" + kind.to_bytes(2, "big") + (len(value) + 6).to_bytes(2, "big") + value


def hep_packet(
    transport: str,
    source: tuple[str, int],
    destination: tuple[str, int],
    unix_us: int,
    payload: bytes,
    *,
    node_id: int,
    auth_key: str = "",
    correlation: str = "",
) -> bytes:
    """One HEP3 packet with a SIP message, seen at a Unix time in microseconds.

    Raises OSError for an address that is none, and ValueError for a message that is too long.
    """
    six = ":" in source[0]
    family = socket.AF_INET6 if six else socket.AF_INET
    seconds, microseconds = divmod(unix_us, _A_SECOND_US)
    chunks = [
        _chunk(_FAMILY, bytes([10 if six else 2])),
        _chunk(_PROTOCOL, bytes([_PROTOCOLS[transport]])),
        _chunk(_SOURCE_6 if six else _SOURCE_4, socket.inet_pton(family, source[0])),
        _chunk(_DESTINATION_6 if six else _DESTINATION_4, socket.inet_pton(family, destination[0])),
        _chunk(_SOURCE_PORT, source[1].to_bytes(2, "big")),
        _chunk(_DESTINATION_PORT, destination[1].to_bytes(2, "big")),
        _chunk(_SECONDS, seconds.to_bytes(4, "big")),
        _chunk(_MICROSECONDS, microseconds.to_bytes(4, "big")),
        _chunk(_PAYLOAD_TYPE, bytes([_SIP])),
        _chunk(_AGENT, node_id.to_bytes(4, "big")),
    ]
    if auth_key:
        chunks.append(_chunk(_AUTH_KEY, auth_key.encode()))
    if correlation:
        chunks.append(_chunk(_CORRELATION, correlation.encode()))
    chunks.append(_chunk(_PAYLOAD, payload))
    body = b"".join(chunks)
    if len(body) > _MAX_PACKET:
        raise ValueError(f"a message of {len(payload)} bytes does not fit into a packet")
    return b"HEP3" + (len(body) + 6).to_bytes(2, "big") + body


class HepSink(QueuedSink):
    """Sends messages to a capture server. Our call id correlates both legs and all attempts.

    Args:
        address: of the capture server.
        redaction: what is masked in messages.
        node_id: the capture agent's id. auth_key: what the server wants, or "".
        wall_offset: seconds to add to an event's time for the Unix time; None follows the system's clock.

    Raises OSError when the address can't be used.
    """

    __slots__ = ("_auth_key", "_last_us", "_node_id", "_offset", "_redactor", "_socket")

    def __init__(
        self,
        address: tuple[str, int],
        redaction: Redaction,
        *,
        node_id: int = 2001,
        auth_key: str = "",
        wall_offset: float | None = None,
    ) -> None:
        found = socket.getaddrinfo(*address, type=socket.SOCK_DGRAM)[0]
        self._socket = socket.socket(found[0], socket.SOCK_DGRAM)
        self._socket.connect(found[4])
        self._redactor = Redactor(redaction)
        self._node_id = node_id
        self._auth_key = auth_key
        self._offset = wall_offset
        self._last_us = 0
        super().__init__("hep", "hep-failed", _KINDS, self._send, self._socket.close)

    def _send(self, event: Event) -> None:
        fields = event.fields
        flow = fields["flow"]
        assert isinstance(flow, Flow)
        inward = fields["direction"] == "in"
        data: bytes = fields["message"].serialize()  # type: ignore[attr-defined]
        if self._redactor.settings.mask_numbers or self._redactor.settings.mask_secrets:
            data = self._redactor.text(data.decode("utf-8", "surrogateescape")).encode("utf-8", "surrogateescape")
        local = _same_family(flow.local, flow.remote)
        offset = time.time() - time.monotonic() if self._offset is None else self._offset
        # What we send upon a message has the same time as that; Homer sorts by time.
        moment = int((event.time + offset) * _A_SECOND_US)
        if self._last_us - _A_SECOND_US < moment <= self._last_us:
            moment = self._last_us + 1
        self._last_us = moment
        self._socket.send(
            hep_packet(
                flow.transport,
                flow.remote if inward else local,
                local if inward else flow.remote,
                moment,
                data,
                node_id=self._node_id,
                auth_key=self._auth_key,
                correlation=event.call,
            )
        )


def _same_family(local: tuple[str, int], remote: tuple[str, int]) -> tuple[str, int]:
    """Our address; where a socket is bound to all of them, the wildcard of the peer's family."""
    if (":" in local[0]) != (":" in remote[0]):
        return ("::" if ":" in remote[0] else "0.0.0.0", local[1])
    return local
