"""Several processes on the same ports: which of them has a call, and what they hand to each other.

The kernel gives a datagram, or a new connection, to any of the processes that share a port (SO_REUSEPORT). Every
identifier that a worker makes begins with its number, so that a message says whose it is: a request by its To tag, a
response by the branch of its Via. One that is another worker's goes there through a socket pair, with the facts of
its flow. What is sent over UDP leaves from the owner's own socket, which has the same port; what belongs on a
connection goes back to the worker that holds it.

A call begins at the worker that holds its connection. Over UDP the kernel would give all calls of a carrier that sends
from one port to one worker, so there the Call-ID says which one takes the INVITE, and its copies and its CANCEL too.
"""

from __future__ import annotations

import asyncio
import os
import socket
import struct
import zlib
from collections.abc import Callable, Mapping
from typing import Final

import orjson
import structlog

from proxy.audit.throttle import Throttle
from proxy.sip.errors import SipError
from proxy.sip.flow import Flow
from proxy.sip.message import Response
from proxy.sip.parser import MalformedMessage, parse_message

__all__ = ["MAX_WORKERS", "Exchange", "IdMaker", "Lines", "Mesh", "owner_of"]

MAX_WORKERS: Final = 16
_DIGITS: Final = "0123456789abcdef"
_RANDOM_BYTES: Final = 10
_IDS_AT_ONCE: Final = 256
_ID_LENGTH: Final = 1 + 2 * _RANDOM_BYTES
_COOKIE: Final = "z9hG4bK"
_HEAD: Final = struct.Struct("!cH")
_BUFFER_BYTES: Final = 4 * 1024 * 1024
_MAX_FRAME_BYTES: Final = 128 * 1024
_MAX_BORROWED: Final = 65_536
_MAX_TAKEN_IN: Final = 4096
_LOG_INTERVAL_S: Final = 10.0

_VIA: Final = (b"\r\nvia", b"\r\nv")
_TO: Final = (b"\r\nto", b"\r\nt")
_CALL_ID: Final = (b"\r\ncall-id", b"\r\ni")

# What a frame is: a datagram, a message of a connection, bytes to write to one, one to close, one that is gone.
_DATAGRAM, _MESSAGE, _WRITE, _CLOSE, _GONE = b"D", b"M", b"W", b"C", b"G"

_log = structlog.get_logger(__name__)


class IdMaker:
    """Makes identifiers: the number of a worker as one digit, if it has one, and 80 random bits in hexadecimal.

    Random bits come from the system for many identifiers at a time. Not to be shared by processes.
    """

    __slots__ = ("_at", "_bits", "_digit")

    def __init__(self, worker: int | None = None) -> None:
        self._digit = "" if worker is None else _DIGITS[worker]
        self._bits = ""
        self._at = 0

    def __call__(self) -> str:
        """A new identifier."""
        at = self._at
        end = at + _RANDOM_BYTES * 2
        if end > len(self._bits):
            self._bits = os.urandom(_RANDOM_BYTES * _IDS_AT_ONCE).hex()
            at, end = 0, _RANDOM_BYTES * 2
        self._at = end
        return self._digit + self._bits[at:end]


def owner_of(data: bytes, workers: int) -> int | None:
    """The number of the worker that a message belongs to; None when it does not say, and any of them may take it."""
    if data.startswith(b"SIP/2.0 "):
        via = _value(data, _VIA)
        if via is not None and b"," not in via:
            before, found, rest = via.partition(b";branch=z9hG4bK")
            if found and b";branch" not in before.lower():
                return _maker_of(rest.partition(b";")[0].strip().decode("latin-1"), workers)
    else:
        to = _value(data, _TO)
        if to is not None:
            params = to.rpartition(b">")[2].strip() if b">" in to else to
            if not params:
                return None
            if params.startswith(b";tag=") and b'"' not in params:
                return _maker_of(params[5:].partition(b";")[0].strip().decode("latin-1"), workers)
    return _parsed_owner(data, workers)


def home_of(data: bytes, workers: int) -> int | None:
    """The number of the worker that takes an INVITE outside of dialogs, and its CANCEL; None for anything else."""
    if not data.startswith((b"INVITE ", b"CANCEL ")):
        return None
    call_id = _value(data, _CALL_ID)
    return None if call_id is None else zlib.crc32(call_id.strip()) % workers


def _value(data: bytes, names: tuple[bytes, bytes]) -> bytes | None:
    """The value of the first header field with one of two names, as they begin a line in lower case; None where there
    is none, or where it takes a closer look."""
    end = data.find(b"\r\n\r\n")
    head = (data if end < 0 else data[:end]).lower()
    start = len(head)
    for name in names:
        at = head.find(name)
        while 0 <= at < start:
            after = head[at + len(name) : at + len(name) + 1]
            if after == b":":
                start = at
            elif after in (b" ", b"\t"):
                return None
            at = head.find(name, at + 1)
    stop = head.find(b"\r\n", start + 2)
    stop = len(head) if stop < 0 else stop
    if start == len(head) or data[stop + 2 : stop + 3] in (b" ", b"\t"):
        return None  # there is none, or it goes on in the next line
    return data[data.find(b":", start) + 1 : stop]


def _parsed_owner(data: bytes, workers: int) -> int | None:
    """What `owner_of` gives, for messages that are written in an unusual way."""
    try:
        message = parse_message(data)
        mark = message.via.branch.removeprefix(_COOKIE) if isinstance(message, Response) else message.to.tag
    except (MalformedMessage, SipError, ValueError):
        return None
    return None if mark is None else _maker_of(mark, workers)


def _maker_of(mark: str, workers: int) -> int | None:
    """The number of the worker that made an identifier; None for what none of them made."""
    if len(mark) != _ID_LENGTH:
        return None
    number = _DIGITS.find(mark[0])
    return number if 0 <= number < workers else None


def _pair() -> tuple[socket.socket, socket.socket]:
    """Two ends that keep the bounds of what is sent, do not block and hold a lot."""
    pair = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    for end in pair:
        end.setblocking(False)
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER_BYTES)
    return pair


class Mesh:
    """A socket pair for every two workers, made before the first one starts.

    The ends outlive a worker that dies: its successor reads what came meanwhile.
    """

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self._ends: dict[tuple[int, int], socket.socket] = {}
        for one in range(workers):
            for other in range(one + 1, workers):
                self._ends[one, other], self._ends[other, one] = _pair()

    def ends_of(self, number: int) -> dict[int, socket.socket]:
        """The ends of one worker, by the number of who has the other end."""
        return {other: end for (one, other), end in self._ends.items() if one == number}

    def close(self) -> None:
        """Close all ends."""
        for end in self._ends.values():
            end.close()


Told = Callable[[str, str, int, dict[str, object]], None]
"""Takes what the webhook tap tells: the event, our call id, the attempt, fields."""


class Lines:
    """How whoever serves the pages tells a worker of a webhook: a socket pair for each, made before the first fork.

    What is told while a worker is gone is for its successor.
    """

    def __init__(self, workers: int) -> None:
        self._pairs = [_pair() for _ in range(workers)]

    def close(self) -> None:
        """Close all ends."""
        for pair in self._pairs:
            for end in pair:
                end.close()

    def tell(self, event: str, call_id: str, attempt: int, fields: dict[str, object]) -> None:
        """Tell the worker that has a call; the first one of what belongs to no call of ours."""
        number = _maker_of(call_id, len(self._pairs)) or 0
        try:
            self._pairs[number][0].send(orjson.dumps([event, call_id, attempt, fields]))
        except (OSError, TypeError) as error:
            _log.warning("worker-unreachable", worker=number, reason=str(error))

    def listen(self, number: int, take: Told) -> None:
        """Take what a worker is told, in its event loop."""
        end = self._pairs[number][1]

        def read() -> None:
            try:
                event, call_id, attempt, fields = orjson.loads(end.recv(_MAX_FRAME_BYTES))
            except (BlockingIOError, InterruptedError):
                return
            take(event, call_id, attempt, fields)

        asyncio.get_running_loop().add_reader(end, read)


class Exchange:
    """One worker's side: hands over what is another's, and takes what is its own.

    Args:
        number: this worker's. workers: how many there are.
        ends: the sockets to the others.
        runs: whether another worker runs, by its number.
    """

    def __init__(
        self,
        number: int,
        workers: int,
        ends: Mapping[int, socket.socket],
        runs: Callable[[int], bool] = lambda number: True,
    ) -> None:
        self.number = number
        self._runs = runs
        self._taken_in: dict[bytes, None] = {}
        self.handed_over = self.taken = self.lost = 0
        self._workers = workers
        self._ends = ends
        self._lent: dict[Flow, int] = {}
        self._by_number: dict[int, Flow] = {}
        # From anywhere, so that no number of a predecessor that died means a connection of ours.
        self._next = int.from_bytes(os.urandom(6), "big")
        self._borrowed: dict[tuple[int, int], Flow] = {}
        self._noted = Throttle(_LOG_INTERVAL_S)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._receive: Callable[[bytes, Flow], None] = lambda data, flow: None
        self._closed: Callable[[Flow], None] = lambda flow: None
        self._datagram_flow: Callable[[str, str, int], Flow | None] = lambda listener, host, port: None
        self._welcome: Callable[[Flow], bool] = lambda flow: True
        self._send: Callable[[Flow, bytes], None] = lambda flow, data: None
        self._close: Callable[[Flow, str], None] = lambda flow, why: None

    def start(
        self,
        *,
        receive: Callable[[bytes, Flow], None],
        closed: Callable[[Flow], None],
        datagram_flow: Callable[[str, str, int], Flow | None],
        welcome: Callable[[Flow], bool],
        send: Callable[[Flow, bytes], None],
        close: Callable[[Flow, str], None],
    ) -> None:
        """Begin to listen to the others.

        Args:
            receive: takes a message of ours with its flow; closed: hears that such a flow is gone.
            datagram_flow: the flow of a listener's own socket (named as the listener) to a host and port.
            welcome: whether calls that a flow brings are worth handing over.
            send, close: for flows of our own transports.
        """
        self._receive, self._closed, self._datagram_flow, self._welcome = receive, closed, datagram_flow, welcome
        self._send, self._close = send, close
        self._loop = asyncio.get_running_loop()
        for other, end in self._ends.items():
            self._loop.add_reader(end, self._read, other, end)

    def stop(self) -> None:
        """Listen no more."""
        if self._loop is not None:
            for end in self._ends.values():
                self._loop.remove_reader(end)
            self._loop = None

    def counters(self) -> dict[str, int]:
        """How many messages were handed over to others, taken from them, and lost on the way."""
        return {"handed_over": self.handed_over, "taken": self.taken, "hand_over_lost": self.lost}

    # Outgoing

    def hand_over(self, data: bytes, flow: Flow) -> bool:
        """Hand a message to its owner; False when we are to take it."""
        owner = owner_of(data, self._workers)
        if owner is None and not flow.reliable:
            owner = self._home(data, flow)
        if owner is None or owner == self.number:
            return False
        if not flow.reliable:
            # Without a listener the socket is nobody else's: the owner could not answer from it.
            if not flow.listener:
                return False
            self._post(owner, _DATAGRAM, [flow.listener, *flow.remote], data)
        else:
            facts = [flow.transport, flow.local, flow.remote, flow.advertised, flow.listener, flow.server_name]
            self._post(owner, _MESSAGE, [self._lend(flow), *facts], data)
        self.handed_over += 1
        return True

    def _home(self, data: bytes, flow: Flow) -> int | None:
        """Who takes what belongs to nobody yet. In place of a worker that does not run we do, to the end."""
        home = home_of(data, self._workers)
        if home is None or home == self.number or not self._welcome(flow):
            return None
        if self._taken_in or not self._runs(home):
            call_id = _value(data, _CALL_ID)
            if call_id in self._taken_in:
                return None
            if call_id is not None and not self._runs(home):
                if len(self._taken_in) >= _MAX_TAKEN_IN:
                    del self._taken_in[next(iter(self._taken_in))]
                self._taken_in[call_id] = None
                return None
        return home

    def lends(self, flow: Flow) -> bool:
        """Whether others may need a connection of ours."""
        return flow in self._lent

    def gone(self, flow: Flow) -> None:
        """A connection of ours is gone; whoever has borrowed it hears so."""
        number = self._lent.pop(flow, None)
        if number is not None:
            del self._by_number[number]
            for other in self._ends:
                self._post(other, _GONE, [number], b"")

    def _lend(self, flow: Flow) -> int:
        number = self._lent.get(flow)
        if number is None:
            self._next += 1
            number = self._lent[flow] = self._next
            self._by_number[number] = flow
        return number

    def _post(self, to: int, kind: bytes, facts: list[object], data: bytes) -> None:
        head = orjson.dumps(facts)
        try:
            self._ends[to].send(b"".join((_HEAD.pack(kind, len(head)), head, data)))
        except OSError as error:  # its buffer is full: it does not read, or not fast enough
            self.lost += 1
            assert self._loop is not None
            suppressed = self._noted.allow((to, error.errno), self._loop.time())
            if suppressed is not None:
                reason = error.strerror or str(error)
                _log.warning("worker-unreachable", worker=to, reason=reason, suppressed=suppressed)

    # Incoming

    def _read(self, other: int, end: socket.socket) -> None:
        for _ in range(64):  # then others have their turn
            try:
                frame = end.recv(_MAX_FRAME_BYTES)
            except (BlockingIOError, InterruptedError):
                return
            kind, length = _HEAD.unpack_from(frame)
            body = _HEAD.size + length
            self._take(other, kind, orjson.loads(frame[_HEAD.size : body]), frame[body:])

    def _take(self, other: int, kind: bytes, facts: list[object], data: bytes) -> None:
        if kind == _DATAGRAM:
            listener, host, port = facts
            flow = self._datagram_flow(str(listener), str(host), int(str(port)))
            if flow is not None:
                self.taken += 1
                self._receive(data, flow)
            return
        number = int(str(facts[0]))
        if kind == _MESSAGE:
            self.taken += 1
            self._receive(data, self._borrow(other, number, facts))
        elif kind == _GONE:
            flow = self._borrowed.pop((other, number), None)
            if flow is not None:
                flow.closed = True
                self._closed(flow)
        else:
            flow = self._by_number.get(number)
            if flow is None:
                self._post(other, _GONE, [number], b"")
            elif kind == _WRITE:
                self._send(flow, data)
            else:
                self._close(flow, data.decode())

    def _borrow(self, other: int, number: int, facts: list[object]) -> Flow:
        flow = self._borrowed.get((other, number))
        if flow is None:
            if len(self._borrowed) >= _MAX_BORROWED:
                del self._borrowed[next(iter(self._borrowed))]
            _, transport, local, remote, advertised, listener, server_name = facts
            handle = _Borrowed(self, other, number)
            flow = Flow(
                str(transport),
                _address(local),
                _address(remote),
                str(advertised),
                str(listener),
                str(server_name),
                handle,
            )
            self._borrowed[other, number] = flow
        return flow

    def write(self, to: int, number: int, data: bytes) -> None:
        """Have bytes written to a connection of another worker."""
        self._post(to, _WRITE, [number], data)

    def close_at(self, to: int, number: int, why: str) -> None:
        """Have a connection of another worker closed."""
        self._post(to, _CLOSE, [number], why.encode())


class _Borrowed:
    """The handle of a flow whose connection another worker holds."""

    __slots__ = ("_exchange", "_number", "_worker")

    def __init__(self, exchange: Exchange, worker: int, number: int) -> None:
        self._exchange = exchange
        self._worker = worker
        self._number = number

    def send(self, flow: Flow, data: bytes) -> None:
        """Send bytes."""
        self._exchange.write(self._worker, self._number, data)

    def close(self, why: str) -> None:
        """Close the connection."""
        self._exchange.close_at(self._worker, self._number, why)


def _address(value: object) -> tuple[str, int]:
    assert isinstance(value, list)
    host, port = value
    return str(host), int(port)
