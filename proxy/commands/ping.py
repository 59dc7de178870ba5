"""`trunkline ping`: one OPTIONS request (RFC 3261 section 11) over UDP, TCP or TLS, for health checks."""

from __future__ import annotations

import secrets
import socket
import ssl
import time
from dataclasses import dataclass
from pathlib import Path

from proxy import __version__
from proxy.sip.errors import SipError
from proxy.sip.message import Request, Response, header
from proxy.sip.parser import MalformedMessage, StreamFramer, parse_message
from proxy.sip.uri import Uri, parse_uri

__all__ = ["Answer", "PingError", "send_options"]

T1_S = 0.5


class PingError(Exception):
    """No answer came, and why."""


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer to an OPTIONS request."""

    status: int
    reason: str
    server: str
    seconds: float

    @property
    def alive(self) -> bool:
        """Whether it is a 2xx."""
        return 200 <= self.status <= 299

    def __str__(self) -> str:
        server = f" from {self.server}" if self.server else ""
        return f"{self.status} {self.reason}{server} in {self.seconds * 1000:.1f} ms"


def send_options(text: str, timeout_s: float, ca_file: Path | None = None) -> Answer:
    """Send OPTIONS to a URI and return the first final answer. Names are looked up as plain hosts, without SRV.

    Raises PingError when the URI can't be used, nobody answers in `timeout_s`, or the answer makes no sense.
    """
    try:
        uri = parse_uri(text)
    except SipError as error:
        raise PingError(error.reason) from None
    if uri.scheme not in ("sip", "sips"):
        raise PingError("a SIP URI starts with sip: or sips:")
    transport = (uri.param("transport") or ("tls" if uri.scheme == "sips" else "udp")).lower()
    if transport not in ("udp", "tcp", "tls"):
        raise PingError(f"transport {transport} is not spoken (allowed: udp, tcp, tls)")
    started = time.monotonic()
    try:
        with _connect(uri, transport, timeout_s, ca_file) as connection:
            request = _options(uri, transport, connection.getsockname()).serialize()
            answer = (_over_udp if transport == "udp" else _over_stream)(connection, request, started + timeout_s)
    except TimeoutError:
        raise PingError(f"no answer in {timeout_s:g} s") from None
    except ssl.SSLCertVerificationError as error:
        raise PingError(f"its certificate is not accepted: {error.verify_message}") from None
    except OSError as error:
        raise PingError(error.strerror or str(error)) from None
    except (MalformedMessage, SipError) as error:
        raise PingError(f"the answer can't be understood: {error}") from None
    server = answer.get("server") or answer.get("user-agent") or ""
    return Answer(answer.status, answer.reason, server, time.monotonic() - started)


def _connect(uri: Uri, transport: str, timeout_s: float, ca_file: Path | None) -> socket.socket:
    host, port = uri.host.strip("[]"), uri.port or (5061 if transport == "tls" else 5060)
    kind = socket.SOCK_DGRAM if transport == "udp" else socket.SOCK_STREAM
    family, _, _, _, address = socket.getaddrinfo(host, port, type=kind)[0]
    plain = socket.socket(family, kind)
    try:
        plain.settimeout(timeout_s)
        plain.connect(address)
        if transport != "tls":
            return plain
        context = ssl.create_default_context(cafile=ca_file)
        return context.wrap_socket(plain, server_hostname=host)
    except BaseException:
        plain.close()
        raise


def _options(uri: Uri, transport: str, local: tuple[object, ...]) -> Request:
    host = f"[{local[0]}]" if ":" in str(local[0]) else str(local[0])
    here = f"{host}:{local[1]}"
    return Request(
        "OPTIONS",
        str(uri),
        [
            header("Via", f"SIP/2.0/{transport.upper()} {here};branch=z9hG4bK{secrets.token_hex(8)};rport"),
            header("Max-Forwards", "70"),
            header("From", f"<sip:ping@{host}>;tag={secrets.token_hex(8)}"),
            header("To", f"<{uri}>"),
            header("Call-ID", secrets.token_hex(16)),
            header("CSeq", "1 OPTIONS"),
            header("Contact", f"<sip:ping@{here};transport={transport}>"),
            header("Accept", "application/sdp"),
            header("User-Agent", f"Trunkline/{__version__}"),
            header("Content-Length", "0"),
        ],
        b"",
    )


def _over_udp(connection: socket.socket, request: bytes, deadline: float) -> Response:
    wait_s = T1_S
    while True:
        connection.send(request)
        again = min(time.monotonic() + wait_s, deadline)
        while (left_s := again - time.monotonic()) > 0:
            connection.settimeout(left_s)
            try:
                message = parse_message(connection.recv(65_535))
            except TimeoutError:
                break
            if isinstance(message, Response) and message.status >= 200:
                return message
        if time.monotonic() >= deadline:
            raise TimeoutError
        wait_s *= 2


def _over_stream(connection: socket.socket, request: bytes, deadline: float) -> Response:
    connection.sendall(request)
    framer = StreamFramer()
    while (left_s := deadline - time.monotonic()) > 0:
        connection.settimeout(left_s)
        data = connection.recv(65_535)
        if not data:
            raise PingError("the connection was closed without an answer")
        for part in framer.feed(data):
            message = parse_message(part) if part.strip() else None
            if isinstance(message, Response) and message.status >= 200:
                return message
    raise TimeoutError
