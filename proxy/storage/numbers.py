"""Phone numbers that are masked in the store can still be looked for: a keyed hash of each is kept beside it.

The key lies in a file beside the store, readable by its owner alone. Without it a copy of the store does not tell the
numbers, though there are few enough of them to try all.
"""

from __future__ import annotations

import os
from hashlib import blake2b
from pathlib import Path
from typing import Final

from proxy.sip.errors import SipError
from proxy.sip.uri import parse_uri

__all__ = ["hash_number", "key_path", "load_key", "number_of"]

_KEY_BYTES: Final = 32
_MIN_DIGITS: Final = 3


def key_path(store: Path) -> Path:
    """Where the key of a store lies."""
    return store.with_name(store.name + ".key")


def load_key(store: Path, *, make: bool = True) -> bytes:
    """The key of a store, from the file beside it (`.key`); made where there is none. Raises OSError.

    Without `make`, a key that is not there, or may not be read, is empty: nothing will match.
    """
    path = key_path(store)
    try:
        key = path.read_bytes()
        if len(key) == _KEY_BYTES or not make:
            return key
    except OSError:
        if not make:
            return b""
        if path.exists():
            raise
    key = os.urandom(_KEY_BYTES)
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(os.open(path, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600), "wb") as file:
        file.write(key)
    return key


def number_of(uri: str) -> str:
    """The phone number that a URI names, or ""."""
    start, _, rest = uri.partition("@")
    if rest and start[:4] == "sip:" and start[5:].isalnum() and (start[4].isalnum() or start[4] == "+"):
        return start[4:]
    try:
        parsed = parse_uri(uri)
    except SipError:
        return ""
    return parsed.user or ""


def hash_number(key: bytes, number: str) -> int | None:
    """64 bits of a keyed hash of the digits; None for what has fewer than three. Notation does not matter."""
    digits = "".join([char for char in number if "0" <= char <= "9"])
    if len(digits) < _MIN_DIGITS or not key:
        return None
    return int.from_bytes(blake2b(digits.encode(), digest_size=8, key=key).digest(), "big", signed=True)
