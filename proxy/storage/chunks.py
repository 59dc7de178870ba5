"""Events of a call, packed: a timeline as JSON, compressed by Zstandard with a dictionary of what all of them have."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Final

import orjson

from proxy.audit.plain import valid_text
from proxy.storage.dictionary import DICTIONARY
from proxy.storage.timeline import events_of

if TYPE_CHECKING or sys.version_info < (3, 14):
    from backports import zstd
else:
    from compression import zstd

__all__ = ["Packer", "unpack"]

_LEVEL: Final = 1
_WINDOW_BITS: Final = 17

_DICTIONARY: Final = zstd.ZstdDict(DICTIONARY, is_raw=True)


class Packer:
    """Packs timelines; keeps what compressing needs from one to the next. For one thread at a time."""

    __slots__ = ("_compressor",)

    def __init__(self) -> None:
        parameter = zstd.CompressionParameter
        options: dict[int, int] = {
            parameter.compression_level: _LEVEL,
            parameter.window_log: _WINDOW_BITS,
            parameter.content_size_flag: 0,
            parameter.dict_id_flag: 0,
        }
        self._compressor = zstd.ZstdCompressor(options=options, zstd_dict=_DICTIONARY.as_digested_dict)

    def pack(self, events: list[list[Any]], texts: list[str]) -> bytes:
        """Pack the events and texts of a `proxy.storage.timeline.Timeline`."""
        try:
            data = orjson.dumps((events, texts))
        except TypeError:  # bytes that are not UTF-8, or a number that is too large
            data = orjson.dumps(valid_text((events, texts)), default=str)
        return self._compressor.compress(data, zstd.ZstdCompressor.FLUSH_FRAME)


def unpack(blob: bytes) -> list[dict[str, Any]]:
    """The events of a packed timeline, as `events_of` gives them. Raises ValueError when the bytes are none."""
    try:
        events, texts = orjson.loads(zstd.decompress(blob, zstd_dict=_DICTIONARY))
        return events_of(events, texts)
    except (zstd.ZstdError, ValueError, TypeError, LookupError) as error:
        raise ValueError(f"damaged: {error}") from None
