"""Takes phone numbers and secrets out of SIP and SDP text, and leaves all that a fault is found by.

Numbers (`proxy.audit.phone`): user parts of `sip:`, `sips:` and `tel:` URIs, digits in display names, reason phrases,
bodies, free texts of SDP and values of headers, whatever their name; DTMF digits of INFO. Left alone: Call-ID, Via,
CSeq, tags, branches, SDP session ids, ports, addresses and Twilio's SIDs.

Secrets: SRTP keys, `k=` lines, ICE passwords, passwords in URIs, digest responses, other credentials, Identity tokens,
and headers and parameters that say by their name that they hold a secret.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from proxy.audit.phone import mask_free_numbers, mask_number
from proxy.sip.message import HEADER_KEYS, canonical_key, is_token

__all__ = ["HIDDEN", "Redaction", "Redactor", "mask_line", "mask_text"]

HIDDEN: Final = "****"

_MAX_KNOWN: Final = 2048
_MAX_KNOWN_LENGTH: Final = 512

_OPAQUE: Final = frozenset(
    """
    call-id via cseq max-forwards content-length content-type in-reply-to replaces session-id rack rseq join
    x-twilio-callsid x-twilio-accountsid x-trunkline-call-id date timestamp allow supported require target-dialog
    """.split()
)
_NAMED_ADDRESSES: Final = frozenset(
    """
    from to contact p-asserted-identity p-preferred-identity p-called-party-id remote-party-id diversion history-info
    refer-to referred-by reply-to route record-route path
    """.split()
)
_FREE_LINES: Final = frozenset("siuep")
"""SDP lines that people write: session name, information, URI, email and phone number (RFC 8866 section 5)."""
_CREDENTIALS: Final = frozenset(("authorization", "proxy-authorization"))
_CHALLENGES: Final = frozenset(("www-authenticate", "proxy-authenticate", "authentication-info"))
_SOFTWARE: Final = frozenset(("user-agent", "server"))
"""Versions have digits and dots too: only ten digits in a row, or what is in international form, are a number there."""
_SECRET_WORDS: Final = (
    "secret", "passw", "token", "signature", "api-key", "apikey", "auth-key", "access-key", "credential", "cookie",
    "jwt", "authorization",
)  # fmt: skip
_HARMLESS: Final = frozenset(
    [
        key
        for key in HEADER_KEYS.values()
        if key not in _CREDENTIALS | _CHALLENGES | {"identity"} and not any(word in key for word in _SECRET_WORDS)
    ]
)
"""Keys of well-known headers that hold no secret."""

_USER: Final = re.compile(r"\b(sips?:)([^@\s<>\",:;]*)((?:;[^@\s<>\",:]*)?)(:[^@\s<>\",;]*)?(?=@)", re.IGNORECASE)
_TEL: Final = re.compile(r"\b(tel:)((?:\+|%2B)?[0-9*#.()\-]+)", re.IGNORECASE)
_PHONE_USER: Final = re.compile(r"(?:\+|%2B)?[0-9*#][0-9*#.()\-]*\Z", re.IGNORECASE)
_INTERNATIONAL: Final = re.compile(r"(?<![0-9A-Za-z+/])(?<!tag=)(?<!branch=)(?:\+|%2B)[0-9](?:[ .()\-]{0,2}[0-9])+")
_QUOTED: Final = re.compile(r'"(?:[^"\\]|\\.)*"', re.DOTALL)
_URI_HEADERS: Final = re.compile(r"\?(?![Rr]eplaces=)[^>]*")
_ODD_URI: Final = re.compile(r"<(?:sips?|tel):[^<>@?]*", re.IGNORECASE)
_LONG_RUN: Final = re.compile(r"(?<![0-9A-Fa-f_.\-])[0-9]{10,}(?![0-9A-Fa-f_])")
_BARE_DISPLAY: Final = re.compile(r"(?:(?<=:)|(?<=,)|\A)\s*[^<>\",:;@]*(?=<)")

_INLINE: Final = re.compile(r"(\binline:)[^|\s;]+", re.IGNORECASE)
_DIGEST: Final = re.compile(r"\b(response|cnonce|rspauth)(\s*=\s*)(\"[^\"]*\"?|[^\s,;\"]+)", re.IGNORECASE)
_WORD: Final = re.compile(r"\S+")
_PARAMETER: Final = re.compile(
    r"\b((?:[a-z0-9]+[_-])*(?:secret|passw(?:or)?d|token|signature|api[_-]?key|access[_-]?key)(?:\s*=|\"\s*:)\s*)"
    r"(\"[^\"]*\"?|[^\s;,&<>\"]+)",
    re.IGNORECASE,
)
"""`name=value`, or `"name": value` of JSON."""
_DTMF: Final = re.compile(r"^(Signal\s*=\s*)?[0-9A-D*#][0-9A-D*#, ]*(?=\r?$)", re.IGNORECASE | re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Redaction:
    """What is masked in logs."""

    mask_numbers: bool = True
    mask_secrets: bool = True


def mask_text(text: str, settings: Redaction) -> str:
    """Mask a whole message, several lines or one, or a plain value; line ends and the number of lines stay."""
    return _mask_lines(text, lambda line: mask_line(line, settings), settings) if _masks(settings) else text


class Redactor:
    """Masks as `mask_text` and `mask_line` do, and remembers lines: many occur in every call.

    Args:
        settings: what is masked.
    """

    __slots__ = ("_known", "settings")

    def __init__(self, settings: Redaction) -> None:
        self.settings = settings
        self._known: dict[str, str] = {}

    def text(self, text: str) -> str:
        """Mask a whole message, several lines or one, or a plain value."""
        if "\n" not in text:
            return self.line(text)
        return _mask_lines(text, self.line, self.settings) if _masks(self.settings) else text

    def line(self, line: str) -> str:
        """Mask one line."""
        masked = self._known.get(line)
        if masked is None:
            if HEADER_KEYS.get(line.partition(":")[0]) in _OPAQUE:
                return line
            if len(self._known) >= _MAX_KNOWN:
                self._known.clear()
            masked = mask_line(line, self.settings)
            if len(line) <= _MAX_KNOWN_LENGTH:
                self._known[line] = masked
        return masked


def _masks(settings: Redaction) -> bool:
    return settings.mask_numbers or settings.mask_secrets


def _mask_lines(text: str, mask: Callable[[str], str], settings: Redaction) -> str:
    """Mask line by line. What was dialled (`application/dtmf`, `application/dtmf-relay`) may be a PIN."""
    if settings.mask_secrets and "application/dtmf" in text:
        head, blank, body = text.partition("\r\n\r\n")
        text = head + blank + _DTMF.sub(lambda found: (found[1] or "") + "*", body)
    return _by_line(text, mask)


def _by_line(text: str, mask: Callable[[str], str]) -> str:
    """Mask line by line; a header line and its continuations are one."""
    if "\n" not in text:
        return mask(text)
    lines = text.split("\n")
    if "\n " not in text and "\n\t" not in text:
        return "\n".join([mask(line) for line in lines])
    masked: list[str] = []
    at = 0
    while at < len(lines):
        end = at + 1
        while end < len(lines) and lines[end][:1] in (" ", "\t"):
            end += 1
        masked.append(mask("\n".join(lines[at:end])))
        at = end
    return "\n".join(masked)


def mask_line(line: str, settings: Redaction) -> str:
    """Mask one start line, header line (folded or not), SDP line, or a plain value."""
    if line[1:2] == "=":
        return _mask_sdp(line, settings)
    name, colon, value = line.partition(":")
    key = HEADER_KEYS.get(name)
    if key is None or not colon:
        name = name.rstrip()
        if not colon or not is_token(name) or not name[0].isalpha() or name.lower() in ("sip", "sips", "tel"):
            return _mask_text_line(line, settings)
        key = canonical_key(name)
    if key in _OPAQUE:
        return line
    masked = value
    if settings.mask_secrets:
        if key not in _HARMLESS:
            masked = _mask_secret_header(key, masked)
        elif "?" in masked:
            masked = _mask_parameters(masked)
    masked = _mask_value(masked, settings)
    if settings.mask_numbers:
        if key in _NAMED_ADDRESSES:
            masked = _mask_names(masked)
        elif key in _SOFTWARE:
            masked = _LONG_RUN.sub(_number_in, masked)
        else:
            masked = mask_free_numbers(masked)
    return line if masked == value else line[: len(line) - len(value)] + masked


def _mask_text_line(line: str, settings: Redaction) -> str:
    """Mask a start line, or any text that is no header line."""
    start = len("SIP/2.0 200") if line.startswith("SIP/2.0 ") else 0
    text = _mask_value(line[start:], settings)
    if settings.mask_secrets:
        text = _mask_parameters(text)
    return line[:start] + (mask_free_numbers(text) if settings.mask_numbers else text)


def _mask_names(value: str) -> str:
    """Mask numbers in display names, and in header fields that a URI brings along; plain URIs have been masked."""
    if '"' in value:
        value = _QUOTED.sub(_numbers_in, value)
    if "<" not in value:
        address, semicolon, parameters = value.partition(";")
        return mask_free_numbers(address) + semicolon + parameters
    # One address in angle brackets, as most are, has no display name that needs a look.
    if not value.lstrip().startswith("<") or value.count("<") > 1:
        value = _BARE_DISPLAY.sub(_numbers_in, value)
    if "%" in value or "(" in value:
        value = _ODD_URI.sub(_numbers_in, value)
    return _URI_HEADERS.sub(_numbers_in, value) if "?" in value else value


def _mask_value(value: str, settings: Redaction) -> str:
    """Mask what is recognized in any text: URIs, international numbers, SRTP keys."""
    if ":" not in value:
        numbers = settings.mask_numbers and ("+" in value or "%2" in value)
        return _INTERNATIONAL.sub(_number_in, value) if numbers else value
    masked = _mask_one_uri(value, settings)
    return _mask_any(value, settings) if masked is None else masked


def _mask_one_uri(value: str, settings: Redaction) -> str | None:
    """`_mask_any` of what most addresses are: one `sip:` URI whose user part is a plain number or name, and nothing
    else that could have to be masked. None for anything else."""
    start, end = value.find("sip:"), value.find("@")
    if start < 0 or end < start or "%" in value:
        return None
    user = value[start + 4 : end]
    name = user[1:] if user[:1] == "+" else user
    before, after = value[:start], value[end + 1 :]
    if not ((name.isalnum() or name.isidentifier()) and name.isascii()):
        return None
    if ":" in before or before[-1:].isalnum() or before[-1:] == "_":
        return None
    if "@" in after or "+" in after or "+" in before:
        return None
    lowered = after.lower()
    if "tel:" in lowered or "inline:" in lowered:
        return None
    if not settings.mask_numbers:
        return value
    if name.isdecimal():
        return f"{before}sip:{mask_number(user)}@{after}"
    return None if user[:1] == "+" else f"{before}sip:{mask_free_numbers(user)}@{after}"


def _mask_any(value: str, settings: Redaction) -> str:
    lowered = value.lower()
    if settings.mask_secrets and "inline:" in lowered:
        value = _INLINE.sub(rf"\1{HIDDEN}", value)
    if "@" in value:
        value = _USER.sub(lambda found: _user(found, settings), value)
    if settings.mask_numbers:
        if "tel:" in lowered:
            value = _TEL.sub(lambda found: found[1] + _phone(found[2]), value)
        if "+" in value or "%2" in value:
            value = _INTERNATIONAL.sub(_number_in, value)
    return value


def _user(found: re.Match[str], settings: Redaction) -> str:
    user = found[2]
    if settings.mask_numbers:
        user = _phone(user) if _PHONE_USER.match(user) else mask_free_numbers(user)
    password = found[4] or ""
    if password and settings.mask_secrets:
        password = f":{HIDDEN}"
    return found[1] + user + found[3] + password


def _phone(text: str) -> str:
    """Mask a number whose plus may be percent-encoded; the digit of the code is none of the number's."""
    if text[:3].lower() == "%2b":
        return text[:3] + mask_number(text[3:])
    return mask_number(text)


def _number_in(found: re.Match[str]) -> str:
    return _phone(found[0])


def _numbers_in(found: re.Match[str]) -> str:
    return mask_free_numbers(found[0])


def _mask_sdp(line: str, settings: Redaction) -> str:
    if settings.mask_secrets:
        if line[0] == "k":
            method, colon, key = line.partition(":")
            return method + colon + _WORD.sub(HIDDEN, key)
        if line[:10].lower() == "a=ice-pwd:":
            return line[:10] + _WORD.sub(HIDDEN, line[10:])
        if line[:11].lower() == "a=key-mgmt:":
            return line[:11] + _WORD.sub(HIDDEN, line[11:])
    line = _mask_value(line, settings)
    if settings.mask_numbers and (line[0] in _FREE_LINES or line[:4].lower() == "a=x-"):
        return line[:2] + mask_free_numbers(line[2:])
    if settings.mask_numbers and line[0] == "o":
        name, space, rest = line[2:].partition(" ")
        return line[:2] + mask_free_numbers(name) + space + rest
    return line


def _mask_parameters(text: str) -> str:
    """The values of parameters hidden whose names say that they hold a secret."""
    if "=" not in text and '"' not in text:
        return text
    lowered = text.lower()
    if "key" in lowered or "token" in lowered or "secret" in lowered or "passw" in lowered or "signature" in lowered:
        return _PARAMETER.sub(rf"\1{HIDDEN}", text)
    return text


def _mask_secret_header(key: str, value: str) -> str:
    """The value of a header with its credentials hidden; white space, and with it the folding, stays."""
    if key in _CREDENTIALS or key in _CHALLENGES:
        scheme = value.split(None, 1)[0].lower() if value.strip() else ""
        if key in _CHALLENGES or scheme == "digest":
            return _DIGEST.sub(rf"\1\2{HIDDEN}", value)
        rest = len(value) - len(value.lstrip()) + len(scheme)
        return value[:rest] + _WORD.sub(HIDDEN, value[rest:])
    if key == "identity":
        token, semicolon, parameters = value.partition(";")
        return _WORD.sub(HIDDEN, token) + semicolon + parameters
    if any(word in key for word in _SECRET_WORDS):
        return _WORD.sub(HIDDEN, value)
    return _mask_parameters(value)
