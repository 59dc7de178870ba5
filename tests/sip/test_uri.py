"""URIs, their parts and their escapes."""

import pytest

from proxy.sip.errors import SipError
from proxy.sip.uri import Uri, parse_params, parse_uri, render_params, split_host_port, unescape


@pytest.mark.parametrize(
    ("text", "scheme", "user", "password", "host", "port", "params", "headers"),
    [
        ("sip:example.com", "sip", None, None, "example.com", None, (), None),
        ("SIPS:bob@example.com:5061", "sips", "bob", None, "example.com", 5061, (), None),
        ("sip:bob:secret@192.0.2.1", "sip", "bob", "secret", "192.0.2.1", None, (), None),
        ("sip:bob:@192.0.2.1", "sip", "bob", "", "192.0.2.1", None, (), None),
        ("sip:[2001:db8::1]:5070;lr", "sip", None, None, "[2001:db8::1]", 5070, (("lr", None),), None),
        ("sip:a@h;transport=tls;lr=", "sip", "a", None, "h", None, (("transport", "tls"), ("lr", "")), None),
        ("sip:a;x=1;y@h;z", "sip", "a;x=1;y", None, "h", None, (("z", None),), None),
        ("sip:a?b/c@h", "sip", "a?b/c", None, "h", None, (), None),
        ("sip:a%40b%20c@h", "sip", "a%40b%20c", None, "h", None, (), None),
        ("sip:h?Subject=x&To=a%40b", "sip", None, None, "h", None, (), "Subject=x&To=a%40b"),
        ("sip:h;a=b?c=d", "sip", None, None, "h", None, (("a", "b"),), "c=d"),
        ("sip:a_b.example.com", "sip", None, None, "a_b.example.com", None, (), None),
        ("sip:xn--bcher-kva.example.", "sip", None, None, "xn--bcher-kva.example.", None, (), None),
        ("sip:jörg@example.com", "sip", "jörg", None, "example.com", None, (), None),
        ("sip:j\udcffrg@example.com", "sip", "j\udcffrg", None, "example.com", None, (), None),
        ("sip:a@h;x", "sip", "a", None, "h", None, (("x", None),), None),
        ("tel:+1-555-0100", "tel", "+1-555-0100", None, "", None, (), None),
        (
            "tel:7042;phone-context=example.com",
            "tel",
            "7042",
            None,
            "",
            None,
            (("phone-context", "example.com"),),
            None,
        ),
    ],
)
def test_uri(
    text: str,
    scheme: str,
    user: str | None,
    password: str | None,
    host: str,
    port: int | None,
    params: tuple[tuple[str, str | None], ...],
    headers: str | None,
) -> None:
    uri = parse_uri(text)
    assert (uri.scheme, uri.user, uri.password, uri.host) == (scheme, user, password, host)
    assert (uri.port, uri.params, uri.headers) == (port, params, headers)
    assert str(uri) == text
    assert str(uri.replace()) == scheme + text[len(scheme) :]


def test_one_semicolon_too_many_at_the_end_is_forgiven() -> None:
    uri = parse_uri("sip:a@h;x=1;")
    assert uri.params == (("x", "1"),)
    assert str(uri) == "sip:a@h;x=1;"
    assert str(uri.replace()) == "sip:a@h;x=1"


@pytest.mark.parametrize(
    "text", ["urn:service:sos", "http://www.example.com/a?b", "soap.beep://192.0.2.103:3002", "mailto:"]
)
def test_other_schemes_stay_whole(text: str) -> None:
    uri = parse_uri(text)
    scheme, _, rest = text.partition(":")
    assert (uri.scheme, uri.opaque, uri.host, uri.user) == (scheme, rest, "", None)
    assert str(uri.replace()) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "sip",
        "sip:",
        ":a@h",
        "a@h",
        "a@h:5060",
        "1sip:a@h",
        "s ip:a@h",
        "sip:@h",
        "sip:a@",
        "sip:a@h@i",
        "sip:a b@h",
        "sip:<a@h",
        "sip:a@h>",
        'sip:"a"@h',
        "sip:a@h\t",
        "sip:a@h\r\nVia: x",
        "sip:a\x00@h",
        "sip:a\x1b[2J@h",
        "sip:a\x7f@h",
        "sip:a@h:",
        "sip:a@h:70000",
        "sip:a@h:123456",
        "sip:a@h:-1",
        "sip:a@h:٥٠٦٠",
        "sip:a@h:50x0",
        "sip:a@hö.example",
        "sip:a@h/x",
        "sip:a@.",
        "sip:a@-",
        "sip:2001:db8::10",
        "sip:[2001:db8::10",
        "sip:[2001:db8::10]x",
        "sip:[2001:db8::g]",
        "sip:[12]",
        "sip:[]",
        "sip:[fe80::1%25eth0]",
        "sip:[٢٠٠١::1]",
        "sip:h;;lr",
        "sip:h;;",
        "sip:h;=x",
        'sip:h;x="y',
        "tel:",
        "tel:;x=y",
    ],
)
def test_uri_that_can_not_be_understood_is_refused(text: str) -> None:
    with pytest.raises(SipError) as caught:
        parse_uri(text)
    assert caught.value.status == 400


def test_param_is_found_in_any_case_first_one_first() -> None:
    uri = parse_uri("sip:h;Transport=TLS;LR;transport=udp")
    assert uri.param("transport") == "TLS"
    assert uri.param("lr") == ""
    assert uri.param("maddr") is None


def test_replace() -> None:
    uri = parse_uri("sip:bob:secret@192.0.2.1:5070;transport=udp?x=y")
    assert str(uri.replace(host="example.com")) == "sip:bob:secret@example.com:5070;transport=udp?x=y"
    assert str(uri.replace(port=None)) == "sip:bob:secret@192.0.2.1;transport=udp?x=y"
    assert str(uri.replace(user="carol")) == "sip:carol@192.0.2.1:5070;transport=udp?x=y"
    assert str(uri.replace(user="", params=())) == "sip:192.0.2.1:5070?x=y"
    assert str(uri.replace(scheme="sips")) == "sips:bob:secret@192.0.2.1:5070;transport=udp?x=y"
    assert str(parse_uri("tel:+15550100").replace(scheme="sip", host="h")) == "sip:+15550100@h"


def test_duplicate_params() -> None:
    uri = parse_uri("sip:h;transport=tls;Transport=tls;x;X=1")
    assert str(uri.without_duplicate_params()) == "sip:h;transport=tls;x"
    single = parse_uri("sip:h;transport=tls")
    assert single.without_duplicate_params() is single


def test_built_uri() -> None:
    assert str(Uri("sip", "a", "[::1]", 5060, (("lr", None),))) == "sip:a@[::1]:5060;lr"
    assert repr(Uri("tel", "+1", "")) == "Uri('tel:+1')"


@pytest.mark.parametrize(
    ("text", "params"),
    [
        ("", ()),
        ("a", (("a", None),)),
        ("a=", (("a", ""),)),
        (" a = b ; c ", (("a", "b"), ("c", None))),
        ("a=b=c", (("a", "b=c"),)),
        ('a="x;y=\\"z";b', (("a", '"x;y=\\"z"'), ("b", None))),
        ("a;a=1;A=2", (("a", None), ("a", "1"), ("A", "2"))),
        ("a;", (("a", None),)),
        (" ", ()),
    ],
)
def test_params(text: str, params: tuple[tuple[str, str | None], ...]) -> None:
    assert parse_params(text) == params
    assert parse_params(render_params(params)[1:]) == params


@pytest.mark.parametrize("text", [";", ";a", "a;;b", "a;;", "=", "=b", "a;=b", 'a="b', 'a="b\\"', ";;,;,,", ";="])
def test_malformed_params(text: str) -> None:
    with pytest.raises(SipError):
        parse_params(text)


def test_too_many_params() -> None:
    assert len(parse_params(";".join(["a"] * 256))) == 256
    with pytest.raises(SipError, match="Too many"):
        parse_params(";".join(["a"] * 257))


@pytest.mark.parametrize(
    ("text", "pair"),
    [
        ("h", ("h", None)),
        (" h : 5060 ", ("h", 5060)),
        ("192.0.2.1:0", ("192.0.2.1", 0)),
        ("h:00080", ("h", 80)),
        ("[::1] : 65535", ("[::1]", 65535)),
        ("[::ffff:192.0.2.1]", ("[::ffff:192.0.2.1]", None)),
        ("[2001:db8:::192.0.2.1]", ("[2001:db8:::192.0.2.1]", None)),
    ],
)
def test_host_and_port(text: str, pair: tuple[str, int | None]) -> None:
    assert split_host_port(text) == pair


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("", ""),
        ("+1555", "+1555"),
        ("%2B1555", "+1555"),
        ("a%25%34%31", "a%41"),
        ("%", "%"),
        ("%4", "%4"),
        ("%zz%41", "%zzA"),
        ("%e2%82%AC", "€"),
        ("%ff", "\udcff"),
        ("é%20é", "é é"),
        ("%00", "\x00"),
        ("%+1%²1", "%+1%²1"),
    ],
)
def test_unescape(text: str, plain: str) -> None:
    assert unescape(text) == plain
