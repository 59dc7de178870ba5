"""Where to listen, as settings write it."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import Final

__all__ = ["Listener", "bracketed", "parse_listener"]

_TRANSPORTS: Final = ("udp", "tcp", "tls")
_FORM: Final = "expected transport:address:port, for example udp:0.0.0.0:5060 or tls:[::]:5061"


@dataclass(frozen=True, slots=True)
class Listener:
    """One address to listen at.

    Attributes:
        transport: "udp", "tcp" or "tls".
        host: an IP address without brackets, or a name of this host.
        port: 0 takes any free port.
        advertised_host: the address or name that peers reach it at; None takes the public address, or `host`.
        advertised_port: the port that peers reach it at; None takes the bound one.
    """

    transport: str
    host: str
    port: int
    advertised_host: str | None = None
    advertised_port: int | None = None

    def __str__(self) -> str:
        return f"{self.transport}:{bracketed(self.host)}:{self.port}"

    def advertised(self, port: int, public_address: str | None) -> str:
        """`host:port` for Via and Contact of a listener that is bound to `port`.

        A listener on loopback speaks of itself, since nobody else reaches it.
        """
        host = self.advertised_host
        if host is None:
            host = self.host if public_address is None or _is_loopback(self.host) else public_address
        return f"{bracketed(host)}:{port if self.advertised_port is None else self.advertised_port}"


def bracketed(host: str) -> str:
    """A host as URIs write it: an IPv6 address in brackets, all else as it is."""
    return f"[{host}]" if ":" in host and not host.startswith("[") else host


def parse_listener(text: str) -> Listener:
    """Parse `transport:address:port`, an IPv6 address in brackets. `[::]` takes IPv6 only, `0.0.0.0` IPv4 only.

    Raises ValueError that says what is wrong and what is expected.
    """
    transport, colon, rest = text.strip().partition(":")
    transport = transport.strip().lower()
    if not colon:
        raise ValueError(f"listener {text!r}: {_FORM}")
    if transport not in _TRANSPORTS:
        raise ValueError(f"listener {text!r}: no transport {transport!r} (allowed: {', '.join(_TRANSPORTS)})")
    host, colon, port_text = rest.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
        try:
            ipaddress.IPv6Address(host)
        except ValueError:
            raise ValueError(f"listener {text!r}: [{host}] is no IPv6 address") from None
    elif ":" in host or (not colon and "[" in rest):
        raise ValueError(f"listener {text!r}: an IPv6 address needs brackets and a port ({_FORM})")
    if not host or not all(ch.isalnum() or ch in "-._:%" for ch in host):
        raise ValueError(f"listener {text!r}: {_FORM}")
    if not port_text.isdigit() or not port_text.isascii() or len(port_text) > 5 or int(port_text) > 65535:
        raise ValueError(f"listener {text!r}: {port_text!r} is no port (0 to 65535)")
    return Listener(transport, host, int(port_text))


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
