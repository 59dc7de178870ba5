"""Which names a certificate proves (RFC 5922), and what is said about files that can't be used."""

from pathlib import Path
from typing import Any

import pytest

from proxy.transport.errors import TlsError
from proxy.transport.tls import (
    TlsSettings,
    certificate_names,
    check_peer,
    client_context,
    names_match,
    server_context,
)

CN = ((("commonName", "cn.example.com"),),)


@pytest.mark.parametrize(
    ("certificate", "expected"),
    [
        ({"subject": CN, "subjectAltName": (("DNS", "a.example"), ("DNS", "b.example"))}, ("a.example", "b.example")),
        ({"subject": CN, "subjectAltName": (("URI", "sip:a.example"), ("DNS", "b.example"))}, ("a.example",)),
        ({"subjectAltName": (("URI", "SIP:A.example"),)}, ("A.example",)),
        ({"subjectAltName": (("URI", "sip:user@a.example"), ("DNS", "b.example"))}, ("b.example",)),
        ({"subjectAltName": (("URI", "https://a.example/"), ("DNS", "b.example"))}, ("b.example",)),
        ({"subjectAltName": (("IP Address", "192.0.2.1"), ("DNS", "b.example"))}, ("b.example", "192.0.2.1")),
        ({"subject": CN}, ("cn.example.com",)),
        ({"subject": CN, "subjectAltName": (("email", "a@b.example"),)}, ()),
        ({}, ()),
    ],
)
def test_names_of_a_certificate(certificate: dict[str, Any], expected: tuple[str, ...]) -> None:
    assert certificate_names(certificate) == expected


@pytest.mark.parametrize(
    ("name", "wanted", "match"),
    [
        ("sip.example.com", "sip.example.com", True),
        ("SIP.example.COM", "sip.Example.com.", True),
        ("sip.example.com", "example.com", False),
        ("example.com", "sip.example.com", False),
        ("*.example.com", "sip.example.com", True),
        ("*.example.com", "a.sip.example.com", False),
        ("*.example.com", "example.com", False),
        ("s*.example.com", "sip.example.com", False),
        ("*.com", "example.com", False),
        ("*", "example", False),
        ("*", "*", True),
        ("192.0.2.1", "192.0.2.1", True),
        ("192.0.2.1", "192.0.2.2", False),
        ("*.0.2.1", "192.0.2.1", False),
        ("2001:DB8:0:0:0:0:0:1", "2001:db8::1", True),
        ("2001:db8::1", "[2001:db8::1]", True),
        ("sip.example.com", "192.0.2.1", False),
    ],
)
def test_match(name: str, wanted: str, match: bool) -> None:
    assert names_match((name,), wanted) is match
    assert names_match(("other.example", name), wanted) is match
    assert not names_match((), wanted)


def test_mismatch_names_what_the_certificate_is_for() -> None:
    certificate = {"subjectAltName": tuple(("DNS", f"h{number}.example") for number in range(7))}
    check_peer(certificate, "h3.example")
    with pytest.raises(TlsError) as caught:
        check_peer(certificate, "sip.example.com")
    assert str(caught.value) == (
        "certificate of sip.example.com is valid for h0.example, h1.example, h2.example, h3.example, h4.example "
        "and 2 more only"
    )
    with pytest.raises(TlsError, match="is valid for no name only"):
        check_peer({}, "sip.example.com")


def test_files_that_can_not_be_used_are_named(tmp_path: Path, tls: TlsSettings) -> None:
    junk = tmp_path / "junk.crt"
    junk.write_text("not PEM")
    gone = tmp_path / "gone.crt"
    with pytest.raises(TlsError, match=r"tls\.certificate"):
        server_context(TlsSettings())
    with pytest.raises(TlsError, match=r"gone\.crt can't be read: no such file or directory"):
        server_context(TlsSettings(certificate=gone, key=tls.key))
    with pytest.raises(TlsError, match=r"junk\.crt with key .* can't be used \(.*\): both must be PEM"):
        server_context(TlsSettings(certificate=junk, key=tls.key))
    with pytest.raises(TlsError, match=r"CA file .*junk\.crt can't be used"):
        client_context(TlsSettings(ca_file=junk))
    with pytest.raises(TlsError, match=r"gone\.crt can't be read"):
        client_context(TlsSettings(ca_file=gone))


def test_old_versions_are_not_spoken(tls: TlsSettings) -> None:
    assert server_context(tls).minimum_version.name == "TLSv1_2"
    assert client_context(tls).minimum_version.name == "TLSv1_2"
    newest = TlsSettings(certificate=tls.certificate, key=tls.key, minimum_version="1.3")
    assert server_context(newest).minimum_version.name == "TLSv1_3"
    assert client_context(newest).minimum_version.name == "TLSv1_3"
