"""What one side does in a call and the other side sees, as SIPp scenarios; each from either side."""

from __future__ import annotations

from collections.abc import Callable

from tests.support.scenarios import ANSWER, HELD, OFFER, RECVONLY, Callee, Caller, Script
from tests.support.worlds import Case

__all__ = ["Act", "in_call", "in_call_cases", "info", "relayed"]

Act = Callable[[Script, Script], None]

_ALLOW = "INVITE, ACK, CANCEL, BYE, OPTIONS, PRACK, UPDATE, INFO, MESSAGE, NOTIFY, REFER"


def in_call(act: Act, side: str) -> Case:
    """A call in which one side does something and the other side sees it; then the caller hangs up.

    Before the callee begins, the caller shows by a request that its ACK has arrived.
    """
    caller, callee = Caller(), Callee()
    caller.call()
    callee.call()
    first, second = (caller, callee) if side == "caller" else (callee, caller)
    if side == "callee":
        info(caller, callee)
    act(first, second)
    caller.pause(100)
    caller.bye()
    callee.take_bye()
    return Case(caller, callee)


def relayed(method: str, *headers: str, payload: str = "", **checks: str) -> Act:
    """A request that crosses, and its answer that comes back."""

    def act(first: Script, second: Script) -> None:
        first.request(method, *headers, body=payload)
        second.take(method, **checks)
        second.answer(200)
        first.expect(200)

    return act


def info(first: Script, second: Script) -> None:
    """DTMF in an INFO."""
    content = "Content-Type: application/dtmf-relay"
    relayed("INFO", content, payload="Signal=5\nDuration=160\n", Content_Type="dtmf-relay", body="Signal=5")(
        first, second
    )


def _reinvite(offer: str, answer: str, seen: str, back: str) -> Act:
    """A re-INVITE that crosses with its offer, and its answer."""

    def act(first: Script, second: Script) -> None:
        first.request("INVITE", body=offer)
        second.take("INVITE", body=seen)
        second.answer_invite(200, body=answer)
        second.take("ACK")
        first.expect(100, optional=True)
        first.expect(200, body=back)
        first.ack()

    return act


_MOVED = (
    OFFER.replace("o=- 1 1", "o=- 1 3")
    .replace("m=audio [media_port]", "m=audio 32000")
    .replace("c=IN IP4 [media_ip]", "c=IN IP4 192.0.2.77")
)
_PCMA = OFFER.replace(" 0 8 101", " 8 101").replace("a=rtpmap:0 PCMU/8000\n", "").replace("o=- 1 1", "o=- 1 4")

_hold = _reinvite(HELD, RECVONLY, "a=sendonly", "a=recvonly")
_resume = _reinvite(
    OFFER.replace("o=- 1 1", "o=- 1 3"), ANSWER.replace("o=- 1 1", "o=- 1 3"), "a=sendrecv", "a=sendrecv"
)
_move = _reinvite(_MOVED, ANSWER, "c=IN IP4 192.0.2.77.*m=audio 32000", "m=audio")
_other_codec = _reinvite(_PCMA, _PCMA, "RTP/AVP 8 101", "RTP/AVP 8 101")


def _sessions(first: Script, second: Script) -> None:
    """Hold, resume, media somewhere else, another codec."""
    for act in (_hold, _resume, _move, _other_codec):
        act(first, second)


def _late_reinvite(first: Script, second: Script) -> None:
    """A re-INVITE without an offer: the 200 has it, the ACK its answer."""
    first.request("INVITE")
    second.take("INVITE")
    second.answer_invite(200, body=OFFER)
    second.take("ACK", body="m=audio")
    first.expect(100, optional=True)
    first.expect(200, body="m=audio")
    first.ack(body=ANSWER)


def _update(first: Script, second: Script) -> None:
    """An UPDATE that holds the call."""
    first.request("UPDATE", body=HELD)
    second.take("UPDATE", body="a=sendonly")
    second.answer(200, body=RECVONLY)
    first.expect(200, body="a=recvonly")


def _glare(first: Script, second: Script) -> None:
    """A re-INVITE refused with 491, and again after a while."""
    first.request("INVITE", body=HELD)
    second.take("INVITE")
    second.answer_invite(491)
    second.take("ACK")
    first.expect(100, optional=True)
    first.expect(491)
    first.ack_failure()
    first.pause(100)
    _hold(first, second)


def _requests(first: Script, second: Script) -> None:
    """What crosses, and what does not: that gets 405 with Allow, or 501."""
    info(first, second)
    relayed("INFO", Content_Length="0")(first, second)
    relayed("MESSAGE", "Content-Type: text/plain", payload="hello\n", Content_Type="text/plain")(first, second)
    relayed("NOTIFY", "Event: presence", "Subscription-State: active", Event="presence")(first, second)
    relayed("OPTIONS", "Accept: application/sdp")(first, second)
    first.request("SUBSCRIBE", "Event: presence")
    first.expect(405, Allow=_ALLOW)
    first.request("FROB")
    first.expect(501, Allow=_ALLOW)


def _refer(first: Script, second: Script) -> None:
    """A REFER, accepted, and the NOTIFY that tells how it went; then one whose Replaces names a dialog with us."""
    first.request("REFER", "Refer-To: <sip:+15550100009@elsewhere.example.com>")
    second.take("REFER", Refer_To="elsewhere.example.com")
    second.answer(202)
    first.expect(202)
    state = "Subscription-State: terminated;reason=noresource"
    content = "Content-Type: message/sipfrag;version=2.0"
    second.request("NOTIFY", "Event: refer", state, content, body="SIP/2.0 200 OK\n")
    first.take("NOTIFY", Event="refer", body="200 OK")
    first.answer(200)
    second.expect(200)
    ours, theirs = ("caller", "callee") if isinstance(first, Caller) else ("callee", "caller")
    replaces = f"Replaces=[call_id]%3Bfrom-tag%3D[call_number]_{ours}%3Bto-tag%3D[$our_tag]"
    first.request("REFER", f"Refer-To: <sip:trunkline@example.com?{replaces}>")
    second.take("REFER", Refer_To=f"sip:peer@.*Replaces=.*to-tag%3D[0-9]*_{theirs}")
    second.answer(202)
    first.expect(202)


_ACTS: dict[str, Act] = {
    "sessions": _sessions,
    "late-reinvite": _late_reinvite,
    "update": _update,
    "glare": _glare,
    "requests": _requests,
    "refer": _refer,
}


def in_call_cases() -> dict[str, Callable[[], Case]]:
    """Every act by either side."""

    def case(act: Act, side: str) -> Callable[[], Case]:
        return lambda: in_call(act, side)

    return {f"{name}-by-{side}": case(act, side) for name, act in _ACTS.items() for side in ("caller", "callee")}
