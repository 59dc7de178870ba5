"""Random SIP: well formed texts, whole messages, and messages that were damaged."""

from __future__ import annotations

from hypothesis import strategies as st

from proxy.sip.headers import NameAddr, Via, quote_display
from proxy.sip.message import KNOWN_METHODS, Header, header
from proxy.sip.uri import Params, Uri
from tests.sip.samples import CANCEL, OPENAI_200, TWILIO_BYE, TWILIO_INVITE
from tests.sip.torture.table import CASES

__all__ = [
    "any_text",
    "damaged",
    "headers",
    "line_text",
    "messages",
    "name_addrs",
    "params",
    "quoted",
    "tokens",
    "uris",
    "vias",
]

TOKEN_CHARS = "abcXYZ019-.!%*_+`'~"

any_text = st.text(max_size=40) | st.text('\r\n\x00 \t":;,<>\\@[]%=a\udcff', max_size=20)
line_text = any_text.map(lambda text: text.replace("\r", "").replace("\n", "").replace("\x00", ""))
"""Any text that fits on a line, raw bytes that are no UTF-8 included."""

tokens = st.text(TOKEN_CHARS, min_size=1, max_size=12)

quoted = line_text.map(lambda text: '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"')


def params(values: st.SearchStrategy[str] = tokens) -> st.SearchStrategy[Params]:
    """Parameters of a URI or a header field."""
    return st.lists(st.tuples(tokens, st.none() | st.just("") | values), max_size=3).map(tuple)


ports = st.none() | st.integers(0, 65535)
hosts = (
    st.from_regex(r"[a-z0-9]([a-z0-9-]{0,5}[a-z0-9])?(\.[a-z]{2,5}){0,2}", fullmatch=True)
    | st.ip_addresses(v=4).map(str)
    | st.ip_addresses(v=6).map(lambda address: f"[{address}]")
)
users = st.text("abc019-_.!~*'()%&=+$,;?/é\udcff", min_size=1, max_size=12)

sip_uris = st.builds(
    lambda scheme, user, password, host, port, pairs, headers: Uri(
        scheme, user, host, port, pairs, password if user else None, headers
    ),
    st.sampled_from(["sip", "sips"]),
    st.none() | users,
    st.none() | st.text("ab1&=+$,", max_size=5),
    hosts,
    ports,
    params(),
    st.none() | st.just("Subject=a%20b&To=x"),
)
tel_uris = st.builds(
    lambda number, pairs: Uri("tel", number, "", None, pairs),
    st.text("+0123456789-.()", min_size=1, max_size=15),
    params(),
)
uris = sip_uris | tel_uris

vias = st.builds(Via, st.sampled_from(["UDP", "TCP", "TLS", "WSS", "TLS-SCTP"]), hosts, ports, params(tokens | quoted))

name_addrs = st.builds(
    lambda display, uri, pairs: NameAddr(quote_display(display.strip()), str(uri), pairs),
    st.just("") | line_text,
    uris,
    params(tokens | quoted),
)


def _spaced(item: Header, before: str, after: str, fold: bool) -> str:
    value = item.value.replace(" ", "\r\n ", 1) if fold and item.value.strip() else item.value
    return f"{item.name}{before}:{after}{value}"


own_values = line_text.map(lambda text: text.strip(" \t"))
headers = st.one_of(
    st.builds(header, st.just("Via") | st.just("v"), vias.map(str)),
    st.builds(header, st.sampled_from(["To", "t", "FROM", "Contact", "m"]), name_addrs.map(str)),
    st.builds(header, tokens.map(lambda name: f"X-{name}"), own_values),
    st.builds(header, st.sampled_from(["Subject", "s", "User-Agent", "Route", "Allow"]), own_values),
)
_lines = st.builds(_spaced, headers, st.sampled_from(["", " ", "\t"]), st.sampled_from([" ", "", "  "]), st.booleans())
_start_lines = st.one_of(
    st.builds(
        lambda method, uri: f"{method} {uri} SIP/2.0", st.sampled_from(sorted(KNOWN_METHODS)) | tokens, uris.map(str)
    ),
    st.builds(lambda status, reason: f"SIP/2.0 {status} {reason}", st.integers(100, 699), line_text),
)


@st.composite
def messages(draw: st.DrawFn) -> bytes:
    """A message with the line ends of SIP and a true Content-Length, but not always the headers that it needs."""
    body = draw(st.binary(max_size=30) | st.just(b"\r\n\r\n"))
    lines = draw(st.lists(_lines, max_size=6))
    name = draw(st.sampled_from(["Content-Length", "l", "CONTENT-LENGTH", "Content-Length  "]))
    lines.insert(draw(st.integers(0, len(lines))), f"{name}: {len(body)}")
    head = "\r\n".join([draw(_start_lines), *lines, "", ""])
    return head.encode("utf-8", "surrogateescape") + body


_WHOLE = [TWILIO_INVITE, TWILIO_BYE, CANCEL, OPENAI_200, *[case.data for case in CASES]]
_SHARDS = (
    b"\r",
    b"\n",
    b"\r\n",
    b"\r\n\r\n",
    b"\r\n ",
    b"\x00",
    b"\\\x00",
    b"\xff",
    b'"',
    b"\\",
    b";",
    b",",
    b":",
    b"<",
    b">",
    b"@",
    b" ",
    b"\t",
    b"=",
    b"?",
    b"[",
    b"SIP/2.0",
    b"\r\nl: 3",
    b"\r\nContent-Length:\r\n 5",
    b"\r\nVia: x",
    b"\r\nTo: y",
)


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A real or a random message with a few bytes put in, taken out or doubled."""
    data = draw(st.sampled_from(_WHOLE) | messages())
    for _ in range(draw(st.integers(0, 4))):
        start = draw(st.integers(0, len(data)))
        end = min(len(data), start + draw(st.integers(0, 6)))
        patch = draw(st.sampled_from(_SHARDS) | st.binary(max_size=3) | st.just(data[start:end] * 2))
        data = data[:start] + patch + data[end:]
    return data
