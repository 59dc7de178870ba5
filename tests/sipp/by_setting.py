"""What calls do where settings say so, as SIPp scenarios: REFER carried out, early media withheld, PRACK for the target
alone, and calls that are ended from the middle."""

from __future__ import annotations

from collections.abc import Callable

from tests.sipp.in_call import info
from tests.support.scenarios import ANSWER, Callee, Caller, Script
from tests.support.worlds import Case

__all__ = ["LIFETIME_CASES", "TRANSFER_CASES"]


def _begin(side: str) -> tuple[Case, Script, Script]:
    """A call that is up, and who of the two refers and who stays."""
    caller, callee = Caller(), Callee()
    caller.call()
    callee.call()
    info(caller, callee)
    case = Case(caller, callee, Callee())
    return (case, caller, callee) if side == "caller" else (case, callee, caller)


def _refer(referrer: Script, third: Callee, refer_to: str = "<[third]>") -> None:
    referrer.request("REFER", f"Refer-To: {refer_to}")
    referrer.expect(202)
    referrer.take("NOTIFY", Event="refer", Subscription_State="active", body="100 Trying")
    referrer.answer(200)
    third.take("INVITE", body="m=audio")


def _joined(referrer: Script, staying: Script, third: Callee) -> None:
    """The referrer is told and let go; the others talk, until the one that stays hangs up."""
    referrer.take("NOTIFY", Subscription_State="terminated", body="200 OK")
    referrer.answer(200)
    referrer.take_bye(Reason="Transferred")
    info(staying, third)
    staying.bye()
    third.take_bye()


def _take_session(staying: Script) -> None:
    staying.take("INVITE", body="m=audio")
    staying.answer_invite(200, body=ANSWER)
    staying.take("ACK")


def _transfer(side: str, refer_to: str = "<[third]>") -> Case:
    """Trunkline calls the third side itself, joins it, and lets the referrer go."""
    case, referrer, staying = _begin(side)
    third = case.third
    assert third is not None
    _refer(referrer, third, refer_to)
    third.answer_invite(200, body=ANSWER)
    third.take("ACK")
    _take_session(staying)
    _joined(referrer, staying, third)
    return case


def _glare() -> Case:
    """The side that stays is busy with its own re-INVITE at first; it is asked again after a random wait."""
    case, referrer, staying = _begin("callee")
    third = case.third
    assert third is not None
    _refer(referrer, third)
    third.answer_invite(200, body=ANSWER)
    third.take("ACK")
    staying.take("INVITE")
    staying.answer_invite(491)
    staying.take("ACK")
    _take_session(staying)
    _joined(referrer, staying, third)
    return case


def _refused_transfer(side: str) -> Case:
    """The third side is busy: the referrer hears of it, and the old call goes on."""
    case, referrer, staying = _begin(side)
    third = case.third
    assert third is not None
    _refer(referrer, third)
    third.answer_invite(486)
    third.take("ACK")
    referrer.take("NOTIFY", Subscription_State="terminated", body="486")
    referrer.answer(200)
    info(referrer, staying)
    referrer.bye()
    staying.take_bye()
    return case


def _forbidden_transfer(side: str) -> Case:
    """A REFER to a host that no setting names."""
    case, referrer, staying = _begin(side)
    referrer.request("REFER", "Refer-To: <sip:bob@elsewhere.example.com>")
    referrer.expect(403)
    info(referrer, staying)
    referrer.bye()
    staying.take_bye()
    return case._replace(third=None)


def _withheld() -> Case:
    """A session in a 183 does not reach the caller, which hears a plain 180."""
    caller, callee = Caller(), Callee()
    caller.invite()
    callee.take("INVITE")
    callee.answer_invite(183, body=ANSWER)
    callee.answer_invite(200, body=ANSWER)
    callee.take("ACK")
    caller.expect(100, optional=True)
    caller.expect(180, Content_Length="^ *0")
    caller.expect(200, body="m=audio")
    caller.ack()
    caller.bye()
    callee.take_bye()
    return Case(caller, callee)


def _reliable_for_the_target() -> Case:
    """The caller knows nothing of reliable provisional responses: Trunkline itself sends the PRACK, and puts the answer
    of the 183 into the 200."""
    caller, callee = Caller(), Callee()
    caller.invite()
    callee.take("INVITE", Supported="100rel")
    callee.answer_invite(183, "Require: 100rel", "RSeq: 700", body=ANSWER)
    callee.take("PRACK", RAck="700 1 INVITE")
    callee.answer(200)
    callee.answer_invite(200)
    callee.take("ACK")
    caller.expect(100, optional=True)
    caller.expect(180, Content_Length="^ *0")
    caller.expect(200, body="m=audio")
    caller.ack()
    caller.bye()
    callee.take_bye()
    return Case(caller, callee)


def _interval_of_the_target() -> Case:
    """The target finds our session interval too short, and gets a longer one."""
    caller, callee = Caller(), Callee()
    caller.call()
    callee.take("INVITE", Session_Expires="90;refresher=uac")
    callee.answer_invite(422, "Min-SE: 120")
    callee.take("ACK")
    callee.take("INVITE", Session_Expires="120;refresher=uac", Min_SE="120")
    callee.answer_invite(200, "Session-Expires: 120;refresher=uac", "Require: timer", body=ANSWER)
    callee.take("ACK")
    caller.bye()
    callee.take_bye()
    return Case(caller, callee)


TRANSFER_CASES: dict[str, Callable[[], Case]] = {
    "transfer-by-caller": lambda: _transfer("caller"),
    "transfer-by-callee": lambda: _transfer("callee"),
    "transfer-to-number": lambda: _transfer("callee", "<tel:[number];ext=7>"),
    "transfer-glare": _glare,
    "refused-by-caller": lambda: _refused_transfer("caller"),
    "refused-by-callee": lambda: _refused_transfer("callee"),
    "forbidden-by-caller": lambda: _forbidden_transfer("caller"),
    "forbidden-by-callee": lambda: _forbidden_transfer("callee"),
    "withheld": _withheld,
    "reliable-for-the-target": _reliable_for_the_target,
    "interval-of-the-target": _interval_of_the_target,
}


def _gone(side: str) -> Case:
    """One side has lost the call: its 481 to our OPTIONS ends both legs."""
    caller, callee = Caller(), Callee()
    caller.call()
    callee.call()
    for script in (caller, callee):
        script.take("OPTIONS")
        script.answer(481 if (script is caller) == (side == "caller") else 200)
        script.take_bye(Reason='cause=481;text="The other side has lost the call"')
    return Case(caller, callee)


def _long_call() -> Case:
    """Sides that refuse OPTIONS are there, too; the longest time that a call may last ends it."""
    caller, callee = Caller(), Callee()
    caller.call()
    callee.call()
    for script, status in ((caller, 405), (callee, 501)):
        script.take("OPTIONS")
        script.answer(status)
        script.answer_until_bye("OPTIONS", status, Reason="Maximum call duration reached")
    return Case(caller, callee)


def _next_target() -> Case:
    """A target that says 503 to pings is passed over: the first attempt goes to the next one."""
    caller, callee = Caller(), Callee()
    caller.call()
    callee.take("INVITE", X_Trunkline_Attempt="1")
    callee.answer_invite(200, body=ANSWER)
    callee.take("ACK")
    caller.bye()
    callee.take_bye()
    return Case(caller, callee, dead_first=True)


LIFETIME_CASES: dict[str, Callable[[], Case]] = {
    "gone-by-caller": lambda: _gone("caller"),
    "gone-by-callee": lambda: _gone("callee"),
    "long-call": _long_call,
    "next-target": _next_target,
}
