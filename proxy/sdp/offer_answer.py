"""Offer and answer (RFC 3264): does an answer fit its offer, and what does it say in the terms of another offer."""

from collections.abc import Mapping, Sequence
from typing import Final

from .codecs import Codec, has_primary, renumber_fmtp
from .crypto import Crypto
from .editor import Editor, Record
from .errors import NoCommonCodec, SdpError
from .session import Media, Session, payload_of

# The directions that may answer each direction of an offer, RFC 3264 6.1; where the answer says another, what is left
# of it when the part that the offer rules out is taken away.
_ANSWERS: Final[dict[str, tuple[str, ...]]] = {
    "sendrecv": ("sendrecv", "sendonly", "recvonly", "inactive"),
    "sendonly": ("recvonly", "inactive"),
    "recvonly": ("sendonly", "inactive"),
    "inactive": ("inactive",),
}


def fitting_direction(answered: str, offered: str) -> str:
    """The direction of an answer `answered` reduced to what an offer `offered` allows (RFC 3264 6.1)."""
    allowed = _ANSWERS[offered]
    if answered in allowed:
        return answered
    return allowed[0] if answered == "sendrecv" else "inactive"


def offered_codec(codec: Codec, offer: Media) -> Codec | None:
    """The codec of `offer` that `codec` of an answer means, or None.

    Codecs are told by name, clock rate and channels: the one with the same payload type first, then with the same
    fmtp, then the first. Where the answer has no rtpmap, or the offer no codec, the payload type decides.
    """
    offered = offer.codecs
    same_payload = next((other for other in offered if other.payload == codec.payload), None)
    if same_payload is not None and (not codec.mapped or not same_payload.is_known or codec.matches(same_payload)):
        return same_payload
    alike = [other for other in offered if codec.matches(other)]
    return next((other for other in alike if other.fmtp == codec.fmtp), alike[0] if alike else None)


def check_answer(answer: Session, offer: Session) -> list[str]:
    """What is wrong with `answer` as an answer to `offer` by RFC 3264 6: a plain sentence for each fault, [] if none.

    Checked are the number of m-lines, and for each its kind, protocol, formats, common codec, direction, and the tag
    and suite of a=crypto (RFC 4568 5.1.2).
    """
    problems: list[str] = []
    if len(answer.media) != len(offer.media):
        problems.append(f"The answer has {len(answer.media)} m-lines, the offer has {len(offer.media)}.")
    for answered, offered in zip(answer.media, offer.media, strict=False):
        where = f"m-line {answered.index + 1} ({offered.kind})"
        if answered.kind != offered.kind:
            problems.append(f"The answer's {where} is of kind {answered.kind}.")
        elif answered.protocol.upper() != offered.protocol.upper():
            problems.append(f"The answer's {where} has protocol {answered.protocol}, the offer {offered.protocol}.")
        elif answered.port and offered.is_refused:
            problems.append(f"The answer accepts {where}, which the offer does not use.")
        elif answered.port:
            problems += [f"The answer's {where} {problem}." for problem in _stream_problems(answered, offered)]
    return problems


def _stream_problems(answered: Media, offered: Media) -> list[str]:
    problems: list[str] = []
    if answered.is_rtp:
        common: list[Codec] = []
        for codec in answered.codecs:
            match = offered_codec(codec, offered)
            name = codec.rtpmap if codec.is_known else "no rtpmap"
            if match is None:
                problems.append(f"has payload type {codec.payload} ({name}), which was not offered")
            elif match.payload != codec.payload:
                problems.append(f"has payload type {codec.payload} for {name}, offered as {match.payload}")
            else:
                common.append(match)
        numbers = {str(codec.payload) for codec in answered.codecs}
        problems += [f"has {text}, which is no payload type" for text in answered.formats if text not in numbers]
        if not _is_enough(common, offered):
            problems.append("has no codec in common with the offer")
    else:
        formats = {text.lower() for text in offered.formats}
        problems += [
            f"has format {text}, which was not offered" for text in answered.formats if text.lower() not in formats
        ]
    if fitting_direction(answered.direction, offered.direction) != answered.direction:
        problems.append(f"has direction {answered.direction}, the offer {offered.direction}")
    problems += _crypto_problems(answered, offered)
    return problems


def _is_enough(common: Sequence[Codec], offered: Media) -> bool:
    """Whether `common` makes a stream: with a voice codec, unless the offer had none of its own."""
    return has_primary(common) or (bool(common) and not has_primary(offered.codecs))


def _crypto_problems(answered: Media, offered: Media) -> list[str]:
    keys = answered.crypto
    if not keys:
        return ["has no a=crypto"] if answered.keying == "sdes" else []
    if len(keys) > 1:
        return ["has more than one a=crypto"]
    if not any(keys[0].tag == key.tag and keys[0].suite.upper() == key.suite.upper() for key in offered.crypto):
        return [f"has a=crypto {keys[0].tag} {keys[0].suite}, which was not offered"]
    return []


def map_answer(answer: Session, sent_offer: Session, original_offer: Session, record: Record) -> Session:
    """Return `answer`, which came for `sent_offer` on leg B, in the terms of `original_offer`, which leg A made.

    The result has the m-lines of the original offer in their order. One that was not in the sent offer, or that the
    answer leaves out, is refused: port 0, with leg A's protocol and formats. The others get leg A's protocol variant
    and payload numbers, the rtpmaps that are missing, a direction that fits, and leg A's tag in a=crypto; formats that
    leg A did not offer go, and m-lines that it did not offer too.

    `answer` is left as it is; `record` gets each edit as from an Editor, once all are made. An answer that already
    fits is returned equal and nothing is recorded. Raises NoCommonCodec when an accepted audio stream is left without a
    codec of leg A's, and SdpError when one is left without any format, has keys of a kind or suite that leg A cannot
    use, or none.
    """
    result = answer.copy()
    edits: list[tuple[int, str | None, str | None]] = []
    editor = Editor(result, lambda index, before, after: edits.append((index, before, after)))
    from_sent = _pair(sent_offer.media, original_offer.media)
    from_answer = _pair(result.media, sent_offer.media)
    sources: dict[int, tuple[int, int]] = {}
    for answer_index, sent_index in from_answer.items():
        if sent_index in from_sent:
            sources[from_sent[sent_index]] = (answer_index, sent_index)
    used = {answer_index for answer_index, _ in sources.values()}
    for index in reversed(range(len(result.media))):
        if index not in used:
            editor.remove_media(index)
    for index, offered in enumerate(original_offer.media):
        if index in sources:
            _map_stream(editor, result.media[index], sent_offer.media[sources[index][1]], offered)
        else:
            _insert_refused(editor, index, offered)
    for edit in edits:
        record(*edit)
    return result


def _pair(parts: Sequence[Media], whole: Sequence[Media]) -> dict[int, int]:
    """Which section of `whole` each section of `parts` is, as {index in parts: index in whole}, both in order.

    Sections of a kind go together in order. Where some of them are missing from `parts`, those with the same port are
    the same (an editor removes sections, it does not move them).
    """
    if [media.kind for media in parts] == [media.kind for media in whole]:
        return {index: index for index in range(len(parts))}
    pairs: dict[int, int] = {}
    position = 0
    for media in parts:
        ahead = [other.index for other in whole[position:] if other.kind == media.kind]
        to_come = sum(other.kind == media.kind for other in parts[media.index :])
        same = [index for index in ahead if whole[index].port == media.port]
        if not ahead:
            continue
        found = same[0] if same and len(ahead) > to_come else ahead[0]
        pairs[media.index] = found
        position = found + 1
    return pairs


def _insert_refused(editor: Editor, index: int, offered: Media) -> None:
    """Put m-line `index` of the original offer into the answer, refused (RFC 3264 6)."""
    session = editor.session
    at = session.media[index].start if index < len(session.media) else len(session.lines)
    editor.insert(at, offered.line_with(port=0, formats=offered.formats or ["0"]))
    if session.first_line("c") < 0:
        # Without one for the session, RFC 8866 5.7 asks a c= of every section.
        i = session.first_line("c", 0, len(session.lines))
        if i >= 0:
            editor.insert(at + 1, session.lines[i])


def _map_stream(editor: Editor, answered: Media, sent: Media, offered: Media) -> None:
    """Put one section of the answer into the terms of the section of the original offer that it answers."""
    if answered.is_refused or offered.is_refused:
        _refuse(editor, answered, offered)
        return
    where = f"m-line {offered.index + 1} ({offered.kind})"
    if answered.keying != offered.keying or answered.is_rtp != offered.is_rtp:
        raise SdpError(f"{where}: answered as {answered.protocol}, offered as {offered.protocol}")
    if answered.protocol.upper() != offered.protocol.upper():
        if not answered.is_rtp:
            raise SdpError(f"{where}: answered as {answered.protocol}, offered as {offered.protocol}")
        editor.set_media(answered.index, protocol=offered.protocol)
    if answered.is_rtp:
        _map_codecs(editor, answered, sent, offered, where)
    else:
        known = {text.lower() for text in offered.formats}
        formats = [text for text in answered.formats if text.lower() in known]
        if not formats:
            raise SdpError(f"{where}: the answer has none of the formats that were offered")
        editor.set_media(answered.index, formats=formats)
    _map_crypto(editor, answered, offered, where)
    direction = fitting_direction(answered.direction, offered.direction)
    if direction != answered.direction:
        editor.set_direction(direction, answered.index)


def _refuse(editor: Editor, answered: Media, offered: Media) -> None:
    formats = answered.formats
    if not formats or not set(formats).issubset(offered.formats):
        formats = offered.formats or ["0"]
    same_protocol = answered.protocol.upper() == offered.protocol.upper()
    editor.set_media(
        answered.index, port=0, protocol=answered.protocol if same_protocol else offered.protocol, formats=formats
    )


def _map_codecs(editor: Editor, answered: Media, sent: Media, offered: Media, where: str) -> None:
    """Give the codecs of the answer leg A's payload numbers, drop what leg A did not offer, add missing rtpmaps."""
    mapped: dict[str, Codec] = {}  # a format of the answer -> leg A's codec
    taken: set[int] = set()
    by_text = {str(codec.payload): codec for codec in answered.codecs}
    for text, codec in by_text.items():
        meant = codec
        if not codec.is_known:
            meant = next((other for other in sent.codecs if other.payload == codec.payload), codec)
        match = offered_codec(meant, offered)
        if match is not None and match.payload not in taken:
            taken.add(match.payload)
            mapped[text] = match
    if not _is_enough(list(mapped.values()), offered):
        names = ", ".join([codec.name or str(codec.payload) for codec in answered.codecs])
        reason = f"{where}: the answer has no codec that was offered: {names}"
        raise NoCommonCodec(reason) if offered.kind == "audio" else SdpError(reason)
    numbers = {text: str(codec.payload) for text, codec in mapped.items()}
    formats = [numbers[text] for text in dict.fromkeys(answered.formats) if text in numbers]
    if formats != answered.formats:
        gone = set(answered.formats).union(formats).difference(numbers)
        editor.set_media(answered.index, formats=formats)
        editor.rewrite(answered.start + 1, answered.end, _Renumber(by_text, numbers, gone))
    for codec in list(answered.codecs):
        if codec.mapped:
            continue
        match = next(other for other in offered.codecs if other.payload == codec.payload)
        if match.is_known and not codec.matches(match):
            editor.add_rtpmap(answered.index, codec.payload, match.rtpmap)


class _Renumber:
    """Gives rtpmap, fmtp and rtcp-fb lines their new payload numbers; those of formats in `gone` go."""

    __slots__ = ("_codecs", "_gone", "_numbers")

    def __init__(self, codecs: Mapping[str, Codec], numbers: Mapping[str, str], gone: set[str]) -> None:
        self._codecs = codecs
        self._numbers = numbers
        self._gone = gone

    def __call__(self, line: str) -> str | None:
        found = payload_of(line)
        if found is None:
            return line
        name, text = found
        if text not in self._numbers:
            return None if text in self._gone else line
        number = self._numbers[text]
        rest = line.partition(":")[2].lstrip()[len(text) :]
        parameters = rest.strip()
        renumbered = renumber_fmtp(self._codecs[text], parameters, self._numbers) if name == "fmtp" else parameters
        if renumbered != parameters:
            rest = " " + renumbered
        elif number == text:
            return line
        return f"a={name}:{number}{rest}"


def _map_crypto(editor: Editor, answered: Media, offered: Media, where: str) -> None:
    """Leave the one a=crypto of the answer (RFC 4568 5.1.2) whose suite leg A offered, with leg A's tag for it."""
    if answered.keying != "sdes" and not editor.session.may_have_attribute("crypto"):
        return
    chosen: Crypto | None = None
    tag = 0
    for crypto in answered.crypto:
        tags = [other.tag for other in offered.crypto if other.suite.upper() == crypto.suite.upper()]
        if tags:
            chosen, tag = crypto, crypto.tag if crypto.tag in tags else tags[0]
            break
    if chosen is None and answered.keying == "sdes":
        suites = ", ".join([crypto.suite for crypto in answered.crypto]) or "none"
        raise SdpError(f"{where}: the answer has no a=crypto of a suite that was offered: {suites}")
    editor.rewrite(answered.start + 1, answered.end, _OneCrypto(chosen, tag))


class _OneCrypto:
    """Leaves one a=crypto, with another tag; none at all when `chosen` is None."""

    __slots__ = ("_chosen", "_seen", "_tag")

    def __init__(self, chosen: Crypto | None, tag: int) -> None:
        self._chosen = chosen
        self._tag = tag
        self._seen = False

    def __call__(self, line: str) -> str | None:
        if not line.startswith("a=crypto:"):
            return line
        crypto = Crypto.parse(line[9:])
        if self._chosen is None or self._seen or crypto is None or crypto != self._chosen:
            return None
        self._seen = True
        return line if crypto.tag == self._tag else line.replace(str(crypto.tag), str(self._tag), 1)
