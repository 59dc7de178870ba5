"""Rule sets: compiled rules that edit a message on its way from one leg to the other."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Final

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
    """

    def __init__(self, status: int, reason: str, rule: str) -> None:
        super().__init__(f"{status} {reason} ({rule})")
        self.status = status
        self.reason = reason
        self.rule = rule


class Rule:
    """One compiled rule.

    Attributes:
        id: its id, unique in the set.
        why: the reason that its author gave.
        step: `rule:<set>/<id>`, as it stands in change records.
        line: where it begins in its file, from 1 on.
        tests: all must hold.
        actions: done in order.
    """

    __slots__ = ("actions", "id", "line", "step", "tests", "why")

    def __init__(
        self,
        id: str,
        why: str,
        step: str,
        line: int,
        tests: tuple[Callable[[Draft, Context], bool], ...],
        actions: tuple[Callable[[Draft, Context], None], ...],
    ) -> None:
        self.id = id
        self.why = why
        self.step = step
        self.line = line
        self.tests = tests
        self.actions = actions


class RuleSet:
    """The rules of one file, in order. Immutable.

    Attributes:
        name: the name of the set.
        source: the file that it was read from.
        version: the first 12 hex digits of the SHA-256 of the file's content.
        description: what the author says of it.
        rules: all enabled rules.
    """

    __slots__ = ("description", "name", "rules", "source", "version")

    def __init__(self, name: str, source: str, version: str, rules: Iterable[Rule], description: str = "") -> None:
        self.name = name
        self.source = source
        self.version = version
        self.description = description
        self.rules = tuple(rules)

    def apply(self, draft: Draft, context: Context) -> None:
        """Edit the draft by every rule that matches, in order. Raises RuleReject."""
        for rule in self.rules:
            if all([test(draft, context) for test in rule.tests]):
                draft.step = rule.step
                for action in rule.actions:
                    action(draft, context)
