"""Calls in which a number or a secret of its own stands in every place that a neighbour can write to, and the search
for them in what comes out."""

from __future__ import annotations

import re

from proxy.audit.records import Event
from proxy.rulefiles import load_directory_or_files
from proxy.settings.loading import shipped_rules
from tests.support.bench import ANSWER, Bench

__all__ = ["CANARY_CALLS", "leaks", "planted_bench", "planted_events"]

CANARY_CALLS = 3
_SECRET = "c2VjcmV0LWNhbmFyeS"
_OFFER = """v=0
o=15557653001 1 1 IN IP4 192.0.2.10
s=call 15557653002
i=from +1 555 765 3003
u=http://example.com/15557653004
e=15557653005@example.com (Ann)
p=+1 (555) 765-3006
c=IN IP4 192.0.2.10
t=0 0
m=audio 4000 RTP/SAVP 0 101
a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:c2VjcmV0LWNhbmFyeS1rZXktb2YtMzAtYnl0ZXMtMQ|2^20|1:4
a=key-mgmt:mikey c2VjcmV0LWNhbmFyeS0y
a=ice-pwd:c2VjcmV0LWNhbmFyeS0z
a=x-caller:15557653007
a=rtpmap:0 PCMU/8000
a=rtpmap:101 telephone-event/8000
a=fmtp:101 0-16
k=base64:c2VjcmV0LWNhbmFyeS00
""".replace("\n", "\r\n")
_HEADERS = """P-Asserted-Identity: "Ann 15557650001" <sip:+15557650002@192.0.2.10;user=phone>
P-Asserted-Identity: <tel:+1-555-765-0003>
P-Preferred-Identity: sip:15557650004@192.0.2.10
Diversion: <sip:+1555%37650005@192.0.2.10>;reason=unconditional
Diversion: <tel:%2B15557650006>;reason=no-answer
Remote-Party-ID: "+1 (555) 765-0007" <sip:15557650008@192.0.2.10>;party=calling
History-Info: <sip:+15557650009@h?Reason=SIP%3Bcause%3D302>;index=1, <sip:(555)765-0010@h>;index=1.1
Referred-By: <sip:+15557650011@h>
P-Called-Party-ID: <sip:15557650012@h>
Subject: call 15557650013
Reason: SIP;cause=404;text="15557650014 unknown"
User-to-User: 15557650015;encoding=ascii
Call-Info: <http://example.com/?token=c2VjcmV0LWNhbmFyeS01&n=15557650016>
X-Caller-Number: 1.555.765.0017
X-Anything: 15557650018
X-Json: {"phone": "5557650019", "api_key": "c2VjcmV0LWNhbmFyeS02"}
X-Api-Key: c2VjcmV0LWNhbmFyeS03
X-Session-Cookie: c2VjcmV0LWNhbmFyeS04
X-Sip: <sip:alice+15557650020:c2VjcmV0LWNhbmFyeS09@h>
Identity: c2VjcmV0LWNhbmFyeS10.abc;info=<https://example.com/c.pem>
Authorization: Digest username="15557650021", nonce="n", uri="sip:15557650022@h", response="c2VjcmV0LWNhbmFyeS11"
User-Agent: Gateway 1.2.3 15557650023
X-Twilio-CallSid: CA0123456789abcdef0123456789abcdef"""


def planted_bench() -> Bench:
    """Three calls: one answered, with requests in it; one refused at each attempt; one turned away at once."""
    sets = load_directory_or_files([shipped_rules()])
    bench = Bench(rules=sorted(sets.values(), key=lambda one: one.name != "twilio-openai"))
    answer = ANSWER.replace("RTP/AVP", "RTP/SAVP").replace("s=-", "s=15557651001").replace(
        "a=send", f"a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:{_SECRET}1rZXktb2YtMzAtYnl0ZXMtNQ\r\na=send"
    )  # fmt: skip
    uri, contact = "sip:+15557651002@198.51.100.1", "<sip:15557651003@192.0.2.10:5060>"
    bench.invite(_OFFER, _HEADERS, uri=uri, contact=contact)
    bench.respond(180, "Ringing 15557651004", extra='Warning: 399 h "15557651005 rings"')
    extra = "P-Asserted-Identity: <tel:15557651006>\nX-Agent: +15557651007\nServer: agent 15557651008"
    bench.respond(200, "OK", extra=extra, body=answer, contact="<sip:15557651009@203.0.113.5>")
    bench.caller_request("ACK")
    for number, (kind, body) in enumerate(
        (
            ("application/dtmf-relay", "Signal=9\r\nDuration=160"),
            ("application/dtmf", "9"),
            ("text/plain", "call me at 15557651010"),
            ("application/json", '{"password": "x", "to": "+15557651011"}'),
        ),
        2,
    ):
        bench.caller_request("INFO", cseq=number, body=body, content_type=kind)
        bench.respond(200, "OK", request=bench.requests("INFO")[-1])
    bench.target_request(
        "REFER", extra="Refer-To: <sip:15557651012@h?X-To=15557651013>\nReferred-By: <tel:15557651014>"
    )
    bench.caller_answers(bench.caller_requests("REFER")[-1], 603, reason="Not 15557651015")
    bench.advance(5.0)
    bench.caller_request("BYE", cseq=9, extra='Reason: Q.850;cause=16;text="15557651016 left"')
    bench.respond(200, "OK", request=bench.requests("BYE")[-1])
    bench.invite(_OFFER, _HEADERS, call_id="call-2", tag="second", uri=uri, contact=contact)
    bench.respond(400, "No 15557651017 here", extra='Contact: <sip:15557651018@h>\nReason: SIP;text="1 555 765 1019"')
    bench.advance(0.5)
    bench.respond(404, "No (555) 765-1020 here")
    bench.advance(40.0)
    bench.invite(_OFFER, f"{_HEADERS}\nRequire: 15557651021", call_id="call-3", tag="third", uri=uri, contact=contact)
    bench.receive("INVITE sip:15557651022@h SIP/2.0\r\nFrom: <sip:15557651023@h>\r\n\r\n", bench.caller_flow)
    return bench


def planted_events() -> list[Event]:
    """What these calls leave on record."""
    events = planted_bench().events
    assert {event.kind for event in events} >= {"call-end", "refused", "refer", "attempt-end"}
    return events


def leaks(text: str) -> list[str]:
    """The canaries in a text, in whatever notation."""
    plain = re.sub(r"%3([0-9])", r"\1", text).replace("%2B", "+")
    plain = re.sub(r"(?<=[0-9])[ .()\-/]{1,3}(?=[0-9])", "", plain)
    found = re.findall(r"555765[0-9]{4}", plain) + re.findall(rf"{_SECRET}[0-9A-Za-z]*", text)
    return [*found, *re.findall(r"(?im)^Signal\s*=\s*9|\\nSignal=9", text)]
