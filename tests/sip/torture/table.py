"""The torture messages of RFC 4475 and RFC 5118, with what the RFCs say of each.

The bytes lie beside this file, one `NAME.sip` a message, named as the RFC names it. Those of RFC 4475 are the files
of the archive in its appendix A, byte for byte (its `test.dat`, which no section describes, is left out). The archive
of RFC 5118 has LF line ends, which SIP does not allow: its messages have CRLF here, an empty line after the head where
the archive lacks it, and in three of them (`RECOUNTED`) the Content-Length that the body has with CRLF.

Each message has two expectations. `core` is what `parse_message` with `check_request` or `check_response` makes of
it. `stack` is the set of outcomes that the RFC accepts of a whole B2BUA which serves INVITE and OPTIONS and is no
registrar. An outcome is a status code, `PASSES`, `FORWARDED` or `DROPPED`. All of it for datagrams; over a stream the
framer may decide first.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

__all__ = ["CASES", "DROPPED", "FORWARDED", "PASSES", "RECOUNTED", "Case"]

PASSES: Final = 0
"""The core finds nothing wrong; further processing decides."""

FORWARDED: Final = 1
"""A call to the target is tried, with the meaning unchanged."""

DROPPED: Final = -1
"""No answer, no effect."""

HERE: Final = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class Case:
    """One torture message.

    Attributes:
        name: the RFC's name of the message, and of its file.
        rfc: 4475 or 5118.
        section: the RFC's section.
        title: the RFC's title of the section.
        valid: whether the RFC calls the message well formed, or wants it taken as such.
        core: the outcome at the parser and its checks.
        stack: the outcomes that are right for the whole.
        says: what the RFC demands or allows, in short.
    """

    name: str
    rfc: int
    section: str
    title: str
    valid: bool
    core: int
    stack: frozenset[int]
    says: str

    @property
    def data(self) -> bytes:
        """The message."""
        return (HERE / f"{self.name}.sip").read_bytes()


def _case(rfc: int, section: str, name: str, title: str, valid: bool, core: int, stack: set[int], says: str) -> Case:
    return Case(name, rfc, section, title, valid, core, frozenset(stack), says)


def _valid(section: str, name: str, title: str, stack: set[int], says: str, rfc: int = 4475) -> Case:
    return _case(rfc, section, name, title, True, PASSES, stack, says)


def _wrong(section: str, name: str, title: str, status: int, says: str, also: frozenset[int] = frozenset()) -> Case:
    return _case(4475, section, name, title, False, status, {status, *also} - {PASSES}, says)


_RFC_4475: Final = (
    _valid(
        "3.1.1.1", "wsinv", "A Short Tortuous INVITE", {481}, "well formed; its To tag names a dialog that is not ours"
    ),
    _case(
        4475,
        "3.1.1.2",
        "intmeth",
        "Wide Range of Valid Characters",
        True,
        501,
        {501},
        "an endpoint answers 501 with the methods that it understands in Allow",
    ),
    _valid("3.1.1.3", "esc01", "Valid Use of the % Escaping Mechanism", {FORWARDED}, "unescaped once, never twice"),
    _valid("3.1.1.4", "escnull", "Escaped Nulls in URIs", {405}, "parsers must accept it; two different Contacts"),
    _case(
        4475,
        "3.1.1.5",
        "esc02",
        "Use of % When It Is Not an Escape",
        True,
        501,
        {501},
        "an endpoint rejects the method, which is not REGISTER, with 501; C%6Fntact is not Contact",
    ),
    _valid("3.1.1.6", "lwsdisp", "Message with No LWS between Display Name and <", {200}, "accepted as well formed"),
    _valid("3.1.1.7", "longreq", "Long Values in Header Fields", {FORWARDED}, "well formed"),
    _valid("3.1.1.8", "dblreq", "Extra Trailing Octets in a UDP Datagram", {405}, "what trails is ignored"),
    _valid("3.1.1.9", "semiuri", "Semicolon-Separated Parameters in URI User Part", {200}, "they belong to the user"),
    _valid("3.1.1.10", "transports", "Varied and Unknown Transport Types", {200}, "only the first Via matters"),
    _valid("3.1.1.11", "mpart01", "Multipart MIME Message", {405, 415}, "accepted, framed right, binary body kept"),
    _valid("3.1.1.12", "unreason", "Unusual Reason Phrase", {DROPPED}, "a parser must accept it (and nobody asked)"),
    _valid("3.1.1.13", "noreason", "Empty Reason Phrase", {DROPPED}, "a parser must accept it (and nobody asked)"),
    _wrong("3.1.2.1", "badinv01", "Extraneous Header Field Separators", 400, "should be answered 400"),
    _wrong("3.1.2.2", "clerr", "Content Length Larger Than Message", 400, "400 over UDP; a stream waits, then closes"),
    _wrong("3.1.2.3", "ncl", "Negative Content-Length", 400, "an error; a stream is closed"),
    _wrong("3.1.2.4", "scalar02", "Request Scalar Fields with Overlarge Values", 400, "400 because of the CSeq"),
    _wrong("3.1.2.5", "scalarlg", "Response Scalar Fields with Overlarge Values", DROPPED, "simply discarded"),
    _wrong("3.1.2.6", "quotbal", "Unterminated Quoted String in Display Name", 400, "should be answered 400"),
    _wrong("3.1.2.7", "ltgtruri", "<> Enclosing Request-URI", 400, "400 is always reasonable"),
    _wrong("3.1.2.8", "lwsruri", "Malformed SIP Request-URI (embedded LWS)", 400, "should be answered 400"),
    _wrong("3.1.2.9", "lwsstart", "Multiple SP Separating Request-Line Elements", 400, "may be rejected as malformed"),
    _wrong("3.1.2.10", "trws", "SP Characters at End of Request-Line", 400, "may be rejected as malformed"),
    _wrong("3.1.2.11", "escruri", "Escaped Headers in SIP Request-URI", 400, "may be rejected with 400"),
    _wrong(
        "3.1.2.12",
        "baddate",
        "Invalid Time Zone in Date Header Field",
        PASSES,
        "not to be rejected by who does not need the Date",
        frozenset({FORWARDED, 400}),
    ),
    _wrong("3.1.2.13", "regbadct", "Failure to Enclose name-addr URI in <>", 400, "400 is reasonable"),
    _wrong(
        "3.1.2.14",
        "badaspec",
        "Spaces within addr-spec",
        PASSES,
        "the liberal ignore the spaces, others answer 400",
        frozenset({200, 400}),
    ),
    _wrong("3.1.2.15", "baddn", "Non-token Characters in Display Name", 400, "400 is always reasonable"),
    _wrong("3.1.2.16", "badvers", "Unknown Protocol Version", 505, "should be answered 505"),
    _wrong("3.1.2.17", "mismatch01", "Start Line and CSeq Method Mismatch", 400, "any element answers 400"),
    _wrong("3.1.2.18", "mismatch02", "Unknown Method with CSeq Method Mismatch", 501, "501 is better than 400"),
    _wrong("3.1.2.19", "bigcode", "Overlarge Response Code", DROPPED, "simply dropped"),
    _wrong("3.2.1", "badbranch", "Missing Transaction Identifier", 400, "400, without state, or RFC 2543 matching"),
    _wrong("3.3.1", "insuf", "Missing Required Header Fields", 400, "ideally answered 400"),
    _case(4475, "3.3.2", "unkscm", "Request-URI with Unknown Scheme", True, 416, {416}, "rejected with 416"),
    _case(
        4475,
        "3.3.3",
        "novelsc",
        "Request-URI with Known but Atypical Scheme",
        True,
        416,
        {416},
        "416 by who never accepts the scheme",
    ),
    _valid("3.3.4", "unksm2", "Unknown URI Schemes in Header Fields", {405, 400}, "valid; a registrar answers 400"),
    _valid("3.3.5", "bext01", "Proxy-Require and Require", {420}, "420 with the features in Unsupported"),
    _valid("3.3.6", "invut", "Unknown Content-Type", {415}, "valid; an endpoint answers 415"),
    _valid("3.3.7", "regaut01", "Unknown Authorization Scheme", {405}, "405 by who is no registrar"),
    _wrong("3.3.8", "multi01", "Multiple Values in Single Value Required Fields", 400, "answered 400"),
    _wrong("3.3.9", "mcl01", "Multiple Content-Length Values", 400, "an error; a stream is closed"),
    _case(
        4475,
        "3.3.10",
        "bcast",
        "200 OK Response with Broadcast Via Header Field Value",
        True,
        DROPPED,
        {DROPPED},
        "well formed; an endpoint discards a response with a second Via",
    ),
    _valid("3.3.11", "zeromf", "Max-Forwards of Zero", {200, 483}, "483 by a proxy, processed by an endpoint"),
    _valid("3.3.12", "cparam01", "REGISTER with a Contact Header Parameter", {405}, "a parameter of the header field"),
    _valid("3.3.13", "cparam02", "REGISTER with a url-parameter", {405}, "a parameter of the URI"),
    _valid("3.3.14", "regescrt", "REGISTER with a URL Escaped Header", {405}, "a header of the URI"),
    _valid("3.3.15", "sdp01", "Unacceptable Accept Offering", {406, 400}, "406 or 400"),
    _valid("3.4.1", "inv2543", "INVITE with RFC 2543 Syntax", {FORWARDED}, "should be accepted"),
)

_RFC_5118: Final = (
    _valid("4.1", "ipv6-good", "Valid SIP Message with an IPv6 Reference", {405}, "well formed", 5118),
    _case(
        5118,
        "4.2",
        "ipv6-bad",
        "Invalid SIP Message with an IPv6 Reference",
        False,
        400,
        {400},
        "should be answered 400",
    ),
    _valid("4.3", "port-ambiguous", "Port Ambiguous in a SIP URI", {405}, "well formed; 5070 is no port", 5118),
    _valid("4.4", "port-unambiguous", "Port Unambiguous in a SIP URI", {405}, "well formed; 5070 is the port", 5118),
    _valid(
        "4.5",
        "via-received-param-with-delim",
        "IPv6 Reference Delimiters in Via Header",
        {481},
        "must be parsed, though the grammar does not allow it",
        5118,
    ),
    _valid(
        "4.5", "via-received-param-no-delim", "IPv6 Reference Delimiters in Via Header", {200}, "must be parsed", 5118
    ),
    _valid("4.6", "ipv6-in-sdp", "SIP Request with IPv6 Addresses in SDP Body", {FORWARDED, 488}, "well formed", 5118),
    _valid("4.7", "mult-ip-in-header", "Multiple IP Addresses in SIP Headers", {481}, "well formed", 5118),
    _valid("4.8", "mult-ip-in-sdp", "Multiple IP Addresses in SDP", {FORWARDED}, "well formed", 5118),
    _valid("4.9", "ipv4-mapped-ipv6", "IPv4-Mapped IPv6 Addresses", {FORWARDED, 488}, "must be parsed", 5118),
    _valid("4.10", "ipv6-bug-abnf-3-colons", "IPv6 Reference Bug in RFC 3261 ABNF", {200}, "must be tolerated", 5118),
    _valid("4.10", "ipv6-correct-abnf-2-colons", "IPv6 Reference Bug in RFC 3261 ABNF", {200}, "well formed", 5118),
)

CASES: Final = (*_RFC_4475, *_RFC_5118)

RECOUNTED: Final = frozenset(("ipv6-in-sdp", "mult-ip-in-sdp", "ipv4-mapped-ipv6"))
"""Messages of RFC 5118 whose Content-Length was put right."""
