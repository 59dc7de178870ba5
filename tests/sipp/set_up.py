"""How calls come up, and what is agreed on then, as SIPp scenarios."""

from __future__ import annotations

from collections.abc import Callable

from tests.support.scenarios import ANSWER, HELD, OFFER, RECVONLY, Callee, Caller
from tests.support.worlds import Case

__all__ = ["SET_UP_CASES"]


def _hang_up(caller: Caller, callee: Callee) -> Case:
    caller.pause(100)
    caller.bye()
    callee.take_bye()
    return Case(caller, callee)


def _reliable_end_to_end() -> Case:
    """Both sides want reliable provisional responses: the PRACK crosses; so does an UPDATE before the answer."""
    caller, callee = Caller(), Callee()
    caller.invite("Supported: 100rel")
    callee.take("INVITE", Supported="100rel")
    callee.answer_invite(183, "Require: 100rel", "RSeq: 700", body=ANSWER)
    caller.expect(100, optional=True)
    caller.expect_reliable(183)
    caller.prack()
    callee.take("PRACK", RAck="700 1 INVITE")
    callee.answer(200)
    caller.expect(200)
    caller.request("UPDATE", body=HELD)
    callee.take("UPDATE", body="a=sendonly")
    callee.answer(200, body=RECVONLY)
    caller.expect(200, body="a=recvonly")
    callee.answer_invite(200)
    callee.take("ACK")
    caller.expect(200)
    caller.ack()
    return _hang_up(caller, callee)


def _reliable_for_the_caller() -> Case:
    """Only the caller demands them: Trunkline itself takes the PRACK."""
    caller, callee = Caller(), Callee()
    caller.invite("Require: 100rel")
    callee.take("INVITE")
    callee.answer_invite(180)
    caller.expect(100, optional=True)
    caller.expect_reliable(180)
    caller.prack()
    caller.expect(200)
    callee.pause(300)
    callee.answer_invite(200, body=ANSWER)
    callee.take("ACK")
    caller.expect(200)
    caller.ack()
    return _hang_up(caller, callee)


def _early_media() -> Case:
    """A session in a 183 reaches the caller."""
    caller, callee = Caller(), Callee()
    caller.invite()
    callee.take("INVITE")
    callee.answer_invite(183, body=ANSWER)
    callee.answer_invite(200, body=ANSWER)
    callee.take("ACK")
    caller.expect(100, optional=True)
    caller.expect(183, body="m=audio")
    caller.expect(200, body="m=audio")
    caller.ack()
    return _hang_up(caller, callee)


def _forked() -> Case:
    """The target forks: two ring, a third answers. The caller goes on in the dialog that it learned first."""
    caller, callee = Caller(), Callee()
    caller.invite()
    callee.take("INVITE")
    callee.answer_invite(180, tag="fork-1")
    callee.answer_invite(183, tag="fork-2", body=ANSWER)
    callee.answer_invite(200, body=ANSWER)
    callee.take("ACK", To="_callee")
    caller.expect(100, optional=True)
    caller.expect(180)
    caller.expect(183, learn=False)
    caller.expect(200, learn=False)
    caller.ack()
    return _hang_up(caller, callee)


def _session_timer() -> Case:
    """Each leg has a timer of its own: a refresh by the caller never reaches the target."""
    caller, callee = Caller(), Callee()
    caller.invite("Supported: timer", "Session-Expires: 1800;refresher=uac", "Min-SE: 90")
    caller.expect(100, optional=True)
    caller.expect(180, optional=True)
    caller.expect(200, Session_Expires="1800;refresher=uac", Require="timer")
    caller.ack()
    caller.request("UPDATE", "Supported: timer", "Session-Expires: 1800;refresher=uac")
    caller.expect(200, Session_Expires="1800;refresher=uac")
    caller.request("INVITE", "Supported: timer", "Session-Expires: 900;refresher=uac", body=OFFER)
    caller.expect(100, optional=True)
    caller.expect(200, Session_Expires="900;refresher=uac", body="m=audio")
    caller.ack()
    callee.call()
    return _hang_up(caller, callee)


def _interval_too_small() -> Case:
    """A session interval below Min-SE is refused with 422, and taken when it is long enough."""
    caller, callee = Caller(), Callee()
    caller.invite("Supported: timer", "Session-Expires: 30")
    caller.expect(422, Min_SE="90")
    caller.ack_refusal()
    caller.invite_again("Supported: timer", "Session-Expires: 90")
    caller.expect(100, optional=True)
    caller.expect(180, optional=True)
    caller.expect_answer(200, Session_Expires="90")
    caller.ack()
    callee.call()
    return _hang_up(caller, callee)


def _late_offer() -> Case:
    """An INVITE without an offer."""
    caller, callee = Caller(), Callee()
    caller.invite(body="")
    callee.take("INVITE")
    callee.answer_invite(180)
    callee.answer_invite(200, body=OFFER)
    callee.take("ACK", body="m=audio")
    caller.expect(100, optional=True)
    caller.expect(180, optional=True)
    caller.expect(200, body="m=audio")
    caller.ack(body=ANSWER)
    return _hang_up(caller, callee)


def _challenged() -> Case:
    """The target asks for credentials, and gets them in a second INVITE; the caller notices nothing."""
    caller, callee = Caller(), Callee()
    caller.call()
    callee.take("INVITE")
    nonce = "dcd98b7102dd2f0e8b11d0f600bfb0c093"
    callee.answer_invite(401, f'WWW-Authenticate: Digest realm="sip", nonce="{nonce}", algorithm=MD5, qop="auth"')
    callee.take("ACK")
    callee.take("INVITE", Authorization=f'username="trunk".*nonce="{nonce}".*response="[0-9a-f]*"')
    callee.answer_invite(200, body=ANSWER)
    callee.take("ACK")
    return _hang_up(caller, callee)


def _user() -> Case:
    """A caller from an address that may not call proves by SIPp's own digest, in MD5, that it is a user.

    SIPp gives the bare address as `uri`, so it calls that.
    """
    caller, callee = Caller(), Callee()
    caller.invite(user="")
    caller.expect_challenge()
    caller.ack_refusal()
    caller.invite_again("[authentication username=alice password=wonderland]", user="")
    caller.expect(100, optional=True)
    caller.expect(180, optional=True)
    caller.expect_answer(200)
    caller.ack()
    callee.call()
    return _hang_up(caller, callee)._replace(source="127.0.0.2")


SET_UP_CASES: dict[str, Callable[[], Case]] = {
    "reliable-end-to-end": _reliable_end_to_end,
    "reliable-for-the-caller": _reliable_for_the_caller,
    "early-media": _early_media,
    "forked": _forked,
    "session-timer": _session_timer,
    "interval-too-small": _interval_too_small,
    "late-offer": _late_offer,
    "challenged": _challenged,
    "user": _user,
}
