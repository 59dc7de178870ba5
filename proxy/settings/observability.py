"""Settings of what watches: the admin pages, the webhook tap, HEP3, OpenTelemetry and syslog."""

from __future__ import annotations

import base64
import binascii
from typing import Final, Literal

from pydantic import Field, SecretStr, field_validator, model_validator

from proxy.settings.sections import Section

__all__ = [
    "AdminSection",
    "HepSection",
    "OtelSection",
    "SyslogSection",
    "WebhookSection",
    "address_of",
    "syslog_address",
]

Facility = Literal[
    "auth", "authpriv", "cron", "daemon", "ftp", "kern", "lpr", "mail", "news", "syslog", "user", "uucp",
    "local0", "local1", "local2", "local3", "local4", "local5", "local6", "local7",
]  # fmt: skip

_LOOPBACK: Final = "127.0.0.1"
_MIN_TOKEN: Final = 16


def address_of(text: str, default_host: str = _LOOPBACK) -> tuple[str, int]:
    """Host and port of `address:port`, or of a port alone. Raises ValueError."""
    host, colon, port = text.strip().rpartition(":")
    host = host.strip("[]") if colon else default_host
    if not host or not port.isascii() or not port.isdigit() or int(port) > 65_535:
        raise ValueError(f"{text} is not of the form address:port, such as 127.0.0.1:8080, or a port")
    return host, int(port)


def syslog_address(text: str) -> tuple[str, str, int]:
    """Kind, host or path, and port of `udp:host:port`, `tcp:host:port` or `unix:/path`. Raises ValueError."""
    kind, _, place = text.strip().partition(":")
    if kind == "unix" and place.startswith("/"):
        return kind, place, 0
    host, colon, port = place.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if kind not in ("udp", "tcp") or not colon or not host or not (port.isascii() and port.isdigit()):
        raise ValueError(f"{text} is not of the form udp:address:port, tcp:address:port or unix:/path")
    if not 0 < int(port) < 65_536:
        raise ValueError(f"{text}: there is no port {port}")
    return kind, host, int(port)


def _check_address(value: str | None) -> str | None:
    if value is not None:
        address_of(value)
    return value


class AdminSection(Section):
    """Dashboard, API, metrics and health."""

    listen: str | None = None
    """Where they are served: a port (of 127.0.0.1), or `address:port`. Default: nowhere."""
    token: SecretStr | None = None
    """The secret of the login. Default: a new one at each start, printed once."""
    metrics_login: bool = False
    """Whether `/metrics` needs the token too."""

    _listen = field_validator("listen")(_check_address)

    @field_validator("token")
    @classmethod
    def _long_enough(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and len(value.get_secret_value()) < _MIN_TOKEN:
            raise ValueError(f"a token has at least {_MIN_TOKEN} characters")
        return value


class WebhookSection(Section):
    """The webhook tap: OpenAI's webhook comes here and is forwarded to the application."""

    listen: str | None = None
    """Where it is served: a port (of 127.0.0.1), or `address:port`. Default: nowhere."""
    path: str = "/webhook"
    """The path that the webhook is posted to."""
    secret: SecretStr | None = None
    """The webhook's signing secret (`whsec_…`)."""
    forward_url: str | None = None
    """The application's URL. Default: none, and the tap answers 200 itself."""
    deadline_s: float = Field(10.0, gt=0, le=60)
    """How long the application may take in all, retries included, in seconds."""
    attempts: int = Field(5, ge=1, le=10)
    """How often a forward that fails is tried: no connection, or 502, 503 or 504."""
    tls: bool = False
    """Whether it is served by HTTPS, with `tls.certificate`."""

    _listen = field_validator("listen")(_check_address)

    @field_validator("forward_url")
    @classmethod
    def _url(cls, value: str | None) -> str | None:
        if value is not None and not value.startswith(("http://", "https://")):
            raise ValueError("must be an http:// or https:// URL")
        return value

    @field_validator("path")
    @classmethod
    def _path(cls, value: str) -> str:
        if not value.startswith("/") or "{" in value:
            raise ValueError("must begin with /")
        return value

    @field_validator("secret")
    @classmethod
    def _secret(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            text = value.get_secret_value()
            try:
                key = base64.b64decode(text.removeprefix("whsec_"), validate=True)
            except binascii.Error:
                key = b""
            if not text.startswith("whsec_") or not key:
                raise ValueError("must be whsec_ and a key in base64")
        return value

    @model_validator(mode="after")
    def _complete(self) -> WebhookSection:
        if self.listen is not None and self.secret is None:
            raise ValueError("secret is not set: the tap takes signed webhooks only")
        return self


class HepSection(Section):
    """HEP3 to Homer."""

    address: str | None = None
    """Where packets go by UDP: `address:port`. Default: nowhere."""
    node_id: int = Field(2001, ge=0, le=0xFFFF_FFFF)
    """The capture agent's id."""
    auth_key: SecretStr | None = None
    """The key that the capture server wants."""

    @field_validator("address")
    @classmethod
    def _address(cls, value: str | None) -> str | None:
        return _check_address(value)


class OtelSection(Section):
    """OpenTelemetry traces."""

    endpoint: str | None = None
    """The OTLP/HTTP URL for traces, such as `http://127.0.0.1:4318/v1/traces`. Default: none."""
    service_name: str = "trunkline"
    """The `service.name` of the traces."""

    @field_validator("endpoint")
    @classmethod
    def _url(cls, value: str | None) -> str | None:
        if value is not None and not value.startswith(("http://", "https://")):
            raise ValueError("must be an http:// or https:// URL")
        return value


class SyslogSection(Section):
    """The log to syslog (RFC 5424), beside stdout."""

    address: str | None = None
    """Where the log's lines go too: `udp:address:port`, `tcp:address:port` or `unix:/path`. Default: nowhere."""
    facility: Facility = "daemon"
    """The facility of the messages."""
    app_name: str = "trunkline"
    """The APP-NAME of the messages."""

    @field_validator("address")
    @classmethod
    def _address(cls, value: str | None) -> str | None:
        if value is not None:
            syslog_address(value)
        return value

    @field_validator("app_name")
    @classmethod
    def _name(cls, value: str) -> str:
        if not 0 < len(value) <= 48 or not all("!" <= char <= "~" for char in value):
            raise ValueError("has 1 to 48 printable ASCII characters and no space (RFC 5424 section 6)")
        return value
