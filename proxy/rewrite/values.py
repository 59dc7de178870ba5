"""The kinds of values of a rule file that belong to SIP: header names, numbers, patterns and templates."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import re2

from proxy.rewrite.nodes import Node, Report, nearest
from proxy.rewrite.schema import Text
from proxy.sip.errors import SipError
from proxy.sip.headers import NameAddr, parse_name_addr
from proxy.sip.message import canonical_key, is_token

if TYPE_CHECKING:
    from proxy.rewrite.draft import Draft
    from proxy.rewrite.engine import Context

__all__ = [
    "ADDRESS_HEADERS",
    "IDENTITY",
    "METHODS",
    "REQUEST_URI",
    "AnyHeaderName",
    "HeaderName",
    "Names",
    "NumberTest",
    "Pattern",
    "PatternKind",
    "Render",
    "StatusTest",
    "Template",
    "TemplateKind",
    "glob_test",
    "known_name",
    "uri_host",
]

REQUEST_URI: Final = "request-uri"
"""Stands for the Request-URI where an action takes header names."""

METHODS: Final = (
    "INVITE",
    "ACK",
    "BYE",
    "CANCEL",
    "OPTIONS",
    "INFO",
    "PRACK",
    "UPDATE",
    "REFER",
    "NOTIFY",
    "SUBSCRIBE",
    "MESSAGE",
    "PUBLISH",
    "REGISTER",
)

IDENTITY: Final = {
    "via": "Via is each hop's own transaction",
    "call-id": "each leg has its own Call-ID",
    "cseq": "each leg counts its own CSeq",
    "contact": "Contact is where we are reached in the dialog",
    "max-forwards": "Max-Forwards stops loops",
    "content-length": "Content-Length is counted from the body",
    "record-route": "Record-Route is the path of one leg's dialog",
    "route": "Route is the path of one leg's dialog",
}
"""Header fields that no rule reaches, and why."""

_ADDRESSES_OF_DIALOG: Final = frozenset(("from", "to"))
_OUT_OF_REACH: Final = frozenset(IDENTITY) | _ADDRESSES_OF_DIALOG

_WRITTEN_LATER: Final = frozenset(
    """
    allow supported require proxy-require unsupported user-agent server session-expires min-se rseq rack timestamp
    authorization proxy-authorization www-authenticate proxy-authenticate authentication-info
    proxy-authentication-info path service-route replaces join target-dialog in-reply-to
    """.split()
)
"""Header fields that speak for one leg's user agent: taken out or written after the rules."""

ADDRESS_HEADERS: Final = (
    "From",
    "To",
    "P-Asserted-Identity",
    "P-Preferred-Identity",
    "Remote-Party-ID",
    "Diversion",
    "History-Info",
    "Refer-To",
    "Referred-By",
    "Reply-To",
    "P-Called-Party-ID",
    "P-Associated-URI",
)
"""Header fields whose values are addresses (name-addr or addr-spec) and in reach of rules."""

_KNOWN_NAMES: Final = (
    "Accept Accept-Encoding Accept-Language Alert-Info Call-Info Content-Disposition Content-Encoding Content-Language "
    "Content-Type Date Error-Info Event Expires Geolocation Identity MIME-Version Organization P-Access-Network-Info "
    "P-Charging-Vector Priority Privacy Reason Retry-After Subject Subscription-State Warning X-Twilio-AccountSid "
    "X-Twilio-CallSid"
).split() + list(ADDRESS_HEADERS)

Render = Callable[["Draft", "Context"], "str | None"]
"""Gives a template's text for a message; None when a value that it needs is not there."""


class HeaderName:
    """A header name for an action that names one: the name as written.

    `writes`: the action gives the header a value, so that one which is written after the rules is refused too.
    `parts`: the action changes an address and leaves tags alone, so that From and To are in reach.
    """

    def __init__(self, *, writes: bool = False, parts: bool = False, globs: bool = False) -> None:
        self.writes = writes
        self.parts = parts
        self.globs = globs
        self.allowed = "a header name" + (" (* stands for any text)" if globs else "")

    def read(self, node: Node, report: Report) -> str | None:
        """Read a header name that the action may touch."""
        name = node.text
        if not node.is_scalar or not is_token(name if self.globs else name.replace("*", " ")):
            report.add(node, "is not a header name", self.allowed)
            return None
        if "*" in name:
            return name
        key = canonical_key(name)
        if key in IDENTITY:
            report.add(node, f"is out of reach of rules: {IDENTITY[key]}", "a header that is no leg's identity")
            return None
        if key in _ADDRESSES_OF_DIALOG and not self.parts:
            report.add(
                node,
                "is out of reach of this action: its tag is the identity of the dialog",
                "edit-address or replace, which leave the tag alone",
            )
            return None
        if self.writes and key in _WRITTEN_LATER:
            report.add(
                node,
                "can't be written by a rule: Trunkline writes or drops it after the rules, for each leg's sake",
            )
            return None
        return name


class AnyHeaderName:
    """A header name for a condition: any, with globs."""

    allowed: str = "a header name (* stands for any text)"

    def read(self, node: Node, report: Report) -> str | None:
        """Read a header name."""
        if not node.is_scalar or not is_token(node.text):
            report.add(node, "is not a header name", self.allowed)
            return None
        return node.text


def known_name(name: str) -> str:
    """The known header name that `name` was probably meant to be; "" when it is fine or like none."""
    return "" if name in _KNOWN_NAMES else nearest(name, _KNOWN_NAMES)


class Names:
    """A set of header names and globs as a rule lists them.

    Attributes:
        keys: the lower-case long forms of the names without a glob.
        globs: tests for the others.
        reaches_all: whether names out of reach count as well (conditions only look).
    """

    __slots__ = ("globs", "keys", "reaches_all")

    def __init__(self, names: list[str], reaches_all: bool = False) -> None:
        self.keys = frozenset([canonical_key(name) for name in names if "*" not in name])
        self.globs = tuple([glob_test(name.lower()) for name in names if "*" in name])
        self.reaches_all = reaches_all

    @property
    def needs(self) -> frozenset[str] | None:
        """The keys of which one must be present for anything to be found; None when that can't be told."""
        return None if self.globs else self.keys

    def test(self) -> Callable[[str], bool]:
        """A function that tells whether a key is meant."""
        if not self.globs:
            return self.keys.__contains__
        keys, globs, reaches_all = self.keys, self.globs, self.reaches_all

        def matches(key: str) -> bool:
            if key in keys:
                return True
            if not key or (key in _OUT_OF_REACH and not reaches_all):
                return False
            return any(glob(key) for glob in globs)

        return matches


def glob_test(glob: str) -> Callable[[str], bool]:
    """A test for a text against a glob, in which `*` stands for any text."""
    if "*" not in glob:
        return glob.__eq__
    if glob == "*":
        return bool
    if glob.endswith("*") and "*" not in glob[:-1]:
        prefix = glob[:-1]
        return lambda text: text.startswith(prefix)
    pattern = compile_pattern("^" + ".*".join([re.escape(part) for part in glob.split("*")]) + "$")
    return lambda text: pattern.search(text.encode("utf-8", "surrogateescape")) is not None


class NumberTest:
    """A condition on a number: `2`, `"2-4"`, `">=2"`, `"<3"`."""

    allowed: str = '2, "2-4", ">=2", ">2", "<=2" or "<2"'

    def read(self, node: Node, report: Report) -> tuple[int, int] | None:
        """Read the range, first and last number included."""
        found = self.range_of(node.text.replace(" ", "")) if node.is_scalar else None
        if found is None or found[0] > found[1]:
            report.add(node, "is not a number or a range of numbers", self.allowed)
            return None
        return found

    def range_of(self, text: str) -> tuple[int, int] | None:
        """The range that a text means, or None."""
        top = 10**9
        for sign, low, high in ((">=", 0, top), ("<=", 0, 0), (">", 1, top), ("<", 0, -1)):
            if text.startswith(sign):
                number = _number(text[len(sign) :])
                if number is None:
                    return None
                return (number + low, top) if high == top else (0, number + high)
        first, dash, last = text.partition("-")
        low_end, high_end = _number(first), _number(last if dash else first)
        return None if low_end is None or high_end is None else (low_end, high_end)


class StatusTest(NumberTest):
    """A condition on a status code: `200`, `4xx`, `"200-299"`, `">=400"`."""

    allowed: str = '200, 4xx, "200-299" or ">=400", from 100 to 699'

    def range_of(self, text: str) -> tuple[int, int] | None:
        """The range that a text means, or None."""
        if len(text) == 3 and text[1:].lower() == "xx" and text[0] in "123456":
            hundreds = int(text[0]) * 100
            return hundreds, hundreds + 99
        found = super().range_of(text)
        if found is None or found[0] > 699 or found[1] < 100:
            return None
        return found if text[0] in "<>" or (found[0] >= 100 and found[1] <= 699) else None


def _number(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 9 else None


class Pattern:
    """A user's regular expression, matched over bytes in linear time, with a literal check in front.

    Attributes:
        text: as written.
        groups: how many groups it has.
        names: the group names and their numbers.
        literal: text that every match contains; "" when none is obvious.
    """

    __slots__ = ("_search", "compiled", "groups", "literal", "names", "text")

    def __init__(self, text: str) -> None:
        self.text = text
        self.compiled = compile_pattern(text)
        self.groups: int = self.compiled.groups
        self.names: dict[str, int] = {
            name.decode("utf-8", "replace") if isinstance(name, bytes) else name: number
            for name, number in self.compiled.groupindex.items()
        }
        self.literal = required_literal(text)
        self._search = self.compiled.search

    def found_in(self, text: str) -> bool:
        """Whether the pattern matches somewhere in `text`."""
        return self.literal in text and self._search(text.encode("utf-8", "surrogateescape")) is not None

    def replace(self, text: str, parts: list[str | int], every: bool) -> str | None:
        """`text` with the first match, or every one, replaced by `parts` (text, or group numbers); None: no match."""
        if self.literal not in text:
            return None
        data = text.encode("utf-8", "surrogateescape")
        out: list[bytes] = []
        at = 0
        for match in self.compiled.finditer(data):
            start, end = match.span()
            out.append(data[at:start])
            for part in parts:
                group = match.group(part) if isinstance(part, int) else part.encode("utf-8", "surrogateescape")
                out.append(group or b"")
            at = end
            if not every:
                break
        if not out:
            return None
        out.append(data[at:])
        return b"".join(out).decode("utf-8", "surrogateescape")


def compile_pattern(text: str) -> Any:
    """Compile a pattern over bytes, each byte a character, so that no text fails to match. Raises re2.error."""
    options = re2.Options()
    options.encoding = re2.Options.Encoding.LATIN1
    options.log_errors = False
    options.max_mem = 1 << 20
    return re2.compile(text.encode("utf-8", "surrogateescape"), options)


_OTHER_ESCAPE: Final = re.compile(r"\\[^\W_dDwWsSbB]")
_OPENING: Final = re.compile(r"\\[^A-Za-z0-9]|[^\\.^$*+?()\[\]{}|]")


def required_literal(pattern: str) -> str:
    """The longest run of characters that each match of a pattern must contain, where that is obvious; else ""."""
    if "|" in pattern or "(?" in pattern.replace("(?P<", "").replace("(?:", "") or _OTHER_ESCAPE.search(pattern):
        return ""
    best = run = ""
    depth = at = 0
    while at < len(pattern):
        if pattern[at] == "[":
            at = _end_of_class(pattern, at)
            token = ""
        else:
            literal = _OPENING.match(pattern, at)
            token = literal.group() if literal and not depth else ""
            depth += {"(": 1, ")": -1}.get(pattern[at], 0)
            at = literal.end() if literal else at + (2 if pattern[at] == "\\" else 1)
        quantifier = pattern[at : at + 1]
        if token and quantifier not in ("*", "?", "{"):
            run += token[-1]
        if not token or quantifier in ("*", "?", "{", "+"):
            best, run = max(best, run, key=len), ""
    best = max(best, run, key=len)
    return best if len(best) > 1 else ""


def _end_of_class(pattern: str, at: int) -> int:
    """The position after the character class that begins at `at`."""
    at += 2 if pattern.startswith("[^", at) else 1
    at += pattern[at : at + 1] == "]"
    while at < len(pattern) and pattern[at] != "]":
        if pattern.startswith("[:", at):
            at = pattern.find(":]", at) + 1 or len(pattern)
        at += 2 if pattern[at : at + 1] == "\\" else 1
    return at + 1


def _beyond_ascii(pattern: str) -> str:
    """The first character beyond ASCII that would be torn into bytes: in a class, or with a quantifier; else ""."""
    at = 0
    while at < len(pattern):
        char = pattern[at]
        if char == "[":
            end = _end_of_class(pattern, at)
            inside = [one for one in pattern[at:end] if not one.isascii()]
            if inside:
                return inside[0]
            at = end
        elif char == "\\":
            at += 2
        elif not char.isascii() and pattern[at + 1 : at + 2] in ("*", "+", "?", "{"):
            return char
        else:
            at += 1
    return ""


class PatternKind:
    """A regular expression."""

    allowed: str = "a regular expression in RE2 syntax (no look-around, no back-references)"

    def __init__(self) -> None:
        self.text = Text(limit=1000)

    def read(self, node: Node, report: Report) -> Pattern | None:
        """Read and compile a pattern."""
        text = self.text.read(node, report)
        if text is None:
            return None
        beyond = _beyond_ascii(text)
        if beyond:
            report.add(node, f"has {beyond} in a class or before a quantifier; patterns match bytes", f"(?:{beyond})")
            return None
        try:
            return Pattern(text)
        except re2.error as error:
            why = error.args[0] if error.args else b""
            told = why.decode("utf-8", "replace") if isinstance(why, bytes) else str(why)
            report.add(node, f"is not a regular expression: {told}", self.allowed)
            return None


class Template:
    """Text with values in it.

    Attributes:
        text: as written.
        parts: in order, text or functions that give it.
        constant: the text when there is nothing to fill in; else None.
    """

    __slots__ = ("constant", "parts", "text")

    def __init__(self, text: str, parts: list[str | Render]) -> None:
        self.text = text
        self.parts = parts
        self.constant = (
            "".join([part for part in parts if isinstance(part, str)])
            if all(isinstance(part, str) for part in parts)
            else None
        )

    def render(self) -> Render:
        """The function that gives the text for a message."""
        constant = self.constant
        if constant is not None:
            return lambda draft, context: constant
        if len(self.parts) == 1 and not isinstance(self.parts[0], str):
            return self.parts[0]
        parts = tuple(self.parts)

        def rendered(draft: Draft, context: Context) -> str | None:
            out: list[str] = []
            for part in parts:
                text = part if isinstance(part, str) else part(draft, context)
                if text is None:
                    return None
                out.append(text)
            return "".join(out)

        return rendered


def _address(key: str, part: Callable[[NameAddr], str | None]) -> Render:
    """A variable that is a part of From or To."""

    def value(draft: Draft, context: Context) -> str | None:
        item = draft.find(key)
        if item is None:
            return None
        try:
            return part(parse_name_addr(item.value))
        except SipError:
            return None

    return value


def _header_value(key: str) -> Render:
    def value(draft: Draft, context: Context) -> str | None:
        item = draft.find(key)
        return None if item is None else item.value

    return value


def _display(address: NameAddr) -> str | None:
    text = address.display
    return text[1:-1].replace('\\"', '"').replace("\\\\", "\\") if text.startswith('"') else text or None


VARIABLES: Final[dict[str, Render]] = {
    "call.id": lambda draft, context: context.call_id,
    "attempt": lambda draft, context: str(context.attempt),
    "direction": lambda draft, context: context.direction,
    "method": lambda draft, context: draft.method,
    "local.host": lambda draft, context: context.local_host,
    "target.host": lambda draft, context: context.target_host,
    "transport": lambda draft, context: context.transport,
    "source": lambda draft, context: context.source,
    "from.user": _address("from", lambda address: address.uri.user),
    "from.host": _address("from", lambda address: address.uri.host or None),
    "from.display-name": _address("from", _display),
    "to.user": _address("to", lambda address: address.uri.user),
    "to.host": _address("to", lambda address: address.uri.host or None),
    "to.display-name": _address("to", _display),
}
"""The values that a template can name, beside `{header.NAME}`."""


class TemplateKind:
    """Text in which `{name}` stands for a value, and `{{` and `}}` for braces."""

    allowed: str = "text with values from: " + ", ".join([f"{{{name}}}" for name in VARIABLES]) + ", {header.NAME}"

    def __init__(self) -> None:
        self.text = Text()

    def read(self, node: Node, report: Report) -> Template | None:
        """Read a template."""
        text = self.text.read(node, report)
        if text is None:
            return None
        parts = self.parts(text, node, report)
        return None if parts is None else Template(text, parts)

    def parts(self, text: str, node: Node, report: Report) -> list[str | Render] | None:
        """Split a template; every unknown name is reported at `node`."""
        parts: list[str | Render] = []
        literal = ""
        good = True
        at = 0
        while at < len(text):
            if text[at : at + 2] in ("{{", "}}"):
                literal += text[at]
                at += 2
                continue
            if text[at] == "}":
                report.add(node, 'has a "}" without its "{"', "}} for a brace in the text")
                return None
            if text[at] != "{":
                literal += text[at]
                at += 1
                continue
            end = text.find("}", at)
            if end < 0:
                report.add(node, 'has a "{" without its "}"', "{{ for a brace in the text")
                return None
            variable = self.variable(text[at + 1 : end], node, report)
            good = good and variable is not None
            if literal:
                parts.append(literal)
                literal = ""
            if variable is not None:
                parts.append(variable)
            at = end + 1
        if literal:
            parts.append(literal)
        return parts if good else None

    def variable(self, name: str, node: Node, report: Report) -> Render | None:
        """The value that a name stands for."""
        found = VARIABLES.get(name)
        if found is not None:
            return found
        if name.startswith("header.") and is_token(name[7:]):
            return _header_value(canonical_key(name[7:]))
        known = [*VARIABLES, "header.NAME"]
        allowed = ", ".join([f"{{{word}}}" for word in known])
        report.add(node, f"names an unknown value, {{{name}}}", allowed, nearest(name, known))
        return None


def uri_host(text: str | None) -> str | None:
    """A host as it stands in a URI, an IPv6 address in brackets; None for what can't be a host."""
    if not text or not text.isascii():
        return None
    if ":" in text:
        inner = text[1:-1] if text[0] == "[" and text[-1] == "]" else text
        return f"[{inner}]" if inner.replace(":", "").replace(".", "").isalnum() else None
    return text if text.replace(".", "").replace("-", "").replace("_", "").isalnum() else None
