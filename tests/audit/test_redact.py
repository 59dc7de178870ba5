"""Phone numbers and secrets leave the text, everything else stays."""

import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from proxy.audit.phone import mask_free_numbers, mask_number
from proxy.audit.redact import HIDDEN, Redaction, Redactor, _mask_any, _mask_one_uri, mask_line, mask_text

BOTH = Redaction()
SECRETS_ONLY = Redaction(mask_numbers=False)
NUMBERS_ONLY = Redaction(mask_secrets=False)
NEITHER = Redaction(mask_numbers=False, mask_secrets=False)

INVITE = """\
INVITE sip:+15550100001@edge.example.com;transport=tls SIP/2.0
Record-Route: <sip:192.0.2.10:5061;transport=tls;r2=on;lr>
From: "+1 555 010 0002" <sip:+15550100002@trunk.pstn.example.net:5060>;tag=08601002_c3356d0b_658bbbdc-370e-4c02
To: <sip:+15550100001@edge.example.com;transport=tls>
CSeq: 29044 INVITE
P-Asserted-Identity: <sip:+15550100002@198.51.100.12:5060>
Diversion: <sip:+15550100003@twilio.example>;reason=unconditional
Call-ID: +15550109999-fb3e6e86a53e3094ed17b4776a69af59@0.0.0.0
Via: SIP/2.0/TLS 192.0.2.10:5061;branch=z9hG4bK1dc3.15550100002.0
Contact: <sip:+15550100002@172.25.75.240:5060;transport=udp>
X-Twilio-AccountSid: AC00000000000000000000000000000000
X-Twilio-CallSid: CA15550100002000000000000000000000
Content-Type: application/sdp
Content-Length: 300

v=0
o=root 1311022221 1311022221 IN IP4 172.18.165.214
s=Twilio Media Gateway
c=IN IP4 203.0.113.121
t=0 0
m=audio 12692 RTP/SAVP 0 8 101
a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:d0RmdmcmVCspeEc3QGZiNWpVLFJhQX1cfHAwJSoj|2^20|1:4
a=ice-ufrag:F7gI
a=ice-pwd:x9cml/YzichV2+XlhiMu8g
k=base64:c2VjcmV0
a=rtpmap:0 PCMU/8000
""".replace("\n", "\r\n")


def test_whole_message() -> None:
    masked = mask_text(INVITE, BOTH)
    assert masked == (
        INVITE.replace("sip:+15550100001", "sip:+1555*****01")
        .replace("sip:+15550100002", "sip:+1555*****02")
        .replace("sip:+15550100003", "sip:+1555*****03")
        .replace('"+1 555 010 0002"', '"+1 555 *** **02"')
        .replace("d0RmdmcmVCspeEc3QGZiNWpVLFJhQX1cfHAwJSoj", HIDDEN)
        .replace("x9cml/YzichV2+XlhiMu8g", HIDDEN)
        .replace("c2VjcmV0", HIDDEN)
    )
    assert mask_text(masked, BOTH) == masked
    assert mask_text(INVITE, NEITHER) == INVITE
    assert "15550100001" in mask_text(INVITE, SECRETS_ONLY)
    assert "c2VjcmV0" in mask_text(INVITE, NUMBERS_ONLY)


@pytest.mark.parametrize(
    ("number", "masked"),
    [
        ("+15550100002", "+1555*****02"),
        ("15550100002", "1555*****02"),
        ("5550100", "*****00"),
        ("55501002", "5*****02"),
        ("5550100200", "555*****00"),
        ("+441632960123", "+4416******23"),
        ("+1-555-010-0002", "+1-555-***-**02"),
        ("555010", "555010"),
        ("101", "101"),
        ("anonymous", "anonymous"),
        ("", ""),
    ],
)
def test_number(number: str, masked: str) -> None:
    assert mask_number(number) == masked


@pytest.mark.parametrize(
    ("line", "masked"),
    [
        # URIs of every kind, wherever they stand.
        ("tel:+15550100002", "tel:+1555*****02"),
        ("TEL:+1-555-010-0002;phone-context=example.com", "TEL:+1-555-***-**02;phone-context=example.com"),
        ("sip:15550100002@192.0.2.1:5060", "sip:1555*****02@192.0.2.1:5060"),
        ("sips:%2B15550100002@h", "sips:%2B1555*****02@h"),
        ("sip:+15550100002;npdi=yes@h;user=phone", "sip:+1555*****02;npdi=yes@h;user=phone"),
        ("sip:alice:wonderland@h", f"sip:alice:{HIDDEN}@h"),
        ("sip:+15550100002:1234@h", f"sip:+1555*****02:{HIDDEN}@h"),
        ("Refer-To: <sip:+15550100002@h?Replaces=a%40b>", "Refer-To: <sip:+1555*****02@h?Replaces=a%40b>"),
        ("Contact: sip:h:5060,sip:+15550100002@h", "Contact: sip:h:5060,sip:+1555*****02@h"),
        ("f: 15550100002 <sip:15550100002@h>;tag=15550100002", "f: 1555*****02 <sip:1555*****02@h>;tag=15550100002"),
        (
            'From: "Ann 15550100002" <sip:a@h>;tag=15550100002',
            'From: "Ann 1555*****02" <sip:a@h>;tag=15550100002',
        ),
        ("From: <sip:+15550100002@h>\r\n ;tag=+15550100002", "From: <sip:+1555*****02@h>\r\n ;tag=+15550100002"),
        ("SIP/2.0 302 Call +15550100002", "SIP/2.0 302 Call +1555*****02"),
        ("ACK sip:+15550100002@h SIP/2.0", "ACK sip:+1555*****02@h SIP/2.0"),
        # Headers of others.
        ("X-Tenant: +15550100002", "X-Tenant: +1555*****02"),
        ('X-Json: {"from":"+15550100002","id":15550100002}', 'X-Json: {"from":"+1555*****02","id":1555*****02}'),
        ("X-Caller-Number: 15550100002", "X-Caller-Number: 1555*****02"),
        ("X-Order: 15550100002", "X-Order: 1555*****02"),
        ("X-Blob: abc+15550100002/x", "X-Blob: abc+1555*****02/x"),
        ("X-Trace: 4bf92f3577b34da6a3ce929d0e0e4736", "X-Trace: 4bf92f3577b34da6a3ce929d0e0e4736"),
        ("X-Id: 44665544-1234-1234-1234-123456789012", "X-Id: 44665544-1234-1234-1234-123456789012"),
        (
            "X-Edge: 203.0.113.121:10000, 2026-11-23 12:00:00.123456",
            "X-Edge: 203.0.113.121:10000, 2026-11-23 12:00:00.123456",
        ),
        ("User-Agent: Phone/5.9.6.2327", "User-Agent: Phone/5.9.6.2327"),
        ('Reason: Q.850;cause=16;text="15550100002 left"', 'Reason: Q.850;cause=16;text="1555*****02 left"'),
        ("SIP/2.0 404 1 555 010 0002 is gone", "SIP/2.0 404 1 555 *** **02 is gone"),
        (
            "a=candidate:1 1 UDP 2130706431 192.0.2.1 5000 typ host",
            "a=candidate:1 1 UDP 2130706431 192.0.2.1 5000 typ host",
        ),
        ("t=2873397496 2873404696", "t=2873397496 2873404696"),
        ("Refer-To: <sip:h?Replaces=15550100002%40h>", "Refer-To: <sip:h?Replaces=15550100002%40h>"),
        # Users that are no numbers.
        ("To: <sip:proj_15550100002@sip.api.openai.com>", "To: <sip:proj_15550100002@sip.api.openai.com>"),
        ("Contact: <sip:OAI@sip.api.openai.com:5061>", "Contact: <sip:OAI@sip.api.openai.com:5061>"),
        ("Contact: <sip:101@h>", "Contact: <sip:101@h>"),
        # What faults are found by.
        ("Call-ID: +15550100002@h", "Call-ID: +15550100002@h"),
        ("i: 15550100002", "i: 15550100002"),
        ("In-Reply-To: +15550100002@h", "In-Reply-To: +15550100002@h"),
        ("CSeq: 1555010000 BYE", "CSeq: 1555010000 BYE"),
        ("Via: SIP/2.0/UDP h;branch=z9hG4bK+15550100002", "Via: SIP/2.0/UDP h;branch=z9hG4bK+15550100002"),
        ("o=- 15550100002 15550100003 IN IP4 192.0.2.1", "o=- 15550100002 15550100003 IN IP4 192.0.2.1"),
        ("m=audio 12692 RTP/AVP 0", "m=audio 12692 RTP/AVP 0"),
        ("p=+1 555 010-0002", "p=+1 555 ***-**02"),
        ("u=sip:+15550100002@h", "u=sip:+1555*****02@h"),
        # Secrets.
        (
            'Authorization: Digest username="15550100002", nonce="n1", uri="sip:h", response="abc", cnonce="c"',
            f'Authorization: Digest username="1555*****02", nonce="n1", uri="sip:h", response={HIDDEN}, '
            f"cnonce={HIDDEN}",
        ),
        ('Proxy-Authorization: Digest\r\n response = "a b"', f"Proxy-Authorization: Digest\r\n response = {HIDDEN}"),
        ('Authorization: Digest response="cut', f"Authorization: Digest response={HIDDEN}"),
        ("Authorization: Bearer aGk=", f"Authorization: Bearer {HIDDEN}"),
        ("authorization: basic aGk=\r", f"authorization: basic {HIDDEN}\r"),
        ('WWW-Authenticate: Digest realm="h", nonce="n1"', 'WWW-Authenticate: Digest realm="h", nonce="n1"'),
        ('Authentication-Info: rspauth="x", qop=auth', f"Authentication-Info: rspauth={HIDDEN}, qop=auth"),
        (
            "Identity: eyJ.eyJ.sig;info=<https://h/c.pem>;alg=ES256",
            f"Identity: {HIDDEN};info=<https://h/c.pem>;alg=ES256",
        ),
        ("y: eyJ.eyJ.sig", f"y: {HIDDEN}"),
        ("X-Api-Key: abc", f"X-Api-Key: {HIDDEN}"),
        ("X-Auth: user=1;access_token=abc;b=2", f"X-Auth: user=1;access_token={HIDDEN};b=2"),
        ('{"url": "https://h/?api-key=abc&x=1"}', f'{{"url": "https://h/?api-key={HIDDEN}&x=1"}}'),
        ("From: <sip:a@h>;tag=token", "From: <sip:a@h>;tag=token"),
        ("a=key-mgmt:mikey AQAFgM0XflABAAAA", f"a=key-mgmt:{HIDDEN} {HIDDEN}"),
        ("X-Webhook-Signature: v1,abc\r", f"X-Webhook-Signature: {HIDDEN}\r"),
        (
            "a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:a;inline:b",
            f"a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:{HIDDEN};inline:{HIDDEN}",
        ),
        ("k=clear:geheim\r", f"k=clear:{HIDDEN}\r"),
        ("k=prompt", "k=prompt"),
        ("A=ICE-PWD:geheim", f"A=ICE-PWD:{HIDDEN}"),
        # No line at all.
        ("", ""),
        (":", ":"),
        ("=", "="),
        ("k=", "k="),
    ],
)
def test_line(line: str, masked: str) -> None:
    assert mask_line(line, BOTH) == masked
    assert mask_line(masked, BOTH) == masked
    assert mask_text(line, BOTH) == masked


def test_redactor_masks_alike_and_its_memory_is_bounded() -> None:
    redactor = Redactor(BOTH)
    assert [redactor.text(INVITE) for _ in range(2)] == [mask_text(INVITE, BOTH)] * 2
    assert Redactor(NEITHER).text(INVITE) == INVITE
    for number in range(10_000):
        assert redactor.line(f"To: <tel:+1555{number:07}>") == f"To: <tel:+1555*****{number % 100:02}>"
    assert len(redactor._known) <= 4096
    assert redactor.line("To: " + "x" * 9000) == "To: " + "x" * 9000
    assert max(map(len, redactor._known)) <= 512


FORMS = (
    "+15557654321", "15557654321", "+1 (555) 765-4321", "+1.555.765.4321", "001-555-765-4321", "%2B15557654321",
    "+1555%37654321", "%2b1%35557654321", "5557654321", "(555) 765-4321",
)  # fmt: skip
PLACES = """
From: "{}" <sip:{}@h>;tag=1
From: {} <sip:{}@h>;tag=1
t: <sip:{}@h;user=phone>
Contact: <sip:{}@192.0.2.1:5060;transport=udp>
Contact: sip:{}@192.0.2.1
Contact: sip:pbx-{}@192.0.2.1
P-Asserted-Identity: <tel:{}>
P-Asserted-Identity: tel:{}
Remote-Party-ID: "{}" <sip:{}@h>;party=calling;privacy=off
Diversion: <tel:{}>;reason=no-answer
History-Info: <sip:{}@h?Reason=SIP%3Bcause%3D302>;index=1,<sip:{}@h>;index=1.1
Refer-To: <sip:{}@h?Replaces=a%3Bto-tag%3D1>
Refer-To: <sip:h?X-Number={}>
Referred-By: <sip:{}@h>
INVITE sip:{}@h SIP/2.0
INVITE tel:{} SIP/2.0
INVITE sip:{};phone-context=+1@h;user=phone SIP/2.0
Reason: SIP;cause=404;text="{} unknown"
Warning: 399 h "{} unknown"
SIP/2.0 404 {} not found
X-Number: {}
X-From: {}
X-Ref: <sip:{}@h>
X-Twilio-Params: number={}
Subject: call {}
User-to-User: {};encoding=ascii
P-Charging-Vector: icid-value={};orig-ioi=h
Geolocation: <cid:{}@h>
Alert-Info: <http://h/{}.wav>
Authorization: Digest username="{}", realm="r", nonce="n", uri="sip:{}@h", response="abc"
s=call {}
i=from {}
e={}@example.com (Ann)
p={}
u=http://h/{}
a=x-number:{}
{{"phone": "{}"}}
call me at {}.
""".strip().splitlines()


@pytest.mark.parametrize("number", FORMS)
@pytest.mark.parametrize("place", PLACES)
def test_a_number_is_masked_wherever_it_stands(place: str, number: str) -> None:
    masked = mask_text(place.replace("{{", "{").replace("}}", "}").replace("{}", number), BOTH)
    digits = "".join([char for char in masked.replace("%37", "7").replace("%35", "5") if char.isdecimal()])
    assert "7654" not in digits
    assert "*" in masked
    assert mask_text(masked, BOTH) == masked


@pytest.mark.parametrize(
    ("content_type", "body", "masked"),
    [
        ("application/dtmf-relay", "Signal=5\r\nDuration=160\r\n", "Signal=*\r\nDuration=160\r\n"),
        ("application/dtmf-relay", "signal = #\r\nDuration=160", "signal = *\r\nDuration=160"),
        ("application/dtmf", "5", "*"),
        ("application/dtmf", "4,1,1", "*"),
        ("text/plain", "5", "5"),
    ],
)
def test_what_was_dialled_may_be_a_pin(content_type: str, body: str, masked: str) -> None:
    head = f"INFO sip:a@h SIP/2.0\r\nCSeq: 5 INFO\r\nContent-Type: {content_type}\r\n\r\n"
    assert mask_text(head + body, BOTH) == Redactor(BOTH).text(head + body) == head + masked
    assert mask_text(head + body, NEITHER) == head + body


def test_numbers_in_free_text() -> None:
    text = "1.2.3.4 and 555-0100 100, 7 digits: 5550100, 6: 555010."
    assert mask_free_numbers(text) == "1.2.3.4 and 555-**** *00, 7 digits: *****00, 6: 555010."
    assert mask_free_numbers("1234567890123456789") == "1234*************89"


numbers = st.text("0123456789", min_size=7, max_size=15)
hosts = st.sampled_from(["192.0.2.1", "example.com:5060", "[2001:db8::1]"])
shapes = st.sampled_from(
    [
        "From: <sip:{}@{}>;tag=a1",
        "t: sip:{}@{};tag=a1",
        'P-Asserted-Identity: "x" <sip:+{}@{};user=phone>',
        "INVITE sip:{}@{} SIP/2.0",
        "Refer-To: <tel:{}>, <sip:{}>",
        "Diversion: <sip:%2B{}@{}>;reason=no-answer",
        "X-Anything: sips:{}@{}",
    ]
)


@given(numbers, hosts, shapes)
def test_no_number_survives_and_equal_numbers_stay_equal(number: str, host: str, shape: str) -> None:
    line = shape.format(number, host)
    masked = mask_text(line, BOTH)
    assert number not in masked
    assert masked == shape.format(mask_number(number), host)
    assert number[-2:] in masked


@given(st.text())
def test_any_text_keeps_its_lines_and_masking_again_changes_nothing(text: str) -> None:
    masked = mask_text(text, BOTH)
    assert masked.count("\n") == text.count("\n")
    assert masked.count("\r") <= text.count("\r")
    assert mask_text(masked, BOTH) == masked
    assert mask_text(text, NEITHER) == text


FRAGMENTS = """
sip: sips: tel: + %2B 1 5550100002 555-010-0002 15550100002 (555) * # @ example.com :5060 ; tag= branch= response= "
< > , = : From: To: Call-ID: Via: Authorization: Digest Identity: X-Number: a= k= p= o= inline: user \\
""".split()
PIECES = st.lists(st.sampled_from([*FRAGMENTS, " ", "\r\n", "\r\n ", "\n"]), max_size=20).map("".join)


@given(PIECES)
def test_any_mixture_is_masked_once_and_for_all(text: str) -> None:
    masked = mask_text(text, BOTH)
    assert Redactor(BOTH).text(text) == masked
    assert mask_text(masked, BOTH) == masked
    assert masked.count("\n") == text.count("\n")
    assert sum(map(str.isdigit, masked)) <= sum(map(str.isdigit, text))


@pytest.mark.parametrize("settings", [BOTH, NUMBERS_ONLY, SECRETS_ONLY])
@given(PIECES)
@example("<sip:+15550100002@h>;tag=+15550100002")
@example("sip:a;sip:+15550100002@h")
@example("SIP:b@h sip:15550100002@h")
@example("<sip:user15550100002@h>")
def test_the_short_way_of_most_addresses_masks_as_the_long_one(settings: Redaction, text: str) -> None:
    short = _mask_one_uri(text, settings)
    assert short is None or short == _mask_any(text, settings)
    assert _mask_one_uri("<sip:+15550100002@h>;tag=x", settings) is not None


@given(
    st.sampled_from(["Call-ID", "CSeq", "v", "X-Twilio-CallSid", "Content-Length", "Session-ID"]), st.text(max_size=60)
)
def test_opaque_headers_stay_as_they_are(name: str, value: str) -> None:
    line = f"{name}: {value}".replace("\n", " ")
    assert mask_line(line, BOTH) == line


def test_time_grows_with_the_length_only() -> None:
    hostile = [
        "From: " + "sip:" * 20_000,
        "From: " + "sip:" + "1" * 60_000,
        "X: " + "+1 " * 20_000,
        "From: " + '"' * 60_000,
        "Authorization: Digest " + "response" * 8_000,
        "From: " + "1 (" * 20_000 + "<",
        "a=crypto:" + "inline:" * 9_000,
        "X: " + "1-" * 30_000 + "a",
        "X: " + "1.1.1." * 10_000,
        "X: " + "%31" * 20_000 + "%3",
        "X: " + "token=" * 10_000,
        "X: " + "ab-" * 20_000,
        "Content-Type: application/dtmf\r\n\r\n" + "1" * 60_000 + "x",
    ]
    begun = time.perf_counter()
    for text in hostile:
        mask_text(text, BOTH)
    assert time.perf_counter() - begun < 3
