"""Session timers (RFC 4028): what was negotiated on one leg, and when to refresh or give up."""

from __future__ import annotations

from proxy.sip.errors import SipError
from proxy.sip.message import Header, Message, Request, Response, header
from proxy.sip.uri import parse_params

__all__ = ["SessionTerms", "accept_terms", "answered_terms", "has_option", "refusal_min_se"]

_FLOOR_S = 90
"""The lowest interval that RFC 4028 section 4 allows."""


class SessionTerms:
    """The session interval of one leg.

    Attributes:
        interval_s: how long the session lives without a refresh.
        we_refresh: whether refreshing is our part.
    """

    __slots__ = ("interval_s", "we_refresh")

    def __init__(self, interval_s: int, we_refresh: bool) -> None:
        self.interval_s = interval_s
        self.we_refresh = we_refresh

    @property
    def wait_s(self) -> float:
        """How long to wait before our part: half of the interval for a refresh (RFC 4028 section 7.2), else the time
        at which the peer is taken for dead: the lesser of 32 s and a third before the end (section 10)."""
        if self.we_refresh:
            return self.interval_s / 2
        return self.interval_s - min(32.0, self.interval_s / 3)


def has_option(message: Message, tag: str) -> bool:
    """Whether an option tag stands in Supported or Require."""
    for key in ("supported", "require"):
        for value in message.get_all(key):
            if tag in value.lower() and tag in [part.strip().lower() for part in value.split(",")]:
                return True
    return False


def _interval(message: Message) -> tuple[int, str | None] | None:
    """Session-Expires as (seconds, refresher). Raises SipError 400."""
    value = message.get("session-expires")
    if value is None:
        return None
    seconds, _, tail = value.partition(";")
    seconds = seconds.strip()
    if not seconds.isdigit() or not seconds.isascii() or len(seconds) > 9:
        raise SipError(400, "Malformed Session-Expires")
    refresher = None
    for name, part in parse_params(tail):
        if name.lower() == "refresher" and part is not None:
            refresher = part.lower()
    return int(seconds), refresher


def _min_se(message: Message) -> int:
    value = (message.get("min-se") or "").partition(";")[0].strip()
    return int(value) if value.isdigit() and value.isascii() and len(value) < 10 else _FLOOR_S


def accept_terms(
    request: Request, min_se_s: int, wanted_s: int, current: SessionTerms | None = None
) -> tuple[SessionTerms | None, tuple[Header, ...]]:
    """As UAS, take what an INVITE or UPDATE asks for (RFC 4028 section 9).

    `wanted_s` is the interval that we want by ourselves, 0 for none. `current` are the terms until now: where the
    request does not say who refreshes, the roles stay. Returns the terms and the header fields for the 2xx. Raises
    SipError 422 with Min-SE for an interval that is too short, 400 for one that is malformed.
    """
    supported = has_option(request, "timer")
    asked = _interval(request)
    if asked is None:
        if not wanted_s or not supported:
            return None, ()
        interval, refresher = max(wanted_s, _min_se(request)), "uas"
    else:
        interval, asked_refresher = asked
        if interval < max(min_se_s, _FLOOR_S):
            if supported:
                raise SipError(422, "Session Interval Too Small", (("Min-SE", str(max(min_se_s, _FLOOR_S))),))
            interval = max(min_se_s, _FLOOR_S)
        kept = "uas" if current is not None and current.we_refresh else "uac"
        refresher = asked_refresher if asked_refresher in ("uac", "uas") else kept
        if not supported:
            refresher = "uas"
    lines = [header("Session-Expires", f"{interval};refresher={refresher}")]
    if supported:
        lines.append(header("Require", "timer"))
    return SessionTerms(interval, refresher == "uas"), tuple(lines)


def answered_terms(response: Response, wanted_s: int) -> SessionTerms | None:
    """As UAC, take what a 2xx to our INVITE or UPDATE says (RFC 4028 section 7.2).

    `wanted_s` is what we asked for: a peer without session timers leaves the refreshing to us. A malformed value counts
    as none.
    """
    try:
        answered = _interval(response)
    except SipError:
        answered = None
    if answered is None:
        return SessionTerms(wanted_s, True) if wanted_s else None
    interval, refresher = answered
    return SessionTerms(max(interval, _FLOOR_S), refresher != "uas")


def refusal_min_se(response: Response) -> int:
    """The interval that a 422 demands (RFC 4028 section 7.3)."""
    return max(_min_se(response), _FLOOR_S)
