"""Phone numbers in any text, and how they are masked.

The first digits (at most four) and the last two stay, the rest become stars: `+15550100002` is written as
`+1555*****02`. The same number always looks the same. A number has seven digits at least; separators may stand between
them, and digits may be percent-encoded.
"""

from __future__ import annotations

import re
from typing import Final

__all__ = ["mask_free_numbers", "mask_number"]

_MIN_DIGITS: Final = 7
_HEAD_DIGITS: Final = 4
_TAIL_DIGITS: Final = 2
_MIN_HIDDEN: Final = 5

_FREE: Final = re.compile(r"(?<![0-9A-Fa-f_])\+?\(?[0-9](?:[ .()\-]{0,2}[0-9]){6,}(?![0-9A-Fa-f_])")
_ESCAPED: Final = re.compile(
    r"(?<![0-9A-Fa-f_%])(?:\+|%2B)?\(?(?:[0-9]|%3[0-9])(?:(?:[ .()\-]|%2[089DE]){0,2}(?:[0-9]|%3[0-9])){6,}"
    r"(?![0-9A-Fa-f_])",
    re.IGNORECASE,
)
_OCTET: Final = r"(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[0-9]{1,2})"
_KEPT: Final = re.compile(
    rf"((?<![0-9.]){_OCTET}(?:\.{_OCTET}){{3}}(?!\.?[0-9])|(?<![0-9])(?:19|20)[0-9]{{2}}-[01][0-9]-[0-3][0-9](?![0-9-]))"
)
"""IPv4 addresses and dates."""
_CLOCK: Final = re.compile(r"[0-9]{2}:[0-9]{2}:\Z")
_UUID: Final = re.compile(r"[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}")
_UUID_LENGTH: Final = 36
_CHARACTER: Final = re.compile(r"%[0-9A-Fa-f]{2}|.", re.DOTALL)


def mask_number(text: str) -> str:
    """Mask the digits of one phone number; what has fewer than seven digits is none and stays."""
    plus = "+" if text[:1] == "+" else ""
    bare = text[len(plus) :]
    if bare.isdecimal() and bare.isascii():
        digits = len(bare)
        if digits < _MIN_DIGITS:
            return text
        head = _shown(digits)
        return plus + bare[:head] + "*" * (digits - head - _TAIL_DIGITS) + bare[-_TAIL_DIGITS:]
    return _mask_digits(text)


def mask_free_numbers(text: str) -> str:
    """Mask what looks like phone numbers in any text: runs of seven digits and more, with or without separators.

    What is part of a longer word of hexadecimal digits is no number; neither are UUIDs, IPv4 addresses, dates and
    times of day.
    """
    return (_ESCAPED if "%" in text else _FREE).sub(_masked, text)


def _masked(found: re.Match[str]) -> str:
    run = found[0]
    if "-" in run or "." in run:
        if _is_else(found):
            return run
        return "".join([part if at % 2 else mask_number(part) for at, part in enumerate(_KEPT.split(run))])
    return mask_number(run)


def _is_else(found: re.Match[str]) -> bool:
    """Whether digits belong to a UUID or to a time of day."""
    text, start, end = found.string, found.start(), found.end()
    if text[start - 1 : start] == ":" and _CLOCK.search(text, max(start - 6, 0), start):
        return True
    around = _UUID.finditer(text, max(start - _UUID_LENGTH, 0), end + _UUID_LENGTH)
    return any(one.start() <= start and end <= one.end() for one in around)


def _shown(digits: int) -> int:
    """How many digits of a number stay at its beginning."""
    return min(_HEAD_DIGITS, digits - _TAIL_DIGITS - _MIN_HIDDEN)


def _mask_digits(text: str) -> str:
    """`mask_number` of a number with something between its digits, or with digits that are percent-encoded."""
    characters = _CHARACTER.findall(text) if "%" in text else list(text)
    places = [at for at, one in enumerate(characters) if one in _DIGITS]
    if len(places) < _MIN_DIGITS:
        return text
    for at in places[_shown(len(places)) : -_TAIL_DIGITS]:
        characters[at] = "*"
    return "".join(characters)


_DIGITS: Final = frozenset([*"0123456789", *[f"%3{digit}" for digit in range(10)]])
