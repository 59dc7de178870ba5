"""Traffic that means no good, on loopback: strangers at 127.0.0.2, and odd peers at 127.0.0.1."""

from __future__ import annotations

import asyncio
import random
import socket
from collections.abc import Awaitable, Callable

from tests.sip.torture.table import CASES

__all__ = [
    "FRIEND",
    "STRANGER",
    "flood",
    "forged_byes",
    "large_heads",
    "lying_lengths",
    "odd_messages",
    "repeat",
    "slow_connections",
]

STRANGER = "127.0.0.2"
FRIEND = "127.0.0.1"
_BATCH = 50


def _request(method: str, number: int, source: str, extra: str = "", body: str = "") -> bytes:
    return (
        f"{method} sip:+15550100001@127.0.0.1 SIP/2.0\r\n"
        f"Via: SIP/2.0/UDP {source}:5999;branch=z9hG4bKbad{number};rport\r\n"
        f"From: <sip:bad@{source}>;tag=b{number}\r\nTo: <sip:+15550100001@127.0.0.1>;tag=t{number}\r\n"
        f"Call-ID: bad-{number}\r\nCSeq: 2 {method}\r\nMax-Forwards: 70\r\n{extra}"
        f"Content-Length: {len(body)}\r\n\r\n{body}"
    ).encode()


async def flood(port: int, count: int, per_s: float, source: str = STRANGER, seed: int = 1) -> int:
    """Send datagrams of random bytes and broken messages. Returns how many were sent."""
    dice = random.Random(seed)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind((source, 0))
        sock.setblocking(False)
        good = _request("INVITE", 0, source)
        for number in range(count):
            match number % 4:
                case 0:
                    data = dice.randbytes(dice.randrange(8, 1200))
                case 1:
                    data = _request("INVITE", number, source)
                case 2:
                    data = good[: dice.randrange(8, len(good))]
                case _:
                    data = b"SIP/2.0 200 OK\r\n" + dice.randbytes(100)
            try:
                sock.sendto(data, (FRIEND, port))
            except BlockingIOError:
                await asyncio.sleep(0.001)
            if number % _BATCH == _BATCH - 1:
                await asyncio.sleep(_BATCH / per_s)
    return count


async def forged_byes(port: int, count: int, call_ids: Callable[[], list[str]], source: str = STRANGER) -> None:
    """Send BYEs, some of which name calls that are in progress (but not their tags, which nobody can guess)."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind((source, 0))
        sock.setblocking(False)
        for number in range(count):
            known = call_ids()
            data = _request("BYE", number, source)
            if known:
                data = data.replace(f"bad-{number}".encode(), random.choice(known).encode(), 1)
            sock.sendto(data, (FRIEND, port))
            await asyncio.sleep(0.01)


async def _connect(port: int, source: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter] | None:
    try:
        return await asyncio.open_connection(FRIEND, port, local_addr=(source, 0))
    except OSError:
        return None


async def _leave(writer: asyncio.StreamWriter) -> None:
    writer.close()
    try:
        await writer.wait_closed()
    except OSError:
        pass


async def slow_connections(port: int, count: int, seconds: float, source: str = STRANGER) -> int:
    """Hold connections open that send a byte of a message now and then. Returns how many the other side closed."""

    async def drip(number: int) -> bool:
        streams = await _connect(port, source)
        if streams is None:
            return True
        reader, writer = streams
        try:
            for byte in _request("INVITE", number, source)[: int(seconds * 4)]:
                writer.write(bytes((byte,)))
                await writer.drain()
                try:
                    if await asyncio.wait_for(reader.read(1), 0.25) == b"":
                        return True
                except TimeoutError:
                    pass
        except OSError:
            return True
        finally:
            await _leave(writer)
        return False

    return sum(await asyncio.gather(*[drip(number) for number in range(count)]))


async def _send_stream(port: int, data: bytes, source: str) -> None:
    streams = await _connect(port, source)
    if streams is None:
        return
    reader, writer = streams
    try:
        writer.write(data)
        await asyncio.wait_for(reader.read(4096), 0.5)
    except (OSError, TimeoutError):
        pass
    finally:
        await _leave(writer)


async def large_heads(port: int, count: int, source: str = STRANGER) -> None:
    """Messages whose headers take 64 KB, by TCP and UDP."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind((source, 0))
        for number in range(count):
            line = "X-Long: " + "x" * 64_000 + "\r\n" if number % 2 else "X: 1\r\n" * 9000
            await _send_stream(port, _request("INVITE", number, source, line), source)
            sock.sendto(_request("INVITE", number, source, line)[:60_000], (FRIEND, port))
            await asyncio.sleep(0.02)


async def lying_lengths(port: int, count: int, source: str = STRANGER) -> None:
    """Content-Lengths that are too long, too short, negative, doubled and endless."""
    lies = ["999999999", "1", "-1", "0\r\nContent-Length: 5", "9" * 50, "abc"]
    for number in range(count):
        data = _request("INVITE", number, source, body="v=0\r\n")
        lie = f"Content-Length: {lies[number % len(lies)]}"
        await _send_stream(port, data.replace(b"Content-Length: 5", lie.encode()), source)
        await asyncio.sleep(0.02)


async def odd_messages(port: int, source: str = FRIEND, seed: int = 1) -> None:
    """Torture messages as they are and with a byte changed, by UDP and TCP, from a source that may call."""
    dice = random.Random(seed)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind((source, 0))
        sock.setblocking(False)
        for case in CASES:
            data = bytearray(case.data)
            data[dice.randrange(len(data))] = dice.randrange(256)
            sock.sendto(case.data, (FRIEND, port))
            sock.sendto(bytes(data), (FRIEND, port))
            if dice.random() < 0.3:
                await _send_stream(port, bytes(data), source)
            await asyncio.sleep(0.02)


async def repeat(seconds: float, make: Callable[[int], Awaitable[object]]) -> int:
    """Do something again and again until the time is over. Returns how often."""
    end = asyncio.get_running_loop().time() + seconds
    number = 0
    while asyncio.get_running_loop().time() < end:
        await make(number)
        number += 1
    return number
