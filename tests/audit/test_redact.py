"""Phone numbers and secrets leave the text, everything else stays."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.audit.redact import HIDDEN, Redaction, Redactor, mask_line, mask_number, mask_text

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
        ('X-Json: {"from":"+15550100002","id":15550100002}', 'X-Json: {"from":"+1555*****02","id":15550100002}'),
        ("X-Caller-Number: 15550100002", "X-Caller-Number: 1555*****02"),
        ("X-Order: 15550100002", "X-Order: 15550100002"),
        ("X-Blob: abc+15550100002/x", "X-Blob: abc+15550100002/x"),
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
    ]
    begun = time.perf_counter()
    for text in hostile:
        mask_text(text, BOTH)
    assert time.perf_counter() - begun < 3
