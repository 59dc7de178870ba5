"""A 2xx to an INVITE of ours that belongs to no transaction any more: the session behind it must not live on."""

from __future__ import annotations

from typing import Final

from proxy.b2bua.core import BRANCH_PREFIX, Core
from proxy.b2bua.farewell import Farewell
from proxy.sip.errors import SipError
from proxy.sip.flow import Flow
from proxy.sip.message import Header, Request, Response, header
from proxy.sip.uri import parse_uri

__all__ = ["end_stray_session"]

_SEQ_AHEAD: Final = 100
"""How far the BYE's CSeq number is ahead of the INVITE's: nobody knows how many requests there were in between."""

_MAX_SEQ: Final = 2**31 - 2


def end_stray_session(core: Core, response: Response, flow: Flow, now: float) -> bool:
    """Acknowledge a late 2xx and hang up, from what it says itself; once for each copy of it that comes.

    One that repeats the 2xx of a dialog that is alive gets the ACK again and no BYE. Returns False for what is no
    answer to an INVITE of ours. Who sent it is for the caller to check.
    """
    via = response.via
    if via.sent_by != flow.advertised.lower() or not via.branch.startswith(BRANCH_PREFIX):
        return False
    seq, tag = response.cseq.number, response.to.tag or ""
    leg = core.legs.get((response.call_id, response.from_.tag or ""))
    if leg is not None and leg.dialog.remote_tag == tag:
        leg.repeat_ack(seq, now)
        return True
    try:
        invite = _invite(response)
    except (SipError, ValueError):
        return False
    ahead = min(seq + _SEQ_AHEAD, _MAX_SEQ)
    Farewell(core, "", 0, invite, response, flow, "Answered too late", ahead).say(now)
    return True


def _invite(response: Response) -> Request:
    """As much of the INVITE as its 2xx tells. Raises SipError, or ValueError for a URI that can't be written."""
    uri = response.to.uri_text
    _ = parse_uri(uri)
    lines: list[Header] = [
        header("From", response.get("from") or ""),
        header("To", response.get("to") or ""),
        header("Call-ID", response.call_id),
        header("CSeq", str(response.cseq)),
    ]
    return Request("INVITE", uri, lines)
