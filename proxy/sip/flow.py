"""Where bytes come from and go to, as the core sees it: flows and hops, without a socket."""

from __future__ import annotations

__all__ = ["Flow", "Hop"]


class Hop:
    """One address to reach a next element at, as RFC 3263 resolution gives it; compared by value.

    Attributes:
        transport: "udp", "tcp" or "tls".
        host: an IP address literal without brackets.
        port: the port.
        server_name: for TLS the domain that the certificate must prove (RFC 5922) and that SNI carries; else "".
    """

    __slots__ = ("host", "port", "server_name", "transport")

    def __init__(self, transport: str, host: str, port: int, server_name: str = "") -> None:
        self.transport = transport
        self.host = host
        self.port = port
        self.server_name = server_name

    def key(self) -> tuple[str, str, int, str]:
        """The hop as a plain tuple, for dictionaries."""
        return (self.transport, self.host, self.port, self.server_name)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Hop) and self.key() == other.key()

    def __hash__(self) -> int:
        return hash(self.key())

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.transport}:{host}:{self.port}"

    def __repr__(self) -> str:
        return str(self)


class Flow:
    """A path to one remote address: a connection, or a UDP socket with a peer's address (RFC 5626 section 3).

    Compared by identity. Transports make flows and keep what they need for sending in `handle`.

    Attributes:
        transport: "udp", "tcp" or "tls".
        local: (IP address, port) on our side.
        remote: (IP address, port) of the peer.
        advertised: `host:port` that peers reach us at over this transport; goes into Via and Contact.
        reliable: whether the transport retransmits by itself.
        closed: set once nothing can be sent any more.
        listener: the name of the listener that the flow came in by, or "" for a connection that we opened.
        server_name: for a TLS connection that we opened, the domain that the peer proved.
    """

    __slots__ = (
        "advertised",
        "closed",
        "handle",
        "listener",
        "local",
        "reliable",
        "remote",
        "server_name",
        "transport",
    )

    def __init__(
        self,
        transport: str,
        local: tuple[str, int],
        remote: tuple[str, int],
        advertised: str,
        listener: str = "",
        server_name: str = "",
        handle: object = None,
    ) -> None:
        self.transport = transport
        self.local = local
        self.remote = remote
        self.advertised = advertised
        self.reliable = transport != "udp"
        self.closed = False
        self.listener = listener
        self.server_name = server_name
        self.handle = handle

    def __str__(self) -> str:
        host, port = self.remote
        return f"{self.transport}:[{host}]:{port}" if ":" in host else f"{self.transport}:{host}:{port}"

    def __repr__(self) -> str:
        return str(self)
