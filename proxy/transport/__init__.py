"""UDP, TCP and TLS transports, the connection pool and the resolver (asyncio)."""
