"""Lists, CSeq, Via, addresses and display names."""

import pytest

from proxy.sip.errors import SipError
from proxy.sip.headers import (
    NameAddr,
    is_token,
    parse_cseq,
    parse_name_addr,
    parse_via,
    quote_display,
    split_first,
    split_values,
)
from proxy.sip.uri import parse_uri


@pytest.mark.parametrize(
    ("value", "values"),
    [
        ("", [""]),
        ("a", ["a"]),
        ("a,b", ["a", "b"]),
        ("a , b,, c,", ["a", "b", "", "c", ""]),
        ("<sip:a,b@h>, <sip:c@h>", ["<sip:a,b@h>", "<sip:c@h>"]),
        ('"x, y" <sip:a@h>,"z\\", w" <sip:b@h>', ['"x, y" <sip:a@h>', '"z\\", w" <sip:b@h>']),
        ('"<" <sip:a@h>, b', ['"<" <sip:a@h>', "b"]),
        ("x;y=1,z", ["x;y=1", "z"]),
    ],
)
def test_split_values(value: str, values: list[str]) -> None:
    assert split_values(value) == values


@pytest.mark.parametrize("value", ['"a, b', 'a, "b\\"', 'a,"'])
def test_unterminated_quote_in_a_list(value: str) -> None:
    with pytest.raises(SipError):
        split_values(value)


@pytest.mark.parametrize(
    ("value", "number", "method"),
    [
        ("1 INVITE", 1, "INVITE"),
        ("0009   ACK", 9, "ACK"),
        ("0 BYE", 0, "BYE"),
        ("7\tX-%47!", 7, "X-%47!"),
        ("2147483647 INVITE", 2**31 - 1, "INVITE"),
        ("00000000000000000001 INVITE", 1, "INVITE"),
        ("000000000000 INVITE", 0, "INVITE"),
    ],
)
def test_cseq(value: str, number: int, method: str) -> None:
    cseq = parse_cseq(value)
    assert (cseq.number, cseq.method) == (number, method)
    assert str(cseq) == f"{number} {method}"


@pytest.mark.parametrize(
    "value",
    [
        "",
        "1",
        "INVITE",
        "INVITE 1",
        "1 INVITE x",
        "-1 INVITE",
        "+1 INVITE",
        "1.0 INVITE",
        "1_0 INVITE",
        "٣ INVITE",
        "² INVITE",
        "1 IN(VITE",
        "2147483648 INVITE",
        "36893488147419103232 INVITE",
        f"{'9' * 5000} INVITE",
    ],
)
def test_malformed_cseq(value: str) -> None:
    with pytest.raises(SipError) as caught:
        parse_cseq(value)
    assert caught.value.status == 400


@pytest.mark.parametrize(
    ("value", "transport", "host", "port", "branch", "text"),
    [
        ("SIP/2.0/UDP h", "UDP", "h", None, "", "SIP/2.0/UDP h"),
        ("SIP/2.0/tls h:5061;branch=b", "TLS", "h", 5061, "b", "SIP/2.0/TLS h:5061;branch=b"),
        ("sip / 2.0 / udp  h : 1 ; Branch = b", "UDP", "h", 1, "b", "SIP/2.0/UDP h:1;Branch=b"),
        ("SIP/2.0/ TCP h", "TCP", "h", None, "", "SIP/2.0/TCP h"),
        ("SIP/2.0/UDP\th;branch", "UDP", "h", None, "", "SIP/2.0/UDP h;branch"),
        ("SIP/2.0/TLS-SCTP [::1]:5060", "TLS-SCTP", "[::1]", 5060, "", "SIP/2.0/TLS-SCTP [::1]:5060"),
        ("SIP/2.0/UDP h;rport;branch=b;", "UDP", "h", None, "b", "SIP/2.0/UDP h;rport;branch=b"),
    ],
)
def test_via(value: str, transport: str, host: str, port: int | None, branch: str, text: str) -> None:
    via = parse_via(value)
    assert (via.transport, via.host, via.port, via.branch) == (transport, host, port, branch)
    assert str(via) == text


@pytest.mark.parametrize(
    ("value", "status"),
    [
        ("", 400),
        ("x", 400),
        ("SIP/2.0", 400),
        ("SIP/2.0/UDP", 400),
        ("SIP/2.0/UDP ", 400),
        ("SIP/2.0/U(P h", 400),
        ("SIP/2.0 h", 400),
        ("HTTP/2.0/UDP h", 400),
        ("SIP/7.0/UDP h", 505),
        ("SIP/2.0/UDP ;branch=b", 400),
        ("SIP/2.0/UDP a b", 400),
        ("SIP/2.0/UDP h:x", 400),
        ("SIP/2.0/UDP 2001:db8::1", 400),
        ("SIP/2.0/UDP h;;", 400),
        ("SIP/2.0/UDP h;;branch=b", 400),
    ],
)
def test_malformed_via(value: str, status: int) -> None:
    with pytest.raises(SipError) as caught:
        parse_via(value)
    assert caught.value.status == status


def test_via_params_and_sent_by() -> None:
    via = parse_via("SIP/2.0/UDP EXAMPLE.com:5060;RPORT;received=192.0.2.1;branch=z9hG4bK1")
    assert via.sent_by == "example.com:5060"
    assert via.param("rport") == ""
    assert via.param("ttl") is None
    other = via.with_params((("branch", "z"),))
    assert (other.branch, str(other)) == ("z", "SIP/2.0/UDP EXAMPLE.com:5060;branch=z")
    assert parse_via("SIP/2.0/UDP [2001:DB8::1]").sent_by == "[2001:db8::1]"


@pytest.mark.parametrize(
    ("value", "display", "uri", "params", "text"),
    [
        ("<sip:a@h>", "", "sip:a@h", (), "<sip:a@h>"),
        ("sip:a@h", "", "sip:a@h", (), "<sip:a@h>"),
        ("sip:a@h ; tag = x", "", "sip:a@h", (("tag", "x"),), "<sip:a@h>;tag=x"),
        ("<sip:a@h;lr>;tag=x", "", "sip:a@h;lr", (("tag", "x"),), "<sip:a@h;lr>;tag=x"),
        ("<sip:a@h> ; tag=x", "", "sip:a@h", (("tag", "x"),), "<sip:a@h>;tag=x"),
        ("< sip:a@h >", "", "sip:a@h", (), "<sip:a@h>"),
        ("Bob<sip:a@h>", "Bob", "sip:a@h", (), "Bob <sip:a@h>"),
        ("Bob  J.  <sip:a@h>", "Bob  J.", "sip:a@h", (), "Bob  J. <sip:a@h>"),
        ('"Bob, \\"B\\" <x>" <sip:a@h>', '"Bob, \\"B\\" <x>"', "sip:a@h", (), '"Bob, \\"B\\" <x>" <sip:a@h>'),
        ('""<sip:a@h>', '""', "sip:a@h", (), '"" <sip:a@h>'),
        ('"\\\\"<sip:a@h>', '"\\\\"', "sip:a@h", (), '"\\\\" <sip:a@h>'),
        ("Jörg (Büro) <sip:a@h>", "Jörg (Büro)", "sip:a@h", (), '"Jörg (Büro)" <sip:a@h>'),
        ('<sip:a@h>;x="<;,>"', "", "sip:a@h", (("x", '"<;,>"'),), '<sip:a@h>;x="<;,>"'),
        ("<sip:a@h>;", "", "sip:a@h", (), "<sip:a@h>"),
        ("<sip:a,b@h?x=y>", "", "sip:a,b@h?x=y", (), "<sip:a,b@h?x=y>"),
        ("tel:+1555;tag=x", "", "tel:+1555", (("tag", "x"),), "<tel:+1555>;tag=x"),
    ],
)
def test_name_addr(value: str, display: str, uri: str, params: tuple[tuple[str, str | None], ...], text: str) -> None:
    address = parse_name_addr(value)
    assert (address.display, address.uri_text, address.params) == (display, uri, params)
    assert str(address) == text
    assert str(parse_name_addr(text)) == text


@pytest.mark.parametrize(
    "value",
    [
        "",
        ";tag=x",
        "<>",
        "< >",
        "<sip:a@h",
        "<sip:a@h>x",
        "<sip:a@h> <sip:b@h>",
        '"Bob <sip:a@h>',
        '"Bob\\" <sip:a@h>',
        '"Bob" sip:a@h',
        '"Bob" x <sip:a@h>',
        '"Bob"',
        'Bob "B" <sip:a@h>',
        "Bell, Alexander <sip:a@h>",
        "sip:a@h?x=y",
        "sip:a,b@h",
        "sip:a@h;x=y>",
        "<sip:a@h>;;",
        '<sip:a@h>;x="y',
    ],
)
def test_malformed_address(value: str) -> None:
    with pytest.raises(SipError) as caught:
        parse_name_addr(value)
    assert caught.value.status == 400


def test_address_views() -> None:
    address = parse_name_addr('"B" <sip:a@h>;Tag=x;q')
    assert (address.tag, address.param("q"), address.param("z")) == ("x", "", None)
    assert address.uri.user == "a"
    assert address.uri is address.uri
    other = address.replace(uri_text="sip:b@i", params=(("tag", "y"),))
    assert str(other) == '"B" <sip:b@i>;tag=y'
    assert other.uri.user == "b"
    assert str(address.replace(display="")) == "<sip:a@h>;Tag=x;q"
    with pytest.raises(SipError):
        _ = parse_name_addr("<nothing>").uri


def test_a_uri_is_shared_only_with_the_same_text() -> None:
    uri = parse_uri("sip:a@h")
    same, other = NameAddr("", "sip:a@h"), NameAddr("", "sip:a@H")
    same.share_uri(uri)
    other.share_uri(uri)
    assert same.uri is uri
    assert other.uri is not uri


@pytest.mark.parametrize(
    ("text", "quoted"),
    [
        ("", ""),
        ("Bob", "Bob"),
        ("Bob's  Bar", "Bob's  Bar"),
        ('"Bob, B"', '"Bob, B"'),
        ("Bob, B", '"Bob, B"'),
        ('"', '"\\""'),
        ('"a', '"\\"a"'),
        ('"a"b"', '"\\"a\\"b\\""'),
        ('"a\\"', '"\\"a\\\\\\""'),
        ("a\\", '"a\\\\"'),
        ("x <sip:evil@h>", '"x <sip:evil@h>"'),
        ("é", '"é"'),
    ],
)
def test_display_name_is_quoted_where_it_must_be(text: str, quoted: str) -> None:
    assert quote_display(text) == quoted
    if quoted:
        assert parse_name_addr(f"{quoted} <sip:a@h>;tag=x").tag == "x"


@pytest.mark.parametrize("text", ["a", "INVITE", "X-Twilio-CallSid", "-.!%*_+`'~", "1", "a-.b"])
def test_token(text: str) -> None:
    assert is_token(text)


@pytest.mark.parametrize("text", ["", " ", "a b", "a:", "é", "٣", "²", "a\r\n", "(", '"', "<", "@", "a/b", "\x00"])
def test_no_token(text: str) -> None:
    assert not is_token(text)


@pytest.mark.parametrize(
    ("value", "first", "rest"),
    [
        ("a", "a", ""),
        ("a , b,c", "a", "b,c"),
        ('"x, y" <sip:a,b@h> ,<sip:c@h>', '"x, y" <sip:a,b@h>', "<sip:c@h>"),
        ("<a,b>", "<a,b>", ""),
        ("<a,b", "<a,b", ""),
        (",", "", ""),
    ],
)
def test_split_first(value: str, first: str, rest: str) -> None:
    assert split_first(value) == (first, rest)


def test_split_first_with_an_unterminated_quote() -> None:
    with pytest.raises(SipError):
        split_first('"a, b')
