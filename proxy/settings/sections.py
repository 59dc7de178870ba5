"""Groups of settings, each with its limits and defaults."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, field_validator, model_validator

from proxy.b2bua.config import RetryPolicy
from proxy.b2bua.limits import Limits
from proxy.settings.sources import json_text, split_list
from proxy.settings.values import refer_reach
from proxy.transport.stream import StreamSettings
from proxy.transport.tls import SOUND_CIPHERS

__all__ = [
    "AttemptSection",
    "CallsSection",
    "ConnectionsSection",
    "LimitsSection",
    "RedactionSection",
    "RetrySection",
    "RouteSection",
    "Section",
    "StoreSection",
    "TargetSection",
    "TimersSection",
    "TlsSection",
    "TrunkSection",
    "Words",
]

_POLICY = RetryPolicy()
_LIMITS = Limits()
_STREAM = StreamSettings()
_NEVER_RETRIED = "403, 404, 486, 487 and 6xx are final answers and are never retried"


Words = Annotated[tuple[str, ...], BeforeValidator(split_list)]


class Section(BaseModel):
    """A group of settings."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class TlsSection(Section):
    """Certificates: ours for the `tls` listeners, the authorities for the targets."""

    certificate: Path | None = None
    """PEM file with our certificate and its chain; needed for `tls` listeners."""
    key: Path | None = None
    """PEM file with the private key of the certificate."""
    ca_file: Path | None = None
    """PEM file with the authorities that targets are verified by; default: those of the system."""
    verify: bool = True
    """Whether a target must prove its name by its certificate (RFC 5922). False only for tests on loopback."""
    minimum_version: Literal["1.2", "1.3"] = "1.2"
    """The lowest TLS version that is spoken."""
    ciphers: str = SOUND_CIPHERS
    """The cipher suites of TLS 1.2, as OpenSSL lists them."""
    client_certificates: Literal["none", "optional", "required"] = "none"
    """Whether `tls` listeners ask callers for a certificate; `optional`: one that is sent must be good."""
    client_ca_file: Path | None = None
    """PEM file with the authorities of those certificates."""
    watch_s: float = Field(10.0, ge=0, le=3600)
    """How often to look whether these files were replaced, in seconds; new connections then use the new ones."""

    @field_validator("minimum_version", mode="before")
    @classmethod
    def _from_number(cls, value: object) -> object:
        return str(value) if isinstance(value, float) else value  # YAML reads an unquoted 1.2 as a number

    @model_validator(mode="after")
    def _pair(self) -> TlsSection:
        if (self.certificate is None) != (self.key is None):
            raise ValueError("certificate and key go together: one of them is not set")
        if self.client_certificates != "none" and self.client_ca_file is None:
            raise ValueError("client_ca_file is not set: client certificates need the authorities that sign them")
        return self


class AttemptSection(Section):
    """What one attempt uses; what is not set is as in the first attempt."""

    rules: str | None = None
    """Name of a rule set."""
    target: str | None = None
    """Name of a target."""


class RetrySection(Section):
    """When and how a failed INVITE is tried again, as a new call built from the original."""

    on: Annotated[tuple[int | Literal["transport", "timeout"], ...], BeforeValidator(split_list)] = (
        *sorted(_POLICY.statuses),
        "transport",
        "timeout",
    )
    """Outcomes worth another attempt: final statuses, `transport` (target out of reach), `timeout` (no answer)."""
    max_attempts: int = Field(_POLICY.max_attempts, ge=1, le=20)
    """Attempts in all, the first one included; 1 turns retries off."""
    answer_timeout_s: float = Field(_POLICY.answer_timeout_s, gt=0, le=180)
    """How long an attempt may go without any answer other than 100, in seconds."""
    hop_timeout_s: float = Field(_POLICY.hop_timeout_s, gt=0, le=60)
    """How long one address of a target may be silent before the next one is tried in the same attempt, in seconds."""
    no_webhook_after_s: float = Field(_POLICY.no_webhook_after_s, ge=0, le=60)
    """With the webhook tap: how long after its INVITE an attempt is given up for want of a webhook; 0 for never."""
    deadline_s: float = Field(_POLICY.deadline_s, gt=0, le=180)
    """How long after the caller's INVITE no attempt starts any more, in seconds."""
    backoff_initial_s: float = Field(_POLICY.backoff_initial_s, ge=0, le=60)
    """The wait before the second attempt, in seconds."""
    backoff_factor: float = Field(_POLICY.backoff_factor, ge=1, le=10)
    """By what the wait grows from attempt to attempt."""
    backoff_max_s: float = Field(_POLICY.backoff_max_s, ge=0, le=60)
    """The longest wait, in seconds."""
    jitter: float = Field(_POLICY.jitter, ge=0, le=1)
    """The share of a wait that is random."""
    attempts: Annotated[tuple[AttemptSection, ...], BeforeValidator(json_text)] = (
        AttemptSection(),
        AttemptSection(),
        AttemptSection(rules="minimal"),
    )
    """Per attempt a rule set and a target; the last entry stands for all that follow."""

    @field_validator("on")
    @classmethod
    def _worth_retrying(cls, value: tuple[int | str, ...]) -> tuple[int | str, ...]:
        for item in value:
            if isinstance(item, int) and (not 400 <= item <= 599 or item in (403, 404, 486, 487)):
                raise ValueError(f"{item} can't be retried: {_NEVER_RETRIED}")
        return value

    @field_validator("attempts")
    @classmethod
    def _some(cls, value: tuple[AttemptSection, ...]) -> tuple[AttemptSection, ...]:
        return value or (AttemptSection(),)


class TargetSection(Section):
    """Where calls go. Plain text stands for its `uri`."""

    uri: str
    """SIP URI of the target; `{openai_project_id}` stands for the project."""
    priority: int | None = Field(None, ge=0)
    """Low ones are tried first. Default: the position in `targets`."""
    weight: int = Field(1, ge=1)
    """The share of calls among targets of one priority."""
    username: str = ""
    """Name for the target's digest challenges."""
    password: SecretStr = SecretStr("")
    """Password for them."""
    ping_s: float = Field(0.0, ge=0, le=3600)
    """How often the target gets an OPTIONS, in seconds; 0 for never. One that does not answer is tried last."""


class TrunkSection(Section):
    """A named source of calls, for routes."""

    allow: Words
    """Its addresses, ranges and named lists; they may call, whether or not the global `allow` has them."""
    listener: str = ""
    """The listener that its calls must come in by, as `transport:address:port`; default: any."""


class RouteSection(Section):
    """Which calls go to which targets; every condition that is given must hold."""

    targets: Words
    """Names of targets."""
    trunk: str = ""
    """Name of the trunk (or of the user in `users`) that the call comes from."""
    dialed: str = ""
    """Pattern for the user part of the Request-URI; `*` stands for any run of characters."""
    header: str = ""
    """Name of a header field that must be there."""
    header_value: str = "*"
    """Pattern for its value."""
    rules: str = ""
    """Name of the rule set of these calls, in place of the default one."""

    @field_validator("targets")
    @classmethod
    def _some(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not value:
            raise ValueError("a route needs at least one target")
        return value


class CallsSection(Section):
    """How calls are led."""

    ring_timeout_s: float = Field(180.0, gt=0, le=3600)
    """How long a call may ring before it is given up with 408, in seconds."""
    max_call_s: float = Field(0.0, ge=0)
    """The longest time that an answered call may last, in seconds; 0 for no limit."""
    probe_s: float = Field(0.0, ge=0, le=86_400)
    """How often each leg of an answered call gets an OPTIONS, to find peers that are gone, in seconds; 0 for never."""
    session_expires_s: int = Field(0, ge=0)
    """The session interval (RFC 4028) that is asked for unasked, in seconds, at least 90; 0 leaves it to the peers."""
    min_se_s: int = Field(90, ge=90)
    """The shortest session interval that is taken, in seconds."""
    reliable: Literal["auto", "always", "never"] = "auto"
    """Whether reliable provisional responses (RFC 3262) are offered to targets; `auto`: where the caller wants them."""
    refer: Literal["relay", "execute", "refuse"] = "relay"
    """What becomes of a REFER: taken to the other leg, carried out here, or refused with 405."""
    refer_tel_host: str = ""
    """The host that a `tel:` URI in Refer-To is reached at."""
    refer_to: Words = ("targets", "trunks")
    """Where a REFER that is carried out may lead, else it gets 403: `targets`, `trunks`, `any`, hosts, ranges."""
    relay_early_media: bool = True
    """Whether a provisional response keeps its SDP; else the caller gets a plain 180."""

    @field_validator("refer_to")
    @classmethod
    def _places(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        refer_reach(value, (), ())
        return value

    @field_validator("probe_s")
    @classmethod
    def _not_always(cls, value: float) -> float:
        if 0 < value < 1:
            raise ValueError("0 for never, or at least 1 second")
        return value

    @field_validator("session_expires_s")
    @classmethod
    def _long_enough(cls, value: int) -> int:
        if 0 < value < 90:
            raise ValueError("a session interval has at least 90 seconds (RFC 4028 section 4)")
        return value


class TimersSection(Section):
    """RFC 3261 timers (section 17.1.1.1 and table 4); all others follow from these."""

    t1_s: float = Field(0.5, gt=0, le=10)
    """Estimate of the round trip, in seconds."""
    t2_s: float = Field(4.0, gt=0, le=60)
    """Longest interval between retransmissions of non-INVITE requests and INVITE responses, in seconds."""
    t4_s: float = Field(5.0, gt=0, le=60)
    """How long a message may stay in the network, in seconds."""


class RedactionSection(Section):
    """What is masked in everything that is written."""

    mask_numbers: bool = True
    """Whether phone numbers keep only their ends."""
    mask_secrets: bool = True
    """Whether SRTP keys, passwords and credentials are masked."""


class StoreSection(Section):
    """The call store: every call with its messages, in SQLite."""

    enabled: bool = True
    """Whether calls are stored."""
    path: Path | None = None
    """The file. Default: `calls.db` in systemd's state directory, else in `~/.local/state/trunkline`."""
    max_age_days: float = Field(30.0, ge=0)
    """Calls that are older are removed; 0 keeps them."""
    max_mb: int = Field(2048, ge=0)
    """Size of the file above which the oldest calls are removed, in megabytes; 0 for no limit."""
    mask_numbers: bool | None = None
    """Whether phone numbers in it keep only their ends. Default: as `redaction.mask_numbers`."""
    mask_secrets: bool | None = None
    """Whether keys, passwords and credentials in it are masked. Default: as `redaction.mask_secrets`."""


class LimitsSection(Section):
    """What is the most."""

    max_calls: int = Field(10_000, ge=1)
    """Calls in progress above which a new one gets 503."""
    retry_after_s: int = Field(5, ge=0, le=3600)
    """The Retry-After of that 503, in seconds."""
    source_invites_per_s: float = Field(_LIMITS.source_invites_per_s, ge=0)
    """New calls of one source; those above it get 503. Rates let through two seconds' worth at once; 0 is no limit."""
    invites_per_s: float = Field(_LIMITS.invites_per_s, ge=0)
    """New calls of all sources; those above it get 503."""
    source_requests_per_s: float = Field(_LIMITS.source_requests_per_s, ge=0)
    """Requests outside of calls of one source; those above it are dropped."""
    source_unknown_per_s: float = Field(_LIMITS.source_unknown_per_s, ge=0)
    """Messages of a source that may not call; those above it are dropped unread."""
    unknown_per_s: float = Field(_LIMITS.unknown_per_s, ge=0)
    """Messages of all such sources; those above it are dropped unread."""
    max_transactions: int = Field(_LIMITS.max_transactions, ge=0)
    """Transactions at a time above which a new call gets 503."""
    max_lag_s: float = Field(_LIMITS.max_lag_s, ge=0)
    """How late timers may fire, in seconds; above it new calls get 503 until a second has passed in time."""
    max_message_bytes: int = Field(_LIMITS.max_message_bytes, ge=1024, le=65_535)
    """Size of one message; a larger one gets 513."""
    max_headers: int = Field(_LIMITS.max_headers, ge=16)
    """Header fields of one message; one with more gets 513."""
    max_connections: int = Field(_STREAM.max_connections, ge=1)
    """TCP and TLS connections that may be open that came in."""
    max_connections_per_address: int = Field(_STREAM.max_connections_per_address, ge=1)
    """Those of one address."""
    max_handshakes: int = Field(_STREAM.max_handshakes, ge=1)
    """TLS handshakes of connections that come in that may be under way."""


class ConnectionsSection(Section):
    """TCP and TLS connections."""

    connect_timeout_s: float = Field(_STREAM.connect_timeout_s, gt=0, le=60)
    """For opening one, TLS handshake included, in seconds."""
    handshake_timeout_s: float = Field(_STREAM.handshake_timeout_s, gt=0, le=60)
    """For the TLS handshake of one that comes in, in seconds."""
    first_message_timeout_s: float = Field(_STREAM.first_message_timeout_s, ge=1)
    """How long one that came in may be open before its first whole message, in seconds."""
    keepalive_s: float = Field(_STREAM.keepalive_s, ge=1, le=3600)
    """The longest time between two pings on one that we opened (RFC 5626), in seconds."""
    idle_timeout_s: float = Field(_STREAM.idle_timeout_s, ge=1)
    """How long one that came in may go without a message while no call uses it, and a UDP peer be known, in seconds."""
    half_message_timeout_s: float = Field(_STREAM.half_message_timeout_s, ge=1)
    """How long a half-sent message may stand without progress, in seconds."""
