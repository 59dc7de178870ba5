"""Events of a call, packed: a list as JSON, compressed by zlib with a dictionary of what SIP texts have in common.

The messages of a call resemble each other so much that each after the first costs little; so they are packed together.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from typing import Any, Final

import orjson

from proxy.audit.plain import valid_text

__all__ = ["pack", "unpack"]

_LEVEL: Final = 6

# Part of the format: a change of this text makes older stores unreadable, and needs a new SCHEMA_VERSION. zlib likes
# what is frequent at the end.
_DICTIONARY: Final = (
    b"SIP/2.0 603 Decline SIP/2.0 503 Service Unavailable SIP/2.0 500 Server Internal Error SIP/2.0 488 Not Acceptable "
    b"Here SIP/2.0 487 Request Terminated SIP/2.0 408 Request Timeout SIP/2.0 403 Forbidden SIP/2.0 400 Bad Request "
    b'Reason: Q.850;cause=16;text=\\"Normal call clearing\\"\\r\\nReason: SIP;cause= CANCEL sip: BYE sip: '
    b"Session-Expires: 1800;refresher=uac\\r\\nMin-SE: 90\\r\\nSupported: timer, 100rel\\r\\nRetry-After: "
    b"P-Asserted-Identity: <sip:+1555 Diversion: <sip:+1555 >;reason=unconditional\\r\\n X-Twilio-AccountSid: AC "
    b"X-Twilio-CallSid: CA User-Agent: Twilio Gateway\\r\\nRecord-Route: <sip: ;transport=tls;r2=on;lr>\\r\\n"
    b"Via: SIP/2.0/UDP ;rport;branch=z9hG4bK;received= Via: SIP/2.0/TCP Via: SIP/2.0/TLS 192.0.2.10:5061;branch= "
    b"Contact: <sip:trunkline@ :5061;transport=tls>\\r\\nAllow: ACK,BYE,CANCEL,INVITE,OPTIONS,REFER,NOTIFY\\r\\n"
    b"Allow: INVITE, ACK, CANCEL, BYE, OPTIONS, PRACK, UPDATE, INFO, MESSAGE, NOTIFY, REFER\\r\\nServer: Trunkline/ "
    b"X-Trunkline-Call-ID: X-Trunkline-Attempt: 1\\r\\nUser-Agent: Trunkline/0.1.0\\r\\nContent-Type: application/sdp"
    b"\\r\\nMax-Forwards: 70\\r\\nFrom: <sip:+15550100002@ >;tag= To: <sip:proj@sip.api.openai.com;transport=tls>;tag= "
    b"Call-ID: CSeq: 1 INVITE\\r\\n CSeq: 1 ACK\\r\\n CSeq: 2 BYE\\r\\nContent-Length: 0\\r\\n\\r\\n"
    b"v=0\\r\\no=- IN IP4 \\r\\ns=Twilio Media Gateway\\r\\nc=IN IP4 \\r\\nt=0 0\\r\\nm=audio  RTP/SAVP 0 8 101\\r\\n"
    b"a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:****\\r\\na=rtpmap:0 PCMU/8000\\r\\na=rtpmap:8 PCMA/8000\\r\\n"
    b"a=rtpmap:101 telephone-event/8000\\r\\na=fmtp:101 0-16\\r\\na=ptime:20\\r\\na=maxptime:20\\r\\na=sendrecv\\r\\n"
    b'{"at":,"event":"attempt-start","leg":"b","attempt":1,"target":"openai","uri":"sip:","rules":"twilio-openai",'
    b'"rules_version":"","call_id":""},{"at":,"event":"attempt-end","status":200,"reason":"OK","cause":"answered",'
    b'"duration_s":,"next":"retry in  s"},{"at":,"event":"retry","delay_s":0.2,"rules":null,"target":null},'
    b'["builtin:capabilities","header",["builtin:mapping","header",,"Via: SIP/2.0/TLS",null],["builtin:identity",'
    b'{"at":0.0,"event":"message","leg":"a","direction":"out","flow":"tls:","local":"","message":"SIP/2.0 100 Trying'
    b'{"at":0.0,"event":"message","leg":"b","attempt":1,"direction":"in","flow":"tls:","local":"","message":"INVITE '
)


def pack(events: Sequence[Mapping[str, Any]]) -> bytes:
    """Pack events. Changes are to be lists of [step, part, index, before, after]."""
    try:
        data = orjson.dumps(events)
    except TypeError:
        data = orjson.dumps(valid_text(events), default=str)
    packer = zlib.compressobj(_LEVEL, zlib.DEFLATED, -15, 9, zlib.Z_DEFAULT_STRATEGY, _DICTIONARY)
    return packer.compress(data) + packer.flush()


def unpack(blob: bytes) -> list[dict[str, Any]]:
    """The events of `pack`, changes as mappings again. Raises ValueError when the bytes are none of its."""
    try:
        events: list[dict[str, Any]] = orjson.loads(zlib.decompressobj(-15, _DICTIONARY).decompress(blob))
    except zlib.error as error:
        raise ValueError(f"damaged: {error}") from None
    for event in events:
        if "changes" in event:
            names = ("step", "part", "index", "before", "after")
            event["changes"] = [dict(zip(names, change, strict=True)) for change in event["changes"]]
    return events
