"""What a call can be found by: 64 bits for each of its ids and numbers, in spans of time.

One index over all calls would have each new one write to pages all over the file. So the index is one for each span of
some 73 minutes, that of its call's start: what is written stays together, and a search looks into each span.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import Final

from proxy.storage.numbers import hash_number, number_of

__all__ = ["SPAN_BITS", "NumberNames", "name_of_id", "name_of_text", "names_of_prefix"]

SPAN_BITS: Final = 42
"""The span of a call is its key without so many bits."""

_BYTES: Final = 8
_MOST: Final = 1024


def name_of_id(call: str) -> int:
    """The name of a call by our id: its first eight letters, so that names stand in the order of ids."""
    return _number(call.encode("utf-8", "surrogateescape")[:_BYTES].ljust(_BYTES, b"\0"))


def names_of_prefix(start: str) -> tuple[int, int]:
    """The first and the last name of the ids that begin so."""
    encoded = start.encode("utf-8", "surrogateescape")[:_BYTES]
    return _number(encoded.ljust(_BYTES, b"\0")), _number(encoded.ljust(_BYTES, b"\xff"))


def name_of_text(text: str) -> int:
    """The name of a Call-ID or an X-Twilio-CallSid: a hash."""
    return _number(blake2b(text.encode("utf-8", "surrogateescape"), digest_size=_BYTES).digest())


def _number(data: bytes) -> int:
    return int.from_bytes(data, "big", signed=True)


class NumberNames:
    """Names of phone numbers, by the URIs that hold them; keyed hashes (`proxy.storage.numbers`).

    Args:
        key: of the hashes.
    """

    __slots__ = ("_key", "_known")

    def __init__(self, key: bytes) -> None:
        self._key = key
        self._known: dict[str, int | None] = {}

    def of(self, uri: str) -> int | None:
        """The name of the number in a URI; None where there is none."""
        if uri in self._known:
            return self._known[uri]
        found = hash_number(self._key, number_of(uri))
        if len(self._known) >= _MOST:
            self._known.clear()
        self._known[uri] = found
        return found
