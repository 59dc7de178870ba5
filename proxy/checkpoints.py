"""What would end each call, in memory that outlives the worker which has the call.

Each worker has a table of slots of its own. A record takes as many slots as it needs, linked; it counts from the
moment that the length stands in its first slot, and no more from the moment that it does not. So a worker that is
killed at any point leaves whole records only: the one that was being written is not there yet, or stands beside the one
before.
"""

from __future__ import annotations

import json
import mmap
import struct
import zlib
from collections.abc import Iterator, Sequence
from typing import Any, Final

import orjson
import structlog

__all__ = ["CheckpointTable", "Checkpoints"]

_SLOT: Final = 512
_HEAD: Final = struct.Struct("=IIiI")  # length of the whole record, or 0; checksum; next slot, or -1; number of writing
_LENGTH: Final = struct.Struct("=I")
_ROOM: Final = _SLOT - _HEAD.size
_SLOTS_PER_CALL: Final = 4
_MAX_SLOTS: Final = 400_000
_LEAST_SLOTS: Final = 1024
_NORESERVE: Final = 0x4000
_NONE: Final = -1

_log = structlog.get_logger(__name__)


class Checkpoints:
    """The tables of all workers, in memory shared by all processes that are forked after it was made. Memory that no
    record has used yet is only promised.

    Args:
        workers: how many. calls: as many as each may have at a time.
    """

    def __init__(self, workers: int, calls: int) -> None:
        self._slots = max(min(calls * _SLOTS_PER_CALL, _MAX_SLOTS), _LEAST_SLOTS)
        flags = mmap.MAP_SHARED | mmap.MAP_ANONYMOUS | _NORESERVE
        # A slot before those of each worker says how many of them have ever been used.
        self._bytes = (self._slots + 1) * _SLOT
        self._memory = mmap.mmap(-1, workers * self._bytes, flags=flags)

    def close(self) -> None:
        """Let go of the memory, in this process."""
        self._memory.close()

    def table(self, number: int) -> CheckpointTable:
        """The table of a worker."""
        return CheckpointTable(self._memory, number * self._bytes, self._slots)

    def left_by(self, number: int) -> int:
        """How many records a worker that died has left."""
        return len(self.table(number).load())


class CheckpointTable:
    """One worker's table.

    Args:
        memory: where it is, from `start` on. slots: how many it has.

    Attributes:
        lost: records for which there was no room.
    """

    def __init__(self, memory: mmap.mmap, start: int, slots: int) -> None:
        self.lost = 0
        self._memory = memory
        self._start = start
        self._slots = slots
        self._used = 0
        self._free: list[int] = []
        self._places: dict[tuple[str, str], tuple[int, ...]] = {}
        self._writing = 0

    def __len__(self) -> int:
        """How many records there are."""
        return len(self._places)

    def put(self, call: str, side: str, facts: Sequence[object]) -> None:
        """Keep the facts of a leg, in place of those before."""
        value = [call, side, facts]
        try:
            data = orjson.dumps(value)
        except TypeError:  # bytes that are not UTF-8 came as lone surrogates
            data = json.dumps(value).encode()
        count = -(-len(data) // _ROOM)
        places = (self._free.pop(),) if count == 1 and self._free else self._take(count)
        if places is None:
            self.lost += 1
            if self.lost == 1:
                _log.error("checkpoints-full", advice="calls above limits.max_calls / workers can't be kept")
            return
        self._write(places, data)
        key = (call, side)
        before = self._places.get(key)
        self._places[key] = places
        if before is not None:
            self._give_back(before)

    def drop(self, call: str, side: str) -> None:
        """Keep nothing of a leg any more."""
        places = self._places.pop((call, side), None)
        if places is not None:
            self._give_back(places)

    def _take(self, count: int) -> tuple[int, ...] | None:
        free = self._free
        while len(free) < count:
            if self._used >= self._slots:
                return None
            free.append(self._used)
            self._used += 1
            _LENGTH.pack_into(self._memory, self._start, self._used)
        return tuple([free.pop() for _ in range(count)])

    def _give_back(self, places: tuple[int, ...]) -> None:
        _LENGTH.pack_into(self._memory, self._at(places[0]), 0)
        self._free.extend(places)

    def _at(self, slot: int) -> int:
        return self._start + (slot + 1) * _SLOT

    def _write(self, places: tuple[int, ...], data: bytes) -> None:
        memory, length, first = self._memory, len(data), self._at(places[0])
        self._writing = (self._writing + 1) & 0xFFFF_FFFF
        if length <= _ROOM:
            memory[first : first + _HEAD.size + length] = _HEAD.pack(0, zlib.crc32(data), _NONE, self._writing) + data
        else:
            following = (*places[1:], _NONE)
            for at, place in enumerate(places):
                part = data[at * _ROOM : (at + 1) * _ROOM]
                start = self._at(place)
                memory[start + _HEAD.size : start + _HEAD.size + len(part)] = part
                _HEAD.pack_into(memory, start, 0, zlib.crc32(data), following[at], self._writing)
        _LENGTH.pack_into(memory, first, length)

    def load(self) -> list[tuple[str, str, list[Any]]]:
        """Take over what a predecessor has left: call, side and facts of each leg, the oldest ones first."""
        (self._used,) = _LENGTH.unpack_from(self._memory, self._start)
        found: dict[tuple[str, str], tuple[int, tuple[int, ...], list[Any]]] = {}
        for number, places, data in self._records():
            call, side, facts = json.loads(data)
            before = found.get((call, side))
            if before is None or before[0] < number:
                found[call, side] = (number, places, facts)
        self._places = {key: places for key, (_, places, _) in found.items()}
        taken = {place for places in self._places.values() for place in places}
        self._free = [slot for slot in range(self._used - 1, -1, -1) if slot not in taken]
        for slot in self._free:
            _LENGTH.pack_into(self._memory, self._at(slot), 0)
        self._writing = max([number for number, _, _ in found.values()], default=0)
        ordered = sorted(found.items(), key=lambda item: item[1][0])
        return [(call, side, facts) for (call, side), (_, _, facts) in ordered]

    def _records(self) -> Iterator[tuple[int, tuple[int, ...], bytes]]:
        """All whole records: number of writing, slots, data."""
        memory = self._memory
        for slot in range(min(self._used, self._slots)):
            length, checksum, following, number = _HEAD.unpack_from(memory, self._at(slot))
            if not length:
                continue
            places, parts, left = [slot], [], length
            while True:
                start = self._at(places[-1]) + _HEAD.size
                part = memory[start : start + min(left, _ROOM)]
                parts.append(part)
                left -= len(part)
                if left <= 0 or not 0 <= following < self._used:
                    break
                places.append(following)
                following = _HEAD.unpack_from(memory, self._at(following))[2]
            data = b"".join(parts)
            if len(data) == length and zlib.crc32(data) == checksum:
                yield number, tuple(places), data
