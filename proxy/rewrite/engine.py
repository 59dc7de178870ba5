"""Rule sets: compiled rules that edit a message on its way from one leg to the other."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from hashlib import sha256
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from proxy.sdp.errors import SdpError

if TYPE_CHECKING:
    from proxy.rewrite.cases import Case
    from proxy.rewrite.draft import Draft
    from proxy.rewrite.nodes import Problem

__all__ = [
    "A_TO_B",
    "B_TO_A",
    "Context",
    "Decision",
    "Include",
    "RetryPlan",
    "Rule",
    "RuleReject",
    "RuleSet",
    "Run",
    "Stop",
    "Test",
]

Test = Callable[["Draft", "Context"], bool]
"""Tells whether a condition holds for a message. May raise SdpError for a body that is no usable SDP."""

Run = Callable[["Draft", "Context"], None]
"""Edits a draft. May raise RuleReject and Stop, and SdpError for a body that is no usable SDP."""

A_TO_B: Final = "a-to-b"
B_TO_A: Final = "b-to-a"

_NOTHING: Final[Mapping[str, str]] = MappingProxyType({})


class RetryPlan:
    """What a rule says of further attempts of its call; None leaves it to the settings.

    Attributes:
        max_attempts: attempts in all, the first one included.
        deadline_s: how long after the caller's INVITE no attempt starts any more.
        statuses: the final statuses that are worth another attempt.
        attempts: per attempt the names of a rule set and a target, "" for those of the first one.
    """

    __slots__ = ("attempts", "deadline_s", "max_attempts", "statuses")

    def __init__(
        self,
        max_attempts: int | None = None,
        deadline_s: int | None = None,
        statuses: frozenset[int] | None = None,
        attempts: tuple[tuple[str, str], ...] | None = None,
    ) -> None:
        self.max_attempts = max_attempts
        self.deadline_s = deadline_s
        self.statuses = statuses
        self.attempts = attempts


class Decision:
    """What rules decide of a call before its first attempt.

    Attributes:
        target: the name of the target to try first; "" for the one that the routes say.
        retry: the retry plan, or None.
        step: the rule that named the target.
    """

    __slots__ = ("retry", "step", "target")

    def __init__(self) -> None:
        self.target = ""
        self.retry: RetryPlan | None = None
        self.step = ""


class Context:
    """What rules may know beside the message: made once per application of a rule set.

    Attributes:
        direction: `a-to-b` (from the trunk to the target) or `b-to-a`.
        call_id: our id of the call.
        attempt: the number of the attempt, from 1 on.
        local_host: the public address that stands for leg A's hosts in identity headers and SDP origins.
        target_host: the host of the target of this attempt.
        codecs: the codecs that rules name as `safe`, in order of preference.
        crypto_suites: the SDES suites that rules name as `safe`.
        transport: the transport that the message came by, in lower case (`udp`, `tcp`, `tls`).
        source: the IP address that the message came from.
        trunk: the name of the trunk or user that the call came from; target: the name of the attempt's target.
        settings: the values that settings give to `{setting.NAME}`.
        media_anchored: whether the call's media goes through Trunkline, so that a rule may change its profile.
        tags: the call's tags, which rules add to; None where there is no call.
        decision: where rules note what they decide of a call; None but before its first attempt.
        values: what conditions and actions have put aside, by name; None before the first.
        notes: what rules want to be logged, each with its step; None before the first.
    """

    __slots__ = (
        "attempt",
        "call_id",
        "codecs",
        "crypto_suites",
        "decision",
        "direction",
        "local_host",
        "media_anchored",
        "notes",
        "settings",
        "source",
        "tags",
        "target",
        "target_host",
        "transport",
        "trunk",
        "values",
    )

    def __init__(
        self,
        direction: str,
        *,
        call_id: str = "",
        attempt: int = 1,
        local_host: str = "127.0.0.1",
        target_host: str = "",
        codecs: tuple[str, ...] = ("PCMU", "PCMA", "telephone-event"),
        crypto_suites: tuple[str, ...] = ("AES_CM_128_HMAC_SHA1_80",),
        transport: str = "",
        source: str = "",
        trunk: str = "",
        target: str = "",
        settings: Mapping[str, str] = _NOTHING,
        media_anchored: bool = False,
        tags: list[str] | None = None,
        decision: Decision | None = None,
    ) -> None:
        self.direction: str = direction
        self.call_id: str = call_id
        self.attempt: int = attempt
        self.local_host: str = local_host
        self.target_host: str = target_host
        self.codecs: tuple[str, ...] = codecs
        self.crypto_suites: tuple[str, ...] = crypto_suites
        self.transport: str = transport
        self.source: str = source
        self.trunk: str = trunk
        self.target: str = target
        self.settings: Mapping[str, str] = settings
        self.media_anchored: bool = media_anchored
        self.tags: list[str] | None = tags
        self.decision: Decision | None = decision
        self.values: dict[str, str] | None = None
        self.notes: list[tuple[str, str]] | None = None

    def keep(self, name: str, text: str) -> None:
        """Put a value aside under a name."""
        if self.values is None:
            self.values = {}
        self.values[name] = text


class Stop(Exception):
    """A rule wants no further rule of its set, or none at all, for this message.

    Attributes:
        all: whether the sets that include this one stop too.
    """

    def __init__(self, all: bool) -> None:
        super().__init__()
        self.all = all


class RuleReject(Exception):
    """A rule refuses the message, or its SDP can't be made usable.

    Attributes:
        status: the SIP status code for the answer, 400 to 699.
        reason: the reason phrase.
        rule: the step that refused, `rule:<set>/<rule id>`.
        silent: whether a request that is no call yet gets no answer at all.
        headers: names and values of header fields for the answer.
    """

    def __init__(
        self, status: int, reason: str, rule: str, silent: bool = False, headers: tuple[tuple[str, str], ...] = ()
    ) -> None:
        super().__init__(f"{status} {reason} ({rule})")
        self.status = status
        self.reason = reason
        self.rule = rule
        self.silent = silent
        self.headers = headers


class Rule:
    """One compiled rule.

    Attributes:
        id: its id, unique in the set.
        why: the reason that its author gave.
        step: `rule:<set>/<id>`, as it stands in change records.
        line: where it begins in its file, from 1 on.
        direction: the only direction that it is for; None for both.
        message: `request` or `response`, the only kind of message that it is for; None for both.
        methods: the only methods that it is for; None for all.
        tests: all must hold.
        actions: done in order.
        needs: header keys (lower-case long form, sorted) of which one must be present, or the rule changes nothing;
            None when that can't be told.
        needs_sdp: whether the body must be SDP, or the rule changes nothing.
        decides: whether it routes a call, plans its attempts or drops it, before its first attempt.
        labels: for people, what each of `tests` asks.
        cases: its cases (`proxy.rewrite.cases`).
        includes: the names of the rule sets that it calls.
        enabled: a disabled rule stands in `RuleSet.all_rules` only.
    """

    __slots__ = (
        "actions",
        "cases",
        "decides",
        "direction",
        "enabled",
        "id",
        "includes",
        "labels",
        "line",
        "message",
        "methods",
        "needs",
        "needs_sdp",
        "step",
        "tests",
        "why",
    )

    def __init__(
        self,
        id: str,
        why: str,
        step: str,
        line: int,
        *,
        direction: str | None = None,
        message: str | None = None,
        methods: frozenset[str] | None = None,
        tests: tuple[Test, ...] = (),
        actions: tuple[Run, ...] = (),
        needs: frozenset[str] | None = None,
        needs_sdp: bool = False,
        decides: bool = False,
        labels: tuple[Callable[[], str], ...] = (),
        cases: tuple[Case, ...] = (),
        includes: tuple[Include, ...] = (),
        enabled: bool = True,
    ) -> None:
        self.id = id
        self.why = why
        self.step = step
        self.line = line
        self.direction = direction
        self.message = message
        self.methods = methods
        self.tests = tests
        self.actions = actions
        self.needs: tuple[str, ...] | None = None if needs is None else tuple(sorted(needs))
        self.needs_sdp = needs_sdp
        self.decides = decides
        self.labels = labels
        self.cases = cases
        self.includes = includes
        self.enabled = enabled

    def fits(self, direction: str, method: str, is_response: bool) -> bool:
        """Whether a message of this direction, method and kind may concern the rule at all."""
        return (
            self.direction in (None, direction)
            and self.message in (None, "response" if is_response else "request")
            and (self.methods is None or method in self.methods)
        )


class Include:
    """The place of another rule set in a rule; linked once all sets are known.

    Attributes:
        name: the name of that set.
        line, column: where it stands in the file.
        rule_set: the set, once it is linked.
    """

    __slots__ = ("column", "line", "name", "rule_set")

    def __init__(self, name: str, line: int, column: int) -> None:
        self.name = name
        self.line = line
        self.column = column
        self.rule_set: RuleSet | None = None

    def run(self, draft: Draft, context: Context) -> None:
        """Apply the rules of that set. Raises what they raise, and Stop when one of them stops all."""
        assert self.rule_set is not None
        step = draft.step
        try:
            self.rule_set.run(draft, context)
        except Stop as stop:
            if stop.all:
                raise
        draft.step = step


class _Table:
    """The rules that can match requests, or responses, of one direction: by method, and for all other methods."""

    __slots__ = ("by_method", "others")

    def __init__(self, rules: list[Rule]) -> None:
        methods = {method for rule in rules for method in rule.methods or ()}
        self.by_method: dict[str, tuple[Rule, ...]] = {
            method: tuple([rule for rule in rules if rule.methods is None or method in rule.methods])
            for method in methods
        }
        self.others = tuple([rule for rule in rules if rule.methods is None])


class RuleSet:
    """The rules of one file, in order. Immutable once it is linked.

    Attributes:
        name: the name of the set.
        source: the file that it was read from.
        version: the first 12 hex digits of the SHA-256 of the file's content, and of the sets that it includes.
        description: what the author says of it.
        rules: all enabled rules. all_rules: the disabled ones too.
        decides: whether a rule of it, or of a set that it includes, decides something before the first attempt.
        variables: the values that the file gives to its rules, by `var.NAME`.
        settings, targets, sets: the names that it asks of the settings: values, targets, rule sets of attempts.
        warnings: what is doubtful in it.
        weight: how many rules there are in it and, each time that they are included, in the sets that it includes.
    """

    __slots__ = (
        "_tables",
        "all_rules",
        "decides",
        "description",
        "name",
        "rules",
        "sets",
        "settings",
        "source",
        "targets",
        "variables",
        "version",
        "warnings",
        "weight",
    )

    def __init__(
        self,
        name: str,
        source: str,
        version: str,
        rules: Iterable[Rule],
        description: str = "",
        variables: Mapping[str, str] = _NOTHING,
    ) -> None:
        self.name = name
        self.source = source
        self.version = version
        self.description = description
        self.variables = {f"var.{name}": text for name, text in variables.items()}
        self.all_rules = tuple(rules)
        self.rules = tuple([rule for rule in self.all_rules if rule.enabled])
        self.decides = any(rule.decides for rule in self.rules)
        self.weight = len(self.rules)
        self.settings: Mapping[str, Problem] = {}
        self.targets: Mapping[str, Problem] = {}
        self.sets: Mapping[str, Problem] = {}
        self.warnings: tuple[Problem, ...] = ()
        self._tables = {
            (direction, message == "response"): _Table(
                [rule for rule in self.rules if rule.direction in (None, direction) and rule.message in (None, message)]
            )
            for direction in (A_TO_B, B_TO_A)
            for message in ("request", "response")
        }

    def __repr__(self) -> str:
        return f"<RuleSet {self.name} {self.version} of {len(self.rules)} rules>"

    def with_rules(self, rules: Iterable[Rule]) -> RuleSet:
        """The same set with other rules."""
        variables = {name.removeprefix("var."): text for name, text in self.variables.items()}
        return RuleSet(self.name, self.source, self.version, rules, self.description, variables)

    @property
    def includes(self) -> list[Include]:
        """The places where its rules call other sets."""
        return [include for rule in self.all_rules for include in rule.includes]

    def finish_includes(self) -> None:
        """Take over what the included sets bring: whether they decide something, what they ask for, their versions.

        To be called once, after the same was done for each of them.
        """
        inner = [include.rule_set for include in self.includes if include.rule_set is not None]
        if not inner:
            return
        self.decides = self.decides or any(one.decides for one in inner)
        self.weight += sum([one.weight for one in inner])
        for one in inner:
            self.settings = {**one.settings, **self.settings}
            self.targets = {**one.targets, **self.targets}
            self.sets = {**one.sets, **self.sets}
        versions = " ".join([self.version, *[one.version for one in inner]])
        self.version = sha256(versions.encode()).hexdigest()[: len(self.version)]

    def decide(self, draft: Draft, context: Context) -> Decision:
        """What the rules decide of a call before its first attempt; the draft is only tried on and then thrown away.

        Raises RuleReject when a rule refuses the call, `silent` when one drops it.
        """
        decision = context.decision = Decision()
        self.apply(draft, context)
        return decision

    def apply(self, draft: Draft, context: Context) -> None:
        """Edit the draft by every rule that matches, in order; a later rule sees what the earlier ones did.

        Each edit is recorded under the rule's step; afterwards `draft.step` is what it was. Raises RuleReject: when a
        rule says so, with 488 when no usable SDP is left, with 400 when a rule needs an SDP that can't be understood.
        """
        step = draft.step
        try:
            self.run(draft, context)
        except Stop:
            return
        except SdpError as error:
            raise RuleReject(400, f"Malformed SDP: {error.reason}", draft.step) from error
        finally:
            draft.step = step

    def run(self, draft: Draft, context: Context) -> None:
        """What `apply` does, without its ending: for included sets. Raises Stop and SdpError too."""
        table = self._tables[context.direction, draft.status != 0]
        if self.variables:
            context.values = {**(context.values or {}), **self.variables}
        for rule in table.by_method.get(draft.method, table.others):
            if rule.needs_sdp and not draft.has_sdp():
                continue
            if rule.needs is not None and not draft.may_have(rule.needs):
                continue
            draft.step = rule.step
            for test in rule.tests:
                if not test(draft, context):
                    break
            else:
                for action in rule.actions:
                    action(draft, context)
