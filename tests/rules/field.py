"""Messages as the field sends them: Twilio's INVITE over a secure trunk, OpenAI's 200 OK, and worse."""

from __future__ import annotations

__all__ = ["CANDIDATES", "INVITE", "OK", "RUBBISH_LINES", "SDP", "whole"]

INVITE = """INVITE sip:+15550100001@edge.example.com;transport=tls SIP/2.0
Record-Route: <sip:192.0.2.10:5061;transport=tls;r2=on;lr>
Record-Route: <sip:192.0.2.10;r2=on;lr>
From: <sip:+15550100002@trunk.pstn.example.net:5060>;tag=08601002_c3356d0b_658bbbdc-370e-4c02-862b-9f5807568f80
To: <sip:+15550100001@edge.example.com;transport=tls>
CSeq: 29044 INVITE
Max-Forwards: 60
P-Asserted-Identity: <sip:+15550100002@198.51.100.12:5060>
Diversion: <sip:+15550100001@twilio.example>;reason=unconditional
Call-ID: fb3e6e86a53e3094ed17b4776a69af59@0.0.0.0
Via: SIP/2.0/TLS 192.0.2.10:5061;branch=z9hG4bK1dc3.f822d4f6a9d2c3b351d555992ddc6b78.0
Via: SIP/2.0/UDP 172.25.75.240:5060;rport=5060;branch=z9hG4bK658bbbdc-370e-4c02-862b-9f5807568f80_c3356d0b_588-149592
Contact: <sip:+15550100002@172.25.75.240:5060;transport=udp>
Allow: ACK,BYE,CANCEL,INVITE,OPTIONS,REFER,NOTIFY
X-Twilio-AccountSid: AC00000000000000000000000000000000
User-Agent: Twilio Gateway
Content-Type: application/sdp
X-Twilio-CallSid: CA00000000000000000000000000000000"""

SDP = """v=0
o=root 1311022221 1311022221 IN IP4 172.18.165.214
s=Twilio Media Gateway
c=IN IP4 203.0.113.121
t=0 0
m=audio 12692 RTP/SAVP 0 8 101
a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:d0RmdmcmVCspeEc3QGZiNWpVLFJhQX1cfHAwJSoj
a=rtpmap:0 PCMU/8000
a=rtpmap:8 PCMA/8000
a=rtpmap:101 telephone-event/8000
a=fmtp:101 0-16
a=ptime:20
a=maxptime:20
a=sendrecv"""

OK = """SIP/2.0 200 OK
Via: SIP/2.0/TLS 198.51.100.7:5061;rport=61954;branch=z9hG4bKPjfe7413d8;alias;received=192.0.2.61
From: <sip:proj_x@sip.api.openai.com>;tag=2f829524
To: <sip:proj_x@sip.api.openai.com>;tag=045b497c
Call-ID: 184be81a-9b5e-4755-9753-22d52b83e37d
CSeq: 27205 INVITE
Contact: <sip:OAI@sip.api.openai.com:5061>

v=0
o=- 2113971860 2113971862 IN IP4 203.0.113.219
s=OAI
c=IN IP4 203.0.113.219
t=0 0
m=audio 43955 RTP/AVP 0 101
a=rtpmap:101 telephone-event/8000
a=fmtp:101 0-16
a=ptime:20
a=rtpmap:0 PCMU/8000"""

CANDIDATES = [
    "Content-Type: application/sdp",
    "c: application/sdp",
    "Content-Length: 5",
    "Supported: timer",
    "Min-SE: 120",
    "Privacy: none",
    "Privacy: id",
    'P-Asserted-Identity: "Jo, B" <sip:+15550100002@10.1.2.3:5060;user=phone>, <tel:+15550100002>',
    "P-Asserted-Identity: <sip:+1555@10.0.0.1",
    "Remote-Party-ID: <sip:+1555@172.16.0.1;transport=udp>;party=calling;party=calling",
    "Diversion: <sip:+1555@192.168.0.9:5060;transport=tls;transport=tls>;reason=no-answer;counter=1",
    "History-Info: <sip:+1555@192.168.0.9?Reason=SIP%3Bcause%3D302>;index=1,<sip:b@10.0.0.1>;index=1.1",
    'Reason: Q.850;cause=16;text="Normal call clearing"',
    'Warning: 399 172.16.0.1:5060 "private"',
    "P-Charging-Vector: icid-value=1;icid-generated-at=10.0.0.1",
    "X-Correlation: 10.0.0.1",
    "X-Folded: one\r\n two\r\n\tthree",
    "Subject: caf\u00e9",
    "s: again",
    "X-Bytes: \udcff\udc80",
    "X-Trunkline-Attempt: 7",
    "x-trunkline-call-id: forged",
    "Refer-To: <sip:a@h;x=1;X=2>",
    "Call-Info: <http://[fd00::1]/x>",
    "Date: now",
    "Date: later",
]
"""Header lines seen in the field, and some that only an enemy sends."""

RUBBISH_LINES = ["no header field at all", ": no name", "A B: space in the name", "Empty:", "X\u00e9: y"]


def whole(head: str, sdp: str = "") -> bytes:
    """Lines to a message in bytes."""
    text = head.replace("\r\n", "\n").replace("\n", "\r\n") + "\r\n\r\n"
    if sdp:
        text += sdp.replace("\n", "\r\n") + "\r\n"
    return text.encode("utf-8", "surrogateescape")
