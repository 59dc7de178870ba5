"""Calls as packet captures: what SIP tools read. Every message is one UDP packet, whatever it really came by.

So TLS legs are readable, for the text is what we hold. Addresses, ports and times are the real ones; where a port is
5061, which tools take for TLS, 5060 stands for it. The format is libpcap's classic one with raw IP packets.
"""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, Final

from proxy.audit.redact import HIDDEN

__all__ = ["message_ends", "pcap_of", "whole_text"]

_RAW_IP: Final = 101
_UDP: Final = 17
_MICROSECONDS: Final = 1_000_000
_MOST: Final = 65_535 - 8 - 40
_TLS_PORT: Final = 5061
_SIP_PORT: Final = 5060

_MASKED_KEY: Final = f"inline:{HIDDEN}"
_NO_KEY: Final = f"inline:{'A' * 40}"
"""Dissectors decode the key of `a=crypto`, and take a masked one for a damaged packet: zeros stand for it."""

_End = tuple[str, int]


def pcap_of(events: Iterable[Mapping[str, Any]]) -> bytes:
    """A capture file with the messages among some events (`StoreReader.timeline`), in order of time.

    A message that does not fit into a packet is cut. On record what we sent upon a message has the same time as that;
    here each packet is a microsecond at least after the one before it, so that tools keep them in order.
    """
    parts = [struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65_535, _RAW_IP)]
    messages = [event for event in events if event.get("event") == "message"]
    last = 0
    for event in sorted(messages, key=lambda item: str(item["time"])):
        source, target = message_ends(event)
        text = str(event["message"]).replace(_MASKED_KEY, _NO_KEY)
        data = whole_text(text).encode("utf-8", "replace")[:_MOST]
        packet = _packet(source, target, data)
        moment = datetime.fromisoformat(str(event["time"]))
        last = max(int(moment.timestamp()) * _MICROSECONDS + moment.microsecond, last + 1)
        seconds, microseconds = divmod(last, _MICROSECONDS)
        parts.append(struct.pack("<IIII", seconds, microseconds, len(packet), len(packet)))
        parts.append(packet)
    return b"".join(parts)


def message_ends(event: Mapping[str, Any]) -> tuple[_End, _End]:
    """Where a message came from and where it went."""
    remote = _end(str(event.get("flow", "")).partition(":")[2])
    local = _end(str(event.get("local", "")))
    return (remote, local) if event.get("direction") == "in" else (local, remote)


def whole_text(message: str) -> str:
    """A message whose Content-Length fits its body again: masking can change how long that is."""
    head, blank, body = message.partition("\r\n\r\n")
    lines = head.split("\r\n")
    for at, line in enumerate(lines):
        name, colon, value = line.partition(":")
        if name.strip().lower() in ("content-length", "l") and value.strip() != str(size := len(body.encode())):
            lines[at] = f"{name}{colon} {size}"
    return "\r\n".join(lines) + blank + body


def _end(text: str) -> _End:
    """`address:port` as a pair; a name in place of an address is no use in a packet."""
    host, _, port = text.rpartition(":")
    try:
        address = str(ipaddress.ip_address(host.strip("[]").partition("%")[0]))
    except ValueError:
        address = "0.0.0.0"
    number = int(port) if port.isdigit() else 0
    return address, number & 0xFFFF


def _packet(source: _End, target: _End, data: bytes) -> bytes:
    first, second = ipaddress.ip_address(source[0]), ipaddress.ip_address(target[0])
    if first.version != second.version:
        first, second = _as_ipv6(first), _as_ipv6(second)
    ports = [_SIP_PORT if port == _TLS_PORT else port for port in (source[1], target[1])]
    size = 8 + len(data)
    pseudo = first.packed + second.packed + struct.pack("!HBBHHHH", size, 0, _UDP, *ports, size, 0) + data
    udp = struct.pack("!HHHH", *ports, size, _checksum(pseudo) or 0xFFFF) + data
    if first.version == 6:
        return struct.pack("!IHBB", 6 << 28, size, _UDP, 64) + first.packed + second.packed + udp
    fields = (0x45, 0, 20 + size, 0, 0x4000, 64, _UDP)
    head = struct.pack("!BBHHHBBH", *fields, 0) + first.packed + second.packed
    return struct.pack("!BBHHHBBH", *fields, _checksum(head)) + first.packed + second.packed + udp


def _as_ipv6(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> ipaddress.IPv6Address:
    if isinstance(address, ipaddress.IPv6Address):
        return address
    return ipaddress.IPv6Address(b"\0" * 10 + b"\xff\xff" + address.packed)


def _checksum(data: bytes) -> int:
    """The Internet checksum (RFC 1071)."""
    if len(data) % 2:
        data += b"\0"
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
