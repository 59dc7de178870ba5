"""Takes phone numbers and secrets out of SIP and SDP text, and leaves all that a fault is found by.

Numbers: the first digits (at most four) and the last two stay, the rest become stars: `+15550100002` is written as
`+1555*****02`. The same number always looks the same. Masked are the user parts of `sip:`, `sips:` and `tel:` URIs
that are phone numbers, display names, numbers in international form (`+…`) anywhere in a header value, and all digits
of headers that say by their name that they hold a number. Left alone: Call-ID, Via, CSeq, tags, branches, SDP session
ids, ports and Twilio's SIDs.

Secrets: SRTP keys, `k=` lines, ICE passwords, passwords in URIs, digest responses, other credentials, Identity tokens,
and headers that say by their name that they hold a secret.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from proxy.sip.message import HEADER_KEYS, canonical_key, is_token

__all__ = ["HIDDEN", "Redaction", "Redactor", "mask_line", "mask_number", "mask_text"]

HIDDEN: Final = "****"

_MIN_DIGITS: Final = 7
_HEAD_DIGITS: Final = 4
_TAIL_DIGITS: Final = 2
_MIN_HIDDEN: Final = 5
_MAX_KNOWN: Final = 2048
_MAX_KNOWN_LENGTH: Final = 512

_OPAQUE: Final = frozenset(
    """
    call-id via cseq max-forwards content-length content-type in-reply-to replaces session-id user-agent server rack
    x-twilio-callsid x-twilio-accountsid date timestamp allow supported require
    """.split()
)
_NAMED_ADDRESSES: Final = frozenset(
    """
    from to contact p-asserted-identity p-preferred-identity p-called-party-id remote-party-id diversion history-info
    refer-to referred-by reply-to route record-route path
    """.split()
)
_CREDENTIALS: Final = frozenset(("authorization", "proxy-authorization"))
_CHALLENGES: Final = frozenset(("www-authenticate", "proxy-authenticate", "authentication-info"))
_NUMBER_WORDS: Final = ("number", "phone", "caller", "callee", "msisdn", "dnis", "ani")
_SECRET_WORDS: Final = ("secret", "password", "token", "signature", "api-key", "apikey", "auth-key")
_HARMLESS: Final = frozenset(
    [
        key
        for key in HEADER_KEYS.values()
        if key not in _CREDENTIALS | _CHALLENGES | {"identity"}
        and not any([word in key for word in (*_NUMBER_WORDS, *_SECRET_WORDS)])
    ]
)
"""Keys of well-known headers that hold no secret and do not say by their name that they hold a number."""

_USER: Final = re.compile(r"\b(sips?:)([^@\s<>\",:;]*)((?:;[^@\s<>\",:]*)?)(:[^@\s<>\",;]*)?(?=@)", re.IGNORECASE)
_TEL: Final = re.compile(r"\b(tel:)((?:\+|%2B)?[0-9*#.()\-]+)", re.IGNORECASE)
_PHONE_USER: Final = re.compile(r"(?:\+|%2B)?[0-9*#][0-9*#.()\-]*\Z", re.IGNORECASE)
_INTERNATIONAL: Final = re.compile(r"(?<![0-9A-Za-z+/])(?<!tag=)(?<!branch=)(?:\+|%2B)[0-9](?:[ .()\-]{0,2}[0-9])+")
_DIGITS: Final = re.compile(r"(?<![0-9A-Za-z])\+?[0-9](?:[ .()\-]{0,2}[0-9])+(?![A-Za-z])")
_QUOTED: Final = re.compile(r'"(?:[^"\\]|\\.)*"', re.DOTALL)
_BARE_DISPLAY: Final = re.compile(r"(?:(?<=:)|(?<=,)|\A)\s*[^<>\",:;@]*(?=<)")

_INLINE: Final = re.compile(r"(\binline:)[^|\s;]+", re.IGNORECASE)
_DIGEST: Final = re.compile(r"\b(response|cnonce|rspauth)(\s*=\s*)(\"[^\"]*\"?|[^\s,;\"]+)", re.IGNORECASE)
_WORD: Final = re.compile(r"\S+")


@dataclass(frozen=True, slots=True)
class Redaction:
    """What is masked in logs."""

    mask_numbers: bool = True
    mask_secrets: bool = True


def mask_text(text: str, settings: Redaction) -> str:
    """Mask a whole message, several lines or one, or a plain value; line ends and the number of lines stay."""
    return _by_line(text, lambda line: mask_line(line, settings)) if _masks(settings) else text


class Redactor:
    """Masks as `mask_text` and `mask_line` do, and remembers lines: many occur in every call.

    What is remembered is bounded: the newest 2,048 lines, and of those before them the ones that are still asked for.

    Args:
        settings: what is masked.
    """

    __slots__ = ("_known", "_older", "settings")

    def __init__(self, settings: Redaction) -> None:
        self.settings = settings
        self._known: dict[str, str] = {}
        self._older: dict[str, str] = {}

    def text(self, text: str) -> str:
        """Mask a whole message, several lines or one, or a plain value."""
        return _by_line(text, self.line) if _masks(self.settings) else text

    def line(self, line: str) -> str:
        """Mask one line."""
        if HEADER_KEYS.get(line.partition(":")[0]) in _OPAQUE:
            return line
        masked = self._known.get(line)
        if masked is not None:
            return masked
        masked = self._older.get(line)
        if masked is None:
            masked = mask_line(line, self.settings)
        if len(line) <= _MAX_KNOWN_LENGTH:
            if len(self._known) >= _MAX_KNOWN:
                self._older, self._known = self._known, {}
            self._known[line] = masked
        return masked


def _masks(settings: Redaction) -> bool:
    return settings.mask_numbers or settings.mask_secrets


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
        if not colon or not is_token(name) or name.lower() in ("sip", "sips", "tel"):
            return _mask_value(line, settings)
        key = canonical_key(name)
    if key in _OPAQUE:
        return line
    masked = value
    if settings.mask_secrets and key not in _HARMLESS:
        masked = _mask_secret_header(key, masked)
    masked = _mask_value(masked, settings)
    if settings.mask_numbers:
        named = key in _NAMED_ADDRESSES
        if '"' in masked and (named or key in _CREDENTIALS):
            masked = _QUOTED.sub(_digits_in, masked)
        if named:
            # One address in angle brackets, as most are, has no display name that needs a look.
            if not masked.lstrip().startswith("<") or masked.count("<") > 1:
                masked = _BARE_DISPLAY.sub(_digits_in, masked)
        elif key not in _HARMLESS and _has_word(key, _NUMBER_WORDS):
            masked = _DIGITS.sub(_number_in, masked)
    return line if masked == value else line[: len(line) - len(value)] + masked


def _has_word(key: str, words: tuple[str, ...]) -> bool:
    for word in words:
        if word in key:
            return True
    return False


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


def _shown(digits: int) -> int:
    """How many digits of a number stay at its beginning."""
    return min(_HEAD_DIGITS, digits - _TAIL_DIGITS - _MIN_HIDDEN)


def _mask_digits(text: str) -> str:
    """`mask_number` of a number with something between its digits."""
    digits = len([ch for ch in text if "0" <= ch <= "9"])
    if digits < _MIN_DIGITS:
        return text
    head = _shown(digits)
    out: list[str] = []
    seen = 0
    for ch in text:
        if "0" <= ch <= "9":
            seen += 1
            out.append(ch if seen <= head or seen > digits - _TAIL_DIGITS else "*")
        else:
            out.append(ch)
    return "".join(out)


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
    if not name.isdecimal():
        return None if user[:1] == "+" else value
    return f"{before}sip:{mask_number(user)}@{after}"


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
    if settings.mask_numbers and _PHONE_USER.match(user):
        user = _phone(user)
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


def _digits_in(found: re.Match[str]) -> str:
    return _DIGITS.sub(_number_in, found[0])


def _mask_sdp(line: str, settings: Redaction) -> str:
    if settings.mask_secrets:
        if line[0] == "k":
            method, colon, key = line.partition(":")
            return method + colon + _WORD.sub(HIDDEN, key)
        if line[:10].lower() == "a=ice-pwd:":
            return line[:10] + _WORD.sub(HIDDEN, line[10:])
    if settings.mask_numbers and line[0] == "p":
        line = _DIGITS.sub(_number_in, line)
    return _mask_value(line, settings)


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
    if _has_word(key, _SECRET_WORDS):
        return _WORD.sub(HIDDEN, value)
    return value
