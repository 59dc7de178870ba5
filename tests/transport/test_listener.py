"""Listeners as settings write them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.transport import Listener, parse_listener


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("udp:127.0.0.1:5060", Listener("udp", "127.0.0.1", 5060)),
        ("TCP:0.0.0.0:0", Listener("tcp", "0.0.0.0", 0)),
        (" tls:[::]:5061 ", Listener("tls", "::", 5061)),
        ("udp:localhost:65535", Listener("udp", "localhost", 65535)),
    ],
)
def test_listener_is_parsed(text: str, expected: Listener) -> None:
    assert parse_listener(text) == expected
    assert parse_listener(str(expected)) == expected


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("5060", "expected transport:address:port"),
        ("sctp:127.0.0.1:5060", "allowed: udp, tcp, tls"),
        ("udp:127.0.0.1", "expected transport:address:port"),
        ("udp::5060", "expected transport:address:port"),
        ("udp:127.0.0.1:", "'' is no port"),
        ("udp:127.0.0.1:70000", "'70000' is no port"),
        ("udp:127.0.0.1:sip", "'sip' is no port"),
        ("tls:::5061", "needs brackets"),
        ("tls:[::]", "needs brackets"),
        ("tls:[127.0.0.1]:5061", "is no IPv6 address"),
        ("udp:a b:5060", "expected transport:address:port"),
    ],
)
def test_mistake_is_named(text: str, part: str) -> None:
    with pytest.raises(ValueError, match="listener ") as caught:
        parse_listener(text)
    assert part in str(caught.value)
    assert repr(text) in str(caught.value)


@given(st.text(alphabet="udptcls:[]0123456789. abc", max_size=30))
def test_any_text_parses_or_is_refused(text: str) -> None:
    try:
        listener = parse_listener(text)
    except ValueError:
        return
    assert parse_listener(str(listener)) == listener


@pytest.mark.parametrize(
    ("listener", "public", "expected"),
    [
        (Listener("udp", "0.0.0.0", 0), "203.0.113.7", "203.0.113.7:5070"),
        (Listener("udp", "10.0.0.5", 0), "203.0.113.7", "203.0.113.7:5070"),
        (Listener("udp", "10.0.0.5", 0), None, "10.0.0.5:5070"),
        (Listener("udp", "127.0.0.1", 0), "203.0.113.7", "127.0.0.1:5070"),
        (Listener("udp", "::", 0), "2001:db8::7", "[2001:db8::7]:5070"),
        (Listener("udp", "::1", 0), None, "[::1]:5070"),
        (Listener("udp", "10.0.0.5", 0, "sip.example.com", 5060), "203.0.113.7", "sip.example.com:5060"),
        (Listener("udp", "10.0.0.5", 0, "[2001:db8::1]"), None, "[2001:db8::1]:5070"),
    ],
)
def test_advertised_address(listener: Listener, public: str | None, expected: str) -> None:
    assert listener.advertised(5070, public) == expected
