"""INVITEs in the shape of real captures of Twilio's Elastic SIP Trunking, and the problems seen in them.

Addresses are those of RFC 5737 and RFC 1918, numbers those that are kept free for fiction.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Final

from proxy.sim.media import CRYPTO_SUITE, Origin, sdes_key
from proxy.sip.flow import Flow
from proxy.sip.message import Header, Request, header

__all__ = [
    "ACCOUNT_SID",
    "ALLOW",
    "EDGE",
    "PROBLEMS",
    "Caller",
    "Identity",
    "make_caller",
    "make_identity",
    "make_invite",
]

ACCOUNT_SID: Final = "AC00000000000000000000000000000000"
ALLOW: Final = "ACK,BYE,CANCEL,INVITE,OPTIONS,REFER,NOTIFY"
EDGE: Final = "192.0.2.10"
"""The address of Twilio's edge in Via and Record-Route over TCP and TLS, where only the connection leads back."""

_GATEWAY: Final = "172.25.75.240:5060"
_MEDIA_GATEWAY: Final = "172.18.165.214"
_MEDIA_ADDRESS: Final = "203.0.113.121"

PROBLEMS: Final = (
    "duplicate-content-type",
    "duplicate-content-length",
    "folded-headers",
    "duplicate-uri-params",
    "maxptime-first",
    "opus-107",
    "dangling-rtpmap",
    "webrtc-attributes",
    "private-origin",
    "compact-names",
    "odd-casing",
    "session-timer",
    "privacy",
)
"""The kinds of problem INVITEs."""

_COMPACT: Final = {
    "via": "v",
    "from": "f",
    "to": "t",
    "call-id": "i",
    "contact": "m",
    "content-type": "c",
    "content-length": "l",
}


@dataclass(frozen=True, slots=True)
class Caller:
    """What one call is about; the same for the same seed."""

    index: int
    call_sid: str
    from_number: str
    to_number: str
    problem: str | None
    cancel: bool


@dataclass(frozen=True, slots=True)
class Identity:
    """The SIP identifiers of one call, fresh for each."""

    call_id: str
    tag: str
    cseq: int
    gateway_branch: str


def make_caller(index: int, source: random.Random, problem: str | None, cancel: bool) -> Caller:
    """Draw a CallSid and two numbers of the +1555010xxxx range."""
    call_sid = f"CA{source.getrandbits(128):032x}"
    numbers = source.sample(range(10_000), 2)
    return Caller(index, call_sid, f"+1555010{numbers[0]:04d}", f"+1555010{numbers[1]:04d}", problem, cancel)


def make_identity(source: random.Random) -> Identity:
    """Draw fresh identifiers."""
    number = f"{source.getrandbits(128):032x}"
    guid = f"{number[:8]}-{number[8:12]}-{number[12:16]}-{number[16:20]}-{number[20:]}"
    return Identity(
        call_id=f"{source.getrandbits(128):032x}@0.0.0.0",
        tag=f"{source.randrange(10**7, 10**8)}_c3356d0b_{guid}",
        cseq=source.randrange(1, 60_000),
        gateway_branch=f"z9hG4bK{guid}_c3356d0b_588-{source.randrange(10**18, 10**19)}",
    )


def make_vias(flow: Flow, edge: str, source: random.Random, gateway_branch: str) -> list[Header]:
    """The pair of Vias: the edge's, with a fresh branch, and that of the gateway behind it."""
    branch = f"z9hG4bK{source.getrandbits(16):04x}.{source.getrandbits(128):032x}.0"
    return [
        header("Via", f"SIP/2.0/{flow.transport.upper()} {edge};branch={branch}"),
        header("Via", f"SIP/2.0/UDP {_GATEWAY};rport=5060;branch={gateway_branch}"),
    ]


def record_routes(flow: Flow, edge: str) -> list[str]:
    """The pair of Record-Route values: the edge's outer side and its inner one."""
    transport = f";transport={flow.transport}" if flow.reliable else ""
    host = edge.rpartition(":")[0]
    return [f"<sip:{edge}{transport};r2=on;lr>", f"<sip:{host};r2=on;lr>"]


def contact_uri(caller: Caller) -> str:
    """The Contact: a private address, by another transport than the call's."""
    return f"sip:{caller.from_number}@{_GATEWAY};transport=udp"


def make_origin(source: random.Random) -> Origin:
    """A fresh session of the media gateway."""
    number = source.randrange(1 << 30, 1 << 31)
    port = 10_000 + 2 * source.randrange(25_000)
    return Origin(number, number, _MEDIA_ADDRESS, port, sdes_key(source), "root", "Twilio Media Gateway")


def make_invite(
    caller: Caller, identity: Identity, uri: str, vias: list[Header], routes: list[str], origin: Origin, srtp: bool
) -> Request:
    """The INVITE. `uri` is the Request-URI; the caller's problem, if there is one, is built in."""
    problem = caller.problem
    contact = contact_uri(caller)
    if problem == "duplicate-uri-params":
        uri = _doubled(uri)
        contact = _doubled(contact)
    body = "".join(f"{line}\r\n" for line in _offer(origin, srtp, problem)).encode()
    lines = [
        *[header("Record-Route", route) for route in routes],
        header("From", f"<sip:{caller.from_number}@trunk.pstn.example.net:5060>;tag={identity.tag}"),
        header("To", f"<{uri}>"),
        header("CSeq", f"{identity.cseq} INVITE"),
        header("Max-Forwards", "60"),
        header("P-Asserted-Identity", f"<sip:{caller.from_number}@198.51.100.12:5060>"),
        header("Diversion", f"<sip:{caller.to_number}@twilio.example>;reason=unconditional"),
        header("Call-ID", identity.call_id),
        *vias,
        header("Contact", f"<{contact}>"),
        header("Allow", ALLOW),
        header("X-Twilio-AccountSid", ACCOUNT_SID),
        header("User-Agent", "Twilio Gateway"),
        header("Content-Type", "application/sdp"),
        header("X-Twilio-CallSid", caller.call_sid),
        header("Content-Length", str(len(body))),
    ]
    if problem is not None:
        _spoil_headers(lines, problem)
    return Request("INVITE", uri, lines, body)


def _doubled(uri: str) -> str:
    """A URI with its transport parameter twice."""
    _, found, rest = uri.partition(";transport=")
    if not found:
        return f"{uri};transport=udp;transport=udp"
    return f"{uri};transport={rest.partition(';')[0]}"


def _offer(origin: Origin, srtp: bool, problem: str | None) -> list[str]:
    """The lines of the offer."""
    formats = "107 0 8 101" if problem == "opus-107" else "0 8 101"
    attributes = [
        "a=rtpmap:0 PCMU/8000",
        "a=rtpmap:8 PCMA/8000",
        "a=rtpmap:101 telephone-event/8000",
        "a=fmtp:101 0-16",
        "a=ptime:20",
        "a=maxptime:20",
        "a=sendrecv",
    ]
    session: list[str] = []
    address = _MEDIA_GATEWAY
    if problem == "maxptime-first":
        attributes.insert(0, attributes.pop(5))
    elif problem == "opus-107":
        attributes[0:0] = ["a=rtpmap:107 opus/48000/2", "a=fmtp:107 useinbandfec=1"]
    elif problem == "dangling-rtpmap":
        attributes[1:1] = ["a=rtpmap:0 PCMU/8000", "a=rtpmap:18 G729/8000", "a=fmtp:18 annexb=no"]
    elif problem == "private-origin":
        address = "10.0.0.5"
        attributes.append(f"a=rtcp:{origin.port + 1} IN IP4 10.0.0.5")
    elif problem == "webrtc-attributes":
        session = ["a=group:BUNDLE 0", "a=msid-semantic: WMS *", "a=ice-options:trickle"]
        attributes += [
            "a=mid:0",
            "a=ice-ufrag:F7gI",
            "a=ice-pwd:x9cml/YzichV2+XlhiMu8g",
            f"a=candidate:1 1 udp 2130706431 10.0.0.5 {origin.port} typ host",
            "a=end-of-candidates",
            "a=fingerprint:sha-256 " + ":".join(["A7"] * 32),
            "a=setup:actpass",
            "a=tls-id:89a5c1f1b0fd5f1aa9d6f04f4eb1e0a8",
            "a=rtcp-mux",
        ]
    crypto = [f"a=crypto:1 {CRYPTO_SUITE} inline:{origin.key}"] if srtp else []
    return [
        "v=0",
        f"o={origin.username} {origin.session_id} {origin.version} IN IP4 {address}",
        f"s={origin.name}",
        f"c=IN IP4 {origin.address}",
        "t=0 0",
        *session,
        f"m=audio {origin.port} {'RTP/SAVP' if srtp else 'RTP/AVP'} {formats}",
        *crypto,
        *attributes,
    ]


def _spoil_headers(lines: list[Header], problem: str) -> None:
    """Build a problem of headers in."""
    at = {item.key: index for index, item in enumerate(lines)}
    if problem == "duplicate-content-type":
        lines.append(lines[at["content-type"]])
    elif problem == "duplicate-content-length":
        lines.append(lines[at["content-length"]])
    elif problem == "folded-headers":
        identity = lines[at["p-asserted-identity"]]
        diversion = lines[at["diversion"]]
        lines[at["p-asserted-identity"]] = Header(identity.key, f"{identity.name}:\r\n {identity.value}")
        lines[at["diversion"]] = Header(diversion.key, diversion.line.replace(";reason", "\r\n\t;reason"))
    elif problem == "compact-names":
        lines[:] = [header(_COMPACT.get(item.key, item.name), item.value) for item in lines]
    elif problem == "odd-casing":
        lines[:] = [
            header(item.name.upper() if index % 2 else item.name.lower(), item.value)
            for index, item in enumerate(lines)
        ]
    elif problem == "session-timer":
        lines[-1:-1] = [header("Supported", "timer"), header("Min-SE", "120")]
    elif problem == "privacy":
        identity = lines[at["p-asserted-identity"]]
        lines[at["p-asserted-identity"]] = header(identity.name, identity.value.replace(">", ";user=phone>"))
        lines.insert(at["diversion"], header("Privacy", "none"))
