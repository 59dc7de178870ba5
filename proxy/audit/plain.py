"""Events as plain values: what JSON can hold, with numbers and secrets masked."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Final

import orjson

from proxy.audit.phone import mask_number
from proxy.audit.records import Change
from proxy.audit.redact import Redactor

__all__ = ["NUMBERS", "READABLE", "dump_line", "masked_text", "plain", "timestamp", "valid_text"]

READABLE: Final = frozenset(("call_id", "branch", "tag", "id", "token", "rules", "target", "method", "step"))
"""Fields whose texts are never masked."""

NUMBERS: Final = frozenset(("from", "to", "caller", "called", "number", "user", "diversion"))
"""Fields whose texts are a phone number where they are digits."""


def timestamp(unix_time: float) -> str:
    """A moment as RFC 3339 in UTC with microseconds."""
    return datetime.fromtimestamp(unix_time, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def plain(name: str, value: object, redactor: Redactor) -> object:
    """A field's value as JSON can hold it, masked."""
    match value:
        case None | bool() | int() | float():
            return value
        case str():
            return masked_text(name, value, redactor)
        case bytes():
            return redactor.text(value.decode("utf-8", "backslashreplace"))
        case Change():
            return {
                "step": value.step,
                "part": value.part,
                "index": value.index,
                "before": _line(value.before, redactor),
                "after": _line(value.after, redactor),
            }
        case Mapping():
            return {str(key): plain(str(key), item, redactor) for key, item in value.items()}
        case list() | tuple() | set() | frozenset():
            return [plain(name, item, redactor) for item in value]
        case _:
            serialize: Callable[[], bytes] | None = getattr(value, "serialize", None)
            if serialize is not None:
                return redactor.text(serialize().decode("utf-8", "backslashreplace"))
            return masked_text(name, str(value), redactor)


def masked_text(name: str, value: str, redactor: Redactor) -> str:
    """The text of a field, masked."""
    if name in READABLE:
        return value
    if name in NUMBERS and redactor.settings.mask_numbers and value.lstrip("+").isdigit():
        return mask_number(value)
    return redactor.text(value)


def _line(line: str | None, redactor: Redactor) -> str | None:
    return None if line is None else redactor.line(line)


def dump_line(record: Mapping[str, object]) -> bytes:
    """One line of JSON. Bytes that are not UTF-8 (surrogates in text) are written as `\\xNN`."""
    try:
        return orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE)
    except TypeError:
        return orjson.dumps(valid_text(record), option=orjson.OPT_APPEND_NEWLINE, default=str)


def valid_text(value: Any) -> Any:
    """A value in which bytes that are not UTF-8 (surrogates in text) are written as `\\xNN`."""
    match value:
        case str():
            return value.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
        case Mapping():
            return {valid_text(str(key)): valid_text(item) for key, item in value.items()}
        case list() | tuple():
            return [valid_text(item) for item in value]
        case int() if not -(2**63) <= value < 2**64:
            return str(value)
        case _:
            return value
