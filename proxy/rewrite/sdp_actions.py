"""`do: sdp`: actions on the session description, compiled to functions on its editor."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from proxy.rewrite.action import Action, ActionSpec
from proxy.rewrite.engine import Context, RuleReject
from proxy.rewrite.names import glob_test
from proxy.rewrite.nodes import Node, Report
from proxy.rewrite.schema import Field, FlagOr, Keys, Many, Mapped, Switch, Values, Whole, Word, WordOr
from proxy.rewrite.sdp_facts import DIRECTIONS, PROFILES, CodecName, SdpToken
from proxy.rewrite.templates import Template, TemplateKind
from proxy.sdp.editor import MAX_PTIME_MS, WEBRTC_ATTRIBUTES, Editor
from proxy.sdp.errors import SdpError
from proxy.sdp.renumber import renumber
from proxy.sdp.session import Media, keying_of

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
        for name in editor.session.attribute_names():
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


def _drop_media(kinds: list[str]) -> Operation:
    def operation(editor: Editor, draft: Draft, context: Context) -> None:
        present = {media.kind for media in editor.session.media}
        if not present.isdisjoint(kinds):
            editor.keep_media([kind for kind in present if kind not in kinds])

    return operation


def _payloads(numbers: dict[str, int]) -> Operation:
    return lambda editor, draft, context: renumber(editor, numbers)


def _profile(profile: str) -> Operation:
    """Another RTP profile. Between RTP and SRTP the media itself would have to change, so it must be anchored."""

    def operation(editor: Editor, draft: Draft, context: Context) -> None:
        for index in range(len(editor.session.media)):
            media = editor.session.media[index]
            if not media.is_rtp or not media.port or media.protocol == profile:
                continue
            if keying_of(media.protocol) != keying_of(profile) and not context.media_anchored:
                raise SdpError(
                    f"{media.protocol} can't become {profile}: the media goes past Trunkline, which would have to "
                    f"{'decrypt' if keying_of(profile) == 'none' else 'encrypt'} it; anchor the media, or let both "
                    f"sides speak {media.protocol}"
                )
            editor.set_media(index, protocol=profile)

    return operation


def _usable(editor: Editor, kind: str = "") -> list[Media]:
    return [media for media in editor.session.media if media.port and kind in ("", media.kind)]


def _milliseconds(name: str) -> Callable[[int], Operation]:
    def compiled(number: int) -> Operation:
        def operation(editor: Editor, draft: Draft, context: Context) -> None:
            for media in _usable(editor, "audio"):
                editor.set_attribute(name, str(number), media.index)

        return operation

    return compiled


def _set_attributes(session: bool) -> Callable[[dict[str, Template]], Operation]:
    """Attributes with a value, or without one where the text is empty, in the session or in each usable stream."""

    def compiled(templates: dict[str, Template]) -> Operation:
        renders = tuple([(name, template.render()) for name, template in templates.items()])

        def operation(editor: Editor, draft: Draft, context: Context) -> None:
            places = [None] if session else [media.index for media in _usable(editor)]
            for name, render in renders:
                text = render(draft, context)
                for place in places if text is not None else ():
                    try:
                        editor.set_attribute(name, text or None, place)
                    except ValueError:
                        return

        return operation

    return compiled


def _set_bandwidth(limits: dict[str, int]) -> Operation:
    def operation(editor: Editor, draft: Draft, context: Context) -> None:
        for media in _usable(editor):
            for kind, number in limits.items():
                _bandwidth_of(editor, media.index, f"b={kind}:", str(number))

    return operation


def _bandwidth_of(editor: Editor, index: int, prefix: str, number: str) -> None:
    """Make `prefix` and `number` the one line of its type in a stream, in the order of RFC 8866 section 5."""
    media, lines = editor.session.media[index], editor.session.lines
    places = [at for at in range(media.start + 1, media.end) if lines[at].startswith(prefix)]
    if not places:
        at = media.start + 1
        while at < media.end and lines[at][0] in "icb":
            at += 1
        editor.insert(at, prefix + number)
        return
    for at in reversed(places[1:]):
        editor.remove(at)
    editor.replace(places[0], prefix + number)


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


class SettableAttribute(SdpToken):
    """The name of an attribute that a rule may set."""

    def read(self, node: Node, report: Report) -> str | None:
        """Read a name; attributes that have operations of their own are refused."""
        name = super().read(node, report)
        instead = _OWN_OPERATION.get(name or "")
        if instead:
            report.add(node, "is not set as an attribute", instead)
            return None
        return name


_OWN_OPERATION: Final = {
    "rtpmap": "codecs, payloads",
    "fmtp": "codecs, payloads",
    "crypto": "crypto",
    "ptime": "ptime, ptime-ms",
    "maxptime": "ptime, maxptime-ms",
    **dict.fromkeys(DIRECTIONS, "direction"),
}
_SET_ATTRIBUTES: Final = Mapped(SettableAttribute("an attribute's name"), TemplateKind(allow_empty=True))
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
    "drop-media": (Field(Many(SdpToken("audio, video, image, text, application or message"))), _drop_media),
    "codecs": (Field(_CODEC_NAMES), _codecs),
    "deny-codecs": (Field(Many(CodecName())), _deny_codecs),
    "order-codecs": (Field(_CODEC_NAMES), _order_codecs),
    "static-rtpmaps": (Field(Switch()), _switched(Editor.add_static_rtpmaps)),
    "drop-dangling": (Field(Switch()), _switched(Editor.drop_dangling)),
    "required-lines": (Field(Switch()), _switched(Editor.add_required_lines)),
    "ptime": (Field(FlagOr(_PTIME)), _ptime),
    "payloads": (Field(Mapped(CodecName(), Whole(0, 127))), _payloads),
    "profile": (Field(Word(PROFILES)), _profile),
    "ptime-ms": (Field(Whole(1, MAX_PTIME_MS)), _milliseconds("ptime")),
    "maxptime-ms": (Field(Whole(1, MAX_PTIME_MS)), _milliseconds("maxptime")),
    "crypto": (Field(_SUITES), _crypto),
    "drop-attributes": (Field(_ATTRIBUTES), _drop_attributes),
    "keep-attributes": (Field(_ATTRIBUTES), _keep_attributes),
    "drop-bandwidth": (
        Field(FlagOr(Many(SdpToken("a bandwidth type such as AS or TIAS")))),
        _drop_bandwidth,
    ),
    "set-attributes": (Field(_SET_ATTRIBUTES), _set_attributes(session=False)),
    "set-session-attributes": (Field(_SET_ATTRIBUTES), _set_attributes(session=True)),
    "set-bandwidth": (
        Field(Mapped(SdpToken("a bandwidth type such as AS or TIAS"), Whole(0, 2**31))),
        _set_bandwidth,
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
    Keys({name: field for name, (field, _) in SDP_OPERATIONS.items()}, "is not an operation on the SDP"),
    _compile,
    "Operations on the SDP, done in the order in which they are written.",
)
"""The action `sdp`: operations on the session description, in the order in which they are written."""
