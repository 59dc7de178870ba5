"""Recorded messages: from a file with one message, a packet capture, a log of events, or a call store."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final

import dpkt

from proxy.ladder import read_events
from proxy.sip.message import KNOWN_METHODS
from proxy.sip.parser import MalformedMessage, StreamFramer

__all__ = ["Recorded", "RecordingError", "from_text", "read_recording"]

_PCAP_MAGIC: Final = frozenset(
    (b"\xa1\xb2\xc3\xd4", b"\xd4\xc3\xb2\xa1", b"\xa1\xb2\x3c\x4d", b"\x4d\x3c\xb2\xa1", b"\x0a\x0d\x0d\x0a")
)
_MAX_FRAGMENTS: Final = 1000
_MAX_EARLY: Final = 200
_METHODS: Final = tuple([f"{method} ".encode() for method in sorted(KNOWN_METHODS)])


class RecordingError(Exception):
    """A recording that can't be read, and why."""


@dataclass(frozen=True, slots=True)
class Recorded:
    """One recorded message.

    Attributes:
        data: the message.
        place: where it stands, for people: `packet 7`, `line 12`, or "".
        time: when it was sent, in seconds since 1970; 0.0 when nobody knows.
        sender, receiver: `address:port`; "" when nobody knows.
        transport: `udp`, `tcp`, `tls` or "".
        direction: `a-to-b` or `b-to-a` where the recording says so, for a message that came in; "" otherwise.
        call: the id of its call where the recording says so.
        attempt: the number of the attempt, or 0.
    """

    data: bytes
    place: str = ""
    time: float = 0.0
    sender: str = ""
    receiver: str = ""
    transport: str = ""
    direction: str = ""
    call: str = ""
    attempt: int = 0


def read_recording(path: str) -> Iterator[Recorded]:
    """The messages of a file (`-`: standard input), in order. Raises RecordingError.

    A packet capture (pcap or pcapng) is known by its first bytes, a call store by being SQLite, events by `.jsonl`;
    anything else is taken for one message.
    """
    try:
        if path == "-":
            yield Recorded(sys.stdin.buffer.read())
            return
        with Path(path).open("rb") as file:
            head = file.read(16)
            file.seek(0)
            if head[:4] in _PCAP_MAGIC:
                yield from _capture(file)
                return
        if head.startswith(b"SQLite format 3"):
            yield from _store(Path(path))
        elif path.endswith(".jsonl"):
            yield from _events(read_events(Path(path)))
        else:
            yield Recorded(Path(path).read_bytes())
    except OSError as error:
        raise RecordingError(f"{path}: {(error.strerror or str(error)).lower()}") from None


def from_text(data: bytes) -> bytes:
    """A message that was saved as text, as it was on the wire: with CRLF, and a Content-Length that is true.

    Editors and chats change the ends of lines, and people replace addresses and numbers; both would make Content-Length
    wrong.
    """
    if b"\r\n" not in data:
        data = data.replace(b"\n", b"\r\n")
    head, gap, body = data.lstrip(b"\r\n").partition(b"\r\n\r\n")
    lines = [
        line if line.partition(b":")[0].strip().lower() not in (b"content-length", b"l") else _length_line(line, body)
        for line in head.split(b"\r\n")
    ]
    return b"\r\n".join(lines) + (gap or b"\r\n\r\n") + body


def _length_line(line: bytes, body: bytes) -> bytes:
    return line.partition(b":")[0] + b": " + str(len(body)).encode()


# Events of Trunkline


def _events(events: Iterable[Any]) -> Iterator[Recorded]:
    """The messages that came in, from events in the form of the JSON lines."""
    for number, event in enumerate(events, 1):
        if event.get("event") != "message" or event.get("direction") != "in":
            continue
        transport, _, sender = str(event.get("flow", "")).partition(":")
        yield Recorded(
            str(event.get("message", "")).encode("utf-8", "surrogateescape"),
            place=f"event {number}",
            sender=sender,
            transport=transport,
            direction="a-to-b" if event.get("leg") == "a" else "b-to-a",
            call=str(event.get("call", "")),
            attempt=int(event.get("attempt") or 0),
        )


def _store(path: Path) -> Iterator[Recorded]:
    from proxy.storage.queries import StoreReader

    with StoreReader(path) as reader:
        before: int | None = None
        while rows := reader.calls(limit=200, before=before):
            for row in rows:
                yield from _events(reader.timeline(row.key))
            before = rows[-1].key


# Packet captures


def _capture(file: BinaryIO) -> Iterator[Recorded]:
    try:
        reader = dpkt.pcap.UniversalReader(file)
        link = reader.datalink()
        packets = _Packets()
        for number, (time, frame) in enumerate(reader, 1):
            yield from packets.messages(_network_layer(link, frame), number, float(time))
    except (dpkt.dpkt.Error, ValueError) as error:
        raise RecordingError(f"this is no readable packet capture: {error}") from None


def _network_layer(link: int, frame: bytes) -> Any:
    """The IP packet in a frame, or None."""
    try:
        if link == dpkt.pcap.DLT_EN10MB:
            packet = dpkt.ethernet.Ethernet(frame).data
        elif link == dpkt.pcap.DLT_LINUX_SLL:
            packet = dpkt.sll.SLL(frame).data
        elif link == 276:  # LINUX_SLL2
            packet = dpkt.sll2.SLL2(frame).data
        elif link in (dpkt.pcap.DLT_NULL, dpkt.pcap.DLT_LOOP):
            packet = dpkt.loopback.Loopback(frame).data
        else:
            packet = dpkt.ip6.IP6(frame) if frame[:1] and frame[0] >> 4 == 6 else dpkt.ip.IP(frame)
    except (dpkt.dpkt.Error, IndexError):
        return None
    return packet if isinstance(packet, (dpkt.ip.IP, dpkt.ip6.IP6)) else None


class _Stream:
    """One direction of a TCP connection: bytes in order, framed."""

    def __init__(self) -> None:
        self._framer: StreamFramer | None = None
        self._next = -1
        self._early: dict[int, bytes] = {}

    def feed(self, seq: int, data: bytes) -> list[bytes]:
        """The messages that are whole now."""
        if self._framer is None:
            if not _looks_like_sip(data):
                return []
            self._framer, self._next = StreamFramer(), seq
        if len(self._early) < _MAX_EARLY:
            self._early[seq] = data
        found: list[bytes] = []
        while self._next in self._early:
            chunk = self._early.pop(self._next)
            self._next = (self._next + len(chunk)) & 0xFFFFFFFF
            try:
                found += [item for item in self._framer.feed(chunk) if item.strip()]
            except MalformedMessage:
                self._framer = None
                self._early.clear()
                break
        return found


class _Packets:
    """Puts fragments and segments together."""

    def __init__(self) -> None:
        self._fragments: dict[tuple[bytes, bytes, int], dict[int, bytes]] = {}
        self._streams: dict[tuple[str, str], _Stream] = {}

    def messages(self, packet: Any, number: int, time: float) -> Iterator[Recorded]:
        """The messages that an IP packet completes."""
        if packet is None:
            return
        inner = packet.data
        if isinstance(packet, dpkt.ip.IP) and (packet.mf or packet.offset):
            inner = self._whole(packet)
        if not isinstance(inner, (dpkt.udp.UDP, dpkt.tcp.TCP)):
            return
        sender = f"{dpkt.utils.inet_to_str(packet.src)}:{inner.sport}"
        receiver = f"{dpkt.utils.inet_to_str(packet.dst)}:{inner.dport}"
        data = bytes(inner.data)
        if isinstance(inner, dpkt.udp.UDP):
            if _looks_like_sip(data):
                yield Recorded(data, f"packet {number}", time, sender, receiver, "udp")
        elif data:
            stream = self._streams.setdefault((sender, receiver), _Stream())
            for message in stream.feed(inner.seq, data):
                yield Recorded(message, f"packet {number}", time, sender, receiver, "tcp")

    def _whole(self, packet: Any) -> Any:
        """The datagram that a fragment completes, or None."""
        key = (packet.src, packet.dst, packet.id)
        if key not in self._fragments and len(self._fragments) >= _MAX_FRAGMENTS:
            self._fragments.pop(next(iter(self._fragments)))
        parts = self._fragments.setdefault(key, {})
        parts[packet.offset] = bytes(packet.data)
        if not packet.mf:
            parts[-1] = b""
        at, data = 0, b""
        while at in parts and (not data or at):
            data += parts[at]
            at = len(data)
        if -1 not in parts or len(data) < sum(map(len, parts.values())):
            return None
        del self._fragments[key]
        try:
            return dpkt.udp.UDP(data) if packet.p == dpkt.ip.IP_PROTO_UDP else None
        except dpkt.dpkt.Error:
            return None


def _looks_like_sip(data: bytes) -> bool:
    """Whether bytes begin a SIP message."""
    if data.startswith(b"SIP/2.0 "):
        return True
    line, newline, _ = data[:512].partition(b"\n")
    if not newline:
        return data.startswith(_METHODS)
    line = line.rstrip()
    return line.endswith(b" SIP/2.0") and (data.startswith(_METHODS) or line.count(b" ") == 2)
