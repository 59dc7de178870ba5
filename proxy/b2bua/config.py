"""What the stack is told at start: immutable values, made by `settings` from environment, file and flags."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from proxy.b2bua.limits import Limits
from proxy.rewrite.engine import RuleSet
from proxy.sip.uri import Uri
from proxy.transaction.timers import TimerSettings

__all__ = ["AttemptPlan", "Network", "Reach", "RetryPolicy", "Route", "StackConfig", "Target", "Trunk"]


@dataclass(frozen=True, slots=True)
class Target:
    """Where calls go.

    Attributes:
        name: for people, routes and logs.
        uri: becomes the Request-URI of leg B.
        priority: low ones are tried first. weight: the share among targets of one priority.
        username, password: the answer to its digest challenges; "" for none.
        ping_s: how often it gets an OPTIONS; 0 for never.
    """

    name: str
    uri: Uri
    priority: int = 0
    weight: int = 1
    username: str = ""
    password: str = ""
    ping_s: float = 0.0


@dataclass(frozen=True, slots=True)
class AttemptPlan:
    """What one attempt uses; None takes what the first attempt used."""

    rules: str | None = None
    target: str | None = None


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """When a rejected INVITE is tried again, how often, and with what.

    Attributes:
        statuses: final statuses worth another attempt.
        on_transport_failure: whether a target that can't be reached is worth another attempt.
        on_timeout: whether an INVITE without any final answer in `answer_timeout_s` is.
        max_attempts: attempts in all, the first one included.
        answer_timeout_s: how long one attempt may go without a provisional or final answer other than 100.
        hop_timeout_s: how long one address of a target may go without any answer, 100 included, before the next one is
            tried within the same attempt.
        no_webhook_after_s: how long an attempt may go without its webhook once webhooks pass by us; 0 for ever.
        deadline_s: from the caller's INVITE on, the time after which no new attempt starts and a running one without
            an answer ends.
        backoff_initial_s, backoff_factor, backoff_max_s: the wait before attempt 2, its growth, its ceiling.
        jitter: share of the wait that is random, 0 to 1.
        attempts: per attempt what it uses; attempts past its end use the last entry.
    """

    statuses: frozenset[int] = frozenset((400, 408, 500, 502, 503, 504))
    on_transport_failure: bool = True
    on_timeout: bool = True
    max_attempts: int = 6
    answer_timeout_s: float = 8.0
    hop_timeout_s: float = 2.5
    no_webhook_after_s: float = 0.0
    deadline_s: float = 25.0
    backoff_initial_s: float = 0.2
    backoff_factor: float = 2.0
    backoff_max_s: float = 2.0
    jitter: float = 0.2
    attempts: tuple[AttemptPlan, ...] = (AttemptPlan(),)


@dataclass(frozen=True, slots=True)
class Network:
    """A range of addresses as integers, so that a check costs two comparisons."""

    version: int
    first: int
    last: int
    text: str


@dataclass(frozen=True, slots=True)
class Reach:
    """Whom a REFER may have us call.

    Attributes:
        anywhere: everybody.
        hosts: patterns for names and addresses in lower case, without brackets, `*` for any run of characters; each
            with the port that may be named beside 5060 and 5061, or 0 for none.
        networks: ranges of addresses.
    """

    anywhere: bool = False
    hosts: tuple[tuple[str, int], ...] = ()
    networks: tuple[Network, ...] = ()


@dataclass(frozen=True, slots=True)
class Trunk:
    """Where calls come from.

    Attributes:
        name: for people, routes and logs.
        networks: the source ranges.
        listener: the listener that they must come in by, as in `Flow.listener`; "" for any.
    """

    name: str
    networks: tuple[Network, ...]
    listener: str = ""


@dataclass(frozen=True, slots=True)
class Route:
    """Which calls go to which targets; every condition that is given must hold.

    Attributes:
        targets: names, in the order that priority and weight leave open.
        trunk: the trunk's name. dialed: a pattern for the user part of the Request-URI, `*` for any run of characters.
        header, header_value: the key of a header field (lower case) and a pattern for its value.
        rules: the rule set of these calls instead of the default one.
    """

    targets: tuple[str, ...]
    trunk: str = ""
    dialed: str = ""
    header: str = ""
    header_value: str = "*"
    rules: str = ""


@dataclass(frozen=True, slots=True)
class StackConfig:
    """All that the stack needs to know.

    Attributes:
        targets: by name, in order; the first one is the default.
        rules: rule sets by name.
        default_rules: the rule set of the first attempt.
        allow: source ranges that may call; empty admits nobody but trunks and users.
        trunks: named sources; their ranges may call too.
        routes: the first one that fits decides; without any, every call may go to every target.
        users: password by name, for sources that authenticate by digest instead of by address.
        realm: the realm of those challenges. digest_algorithms: what they offer, the preferred one first.
        refuse_strangers: answer 403 to other sources instead of silence.
        codecs: the safe codec set in its order, which rules name as `safe`.
        crypto_suites: the SDES suites that rules name as `safe`.
        public_address: the address that replaces private ones in SDP origin lines and identity headers.
        retry: the retry policy.
        timers: T1, T2, T4.
        ring_timeout_s: how long a call may ring before it is given up with 408.
        max_call_s: the longest time that a call may last once it is answered; 0 for no limit.
        probe_s: how often each leg of an answered call gets an OPTIONS in its dialog, to find peers that are gone; 0
            for never.
        session_expires_s: the session interval (RFC 4028) that we ask for by ourselves; 0 leaves it to the peers.
        min_se_s: the shortest session interval that we take.
        reliable: "auto" offers reliable provisional responses (RFC 3262) to the target where the caller wants them,
            "always" offers them anyway, "never" does not.
        refer: what becomes of a REFER: "relay" takes it to the other leg, "execute" has Trunkline place the call and
            join it, "refuse" answers 405.
        refer_tel_host: the host that a `tel:` URI in Refer-To is reached at, as `sip:<number>@<host>`; "" leaves it as
            it is where a REFER is relayed, and takes a target without a user of its own where one is executed.
        refer_reach: which hosts a REFER that is executed may name. Our own address, which stands for a number that goes
            to a target, and the peers of calls that are up are none of its business.
        relay_early_media: whether a provisional response keeps its SDP; else the caller gets a plain 180.
        max_calls: calls in progress above which INVITEs get 503.
        limits: what else may be used up.
        rule_settings: values that rules name as `{setting.NAME}`.
        screen_rules: the rule set that turns requests away before they become a call; "" for none.
        retry_after_s: the Retry-After that such a 503 carries.
        user_agent: the User-Agent and Server value.
        checkpoints: whether what would end each leg is to be kept outside of this process (effect `Checkpoint`).
        call_id_header, attempt_header: the names of the headers that tell a webhook consumer our call id and the
            attempt number.
    """

    targets: Mapping[str, Target]
    rules: Mapping[str, RuleSet]
    default_rules: str
    allow: tuple[Network, ...]
    trunks: tuple[Trunk, ...] = ()
    routes: tuple[Route, ...] = ()
    users: Mapping[str, str] = field(default_factory=dict)
    realm: str = "trunkline"
    digest_algorithms: tuple[str, ...] = ("SHA-256", "MD5")
    refuse_strangers: bool = False
    codecs: tuple[str, ...] = ("PCMU", "PCMA", "telephone-event")
    crypto_suites: tuple[str, ...] = ("AES_CM_128_HMAC_SHA1_80",)
    public_address: str = "127.0.0.1"
    retry: RetryPolicy = field(default_factory=RetryPolicy)
    timers: TimerSettings = field(default_factory=TimerSettings)
    ring_timeout_s: float = 180.0
    max_call_s: float = 0.0
    probe_s: float = 0.0
    session_expires_s: int = 0
    min_se_s: int = 90
    reliable: str = "auto"
    refer: str = "relay"
    refer_tel_host: str = ""
    refer_reach: Reach = field(default_factory=Reach)
    relay_early_media: bool = True
    max_calls: int = 10_000
    limits: Limits = field(default_factory=Limits)
    screen_rules: str = ""
    rule_settings: Mapping[str, str] = field(default_factory=dict)
    retry_after_s: int = 5
    user_agent: str = "Trunkline"
    checkpoints: bool = False
    call_id_header: str = "X-Trunkline-Call-ID"
    attempt_header: str = "X-Trunkline-Attempt"
