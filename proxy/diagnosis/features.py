"""What a message looks like, as a short list of names: headers, codecs, SDP attributes, shapes of values.

No value of a call is in it, only kinds: which headers are there, whether a user part is an E.164 number, the order of
codecs. So most calls share one list, and lists can be compared.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Final

__all__ = ["Skeletons", "answer_shape", "describe", "invite_shape"]

_MOST: Final = 96
_MOST_LINES: Final = 2048
_FOLDED: Final = "\n"
_LENGTH: Final = 80
_COMPACT: Final = {
    "a": "accept-contact",
    "b": "referred-by",
    "c": "content-type",
    "e": "content-encoding",
    "f": "from",
    "i": "call-id",
    "k": "supported",
    "l": "content-length",
    "m": "contact",
    "o": "event",
    "r": "refer-to",
    "s": "subject",
    "t": "to",
    "u": "allow-events",
    "v": "via",
    "x": "session-expires",
    "y": "identity",
}
_STATIC_CODECS: Final = {"0": "PCMU", "3": "GSM", "4": "G723", "8": "PCMA", "9": "G722", "18": "G729"}
_USER: Final = re.compile(r"sips?:([^@;>\s]*)@", re.IGNORECASE)
_E164: Final = re.compile(r"(?:\+|%2B)[0-9]+\Z", re.IGNORECASE)
_PARAMETER: Final = re.compile(r";\s*([A-Za-z0-9.\-]+)")
_UUID: Final = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}\Z")
_HEX: Final = re.compile(r"[0-9a-fA-F]{16,}\Z")
_LISTS: Final = frozenset(("supported", "require", "privacy", "allow"))
_ADDRESSES: Final = frozenset(("from", "to", "p-asserted-identity", "diversion", "remote-party-id"))
_PRIVATE: Final = re.compile(
    r"(?:10\.|192\.168\.|172\.(?:1[6-9]|2[0-9]|3[01])\.|100\.(?:6[4-9]|[7-9]\d|1[01]\d|12[0-7])\.)"
)

_USERS: Final = {
    "tel": "tel:",
    "none": "",
    "anonymous": "sip:anonymous@",
    "E.164": "sip:+1@",
    "digits": "sip:1@",
    "name": "sip:x@",
}
_TEXTS: Final = {
    "uuid": "00000000-0000-0000-0000-000000000000",
    "digits": "00000000",
    "hexadecimal": "aaaaaaaaaaaaaaaa",
    "not ASCII": "\u00e9",
    "empty text": "",
    "short text": "x",
    "long text": "x" * 33,
    "very long text": "x" * 257,
}
"""Values that are of a kind, by kind: of user parts, and of headers that others have made."""


def invite_shape(text: str) -> tuple[str, ...]:
    """The features of an INVITE, sorted; `text` is the whole message with CRLF line ends."""
    head, _, body = text.partition("\r\n\r\n")
    found = {*_head_features(head), *_sdp_features(body)}
    return tuple(sorted([name[:_LENGTH] for name in found])[:_MOST])


def answer_shape(text: str) -> tuple[str, ...]:
    """The features of a final response: which headers it has, with a body or without."""
    head, _, body = text.partition("\r\n\r\n")
    found = {f"header:{key}" for key, _, _ in _headers(head)}
    found.add("body" if body else "no-body")
    for key, _, value in _headers(head):
        if key == "server":
            found.add(f"server:{value}")
    found.update(_sdp_features(body) if body else ())
    return tuple(sorted([name[:_LENGTH] for name in found])[:_MOST])


def _headers(head: str) -> Iterator[tuple[str, str, str]]:
    """Key, name as written, and value of each header field; a continuation belongs to the line before it."""
    for line in head.replace("\r\n ", " ").replace("\r\n\t", " ").split("\r\n")[1:]:
        name, _, value = line.partition(":")
        name = name.strip()
        key = name.lower()
        yield _COMPACT.get(key, key), name, value.strip()


def _head_features(head: str) -> Iterator[str]:
    seen: dict[str, int] = {}
    if "\r\n " in head or "\r\n\t" in head:
        yield "form:folded"
    first = head.partition("\r\n")[0].split(" ")
    yield from (f"uri-parameter:{name.lower()}" for name in _PARAMETER.findall(first[1] if len(first) > 1 else ""))
    for key, name, value in _headers(head):
        seen[key] = seen.get(key, 0) + 1
        yield f"header:{key}"
        if len(name) == 1:
            yield "form:compact"
        if key in _ADDRESSES:
            yield f"{key}-user:{_user_kind(value)}"
        if key in _LISTS:
            yield from (f"{key}:{item.strip().lower()}" for item in re.split("[,;]", value) if key != "allow")
        elif key == "diversion" and ";reason=" in value:
            yield f"diversion-reason:{value.partition(';reason=')[2].partition(';')[0].lower()}"
        elif key in ("contact", "p-asserted-identity"):
            names = [item.lower() for item in _PARAMETER.findall(value)]
            yield from (f"{key}-parameter:{item}" for item in names)
            if len(names) != len(set(names)):
                yield f"{key}-parameter:twice"
        elif key.startswith("x-") and not key.startswith("x-twilio-"):
            yield f"value:{key}:{_kind(value)}"
    yield from (f"header-count:{key}:{count}" for key, count in seen.items() if count > 1)


def _user_kind(value: str) -> str:
    start, end = value.find("sip:") + 4, value.find("@")
    user = value[start:end]
    first, rest = user[:1], user[1:]
    if start < 4 or not rest.isalnum() or not (first == "+" or first.isalnum()) or ":" in value[: start - 4]:
        found = _USER.search(value)
        if found is None:
            return "tel" if "tel:" in value.lower() else "none"
        user = found[1]
    if user.isdigit():
        return "digits"
    if _E164.match(user):
        return "E.164"
    lowered = user.lower()
    return "anonymous" if "anonymous" in lowered or "restricted" in lowered else "name"


def _kind(value: str) -> str:
    """What a value looks like, without being it."""
    if _UUID.match(value):
        return "uuid"
    if value.isdigit():
        return f"{len(value)} digits" if len(value) < 8 else "digits"
    if _HEX.match(value):
        return "hexadecimal"
    if not value.isascii():
        return "not ASCII"
    size = "empty" if not value else "short" if len(value) <= 32 else "long" if len(value) <= 256 else "very long"
    return f"{size} text"


def _sdp_features(body: str) -> Iterator[str]:
    if not body:
        yield "no-body"
        return
    if not body.startswith("v="):
        yield "body:other"
        return
    names: dict[str, str] = {}
    order: list[str] = []
    payloads: list[str] = []
    for line in body.split("\r\n"):
        if line.startswith("m="):
            parts = line[2:].split()
            yield f"media:{parts[0] if parts else ''}"
            if len(parts) > 3 and not payloads:
                yield f"protocol:{parts[2]}"
                payloads = parts[3:]
        elif line.startswith("a="):
            name, _, value = line[2:].partition(":")
            yield f"sdp:a={name}"
            if name == "rtpmap":
                payload, _, codec = value.partition(" ")
                names[payload] = codec.partition("/")[0]
            elif name == "crypto":
                yield f"crypto:{[*value.split(), '', ''][1]}"
            if payloads and (not order or order[-1] != name):
                order.append(name)
        elif line.startswith("c="):
            address = line.rpartition(" ")[2]
            yield f"media-address:{'IPv6' if ':' in address else 'private' if _PRIVATE.match(address) else 'public'}"
    codecs = [names.get(payload, _STATIC_CODECS.get(payload, f"payload type {payload}")) for payload in payloads]
    yield from (f"codec:{codec}" for codec in codecs)
    yield f"codecs:{','.join(codecs)}"
    yield f"sdp-order:{','.join(order)}"


class Skeletons:
    """Makes skeletons of messages, and remembers lines of them."""

    __slots__ = ("_headers", "_sdp")

    def __init__(self) -> None:
        self._headers: dict[str, str] = {}
        self._sdp: dict[str, str] = {}

    def of(self, lines: list[str]) -> tuple[str, ...] | None:
        """Lines of a message (start line, headers, an empty line, lines of the body) without what its features do not
        depend on: `invite_shape` and `answer_shape` of both are the same, and many calls have one skeleton.

        None where a line is folded.
        """
        end = lines.index("", 1)
        found = [_start_skeleton(lines[0])]
        _add(found, lines[1:end], self._headers, _header_skeleton)
        found.append("")
        body = lines[end + 1 :]
        if body and body[0][:2] == "v=":
            _add(found, body, self._sdp, _sdp_skeleton)
        else:
            found.append("x" if len(body) > 1 or "".join(body) else "")
        return None if _FOLDED in found else tuple(found)


def _add(found: list[str], lines: list[str], known: dict[str, str], make: Callable[[str], str]) -> None:
    """Add what is made of lines, and remember it."""
    if len(known) > _MOST_LINES:
        known.clear()
    for line in lines:
        bone = known.get(line)
        if bone is None:
            bone = known[line] = make(line)
        found.append(bone)


def _start_skeleton(line: str) -> str:
    if "\n" in line:
        return _FOLDED
    if ";" not in line:
        return ""
    words = line.split(" ")
    return "- " + "".join([f";{name}" for name in _PARAMETER.findall(words[1] if len(words) > 1 else "")])


def _header_skeleton(line: str) -> str:
    if "\n" in line:
        return _FOLDED
    name, _, value = line.partition(":")
    how = _DETAILS.get(name)
    if how is None:
        name = name.strip()
        key = name.lower()
        key = _COMPACT.get(key, key)
        how = _DETAILS.get(key, "value" if key.startswith("x-") and not key.startswith("x-twilio-") else "name")
    if how == "name":
        return f"{name}:"
    value = value.strip()
    if how == "value":
        return f"{name}:{_TEXTS.get(_kind(value), '0' * len(value))}"
    if how == "whole":
        return f"{name}:{value}"
    parameters = "".join([f";{item}" for item in _PARAMETER.findall(value)]) if ";" in value else ""
    if how == "contact":
        return f"{name}:{parameters}"
    user = _USERS[_user_kind(value)]
    if how == "identity":
        return f"{name}:{user}{parameters}"
    if how == "diversion" and ";reason=" in value:
        return f"{name}:{user};reason={value.partition(';reason=')[2].partition(';')[0]}"
    return f"{name}:{user}"


def _sdp_skeleton(line: str) -> str:
    if "\n" in line:
        return _FOLDED
    kind = line[:2]
    if kind == "a=":
        name, _, value = line[2:].partition(":")
        if name == "rtpmap":
            return line
        return f"a=crypto:1 {[*value.split(), '', ''][1]}" if name == "crypto" else f"a={name}"
    if kind == "v=":
        return kind
    if kind == "m=":
        parts = line[2:].split()
        return f"m={parts[0]} 0 {' '.join(parts[2:])}" if len(parts) > 3 else line
    if kind == "c=":
        address = line.rpartition(" ")[2]
        return "c= :" if ":" in address else "c= 10.0" if _PRIVATE.match(address) else "c= 8"
    return ""


_DETAILS: Final = {
    **{name: "whole" for name in (*_LISTS, "server") if name != "allow"},
    **dict.fromkeys(_ADDRESSES, "user"),
    "contact": "contact",
    "p-asserted-identity": "identity",
    "diversion": "diversion",
    # The names that messages are full of, as they are written.
    **dict.fromkeys("Via Call-ID CSeq Max-Forwards User-Agent Allow Content-Type Content-Length".split(), "name"),
    **dict.fromkeys(("X-Twilio-AccountSid", "X-Twilio-CallSid", "Record-Route"), "name"),
    **dict.fromkeys(("From", "To"), "user"),
    "Contact": "contact",
}
"""What of a header's value its features depend on, by key, and by name as it is usually written."""


def describe(feature: str) -> str:
    """A feature in words that follow "INVITEs"."""
    kind, _, rest = feature.partition(":")
    name, _, value = rest.partition(":")
    title = "-".join([part.upper() if part in ("sip", "id", "url") else part.capitalize() for part in name.split("-")])
    match kind:
        case "header":
            return f"with `{title}`"
        case "header-count":
            return f"with {value} `{title}` header fields"
        case "value":
            return f"whose `{title}` is {value}"
        case "codec":
            return f"that offer {rest}"
        case "codecs":
            return f"that offer {rest.replace(',', ', ')} in this order"
        case "sdp":
            return f"with `{rest}` in the SDP"
        case "sdp-order":
            return f"with SDP attributes in the order {rest.replace(',', ', ')}"
        case "protocol" | "crypto" | "media":
            return f"with {kind} {rest}"
        case "media-address":
            return f"with a media address that is {rest}"
        case "form":
            return f"with {rest} header fields"
        case "no-body":
            return "without a body"
        case "body":
            return "with a body that is no SDP"
        case "uri-parameter":
            return f"with `;{rest}` in the Request-URI"
    if kind.endswith("-user"):
        return f"whose {kind.removesuffix('-user').title()} user part is {rest}"
    if kind.endswith("-parameter"):
        return f"with `;{rest}` in {kind.removesuffix('-parameter').title()}"
    return f"with {kind} {rest}"
