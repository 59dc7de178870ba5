"""Real shapes of messages, numbers replaced: a Twilio trunk's and OpenAI's."""

from __future__ import annotations

__all__ = ["CANCEL", "OPENAI_200", "TWILIO_BYE", "TWILIO_INVITE", "wire"]


def wire(head: str, body: bytes = b"") -> bytes:
    """A message from readable text: CRLF line ends, an empty line, the body; `{length}` becomes its size."""
    lines = head.strip("\n").replace("{length}", str(len(body))).split("\n")
    return "\r\n".join([*lines, "", ""]).encode("utf-8", "surrogateescape") + body


OFFER = b"""v=0\r
o=root 1311022221 1311022221 IN IP4 172.18.165.214\r
s=Twilio Media Gateway\r
c=IN IP4 203.0.113.121\r
t=0 0\r
m=audio 12692 RTP/SAVP 0 8 101\r
a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:d0RmdmcmVCspeEc3QGZiNWpVLFJhQX1cfHAwJSoj\r
a=rtpmap:0 PCMU/8000\r
a=rtpmap:8 PCMA/8000\r
a=rtpmap:101 telephone-event/8000\r
a=fmtp:101 0-16\r
a=ptime:20\r
a=maxptime:20\r
a=sendrecv\r
"""

ANSWER = b"""v=0\r
o=- 2113971860 2113971862 IN IP4 203.0.113.219\r
s=OAI\r
c=IN IP4 203.0.113.219\r
t=0 0\r
m=audio 43955 RTP/AVP 0 101\r
a=rtpmap:101 telephone-event/8000\r
a=fmtp:101 0-16\r
a=ptime:20\r
a=rtpmap:0 PCMU/8000\r
"""

TWILIO_INVITE = wire(
    """
INVITE sip:+15550100001@edge.example.com;transport=tls SIP/2.0
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
Via: SIP/2.0/UDP 172.25.75.240:5060;rport=5060;branch=z9hG4bK658bbbdc-370e-4c02-862b-9f5807568f80_c3356d0b_588-1
Contact: <sip:+15550100002@172.25.75.240:5060;transport=udp>
Allow: ACK,BYE,CANCEL,INVITE,OPTIONS,REFER,NOTIFY
X-Twilio-AccountSid: AC00000000000000000000000000000000
User-Agent: Twilio Gateway
Content-Type: application/sdp
X-Twilio-CallSid: CA00000000000000000000000000000000
Content-Length: {length}
""",
    OFFER,
)

TWILIO_BYE = wire(
    """
BYE sip:192.0.2.200:5061;transport=tls SIP/2.0
CSeq: 29045 BYE
From: <sip:+15550100002@trunk.pstn.example.net:5060>;tag=08601002_c3356d0b
To: <sip:+15550100001@edge.example.com;transport=tls>;tag=045b497c
Call-ID: fb3e6e86a53e3094ed17b4776a69af59@0.0.0.0
Max-Forwards: 70
Via: SIP/2.0/TLS 192.0.2.10:5061;branch=z9hG4bK1dc3.77.0
Reason: Q.850;cause=16;text="Normal call clearing"
X-Twilio-CallSid: CA00000000000000000000000000000000
Content-Length: 0
"""
)

CANCEL = wire(
    """
CANCEL sip:+15550100001@edge.example.com;transport=tls SIP/2.0
Via: SIP/2.0/TLS 192.0.2.10:5061;branch=z9hG4bK1dc3.f822d4f6a9d2c3b351d555992ddc6b78.0
From: <sip:+15550100002@trunk.pstn.example.net:5060>;tag=08601002_c3356d0b
To: <sip:+15550100001@edge.example.com;transport=tls>
Call-ID: fb3e6e86a53e3094ed17b4776a69af59@0.0.0.0
CSeq: 29044 CANCEL
Max-Forwards: 70
Content-Length: 0
"""
)

OPENAI_200 = wire(
    """
SIP/2.0 200 OK
Via: SIP/2.0/TLS 198.51.100.7:5061;rport=61954;branch=z9hG4bKPjfe7413d8;alias;received=192.0.2.61
From: <sip:proj_x@sip.api.openai.com>;tag=2f829524
To: <sip:proj_x@sip.api.openai.com>;tag=045b497c
Call-ID: 184be81a-9b5e-4755-9753-22d52b83e37d
CSeq: 27205 INVITE
Content-Length: {length}
Contact: <sip:OAI@sip.api.openai.com:5061>
""",
    ANSWER,
)
