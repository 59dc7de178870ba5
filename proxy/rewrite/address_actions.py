"""`do`: actions on the parts of addresses: display name, URI parts, URI and header parameters."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from proxy.rewrite.action import Action, ActionSpec, finder, with_value
from proxy.rewrite.actions import chosen
from proxy.rewrite.header_tests import INSTANCE
from proxy.rewrite.names import ADDRESS_HEADERS, REQUEST_URI, HeaderName, Names
from proxy.rewrite.nodes import Node, Report
from proxy.rewrite.numbers import DialPlan
from proxy.rewrite.schema import Field, Keys, Many, Mapped, Schema, Values, Whole, Word, WordOr
from proxy.rewrite.templates import Render, Template, TemplateKind, uri_host
from proxy.sip.errors import SipError
from proxy.sip.headers import NameAddr, parse_name_addr, split_values
from proxy.sip.message import Header, is_token
from proxy.sip.uri import Params, Uri, parse_params, parse_uri, render_params

if TYPE_CHECKING:
    from proxy.rewrite.draft import Draft
    from proxy.rewrite.engine import Context

__all__ = ["ADDRESS_ACTIONS"]

UriEdit = Callable[[Uri, "Draft", "Context"], Uri]
AddressEdit = Callable[[NameAddr, "Draft", "Context"], NameAddr]

_USER_EXTRA: Final = frozenset("-_.!~*'()&=+$,;?/%")
_NO_ADDRESS_HIDES: Final = "anonymous.invalid"


class ParameterName:
    """The name of a URI or header parameter."""

    allowed: str = "a parameter's name"

    def read(self, node: Node, report: Report) -> str | None:
        """Read a name."""
        if not node.is_scalar or not is_token(node.text):
            report.add(node, "is not a parameter's name", self.allowed)
            return None
        return node.text.lower()

    def schema(self) -> Schema:
        """As JSON Schema."""
        return {"type": "string"}


class HeaderParameterName(ParameterName):
    """The name of a header parameter that a rule may remove."""

    allowed: str = "a parameter's name other than tag"

    def read(self, node: Node, report: Report) -> str | None:
        """Read a name."""
        if node.text.lower() == "tag":
            report.add(node, "is out of reach of rules: it is the identity of the dialog", self.allowed)
            return None
        return super().read(node, report)


# Applying an edit of addresses


def _over(
    names: list[str],
    edit: AddressEdit,
    uri_edit: UriEdit,
    marks: Callable[[str], bool] | None = None,
    hides: bool = False,
    instance: int | None = None,
) -> Action:
    """An action that edits every address of the named headers, and the Request-URI where it is named.

    `marks` tells cheaply whether a line or URI may need the edit at all. `hides`: a value that is no address can't be
    edited and is removed, since the edit is there to hide something. `instance`: only this one of the header fields.
    """
    takes_uri = REQUEST_URI in names
    meant = Names([name for name in names if name != REQUEST_URI])
    find = finder(meant)

    def run(draft: Draft, context: Context) -> None:
        if takes_uri and draft.uri and (marks is None or marks(draft.uri)):
            _edit_request_uri(draft, context, uri_edit)
        for at in reversed(chosen(find(draft), instance)):
            item = draft.headers[at]
            if not item.value if marks is None else not marks(item.line):
                continue
            try:
                value = _edited(item, edit, draft, context)
            except SipError:
                if hides and item.key not in ("from", "to"):
                    draft.remove(at)
                continue
            if value is not None:
                draft.replace(at, with_value(item, value))

    return Action(run, None if takes_uri else meant.needs)


def _edit_request_uri(draft: Draft, context: Context, edit: UriEdit) -> None:
    try:
        uri = parse_uri(draft.uri)
    except SipError:
        return
    after = edit(uri, draft, context)
    if after is not uri:
        draft.set_uri(after.text)


def _edited(item: Header, edit: AddressEdit, draft: Draft, context: Context) -> str | None:
    """The value of a header with its addresses edited; None when nothing changed. Raises SipError."""
    values = split_values(item.value)
    changed = False
    for at, value in enumerate(values):
        before = parse_name_addr(value)
        after = edit(before, draft, context)
        if after is not before:
            changed = True
            values[at] = str(after)
    return ", ".join(values) if changed else None


# edit-address


def _edit_address(values: Values, node: Node, report: Report) -> Action | None:
    if not set(values) - {"headers", "instance"}:
        changing = [name for name in _EDIT_ADDRESS.known if name not in ("headers", "instance")]
        report.add(node, "changes nothing", ", ".join(changing))
        return None
    uri_edit = _uri_edit(values)
    shown: str | Template | None = values.get("display-name")
    display = shown.render() if isinstance(shown, Template) else shown
    edit_params = _header_params_edit(values)

    def edit(address: NameAddr, draft: Draft, context: Context) -> NameAddr:
        before = address.uri
        uri = uri_edit(before, draft, context)
        if uri is not before:
            address = address.replace(uri_text=uri.text)
        if display is not None:
            name = "" if isinstance(display, str) else display(draft, context)
            if name is not None and _quoted(name) != address.display:
                address = address.replace(display=_quoted(name))
        params = edit_params(address.params, draft, context)
        return address if params == address.params else address.replace(params=params)

    return _over(values["headers"], edit, uri_edit, hides=True, instance=values.get("instance"))


ParamsEdit = Callable[[Params, "Draft", "Context"], Params]


def _params_edit(
    gone: frozenset[str], kept: frozenset[str] | None, given: dict[str, Template], forbidden: str
) -> ParamsEdit:
    """An edit of parameters: some go, or all but some; others get a value, "" meaning none."""
    renders = tuple([(name, template.render()) for name, template in given.items()])
    allowed = "[]/:&+$-_.!~*'()%@" if forbidden == "uri" else "-.!%*_+`'~:[]@/"

    def edit(params: Params, draft: Draft, context: Context) -> Params:
        if params and (gone or kept is not None):
            params = tuple(
                [pair for pair in params if pair[0].lower() not in gone and (kept is None or pair[0].lower() in kept)]
            )
        for name, render in renders:
            text = render(draft, context)
            if text is None:
                continue
            pair = (name, _param_value(text, allowed, forbidden == "header") if text else None)
            if any(key.lower() == name for key, _ in params):
                params = tuple([pair if key.lower() == name else (key, value) for key, value in params])
            else:
                params = (*params, pair)
        return params

    return edit


def _param_value(text: str, allowed: str, may_quote: bool) -> str:
    """A parameter's value: as it is, else in quotes behind an address, escaped in a URI (RFC 3261 section 25.1)."""
    if all((char.isascii() and char.isalnum()) or char in allowed for char in text):
        return text
    if may_quote:
        return _quoted(text)
    return "".join(
        [char if (char.isascii() and char.isalnum()) or char in allowed else _escaped(char) for char in text]
    )


def _header_params_edit(values: Values) -> ParamsEdit:
    kept = frozenset([*values["keep-header-params"], "tag"]) if "keep-header-params" in values else None
    return _params_edit(
        frozenset(values.get("remove-header-params", ())), kept, values.get("set-header-params", {}), "header"
    )


def _quoted(name: str) -> str:
    """A display name as a quoted string (RFC 3261 section 25.1); "" for none."""
    plain = name.replace("\r", " ").replace("\n", " ").replace("\x00", " ").strip()
    return '"' + plain.replace("\\", "\\\\").replace('"', '\\"') + '"' if plain else ""


def _uri_edit(values: Values) -> UriEdit:
    """Compile the parts of `edit-address` that concern the URI."""
    scheme: str | None = values.get("scheme")
    host: Render | None = values["host"].render() if "host" in values else None
    user: Render | None = values["user"].render() if "user" in values else None
    port: int | str | None = values.get("port")
    new_port = port if isinstance(port, int) else None
    kept = frozenset(values["keep-params"]) if "keep-params" in values else None
    edit_params = _params_edit(frozenset(values.get("remove-params", ())), kept, values.get("set-params", {}), "uri")

    def edit(uri: Uri, draft: Draft, context: Context) -> Uri:
        if uri.opaque is not None:
            return uri
        params = edit_params(uri.params, draft, context)
        after_user = uri.user if user is None else _uri_user(user(draft, context)) or uri.user
        if uri.scheme == "tel" and scheme not in ("sip", "sips"):
            after = uri.replace(user=after_user, params=params)
            return uri if after.text == uri.text else after
        if scheme is not None and (scheme == "tel") != (uri.scheme == "tel"):
            changed = uri if after_user == uri.user else uri.replace(user=after_user)
            new_host = context.local_host if host is None else host(draft, context)
            return _as_tel(changed, params) if scheme == "tel" else _as_sip(changed, scheme, params, new_host, new_port)
        after_host = uri.host if host is None else uri_host(host(draft, context)) or uri.host
        if uri.host.lower() == _NO_ADDRESS_HIDES:
            after_host = uri.host
        after_port = uri.port if port is None else new_port
        after_scheme = scheme or uri.scheme
        if (
            after_host == uri.host
            and after_port == uri.port
            and after_user == uri.user
            and after_scheme == uri.scheme
            and params == uri.params
        ):
            return uri
        return uri.replace(
            scheme=after_scheme,
            user=after_user if after_user != uri.user else None,
            host=after_host,
            port=after_port,
            params=params,
        )

    return edit


_TEL_PARAMS: Final = frozenset(("ext", "isub", "phone-context", "tgrp", "trunk-context", "cpc", "npdi", "rn", "cic"))


def _as_sip(uri: Uri, scheme: str, params: Params, host: str | None, port: int | None) -> Uri:
    """A tel URI as a SIP URI (RFC 3261 section 19.1.6): the number with its parameters is the user part."""
    text = uri_host(host)
    if text is None:
        return uri
    separators = str.maketrans("", "", "-.()")
    number = (uri.user or "").translate(separators)
    return Uri(scheme, number + render_params(params), text, port, (("user", "phone"),))


def _as_tel(uri: Uri, params: Params) -> Uri:
    """A SIP URI with a global number for user as a tel URI; any other one stays (RFC 3966 section 5.1.4)."""
    number, semicolon, inner = (uri.user or "").partition(";")
    digits = number.removeprefix("+")
    if not number.startswith("+") or not digits.isdigit() or not digits.isascii():
        return uri
    kept = tuple([pair for pair in params if pair[0].lower() in _TEL_PARAMS])
    try:
        return Uri("tel", number, "", None, (*parse_params(inner), *kept) if semicolon else kept)
    except SipError:
        return uri


def _uri_user(text: str | None) -> str | None:
    """A user part with what can't stand in one escaped (RFC 3261 section 25.1); None for no text."""
    if not text:
        return None
    if text.isascii() and text.replace("+", "").isalnum():
        return text
    out = [char if char in _USER_EXTRA or (char.isascii() and char.isalnum()) else _escaped(char) for char in text]
    return "".join(out)


def _escaped(char: str) -> str:
    return "".join([f"%{byte:02X}" for byte in char.encode("utf-8", "surrogateescape")])


# dedupe-params


def _dedupe_params(names: str | list[str], node: Node, report: Report) -> Action:
    def uri_edit(uri: Uri, draft: Draft, context: Context) -> Uri:
        return uri.without_duplicate_params()

    def edit(address: NameAddr, draft: Draft, context: Context) -> NameAddr:
        before = address.uri
        uri = before.without_duplicate_params()
        if uri is not before:
            address = address.replace(uri_text=uri.text)
        keys = [name.lower() for name, _ in address.params]
        if len(set(keys)) < len(keys):
            once = [pair for at, pair in enumerate(address.params) if keys[at] not in keys[:at]]
            address = address.replace(params=tuple(once))
        return address

    affected = [REQUEST_URI, *ADDRESS_HEADERS] if isinstance(names, str) else names
    return _over(affected, edit, uri_edit, _may_repeat_params)


def _may_repeat_params(text: str) -> bool:
    """Whether a text has two semicolons, before which there is no parameter twice."""
    return text.find(";", text.find(";") + 1 or len(text)) >= 0


# e164


def _e164(values: Values, node: Node, report: Report) -> Action:
    plan = DialPlan(
        values["country"],
        values.get("international-prefix"),
        values.get("trunk-prefix"),
        values.get("national-digits", 0),
    )

    def uri_edit(uri: Uri, draft: Draft, context: Context) -> Uri:
        if uri.user is None or uri.opaque is not None:
            return uri
        number, semicolon, inner = uri.user.partition(";")
        after = plan.e164(number)
        return uri if after is None or after == number else uri.replace(user=after + semicolon + inner)

    def edit(address: NameAddr, draft: Draft, context: Context) -> NameAddr:
        before = address.uri
        uri = uri_edit(before, draft, context)
        return address if uri is before else address.replace(uri_text=uri.text)

    return _over(values["headers"], edit, uri_edit)


class Digits:
    """Some digits."""

    def __init__(self, limit: int, allow_empty: bool = False) -> None:
        self.limit = limit
        self.allow_empty = allow_empty
        self.allowed = f"up to {limit} digits" + (", or none" if allow_empty else "")

    def read(self, node: Node, report: Report) -> str | None:
        """Read digits as text, so that leading zeros stay."""
        text = node.text
        good = node.is_scalar and len(text) <= self.limit and (text.isdigit() if text else self.allow_empty)
        if not good or not text.isascii():
            report.add(node, "is no digits", self.allowed)
            return None
        return text

    def schema(self) -> Schema:
        """As JSON Schema."""
        low = 0 if self.allow_empty else 1
        return {"anyOf": [{"type": "integer"}, {"type": "string", "pattern": f"^[0-9]{{{low},{self.limit}}}$"}]}


_EDIT_ADDRESS: Final = Keys(
    {
        "headers": Field(Many(HeaderName(parts=True)), True),
        "instance": INSTANCE,
        "scheme": Field(Word(("sip", "sips", "tel"))),
        "user": Field(TemplateKind()),
        "host": Field(TemplateKind()),
        "port": Field(WordOr("none", Whole(1, 65535))),
        "display-name": Field(WordOr("none", TemplateKind())),
        "remove-params": Field(Many(ParameterName())),
        "keep-params": Field(Many(ParameterName())),
        "set-params": Field(Mapped(ParameterName(), TemplateKind(allow_empty=True), 20)),
        "remove-header-params": Field(Many(HeaderParameterName())),
        "keep-header-params": Field(Many(ParameterName())),
        "set-header-params": Field(Mapped(HeaderParameterName(), TemplateKind(allow_empty=True), 20)),
    }
)
_E164: Final = Keys(
    {
        "headers": Field(Many(HeaderName(parts=True)), True),
        "country": Field(Digits(3), True, "The country code, such as 1 or 49."),
        "international-prefix": Field(Digits(4), help="What is dialed before a country code. Default: 011 or 00."),
        "trunk-prefix": Field(Digits(3, True), help="What is dialed before an area code. Default: none, or 0."),
        "national-digits": Field(Whole(4, 13), help="How many digits a national number has. Default: any; 10 for 1."),
    }
)

ADDRESS_ACTIONS: Final[dict[str, ActionSpec]] = {
    "edit-address": ActionSpec(_EDIT_ADDRESS, _edit_address, "Changes parts of the addresses in headers."),
    "dedupe-params": ActionSpec(
        WordOr("all", Many(HeaderName(parts=True))), _dedupe_params, "Leaves each parameter of an address once."
    ),
    "e164": ActionSpec(_E164, _e164, "Writes the numbers in addresses as + and digits (E.164)."),
}
"""The actions on addresses, by the key that names them."""
