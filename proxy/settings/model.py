"""All settings in one model, and what the other parts are told from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import BeforeValidator, Field, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from proxy import __version__
from proxy.b2bua.config import AttemptPlan, Network, Reach, RetryPolicy, Route, StackConfig, Target, Trunk
from proxy.b2bua.limits import Limits
from proxy.cores import cores
from proxy.rewrite.engine import RuleSet
from proxy.settings.observability import AdminSection, HepSection, OtelSection, SyslogSection, WebhookSection
from proxy.settings.sections import (
    CallsSection,
    ConnectionsSection,
    LimitsSection,
    RedactionSection,
    RetrySection,
    RouteSection,
    StoreSection,
    TargetSection,
    TimersSection,
    TlsSection,
    TrunkSection,
    Words,
)
from proxy.settings.sources import (
    EnvironmentSource,
    FileSource,
    SettingsError,
    from_json,
    json_text,
    nearest,
    split_list,
)
from proxy.settings.values import (
    check_each,
    expand_network,
    host_or_address,
    is_everywhere,
    is_private,
    name_targets,
    refer_reach,
    target_uri,
)
from proxy.transaction.timers import TimerSettings
from proxy.transport import Listener, parse_listener
from proxy.transport.stream import StreamSettings
from proxy.transport.tls import TlsSettings
from proxy.workers import MAX_WORKERS

__all__ = ["DEFAULT_RULES", "NO_ADDRESS", "NO_PROJECT", "Settings"]

OPENAI_HOST: Final = "sip.api.openai.com"
DEFAULT_RULES: Final = "twilio-openai"
DEFAULT_TARGET: Final = "openai"
PROJECT_PLACEHOLDER: Final = "{openai_project_id}"
Algorithms = Annotated[tuple[Literal["SHA-256", "MD5"], ...], BeforeValidator(split_list)]

_WILDCARDS = frozenset(("0.0.0.0", "::"))
NO_PROJECT: Final = (
    "TRUNKLINE_OPENAI_PROJECT_ID is not set: give the project id that platform.openai.com shows under "
    "Settings > Project > General (proj_…), or a target of your own by --target"
)
NO_ADDRESS: Final = (
    "TRUNKLINE_PUBLIC_ADDRESS is not set: give the IP address or name that peers reach this host at, "
    "or listen on one address instead of all"
)


class Settings(BaseSettings):
    """All settings. Make them by `load`."""

    model_config = SettingsConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    config: Path | None = None
    """A YAML file with settings."""
    listen: Words = ()
    """Where to listen: `transport:address:port`. Default: udp and tcp on 5060, and with a certificate tls on 5061."""
    public_address: str | None = None
    """The IP address or name that peers reach this host at. Default: that of the first listener, if it has one."""
    openai_project_id: str | None = None
    """The project (`proj_…`) that calls go to. Not needed when every target names a user of its own."""
    targets: Mapping[str, TargetSection] = Field(default_factory=dict)
    """Where calls go, by name, in order of preference: a SIP URI each, or a mapping of `uri` and more."""
    allow: Words = ("twilio",)
    """Who may call: addresses, ranges (`192.0.2.0/24`) and the named lists `twilio` and `openai`."""
    trunks: Mapping[str, TrunkSection] = Field(default_factory=dict)
    """Named sources of calls, for routes."""
    routes: Annotated[tuple[RouteSection, ...], BeforeValidator(json_text)] = ()
    """Which calls go to which targets; the first one that fits decides. Default: every call may go to every target."""
    users: Mapping[str, SecretStr] = Field(default_factory=dict)
    """Passwords by name: others than those in `allow` may call when they prove to be one of these (digest)."""
    realm: str = "trunkline"
    """The realm of the challenges for `users`."""
    digest_algorithms: Algorithms = ("SHA-256", "MD5")
    """What these challenges offer, in this order; some phones answer the first challenge only, and only by MD5."""
    refuse_strangers: bool = False
    """Whether others get 403 instead of silence."""
    rules: Words = ()
    """Rule files or directories beside the shipped ones; a set of the same name takes the place of a shipped one."""
    default_rules: str | None = None
    """Name of the rule set of the first attempt. Default: that of the first file in `rules`, else `twilio-openai`."""
    screen_rules: str = "scanners"
    """Name of the rule set that turns requests away before they become a call; empty for none."""
    rule_settings: Mapping[str, str] = Field(default_factory=dict)
    """Values that rules name as `{setting.NAME}`."""
    rules_watch_s: float = Field(1.0, ge=0, le=3600)
    """How often to look whether a rule file was changed, which is then used for new calls, in seconds; 0 for never."""
    retry: RetrySection = RetrySection()
    tls: TlsSection = TlsSection()
    codecs: Words = ("PCMU", "PCMA", "telephone-event")
    """The codecs that rules call `safe`, in order of preference."""
    crypto_suites: Words = ("AES_CM_128_HMAC_SHA1_80",)
    """The SRTP suites that rules call `safe`."""
    calls: CallsSection = CallsSection()
    timers: TimersSection = TimersSection()
    connections: ConnectionsSection = ConnectionsSection()
    limits: LimitsSection = LimitsSection()
    redaction: RedactionSection = RedactionSection()
    store: StoreSection = StoreSection()
    admin: AdminSection = AdminSection()
    webhook: WebhookSection = WebhookSection()
    hep: HepSection = HepSection()
    otel: OtelSection = OtelSection()
    syslog: SyslogSection = SyslogSection()
    events_file: Path | None = None
    """A file that gets every event, whatever the log level."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """What the log on stdout holds: `info` one line a call, `debug` every message and change."""
    workers: int | None = Field(None, ge=1, le=MAX_WORKERS)
    """How many processes share the listeners, each with calls of its own. Default: as many as cores; 1: only one."""
    drain_s: float = Field(30.0, ge=0, le=86_400)
    """How long calls may go on after SIGTERM before they are ended, in seconds."""
    user_agent: str = f"Trunkline/{__version__}"
    """The User-Agent and Server header."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Flags, then environment, then the file that one of these two names."""
        environment = EnvironmentSource(settings_cls)
        path = init_settings().get("config") or environment().get("config")
        return init_settings, environment, FileSource(settings_cls, Path(path) if path else None)

    @field_validator("listen")
    @classmethod
    def _listeners(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        check_each(value, parse_listener)
        return value

    @field_validator("public_address")
    @classmethod
    def _address(cls, value: str | None) -> str | None:
        return None if value is None else host_or_address(value)

    @field_validator("openai_project_id")
    @classmethod
    def _project(cls, value: str | None) -> str | None:
        if value is not None and not (value.isascii() and value.replace("_", "").replace("-", "").isalnum()):
            raise ValueError(f"{value} is no project id: it has letters, digits, _ and - only (proj_…)")
        return value

    @field_validator("targets", mode="before")
    @classmethod
    def _name_targets(cls, value: object) -> object:
        """From text or a list (environment, flags): `name=uri` or a URI alone; JSON may hold the mapping itself."""
        if isinstance(value, str):
            value = from_json(value) if value.lstrip().startswith("{") else split_list(value)
        if isinstance(value, Sequence):
            value = name_targets([str(item) for item in value])
        if not isinstance(value, Mapping):
            return value
        return {name: {"uri": item} if isinstance(item, str) else item for name, item in value.items()}

    @field_validator("targets")
    @classmethod
    def _target_uris(cls, value: Mapping[str, TargetSection]) -> Mapping[str, TargetSection]:
        uris = [(name, target.uri.replace(PROJECT_PLACEHOLDER, "proj_x")) for name, target in value.items()]
        check_each(uris, lambda item: target_uri(*item))
        return value

    @field_validator("trunks")
    @classmethod
    def _trunk_ranges(cls, value: Mapping[str, TrunkSection]) -> Mapping[str, TrunkSection]:
        check_each([text for trunk in value.values() for text in trunk.allow], expand_network)
        check_each([trunk.listener for trunk in value.values() if trunk.listener], parse_listener)
        return value

    @field_validator("trunks", "users", mode="before")
    @classmethod
    def _from_text(cls, value: object) -> object:
        return json_text(value)

    @field_validator("codecs", "crypto_suites", "digest_algorithms")
    @classmethod
    def _some(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not value:
            raise ValueError("may not be empty")
        return value

    @field_validator("allow")
    @classmethod
    def _networks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        check_each(value, expand_network)
        return value

    @field_validator("log_level", mode="before")
    @classmethod
    def _lower(cls, value: object) -> object:
        return value.lower() if isinstance(value, str) else value

    @field_validator("user_agent")
    @classmethod
    def _one_line(cls, value: str) -> str:
        if not value.isprintable():
            raise ValueError("control characters are not allowed")
        return value

    @model_validator(mode="after")
    def _complete(self) -> Settings:
        problems: list[str] = []
        if self.openai_project_id is None and (
            not self.targets or any(PROJECT_PLACEHOLDER in target.uri for target in self.targets.values())
        ):
            problems.append(NO_PROJECT)
        if self.public_address is None and self._own_address() is None:
            problems.append(NO_ADDRESS)
        if self.tls.certificate is None and any(item.startswith("tls:") for item in self.listen):
            problems.append("tls.certificate is not set: a tls listener needs --tls-certificate and --tls-key")
        if self.webhook.tls and self.tls.certificate is None:
            problems.append("tls.certificate is not set: webhook.tls needs tls.certificate and tls.key")
        if self.retry.no_webhook_after_s and self.webhook.listen is None:
            problems.append("webhook.listen is not set: retry.no_webhook_after_s needs the webhook tap")
        problems += self._unknown_names()
        if problems:
            raise ValueError("\n".join(problems))
        return self

    def _unknown_names(self) -> list[str]:
        """Names of targets and trunks that nothing has."""
        targets = list(self.targets or (DEFAULT_TARGET,))
        sources = [*self.trunks, *self.users]
        used = [
            (f"retry.attempts: attempt {number}", "target", attempt.target, targets)
            for number, attempt in enumerate(self.retry.attempts, 1)
        ]
        for number, route in enumerate(self.routes, 1):
            used += [(f"routes: route {number}", "target", name, targets) for name in route.targets]
            used.append((f"routes: route {number}", "trunk", route.trunk, sources))
        heard = [str(listener) for listener in self.listeners()]
        used += [(f"trunks: {name}", "listener", trunk.listener, heard) for name, trunk in self.trunks.items()]
        return [
            f"{where}: there is no {kind} {name}{nearest(name, known)} ({kind}s: {', '.join(known) or 'none'})"
            for where, kind, name, known in used
            if name and name not in known
        ]

    def _own_address(self) -> str | None:
        """The address of the first listener, if it is bound to one."""
        if not self.listen:
            return None
        host = parse_listener(self.listen[0]).host
        return None if host in _WILDCARDS else host

    def address(self) -> str:
        """The address that peers reach us at, without brackets."""
        address = self.public_address or self._own_address()
        assert address is not None
        return address

    def listeners(self) -> tuple[Listener, ...]:
        """Where to listen."""
        texts = self.listen or ("udp:0.0.0.0:5060", "tcp:0.0.0.0:5060")
        if not self.listen and self.tls.certificate is not None:
            texts += ("tls:0.0.0.0:5061",)
        return tuple(parse_listener(text) for text in texts)

    def worker_count(self) -> int:
        """How many processes are to share the listeners."""
        return min(cores(), MAX_WORKERS) if self.workers is None else self.workers

    def tls_settings(self) -> TlsSettings:
        """Certificates and trust, as the transports take them."""
        tls = self.tls
        return TlsSettings(
            tls.certificate,
            tls.key,
            tls.ca_file,
            tls.verify,
            tls.minimum_version,
            tls.ciphers,
            tls.client_certificates,
            tls.client_ca_file,
        )

    def stream_settings(self) -> StreamSettings:
        """Limits of TCP and TLS connections, as the transports take them."""
        given = self.connections
        return StreamSettings(
            connect_timeout_s=given.connect_timeout_s,
            handshake_timeout_s=given.handshake_timeout_s,
            first_message_timeout_s=given.first_message_timeout_s,
            keepalive_s=given.keepalive_s,
            idle_timeout_s=given.idle_timeout_s,
            half_message_timeout_s=given.half_message_timeout_s,
            max_message_bytes=self.limits.max_message_bytes,
            max_connections=self.limits.max_connections,
            max_connections_per_address=self.limits.max_connections_per_address,
            max_handshakes=self.limits.max_handshakes,
        )

    def stack_targets(self) -> dict[str, Target]:
        """The targets by name, in order."""
        given = self.targets or {
            DEFAULT_TARGET: TargetSection(uri=f"sip:{PROJECT_PLACEHOLDER}@{OPENAI_HOST};transport=tls")
        }
        project = self.openai_project_id or ""
        return {
            name: Target(
                name,
                target_uri(name, item.uri.replace(PROJECT_PLACEHOLDER, project)),
                at if item.priority is None else item.priority,
                item.weight,
                item.username,
                item.password.get_secret_value(),
                item.ping_s,
            )
            for at, (name, item) in enumerate(given.items())
        }

    def networks(self) -> tuple[Network, ...]:
        """Who may call, as ranges."""
        return _ranges(self.allow)

    def notes(self) -> list[str]:
        """What is allowed, and yet probably not meant."""
        notes = [
            f"allow: {network.text} admits calls from everywhere"
            for network in self.networks()
            if is_everywhere(network)
        ]
        if not (self.allow or self.trunks or self.users):
            notes.append("allow is empty, and there are no trunks or users: nobody may call")
        if not self.tls.verify:
            notes.append("tls.verify is off: anybody can pose as the target")
        if any(item.host in _WILDCARDS for item in self.listeners()) and is_private(self.address()):
            notes.append(f"public_address {self.address()} is not routed on the Internet: peers there can't reach it")
        return notes

    def _refer_reach(self, targets: Mapping[str, Target]) -> Reach:
        """Where a REFER may lead."""
        trunks = tuple([network for trunk in self.trunks.values() for network in _ranges(trunk.allow)])
        return refer_reach(self.calls.refer_to, [one.uri for one in targets.values()], (*self.networks(), *trunks))

    def retry_policy(self) -> RetryPolicy:
        """The retry policy as the stack takes it."""
        retry = self.retry
        return RetryPolicy(
            statuses=frozenset(item for item in retry.on if isinstance(item, int)),
            on_transport_failure="transport" in retry.on,
            on_timeout="timeout" in retry.on,
            max_attempts=retry.max_attempts,
            answer_timeout_s=retry.answer_timeout_s,
            hop_timeout_s=retry.hop_timeout_s,
            no_webhook_after_s=retry.no_webhook_after_s,
            deadline_s=retry.deadline_s,
            backoff_initial_s=retry.backoff_initial_s,
            backoff_factor=retry.backoff_factor,
            backoff_max_s=retry.backoff_max_s,
            jitter=retry.jitter,
            attempts=tuple(AttemptPlan(attempt.rules, attempt.target) for attempt in retry.attempts),
        )

    def stack_config(self, rules: Mapping[str, RuleSet], default_rules: str) -> StackConfig:
        """What the stack is told; `rules` and `default_rules` as `load_rules` gives them.

        Raises SettingsError when a rule set is named that there is not.
        """
        wanted = [("default_rules", default_rules)]
        if self.screen_rules:
            wanted.append(("screen_rules", self.screen_rules))
        wanted += [
            (f"retry.attempts: attempt {number}", attempt.rules)
            for number, attempt in enumerate(self.retry.attempts, 1)
            if attempt.rules is not None
        ]
        wanted += [
            (f"routes: route {number}", route.rules) for number, route in enumerate(self.routes, 1) if route.rules
        ]
        problems = [
            f"{where}: there is no rule set {name}{nearest(name, list(rules))} (rule sets: {', '.join(rules)})"
            for where, name in wanted
            if name not in rules
        ]
        targets = self.stack_targets()
        problems += _unknown_in_rules(rules, list(targets), self.rule_settings)
        if problems:
            raise SettingsError(problems)
        return StackConfig(
            targets=targets,
            rules=rules,
            default_rules=default_rules,
            allow=self.networks(),
            trunks=tuple(Trunk(name, _ranges(trunk.allow), trunk.listener) for name, trunk in self.trunks.items()),
            routes=tuple(
                Route(route.targets, route.trunk, route.dialed, route.header.lower(), route.header_value, route.rules)
                for route in self.routes
            ),
            users={name: password.get_secret_value() for name, password in self.users.items()},
            realm=self.realm,
            digest_algorithms=self.digest_algorithms,
            refuse_strangers=self.refuse_strangers,
            codecs=self.codecs,
            crypto_suites=self.crypto_suites,
            public_address=self.address(),
            retry=self.retry_policy(),
            timers=TimerSettings(self.timers.t1_s, self.timers.t2_s, self.timers.t4_s),
            **self.calls.model_dump(exclude={"refer_to"}),
            refer_reach=self._refer_reach(targets),
            max_calls=self.limits.max_calls,
            retry_after_s=self.limits.retry_after_s,
            limits=Limits(**{item.name: getattr(self.limits, item.name) for item in fields(Limits)}),
            screen_rules=self.screen_rules,
            rule_settings=self.rule_settings,
            user_agent=self.user_agent,
        )


def _unknown_in_rules(rules: Mapping[str, RuleSet], targets: Sequence[str], settings: Mapping[str, str]) -> list[str]:
    """What rule sets ask for by name and nothing here has."""
    problems: dict[str, None] = {}
    for rule_set in rules.values():
        asked = ((rule_set.targets, targets), (rule_set.sets, list(rules)), (rule_set.settings, list(settings)))
        for places, known in asked:
            for name, problem in places.items():
                if name not in known:
                    what = f"{problem}: {name}{nearest(name, known)} (known: {', '.join(known) or 'none'})"
                    problems.setdefault(what)
    return list(problems)


def _ranges(texts: Sequence[str]) -> tuple[Network, ...]:
    return tuple(network for text in texts for network in expand_network(text))
