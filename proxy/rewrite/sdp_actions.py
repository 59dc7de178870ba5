"""`do: sdp`: actions on the session description, compiled to functions on its editor."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from proxy.rewrite.actions import Action, ActionSpec
from proxy.rewrite.engine import Context, RuleReject
from proxy.rewrite.match import DIRECTIONS, CodecName, SdpToken
from proxy.rewrite.names import glob_test
from proxy.rewrite.nodes import Node, Report
from proxy.rewrite.schema import Field, Flag, Keys, Many, Values, Whole, Word, WordOr
from proxy.rewrite.templates import Template, TemplateKind
from proxy.sdp.editor import MAX_PTIME_MS, WEBRTC_ATTRIBUTES, Editor
from proxy.sdp.errors import SdpError

if TYPE_CHECKING:
    from proxy.rewrite.draft import Draft

__all__ = ["SDP_ACTION", "SDP_OPERATIONS"]

Operation = Callable[[Editor, "Draft", "Context"], None]

_SAFE: Final = "safe"
_WEBRTC: Final = "webrtc"


def _codecs(names: str | list[str]) -> Operation:
    if isinstance(names, str):
        return lambda editor, draft, context: editor.keep_codecs(context.codecs)
    return lambda editor, draft, context: editor.keep_codecs(names)


def _deny_codecs(names: list[str]) -> Operation:
    return lambda editor, draft, context: editor.deny_codecs(names)


def _order_codecs(names: str | list[str]) -> Operation:
    if isinstance(names, str):
        return lambda editor, draft, context: editor.order_codecs(context.codecs)
    return lambda editor, draft, context: editor.order_codecs(names)


def _crypto(suites: str | list[str]) -> Operation:
    if isinstance(suites, str):
        return lambda editor, draft, context: editor.keep_crypto(context.crypto_suites)
    return lambda editor, draft, context: editor.keep_crypto(suites)


def _ptime(values: Values | bool) -> Operation:
    settings: Values = {} if isinstance(values, bool) else values
    default_ms: int = settings.get("default-ms", 20)
    allowed = sorted({*settings.get("allowed-ms", (10, 20, 30, 40, 60)), default_ms})
    return lambda editor, draft, context: editor.fix_ptime(default_ms, allowed)


def _drop_attributes(names: list[str]) -> Operation:
    chosen: list[str] = []
    for name in names:
        chosen.extend(WEBRTC_ATTRIBUTES if name == _WEBRTC else (name,))
    exact = frozenset([name for name in chosen if "*" not in name])
    prefixes = tuple([name[:-1] for name in chosen if name.find("*") == len(name) - 1])
    globs = [glob_test(name) for name in chosen if -1 < name.find("*") < len(name) - 1]

    def operation(editor: Editor, draft: Draft, context: Context) -> None:
        for line in editor.session.lines:
            if line.startswith("a="):
                name = line[2:].partition(":")[0].strip()
                if name in exact or name.startswith(prefixes) or (globs and any(glob(name) for glob in globs)):
                    editor.drop_attributes(chosen)
                    return

    return operation


def _keep_attributes(names: list[str]) -> Operation:
    return lambda editor, draft, context: editor.keep_attributes(names)


def _keep_media(kinds: list[str]) -> Operation:
    return lambda editor, draft, context: editor.keep_media(kinds)


def _drop_bandwidth(types: bool | list[str]) -> Operation:
    if isinstance(types, bool):
        return lambda editor, draft, context: editor.drop_bandwidth()
    return lambda editor, draft, context: editor.drop_bandwidth(types)


def _direction(direction: str) -> Operation:
    return lambda editor, draft, context: editor.set_direction(direction)


def _text_operation(template: Template, edit: Callable[[Editor, str], None]) -> Operation:
    """An operation that puts a template's text into the SDP; text that can't stand there changes nothing."""
    render = template.render()

    def operation(editor: Editor, draft: Draft, context: Context) -> None:
        text = render(draft, context)
        if text:
            try:
                edit(editor, text)
            except ValueError:
                return

    return operation


def _origin_address(template: Template) -> Operation:
    return _text_operation(template, Editor.set_origin_address)


def _connection_address(template: Template) -> Operation:
    return _text_operation(template, Editor.set_connection_address)


def _session_name(template: Template) -> Operation:
    return _text_operation(template, Editor.set_session_name)


def _origin_user(template: Template) -> Operation:
    def edit(editor: Editor, text: str) -> None:
        editor.set_origin(text, editor.session.origin_address or "0.0.0.0")

    return _text_operation(template, edit)


class Switch(Flag):
    """`true`: an operation without settings; leave the key out where it is not wanted."""

    allowed: str = "true"

    def read(self, node: Node, report: Report) -> bool | None:
        """Read `true`."""
        value = super().read(node, report)
        if value is False:
            report.add(node, "does nothing; leave the key out", self.allowed)
            return None
        return value


class FlagOr:
    """`true`, or something of another kind."""

    def __init__(self, other: Any) -> None:
        self.other = other
        self.allowed: str = f"true, or {other.allowed}"

    def read(self, node: Node, report: Report) -> Any:
        """Read `true` or the other kind."""
        return Switch().read(node, report) if node.kind == "flag" else self.other.read(node, report)


_CODEC_NAMES: Final = WordOr(_SAFE, Many(CodecName()))
_SUITES: Final = WordOr(_SAFE, Many(SdpToken("a crypto suite such as AES_CM_128_HMAC_SHA1_80")))
_ATTRIBUTES: Final = Many(SdpToken("an attribute's name (* stands for any text), or webrtc", globs=True))
_PTIME: Final = Keys(
    {"default-ms": Field(Whole(1, MAX_PTIME_MS)), "allowed-ms": Field(Many(Whole(1, MAX_PTIME_MS)))},
)


def _switched(edit: Callable[[Editor], None]) -> Callable[[Any], Operation]:
    operation: Operation = lambda editor, draft, context: edit(editor)  # noqa: E731 - one of a kind with the others
    return lambda wanted: operation


SDP_OPERATIONS: Final[dict[str, tuple[Field, Callable[[Any], Operation]]]] = {
    "keep-media": (Field(Many(SdpToken("audio, video, image, text, application or message"))), _keep_media),
    "codecs": (Field(_CODEC_NAMES), _codecs),
    "deny-codecs": (Field(Many(CodecName())), _deny_codecs),
    "order-codecs": (Field(_CODEC_NAMES), _order_codecs),
    "static-rtpmaps": (Field(Switch()), _switched(Editor.add_static_rtpmaps)),
    "drop-dangling": (Field(Switch()), _switched(Editor.drop_dangling)),
    "required-lines": (Field(Switch()), _switched(Editor.add_required_lines)),
    "ptime": (Field(FlagOr(_PTIME)), _ptime),
    "crypto": (Field(_SUITES), _crypto),
    "drop-attributes": (Field(_ATTRIBUTES), _drop_attributes),
    "keep-attributes": (Field(_ATTRIBUTES), _keep_attributes),
    "drop-bandwidth": (
        Field(FlagOr(Many(SdpToken("a bandwidth type such as AS or TIAS")))),
        _drop_bandwidth,
    ),
    "direction": (Field(Word(DIRECTIONS)), _direction),
    "origin-address": (Field(TemplateKind()), _origin_address),
    "origin-user": (Field(TemplateKind()), _origin_user),
    "connection-address": (Field(TemplateKind()), _connection_address),
    "session-name": (Field(TemplateKind()), _session_name),
}
"""The operations of `sdp`, by key: what each takes and how it is compiled."""


def _compile(values: Values, node: Node, report: Report) -> Action | None:
    if not values:
        report.add(node, "changes nothing", ", ".join(SDP_OPERATIONS))
        return None
    operations = tuple([SDP_OPERATIONS[name][1](value) for name, value in values.items()])

    def run(draft: Draft, context: Context) -> None:
        editor = draft.sdp
        if editor is None:
            return
        try:
            for operation in operations:
                operation(editor, draft, context)
        except SdpError as error:
            raise RuleReject(488, error.reason, draft.step) from error

    return Action(run, needs_sdp=True)


SDP_ACTION: Final = ActionSpec(
    Keys({name: field for name, (field, _) in SDP_OPERATIONS.items()}, "is not an operation on the SDP"), _compile
)
"""The action `sdp`: operations on the session description, in the order in which they are written."""
