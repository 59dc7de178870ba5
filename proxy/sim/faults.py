"""The defects of the OpenAI side, on demand, so that each of them can be met at will.

A draw depends on the seed, the fault, the call and the number of its attempt, not on the order in which INVITEs happen
to arrive. So a run repeats call by call, also when many calls are under way at once.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from hashlib import blake2b
from typing import Final

from proxy.sdp.session import Session
from proxy.sip.errors import SipError
from proxy.sip.headers import parse_name_addr
from proxy.sip.message import SINGLETONS, Request
from proxy.sip.uri import parse_uri

__all__ = ["DEFAULT_CODECS", "Decision", "FaultPlan", "Faults"]

DEFAULT_CODECS: Final = ("PCMU", "PCMA", "telephone-event")
_INVALID_SDP: Final = "Invalid SDP offer"
_WEBRTC: Final = frozenset(
    (
        "candidate",
        "end-of-candidates",
        "extmap",
        "fingerprint",
        "group",
        "ice-lite",
        "ice-options",
        "ice-pwd",
        "ice-ufrag",
        "mid",
        "msid",
        "msid-semantic",
        "rtcp-mux",
        "setup",
        "ssrc",
        "tls-id",
    )
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Faults:
    """Which defects to show. All may be combined; the first that applies to an INVITE wins.

    Fields of type float are probabilities from 0 to 1, drawn for each INVITE.

    Attributes:
        seed: the same seed fails the same attempts of the same calls.
        reset: the connection is reset (over UDP: silence).
        silent: no answer at all.
        trying_only: 100 and then nothing, until CANCEL.
        bad_request: 400 Bad Request, and no webhook.
        bad_request_every: the same for each n-th INVITE; 0 for none.
        invalid_sdp: 400 Invalid SDP offer, whatever the offer.
        unavailable: 503 with `Retry-After: retry_after_s`.
        server_error: 500.
        codecs: 400 Invalid SDP offer for an offer with a codec outside this set; empty takes any.
        reject_odd_sdp: 400 Invalid SDP offer for ICE, DTLS and WebRTC attributes and for dangling or doubled rtpmaps.
        reject_duplicate_params: 403 for a URI parameter that stands twice in Request-URI or Contact.
        reject_duplicate_headers: 400 for a header field that may stand once and stands twice.
        reject_folding: 400 for a folded header field.
        late_webhook: the webhook leaves `late_webhook_ms` late, so that the accept may come too late.
        accept_failure: HTTP accept succeeds, and the INVITE ends in 400 all the same, its text `error code: 504`.
        answer_cancelled: a CANCEL crosses with a 200, which comes `answer_cancelled_ms` after it instead of 487.
        lose_refer: HTTP refer succeeds, and no REFER is sent.
    """

    seed: int = 0
    reset: float = 0.0
    silent: float = 0.0
    trying_only: float = 0.0
    bad_request: float = 0.0
    bad_request_every: int = 0
    invalid_sdp: float = 0.0
    unavailable: float = 0.0
    retry_after_s: int = 1
    server_error: float = 0.0
    codecs: tuple[str, ...] = ()
    reject_odd_sdp: bool = False
    reject_duplicate_params: bool = False
    reject_duplicate_headers: bool = False
    reject_folding: bool = False
    late_webhook: float = 0.0
    late_webhook_ms: int = 0
    accept_failure: float = 0.0
    answer_cancelled: float = 0.0
    answer_cancelled_ms: int = 0
    lose_refer: bool = False

    def __post_init__(self) -> None:
        for item in fields(self):
            value = getattr(self, item.name)
            if item.type == "float" and not 0 <= value <= 1:
                raise ValueError(f"{item.name} is a probability from 0 to 1, not {value}")
            if item.type == "int" and item.name != "seed" and value < 0:
                raise ValueError(f"{item.name} can't be negative")

    def strict(self) -> Faults:
        """The same, and everything refused that the real door was seen or may be feared to refuse."""
        return replace(
            self,
            codecs=self.codecs or DEFAULT_CODECS,
            reject_odd_sdp=True,
            reject_duplicate_params=True,
            reject_duplicate_headers=True,
            reject_folding=True,
        )


@dataclass(frozen=True, slots=True)
class Decision:
    """What becomes of one INVITE.

    Attributes:
        fault: the name of the fault that is shown, "" for none.
        status, reason, headers: the refusal; status 0 for no refusal.
        webhook_delay_ms: how late the webhook leaves.
    """

    fault: str = ""
    status: int = 0
    reason: str = ""
    headers: tuple[tuple[str, str], ...] = field(default=())
    webhook_delay_ms: int = 0


class FaultPlan:
    """Decides for each INVITE."""

    def __init__(self, faults: Faults) -> None:
        self.faults = faults
        self._invites = 0

    def decide(self, request: Request, offer: Session | None, key: str, attempt: int) -> Decision:
        """What becomes of an INVITE. `key` names the call, `attempt` counts its INVITEs from 0."""
        faults = self.faults
        self._invites += 1
        for name, share in (("reset", faults.reset), ("silent", faults.silent), ("trying-only", faults.trying_only)):
            if self._draw(name, share, key, attempt):
                return Decision(name)
        refusal = self._strict(request, offer)
        if refusal is not None:
            return refusal
        every = faults.bad_request_every
        if (every and self._invites % every == 0) or self._draw("bad-request", faults.bad_request, key, attempt):
            return Decision("bad-request", 400, "Bad Request")
        if self._draw("invalid-sdp", faults.invalid_sdp, key, attempt):
            return Decision("invalid-sdp", 400, _INVALID_SDP)
        if self._draw("unavailable", faults.unavailable, key, attempt):
            retry_after = (("Retry-After", str(faults.retry_after_s)),)
            return Decision("unavailable", 503, "Service Unavailable", retry_after)
        if self._draw("server-error", faults.server_error, key, attempt):
            return Decision("server-error", 500, "Server Internal Error")
        for name, share in (("answer-cancelled", faults.answer_cancelled), ("accept-failure", faults.accept_failure)):
            if self._draw(name, share, key, attempt):
                return Decision(name)
        if self._draw("late-webhook", faults.late_webhook, key, attempt):
            return Decision("late-webhook", webhook_delay_ms=faults.late_webhook_ms)
        return Decision()

    def _draw(self, name: str, share: float, key: str, attempt: int) -> bool:
        if not share:
            return False
        text = f"{self.faults.seed}/{name}/{key}/{attempt}".encode("utf-8", "surrogateescape")
        return int.from_bytes(blake2b(text, digest_size=7).digest()) < share * (1 << 56)

    def _strict(self, request: Request, offer: Session | None) -> Decision | None:
        faults = self.faults
        if faults.reject_duplicate_params and _has_duplicate_params(request):
            return Decision("duplicate-params", 403, "Forbidden")
        if faults.reject_duplicate_headers and _has_duplicate_headers(request):
            return Decision("duplicate-headers", 400, "Bad Request")
        if faults.reject_folding and any("\r\n" in item.line for item in request.headers):
            return Decision("folded-header", 400, "Bad Request")
        if offer is not None and faults.codecs:
            codecs = [codec for media in offer.media for codec in media.codecs]
            if not all(codec.matches_any(faults.codecs) for codec in codecs):
                return Decision("foreign-codec", 400, _INVALID_SDP)
        if offer is not None and faults.reject_odd_sdp and _is_odd(offer):
            return Decision("odd-sdp", 400, _INVALID_SDP)
        return None


def _has_duplicate_params(request: Request) -> bool:
    texts = [request.uri]
    try:
        texts.extend(parse_name_addr(value).uri_text for value in request.values("contact"))
        uris = [parse_uri(text) for text in texts]
    except SipError:
        return False
    return any(uri.without_duplicate_params() is not uri for uri in uris)


def _has_duplicate_headers(request: Request) -> bool:
    keys = [item.key for item in request.headers if item.key in SINGLETONS]
    return len(keys) != len(set(keys))


def _is_odd(offer: Session) -> bool:
    if any(name in _WEBRTC for name, _ in offer.attributes()):
        return True
    for media in offer.media:
        mapped: set[str] = set()
        for name, value in media.attributes():
            if name in _WEBRTC:
                return True
            if name == "rtpmap":
                payload = (value or "").partition(" ")[0]
                if payload in mapped or payload not in media.formats:
                    return True
                mapped.add(payload)
    return False
