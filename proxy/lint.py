"""What is wrong with a SIP message by the RFCs, and which known trouble of the neighbours it would cause."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from proxy.lint_sdp import lint_sdp
from proxy.rewrite.draft import Draft
from proxy.sdp.address import is_private_address
from proxy.sip.errors import SipError
from proxy.sip.headers import NameAddr, parse_cseq, parse_name_addr, parse_via, split_values
from proxy.sip.message import SINGLETONS, Message, Request, Response, is_token
from proxy.sip.parser import MalformedMessage, parse_message
from proxy.sip.uri import parse_uri

__all__ = ["Finding", "lint_message"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong, or would cause trouble.

    Attributes:
        level: `error` (against a MUST), `warning` (against a SHOULD, or risky), `trouble` (a known trouble).
        where: the header field, SDP line or part that it is about.
        what: what is wrong.
        source: the RFC and section, or the number of the known trouble and where it was reported.
    """

    level: str
    where: str
    what: str
    source: str


_MANDATORY: Final = {
    "via": "RFC 3261 section 8.1.1.7",
    "max-forwards": "RFC 3261 section 8.1.1.6",
    "from": "RFC 3261 section 8.1.1.3",
    "to": "RFC 3261 section 8.1.1.2",
    "call-id": "RFC 3261 section 8.1.1.4",
    "cseq": "RFC 3261 section 8.1.1.5",
}
_ADDRESSES: Final = {
    "from": "RFC 3261 section 20.20",
    "to": "RFC 3261 section 20.39",
    "contact": "RFC 3261 section 20.10",
    "route": "RFC 3261 section 20.34",
    "record-route": "RFC 3261 section 20.30",
    "reply-to": "RFC 3261 section 20.31",
    "p-asserted-identity": "RFC 3325 section 9.1",
    "p-preferred-identity": "RFC 3325 section 9.2",
    "diversion": "RFC 5806 section 5.1",
    "history-info": "RFC 7044 section 5",
    "refer-to": "RFC 3515 section 2.1",
    "referred-by": "RFC 3892 section 3",
    "remote-party-id": "draft-ietf-sip-privacy-04 section 5",
}
_OF_DIALOG: Final = frozenset(("INVITE", "SUBSCRIBE", "REFER", "UPDATE"))


def lint_message(data: bytes) -> list[Finding]:
    """All findings of one message, in the order of its lines where they have one."""
    try:
        whole = parse_message(data)
    except MalformedMessage as error:
        found = [Finding("error", "message", f"can't be read: {error.reason}", "RFC 3261 section 7")]
        return found if error.partial is None else [*found, *_lint(error.partial)]
    return list(_lint(whole))


def _lint(whole: Message) -> Iterator[Finding]:
    for check in _CHECKS:
        yield from check(whole)
    if whole.body:
        yield from lint_sdp_of(whole)


def lint_sdp_of(whole: Message) -> Iterator[Finding]:
    """Findings of the body, if it is SDP."""
    try:
        has_sdp = Draft(whole).has_sdp()
    except SipError:
        return
    if has_sdp:
        for level, where, what, source in lint_sdp(whole.body):
            yield Finding(level, where, what, source)


def _mandatory(whole: Message) -> Iterator[Finding]:
    for key, source in _MANDATORY.items():
        if whole.get(key) is None and (key != "max-forwards" or isinstance(whole, Request)):
            yield Finding("error", _title(key), "is missing", source)
    needs_contact = isinstance(whole, Request) and whole.method in _OF_DIALOG
    if isinstance(whole, Response) and 200 <= whole.status < 300:
        needs_contact = (whole.get("cseq") or "").endswith("INVITE")
    if needs_contact and whole.get("contact") is None:
        yield Finding("error", "Contact", "is missing", "RFC 3261 section 8.1.1.8")


def _request_line(whole: Message) -> Iterator[Finding]:
    if not isinstance(whole, Request):
        return
    try:
        uri = parse_uri(whole.uri)
    except SipError as error:
        yield Finding("error", "Request-URI", error.reason.lower(), "RFC 3261 section 19.1.1")
        return
    if _doubled([name for name, _ in uri.params]):
        yield _doubled_finding("Request-URI", _doubled([name for name, _ in uri.params]))
    if not is_token(whole.method):
        yield Finding("error", "method", "is no token", "RFC 3261 section 7.1")


def _lines(whole: Message) -> Iterator[Finding]:
    for item in whole.headers:
        if not item.key:
            yield Finding("error", item.line[:40], "is no header field", "RFC 3261 section 7.3.1")
        elif "\n" in item.line:
            yield Finding("warning", item.name, "is folded over several lines (deprecated)", "RFC 3261 section 7.3.1")
        if "\x00" in item.value:
            yield Finding("error", item.name, "has a NUL in it", "RFC 3261 section 25.1")
    keys = [item.key for item in whole.headers]
    for key in dict.fromkeys([key for key in keys if key in SINGLETONS and keys.count(key) > 1]):
        yield Finding("error", _title(key), f"stands {keys.count(key)} times", "RFC 3261 section 7.3.1")
        if key in ("content-type", "content-length"):
            what = "doubled, as in a published trace of Twilio; strict parsers answer 400"
            yield Finding("trouble", _title(key), what, "what Twilio sends")


def _syntax(whole: Message) -> Iterator[Finding]:
    cseq = whole.get("cseq")
    if cseq is not None:
        try:
            parsed = parse_cseq(cseq)
        except SipError as error:
            yield Finding("error", "CSeq", error.reason.lower(), "RFC 3261 section 20.16")
        else:
            if isinstance(whole, Request) and parsed.method != whole.method:
                what = f"names {parsed.method}, the request is {whole.method}"
                yield Finding("error", "CSeq", what, "RFC 3261 section 8.1.1.5")
    hops = whole.get("max-forwards")
    if hops is not None and not (hops.isdigit() and int(hops[:9]) <= 255):
        yield Finding("error", "Max-Forwards", "is no number from 0 to 255", "RFC 3261 section 20.22")
    elif hops == "0":
        yield Finding("warning", "Max-Forwards", "is 0: the next hop answers 483", "RFC 3261 section 16.3")
    for value in whole.get_all("via"):
        try:
            vias = [parse_via(one) for one in split_values(value)]
        except SipError as error:
            yield Finding("error", "Via", error.reason.lower(), "RFC 3261 section 20.42")
            continue
        for via in vias:
            if not via.branch.startswith("z9hG4bK"):
                what = "has a branch without z9hG4bK, as before RFC 3261"
                yield Finding("warning", "Via", what, "RFC 3261 section 8.1.1.7")


def _addresses(whole: Message) -> Iterator[Finding]:
    for key, source in _ADDRESSES.items():
        for value in whole.get_all(key):
            if key == "contact" and value.strip() == "*":
                continue
            try:
                for one in split_values(value):
                    yield from _address(key, parse_name_addr(one), source)
            except SipError as error:
                yield Finding("error", _title(key), error.reason.lower(), source)


def _address(key: str, address: NameAddr, source: str) -> Iterator[Finding]:
    uri = address.uri
    name = _title(key)
    if _doubled([param for param, _ in uri.params]):
        yield _doubled_finding(name, _doubled([param for param, _ in uri.params]))
        if key == "contact":
            yield Finding(
                "trouble",
                name,
                "OpenAI answered 403 Forbidden to a URI parameter that stands twice",
                "trouble 3, community.openai.com t/1366408",
            )
    if _doubled([param for param, _ in address.params]):
        what = f"has the parameter {_doubled([param for param, _ in address.params])} twice"
        yield Finding("error", name, what, "RFC 3261 section 7.3.1")
    if key == "from" and address.tag is None:
        yield Finding("error", name, "has no tag", "RFC 3261 section 8.1.1.3")
    if is_private_address(uri.host):
        yield Finding("warning", name, f"has an address of an inner network, {uri.host}", "RFC 1918")
        if key == "contact":
            what = "can't be reached: requests in the dialog must take the route set or the open connection"
            yield Finding("trouble", name, what, "what Twilio sends")
    if uri.scheme == "tel" and key == "refer-to":
        what = "is a tel: URI: without a gateway for numbers nobody can carry it out"
        yield Finding("trouble", name, what, "trouble 7, developer forum, May 2026")


def _body(whole: Message) -> Iterator[Finding]:
    length = whole.get("content-length")
    if whole.body and whole.get("content-type") is None:
        yield Finding("error", "Content-Type", "is missing, though there is a body", "RFC 3261 section 20.15")
        yield Finding(
            "trouble",
            "Content-Type",
            "OpenAI's 200 OK lacks it; Asterisk then answers with ACK and BYE",
            "trouble 4, community.openai.com t/1356243",
        )
    if length is None:
        what = "is missing; over TCP and TLS the message can't be framed without"
        yield Finding("warning", "Content-Length", what, "RFC 3261 section 20.14")
    elif length.isdigit() and len(length) < 10 and int(length) != len(whole.body):
        yield Finding(
            "error", "Content-Length", f"says {length}, the body has {len(whole.body)} bytes", "RFC 3261 section 20.14"
        )


def _responses(whole: Message) -> Iterator[Finding]:
    if not isinstance(whole, Response):
        return
    if 100 < whole.status < 700:
        try:
            if whole.to.tag is None:
                yield Finding("error", "To", "has no tag", "RFC 3261 section 8.2.6.2")
        except SipError:
            pass
    else:
        if whole.status != 100:
            yield Finding("error", "status", "is none from 100 to 699", "RFC 3261 section 7.2")
    reason, body = whole.reason.lower(), whole.body.decode("utf-8", "replace").lower()
    is_invite = (whole.get("cseq") or "").upper().endswith("INVITE")
    if whole.status == 400 and is_invite:
        yield from _refused_with_400(reason, body)
    if whole.status == 403:
        what = "403 Forbidden was OpenAI's answer to a Contact with a URI parameter twice"
        yield Finding("trouble", "status", what, "trouble 3, community.openai.com t/1366408")


def _refused_with_400(reason: str, body: str) -> Iterator[Finding]:
    if "sdp" in reason:
        what = "400 Invalid SDP offer: send a plainer offer, then try another endpoint"
        yield Finding("trouble", "status", what, "trouble 2, community.openai.com t/1380763")
    elif "504" in reason or "error code: 504" in body:
        what = "400 with error code 504 comes after an invalid /accept: the webhook did arrive, a retry does not help"
        yield Finding("trouble", "status", what, "trouble 5, forum, May 2026")
    else:
        what = "400 is what OpenAI answers when its webhook service is slow: try again as a new call"
        yield Finding("trouble", "status", what, "trouble 1, community.openai.com t/1371604")


def _in_dialog(whole: Message) -> Iterator[Finding]:
    if not isinstance(whole, Request):
        return
    if whole.method == "BYE" and whole.get("reason") is None:
        what = "is missing in a BYE: nobody will know why the call ended (calls that end at about 30 s)"
        yield Finding("trouble", "Reason", what, "trouble 8, community.openai.com t/1378863, t/1393596")
    if whole.method == "CANCEL":
        what = "a late 200 must get ACK and BYE, or OpenAI keeps a session for a caller who has gone"
        yield Finding("trouble", "CANCEL", what, "trouble 6, community.openai.com t/1368239")


def _doubled(names: list[str]) -> str:
    lower = [name.lower() for name in names]
    return next((name for at, name in enumerate(lower) if name in lower[:at]), "")


def _doubled_finding(where: str, name: str) -> Finding:
    return Finding("error", where, f"has the URI parameter {name} twice", "RFC 3261 section 19.1.1")


def _title(key: str) -> str:
    """A header's name as it is usually written."""
    special = {"cseq": "CSeq", "call-id": "Call-ID", "p-asserted-identity": "P-Asserted-Identity"}
    return special.get(key) or "-".join([part.capitalize() for part in key.split("-")])


_CHECKS: Final[tuple[Callable[[Message], Iterator[Finding]], ...]] = (
    _request_line,
    _mandatory,
    _lines,
    _syntax,
    _addresses,
    _body,
    _responses,
    _in_dialog,
)
