"""Session timers (RFC 4028) that run out or are refreshed, as SIPp scenarios. The shortest interval is 90 s: these take
a minute."""

from __future__ import annotations

from collections.abc import Callable

from tests.support.scenarios import ANSWER, Callee, Caller
from tests.support.worlds import Case

__all__ = ["SESSION_TIMER_CASES"]

_OURS = ("Session-Expires: 90;refresher=uac", "Require: timer")
_EXPIRED = 'cause=408;text="Session expired"'


def _answered(caller: Caller, callee: Callee, *headers: str) -> None:
    caller.call()
    callee.take("INVITE", Session_Expires="90;refresher=uac", Supported="timer")
    callee.answer_invite(200, *headers, body=ANSWER)
    callee.take("ACK")


def _refresh_by_update() -> Case:
    """The target takes UPDATE: that refreshes its session, and the caller hears nothing of it."""
    caller, callee = Caller(), Callee()
    _answered(caller, callee, "Allow: INVITE, ACK, CANCEL, BYE, UPDATE", *_OURS)
    callee.take("UPDATE", Session_Expires="90;refresher=uac", Content_Length="^ *0")
    callee.answer(200, *_OURS)
    callee.bye()
    caller.take_bye()
    return Case(caller, callee)


def _refresh_by_reinvite() -> Case:
    """The target does not take UPDATE: the same session again in a re-INVITE."""
    caller, callee = Caller(), Callee()
    _answered(caller, callee, "Allow: INVITE, ACK, CANCEL, BYE", *_OURS)
    callee.take("INVITE", Session_Expires="90;refresher=uac", body="m=audio")
    callee.answer_invite(200, *_OURS, body=ANSWER)
    callee.take("ACK")
    callee.bye()
    caller.take_bye()
    return Case(caller, callee)


def _target_forgets() -> Case:
    """The target says that it refreshes, and never does: both legs end."""
    caller, callee = Caller(), Callee()
    _answered(caller, callee, "Session-Expires: 90;refresher=uas", "Require: timer")
    callee.take_bye(Reason=_EXPIRED)
    caller.take_bye(Reason=_EXPIRED)
    return Case(caller, callee)


def _caller_forgets() -> Case:
    """The caller says that it refreshes, and never does. The target's session is refreshed meanwhile."""
    caller, callee = Caller(), Callee()
    caller.invite("Supported: timer", "Session-Expires: 90;refresher=uac")
    caller.expect(100, optional=True)
    caller.expect(200, Session_Expires="90;refresher=uac")
    caller.ack()
    caller.take_bye(Reason=_EXPIRED)
    callee.take("INVITE")
    callee.answer_invite(200, *_OURS, body=ANSWER)
    callee.take("ACK")
    callee.take("INVITE", Session_Expires="90;refresher=uac")
    callee.answer_invite(200, *_OURS, body=ANSWER)
    callee.take("ACK")
    callee.take_bye(Reason=_EXPIRED)
    return Case(caller, callee)


SESSION_TIMER_CASES: dict[str, Callable[[], Case]] = {
    "refresh-by-update": _refresh_by_update,
    "refresh-by-reinvite": _refresh_by_reinvite,
    "target-forgets": _target_forgets,
    "caller-forgets": _caller_forgets,
}
