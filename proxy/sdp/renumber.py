"""Other payload type numbers for the codecs of an offer."""

from collections.abc import Mapping
from typing import Final

from .codecs import Codec, renumber_fmtp, static_codec
from .editor import Editor
from .session import Media, payload_of

_FIRST_DYNAMIC: Final = 96


def renumber(editor: Editor, wanted: Mapping[str, int]) -> None:
    """Give the codecs that `wanted` names ("opus", "telephone-event/8000") these payload types in every RTP stream.

    A codec that has the number already and can have any other gives way to it: the two change places. Where a number
    belongs to another codec by RFC 3551, or to one that can't give way, nothing changes. Answers are put back into the
    numbers of the offer by `map_answer`.
    """
    for index in range(len(editor.session.media)):
        media = editor.session.media[index]
        if media.port and media.is_rtp:
            numbers = _numbers(media, wanted)
            if numbers:
                _renumber(editor, index, numbers)


def _numbers(media: Media, wanted: Mapping[str, int]) -> dict[str, str]:
    """Old number to new one, for all codecs that move."""
    numbers: dict[str, str] = {}
    taken = {str(codec.payload): codec for codec in media.codecs}
    for name, number in wanted.items():
        codec = next((one for one in media.codecs if one.matches(name)), None)
        if codec is None or codec.payload == number or str(codec.payload) in numbers or str(number) in numbers.values():
            continue
        if not _may_have(codec, number):
            continue
        other = taken.get(str(number))
        if other is not None and (str(number) in numbers or not _may_have(other, codec.payload)):
            continue
        numbers[str(codec.payload)] = str(number)
        if other is not None:
            numbers[str(number)] = str(codec.payload)
    return numbers


def _may_have(codec: Codec, number: int) -> bool:
    static = static_codec(number)
    if static is not None:
        return (codec.name.upper(), codec.clock_rate, codec.channels) == (static[0].upper(), *static[1:])
    return bool(codec.name) and number >= _FIRST_DYNAMIC


def _renumber(editor: Editor, index: int, numbers: Mapping[str, str]) -> None:
    for codec in list(editor.session.media[index].codecs):
        if not codec.mapped and str(codec.payload) in numbers:
            editor.add_rtpmap(index, codec.payload, codec.rtpmap)
    media = editor.session.media[index]
    codecs = {str(codec.payload): codec for codec in media.codecs}
    formats = [numbers.get(text, text) for text in media.formats]

    def changed(line: str) -> str:
        found = payload_of(line)
        if found is None:
            return line
        name, payload = found
        rest = line.partition(":")[2].lstrip()[len(payload) :]
        codec = codecs.get(payload)
        if name == "fmtp" and codec is not None:
            text = renumber_fmtp(codec, rest.lstrip(), numbers)
            rest = rest if text == rest.lstrip() else f" {text}"
        after = f"a={name}:{numbers.get(payload, payload)}{rest}"
        return line if payload not in numbers and rest == line.partition(":")[2].lstrip()[len(payload) :] else after

    start, end = media.start + 1, media.end
    editor.set_media(index, formats=formats)
    editor.rewrite(start, end, changed)
