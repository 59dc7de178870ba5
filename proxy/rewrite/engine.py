"""Rule sets: compiled rules that edit a message on its way from one leg to the other."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Final

from proxy.sdp.errors import SdpError

if TYPE_CHECKING:
    from proxy.rewrite.draft import Draft

__all__ = ["A_TO_B", "B_TO_A", "Context", "Rule", "RuleReject", "RuleSet"]

A_TO_B: Final = "a-to-b"
B_TO_A: Final = "b-to-a"


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
    """

    __slots__ = (
        "attempt",
        "call_id",
        "codecs",
        "crypto_suites",
        "direction",
        "local_host",
        "source",
        "target_host",
        "transport",
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
    ) -> None:
        self.direction = direction
        self.call_id = call_id
        self.attempt = attempt
        self.local_host = local_host
        self.target_host = target_host
        self.codecs = codecs
        self.crypto_suites = crypto_suites
        self.transport = transport
        self.source = source


class RuleReject(Exception):
    """A rule refuses the message, or its SDP can't be made usable.

    Attributes:
        status: the SIP status code for the answer, 400 to 699.
        reason: the reason phrase.
        rule: the step that refused, `rule:<set>/<rule id>`.
        silent: whether a request that is no call yet gets no answer at all.
    """

    def __init__(self, status: int, reason: str, rule: str, silent: bool = False) -> None:
        super().__init__(f"{status} {reason} ({rule})")
        self.status = status
        self.reason = reason
        self.rule = rule
        self.silent = silent


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
        needs: header keys (lower-case long form) of which one must be present, or the rule changes nothing; None when
            that can't be told.
        needs_sdp: whether the body must be SDP, or the rule changes nothing.
    """

    __slots__ = (
        "actions",
        "direction",
        "id",
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
        tests: tuple[Callable[[Draft, Context], bool], ...] = (),
        actions: tuple[Callable[[Draft, Context], None], ...] = (),
        needs: frozenset[str] | None = None,
        needs_sdp: bool = False,
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
        self.needs = needs
        self.needs_sdp = needs_sdp


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
    """The rules of one file, in order. Immutable.

    Attributes:
        name: the name of the set.
        source: the file that it was read from.
        version: the first 12 hex digits of the SHA-256 of the file's content.
        description: what the author says of it.
        rules: all enabled rules.
    """

    __slots__ = ("_tables", "description", "name", "rules", "source", "version")

    def __init__(self, name: str, source: str, version: str, rules: Iterable[Rule], description: str = "") -> None:
        self.name = name
        self.source = source
        self.version = version
        self.description = description
        self.rules = tuple(rules)
        self._tables = {
            (direction, message == "response"): _Table(
                [rule for rule in self.rules if rule.direction in (None, direction) and rule.message in (None, message)]
            )
            for direction in (A_TO_B, B_TO_A)
            for message in ("request", "response")
        }

    def __repr__(self) -> str:
        return f"<RuleSet {self.name} {self.version} of {len(self.rules)} rules>"

    def apply(self, draft: Draft, context: Context) -> None:
        """Edit the draft by every rule that matches, in order; a later rule sees what the earlier ones did.

        Each edit is recorded under the rule's step; afterwards `draft.step` is what it was. Raises RuleReject: when a
        rule says so, with 488 when no usable SDP is left, with 400 when a rule needs an SDP that can't be understood.
        """
        table = self._tables[context.direction, draft.status != 0]
        rules = table.by_method.get(draft.method, table.others)
        step = draft.step
        changes = draft.changes
        changed = len(changes)
        present = {item.key for item in draft.headers}
        has_sdp = draft.has_sdp()
        try:
            for rule in rules:
                if len(changes) != changed:
                    changed = len(changes)
                    present = {item.key for item in draft.headers}
                    has_sdp = draft.has_sdp()
                if rule.needs_sdp and not has_sdp:
                    continue
                if rule.needs is not None and present.isdisjoint(rule.needs):
                    continue
                draft.step = rule.step
                for test in rule.tests:
                    if not test(draft, context):
                        break
                else:
                    for action in rule.actions:
                        action(draft, context)
        except SdpError as error:
            raise RuleReject(400, f"Malformed SDP: {error.reason}", draft.step) from error
        finally:
            draft.step = step
