"""A TCP or TLS connection of a test, over which SIP messages go, with calls that wait."""

from __future__ import annotations

import socket
import ssl

from proxy.sip.message import Message, Request, Response
from proxy.sip.parser import StreamFramer, parse_message

__all__ = ["Line"]


class Line:
    """One connection, over which messages go."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._socket.settimeout(40)
        self._framer = StreamFramer()
        self._messages: list[Message] = []

    def close(self) -> None:
        self._socket.close()

    def send(self, start: str, headers: list[str], body: str = "") -> None:
        length = f"Content-Length: {len(body)}"
        typed = ["Content-Type: application/sdp"] if body else []
        self._socket.sendall("\r\n".join([start, *headers, *typed, length, "", body]).encode())

    def next(self) -> Message | None:
        """The next message; None when the connection has ended."""
        while not self._messages:
            try:
                data = self._socket.recv(65_536)
            except (ConnectionError, ssl.SSLError):
                return None
            if not data:
                return None
            self._messages += [parse_message(item) for item in self._framer.feed(data)]
        return self._messages.pop(0)

    def final(self) -> Response:
        """The next final response."""
        while True:
            message = self.next()
            assert message is not None
            if isinstance(message, Response) and message.status >= 200:
                return message

    def request(self) -> Request:
        """The next request."""
        while True:
            message = self.next()
            assert message is not None
            if isinstance(message, Request):
                return message

    def answer(self, request: Request, extra: list[str], body: str = "") -> None:
        """200 to a request."""
        to = request.get("to") or ""
        headers = [f"Via: {value}" for value in request.get_all("via")]
        headers += [f"From: {request.get('from')}", f"To: {to}" if ";tag=" in to else f"To: {to};tag=target"]
        headers += [f"Call-ID: {request.call_id}", f"CSeq: {request.get('cseq')}", *extra]
        self.send("SIP/2.0 200 OK", headers, body)
