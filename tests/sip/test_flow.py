"""Hops and flows."""

from proxy.sip.flow import Flow, Hop


def test_hops_are_values() -> None:
    hop = Hop("tls", "192.0.2.1", 5061, "sip.example.com")
    assert hop == Hop("tls", "192.0.2.1", 5061, "sip.example.com")
    assert hop != Hop("tls", "192.0.2.1", 5061, "other.example.com")
    assert hop != ("tls", "192.0.2.1", 5061, "sip.example.com")
    assert {hop: 1}[Hop("tls", "192.0.2.1", 5061, "sip.example.com")] == 1
    assert str(hop) == "tls:192.0.2.1:5061"
    assert repr(Hop("udp", "2001:db8::1", 5060)) == "udp:[2001:db8::1]:5060"


def test_flows_are_identities() -> None:
    first = Flow("udp", ("192.0.2.1", 5060), ("192.0.2.2", 5060), "192.0.2.1:5060", "main")
    second = Flow("udp", ("192.0.2.1", 5060), ("192.0.2.2", 5060), "192.0.2.1:5060", "main")
    assert first != second
    assert (first.reliable, first.closed, first.listener, str(first)) == (False, False, "main", "udp:192.0.2.2:5060")
    secure = Flow("tls", ("::1", 1), ("2001:db8::2", 5061), "h:5061", server_name="h")
    assert (secure.reliable, repr(secure)) == (True, "tls:[2001:db8::2]:5061")
