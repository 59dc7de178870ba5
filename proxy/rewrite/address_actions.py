"""`do`: actions on the parts of addresses: display name, URI parts, URI and header parameters."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from proxy.rewrite.actions import Action, ActionSpec, with_value
from proxy.rewrite.names import ADDRESS_HEADERS, REQUEST_URI, HeaderName, Names
from proxy.rewrite.nodes import Node, Report
from proxy.rewrite.schema import Field, Keys, Many, Values, Whole, Word, WordOr
from proxy.rewrite.templates import Render, Template, TemplateKind, uri_host
from proxy.sip.errors import SipError
from proxy.sip.headers import NameAddr, parse_name_addr, split_values
from proxy.sip.message import Header, is_token
from proxy.sip.uri import Params, Uri, parse_uri

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


def _over(names: list[str], edit: AddressEdit, uri_edit: UriEdit, marks: Callable[[str], bool], hides: bool) -> Action:
    """An action that edits every address of the named headers, and the Request-URI where it is named.

    `marks` tells cheaply whether a value may need the edit at all. `hides`: a value that is no address can't be edited
    and is removed, since the edit is there to hide something.
    """
    takes_uri = REQUEST_URI in names
    meant = Names([name for name in names if name != REQUEST_URI])
    test = meant.test()

    def run(draft: Draft, context: Context) -> None:
        if takes_uri and draft.uri and marks(draft.uri):
            _edit_request_uri(draft, context, uri_edit)
        for at in range(len(draft.headers) - 1, -1, -1):
            item = draft.headers[at]
            if not test(item.key) or not marks(item.value):
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
    if len(values) < 2:
        report.add(node, "changes nothing", ", ".join([name for name in _EDIT_ADDRESS.known if name != "headers"]))
        return None
    uri_edit = _uri_edit(values)
    shown: str | Template | None = values.get("display-name")
    display = shown.render() if isinstance(shown, Template) else shown
    gone = frozenset(values.get("remove-header-params", ()))

    def edit(address: NameAddr, draft: Draft, context: Context) -> NameAddr:
        before = address.uri
        uri = uri_edit(before, draft, context)
        if uri is not before:
            address = address.replace(uri_text=uri.text)
        if display is not None:
            name = "" if isinstance(display, str) else display(draft, context)
            if name is not None and _quoted(name) != address.display:
                address = address.replace(display=_quoted(name))
        if gone and any(name.lower() in gone for name, _ in address.params):
            address = address.replace(params=_without(address.params, gone))
        return address

    return _over(values["headers"], edit, uri_edit, bool, hides=True)


def _without(params: Params, gone: frozenset[str]) -> Params:
    return tuple([pair for pair in params if pair[0].lower() not in gone])


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
    gone = frozenset(values.get("remove-params", ()))
    kept = frozenset(values["keep-params"]) if "keep-params" in values else None

    def edit(uri: Uri, draft: Draft, context: Context) -> Uri:
        if uri.opaque is not None:
            return uri
        params = uri.params
        if params and (gone or kept is not None):
            params = tuple(
                [pair for pair in params if pair[0].lower() not in gone and (kept is None or pair[0].lower() in kept)]
            )
        after_user = uri.user if user is None else _uri_user(user(draft, context)) or uri.user
        if uri.scheme == "tel":
            after = uri.replace(user=after_user, params=params)
            return uri if after.text == uri.text else after
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
            and len(params) == len(uri.params)
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

    chosen = [REQUEST_URI, *ADDRESS_HEADERS] if isinstance(names, str) else names
    return _over(chosen, edit, uri_edit, lambda value: value.count(";") > 1, hides=False)


_EDIT_ADDRESS: Final = Keys(
    {
        "headers": Field(Many(HeaderName(parts=True)), True),
        "scheme": Field(Word(("sip", "sips"))),
        "user": Field(TemplateKind()),
        "host": Field(TemplateKind()),
        "port": Field(WordOr("none", Whole(1, 65535))),
        "display-name": Field(WordOr("none", TemplateKind())),
        "remove-params": Field(Many(ParameterName())),
        "keep-params": Field(Many(ParameterName())),
        "remove-header-params": Field(Many(HeaderParameterName())),
    }
)

ADDRESS_ACTIONS: Final[dict[str, ActionSpec]] = {
    "edit-address": ActionSpec(_EDIT_ADDRESS, _edit_address),
    "dedupe-params": ActionSpec(WordOr("all", Many(HeaderName(parts=True))), _dedupe_params),
}
"""The actions on addresses, by the key that names them."""
