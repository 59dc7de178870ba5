"""UDP, TCP and TLS transports, the connection pool and the resolver (asyncio)."""

from proxy.transport.listener import Listener, parse_listener

__all__ = ["Listener", "parse_listener"]
