"""What goes wrong at the edge; every text is one line for an operator."""

from __future__ import annotations

import os
import socket
import ssl

__all__ = ["ListenError", "ResolveError", "TlsError", "reason_of"]


class ListenError(Exception):
    """A listener that can't be opened: `udp:127.0.0.1:5060: address already in use`."""


class TlsError(Exception):
    """Certificates or keys that can't be used, or a peer's certificate that proves another name."""


class ResolveError(Exception):
    """A URI without an address to reach it at."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def reason_of(error: BaseException) -> str:
    """A short text for an error of a socket, of TLS or of a time limit."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"certificate refused: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        reason = error.reason or str(error)
        return f"TLS: {reason.replace('_', ' ').lower()}"
    if isinstance(error, TimeoutError) and error.errno is None:
        return str(error) or "timed out"
    if isinstance(error, socket.gaierror):
        return str(error.strerror)
    if isinstance(error, OSError) and error.errno is not None:
        # asyncio wraps the system's text into one that names the address, which callers say better.
        return os.strerror(error.errno).lower()
    return str(error) or type(error).__name__
