"""TLS: contexts for both sides, and the proof of a SIP domain by a certificate (RFC 5922)."""

from __future__ import annotations

import ipaddress
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from proxy.sip.errors import SipError
from proxy.sip.uri import parse_uri
from proxy.transport.errors import TlsError, reason_of

__all__ = ["SOUND_CIPHERS", "TlsSettings", "certificate_names", "client_context", "names_match", "server_context"]


SOUND_CIPHERS: Final = "ECDHE+AESGCM:ECDHE+CHACHA20"
"""Forward secrecy and authenticated encryption, nothing else (RFC 9325 section 4.2)."""

_CLIENT_VERIFY: Final[Mapping[str, ssl.VerifyMode]] = MappingProxyType(
    {"none": ssl.CERT_NONE, "optional": ssl.CERT_OPTIONAL, "required": ssl.CERT_REQUIRED}
)


@dataclass(frozen=True, slots=True)
class TlsSettings:
    """Certificates and trust.

    Attributes:
        certificate: PEM file with our certificate and its chain; `tls` listeners need it.
        key: PEM file with its private key.
        ca_file: PEM file with the authorities that targets are verified by; None takes those of the system.
        verify: whether a target must prove its name. False is for tests on loopback only.
        minimum_version: "1.2" or "1.3".
        ciphers: the cipher suites of TLS 1.2 as OpenSSL lists them; those of 1.3 are all sound.
        client_certificates: whether `tls` listeners ask their peers for a certificate: "none", "optional" (one that is
            sent must be good) or "required".
        client_ca_file: PEM file with the authorities of those certificates.
    """

    certificate: Path | None = None
    key: Path | None = None
    ca_file: Path | None = None
    verify: bool = True
    minimum_version: str = "1.2"
    ciphers: str = SOUND_CIPHERS
    client_certificates: str = "none"
    client_ca_file: Path | None = None

    def files(self) -> tuple[Path, ...]:
        """The files that are read."""
        given = (self.certificate, self.key, self.ca_file, self.client_ca_file)
        return tuple(path for path in given if path is not None)


def server_context(settings: TlsSettings) -> ssl.SSLContext:
    """The context of `tls` listeners. Raises TlsError when a file or the list of ciphers can't be used."""
    if settings.certificate is None or settings.key is None:
        raise TlsError("a tls listener needs a certificate and its key (tls.certificate, tls.key)")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    _harden(context, settings)
    _load_certificate(context, settings)
    mode = _CLIENT_VERIFY[settings.client_certificates]
    if mode != ssl.CERT_NONE:
        if settings.client_ca_file is None:
            raise TlsError("client certificates need the authorities that sign them (tls.client_ca_file)")
        _readable(settings.client_ca_file)
        try:
            context.load_verify_locations(settings.client_ca_file)
        except (ssl.SSLError, OSError) as error:
            raise TlsError(f"CA file {settings.client_ca_file} can't be used ({reason_of(error)})") from error
        context.verify_mode = mode
    return context


def _load_certificate(context: ssl.SSLContext, settings: TlsSettings) -> None:
    """Load certificate and key into a context. Raises TlsError."""
    if settings.certificate is None or settings.key is None:
        raise TlsError("no certificate and key to load")
    for path in (settings.certificate, settings.key):
        _readable(path)
    try:
        context.load_cert_chain(settings.certificate, settings.key)
    except (ssl.SSLError, OSError) as error:
        raise TlsError(
            f"certificate {settings.certificate} with key {settings.key} can't be used ({reason_of(error)}): "
            "both must be PEM, and belong to each other"
        ) from error


def client_context(settings: TlsSettings) -> ssl.SSLContext:
    """The context of connections that we open. Raises TlsError when a file or the list of ciphers can't be used.

    A target that asks for our certificate gets the one of the listeners, where there is one.

    OpenSSL verifies the chain; the name is compared by `names_match`, because RFC 5922 section 7.1 lets a certificate
    prove a SIP domain by a URI, which OpenSSL's own check does not know.
    """
    if settings.ca_file is not None:
        _readable(settings.ca_file)
    try:
        context = ssl.create_default_context(cafile=settings.ca_file)
    except (ssl.SSLError, OSError) as error:
        raise TlsError(f"CA file {settings.ca_file} can't be used ({reason_of(error)})") from error
    _harden(context, settings)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_REQUIRED if settings.verify else ssl.CERT_NONE
    if settings.certificate is not None:
        _load_certificate(context, settings)
    return context


def certificate_names(certificate: Mapping[str, Any]) -> tuple[str, ...]:
    """The SIP domains and addresses that a verified certificate (`getpeercert`) stands for (RFC 5922 section 7.1).

    SIP URIs among the alternative names, where there are any; else its DNS names; IP addresses always. The common name
    counts only in a certificate without any alternative name.
    """
    alternatives = [(str(kind), str(value)) for kind, value in certificate.get("subjectAltName", ())]
    addresses = [value for kind, value in alternatives if kind == "IP Address"]
    names = [domain for kind, value in alternatives if kind == "URI" and (domain := _sip_domain(value))]
    if not names:
        names = [value for kind, value in alternatives if kind == "DNS"]
    if not alternatives:
        subject = certificate.get("subject", ())
        names = [str(value) for rdn in subject for key, value in rdn if key == "commonName"]
    return (*names, *addresses)


def names_match(names: tuple[str, ...], wanted: str) -> bool:
    """Whether one of a certificate's names covers the domain that was asked for.

    Names are compared without regard to case. RFC 5922 section 7.2 knows no wildcards; one whole left-most label `*`
    is accepted nevertheless, as Python and browsers do (RFC 6125), since public endpoints use such certificates.
    An IP address needs itself among the names.
    """
    try:
        address = ipaddress.ip_address(wanted.strip("[]"))
    except ValueError:
        pass
    else:
        return any(_same_address(name, address) for name in names)
    wanted = wanted.lower().rstrip(".")
    _, dot, parent = wanted.partition(".")
    wildcard = f"*.{parent}" if dot and "." in parent else None
    return any(name.lower().rstrip(".") in (wanted, wildcard) for name in names)


def check_peer(certificate: Mapping[str, Any], wanted: str) -> None:
    """Raise TlsError, with the names that it does cover, for a certificate that does not prove `wanted`."""
    names = certificate_names(certificate)
    if not names_match(names, wanted):
        valid = ", ".join(names[:5]) or "no name"
        more = f" and {len(names) - 5} more" if len(names) > 5 else ""
        raise TlsError(f"certificate of {wanted} is valid for {valid}{more} only")


def _sip_domain(uri_text: str) -> str:
    """The domain of a SIP URI without a user (RFC 5922 section 7.1), or ""."""
    try:
        uri = parse_uri(uri_text)
    except SipError:
        return ""
    return uri.host if uri.scheme in ("sip", "sips") and uri.user is None else ""


def _same_address(name: str, address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    try:
        return ipaddress.ip_address(name.strip()) == address
    except ValueError:
        return False


def _harden(context: ssl.SSLContext, settings: TlsSettings) -> None:
    """The lowest version and the ciphers; no compression and no renegotiation, which let a peer spend our time."""
    context.minimum_version = ssl.TLSVersion.TLSv1_3 if settings.minimum_version == "1.3" else ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    try:
        context.set_ciphers(settings.ciphers)
    except ssl.SSLError as error:
        raise TlsError(f"tls.ciphers: OpenSSL knows none of {settings.ciphers}") from error


def _readable(path: Path) -> None:
    try:
        with path.open("rb"):
            pass
    except OSError as error:
        raise TlsError(f"{path} can't be read: {reason_of(error)}") from error
